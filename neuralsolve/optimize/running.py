"""A minimisation from what the caller gave to what the caller gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from neuralsolve.errors import OptionError, nearest
from neuralsolve.optimize.faithful import FaithfulNewton
from neuralsolve.optimize.given import problem_of, refuse_bounds, vector_of
from neuralsolve.optimize.kkt import DirectKKT, StepFinder
from neuralsolve.optimize.kkt_minres import MinresKKT
from neuralsolve.optimize.kkt_sketched import SketchedKKT, sketch_solver
from neuralsolve.optimize.merit import ExactLagrangian
from neuralsolve.optimize.method import SKETCHED, SketchedNewton
from neuralsolve.optimize.newton import Newton, Told
from neuralsolve.optimize.problem import EqualityProblem, Evaluations
from neuralsolve.optimize.recorder import Recorder
from neuralsolve.optimize.result import MinimizeResult

OPTIONS = ("maxiter", "maxfun")


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
    if method is not None and not isinstance(method, SketchedNewton):
        msg = f"method = {method!r}; ns.SketchedNewton(...) is needed"
        raise OptionError(msg)
    tol, maxiter, maxfun = _limits(options, tol, maxiter, maxfun)
    refuse_bounds(bounds)
    like = None
    if isinstance(x0, Tensor):
        like = x0 if x0.is_floating_point() else x0.double()
    note = ""
    if isinstance(fun, EqualityProblem):
        _refuse_beside(args=args, jac=jac, hess=hess, constraints=constraints)
        problem = fun if x0 is None else replace(fun, x0=vector_of(x0))
    else:
        problem = problem_of(fun, x0, args, jac, hess, constraints, like)
        if like is None and not callable(jac) and jac is not True:
            note = "; gradients by central differences, and the KKT residual is that of those"
    recorder = Recorder(callback, Evaluations(problem, maxfun), like, note)
    found = _run(problem, recorder.evaluations, method or SketchedNewton(), tol, maxiter, recorder.told)
    recorder.begin(found)
    return recorder.result(found.run())


def _limits(
    options: Mapping[str, Any] | None, tol: float | None, maxiter: Any, maxfun: Any
) -> tuple[float, int, int]:
    """Return tol, maxiter and maxfun, those of the options before the others."""
    given = dict(options or {})
    for name in given:
        if name not in OPTIONS:
            msg = f"options: {name!r}{nearest(name, OPTIONS)}"
            raise OptionError(msg)
    tol = 1e-8 if tol is None else tol
    maxiter, maxfun = given.get("maxiter", maxiter), given.get("maxfun", maxfun)
    numbers = all(isinstance(v, int | float) and v == v for v in (tol, maxiter, maxfun))
    if not numbers or not (0 < tol < float("inf") and maxiter >= 1 and maxfun >= 1):
        msg = f"tol = {tol}, maxiter = {maxiter}, maxfun = {maxfun}; tol > 0 and the others >= 1 are needed"
        raise OptionError(msg)
    return float(tol), int(maxiter), int(maxfun)


def _refuse_beside(**given: Any) -> None:
    """Raise OptionError where something stands beside a whole problem, which would be dropped."""
    for name, value in given.items():
        if value is not None and value != ():
            msg = f"{name} beside an EqualityProblem, which holds all functions; leave it out"
            raise OptionError(msg)


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
