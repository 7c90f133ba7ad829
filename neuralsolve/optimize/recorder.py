"""What is told of a minimisation: history, callback, result."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.optimize.faithful import FaithfulNewton
from neuralsolve.optimize.newton import Newton
from neuralsolve.optimize.problem import Evaluations, Vector
from neuralsolve.optimize.result import MinimizeResult, MinimizeStatus

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _order(minimum: bool | None) -> str:
    return "; no minimum to second order: a saddle or a maximum" if minimum is False else ""


class Recorder:
    """What is told of a run.

    Parameters
    ----------
    callback : of the caller; None for none
    evaluations : which count
    like : of what kind vectors are given back; None for NumPy's
    note : for the explanation
    """

    def __init__(
        self,
        callback: Callable[..., Any] | None,
        evaluations: Evaluations,
        like: Tensor | None,
        note: str,
    ):
        self.callback, self.evaluations, self.like, self.note = callback, evaluations, like, note
        self.started = time.perf_counter()
        self.history: list[dict[str, float]] = []
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
