"""Timing: medians of interleaved runs. What a GPU was asked to do is waited for, before and after."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

SETTLING = 0.1  # seconds after which threads of BLAS, which spin for some 30 ms after a call, sleep
CPU = torch.device("cpu")


def settle() -> None:
    """Wait until the threads sleep that a call of BLAS left spinning: they would take a core."""
    time.sleep(SETTLING)


def wait(device: torch.device) -> None:
    """Wait until a CUDA device has done all that it was asked to; calls return before that."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Callable[[], Any], device: torch.device = CPU) -> tuple[float, Any]:
    """Return the wall time of a call, its work on the device done, and what it returned."""
    wait(device)
    start = time.perf_counter()
    result = call()
    wait(device)
    return time.perf_counter() - start, result


def interleaved(
    calls: Mapping[str, Callable[[], Any]], repeats: int, warm_up: bool = True, device: torch.device = CPU
) -> dict[str, float]:
    """Return the median wall time of every call; each round runs all of them once.

    A load that comes and goes then meets all of them alike. A first round, which compiles and fills caches,
    is not counted if `warm_up`.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(repeats + warm_up):
        for name, call in calls.items():
            seconds, _ = timed(call, device)
            if round_ >= warm_up:
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}
