"""A minimisation from what the caller gave to what the caller gets."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import Bounds
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError, nearest
from neuralsolve.optimize.constraints import MEND, as_constraint
from neuralsolve.optimize.derivatives import TorchFunction, differences, symmetric_differences
from neuralsolve.optimize.faithful import FaithfulNewton
from neuralsolve.optimize.kkt import DirectKKT, StepFinder
from neuralsolve.optimize.kkt_minres import MinresKKT
from neuralsolve.optimize.kkt_sketched import SketchedKKT, sketch_solver
from neuralsolve.optimize.merit import ExactLagrangian
from neuralsolve.optimize.method import SKETCHED, SketchedNewton
from neuralsolve.optimize.newton import Newton, Told
from neuralsolve.optimize.problem import EqualityProblem, Evaluations, Vector
from neuralsolve.optimize.result import MinimizeResult, MinimizeStatus

OPTIONS = ("maxiter", "maxfun")
DIFFERENCES = ("2-point", "3-point", "cs")  # words of SciPy, all taken as central differences


def run(
    fun: Callable[..., Any] | EqualityProblem,
    x0: Any,
    args: tuple[Any, ...],
    method: SketchedNewton | None,
    jac: Callable[..., Any] | bool | None,
    hess: Callable[..., Any] | None,
    bounds: Any,
    constraints: Any,
    tol: float | None,
    maxiter: int,
    maxfun: int,
    callback: Callable[..., Any] | None,
    options: Mapping[str, Any] | None,
) -> MinimizeResult:
    """Minimise; the parameters are those of `minimize`."""
    started = time.perf_counter()
    given = dict(options or {})
    for name in given:
        if name not in OPTIONS:
            msg = f"options: {name!r}{nearest(name, OPTIONS)}"
            raise OptionError(msg)
    tol = 1e-8 if tol is None else tol
    maxiter, maxfun = (given.get(name, value) for name, value in (("maxiter", maxiter), ("maxfun", maxfun)))
    numbers = all(isinstance(v, int | float) and v == v for v in (tol, maxiter, maxfun))
    if method is not None and not isinstance(method, SketchedNewton):
        msg = f"method = {method!r}; ns.SketchedNewton(...) is needed"
        raise OptionError(msg)
    if not numbers or not (0 < tol < np.inf and maxiter >= 1 and maxfun >= 1):
        msg = f"tol = {tol}, maxiter = {maxiter}, maxfun = {maxfun}; tol > 0 and the others >= 1 are needed"
        raise OptionError(msg)
    _refuse_bounds(bounds)
    like = None
    if isinstance(x0, Tensor):
        like = x0 if x0.is_floating_point() else x0.double()
    if isinstance(fun, EqualityProblem):
        more = {"args": args, "jac": jac, "hess": hess, "constraints": constraints}
        for name, value in more.items():
            if value is not None and value != ():
                msg = f"{name} beside an EqualityProblem, which holds all functions; leave it out"
                raise OptionError(msg)
        problem = fun if x0 is None else replace(fun, x0=_vector(x0))
    else:
        problem = _problem(fun, x0, args, jac, hess, constraints, like)
    by_differences = (
        like is None and not isinstance(fun, EqualityProblem) and not callable(jac) and jac is not True
    )
    note = (
        "; gradients by central differences, and the KKT residual is that of those" if by_differences else ""
    )
    recorder = _Recorder(callback, Evaluations(problem, int(maxfun)), like, started, note)
    started_run = _run(problem, recorder.evaluations, method or SketchedNewton(), tol, maxiter, recorder.told)
    recorder.begin(started_run)
    return recorder.result(started_run.run())


def _run(
    problem: EqualityProblem, ask: Evaluations, method: SketchedNewton, tol: float, maxiter: int, told: Told
) -> Newton | FaithfulNewton:
    """Return the minimisation that was asked for."""
    start = ExactLagrangian(method.eta1, method.eta2)
    if method.faithful:
        inner = sketch_solver(
            "kaczmarz" if method.inner == "auto" else method.inner, method.block, method.seed
        )
        return FaithfulNewton(ask, inner, start, method.beta, method.inner_cap, tol, maxiter, told)
    return Newton(ask, _finder(problem, method), start, method.beta, tol, maxiter, told)


def _finder(problem: EqualityProblem, method: SketchedNewton) -> StepFinder:
    """Return what finds steps."""
    inner, given = method.inner, problem.kkt_preconditioner
    if inner in SKETCHED:
        return SketchedKKT(sketch_solver(inner, method.block, method.seed), inner, method.inner_cap)
    if inner == "minres" or (inner == "auto" and given is not None):
        return MinresKKT(given, method.inner_cap)
    return DirectKKT()


POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _order(minimum: bool | None) -> str:
    return "; no minimum to second order: a saddle or a maximum" if minimum is False else ""


class _Recorder:
    """What is told of a run: history, callback, result."""

    def __init__(
        self,
        callback: Callable[..., Any] | None,
        evaluations: Evaluations,
        like: Tensor | None,
        started: float,
        note: str = "",
    ):
        self.callback, self.evaluations, self.like, self.started = callback, evaluations, like, started
        self.history: list[dict[str, float]] = []
        self.note = note
        self.run: Newton | FaithfulNewton
        names = inspect.signature(callback).parameters if callback is not None else {}
        self.wants_result = "intermediate_result" in names
        needed = [each for each in names.values() if each.default is each.empty and each.kind in POSITIONAL]
        self.wants_state = len(needed) > 1  # callback(xk, state), as of trust-constr

    def begin(self, run: Newton | FaithfulNewton) -> None:
        """Take the run, and where it starts as the first row."""
        self.run = run
        penalties = {"eta1": run.merit.eta1, "eta2": run.merit.eta2}
        self._keep({"step_length": 0.0, "shift": 0.0, "inner": 0} | penalties)

    def _keep(self, row: dict[str, float]) -> None:
        point = self.run.point
        where = {"fun": point.f, "kkt_residual": point.residual(self.run.lam)}
        self.history.append(where | {"constr_violation": float(np.abs(point.c).max(initial=0))} | row)

    def told(self, row: dict[str, float]) -> bool:
        """Keep the row of a step; return whether the callback says to stop."""
        self._keep(row)
        if self.callback is None:
            return False
        try:
            now = self.result(MinimizeStatus.RUNNING) if self.wants_result or self.wants_state else None
            if self.wants_result:
                return bool(self.callback(intermediate_result=now))
            x = self._like(self.run.point.x)
            return bool(self.callback(x, now) if self.wants_state else self.callback(x))
        except StopIteration:
            return True

    def result(self, status: MinimizeStatus) -> MinimizeResult:
        """Return where the run stands; the KKT residual is formed anew."""
        run, ask = self.run, self.evaluations
        point = run.point
        residual = point.residual(run.lam)
        assert status is not MinimizeStatus.CONVERGED or residual <= run.tol
        return MinimizeResult(
            self._like(point.x),
            point.f,
            self._like(point.g),
            self._like(point.c),
            self._like(run.lam),
            residual,
            float(np.abs(point.c).max(initial=0)),
            status,
            run.nit,
            ask.nfev,
            ask.njev,
            ask.nhev,
            run.inner,
            list(self.history),
            time.perf_counter() - self.started,
            f"{run.name}: n = {len(point.x)}, m = {len(point.c)}" + self.note + _order(run.minimum),
            run.minimum,
        )

    def _like(self, v: Vector) -> Any:
        return v.copy() if self.like is None else torch.from_numpy(v.copy()).to(self.like)


def _problem(
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
    start = _vector(x0)
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


def _vector(x0: Any) -> Vector:
    values = np.atleast_1d(x0.detach().cpu().numpy() if isinstance(x0, Tensor) else np.asarray(x0))
    if values.dtype.kind not in "fiub":
        msg = f"x0 has the type {values.dtype}; real numbers are needed"
        raise OptionError(msg)
    return values.astype(float)


def _refuse_bounds(bounds: Any) -> None:
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
