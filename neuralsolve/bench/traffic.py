"""How far multigrid's kernels are above the time that memory needs for what they read and write.

Kernels are watched where they work, in solves; the two ways of a cycle over the finest level alone. Bytes are
those of their arguments, each read or written once, and twice where it is both; that a processor reads a line
of memory before it writes to it is not counted, nor what a cache saves. The floor is the bytes over the
bandwidth of a copy of a large vector, the fastest of several, counted in the same way.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.bench.bars import BarRow, Settings, listed, named, row
from neuralsolve.bench.clock import CPU, timed
from neuralsolve.kernels import table
from neuralsolve.kernels.cpu.cycle import DOWN, UP
from neuralsolve.kernels.cpu.threads import side_by_side
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.pde.scenes import free_surface
from neuralsolve.preconditioners.multigrid import Multigrid
from neuralsolve.solvers.krylov import CG
from neuralsolve.solvers.solve import prepare

KERNELS = ("level_load", "level_store", "dot", "xpby", "stencil_matvec_dot", "cg_update")
# positions of arguments that a kernel reads and writes
UPDATED = {"axpy": (2,), "xpby": (2,), "cg_update": (3, 4), "levels_cycle": (0,)}
# bytes a cell of the finest level that its part of a cycle moves: 1/diagonal, b and the weights are read, and
WAYS = {
    "down: smoothing, residual, restriction": (DOWN, 4 + 4 + 4 + 4),  # x is written
    "up: interpolation, smoothing": (UP, 4 + 4 + 4 + 4 + 4),  # x is read and another one written
}
LARGE = 16_000_000  # entries: no cache holds them
STEPS = (2, 6)  # iterations of two runs of CG, whose difference is free of what comes before and after


@dataclass(frozen=True)
class Call:
    """One call of a kernel: its name, time, bytes, and the length of its largest argument."""

    name: str
    seconds: float
    bytes: int
    size: int


@contextmanager
def recorded(device: torch.device = CPU) -> Iterator[list[Call]]:
    """Record every call of a kernel for a device inside the block; times are those of the CPU's clock."""
    module, calls = table(device), []
    plain = {name: getattr(module, name) for name in module.__all__}

    def watching(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = kernel(*arguments, **options)
            seconds = time.perf_counter() - start
            sizes = [each.numel() for each in arguments if isinstance(each, Tensor)]
            calls.append(Call(name, seconds, traffic(name, arguments), max(sizes, default=0)))
            return result

        return watched

    try:
        for name, kernel in plain.items():
            setattr(module, name, watching(name, kernel))
        yield calls
    finally:
        for name, kernel in plain.items():
            setattr(module, name, kernel)


def traffic(name: str, arguments: tuple[Any, ...]) -> int:
    """Return the bytes that a call reads and writes at least."""
    total = sum(each.nbytes for each in arguments if isinstance(each, Tensor))
    return total + sum(arguments[place].nbytes for place in UPDATED.get(name, ()))


def copying(entries: int) -> Callable[[], float]:
    """Return a measurement of the bytes a second that a float64 copy moves, one part per thread."""
    source, target = np.ones(entries), np.zeros(entries)
    parts = torch.get_num_threads()
    pieces = list(zip(np.array_split(target, parts), np.array_split(source, parts), strict=True))

    def copy() -> None:
        side_by_side(parts, lambda part: np.copyto(*pieces[part]), parts)

    return lambda: 16 * entries / timed(copy)[0]


def kernels(settings: Settings) -> Iterator[BarRow]:
    """Yield every kernel on the finest level, and an iteration of CG, beside the floor of memory."""
    shape, seeds = settings.cells(128, 128, 128), settings.seeds(1)
    generator = np.random.default_rng(seeds[0])
    A = PoissonStencil(free_surface(shape, generator))
    b, where = generator.standard_normal(A.shape[0]), listed(seeds)
    M = Multigrid().build(A)
    r, out = torch.from_numpy(b), torch.empty(A.shape[0], dtype=torch.float64)
    copy = copying(A.shape[0] if settings.quick else LARGE)
    M.apply(r, out)
    prepared = prepare(A, CG(), M=Multigrid(), rtol=1e-8)
    bandwidths, cycles, calls = [copy()], [], []
    ways: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(settings.repeats):
        bandwidths += [copy() for _ in range(5)]
        cycles.append(timed(lambda: M.apply(r, out))[0])
        for name, (kind, _) in WAYS.items():
            ways[name].append(timed(lambda kind=kind: M.cycle(kind))[0])
        with recorded() as more:
            prepared.solve(b)
        calls += more
    with recorded() as applied:
        M.apply(r, out)
    bandwidth = max(bandwidths)  # a load makes copies slower: the floor is that of the fastest
    yield _row("copy of a float64 vector", "bandwidth", "GB/s", bandwidth / 1e9)
    problem = f"finest level of masked {named(shape)}"
    for name, (_, moved) in WAYS.items():
        seconds = statistics.median(ways[name])
        yield _over_floor(problem, name, seconds, moved * A.shape[0], A.shape[0], bandwidth, where)
    for name in KERNELS:
        yield from _kernel_rows(problem, name, calls, A.shape[0], bandwidth, where)
    moved, problem = sum(call.bytes for call in applied), f"masked {named(shape)}"
    cycle = statistics.median(cycles)
    yield _over_floor(problem, "cycle of multigrid", cycle, moved, A.shape[0], bandwidth, where)
    step, moved = _iteration(A, b, settings.repeats)
    yield _over_floor(problem, "iteration of CG with multigrid", step, moved, A.shape[0], bandwidth, where)


def _kernel_rows(
    problem: str, name: str, calls: list[Call], cells: int, bandwidth: float, seeds: str
) -> Iterator[BarRow]:
    """One row per number of bytes: a product of a vector with itself reads half of another's."""
    chosen = [call for call in calls if call.name == name]
    by_bytes: dict[int, list[float]] = defaultdict(list)
    for call in chosen:
        if call.size == max(each.size for each in chosen):
            by_bytes[call.bytes].append(call.seconds)
    for moved, seconds in sorted(by_bytes.items()):
        yield _over_floor(problem, name, statistics.median(seconds), moved, cells, bandwidth, seeds)


def _iteration(A: PoissonStencil, b: np.ndarray, repeats: int) -> tuple[float, float]:
    """Return the time and the bytes of an iteration, from two runs of different length."""
    short, long = STEPS
    prepared = prepare(A, CG(), M=Multigrid(), rtol=1e-12)
    norms = prepared.solve(b, throw=False).residual_norms
    # reached after that many steps: a run that misses is examined further
    runs = {steps: 1.0001 * norms[steps] / norms[0] for steps in STEPS}
    times: dict[int, list[float]] = {steps: [] for steps in STEPS}
    for _ in range(repeats):
        for steps, rtol in runs.items():
            times[steps].append(timed(lambda rtol=rtol: prepared.solve(b, rtol=rtol))[0])
    moved = {}
    for steps, rtol in runs.items():
        with recorded() as calls:
            prepared.solve(b, rtol=rtol)
        moved[steps] = sum(call.bytes for call in calls)
    seconds = statistics.median(times[long]) - statistics.median(times[short])
    return seconds / (long - short), (moved[long] - moved[short]) / (long - short)


def _over_floor(
    problem: str, what: str, seconds: float, moved: float, cells: int, bandwidth: float, seeds: str
) -> BarRow:
    floor = moved / bandwidth
    note = f"{moved / cells:.1f} bytes per cell"
    more: dict[str, Any] = {"solve_s": seconds, "baseline": "floor", "baseline_s": floor, "note": note}
    return _row(problem, f"{what} / floor", "x", seconds / floor, seeds=seeds, **more)


def _row(problem: str, quantity: str, unit: str, value: float, **more: Any) -> BarRow:
    return row("kernels", problem, quantity, unit, None, [value], **more)
