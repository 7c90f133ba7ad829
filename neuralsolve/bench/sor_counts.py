"""Sweeps of SOR on the systems of "Learning to Relax", counted for many omegas.

The systems (Khodak et al. 2024, sec. 4; their released code): (A + c_t I) x = b_t, A the 5-point Laplacian on
10 x 10 interior points, unscaled (diagonal 4), c_t = -0.15 + 0.6 Beta(1/2, 3/2) ("high") or
-0.15 + 0.6 Beta(2, 6) ("low"), b_t standard normal, drawn again while ||b_t|| > sqrt(n). The cost of omega is
the number of sweeps from x = 0 until ||b - A x|| < 1e-8 ||b||, at most 10 000.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from neuralsolve.bench.grid_counts import CAP, TOLERANCE, FivePoint, sor_count, sor_table

SIDE = 10
DIAGONAL = 4.0
RANGE = (-0.15, 0.65)  # of the context, as in the released code
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


def count_sweeps(
    b: np.ndarray, diagonal: float, omega: float, tolerance: float, cap: int, norms: np.ndarray
) -> int:
    """Return the sweeps that SOR takes for b (n,) on a square grid, at most `cap`.

    `norms` (any length) gets ||b - A x|| as far as it reaches, the initial one first.
    """
    A = _laplacian(math.isqrt(b.size))
    return sor_count(A, diagonal - DIAGONAL, b, omega, norms, tolerance, cap)


@functools.cache
def _laplacian(side: int) -> FivePoint:
    return FivePoint.laplacian(side)


def count_table(systems: Systems, omegas: np.ndarray = ARMS) -> np.ndarray:
    """Return the costs (T, d) of every omega on every system."""
    return sor_table(_laplacian(SIDE), systems.c, systems.b, omegas)


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
