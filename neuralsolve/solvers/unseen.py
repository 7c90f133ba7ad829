"""Steps that nobody looks at: on a GPU the host reads ||r|| every `check_every` steps, and waits only then.

Steps are the same as ever. A column that has met its tolerance, or broken down, stands still from there on,
which is decided where the vectors are. On a CUDA device a run of steps is recorded as a CUDA graph after the
first ones and started as a whole from then on, where neither A nor M calls back to the host; a solve of the
same shape with the same A and M starts the same graph again. What cannot be recorded runs step by step.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import torch
from torch import Tensor

from neuralsolve.operators.base import LinearOperator
from neuralsolve.preconditioners.base import Preconditioner
from neuralsolve.solvers.method import CODES, Method, State
from neuralsolve.solvers.products import Products
from neuralsolve.solvers.result import Status

FIRST = 3  # runs step by step: kernels are compiled then, and a short solve is over before recording pays
STATUSES = {code: status for status, code in CODES.items()}
_recording = threading.Lock()  # torch records one graph at a time
_streams: dict[torch.device, Any] = {}  # to record on: that of torch is of the device it was first used on


class Unseen:
    """Runs of `count` steps of one method on one A and M; kept by `Prepared` from solve to solve.

    `begin` copies a first state into vectors of its own, which all runs work on: a graph knows addresses.
    """

    def __init__(self, method: Method, products: Products, M: Preconditioner | None, count: int):
        self.method, self.products, self.M, self.count = method, products, M, count
        self._state: Any = None
        self._b = self._tolerance = torch.empty(0)
        self._graph: Any = None
        self._norms = torch.empty(0)
        self._runs = 0  # step by step
        self._matvecs = 0  # of one run of the graph
        stays = products.A.stays and (M is None or M.stays)
        self._recordable = products.A.device.type == "cuda" and stays
        self._versions = _versions(products.A)

    def serves(self, method: Method, M: Preconditioner | None) -> bool:
        """Whether this is made for just these, and A has the numbers that a graph may have seen."""
        return self.method == method and self.M is M and self._versions == _versions(self.products.A)

    def begin(self, state: Any, b: Tensor, tolerance: Tensor) -> Any:
        """Return the first state of a solve, to be run."""
        state.fault = torch.zeros((), dtype=torch.int64, device=b.device)
        state.frozen = state.residual_norm <= tolerance
        if self._b.shape != b.shape or not _alike(self._state, state):
            self._graph, self._runs = None, 0  # kernels for such vectors may not be compiled yet
        elif self._graph is None:
            _complete(state, self._state)
        if self._graph is None:
            self._state, self._b, self._tolerance = state, b, tolerance
            return state
        _copy(state, self._state)
        self._b.copy_(b)
        self._tolerance.copy_(tolerance)
        return self._state

    def run(self, state: Any, count: int) -> tuple[Any, list[list[float]], Status | None]:
        """Take `count` steps.

        Returns
        -------
        state
        norms : of every step, of every column
        status : of the first breakdown, None where there was none
        """
        if self._graph is None and self._recordable and self._runs >= FIRST and count == self.count:
            self._record(state)
        if self._graph is None:
            self._state, norms = self._steps(state, count)
            self._runs += 1
        elif count == self.count:
            self._graph.replay()
            self.products.count += self._matvecs
            norms = self._norms
        else:  # the vectors that the graph knows stay those of the state
            after, norms = self._steps(dataclasses.replace(self._state), count)
            _copy(after, self._state)
        return self._told(self._state, norms)

    def _steps(self, state: Any, count: int) -> tuple[Any, Tensor]:
        norms = []
        for _ in range(count):
            state = self.method.step(self.products.A, self.M, self._b, state)
            state.frozen = state.frozen | (state.residual_norm <= self._tolerance)
            norms.append(state.residual_norm)
        return state, torch.stack(norms)

    def _record(self, state: Any) -> None:
        """Record `count` steps on vectors of this object; leave it where CUDA refuses."""
        device, given = self._b.device, (self._b, self._tolerance)
        own, self._b, self._tolerance = _own(state), self._b.clone(), self._tolerance.clone()
        graph, before = torch.cuda.CUDAGraph(), self.products.count
        here = torch.cuda.stream(torch.cuda.current_stream(device))  # torch leaves its own where it fails
        try:
            with _recording, torch.cuda.device(device), here:
                stream = _streams.setdefault(device, torch.cuda.Stream(device))
                with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                    after, norms = self._steps(dataclasses.replace(own), self.count)
                    _copy(after, own)
        except RuntimeError:
            self._recordable = False
            self._b, self._tolerance = given
        else:
            self._state, self._graph, self._norms = own, graph, norms
            self._matvecs = self.products.count - before
        self.products.count = before  # recording does nothing

    @staticmethod
    def _told(state: Any, norms: Tensor) -> tuple[Any, list[list[float]], Status | None]:
        """Read the norms and the fault: one copy to the host."""
        told = torch.cat([norms.reshape(-1), state.fault.to(norms.dtype).reshape(1)]).tolist()
        width = norms[0].numel()
        rows = [told[k * width : (k + 1) * width] for k in range(len(norms))]
        return state, rows, STATUSES.get(int(told[-1]))


def _versions(A: LinearOperator) -> tuple[int, ...]:
    """Count how often the numbers of A were written to."""
    return tuple(0 if p.is_inference() else p._version for p in A.parameters())


def _tensors(state: State) -> dict[str, Tensor]:
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: value for name, value in fields.items() if isinstance(value, Tensor)}


def _alike(a: State, b: State) -> bool:
    """Whether two states hold tensors of the same names and shapes; the first may hold more."""
    mine, theirs = _tensors(a), _tensors(b)
    return all(name in mine and mine[name].shape == v.shape for name, v in theirs.items())


def _complete(state: State, other: State) -> None:
    """Give a first state what another one has had since its first step, as zeros: see `_copy`."""
    for name, value in _tensors(other).items():
        if getattr(state, name) is None:
            setattr(state, name, torch.zeros_like(value))


def _own(state: Any) -> Any:
    """Return a copy of a state with tensors of its own, aliases kept."""
    copies: dict[int, Tensor] = {}
    for value in _tensors(state).values():
        copies.setdefault(id(value), value.clone())
    return dataclasses.replace(state, **{name: copies[id(v)] for name, v in _tensors(state).items()})


def _copy(source: State, target: State) -> None:
    """Copy the numbers of a state into another one's tensors; what only the target has becomes zero."""
    values = _tensors(source)
    for name, tensor in _tensors(target).items():
        if name not in values:
            tensor.zero_()
        elif values[name] is not tensor:
            tensor.copy_(values[name])
