"""Sweeps of SOR on the systems of "Learning to Relax", counted in numba for many omegas at once.

The systems (Khodak et al. 2024, sec. 4; their released code): (A + c_t I) x = b_t, A the 5-point Laplacian on
10 x 10 interior points, unscaled (diagonal 4), c_t = -0.15 + 0.6 Beta(1/2, 3/2) ("high") or
-0.15 + 0.6 Beta(2, 6) ("low"), b_t standard normal, drawn again while ||b_t|| > sqrt(n). The cost of omega is
the number of sweeps from x = 0 until ||b - A x|| < 1e-8 ||b||, at most 10 000.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

SIDE = 10
DIAGONAL = 4.0
RANGE = (-0.15, 0.65)  # of the context, as in the released code
TOLERANCE, CAP = 1e-8, 10_000
ARMS = np.linspace(1.0, 1.95, 20)
BETA = {"high": (0.5, 1.5), "low": (2.0, 6.0)}


@dataclass(frozen=True)
class Systems:
    """Shifts c (T,) and right-hand sides b (T, n) of a sequence of solves."""

    c: np.ndarray
    b: np.ndarray


def draw_systems(kind: str, seed: int, count: int = 5000) -> Systems:
    """Draw the sequence "high" or "low"."""
    random = np.random.default_rng(seed)
    n = SIDE * SIDE
    c = RANGE[0] + 0.6 * random.beta(*BETA[kind], size=count)
    b = random.standard_normal((count, n))
    while len(long := np.flatnonzero((b * b).sum(axis=1) > n)):
        b[long] = random.standard_normal((len(long), n))
    return Systems(c, b)


def best_omega(c: np.ndarray | float) -> np.ndarray | float:
    """Return Young's omega* = 2 / (1 + sqrt(1 - beta^2)) with beta = 4 cos(pi / (m + 1)) / (4 + c)."""
    beta = DIAGONAL * np.cos(np.pi / (SIDE + 1)) / (DIAGONAL + c)
    return 2 / (1 + np.sqrt(1 - beta**2))


@numba.njit(cache=True, nogil=True)
def count_sweeps(b, diagonal, omega, tolerance, cap, norms):
    """Return the sweeps that SOR takes for b (n,) on a square grid, at most `cap`; `norms` get ||b - A x||.

    `norms` (any length) is filled as far as it reaches, the initial norm first. x has a frame of zeros, so
    that no point asks whether it has a neighbour.
    """
    side = int(np.sqrt(b.size))
    x = np.zeros((side + 2, side + 2))
    first = np.sqrt(np.sum(b * b))
    if norms.size:
        norms[0] = first
    scale = omega / diagonal
    for sweep in range(1, cap + 1):
        for i in range(side):
            for j in range(side):
                around = x[i, j + 1] + x[i + 1, j] + x[i + 1, j + 2] + x[i + 2, j + 1]
                x[i + 1, j + 1] += scale * (b[i * side + j] + around - diagonal * x[i + 1, j + 1])
        total = 0.0
        for i in range(side):
            for j in range(side):
                around = x[i, j + 1] + x[i + 1, j] + x[i + 1, j + 2] + x[i + 2, j + 1]
                total += (b[i * side + j] + around - diagonal * x[i + 1, j + 1]) ** 2
        norm = np.sqrt(total)
        if sweep < norms.size:
            norms[sweep] = norm
        if norm < tolerance * first:
            return sweep
    return cap


@numba.njit(cache=True, nogil=True)
def _fill(b, c, omegas, out):
    none = np.zeros(0)
    for t in range(len(c)):
        for i in range(len(omegas)):
            out[t, i] = count_sweeps(b[t], DIAGONAL + c[t], omegas[i], TOLERANCE, CAP, none)


def count_table(systems: Systems, omegas: np.ndarray = ARMS) -> np.ndarray:
    """Return the costs (T, d) of every omega on every system."""
    out = np.empty((len(systems.c), len(omegas)))
    _fill(systems.b, systems.c, np.asarray(omegas, dtype=np.float64), out)
    return out


def count_each(systems: Systems, omegas: np.ndarray) -> np.ndarray:
    """Return the costs (T,) of omegas (T,), one for each system."""
    none = np.zeros(0)
    return np.array(
        [
            count_sweeps(b, DIAGONAL + c, w, TOLERANCE, CAP, none)
            for b, c, w in zip(systems.b, systems.c, omegas, strict=True)
        ],
        dtype=np.float64,
    )
