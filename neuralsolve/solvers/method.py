"""What every iterative method is: frozen options with `init` and `step`; the loop is elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from neuralsolve.errors import Breakdown
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator
from neuralsolve.preconditioners.base import Preconditioner
from neuralsolve.solvers.result import Status
from neuralsolve.tuning.tuned import Tunable

CODES = {status: 1 + place for place, status in enumerate(Status)}  # as `State.fault` holds them


@dataclass
class State:
    """What a method carries from step to step; methods add their own vectors.

    Attributes
    ----------
    x : (n,) or (n, k), the iterate, updated in place
    residual_norm : () or (k,), ||b - A x|| as the method's recurrence has it
    frozen : (k,) bool or None
        Columns that have converged and must not move (batched methods; set by the loop).
    note : str
        What the method wants said in the result's explanation; empty: nothing.
    exact : bool
        residual_norm is that of b - A x, formed anew for this x without its part in the null space: the loop
        need not do it again.
    fault : () int64 or None
        None where the loop looks at every step. Else steps are taken unseen: what would raise `Breakdown`
        is written here as 1 + its place in `Status` (`demand`), and the column stands still from there on.
    """

    x: Tensor
    residual_norm: Tensor
    frozen: Tensor | None = None
    note: str = ""
    exact: bool = False
    fault: Tensor | None = None


class Method(Tunable, ABC):
    """Options of an iterative method, a frozen dataclass.

    Class attributes
    ----------------
    needs : "spd", "symmetric" or "any"
        What A must be, and M too where `flexible` is false.
    flexible : M may change from step to step, be nonlinear or nonsymmetric
    batched : `init` and `step` take (n, k); otherwise the loop runs one column at a time
    keeps_r : `step` does not write into the r that `init` was given, so that the loop may pass b itself
    unseen : `step` reads no number on the host where `state.fault` is given, so that a GPU need not wait
    """

    needs: ClassVar[str] = "any"
    flexible: ClassVar[bool] = False
    batched: ClassVar[bool] = False
    keeps_r: ClassVar[bool] = False
    unseen: ClassVar[bool] = False

    @abstractmethod
    def init(self, A: LinearOperator, M: Preconditioner | None, b: Tensor, x: Tensor, r: Tensor, /) -> Any:
        """Return the first state. x and r = b - A x are the method's own from here on; b is not."""

    @abstractmethod
    def step(self, A: LinearOperator, M: Preconditioner | None, b: Tensor, state: Any, /) -> Any:
        """Do one iteration in place and return the state; raise `Breakdown(status)` where it cannot go on."""

    def solution(self, A: LinearOperator, M: Preconditioner | None, state: Any, /) -> Tensor:
        """Return the iterate x of a state, where it is not up to date in `state.x`."""
        return state.x


def demand(state: State, good: Tensor, value: Tensor, status: Status) -> None:
    """Break down with a status unless `good` holds in every column that moves, with NON_FINITE for NaN."""
    if state.frozen is not None:
        good = good | state.frozen
    if state.fault is None:
        if not bool(good.all()):
            raise Breakdown(status if bool(torch.isfinite(value).all()) else Status.NON_FINITE)
        return
    code = torch.where(torch.isfinite(value).all(), CODES[status], CODES[Status.NON_FINITE])
    state.fault = torch.where((state.fault > 0) | good.all(), state.fault, code)
    state.frozen = ~good if state.frozen is None else state.frozen | ~good


def safe_divide(state: State, a: Tensor, b: Tensor) -> Tensor:
    """Return a / b, and 0 where b = 0: a column that stands still and whose residual is exactly zero."""
    return a / b if a.ndim == 0 and state.fault is None else torch.where(b == 0, 0.0, a / b)


def norm(v: Tensor) -> Tensor:
    """2-norm per column: () for (n,), (k,) for (n, k)."""
    if v.is_contiguous() and v.device.type == "cpu":  # torch's own wakes threads that spin
        return table(v.device).dot(v, v).sqrt()
    return torch.linalg.vector_norm(v, dim=0)
