"""`minimize`: the call that users of SciPy know, for functions under equality constraints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from neuralsolve.optimize.method import SketchedNewton
from neuralsolve.optimize.problem import EqualityProblem
from neuralsolve.optimize.result import MinimizeResult


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
    tol: float | None = 1e-8,
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
        given come by autograd; NumPy's are taken by central differences, which cost 2 n calls, not counted in
        nfev, and err by about 1e-6 of the gradient, which `kkt_residual` cannot see: `explanation` says so.
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
    (tensor([-1., -1.]), 'CONVERGED')

    Source: Hong, Na, Mahoney, Kolar, "Constrained optimization via exact augmented Lagrangian and randomized
    iterative sketching", ICML 2023 (arXiv 2305.18379); see `SketchedNewton`.
    """
    from neuralsolve.optimize.running import run

    given = bounds, constraints, tol, maxiter, maxfun, callback, options
    return run(fun, x0, args, method, jac, hess, *given)
