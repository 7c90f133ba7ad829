"""Least squares in a box from a Gram matrix, and the rounds of ChebCB, in numba."""

from __future__ import annotations

import math

import numba
import numpy as np

PASSES = 100  # of the active set; each frees or fixes one coefficient, a dozen suffice in practice
RIDGE = 1e-10  # of the trace: picks the least-norm fit while an arm has fewer costs than coefficients


@numba.njit(cache=True, nogil=True)
def chebyshev(x, out):
    """Write T_0(x), ..., T_(m-1)(x) to out (m,)."""
    out[0] = 1.0
    if out.size > 1:
        out[1] = x
    for j in range(2, out.size):
        out[j] = 2 * x * out[j - 1] - out[j - 2]


@numba.njit(cache=True, nogil=True)
def solve_free(gram, right, x, fixed, factor, target):
    """Solve gram target = right for the coefficients that are not fixed, by Cholesky; the others keep x."""
    m = right.size
    for a in range(m):
        target[a] = x[a]
        if fixed[a] == 0:
            target[a] = right[a]
            for b in range(m):
                if fixed[b] != 0:
                    target[a] -= gram[a, b] * x[b]
    for a in range(m):
        if fixed[a] != 0:
            continue
        for b in range(a + 1):
            if fixed[b] != 0:
                continue
            s = gram[a, b]
            for q in range(b):
                if fixed[q] == 0:
                    s -= factor[a, q] * factor[b, q]
            factor[a, b] = math.sqrt(max(s, 1e-300)) if a == b else s / factor[b, b]
        for q in range(a):
            if fixed[q] == 0:
                target[a] -= factor[a, q] * target[q]
        target[a] /= factor[a, a]
    for a in range(m - 1, -1, -1):
        if fixed[a] == 0:
            for q in range(a + 1, m):
                if fixed[q] == 0:
                    target[a] -= factor[q, a] * target[q]
            target[a] /= factor[a, a]


@numba.njit(cache=True, nogil=True)
def box_fit(gram, right, bounds, x):
    """Minimise x' gram x / 2 - right' x over |x_j| <= bounds_j, gram (m, m) positive definite.

    Primal active set (Nocedal & Wright 2006, alg. 16.3) from x (m,), which becomes the minimiser: step to the
    minimiser of the free coefficients or to the first bound on the way, which is then fixed; at a minimiser,
    free the bound whose multiplier has the wrong sign most. The value falls with each step, so no set of
    bounds comes twice. Returns the passes that it took.
    """
    m = right.size
    fixed = np.zeros(m, np.int64)
    factor, target = np.empty((m, m)), np.empty(m)
    slack = 1e-13
    for j in range(m):
        slack = max(slack, 1e-13 * abs(right[j]))
        x[j] = min(max(x[j], -bounds[j]), bounds[j])
        if abs(x[j]) == bounds[j]:
            fixed[j] = 1 if x[j] > 0 else -1
    for passes in range(PASSES):
        solve_free(gram, right, x, fixed, factor, target)
        step, hit = 1.0, -1
        for j in range(m):
            if fixed[j] == 0 and abs(target[j]) > bounds[j]:
                bound = bounds[j] if target[j] > 0 else -bounds[j]
                part = (bound - x[j]) / (target[j] - x[j])
                if part < step or hit < 0:
                    step, hit = part, j
        for j in range(m):
            if fixed[j] == 0:
                x[j] += step * (target[j] - x[j])
        if hit >= 0:
            fixed[hit] = 1 if target[hit] > 0 else -1
            x[hit] = fixed[hit] * bounds[hit]
            continue
        worst, freed = slack, -1
        for j in range(m):
            if fixed[j] != 0:
                gradient = -right[j]
                for q in range(m):
                    gradient += gram[j, q] * x[q]
                if gradient * fixed[j] > worst:
                    worst, freed = gradient * fixed[j], j
        if freed < 0:
            return passes + 1
        fixed[freed] = 0
    return PASSES


@numba.njit(cache=True, nogil=True)
def refit(gram, right, squares, ridge, bounds, theta):
    """Fit one arm, theta (m,) overwritten, and return its sum of squared residuals."""
    m = right.size
    trace = 0.0
    for j in range(m):
        trace += gram[j, j]
    regular = gram.copy()
    for j in range(m):
        regular[j, j] += RIDGE * trace + ridge * j * j
    box_fit(regular, right, bounds, theta)
    residual = squares
    for j in range(m):
        residual -= 2 * theta[j] * right[j]
        for q in range(m):
            residual += theta[j] * gram[j, q] * theta[q]
    return max(residual, 0.0)


@numba.njit(cache=True, nogil=True)
def distribution(theta, phi, eta, predicted, p):
    """Inverse-gap weights: p_j = 1 / (d + eta (y_j - min y)) for j != argmin y, y = theta phi; sum 1."""
    d = p.size
    for i in range(d):
        predicted[i] = 0.0
        for j in range(phi.size):
            predicted[i] += theta[i, j] * phi[j]
    best = np.argmin(predicted)
    rest = 1.0
    for i in range(d):
        if i != best:
            p[i] = 1 / (d + eta * (predicted[i] - predicted[best]))
            rest -= p[i]
    p[best] = max(rest, 0.0)


@numba.njit(cache=True, nogil=True)
def absorb(gram, right, phi, value):
    """Add one cost to the sums of an arm."""
    for j in range(phi.size):
        right[j] += value * phi[j]
        for q in range(phi.size):
            gram[j, q] += phi[j] * phi[q]
