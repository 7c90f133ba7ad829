"""Iterations of learned solvers: on what they were trained for, on scenes not seen, by precision."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import numpy as np

import neuralsolve as ns
from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, missing, named, row
from neuralsolve.bench.baselines import SLACK
from neuralsolve.bench.clock import timed
from neuralsolve.bench.learned_scenes import CLASSICAL, V_CYCLE, count, seeds_of, unseen_stencil
from neuralsolve.bench.rivals import stencil_system
from neuralsolve.bench.scenes import UNSEEN
from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil


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
    """Yield NPSDO on geometries of classes that it has not seen."""
    shape = settings.cells(64, 64)
    yield from _iterations(settings, "masked_directions", shape, "npsdo2d", ns.DCDM(history=2), "CG", None)


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
    """Say that the cycle has one precision: there is nothing that float32 could be compared with."""
    why = "the cycle is float32 alone; its solves reach 1e-10 in float64 CG"
    yield missing(
        "precision", "float32 cycle", "iterations beyond those of a float64 cycle", "its", Bars(1, 0), why
    )


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
