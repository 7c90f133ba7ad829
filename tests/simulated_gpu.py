"""A CUDA device that is none: tensors that say "cuda:0", hold their numbers on the CPU, and mind the rules.

Operations on tensors of different devices fail as they do on a GPU, `.numpy()` too, kernels run in Triton's
interpreter, and every number that the host reads is counted. `torch.cuda.graph` records what is done within
it without doing it, refuses reads by the host, and a replay does it again on the same memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

CUDA = torch.device("cuda:0")
aten = torch.ops.aten
READERS = [
    getattr(torch.Tensor, name)
    for name in ("__float__", "__int__", "__bool__", "__index__", "item", "tolist")
]
GUARDED = [
    getattr(torch.Tensor, name) for name in ("__getitem__", "__setitem__", "__invert__", "contiguous")
]  # torch asks a driver in these, too
INDEXED = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)
READS = (aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default)


class There(torch.Tensor):
    """A tensor on the simulated device."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> There:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=CUDA,
        )
        made.held = held
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if func in READERS:  # torch would look for a driver
                device.read()
                return func(args[0].held, *args[1:], **(kwargs or {}))
            if func is torch.Tensor.copy_:
                return device.run(aten.copy_.default, args, kwargs or {})
            if func in GUARDED:
                return device.plain(func, args)
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return device.run(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"There({self.held!r})"


def held(value: Any) -> Any:
    return value.held if isinstance(value, There) else value


class Graph:
    """What was recorded."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def replay(self) -> None:
        for call in self.calls:
            call()


class Stream:
    """Where work waits, on a device: the present one unless it is named."""

    def __init__(self, device: Any = None) -> None:
        present = torch.device("cuda", torch.cuda.current_device())
        self.device = present if device is None else torch.device(device)


class Device:
    """The one simulated device.

    Attributes
    ----------
    reads : numbers and tensors that the host has asked for
    """

    def __init__(self) -> None:
        self.reads = 0
        self.recording: Graph | None = None
        self.before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def read(self) -> None:
        if self.recording is not None:
            msg = "CUDA error: operation not permitted when stream is capturing"
            raise RuntimeError(msg)
        self.reads += 1

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        flat: list[Any] = []
        tree_map(flat.append, (args, kwargs))
        target = kwargs.get("device")
        here = [t for t in flat if isinstance(t, torch.Tensor) and not isinstance(t, There) and t.ndim > 0]
        there = [t for t in flat if isinstance(t, There)]
        copies = func in (aten._to_copy.default, aten.copy_.default)
        if func in READS and there:
            self.read()
        if copies and there and (here or (target is not None and torch.device(target).type == "cpu")):
            if func is aten._to_copy.default or isinstance(args[1], There):
                self.read()  # down; up is free
        elif here and there:
            msg = f"Expected all tensors to be on the same device, but found two devices, in {func}"
            raise RuntimeError(msg)
        to_cpu = copies and target is not None and torch.device(target).type == "cpu"
        if target is not None:
            kwargs = kwargs | {"device": "cpu"}
        inner_args, inner_kwargs = tree_map(held, (args, kwargs))
        self.keep(func, inner_args, inner_kwargs)
        result = func(*inner_args, **inner_kwargs)
        if self.recording is not None:
            self.recording.calls.append(_again(func, inner_args, inner_kwargs, result))
        on_device = bool(there) or (target is not None and torch.device(target).type == "cuda")
        if to_cpu or not on_device or (func is aten.copy_.default and not isinstance(args[0], There)):
            return _written(func, args, kwargs) if func is aten.copy_.default else result
        written = _written(func, args, kwargs)
        if written is not None:
            return written
        return tree_map(lambda v: There(v) if isinstance(v, torch.Tensor) else v, result)

    def plain(self, func: Any, args: Any) -> Any:
        """Call a method of tensors on what is held."""
        inner = tree_map(held, args)
        if func in INDEXED:
            if not isinstance(args[0], There):
                msg = "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
                raise RuntimeError(msg)
            chosen = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(index, There) and index.dtype == torch.bool for index in chosen):
                self.read()  # how many there are
        if self.recording is not None and func is torch.Tensor.__setitem__:
            self.keep_tensor(inner[0])
        result = func(*inner)
        if self.recording is not None:
            self.recording.calls.append(_again(func, inner, {}, result))
        if result is inner[0]:
            return args[0]
        return There(result) if isinstance(result, torch.Tensor) else result

    def keep(self, func: Any, args: Any, kwargs: Any) -> None:
        """Keep what is written while recording, to put it back: recording does nothing."""
        if self.recording is not None:
            for name, value in _arguments(func, args, kwargs):
                if name.alias_info is not None and name.alias_info.is_write:
                    for tensor in value if isinstance(value, list | tuple) else [value]:
                        self.keep_tensor(tensor)

    def keep_tensor(self, tensor: torch.Tensor) -> None:
        key = tensor.untyped_storage().data_ptr()
        if key not in self.before:
            whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
            self.before[key] = whole, whole.clone()

    def start(self, kernel: Any, grid: Any, arguments: Any, constants: Any) -> None:
        """Start a Triton kernel."""
        inner = [held(a) for a in arguments]
        if any(isinstance(a, torch.Tensor) and not isinstance(a, There) for a in arguments):
            msg = "Pointer argument cannot be accessed from Triton (cpu tensor?)"
            raise ValueError(msg)
        if self.recording is not None:
            for a in inner:
                if isinstance(a, torch.Tensor):
                    self.keep_tensor(a)
            self.recording.calls.append(lambda: kernel[grid](*inner, **constants))
        kernel[grid](*inner, **constants)

    @contextmanager
    def record(
        self, graph: Graph, stream: Stream | None = None, capture_error_mode: str = "global"
    ) -> Iterator[None]:
        where = (stream or Stream()).device  # what other devices are told meanwhile is done, not recorded
        self.recording, self.before = graph if where == CUDA else None, {}
        try:
            yield
        finally:
            self.recording = None
            for whole, copy in self.before.values():
                whole.copy_(copy)


def _arguments(func: Any, args: Any, kwargs: Any) -> Iterator[tuple[Any, Any]]:
    for k, argument in enumerate(func._schema.arguments):
        if k < len(args):
            yield argument, args[k]
        elif argument.name in kwargs:
            yield argument, kwargs[argument.name]


def _written(func: Any, args: Any, kwargs: Any) -> Any:
    """Return the arguments that an in-place operation returns; None for others."""
    if not any(r.alias_info is not None and r.alias_info.is_write for r in func._schema.returns):
        return None
    found = [v for name, v in _arguments(func, args, kwargs) if name.alias_info and name.alias_info.is_write]
    return found[0] if len(found) == 1 else tuple(found)


def _again(func: Any, args: Any, kwargs: Any, result: Any) -> Any:
    """Return what does an operation once more, into the memory of its first result; views stay views."""
    outputs: list[torch.Tensor] = []
    tree_map(lambda v: outputs.append(v) if isinstance(v, torch.Tensor) else None, result)
    inputs: set[int] = set()
    tree_map(
        lambda v: inputs.add(v.untyped_storage().data_ptr()) if isinstance(v, torch.Tensor) else None,
        (args, kwargs),
    )

    def call() -> None:
        fresh: list[torch.Tensor] = []
        tree_map(lambda v: fresh.append(v) if isinstance(v, torch.Tensor) else None, func(*args, **kwargs))
        for old, new in zip(outputs, fresh, strict=True):
            if old.untyped_storage().data_ptr() not in inputs:
                old.copy_(new)

    return call


class Factories(TorchDispatchMode):
    """Takes what is made on the device, or brought there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        target = kwargs.get("device")
        if There in types or (target is not None and torch.device(target).type == "cuda"):
            return device.run(func, args, kwargs)
        return func(*args, **kwargs)


device = Device()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """The simulated device, its count of reads at zero."""
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda._lazy_init", lambda: None)
    monkeypatch.setattr("torch.cuda.device", lambda *_: nullcontext())
    monkeypatch.setattr("torch.cuda.Stream", Stream)
    monkeypatch.setattr("torch.cuda.current_stream", Stream)
    monkeypatch.setattr("torch.cuda.stream", lambda *_: nullcontext())
    monkeypatch.setattr("torch.cuda.synchronize", lambda *_: None)
    monkeypatch.setattr("torch.cuda.CUDAGraph", Graph)
    monkeypatch.setattr("torch.cuda.graph", device.record)
    monkeypatch.setattr("neuralsolve.kernels.gpu.launch._start", device.start)
    device.reads, device.recording = 0, None
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) is a copy that can be seen
    try:
        with Factories():
            yield device
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


class Fast:
    """Kernels of the CPU for tensors of the simulated device, recorded as launches are.

    A cycle of multigrid changes the places of its vectors here, which a replay does not see: it is another M.
    """

    def __init__(self) -> None:
        from neuralsolve.kernels import cpu
        from neuralsolve.kernels import gpu as room

        self._cpu, self.__all__ = cpu, list(room.__all__)

    def __getattr__(self, name: str) -> Any:
        kernel = getattr(self._cpu, name)

        def call(*arguments: Any, **options: Any) -> Any:
            inner = [held(each) for each in arguments]
            if device.recording is not None:
                for each in inner:
                    if isinstance(each, torch.Tensor):
                        device.keep_tensor(each)
            result = kernel(*inner, **options)
            if device.recording is not None:
                device.recording.calls.append(partial(_once_more, kernel, inner, options, result))
            if isinstance(result, float | bool):
                device.read()
            return There(result) if isinstance(result, torch.Tensor) else result

        return call


def _once_more(kernel: Any, inner: list[Any], options: dict[str, Any], result: Any) -> None:
    fresh = kernel(*inner, **options)
    if isinstance(result, torch.Tensor):
        result.copy_(fresh)


@pytest.fixture
def fast_gpu(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    """The simulated device with kernels of the CPU: for what is made of kernels that are tested elsewhere."""
    import neuralsolve.kernels

    monkeypatch.setitem(neuralsolve.kernels._loaded, "gpu", Fast())
    return gpu
