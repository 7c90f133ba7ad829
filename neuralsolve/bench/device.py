"""The device that a benchmark runs on: its name, when it has done its work, and how fast it copies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from neuralsolve.bench.clock import interleaved
from neuralsolve.errors import OptionError
from neuralsolve.operators.base import canonical

LAUNCHES = 20  # calls that are recorded and started together: what starting them takes is not measured
COPY = "copy"


def chosen(name: str) -> torch.device:
    """Return the device of a name, "cpu", "cuda" or "cuda:1".

    Raises
    ------
    OptionError
        Another name, or a device that is not here.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        msg = f"device {name!r} is unknown; cpu, cuda or cuda:N, of several GPUs number N, is needed"
        raise OptionError(msg)
    return canonical(name)


def card(device: torch.device) -> str:
    """Return the name of a GPU and the CUDA that drives it; nothing for the CPU."""
    if device.type != "cuda":
        return ""
    return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"


def together(call: Callable[[], Any], count: int, device: torch.device) -> Callable[[], Any]:
    """Return what does a call `count` times at once: a CUDA graph, replayed.

    A kernel that runs for a tenth of a millisecond is over before Python has started the next one; in a
    graph, which is how solves run, they follow one another.
    """
    call()  # compiles
    graph = torch.cuda.CUDAGraph()
    # torch records the present device unless it is told which
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=torch.cuda.Stream(device)):
        for _ in range(count):
            call()
    return graph.replay


def seconds_each(
    calls: Mapping[str, Callable[[], Any]], device: torch.device, repeats: int, count: int = LAUNCHES
) -> dict[str, float]:
    """Return the median seconds of every call on a CUDA device, all of them in turn, `count` at once."""
    runs = {name: together(call, count, device) for name, call in calls.items()}
    times = interleaved(runs, repeats, device=device)
    return {name: seconds / count for name, seconds in times.items()}


def copying(entries: int, device: torch.device) -> Callable[[], Any]:
    """Return a copy of so many float64 numbers on a device; it moves 16 bytes for each."""
    source = torch.ones(entries, dtype=torch.float64, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)
