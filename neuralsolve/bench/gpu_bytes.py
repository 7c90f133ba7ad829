"""Kernels and iterations on a GPU beside the time that a copy of as many bytes takes.

What a kernel moves is what its arguments hold, each read or written once, and twice where it is both
(`traffic`); of a cycle of multigrid it is what its passes move, level by level.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from neuralsolve.bench.bars import BarRow, Bars, Settings, named, row
from neuralsolve.bench.device import COPY, LAUNCHES, copying, seconds_each
from neuralsolve.bench.device_measures import STEPS, box, kernel_calls, noise, step_seconds
from neuralsolve.bench.traffic import recorded
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.preconditioners.multigrid import Multigrid
from neuralsolve.solvers.krylov import CG
from neuralsolve.solvers.solve import prepare

SIDE = 256
CYCLE = 138.0  # bytes a cell of W(2,2) with constant coefficients, all levels: see `kernels.gpu.cycle`
KERNEL, ITERATION = Bars(0.7, at_least=True), Bars(0.6, at_least=True)
BARRED = ("stencil_matvec_dot", "cg_update")
COUNTED = (2, 6)  # steps of two runs whose difference are the bytes of one
MULTIGRID_STEPS = (2, 6)  # of a solve that takes ten


def cube(settings: Settings) -> tuple[int, int, int]:
    """Return the shape of the large grids."""
    side = 16 if settings.quick else SIDE
    return side, side, side


def bandwidth(settings: Settings) -> Iterator[BarRow]:
    """Yield the bandwidth of a copy, and the part of it that every kernel of a step of CG reaches."""
    device, side = settings.device, cube(settings)[0]
    A, few = box(side), 2 if settings.quick else LAUNCHES
    b = noise(A.shape[0], device)
    known = kernel_calls(A.to(device), b)
    calls = {name: call for name, (call, _) in known.items()} | {COPY: copying(len(b), device)}
    times = seconds_each(calls, device, settings.repeats, few)
    speed, problem = 16 * len(b) / times[COPY], f"box {named((side,) * 3)}"
    what = f"{few} in a CUDA graph"
    yield row("bandwidth", problem, "copy of a float64 vector", "GB/s", None, [speed / 1e9], note=what)
    for name, (_, moved) in known.items():
        bars = KERNEL if name in BARRED else None
        yield _share("bandwidth", problem, name, bars, times[name], moved, len(b), speed)


def cg(settings: Settings) -> Iterator[BarRow]:
    """Yield a step of CG, alone and with multigrid, as a part of what a copy of its bytes allows."""
    device, side = settings.device, cube(settings)[0]
    A = box(side)
    b = noise(A.shape[0], device)
    few = 2 if settings.quick else LAUNCHES
    speed = 16 * len(b) / seconds_each({COPY: copying(len(b), device)}, device, settings.repeats, few)[COPY]
    placed, problem = A.to(device), f"box {named((side,) * 3)}"
    for name, M, every, steps in (
        ("a step of CG", None, 10, STEPS),
        ("a step of CG with multigrid", Multigrid(), 2, MULTIGRID_STEPS),
    ):
        seconds = step_seconds(placed, b, device, settings.repeats, M, every, steps)
        moved = step_bytes(placed, b, device, M)
        yield _share("cg", problem, name, ITERATION, seconds, moved, len(b), speed)


def step_bytes(A: PoissonStencil, b: Tensor, device: torch.device, M: Any = None) -> float:
    """Return the bytes that the kernels of a step of CG move."""
    prepared = prepare(A, CG(), M=M, rtol=1e-14, check_every=1)
    norms = prepared.solve(b, maxiter=COUNTED[1], throw=False).residual_norms
    moved, taken = [], []
    for count in COUNTED:
        with recorded(device) as calls:
            steps = prepared.solve(b, rtol=1.0001 * min(norms[: count + 1]) / norms[0]).iterations
        taken.append(steps)
        moved.append(sum(CYCLE * len(b) if c.name == "levels_cycle" else c.bytes for c in calls))
    return (moved[1] - moved[0]) / max(1, taken[1] - taken[0])


def _share(
    group: str,
    problem: str,
    name: str,
    bars: Bars | None,
    seconds: float,
    moved: float,
    cells: int,
    speed: float,
) -> BarRow:
    floor = moved / speed
    more: dict[str, Any] = {"solve_s": seconds, "baseline": "copy of as many bytes", "baseline_s": floor}
    note = f"{moved / cells:.1f} bytes per cell"
    return row(group, problem, f"{name}: copy / measured", "x", bars, [floor / seconds], note=note, **more)
