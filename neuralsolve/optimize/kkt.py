"""The linear system of a Newton step, and the shifts that make its solution a direction of descent.

    [H + shift I   G^T        ] [dx  ]     [g_L]
    [G            -damping I  ] [dlam] = - [ c ]

dx is a minimiser of the quadratic model on the kernel of G if, and only if, the matrix has n positive and m
negative eigenvalues. `shift` is raised from nothing until that holds; `damping` is put in where G has
dependent rows, or where the caller asks for shorter steps towards c = 0.

Dense: Bunch-Kaufman's L D L^T, whose D tells the inertia, of the matrix scaled to rows of about 1 (Sylvester:
the inertia stays). Sparse: LU, which tells none; what is asked of dx instead is curvature, dx . (H + shift I)
dx > 0, which is all that the proof of descent needs (Chiang and Zavala 2016).

The rule by which shifts grow is that of IPOPT (Waechter and Biegler, Math. Program. 106 (2006) 25-57, sec.
3.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from scipy.linalg import get_lapack_funcs
from scipy.sparse.linalg import splu

from neuralsolve.optimize.problem import Matrix, Vector

DAMPING = 1e-8  # where G has dependent rows
FIRST, GROWTH, FASTER, SHRINK = 1e-4, 8.0, 100.0, 3.0  # of shifts
LEAST = 1e-12  # of shifts, over the diagonal of H
MOST = 1e40
FLAT = 1e-14  # pivots of the scaled matrix below it times its size are zero
CURVED = 1e-12
_sytrf, _sytrs = get_lapack_funcs(("sytrf", "sytrs"))  # of float64


@dataclass(frozen=True)
class Step:
    """A direction, and what it took.

    Attributes
    ----------
    dx, dlam : (n,), (m,)
    shift, damping : that were needed
    inner : iterations of an iterative solver
    accuracy : relative residual of the linear system, 0 for a factorisation
    """

    dx: Vector
    dlam: Vector
    shift: float = 0.0
    damping: float = 0.0
    inner: int = 0
    accuracy: float = 0.0


class InnerCap(Exception):
    """Raised where an iterative solver has used up the iterations of a step."""


class StepFinder(Protocol):
    """What finds a step.

    Attributes
    ----------
    name : of it
    forcing : the accuracy that it is asked for at first, relative, where the KKT residual is not smaller
    """

    name: str
    forcing: float

    def step(
        self, H: Matrix, G: Matrix, slope: Vector, c: Vector, shift: float, damping: float, accuracy: float
    ) -> Step | None:
        """Return the step of at least this shift and damping; None where none exists.

        accuracy : relative residual of the linear system that will do; a factorisation does better. An
        iterative solver raises `InnerCap` where its iterations do not suffice.
        """
        ...


class Shifts:
    """The shifts that are tried one after the other, beginning near the last that was needed."""

    def __init__(self) -> None:
        self.last = 0.0

    def tried(self, least: float, scale: float) -> Iterator[float]:
        """Yield `least`, then larger and larger ones; scale is the size of H."""
        yield least
        known = self.last > 0
        shift = max(4 * least, LEAST * scale, self.last / SHRINK if known else FIRST * scale)
        while shift < MOST:
            yield shift
            shift *= GROWTH if known else FASTER

    def took(self, shift: float, least: float) -> None:
        """Remember what was needed beyond what was asked for."""
        if shift > least:
            self.last = shift


class DirectKKT:
    """Steps by a factorisation: dense L D L^T with its inertia, or sparse LU where H and G are sparse."""

    name, forcing = "direct", 0.0

    def __init__(self) -> None:
        self.shifts = Shifts()

    def step(
        self, H: Matrix, G: Matrix, slope: Vector, c: Vector, shift: float, damping: float, accuracy: float
    ) -> Step | None:
        kind = _SparseLU if is_large(H, G) else _LDL
        n, right = len(slope), -np.concatenate([slope, c])
        scale = float(np.abs(H.diagonal()).max()) or 1.0
        for tried in self.shifts.tried(shift, scale):
            factor = kind(H, G, tried, damping)
            if factor.dependent and not damping:
                damping = DAMPING
                factor = kind(H, G, tried, damping)
            d = factor.solution(right)
            if d is not None:
                self.shifts.took(tried, shift)
                return Step(d[:n], d[n:], tried, damping)
        return None


class _LDL:
    """Bunch-Kaufman of the dense matrix, scaled."""

    def __init__(self, H: Matrix, G: Matrix, shift: float, damping: float):
        m, n = G.shape
        self.K, diagonal = np.zeros((n + m, n + m)), np.arange(n + m)
        self.K[:n, :n], self.K[:n, n:], self.K[n:, :n] = dense(H), dense(G).T, dense(G)
        self.K[diagonal, diagonal] += np.repeat([shift, -damping], [n, m])
        self.m, self.finite, self.scales = m, bool(np.isfinite(self.K).all()), np.ones(n + m)
        if not self.finite:
            self.dependent = False
            return
        for _ in range(3):
            largest = np.abs(self.K * self.scales[:, None] * self.scales).max(1)
            self.scales /= np.sqrt(np.where(largest > 0, largest, 1.0))  # a row of zeros stays one
        scaled = self.K * self.scales[:, None] * self.scales
        self.factor, self.pivots, _ = _sytrf(scaled, lower=1)
        single = self.pivots > 0  # a block of two has one eigenvalue of each sign, by the choice of pivots
        D, tiny = np.diag(self.factor)[single], FLAT * (n + m)
        self.zero = int((np.abs(D) <= tiny).sum())
        self.negative = int((-tiny > D).sum()) + int((~single).sum()) // 2
        self.dependent = self.zero > 0 or self.negative < m  # rows of G, as far as can be seen

    @property
    def right(self) -> bool:
        """Whether the inertia is that of a minimum: n positive eigenvalues, m negative ones."""
        return self.finite and not self.zero and self.negative == self.m

    def solution(self, right: Vector) -> Vector | None:
        """Return the solution, refined once, of a matrix of the right inertia; else None."""
        if not self.right:
            return None
        d = self._solve(right)
        d = d + self._solve(right - self.K @ d)
        return d if np.isfinite(d).all() else None

    def _solve(self, right: Vector) -> Vector:
        x, _ = _sytrs(self.factor, self.pivots, right * self.scales, lower=1)
        return x.reshape(-1) * self.scales


def is_minimum(H: Matrix, G: Matrix) -> bool | None:
    """Return whether a KKT point is a strict minimum to second order; None where that cannot be seen.

    That is where matrices are sparse, or G has dependent rows.
    """
    if is_large(H, G):
        return None
    factor = _LDL(H, G, 0.0, 0.0)
    return None if not factor.finite or factor.zero else factor.right


class _SparseLU:
    """LU of the sparse matrix."""

    def __init__(self, H: Matrix, G: Matrix, shift: float, damping: float):
        self.H, self.shift, self.K = H, shift, kkt_matrix(H, G, shift, damping)
        try:
            self.lu = splu(self.K)
        except RuntimeError:  # exactly singular
            self.lu = None
        self.dependent = self.lu is None

    def solution(self, right: Vector) -> Vector | None:
        """Return the solution, refined once, if the model curves upwards along it; else None."""
        if self.lu is None:
            return None
        d = self.lu.solve(right)
        d = d + self.lu.solve(right - self.K @ d)
        n = self.H.shape[0]
        return d if np.isfinite(d).all() and curved(self.H, self.shift, d[:n]) else None


def is_large(H: Matrix, G: Matrix) -> bool:
    """Return whether nothing dense is to be made of the matrices: both are sparse, G where it has rows."""
    return sp.issparse(H) and (sp.issparse(G) or not G.shape[0])


def curved(H: Matrix, shift: float, dx: Vector) -> bool:
    """Return whether the model curves upwards along a step."""
    size = dx @ dx
    return bool(dx @ (H @ dx) + shift * size >= CURVED * size)


def kkt_matrix(H: Matrix, G: Matrix, shift: float, damping: float, format: str = "csc") -> Matrix:
    """Return the matrix of a step, sparse."""
    m, n = G.shape
    below = sp.diags_array(np.full(m, -damping)) if damping else None
    upper = H + shift * sp.eye_array(n) if shift else H
    if not m:
        return sp.csr_array(upper).asformat(format)
    return sp.block_array([[upper, G.T], [G, below]], format=format)


def dense(A: Matrix) -> np.ndarray:
    """Return a matrix as NumPy's."""
    return A.toarray() if sp.issparse(A) else A
