"""`minimize`: the call that users of SciPy know, for functions under equality constraints."""

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

from neuralsolve.errors import OptionError, nearest
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


def minimize(
    fun: Callable[..., Any] | EqualityProblem,
    x0: Any = None,
    args: tuple[Any, ...] = (),
    method: SketchedNewton | None = None,
    jac: Callable[..., Any] | bool | None = None,
    hess: Callable[..., Any] | None = None,
    *,
    bounds: Any = None,
    constraints: Any = (),
    tol: float = 1e-8,
    maxiter: int = 1000,
    maxfun: int = 100_000,
    callback: Callable[..., Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> MinimizeResult:
    """Minimise f(x) subject to c(x) = 0; the names are those of `scipy.optimize.minimize`.

    Parameters
    ----------
    fun : x -> f(x), or an `EqualityProblem`, which holds everything up to the constraints
    x0 : (n,), where to start. A torch tensor says that all functions are torch's, and what derivatives are
        not
        given come by autograd; NumPy's are taken by central differences, which cost 2 n calls and leave about
        1e-6 of the KKT residual.
    args : further arguments of fun, jac and hess
    method : `SketchedNewton(...)`
    jac : x -> (n,); True: fun returns f and the gradient
    hess : x -> (n, n), dense or SciPy sparse
    bounds : None, or bounds that bound nothing
    constraints : c as a function, {"type": "eq", "fun": ..., "jac": ..., "hess": ...} with hess of x and v
        (the
        sum of v_i times the Hessian of c_i), SciPy's LinearConstraint and NonlinearConstraint with lb = ub,
        or a sequence of those
    tol : of the KKT residual ||(grad f + G^T lam, c)||_2, absolute
    maxiter, maxfun : steps, and values of f
    callback : called after each step with x, or, as callback(intermediate_result), with a `MinimizeResult`;
        returning True or raising StopIteration ends it, any other exception comes through
    options : maxiter, maxfun, for callers of SciPy

    Returns
    -------
    MinimizeResult
        Not raised: `success` and `message` say how it ended, `kkt_residual` how near.

    Raises
    ------
    OptionError
        Inequalities, bounds, unknown options.
    ShapeError, NonFiniteError
        Sizes that do not fit, more constraints than unknowns, NaN or infinity at x0.

    Examples
    --------
    >>> import neuralsolve as ns, torch
    >>> circle = lambda x: x @ x - 2
    >>> result = ns.minimize(lambda x: x.sum(), torch.tensor([-2.0, 0.5]), constraints=circle)
    >>> result.x, result.status.name
    (tensor([-1.0000, -1.0000]), 'CONVERGED')

    Source: Hong, Na, Mahoney, Kolar, "Constrained optimization via exact augmented Lagrangian and randomized
    iterative sketching", ICML 2023 (arXiv 2305.18379); see `SketchedNewton`.
    """
    started = time.perf_counter()
    given = dict(options or {})
    for name in given:
        if name not in OPTIONS:
            msg = f"options: {name!r}{nearest(name, OPTIONS)}"
            raise OptionError(msg)
    maxiter, maxfun = int(given.get("maxiter", maxiter)), int(given.get("maxfun", maxfun))
    if method is not None and not isinstance(method, SketchedNewton):
        msg = f"method = {method!r}; ns.SketchedNewton(...) is needed"
        raise OptionError(msg)
    if not (tol > 0 and maxiter >= 1 and maxfun >= 1):
        msg = f"tol = {tol}, maxiter = {maxiter}, maxfun = {maxfun}; tol > 0 and the others >= 1 are needed"
        raise OptionError(msg)
    _refuse_bounds(bounds)
    like = x0 if isinstance(x0, Tensor) else None
    if isinstance(fun, EqualityProblem):
        problem = fun if x0 is None else replace(fun, x0=_vector(x0))
    else:
        problem = _problem(fun, x0, args, jac, hess, constraints, like)
    recorder = _Recorder(callback, Evaluations(problem, maxfun), like, started)
    run = _run(problem, recorder.evaluations, method or SketchedNewton(), tol, maxiter, recorder.told)
    recorder.run = run
    return recorder.result(run.run())


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


class _Recorder:
    """What is told of a run: history, callback, result."""

    def __init__(
        self,
        callback: Callable[..., Any] | None,
        evaluations: Evaluations,
        like: Tensor | None,
        started: float,
    ):
        self.callback, self.evaluations, self.like, self.started = callback, evaluations, like, started
        self.history: list[dict[str, float]] = []
        self.run: Newton | FaithfulNewton
        names = inspect.signature(callback).parameters if callback is not None else ()
        self.wants_result = "intermediate_result" in names

    def told(self, row: dict[str, float]) -> bool:
        """Keep a row; return whether the callback says to stop."""
        self.history.append(row)
        if self.callback is None:
            return False
        try:
            if self.wants_result:
                return bool(self.callback(intermediate_result=self.result(MinimizeStatus.STOPPED)))
            return bool(self.callback(self._like(self.run.point.x)))
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
            f"{run.name}: n = {len(point.x)}, m = {len(point.c)}",
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
    value, first, second = (_with(f, args) if callable(f) else None for f in (fun, jac, hess))
    assert value is not None
    if jac is True:
        both = value
        value, first = (lambda x: both(x)[0]), (lambda x: both(x)[1])
    if like is not None:
        in_torch = TorchFunction(value, like)
        value = in_torch
        first = in_torch.jac if first is None else in_torch.given(first)
        second = in_torch.hess if second is None else in_torch.given(second)
    first = first or differences(value)
    c = as_constraint(constraints, like)
    second = second or symmetric_differences(first)
    if c is None:
        return EqualityProblem(start, value, first, second)
    return EqualityProblem(start, value, first, second, c.value, c.jac, c.hess)


def _with(function: Callable[..., Any], args: tuple[Any, ...]) -> Callable[..., Any]:
    return (lambda x: function(x, *args)) if args else function


def _vector(x0: Any) -> Vector:
    values = x0.detach().cpu().numpy() if isinstance(x0, Tensor) else np.asarray(x0)
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
