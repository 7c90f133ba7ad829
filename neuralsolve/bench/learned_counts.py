"""Iterations of learned solvers: on what they were trained for, on scenes not seen, by precision."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch

import neuralsolve as ns
from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, named, row
from neuralsolve.bench.baselines import SLACK
from neuralsolve.bench.clock import timed
from neuralsolve.bench.learned_scenes import CLASSICAL, V_CYCLE, count, seeds_of, unseen_stencil
from neuralsolve.bench.rivals import stencil_system
from neuralsolve.bench.scenes import UNSEEN
from neuralsolve.models.cycle import cycle_of
from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.preconditioners.grid_cycle import GridCycle
from neuralsolve.preconditioners.learned import Knowledge, read_knowledge


def directions(settings: Settings) -> Iterator[BarRow]:
    """Yield DCDM on the box that it was trained on, right sides that it has not seen, to 1e-4."""
    for name, full, bars in (
        ("dcdm2d", (64, 64), Bars(8, 15, True)),
        ("dcdm3d", (32,) * 3, Bars(5, 10, True)),
    ):
        shape, count = settings.cells(*full), 3 if settings.quick else 20
        A = PoissonStencil(Grid(shape, walls="dirichlet"))
        learned = ns.prepare(A, ns.DCDM(history=2), M=ns.NeuralDirection(name), rtol=1e-4)
        plain = ns.prepare(A, ns.CG(), rtol=1e-4)
        gains, seconds, cg_seconds, residuals, steps = [], [], [], [], []
        for seed in seeds_of(settings, count):
            b = np.random.default_rng(seed).standard_normal(A.shape[0])
            time, result = timed(lambda b=b, p=learned: p.solve(b, throw=False))
            cg_time, cg = timed(lambda b=b, p=plain: p.solve(b))
            residuals.append(stencil_system("box", A, b).residual(np.asarray(result.x)))
            gains.append(cg.iterations / result.iterations if residuals[-1] <= SLACK * 1e-4 else math.nan)
            seconds.append(time)
            cg_seconds.append(cg_time)
            steps.append(result.iterations)
        more: dict[str, Any] = {
            "solve_s": statistics.median(seconds),
            "baseline": "CG",
            "baseline_s": statistics.median(cg_seconds),
            "iterations": statistics.median(steps),
            "residual": max(residuals),
            "seeds": listed(seeds_of(settings, count)),
        }
        problem = f"Dirichlet box {named(shape)}, to 1e-4"
        yield row("directions", problem, f"iterations of CG / of {name}", "x", bars, gains, **more)
        slower = [a / b for a, b in zip(seconds, cg_seconds, strict=True)]
        yield row("directions", problem, f"time of {name} / of CG", "x", None, slower, **more)


def masked_directions(settings: Settings) -> Iterator[BarRow]:
    """Yield NPSDO on geometries of classes, and on larger grids, that it has not seen."""
    for name, full in (
        ("npsdo2d", (64, 64)),
        ("npsdo2d", (256, 256)),
        ("npsdo3d", (32, 32, 32)),
        ("npsdo3d", (48, 48, 48)),
    ):
        shape = settings.cells(*full)
        yield from _iterations(settings, "masked_directions", shape, name, ns.DCDM(history=2), "CG", None)


def transfer(settings: Settings) -> Iterator[BarRow]:
    """Yield iterations on unseen classes over those of tuned multigrid, its V-cycle and its W-cycle."""
    for full in ((64, 64), (32, 32, 32)):
        shape = settings.cells(*full)
        for rival, bars in ((V_CYCLE, Bars(1.0, 0.75)), (CLASSICAL, None)):
            yield from _iterations(settings, "transfer", shape, "cycle", ns.CG(), rival, bars)


def sizes(settings: Settings) -> Iterator[BarRow]:
    """Yield how iterations grow with the grid, on unseen classes."""
    for coarse, fine, bars in (
        ((64, 64), (512, 512), Bars(1.5, 1.25)),
        ((32,) * 3, (96,) * 3, Bars(1.2, 1.1)),
    ):
        growth, seeds = [], seeds_of(settings, 5)
        for seed, kind in zip(seeds, cycle(UNSEEN), strict=False):
            few, many = (
                count(unseen_stencil(settings.cells(*shape), seed, kind), seed, ns.CG(), ns.NeuralMultigrid())
                for shape in (coarse, fine)
            )
            growth.append(many / few)
        problem = f"unseen {named(settings.cells(*coarse))} to {named(settings.cells(*fine))}"
        yield row("sizes", problem, "growth of iterations", "x", bars, growth, seeds=listed(seeds))


def against(settings: Settings) -> Iterator[BarRow]:
    """Yield iterations of CG, and of CG with MIC(0), over those of the learned cycle."""
    bars = {
        (64, 64): ((30, 45), (5.5, 8)),
        (512, 512): ((140, 210), (18, 28)),
        (64, 64, 64): ((28, 43), (5, 7)),
        (96, 96, 96): ((38, 58), (6, 10)),
    }
    for full, pairs in bars.items():
        shape, seeds = settings.cells(*full), seeds_of(settings, 3)
        gains: dict[str, list[float]] = {"CG": [], "CG with MIC(0)": []}
        for seed, kind in zip(seeds, cycle(UNSEEN), strict=False):
            A = unseen_stencil(shape, seed, kind)
            few = count(A, seed, ns.CG(), ns.NeuralMultigrid())
            gains["CG"].append(count(A, seed, ns.CG(), None) / few)
            gains["CG with MIC(0)"].append(
                count(A, seed, ns.CG(), ns.IncompleteCholesky(modified=0.97)) / few
            )
        for (rival, values), (must, aim) in zip(gains.items(), pairs, strict=True):
            what = f"iterations of {rival} / of the learned cycle"
            yield row(
                "against",
                f"unseen {named(shape)}",
                what,
                "x",
                Bars(must, aim, True),
                values,
                seeds=listed(seeds),
            )


def precision(settings: Settings) -> Iterator[BarRow]:
    """Yield what rounding in the cycle costs CG on its way to a true residual of 1e-10.

    float32 is compared with the same cycle in float64; coefficients of all levels and the inverse of the
    coarsest one in bfloat16 with float32.
    """
    rtol, tables = 1e-10, read_knowledge("cycle")
    for full in ((64, 64), (32, 32, 32)):
        shape, seeds = settings.cells(*full), seeds_of(settings, 10)
        beyond_float64, beyond_float32, steps = [], [], []
        known = tables[f"{len(shape)}d"]
        assert isinstance(known, Knowledge)
        for seed, kind in zip(seeds, cycle(UNSEEN), strict=False):
            A = unseen_stencil(shape, seed, kind)
            exact, single, half = (
                count(A, seed, ns.CG(), M, rtol)
                for M in (_in_float64(A, known), ns.NeuralMultigrid(), _in_bfloat16(A))
            )
            steps.append(single)
            beyond_float64.append(single - exact if exact < math.inf else math.nan)
            beyond_float32.append(half - single)
        more: dict[str, Any] = {"iterations": statistics.median(steps), "seeds": listed(seeds)}
        problem = f"unseen {named(shape)}, to {rtol:g}"
        for what, bars, values in (
            ("float32 cycle: iterations beyond float64", Bars(1, 0), beyond_float64),
            ("bfloat16 coefficients: iterations beyond float32", Bars(2, 1), beyond_float32),
        ):
            yield row("precision", problem, what, "its", bars, values, **more)


def _in_float64(A: PoissonStencil, known: Knowledge) -> Callable[[np.ndarray], np.ndarray]:
    M = cycle_of(A, known)
    return lambda r: M.apply(torch.tensor(r)[None])[0].numpy()


def _in_bfloat16(A: PoissonStencil) -> GridCycle:
    M = ns.NeuralMultigrid().build(A)
    assert M._hierarchy is not None
    for numbers in (M._hierarchy.matrices, M._hierarchy.inverse):
        numbers.copy_(numbers.bfloat16())
    return M


def _iterations(
    settings: Settings,
    group: str,
    shape: tuple[int, ...],
    name: str,
    method: Any,
    rival: str,
    bars: Bars | None,
) -> Iterator[BarRow]:
    """Yield iterations of something learned over those of CG alone or with multigrid."""
    seeds = seeds_of(settings, 20)
    learned = ns.NeuralMultigrid() if name == "cycle" else ns.NeuralDirection(name)
    rivals = {"CG": None, CLASSICAL: ns.Multigrid(), V_CYCLE: ns.Multigrid("V")}
    shares, steps = [], []
    for seed, kind in zip(seeds, islice(cycle(UNSEEN), len(seeds)), strict=True):
        A = unseen_stencil(shape, seed, kind)
        steps.append(count(A, seed, method, learned))
        shares.append(steps[-1] / count(A, seed, ns.CG(), rivals[rival]))
    what = f"iterations of {name} / of {rival}"
    more: dict[str, Any] = {"iterations": statistics.median(steps), "seeds": listed(seeds)}
    yield row(group, f"unseen {named(shape)}", what, "x", bars, shares, **more)
