"""Young's theory of SOR as a model of its cost, and the fit of that model, in numba.

For a consistently ordered A whose Jacobi matrix has the radius beta < 1 (Young 1971, sec. 6.2),

    omega* = 2 / (1 + sqrt(1 - beta^2)),
    rho(omega) = omega - 1 for omega >= omega*,
                 else ((omega beta + sqrt(omega^2 beta^2 - 4(omega - 1))) / 2)^2.

The model of the cost, with theta = (ln g_0, ln g_1, ln C, kappa, s), is

    1/beta(u) = 1 + (1 - u) g_0 + u g_1,        cost = C (e^(s [omega < omega*]) / (-ln rho) + kappa):

u in [0, 1] is the place of the context in its range, and 1/beta is linear in the context, as for A + c I
where A has a constant diagonal d0: 1/beta(c) = (1 + c/d0)/beta(0). C holds the unknown tolerance and the
unit of the cost, kappa the first sweeps, before the rate shows. Below omega* one mode is slower than all
others and has but a part of the residual; above all moduli are equal: hence s < 0, about -0.1.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from neuralsolve.tuning.cheb_fit import solve_free

SIZE = 5  # of theta
NOISE = 0.05  # of ln cost; residuals beyond twice this count linearly (Huber)
CENTRE = np.array([-3.0, -3.0, 0.0, 0.2, -0.1])
SPREAD = np.array([3.0, 3.0, 20.0, 0.15, 0.05])
LONGEST = 1.0  # step of a coefficient
ENOUGH = 1e-3  # fall of the objective below which the fit stops


@numba.njit(cache=True, nogil=True)
def best_omega(theta, u):
    """Return omega* at the place u of the context."""
    beta = jacobi_radius(theta, u)
    return 2 / (1 + math.sqrt(1 - beta * beta))


@numba.njit(cache=True, nogil=True)
def jacobi_radius(theta, u):
    """Return beta at the place u of the context."""
    return 1 / (1 + (1 - u) * math.exp(theta[0]) + u * math.exp(theta[1]))


@numba.njit(cache=True, nogil=True)
def log_cost(theta, u, omega, slope):
    """Return ln cost, and its derivatives by theta in `slope` (5,)."""
    low, high = (1 - u) * math.exp(theta[0]), u * math.exp(theta[1])
    beta = 1 / (1 + low + high)
    under = omega * omega * beta * beta - 4 * (omega - 1)
    part, rate_slope = 1.0, 0.0
    if under > 0:
        root = math.sqrt(under)
        radius = (omega * beta + root) / 2  # sqrt(rho)
        rate = -2 * math.log(radius)
        rate_slope = -(omega + omega * omega * beta / root) / radius  # by beta
        part = math.exp(theta[4])
    else:
        rate = -math.log(max(omega - 1, 1e-12))
    sweeps = part / rate
    total = max(sweeps + theta[3], 1e-3)
    by_g = sweeps / total / rate * rate_slope * beta * beta  # d beta / d g = -beta^2
    slope[0], slope[1] = by_g * low, by_g * high
    slope[2], slope[3] = 1.0, 1 / total
    slope[4] = sweeps / total if under > 0 else 0.0
    return theta[2] + math.log(total)


@numba.njit(cache=True, nogil=True)
def _objective(theta, u, omega, target, slope):
    total = 0.0
    for j in range(SIZE):
        total += ((theta[j] - CENTRE[j]) / SPREAD[j]) ** 2
    for i in range(u.size):
        r = abs(target[i] - log_cost(theta, u[i], omega[i], slope)) / NOISE
        total += r * r if r < 2 else 4 * r - 4
    return total


@numba.njit(cache=True, nogil=True)
def descend(theta, u, omega, target, steps):
    """Lower the objective by at most `steps` of Levenberg-Marquardt from theta (5,), which is overwritten."""
    slope, right, gram = np.empty(SIZE), np.empty(SIZE), np.empty((SIZE, SIZE))
    factor, step, free = np.empty((SIZE, SIZE)), np.empty(SIZE), np.zeros(SIZE, np.int64)
    damping = 1e-3
    now = _objective(theta, u, omega, target, slope)
    for _ in range(steps):
        gram[:] = 0.0
        for j in range(SIZE):
            gram[j, j] = SPREAD[j] ** -2
            right[j] = (CENTRE[j] - theta[j]) * SPREAD[j] ** -2
        for i in range(u.size):
            r = (target[i] - log_cost(theta, u[i], omega[i], slope)) / NOISE
            weight = (1.0 if abs(r) < 2 else 2 / abs(r)) / NOISE
            for a in range(SIZE):
                right[a] += weight * r * slope[a]
                for b in range(a + 1):
                    gram[a, b] += weight / NOISE * slope[a] * slope[b]
        for a in range(SIZE):
            for b in range(a):
                gram[b, a] = gram[a, b]
        fell = 0.0
        for _try in range(4):
            damped = gram.copy()
            for j in range(SIZE):
                damped[j, j] *= 1 + damping
            solve_free(damped, right, theta, free, factor, step)
            trial = theta + np.minimum(np.maximum(step, -LONGEST), LONGEST)
            then = _objective(trial, u, omega, target, slope)
            if then < now:
                fell, now = now - then, then
                theta[:] = trial
                damping = max(damping / 5, 1e-6)
                break
            damping *= 5
        if fell < ENOUGH:
            break
    return now


@numba.njit(cache=True, nogil=True)
def fit(theta, u, omega, target, shift, everywhere):
    """Fit theta (5,) to ln costs `target` at (u, omega), all (n,).

    The objective has many minima, for the model has a corner at omega* and a cost above it tells nothing of
    beta. Hence a second start, shifted by `shift` (2,) in (ln g_0, ln g_1), drawn anew by the caller each
    time; and 25 starts between g = 1e-3 and 0.6 where `everywhere`.
    """
    best = descend(theta, u, omega, target, 4)
    trial = theta.copy()
    trial[:2] += shift
    best = _keep(theta, trial, best, u, omega, target)
    if everywhere:
        for a in range(5):
            for b in range(5):
                trial[:] = theta
                trial[0], trial[1] = -7 + 1.6 * a, -7 + 1.6 * b
                best = _keep(theta, trial, best, u, omega, target)
    return best


@numba.njit(cache=True, nogil=True)
def _keep(theta, trial, best, u, omega, target):
    reached = descend(trial, u, omega, target, 4)
    if reached < best - 1e-9:
        theta[:] = trial
        return reached
    return best


@numba.njit(cache=True, nogil=True)
def residuals(theta, u, omega, target, out):
    """Write observed minus modelled ln cost to out (n,)."""
    slope = np.empty(SIZE)
    for i in range(u.size):
        out[i] = target[i] - log_cost(theta, u[i], omega[i], slope)
