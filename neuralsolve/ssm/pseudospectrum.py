"""Pseudospectra: what perturbations of a given size can make of the eigenvalues of a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from neuralsolve.lowrank.svd import singular_values
from neuralsolve.ssm.arrays import finite, like, square
from neuralsolve.ssm.transfer import CHUNK


def pseudospectrum(A: Any, x: Any, y: Any) -> Any:
    """Return the least singular value of zI - A at z = x + iy: (len(y), len(x)), float64.

    The eps-pseudospectrum is where it is at most eps: what some perturbation of norm eps can make an
    eigenvalue (Trefethen & Embree, Spectra and Pseudospectra, 2005, thm. 2.1). One Schur form, then an SVD
    of an upper triangular matrix at each point; values below about n eps ||A|| are rounding.

    Raises
    ------
    ShapeError, NonFiniteError

    Examples
    --------
    >>> pseudospectrum(np.diag([1.0, 4.0]), [0.0, 2.0], [0.0]).tolist()  # normal: the distance
    [[1.0, 1.0]]
    """
    given, A = A, square(A)
    x, y = finite(x, "x").ravel(), finite(y, "y").ravel()
    T = np.asarray(scipy.linalg.schur(A.astype(complex), output="complex")[0])
    z = (x + 1j * y[:, None]).ravel()
    blocks = np.array_split(z, z.size * A.size // CHUNK + 1)
    least = [singular_values(part[:, None, None] * np.eye(len(A)) - T)[:, -1] for part in blocks]
    return like(np.concatenate(least).reshape(len(y), len(x)), given)
