"""The distribution of Tsallis-INF by Newton's method, the draw from it, and its scores, in numba."""

from __future__ import annotations

import numba
import numpy as np

STEPS = 100  # twenty suffice in practice; a hundred are a guard, after which p is still a distribution


@numba.njit(cache=True, nogil=True, error_model="numpy")
def tsallis_distribution(scores, scale, eta, p):
    """p_i = 4 / (eta (scores_i / scale - x))^2 with x such that the sum is 1.

    scores (d,), p (d,) overwritten. Newton on f(x) = sum p - 1, x <- x - f / (eta sum p^(3/2)), from
    x = min - 2/eta, where f >= 0: f is convex and increasing below min, so the steps go down to the root
    without overshoot. The least score is taken off first, for scores far above 1/eps would otherwise eat
    the digits of x; the last rounding is removed by dividing by the sum.
    """
    least = scores.min()
    x = -2.0 / eta
    before = np.inf
    total = 1.0
    for _ in range(STEPS):
        total, slope = 0.0, 0.0
        for i in range(scores.size):
            root = 2.0 / (eta * ((scores[i] - least) / scale - x))  # sqrt(p_i)
            p[i] = root * root
            total += p[i]
            slope += p[i] * root
        excess = total - 1.0
        if not 1e-15 < excess < before:  # monotone: the first stall is rounding
            break
        before = excess
        x -= excess / (eta * slope)
    for i in range(scores.size):
        p[i] /= total


@numba.njit(cache=True, nogil=True)
def draw(p, uniform):
    """Return the arm that a number from [0, 1) draws from p (d,)."""
    reached = 0.0
    for i in range(p.size):
        reached += p[i]
        if uniform < reached:
            return i
    return np.argmax(p)  # the sum fell short of 1 by rounding


@numba.njit(cache=True, nogil=True)
def charge(scores, p, drawn, cost, means, pulls, level, clip):
    """scores_j += B_j + max((cost - B_j) / p_j [j drawn], -clip), B_j = min(mean cost of j, level).

    All (d,) but drawn, cost, level and clip. level = 0 makes every B_j zero, and the estimate plain.
    """
    for j in range(scores.size):
        expected = min(means[j], level) if pulls[j] > 0 else 0.0
        scores[j] += expected
        if j == drawn:
            scores[j] += max((cost - expected) / p[j], -clip)
