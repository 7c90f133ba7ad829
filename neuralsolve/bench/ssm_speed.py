"""Speed and memory of the state-space layers beside s5-pytorch and the table of all exponentials.

Forward and backward, float32, two threads. s5-pytorch keeps all eigenvalues of a real system; ours is timed
with the same ones, and with one of each pair, which is what our layer keeps by itself: the peer is given
equal steps for the two of a pair, so that all three are the same function.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralsolve.bench.bars import BarRow, Bars, Settings, missing, row
from neuralsolve.bench.clock import interleaved
from neuralsolve.bench.footprint import memory_profile, torch_peak
from neuralsolve.bench.ssm_peer import PEER, release_of_the_peer, same_layers
from neuralsolve.models.heap import keep_freed_memory
from neuralsolve.models.s4d import S4D
from neuralsolve.models.s5 import S5
from neuralsolve.models.state_space import StateSpaceLayer
from neuralsolve.ssm.vandermonde import vandermonde

GROUP = "speed"
ROUNDS = 7
BATCH = 16
CHANNELS = 64
LENGTHS = (1024, 4096)
OURS = ("all states", "pairs")
LONG, LONG_BATCH = 65536, 4
STEPS = 2000
FASTER = Bars(3.0, 8.0, at_least=True)
KERNEL = Bars(5.0, 10.0, at_least=True)


def ssm_speed(settings: Settings) -> Iterator[BarRow]:
    """Measure all; the peer's rows say so where it is not installed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        yield from _against_the_peer(settings)
        yield _kernel(settings)
        yield from _steps(settings)
        yield from _long(settings)
    finally:
        torch.set_num_threads(threads)


def _against_the_peer(settings: Settings) -> Iterator[BarRow]:
    release = release_of_the_peer()
    if release is None:
        yield missing(GROUP, "S5", "forward and backward: s5-pytorch / ours", "x", FASTER, f"no {PEER}")
        return
    lengths, batch = ((64,), 2) if settings.quick else (LENGTHS, BATCH)
    nets = same_layers(CHANNELS)
    inputs = {length: _normal(batch, length, CHANNELS) for length in lengths}
    calls = {
        length: {name: partial(_train, net, u) for name, net in nets.items()} for length, u in inputs.items()
    }
    fresh = {length: interleaved(calls[length], ROUNDS) for length in lengths}
    keep_freed_memory()  # for good, hence after the times of a process that gives it back
    for length in lengths:
        kinds = {
            "": fresh[length],
            ", freed memory kept": interleaved(calls[length], ROUNDS),
            ", the same on one thread": _busy(calls[length]),
        }
        problem = f"L {length}, batch {batch}, H = P = {CHANNELS}"
        for how, seconds in kinds.items():
            yield from _faster(problem, release, how, seconds)
        yield from _leaner(problem, release, {name: _peak(call) for name, call in calls[length].items()})
        with torch.no_grad():
            outputs = {name: net(inputs[length]) for name, net in nets.items()}
        for name in OURS:
            apart = float((outputs[name] - outputs["peer"]).abs().max() / outputs["peer"].abs().max())
            more: dict[str, Any] = {"baseline": release}
            yield row(
                GROUP,
                f"S5, {name}, {problem}",
                "difference of outputs, relative",
                "",
                Bars(1e-5),
                [apart],
                **more,
            )


def _faster(problem: str, release: str, how: str, seconds: dict[str, float]) -> Iterator[BarRow]:
    for name in OURS:
        ratio = seconds["peer"] / seconds[name]
        taken = {"solve_s": seconds[name], "baseline_s": seconds["peer"], "repeats": ROUNDS}
        more: dict[str, Any] = {"baseline": release, **taken}
        words = f"forward and backward{how}: peer / ours"
        yield row(GROUP, f"S5, {name}, {problem}", words, "x", FASTER, [ratio], **more)


def _leaner(problem: str, release: str, peaks: dict[str, int]) -> Iterator[BarRow]:
    for name in OURS:
        ours, theirs = peaks[name] / 2**20, peaks["peer"] / 2**20
        more: dict[str, Any] = {"baseline": release, "note": f"{ours:.0f} MB and {theirs:.0f} MB"}
        yield row(
            GROUP,
            f"S5, {name}, {problem}",
            "peak memory: ours / peer",
            "",
            Bars(1 / 3),
            [ours / theirs],
            **more,
        )


def _kernel(settings: Settings) -> BarRow:
    """Time the kernel of S4D against the table of all exponentials, (H, N, L) complex numbers."""
    H, length = (4, 64) if settings.quick else (CHANNELS, 4096)
    generator = torch.Generator().manual_seed(2206)
    w = torch.randn(H, H, generator=generator, dtype=torch.complex64).requires_grad_()
    frequency = torch.pi * torch.arange(H).repeat(H, 1)
    z = (torch.complex(torch.full((H, H), -0.5), frequency) * 10 ** (-3 * torch.rand(H, 1))).requires_grad_()
    weight = torch.randn(H, length, generator=generator)
    steps = torch.arange(length)

    def naive() -> Tensor:
        return (w[..., None] * torch.exp(z[..., None] * steps)).sum(1).real

    def ours() -> Tensor:
        return vandermonde(w[:, None], z, length, torch.float32)[:, 0]

    def train(kernel: Callable[[], Tensor]) -> None:
        torch.autograd.grad((kernel() * weight).sum(), (w, z))

    seconds = interleaved({"naive": lambda: train(naive), "ours": lambda: train(ours)}, ROUNDS)
    peaks = [_peak(lambda kernel=kernel: train(kernel)) / 2**20 for kernel in (ours, naive)]
    return row(
        GROUP,
        f"kernel of S4D, L {length}, H = N = {H}",
        "forward and backward: table / ours",
        "x",
        KERNEL,
        [seconds["naive"] / seconds["ours"]],
        baseline="table of all exponentials",
        solve_s=seconds["ours"],
        baseline_s=seconds["naive"],
        repeats=ROUNDS,
        note=f"peak memory {peaks[0]:.0f} MB, of the table {peaks[1]:.0f} MB",
    )


def _steps(settings: Settings) -> Iterator[BarRow]:
    """Time one sample through a layer without gradients, and through its frozen stepper."""
    count = 20 if settings.quick else STEPS
    for kind in (S5, S4D):
        layer = kind(CHANNELS, CHANNELS, init="legs")
        state, u, stepper = layer.initial_state(1), _normal(1, CHANNELS), layer.stepper()
        given = u[0].double().numpy()
        calls = {"step": lambda: layer.step(u, state), "stepper": lambda: stepper(given)}  # noqa: B023
        for name, call in calls.items():
            with torch.no_grad():
                times = [_seconds(call) for _ in range(count)]
            micro = 1e6 * statistics.median(times)
            problem = f"{kind.__name__}, H = n = {CHANNELS}"
            yield row(GROUP, problem, f"one {name}", "us", Bars(50.0), [micro], repeats=count)


def _long(settings: Settings) -> Iterator[BarRow]:
    """Train on one long batch: the time, and the most memory held."""
    length = 256 if settings.quick else LONG
    u = _normal(LONG_BATCH, length, CHANNELS)
    for kind in (S5, S4D):
        layer = kind(CHANNELS, CHANNELS, init="legs")
        problem = f"{kind.__name__}, L {length}, batch {LONG_BATCH}, H = n = {CHANNELS}"
        peak = _peak(lambda: _train(layer, u)) / 2**30  # noqa: B023
        seconds = interleaved({"train": lambda: _train(layer, u)}, 3)["train"]  # noqa: B023
        yield row(GROUP, problem, "peak memory, the input aside", "GB", Bars(4.0), [peak], solve_s=seconds)


def _train(net: nn.Module | StateSpaceLayer, u: Tensor) -> None:
    given = u.detach().requires_grad_()
    net(given).square().mean().backward()
    net.zero_grad()


def _peak(call: Callable[[], Any]) -> int:
    """Return the most bytes that torch's tensors hold at once during a call."""
    call()
    with memory_profile() as profiler:
        call()
    return torch_peak(profiler)


def _busy(calls: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Return median CPU times on one thread, interleaved: they tell little of what else a machine does."""
    threads, found = torch.get_num_threads(), {name: [] for name in calls}
    torch.set_num_threads(1)
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started = time.process_time()
            call()
            found[name].append(time.process_time() - started)
    torch.set_num_threads(threads)
    return {name: statistics.median(values) for name, values in found.items()}


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _normal(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(2310).standard_normal(shape, np.float32))
