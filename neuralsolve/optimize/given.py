"""What the caller of `minimize` gave, as a problem: missing derivatives found, what is not known refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import Bounds
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.optimize.constraints import MEND, as_constraint
from neuralsolve.optimize.derivatives import TorchFunction, differences, symmetric_differences
from neuralsolve.optimize.problem import EqualityProblem, Vector

DIFFERENCES = ("2-point", "3-point", "cs")  # words of SciPy, all taken as central differences


def problem_of(
    fun: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...],
    jac: Callable[..., Any] | bool | None,
    hess: Callable[..., Any] | None,
    constraints: Any,
    like: Tensor | None,
) -> EqualityProblem:
    """Return functions as a problem, missing derivatives found."""
    if x0 is None or not callable(fun):
        msg = "minimize(fun, x0, ...) with a function fun, or minimize(EqualityProblem(...)), is needed"
        raise OptionError(msg)
    start = vector_of(x0)
    for name, given in (("jac", jac), ("hess", hess)):
        by_name = isinstance(given, str) and given in DIFFERENCES
        if not (callable(given) or by_name or given is None or isinstance(given, bool)):
            msg = f"{name} = {given!r:.80}; a function, or None, is needed"
            raise OptionError(msg)
    args = args if isinstance(args, tuple) else (args,)
    value, first, second = (_with(f, args) if callable(f) else None for f in (fun, jac, hess))
    assert value is not None
    if jac is True:
        both = value
        value, first = (lambda x: _pair(both(x))[0]), (lambda x: _pair(both(x))[1])
    if like is not None:
        in_torch = TorchFunction(value, like)
        value = in_torch
        first = (lambda x: in_torch.jac(x).reshape(-1)) if first is None else in_torch.given(first)
        second = in_torch.hess if second is None else in_torch.given(second)
    number = _number(value)
    first = first or differences(number)
    c = as_constraint(constraints, like)
    second = second or symmetric_differences(first)
    if c is None:
        return EqualityProblem(start, number, first, second)
    return EqualityProblem(start, number, first, second, c.value, c.jac, c.hess)


def _number(function: Callable[..., Any]) -> Callable[[Vector], float]:
    """Return a function whose values are numbers, of one whose values may be arrays of one entry."""

    def number(x: Vector) -> float:
        value = np.asarray(function(x))
        if value.size != 1 or value.dtype.kind not in "fiub":
            msg = f"fun returned {value!r:.80}; one real number is needed"
            raise ShapeError(msg)
        return float(value.reshape(()))

    return number


def _pair(found: Any) -> tuple[Any, Any]:
    if not isinstance(found, list | tuple) or len(found) != 2:
        msg = f"jac = True, and fun returned {found!r:.80}; the value and the gradient are needed"
        raise ShapeError(msg)
    return found[0], found[1]


def _with(function: Callable[..., Any], args: tuple[Any, ...]) -> Callable[..., Any]:
    return (lambda x: function(x, *args)) if args else function


def vector_of(x0: Any) -> Vector:
    """Return where to start as a vector of NumPy's."""
    values = np.atleast_1d(x0.detach().cpu().numpy() if isinstance(x0, Tensor) else np.asarray(x0))
    if values.dtype.kind not in "fiub":
        msg = f"x0 has the type {values.dtype}; real numbers are needed"
        raise OptionError(msg)
    return values.astype(float)


def refuse_bounds(bounds: Any) -> None:
    """Raise OptionError where bounds bound anything."""
    if bounds is None:
        return
    if isinstance(bounds, Bounds):
        ends = np.concatenate([np.ravel(bounds.lb), np.ravel(bounds.ub)])
    else:
        ends = np.array([np.inf if end is None else end for pair in bounds for end in pair], float)
    if not np.isinf(ends).all():
        msg = f"bounds with finite ends; {MEND}"
        raise OptionError(msg)
