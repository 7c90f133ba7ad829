"""Multipliers from a point alone: those of least squares."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from neuralsolve.optimize.problem import Point, Vector

LARGE = 1e3  # multipliers of a bad start


def least_squares_multipliers(point: Point, cutoff: float | None = None) -> Vector:
    """Return the multipliers of the least ||g + G^T lam||, of a dense G.

    cutoff : singular values of G, over the largest, below which nothing is asked for; None: those of rounding
    """
    if not len(point.c):
        return np.zeros(0)
    return np.linalg.lstsq(point.G.T, -point.g, rcond=cutoff)[0]


def first_multipliers(point: Point, cutoff: float | None = None) -> Vector:
    """Return multipliers to begin with: of least squares, or zero where those are large or G is sparse."""
    if sp.issparse(point.G):
        return np.zeros(len(point.c))
    lam = least_squares_multipliers(point, cutoff)
    return lam if np.abs(lam).max(initial=0) <= LARGE else np.zeros_like(lam)
