"""A + E = V diag(l) V^-1: what perturb-then-diagonalise returns, and how it is measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg

from neuralsolve.ssm import hippo
from neuralsolve.ssm.arrays import Array
from neuralsolve.ssm.resonances import frequency_grid, largest
from neuralsolve.ssm.transfer import DenseResolvent

STABLE = 1e-8  # of ||A||: eigenvalues that far left of the axis make A stable for a comparison on it
POINTS = {1: 20_000}  # of the frequency grid, by columns of B; else:
FEW_POINTS = 400


@dataclass(frozen=True)
class Diagonalised:
    """A nearby matrix that can be diagonalised, A + E = V diag(eigenvalues) V^-1.

    Arrays are NumPy's, or torch tensors where A was one.

    Attributes
    ----------
    eigenvalues : (n,) complex128, sorted by |Im|, then Re, Im > 0 first in a conjugate pair
    V : (n, n) complex128, eigenvectors, columns of length one; those of a pair are conjugate, to the bit
    E : (n, n), real for a real A
    B : (n,) or (n, p) complex128, V^-1 B, or None where ptd had no B
    condition : kappa_2(V)
    size, relative_size : ||E||_2, and over ||A||_2
    margin : -lambda_max((A + A^*)/2)
    stable : True where ||E||_2 < margin proves it, else None; see `abscissa` for what was computed
    error_bound : proved bound of `transfer_error` from the same, else None
    transfer_error : measured max over frequencies of ||(s-A)^-1 B - V (s-l)^-1 V^-1 B||_2, s = line + it
    error_frequency : the t where it is
    line : 0, the imaginary axis; right of the spectrum of A where A is not stable
    """

    eigenvalues: Any
    V: Any
    E: Any
    B: Any
    condition: float
    size: float
    relative_size: float
    margin: float
    stable: bool | None
    error_bound: float | None
    transfer_error: float
    error_frequency: float
    line: float

    @cached_property
    def abscissa(self) -> float:
        """The largest real part of the eigenvalues, as computed."""
        return float(np.real(np.asarray(self.eigenvalues)).max())

    def pairs(self) -> tuple[Array, Array]:
        """Return places (N,) of one of each pair and of the real eigenvalues, and weights (N,), 2 and 1.

        For a complex A no eigenvalue has a partner: all places, and weights of 1.
        """
        imaginary, E = np.imag(np.asarray(self.eigenvalues)), np.asarray(self.E)
        if np.iscomplexobj(E):
            return np.arange(len(imaginary)), np.ones(len(imaginary))
        places = np.flatnonzero(imaginary >= 0)
        return places, np.where(imaginary[places] > 0, 2.0, 1.0)


def eigenpairs(M: Array) -> tuple[Array, Array]:
    """Return eigenvalues (n,) and unit eigenvectors (n, n) in the order of `Diagonalised`.

    >>> eigenpairs(np.array([[0.0, -2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 7.0]]))[0].imag.round(9).tolist()
    [0.0, 2.0, -2.0]
    """
    eigenvalues, V = np.linalg.eig(M)
    eigenvalues, V = eigenvalues.astype(complex), V.astype(complex)
    V /= np.linalg.norm(V, axis=0)
    return in_order(eigenvalues, V)


def in_order(eigenvalues: Array, V: Array) -> tuple[Array, Array]:
    """Return eigenvalues and columns of V sorted by |Im|, then Re, then -Im."""
    x, y = np.real(eigenvalues), np.imag(eigenvalues)
    order = np.lexsort((-y, x, np.abs(y)))
    return eigenvalues[order], V[:, order]


def normal_eigenpairs(A: Array) -> tuple[Array, Array]:
    """Return eigenvalues and unitary V of a normal A in the same order, repeated eigenvalues included.

    From the Schur form, which is diagonal for a normal matrix; the real one for a real A, where pairs are
    2 x 2 blocks [[a, b], [-b, a]] with eigenvectors (1, +-i)/sqrt 2, so that they are conjugate to the bit.
    """
    if np.iscomplexobj(A):
        T, Q = scipy.linalg.schur(A, output="complex")[:2]
        eigenvalues, V = np.diag(T).copy(), Q
    else:
        T, Q = scipy.linalg.schur(A, output="real")[:2]
        eigenvalues, V = np.diag(T).astype(complex), np.asarray(Q).astype(complex)
        for i in np.flatnonzero(np.diag(T, -1)):
            b = (T[i, i + 1] - T[i + 1, i]) / 2
            eigenvalues[i : i + 2] = (T[i, i] + T[i + 1, i + 1]) / 2 + np.array([1j, -1j]) * b
            V[:, i : i + 2] = Q[:, i : i + 2] @ np.array([[1, 1], [1j, -1j]]) / np.sqrt(2)
    return in_order(eigenvalues, V)


class Reference:
    """The system that an approximation is compared with: A, B, its resolvent and the line it is taken on.

    Attributes
    ----------
    A, B : (n, n), (n, p); B is the identity where none was given
    shifted : A - line I, stable: everything is compared on its imaginary axis
    norm : ||A||_2
    abscissa : largest real part of the eigenvalues of `shifted`, negative
    legs : whether this is HiPPO-LegS itself, whose closed form is exact where a solve is not
    """

    def __init__(self, A: Array, B: Array | None):
        n = len(A)
        self.A, self.B = A, np.eye(n) if B is None else B.reshape(n, -1)
        self.norm = float(np.linalg.norm(A, 2))
        eigenvalues = np.linalg.eigvals(A)
        top = float(eigenvalues.real.max())
        unit = self.norm or 1.0
        self.line = 0.0 if top < -STABLE * unit else top + 0.1 * unit
        self.abscissa = top - self.line
        self.shifted = A - self.line * np.eye(n)
        self.poles = eigenvalues.astype(complex) - self.line  # frequencies of interest, and their widths
        legs_A, legs_B = hippo.legs(n)
        self.legs = B is not None and np.array_equal(A, legs_A) and np.array_equal(B.ravel(), legs_B)
        if self.legs:
            self.poles = -0.5 + 1j * hippo.normal_frequencies(n)  # where its normal part resonates
        self._dense = None if self.legs else DenseResolvent(self.shifted, self.B)

    def __call__(self, t: Array) -> Array:
        """Return (it - shifted)^-1 B, (T, n, p)."""
        if self._dense is None:
            return hippo.resolvent(len(self.A), 1j * t)[:, :, None]
        return self._dense(1j * t)

    def grid(self, points: int, eigenvalues: Any = (), wide: bool = False) -> Array:
        """Return frequencies: 0, logarithmic ones, near the eigenvalues; of both signs for complex systems.

        From a tenth of the slowest rate to five times ||A||, or 1/100 of the rate to 15 ||A||.
        """
        slow, fast = abs(self.abscissa) / (100 if wide else 10), (15 if wide else 5) * (self.norm or 1.0)
        near = np.concatenate([np.asarray(eigenvalues, complex).ravel(), self.poles])
        grid = frequency_grid(slow, max(fast, 2 * slow), near if wide else (), points)
        grid = np.union1d(grid, np.abs(np.imag(self.poles)))
        real = not (np.iscomplexobj(self.A) or np.iscomplexobj(self.B))
        return grid if real else np.union1d(-grid, grid)

    def error(self, eigenvalues: Array, V: Array, b: Array, t: Array, spectral: bool = True) -> Array:
        """Return ||(it - shifted)^-1 B - V (it - l)^-1 b|| at t (T,), l the eigenvalues less `line`."""
        poles = eigenvalues - self.line
        out = []
        for part in np.array_split(t, t.size * self.B.size // 2_000_000 + 1):
            states = b / (1j * part[:, None, None] - poles[:, None])
            gap = self(part) - np.moveaxis(np.tensordot(V, states, (1, 1)), 0, 1)
            one = gap.shape[2] == 1 or not spectral
            out.append(np.linalg.norm(gap, axis=(1, 2)) if one else np.linalg.norm(gap, 2, axis=(1, 2)))
        return np.concatenate(out)

    def worst_error(self, eigenvalues: Array, V: Array, b: Array) -> tuple[float, float]:
        """Return the frequency and the value of the largest error: fine grid, eigenvalues, refinement."""
        points = POINTS.get(self.B.shape[1], FEW_POINTS)
        grid = self.grid(points, eigenvalues - self.line, wide=True)
        return largest(lambda t: self.error(eigenvalues, V, b, t), grid)
