"""What is minimised: a function under equality constraints, its derivatives, and what evaluating it cost.

    minimise f(x) subject to c(x) = 0,  x in R^n, c in R^m,     L(x, lam) = f + lam . c

Matrices may be dense or SciPy sparse; vectors are NumPy in float64. `Evaluations` is the one place that calls
a problem: it checks shapes, counts, and gives NaN and infinity back as they are, for the line search to step
back from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError, StructureError

Matrix: TypeAlias = Any  # (rows, columns), NumPy or SciPy sparse
Vector: TypeAlias = np.ndarray


SYMMETRIC = 1e-6  # of the largest entry: what central differences and single precision leave


@dataclass(frozen=True)
class EqualityProblem:
    """A function and its equality constraints, by their values and derivatives.

    Parameters
    ----------
    x0 : (n,), where to start
    fun : x -> f(x)
    jac : x -> its gradient (n,)
    hess : x -> its Hessian (n, n), dense or sparse
    constraint : x -> c(x) (m,); None for no constraints
    constraint_jac : x -> the Jacobian of c (m, n), dense or sparse
    constraint_hess : x, v -> sum_i v_i (Hessian of c_i) (n, n); None where c is linear
    multipliers0 : (m,), multipliers to begin with; None: those of least squares
    kkt_preconditioner : Hessian of L (n, n), Jacobian (m, n) -> M: r (n + m,) -> M r, symmetric positive
        definite, near the inverse of |KKT matrix|; None: there is none. With it, steps are found by MINRES.

    Raises
    ------
    ShapeError
        x0 that is no vector.
    OptionError
        What should be a function and is none; constraints without a Jacobian.

    Examples
    --------
    >>> problem = EqualityProblem(
    ...     np.array([2.0, 1.0]), lambda x: x @ x, lambda x: 2 * x, lambda x: 2 * np.eye(2),
    ...     lambda x: np.array([x.sum() - 1]), lambda x: np.ones((1, 2)),
    ... )
    >>> problem.n
    2
    """

    x0: Vector
    fun: Callable[[Vector], float]
    jac: Callable[[Vector], Vector]
    hess: Callable[[Vector], Matrix]
    constraint: Callable[[Vector], Vector] | None = None
    constraint_jac: Callable[[Vector], Matrix] | None = None
    constraint_hess: Callable[[Vector, Vector], Matrix] | None = None
    multipliers0: Vector | None = None
    kkt_preconditioner: Callable[[Matrix, Matrix], Callable[[Vector], Vector]] | None = None

    def __post_init__(self) -> None:
        for name in ("fun", "jac", "hess"):
            if not callable(getattr(self, name)):
                msg = f"{name} = {getattr(self, name)!r:.80}; a function of x is needed"
                raise OptionError(msg)
        if np.ndim(self.x0) != 1 or not np.size(self.x0):
            msg = f"x0 has the shape {np.shape(self.x0)}; (n,) with n >= 1 is needed: x0.ravel() makes it one"
            raise ShapeError(msg)
        if (self.constraint is None) != (self.constraint_jac is None):
            msg = "constraint and constraint_jac are needed together, or neither"
            raise OptionError(msg)

    @property
    def n(self) -> int:
        """Unknowns."""
        return len(self.x0)


@dataclass(frozen=True)
class Point:
    """Values at an x.

    Attributes
    ----------
    x : (n,)
    f, c : of the function, and of the constraints (m,)
    g, G : the gradient of f (n,) and the Jacobian of c (m, n)
    """

    x: Vector
    f: float
    c: Vector
    g: Vector
    G: Matrix

    @property
    def finite(self) -> bool:
        """Whether all of it are numbers."""
        return finite(self.G) and all(bool(np.isfinite(v).all()) for v in (self.f, self.c, self.g))

    def slope(self, lam: Vector) -> Vector:
        """Return the gradient of the Lagrangian in x."""
        return self.g + self.G.T @ lam

    def residual(self, lam: Vector) -> float:
        """Return the KKT residual ||(grad_x L, c)||_2."""
        return float(np.hypot(np.linalg.norm(self.slope(lam)), np.linalg.norm(self.c)))


class Budget(Exception):
    """Raised where the evaluations that were allowed are used up."""


class Evaluations:
    """A problem, what it is asked, and how often.

    Parameters
    ----------
    problem : what is asked
    maxfun : values of f after which `Budget` is raised

    Attributes
    ----------
    nfev, njev, nhev : values, gradients and Hessians of f; those of c are asked as often
    """

    def __init__(self, problem: EqualityProblem, maxfun: int):
        self.problem, self.maxfun = problem, maxfun
        self.nfev = self.njev = self.nhev = 0
        self.m: int | None = None

    def values(self, x: Vector) -> tuple[float, Vector]:
        """Return f and c."""
        if self.nfev >= self.maxfun:
            raise Budget
        self.nfev += 1
        f = np.asarray(self.problem.fun(x.copy()), float)
        if f.size != 1:
            msg = f"fun returned the shape {f.shape}; one number is needed"
            raise ShapeError(msg)
        c = np.zeros(0)
        if self.problem.constraint is not None:
            c = np.atleast_1d(np.array(self.problem.constraint(x.copy()), float))
        self._fits("constraint", c.shape, (len(c) if self.m is None else self.m,))
        if self.m is None:
            self.m = len(c)
            if self.m > len(x):
                msg = f"{self.m} constraints on {len(x)} unknowns; at most as many as unknowns are needed"
                raise ShapeError(msg)
        return float(f.reshape(())), c

    def point(self, x: Vector, values: tuple[float, Vector] | None = None) -> Point:
        """Return values and first derivatives; the values are not asked for again where they are given."""
        f, c = values or self.values(x)
        self.njev += 1
        g = np.array(self.problem.jac(x.copy()), float)  # copies: callers may fill one buffer again and again
        self._fits("jac", g.shape, x.shape)
        G: Matrix = np.zeros((0, len(x)))
        if self.problem.constraint_jac is not None:
            G = _matrix(self.problem.constraint_jac(x.copy()))
            G = G.reshape(1, -1) if G.ndim == 1 else G
        self._fits("the Jacobian of the constraints", G.shape, (len(c), len(x)))
        return Point(x, f, c, g, G)

    def hessian(self, x: Vector, lam: Vector) -> Matrix:
        """Return the Hessian of the Lagrangian, sparse if all its parts are.

        Raises
        ------
        NonFiniteError, StructureError
            The first one holds NaN or infinity, or is not symmetric.
        """
        self.nhev += 1
        H = _matrix(self.problem.hess(x.copy()))
        self._fits("hess", H.shape, (len(x), len(x)))
        if self.problem.constraint_hess is not None and len(lam):
            H = self._with_constraints(H, x, lam)
        if self.nhev == 1:
            if not finite(H):
                msg = "NaN or infinity at x0 in a Hessian; start elsewhere, or off the kink"
                raise NonFiniteError(msg)
            if float(abs(H - H.T).max()) > SYMMETRIC * float(abs(H).max()):
                msg = "the Hessian of the Lagrangian is not symmetric at x0; both triangles are needed"
                raise StructureError(msg)
        return H

    def _with_constraints(self, H: Matrix, x: Vector, lam: Vector) -> Matrix:
        assert self.problem.constraint_hess is not None
        more = _matrix(self.problem.constraint_hess(x.copy(), lam.copy()))
        self._fits("the Hessian of the constraints", more.shape, H.shape)
        return _matrix(H + more) if is_sparse(H) and is_sparse(more) else np.asarray(H + more)

    def start(self) -> Point:
        """Return the point at x0.

        Raises
        ------
        NonFiniteError
            Where a value or a derivative is not a number.
        """
        x0 = np.asarray(self.problem.x0, float)
        if not np.isfinite(x0).all():
            msg = f"x0 holds NaN or infinity, the first at {int(np.flatnonzero(~np.isfinite(x0))[0])}"
            raise NonFiniteError(msg)
        point = self.point(x0)
        if not point.finite:
            which = {"fun": point.f, "the constraints": point.c, "jac": point.g}
            bad = [name for name, value in which.items() if not np.isfinite(value).all()]
            where = ", ".join(bad) or "the Jacobian of the constraints"
            msg = f"NaN or infinity at x0 in {where}; start elsewhere"
            raise NonFiniteError(msg)
        return point

    def first_multipliers(self) -> Vector | None:
        """Return the multipliers that the problem begins with, if it says so."""
        given = self.problem.multipliers0
        if given is None:
            return None
        lam = np.asarray(given, float)
        self._fits("multipliers0", lam.shape, (self.m or 0,))
        if not np.isfinite(lam).all():
            msg = "multipliers0 hold NaN or infinity"
            raise NonFiniteError(msg)
        return lam

    @staticmethod
    def _fits(name: str, given: tuple[int, ...], needed: tuple[int, ...]) -> None:
        if given != needed:
            msg = f"{name} has the shape {given}; {needed} is needed"
            raise ShapeError(msg)


def finite(A: Matrix) -> bool:
    """Return whether all entries of a matrix are numbers."""
    return bool(np.isfinite(A.data if is_sparse(A) else A).all())


def is_sparse(A: Matrix) -> bool:
    """Return whether a matrix is one of SciPy's, without loading SciPy for those that are not."""
    return not isinstance(A, np.ndarray) and hasattr(A, "tocsr")


def _matrix(values: Any) -> Matrix:
    """Return a matrix as SciPy's CSR array or NumPy's array, in float64."""
    if is_sparse(values):
        import scipy.sparse

        return scipy.sparse.csr_array(values, dtype=float)
    return np.array(values, float)
