"""The one iteration loop: stopping test, history, callback, and the truth about convergence.

A method's recurrence only *suggests* convergence. The residual is then formed anew, b - A x, and where it
does not meet the tolerance the method starts again from the present x, until the true residual meets it or
stops falling.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import Breakdown
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator
from neuralsolve.operators.vectors import copy_of, empty, zeros_like
from neuralsolve.preconditioners.base import Preconditioner
from neuralsolve.solvers.method import Method, State, norm
from neuralsolve.solvers.result import Status
from neuralsolve.solvers.unseen import Unseen

GROWTH_LIMIT = 1e14  # of the residual over its first norm; CG's own hump is at most sqrt(kappa) < 1e8
PATIENCE = 2000  # steps without a new smallest residual that end a run, or the caller's maxiter if larger
PROGRESS = 0.5  # a restart that does not halve the true residual is the last one

Callback = Callable[[int, float, Any], Any]


@dataclass
class Outcome:
    """What the loop hands back; `x` has its null space removed and `true_norm` is ||b - A x|| of that x.

    `note` is what the method wants said in the explanation, empty as a rule.
    """

    x: Tensor
    status: Status
    iterations: int
    true_norm: Tensor
    residual_norms: list[float] = field(default_factory=list)
    note: str = ""


def iterate(
    method: Method,
    A: LinearOperator,
    M: Preconditioner | None,
    b: Tensor,
    x0: Tensor | None,
    tolerance: Tensor,
    maxiter: int,
    callback: Callback | None = None,
    patience: int = PATIENCE,
    unseen: Unseen | None = None,
) -> Outcome:
    """Run a method until every column's true residual is at most its tolerance.

    Parameters
    ----------
    b : (n,) or (n, k) float64, in the range of A where A is singular
    x0 : like b, copied; None is zero
    tolerance : () or (k,), absolute
    callback : called as callback(iteration, residual_norm, x) after every step; True stops
    patience : steps without a new smallest residual after which the run is given up as stagnated
    unseen : takes the steps, of a method that allows it, made for A and M; None looks at every step
    """
    patience = min(patience, 10 * len(b) + 50)
    threads = M is not None and M.by_columns and b.device.type == "cpu"
    if b.ndim == 1 or (method.batched and not threads):
        return _Run(method, A, M, b, tolerance, maxiter, callback, patience, unseen).go(x0)
    if threads and callback is None:
        assert M is not None
        return _each_alone(method, A, M, b, x0, tolerance, maxiter, patience)
    columns: list[Outcome] = []
    for j in range(b.shape[1]):
        guess = None if x0 is None else x0[:, j].contiguous()
        if columns and columns[-1].status is Status.STOPPED:
            x = torch.zeros_like(columns[0].x) if guess is None else guess
            columns.append(Outcome(x, Status.STOPPED, 0, norm(b[:, j] - A.matvec(x)), [float(norm(b[:, j]))]))
            continue
        column = b[:, j].contiguous()
        columns.append(_Run(method, A, M, column, tolerance[j], maxiter, callback, patience).go(guess))
    return _side_by_side(columns, torch.stack([c.x for c in columns], 1))


def _each_alone(
    method: Method,
    A: LinearOperator,
    M: Preconditioner,
    b: Tensor,
    x0: Tensor | None,
    tolerance: Tensor,
    maxiter: int,
    patience: int,
) -> Outcome:
    """Solve every column on a thread of its own, each with an M that no other uses meanwhile."""
    from neuralsolve.kernels.cpu.threads import one_thread_each, thread_count

    columns = empty((b.shape[1], b.shape[0]), b)
    table(b.device).transposed_copy(b, columns)
    free: SimpleQueue[Preconditioner] = SimpleQueue()
    for twin in [M, *(M.twin() for _ in range(min(b.shape[1], thread_count()) - 1))]:
        free.put(twin)

    def solve(j: int) -> Outcome:
        own = free.get()
        try:
            guess = None if x0 is None else x0[:, j].contiguous()
            outcome = _Run(method, A, own, columns[j], tolerance[j], maxiter, None, patience).go(guess)
            np.copyto(columns[j].numpy(), outcome.x.numpy())  # its right side is not wanted any more
            return dataclasses.replace(outcome, x=columns[j])
        finally:
            free.put(own)

    outcomes, x = one_thread_each(len(columns), solve), empty(tuple(b.shape), b)
    table(b.device).transposed_copy(columns, x)
    return _side_by_side(outcomes, x)


class _Run:
    def __init__(
        self,
        method: Method,
        A: LinearOperator,
        M: Preconditioner | None,
        b: Tensor,
        tolerance: Tensor,
        maxiter: int,
        callback: Callback | None,
        patience: int,
        unseen: Unseen | None = None,
    ):
        self.unseen, self.met = unseen if method.unseen else None, False
        self.last: list[float] = []  # norms of the columns at the last look
        self.method, self.A, self.M, self.b = method, A, M, b
        self.tolerance, self.maxiter, self.callback = tolerance, maxiter, callback
        self.tolerances: list[float] = tolerance.reshape(-1).tolist()  # as the host knows them
        self.patience, self.smallest, self.smallest_at = patience, float("inf"), 0
        self.iterations = 0
        self.history: list[float] = []
        self.exact_norm: Tensor | None = None  # of the last x, where the method's own is no recurrence's
        self.note = ""

    def go(self, x0: Tensor | None) -> Outcome:
        x = zeros_like(self.b) if x0 is None else self._clean(copy_of(x0))
        r = self._residual(x) if x0 is not None else self.b if self.method.keeps_r else copy_of(self.b)
        true_norm = norm(r)
        if x0 is not None and not bool(torch.isfinite(true_norm).all()):
            return self.go(None)  # a guess whose residual overflows is worse than none
        self.history.append(float(true_norm.max()))
        while True:
            if bool((true_norm <= self.tolerance).all()):
                return self._end(x, Status.CONVERGED, true_norm)
            before = true_norm
            x, status = self._run_once(x, r)
            if self.exact_norm is None:
                r = self._residual(self._clean(x))
                true_norm = norm(r)
            else:
                true_norm = self.exact_norm
            if bool((true_norm <= self.tolerance).all()):
                return self._end(x, Status.CONVERGED, true_norm)
            if status is not None:
                return self._end(x, status, true_norm)
            unfinished = true_norm > self.tolerance
            if not bool((true_norm < PROGRESS * before)[unfinished].any()):
                return self._end(x, Status.STAGNATED, true_norm)

    def _run_once(self, x: Tensor, r: Tensor) -> tuple[Tensor, Status | None]:
        """Run from x until the recurrence claims convergence (None) or it ends for another reason."""
        method, A, M, b = self.method, self.A, self.M, self.b
        state, self.exact_norm = method.init(A, M, b, x, r), None
        if self.unseen is not None:
            state, self.met = self.unseen.begin(state, b, self.tolerance), False
            self.last = state.residual_norm.reshape(-1).tolist()
        limit = GROWTH_LIMIT * max(self.history[0], min(self.tolerances))
        while True:
            if self._done(state):
                return self._solution(state), None
            if self.iterations >= self.maxiter:
                return self._solution(state), Status.MAXITER
            try:
                state, sizes = self._steps(state)
            except Breakdown as breakdown:
                self.exact_norm = None
                return self._solution(state), breakdown.status
            finally:
                self.note = state.note or self.note
            self.exact_norm = state.residual_norm if state.exact else None
            before = self.iterations
            self._count(sizes)
            for iteration, size in enumerate(sizes, before + 1):
                if not size <= limit:
                    bad = Status.DIVERGED if size < float("inf") else Status.NON_FINITE
                    return self._solution(state), bad
                if size < 0.999 * self.smallest:
                    self.smallest, self.smallest_at = size, iteration
                elif iteration - self.smallest_at >= self.patience:
                    return self._solution(state), Status.STAGNATED
            if self.callback is not None:
                x = self._solution(state)
                if isinstance(stop := self.callback(self.iterations, sizes[-1], x), bool | np.bool_) and stop:
                    return x, Status.STOPPED

    def _done(self, state: State) -> bool:
        """Whether all columns claim to have converged; those that do stand still from now on."""
        if self.unseen is not None:
            return self.met
        done = state.residual_norm <= self.tolerance
        if done.ndim:
            state.frozen = done if state.frozen is None else state.frozen | done
        return bool(done.all())

    def _steps(self, state: State) -> tuple[State, list[float]]:
        """Take a step, or several unseen ones; return the residual norm after each, the largest column's."""
        if self.unseen is None:
            state = self.method.step(self.A, self.M, self.b, state)
            return state, [float(state.residual_norm.max())]
        state, rows, fault = self.unseen.run(state, min(self.unseen.count, self.maxiter - self.iterations))
        sizes = [float(np.max(row)) for row in rows]  # NaN where one is
        if fault is not None:
            while rows and np.allclose(rows[-1], rows[-2] if len(rows) > 1 else self.last, 1e-12, 0.0):
                rows.pop()  # no step: all stood still
            self._count(sizes[: len(rows)])
            raise Breakdown(fault)
        self.last = rows[-1]
        met = [all(size <= most for size, most in zip(row, self.tolerances, strict=True)) for row in rows]
        self.met = True in met
        taken = met.index(True) + 1 if self.met else len(rows)  # nothing moved after that
        return state, sizes[:taken]

    def _count(self, sizes: list[float]) -> None:
        """Note steps that were taken, and the largest column's residual norm after each."""
        self.iterations += len(sizes)
        self.history += sizes

    def _solution(self, state: State) -> Tensor:
        """Return the iterate; a copy of it where unseen steps go on working on their vectors."""
        x = self.method.solution(self.A, self.M, state)
        return x if self.unseen is None else copy_of(x)

    def _residual(self, x: Tensor) -> Tensor:
        r = self.A.matvec(x)
        table(r.device).xpby(self.b, -1.0, r)  # b - A x
        return r

    def _clean(self, x: Tensor) -> Tensor:
        if self.A.null_space is not None:
            self.A.null_space.project(x)
        return x

    def _end(self, x: Tensor, status: Status, true_norm: Tensor) -> Outcome:
        self.history[-1] = float(true_norm.max())  # the last entry is the true one
        return Outcome(x, status, self.iterations, true_norm, self.history, self.note)


def _side_by_side(columns: list[Outcome], x: Tensor) -> Outcome:
    """Join columns that ran one by one: the worst status, the largest residual at every step."""
    longest = max(len(c.residual_norms) for c in columns)
    padded = [c.residual_norms + c.residual_norms[-1:] * (longest - len(c.residual_norms)) for c in columns]
    failed = [c.status for c in columns if c.status is not Status.CONVERGED]
    return Outcome(
        x,
        failed[0] if failed else Status.CONVERGED,
        max(c.iterations for c in columns),
        torch.stack([c.true_norm for c in columns]),
        [max(step) for step in zip(*padded, strict=True)],
        "; ".join(dict.fromkeys(c.note for c in columns if c.note)),
    )
