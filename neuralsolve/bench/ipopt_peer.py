"""IPOPT, through casadi where that is installed: the solver that most users of large problems take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from neuralsolve.bench.cutest import Judged, Reached
from neuralsolve.optimize.problem import Budget


def ipopt(judged: Judged) -> None:
    """Run IPOPT with exact derivatives."""
    import casadi  # pyright: ignore[reportMissingImports]

    n, m = len(judged.x0), len(judged.constraint(judged.x0))
    x, none, one, c = (casadi.Sparsity.dense(k, 1) for k in (n, 0, 1, m))
    ended: list[Exception] = []  # casadi swallows exceptions of a callback

    def function(inputs: dict[str, Any], outputs: dict[str, Any], evaluate: Callable[..., list[Any]]) -> Any:
        class Called(casadi.Callback):
            def __init__(self) -> None:
                casadi.Callback.__init__(self)
                self.construct("called", {})

            def get_n_in(self) -> int:
                return len(inputs)

            def get_n_out(self) -> int:
                return len(outputs)

            def get_name_in(self, i: int) -> str:
                return list(inputs)[i]

            def get_name_out(self, i: int) -> str:
                return list(outputs)[i]

            def get_sparsity_in(self, i: int) -> Any:
                return list(inputs.values())[i]

            def get_sparsity_out(self, i: int) -> Any:
                return list(outputs.values())[i]

            def eval(self, given: list[Any]) -> list[Any]:  # type: ignore[override]
                return evaluate(*(np.array(v, float).ravel() for v in given))

        return Called()

    at = {"x": x, "p": none}
    upper = casadi.Sparsity.upper(n)

    last: dict[bytes, list[Any]] = {}  # f and g are asked for one after the other

    def values(v: np.ndarray, _: np.ndarray) -> list[Any]:
        if v.tobytes() not in last:
            last.clear()
            try:
                last[v.tobytes()] = [judged.fun(v), judged.constraint(v)]
            except Budget as error:
                ended.append(error)
                return [np.nan, np.full(m, np.nan)]
        return last[v.tobytes()]

    oracle = function(at, {"f": one, "g": c}, values)
    gradient = function(at, {"f": one, "grad_f_x": x}, lambda v, _: [0.0, judged.grad(v)])
    jacobian = function(
        at,
        {"g": c, "jac_g_x": casadi.Sparsity.dense(m, n)},
        lambda v, _: [np.zeros(m), judged.jacobian(v)],
    )

    def lagrangian(v: np.ndarray, _: np.ndarray, lam_f: np.ndarray, lam_g: np.ndarray) -> list[Any]:
        H = lam_f[0] * judged.hess(v) + judged.constraint_hess(v, lam_g)
        return [casadi.triu(casadi.DM(H))]

    hessian = function(at | {"lam_f": one, "lam_g": c}, {"triu_hess_gamma_x_x": upper}, lagrangian)
    outputs = {"x": x, "f": one, "g": c, "lam_x": x, "lam_g": c, "lam_p": none}

    def look(v: np.ndarray, *_: Any) -> list[Any]:
        try:
            judged.look(v)
        except Reached as error:
            ended.append(error)
        return [float(bool(ended))]  # not zero: stop

    watched = function(outputs, {"ret": one}, look)
    options = {"ipopt.tol": 1e-10, "ipopt.print_level": 0, "ipopt.sb": "yes", "ipopt.max_iter": 1000}
    options |= {"no_nlp_grad": True, "calc_lam_p": False}  # it would want to differentiate the functions
    options |= {"print_time": False, "show_eval_warnings": False, "error_on_fail": False}
    options |= {"iteration_callback": watched, "grad_f": gradient, "jac_g": jacobian}
    solver = casadi.nlpsol("solver", "ipopt", oracle, options | {"hess_lag": hessian})
    solver(x0=judged.x0, lbg=np.zeros(m), ubg=np.zeros(m))
    if ended:
        raise ended[0]
