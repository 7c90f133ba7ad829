"""Whole solves on a GPU: multigrid, batches, networks, and an iteration beside those of others."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import neuralsolve as ns
from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, missing, named, row
from neuralsolve.bench.baselines import SLACK
from neuralsolve.bench.clock import interleaved, timed
from neuralsolve.bench.device_measures import STEPS, box, noise, step_seconds
from neuralsolve.bench.device_rivals import CUPY, TORCH, cupy_cg, cupy_missing, torch_cg
from neuralsolve.bench.gpu_bytes import cube
from neuralsolve.operators.convert import as_operator
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.pde.scenes import free_surface

RTOL, LOOSE, QUICK = 1e-8, 1e-6, 0.1  # of networks, and of batches and networks at toy sizes
COLUMNS = 64
GAIN = Bars(5, at_least=True)


def multigrid(settings: Settings) -> Iterator[BarRow]:
    """Yield solves of obstacles and a free surface in 256^3 after the first one of a `Prepared`."""
    shape, seeds = cube(settings), settings.seeds(2)
    scenes = [_scene(shape, seed) for seed in seeds]
    for every, bars in ((2, Bars(60)), (10, None)):
        found = [_second_solves(A, b, settings, every) for A, b in scenes]
        times = [1e3 * each["solve_s"] if each["residual"] <= SLACK * RTOL else math.inf for each in found]
        yield row(
            "multigrid",
            f"masked {named(shape)}",
            f"a later solve by CG with multigrid to {RTOL:g}, a look every {every} steps",
            "ms",
            bars,
            times,
            setup_s=statistics.median(each["setup_s"] for each in found),
            solve_s=statistics.median(each["solve_s"] for each in found),
            iterations=statistics.median(each["iterations"] for each in found),
            residual=max(each["residual"] for each in found),
            repeats=settings.repeats,
            seeds=listed(seeds),
            note=f"the first solve {max(each['first_s'] for each in found):.3g} s, kernels compiled",
        )


def batch(settings: Settings) -> Iterator[BarRow]:
    """Yield many right sides at once, and many systems, beside one after the other."""
    shape, (seed, *_) = settings.cells(64, 64, 64), settings.seeds(1)
    device = settings.device
    count, rtol = (3, QUICK) if settings.quick else (COLUMNS, RTOL)
    (A, _), problem = _scene(shape, seed), f"masked {named(shape)}"
    generator = np.random.default_rng(seed + 500)
    B = torch.from_numpy(generator.standard_normal((A.shape[0], count))).to(device)
    columns = list(B.T.contiguous())
    for name, M in (("CG", None), ("CG with multigrid", ns.Multigrid())):
        # one for each shape of b: its graph is kept
        whole, single = (ns.prepare(A.to(device), ns.CG(), M=M, rtol=rtol) for _ in range(2))
        what = f"{count} right sides, one by one / at once, {name}"
        alone = partial(_one_by_one, [single] * count, columns)
        yield _gain(settings, problem, what, None if M else GAIN, partial(whole.solve, B), alone)
    what = f"{count} systems, one by one / at once, CG"
    many = [_scene(shape, seed + j)[0] for j in range(count)]
    each = [ns.prepare(S.to(device), ns.CG(), rtol=rtol) for S in many]
    whole = ns.prepare(ns.BatchedStencil(many).to(device), ns.CG(), rtol=rtol)
    alone = partial(_one_by_one, each, columns)
    yield _gain(settings, problem, what, GAIN, partial(whole.solve, B), alone)


def rivals(settings: Settings) -> Iterator[BarRow]:
    """Yield an iteration of CG of CuPy and of torch's CSR product, in iterations of ours."""
    device, side = settings.device, cube(settings)[0]
    A, steps = box(side), STEPS
    S, b = A.to_scipy(), noise(A.shape[0], device)
    ours = {
        name: step_seconds(each.to(device), b, device, settings.repeats)
        for name, each in (("CSR", as_operator(S)), ("stencil", A))
    }
    for rival, make, why in ((CUPY, cupy_cg, cupy_missing()), (TORCH, torch_cg, "")):
        bars = Bars(3, at_least=True) if rival == CUPY else None
        seconds, problem = math.nan, f"box {named((side,) * 3)}"
        if not why:
            run = make(S, b.cpu().numpy(), device)
            calls = {str(count): lambda count=count, run=run: run(count, 0.0) for count in steps}
            times = interleaved(calls, settings.repeats, device=device)
            seconds = (times[str(steps[1])] - times[str(steps[0])]) / (steps[1] - steps[0])
        for name, mine in ours.items():
            what = f"{rival} / our CG on the {name}, an iteration"
            if why:
                yield missing("rivals", problem, what, "x", bars, why)
                continue
            more: dict[str, Any] = {"solve_s": mine, "baseline": rival, "baseline_s": seconds}
            yield row("rivals", problem, what, "x", bars, [seconds / mine], repeats=settings.repeats, **more)


def networks(settings: Settings) -> Iterator[BarRow]:
    """Yield DCDM with its network in bfloat16 beside float32: time and number of steps."""
    shape = (32, 32) if settings.quick else (128, 128, 128)  # some torch pools half precision in 2D alone
    seed, *_ = settings.seeds(1)
    A, b = _scene(shape, seed)
    rtol = QUICK if settings.quick else LOOSE
    placed, there = A.to(settings.device), torch.from_numpy(b).to(settings.device)
    solvers = {
        name: ns.prepare(placed, ns.DCDM(), M=ns.NeuralDirection(precision=name), rtol=rtol)
        for name in ("float32", "bfloat16")
    }
    results = {name: solver.solve(there, throw=False) for name, solver in solvers.items()}
    calls = {name: lambda s=solver: s.solve(there, throw=False) for name, solver in solvers.items()}
    times = interleaved(calls, settings.repeats, device=settings.device)
    steps = {name: max(1, result.iterations) for name, result in results.items()}
    each = {name: times[name] / steps[name] for name in times}
    residual = {name: _residual(A, b, result.x) for name, result in results.items()}
    problem, note = f"masked {named(shape)}", results["bfloat16"].explanation
    yield row(
        "networks",
        problem,
        "a step of DCDM in bfloat16 / in float32",
        "x",
        None,
        [each["bfloat16"] / each["float32"]],
        solve_s=times["bfloat16"],
        baseline="float32",
        baseline_s=times["float32"],
        iterations=steps["bfloat16"],
        residual=residual["bfloat16"],
        repeats=settings.repeats,
        note=note,
    )
    share = steps["bfloat16"] / steps["float32"]
    what = f"{steps['bfloat16']} and {steps['float32']} to {rtol:g}"
    worst = max(residual.values())
    yield row(
        "networks", problem, "steps in bfloat16 / float32", "x", None, [share], residual=worst, note=what
    )


def _scene(shape: tuple[int, ...], seed: int) -> tuple[PoissonStencil, np.ndarray]:
    """Return obstacles under a free surface, and white noise as b."""
    generator = np.random.default_rng(seed)
    A = PoissonStencil(free_surface(shape, generator))
    return A, generator.standard_normal(A.shape[0])


def _second_solves(A: PoissonStencil, b: np.ndarray, settings: Settings, every: int) -> dict[str, float]:
    """Return the times of set-up, of the first solve, and the median of those after it."""
    device = settings.device
    placed, there = A.to(device), torch.from_numpy(b).to(device)
    make = partial(ns.prepare, placed, ns.CG(), M=ns.Multigrid(), rtol=RTOL, check_every=every)
    setup, prepared = timed(make, device)
    again = partial(prepared.solve, there, throw=False)
    first, result = timed(again, device)
    solve = interleaved({"solve": again}, settings.repeats, device=device)
    return {
        "setup_s": setup,
        "first_s": first,
        "solve_s": solve["solve"],
        "iterations": result.iterations,
        "residual": _residual(A, b, again().x),
    }


def _residual(A: PoissonStencil, b: np.ndarray, x: Tensor) -> float:
    """Return ||b - A x|| / ||b|| over the fluid, formed on the CPU."""
    inside = A.grid.fluid.reshape(-1)
    rhs = torch.from_numpy(b)[inside]
    return float((rhs - A.matvec(x.cpu())[inside]).norm() / rhs.norm())


def _one_by_one(solvers: Sequence[ns.Prepared], sides: Sequence[Tensor]) -> list[ns.SolveResult]:
    return [solver.solve(b) for solver, b in zip(solvers, sides, strict=True)]


def _gain(
    settings: Settings, problem: str, quantity: str, bars: Bars | None, together: Any, alone: Any
) -> BarRow:
    """Return the time of what is done one by one over that of doing it at once."""
    times = interleaved({"once": together, "each": alone}, settings.repeats, device=settings.device)
    more: dict[str, Any] = {"solve_s": times["once"], "baseline": "one by one", "baseline_s": times["each"]}
    gain, repeats = times["each"] / times["once"], settings.repeats
    return row("batch", problem, quantity, "x", bars, [gain], repeats=repeats, **more)
