"""The constraints that callers of SciPy write down, as one function c(x) = 0 with its derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import LinearConstraint, NonlinearConstraint
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.optimize.derivatives import TorchFunction, differences, symmetric_differences
from neuralsolve.optimize.problem import Matrix, Vector

KEYS = {"type", "fun", "jac", "hess", "args"}
MEND = "equalities alone are known here: scipy.optimize.minimize(method='trust-constr') takes inequalities"


@dataclass(frozen=True)
class Constraint:
    """c(x) = 0.

    Attributes
    ----------
    value : x -> (m,)
    jac : x -> (m, n)
    hess : x, v -> sum of v_i (Hessian of c_i); None where c is linear
    """

    value: Callable[[Vector], Vector]
    jac: Callable[[Vector], Matrix]
    hess: Callable[[Vector, Vector], Matrix] | None


def as_constraint(given: Any, like: Tensor | None) -> Constraint | None:
    """Return all constraints as one; None for none.

    Parameters
    ----------
    given : a function x -> c(x) that is to vanish; {"type": "eq", "fun": ..., "jac": ..., "hess": ...},
        hess of
        x and v; SciPy's LinearConstraint and NonlinearConstraint with lb = ub; a sequence of those
    like : of what kind x is, for torch functions; None for NumPy's

    Raises
    ------
    OptionError
        Inequalities, and what is none of these.
    """
    if given is None:
        return None
    if isinstance(given, Sequence) and not isinstance(given, str):
        parts = [part for each in given if (part := as_constraint(each, like)) is not None]
        return parts[0] if len(parts) == 1 else _stacked(parts) if parts else None
    if isinstance(given, LinearConstraint):
        return _linear(given)
    if isinstance(given, NonlinearConstraint):
        target = _equal(given.lb, given.ub)
        jac = given.jac if callable(given.jac) else None
        hess = given.hess if callable(given.hess) else None
        found = _from_functions(given.fun, jac, hess, like)
        value = found.value
        return Constraint(lambda x: np.atleast_1d(value(x)) - target, found.jac, found.hess)
    if isinstance(given, Mapping):
        return _from_mapping(given, like)
    if callable(given):
        return _from_functions(given, None, None, like)
    msg = f"constraints hold a {type(given).__name__}; a function, a dictionary or SciPy's classes are needed"
    raise OptionError(msg)


def _from_mapping(given: Mapping[str, Any], like: Tensor | None) -> Constraint:
    if given.get("type") != "eq" or "fun" not in given or not set(given) <= KEYS:
        msg = f"the constraint {dict(given)!r:.200}; {{'type': 'eq', 'fun': ...}} is needed: {MEND}"
        raise OptionError(msg)
    args = given.get("args", ())
    fun, jac, hess = (given.get(name) for name in ("fun", "jac", "hess"))
    if args:
        fun, jac = (None if f is None else lambda x, f=f: f(x, *args) for f in (fun, jac))
        hess = None if hess is None else lambda x, v, f=hess: f(x, v, *args)
    assert fun is not None
    return _from_functions(fun, jac, hess, like)


def _from_functions(
    fun: Callable[..., Any], jac: Callable[..., Any] | None, hess: Any, like: Tensor | None
) -> Constraint:
    if like is not None:
        torch_fun = TorchFunction(fun, like)
        return Constraint(
            lambda x: np.atleast_1d(torch_fun(x)),
            (lambda x: np.atleast_2d(torch_fun.jac(x))) if jac is None else torch_fun.given(jac),
            torch_fun.hess if hess is None else torch_fun.given(hess),
        )
    value = lambda x: np.atleast_1d(np.asarray(fun(x), float))  # noqa: E731
    first = jac or differences(value)
    second = hess or (lambda x, v: symmetric_differences(lambda z: _rows(first(z)).T @ v)(x))
    return Constraint(value, first, second)


def _rows(J: Any) -> Matrix:
    return J if sp.issparse(J) else np.atleast_2d(np.asarray(J, float))


def _linear(given: LinearConstraint) -> Constraint:
    A: Matrix = sp.csr_array(given.A) if sp.issparse(given.A) else np.atleast_2d(np.asarray(given.A, float))
    target = np.broadcast_to(_equal(given.lb, given.ub), A.shape[:1])

    def value(x: Vector) -> Vector:
        if A.shape[1] != len(x):
            msg = f"the linear constraint has {A.shape[1]} columns, x has {len(x)} entries"
            raise ShapeError(msg)
        return A @ x - target

    return Constraint(value, lambda x: A, None)


def _equal(low: Any, high: Any) -> np.ndarray:
    low, high = np.broadcast_arrays(np.asarray(low, float), np.asarray(high, float))
    if not np.array_equal(low, high):
        msg = f"a constraint with lb = {low}, ub = {high}; lb = ub is needed: {MEND}"
        raise OptionError(msg)
    return low


def _stacked(parts: Sequence[Constraint]) -> Constraint:
    """Return several constraints as one, sparse where all Jacobians are."""
    sizes: list[int] = []  # of the parts, from the first values on

    def value(x: Vector) -> Vector:
        found = [np.atleast_1d(part.value(x)) for part in parts]
        sizes[:] = [len(each) for each in found]
        return np.concatenate(found)

    def jac(x: Vector) -> Matrix:
        rows = [_rows(part.jac(x)) for part in parts]
        if all(sp.issparse(each) for each in rows):
            return sp.csr_array(sp.vstack(rows))
        return np.vstack([each.toarray() if sp.issparse(each) else each for each in rows])

    def hess(x: Vector, v: Vector) -> Matrix:
        shares = np.split(v, np.cumsum(sizes)[:-1])
        found = [part.hess(x, own) for part, own in zip(parts, shares, strict=True) if part.hess is not None]
        return sum(found[1:], found[0])

    curved = any(part.hess is not None for part in parts)
    return Constraint(value, jac, hess if curved else None)
