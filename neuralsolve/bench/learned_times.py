"""Times of learned solvers, with their set-up, beside those of the classical ones; what training costs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import numpy as np

import neuralsolve as ns
from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, named, race_row, row, shares
from neuralsolve.bench.baselines import SLACK
from neuralsolve.bench.clock import settle, timed
from neuralsolve.bench.learned_scenes import (
    CLASSICAL,
    FIRST,
    RTOL,
    V_CYCLE,
    classical_runs,
    seeds_of,
    unseen_stencil,
    unseen_system,
)
from neuralsolve.bench.rivals import OURS, Run, Trial, ours, pyamg, race, stencil_system
from neuralsolve.bench.scenes import UNSEEN
from neuralsolve.bench.system import System
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.pde.scenes import free_surface, layered, varied


def table(settings: Settings) -> Iterator[BarRow]:
    """Yield every method on one scene: set-up, solve, iterations, total over that of multigrid."""
    for full in ((64, 64), (512, 512), (64, 64, 64)):
        shape, kind = settings.cells(*full), next(iter(UNSEEN))
        make, system, b = unseen_system(shape, FIRST, kind)
        runs = classical_runs(make, system, b) | {
            "learned cycle + CG": ours(make, ns.NeuralMultigrid(), system, b, RTOL)
        }
        if shape == settings.cells(64, 64):
            for name in ("dcdm2d", "npsdo2d"):
                runs[f"{name} + DCDM"] = _learned(make, system, b, name)
        found: dict[str, Trial] = {name: run() for name, run in runs.items()}  # compiles
        found = {name: _median(run, settings.repeats) for name, run in runs.items()}
        for name, trial in sorted(found.items(), key=lambda pair: pair[1].total_s):
            share = trial.total_s / found[CLASSICAL].total_s
            more = {"setup_s": trial.setup_s, "solve_s": trial.solve_s, "iterations": trial.iterations}
            what = f"{name}: total / that of {CLASSICAL}"
            missed = "" if trial.residual <= SLACK * RTOL else f"missed {RTOL:g}"
            values: dict[str, Any] = {**more, "residual": trial.residual, "note": missed}
            yield row("table", f"unseen {named(shape)}, {kind}", what, "x", None, [share], **values)


def times(settings: Settings) -> Iterator[BarRow]:
    """Race the learned cycle, set-up included, with CG, MIC(0), PyAMG and tuned multigrid."""
    bars: dict[tuple[int, ...], dict[str, Bars]] = {
        (512, 512): {"CG": Bars(8, 20, True), "MIC(0) + CG": Bars(3, 8, True), CLASSICAL: Bars(1, 1.3, True)},
        (64, 64, 64): {
            "CG": Bars(3, 6, True),
            "MIC(0) + CG": Bars(2, 4, True),
            "PyAMG RS + cg": Bars(4, 10, True),
            "PyAMG SA + cg": Bars(4, 10, True),
            CLASSICAL: Bars(1, 1.3, True),
        },
        (96, 96, 96): {
            "PyAMG RS + cg": Bars(4, 10, True),
            "PyAMG SA + cg": Bars(4, 10, True),
            CLASSICAL: Bars(1, 1.3, True),
        },
    }
    for full, rivals in bars.items():
        shape, seeds, races = settings.cells(*full), seeds_of(settings, 3), []
        for seed, kind in zip(seeds, cycle(UNSEEN), strict=False):
            make, system, b = unseen_system(shape, seed, kind)
            wanted = {*rivals, V_CYCLE}
            runs = {name: run for name, run in classical_runs(make, system, b).items() if name in wanted}
            races.append(race(ours(make, ns.NeuralMultigrid(), system, b, RTOL), runs, settings.repeats))
        for name, each in rivals.items():
            names = (CLASSICAL, V_CYCLE) if name == CLASSICAL else (name,)
            what, problem = f"{' or '.join(names)} / learned cycle", f"unseen {named(shape)}"
            yield race_row("times", problem, what, each, races, names, RTOL, seeds=listed(seeds))


def coefficients(settings: Settings) -> Iterator[BarRow]:
    """Yield the learned cycle on inclusions of a contrast of 1e4, layouts not seen, beside multigrid."""
    for full in ((256, 256), (48, 48, 48)):
        shape = settings.cells(*full)
        races, seeds = _beside(settings, _inclusions, shape, {})
        problem = f"12 inclusions of 1e4, {named(shape)}"
        yield from _both_cycles("coefficients", problem, races, Bars(0.6, 0.35), Bars(1.3, 2.5, True), seeds)


def anisotropy(settings: Settings) -> Iterator[BarRow]:
    """Yield the learned cycle where the strong axis changes from place to place, up to 100 : 1.

    A stencil of five points has no couplings across, so the angle of the strong direction itself cannot turn.
    """
    shape, name = settings.cells(256, 256), "PyAMG SA + cg"
    races, seeds = _beside(settings, _layers, shape, {name: "sa"})
    problem = f"strong axis by place, 100 : 1, {named(shape)}"
    yield from _both_cycles("anisotropy", problem, races, Bars(0.5, 0.25), None, seeds)
    what, bars = f"{name} / learned cycle", Bars(1, 2, True)
    yield race_row("anisotropy", problem, what, bars, races, name, RTOL, seeds=listed(seeds))


def _beside(
    settings: Settings, scene: Callable[..., PoissonStencil], shape: tuple[int, ...], peers: dict[str, str]
) -> tuple[list[dict[str, Trial]], list[int]]:
    """Race the learned cycle with both cycles of multigrid, and PyAMG, on scenes with coefficients."""
    races, seeds = [], seeds_of(settings, 5)
    for seed in seeds:
        A, b = scene(shape, seed), np.random.default_rng(seed + 500).standard_normal(math.prod(shape))

        def make(A: PoissonStencil = A) -> PoissonStencil:
            return PoissonStencil(A.grid, A.coefficients)

        system = stencil_system("coefficients", A, b)
        recipes = ((CLASSICAL, ns.Multigrid()), (V_CYCLE, ns.Multigrid("V")))
        runs = {rival: ours(make, M, system, b, RTOL) for rival, M in recipes}
        runs |= {name: pyamg(kind, system, RTOL) for name, kind in peers.items()}
        races.append(race(ours(make, ns.NeuralMultigrid(), system, b, RTOL), runs, settings.repeats))
    return races, seeds


def _both_cycles(
    group: str,
    problem: str,
    races: list[dict[str, Trial]],
    count: Bars,
    time: Bars | None,
    seeds: list[int],
) -> Iterator[BarRow]:
    """Yield iterations over those of V(2,2) and of the W-cycle, and the faster one's time over ours."""
    for rival, bars in ((V_CYCLE, count), (CLASSICAL, None)):
        what, values = f"iterations of the learned cycle / of {rival}", shares(races, rival, RTOL)
        yield row(group, problem, what, "x", bars, values, seeds=listed(seeds))
    rivals = CLASSICAL, V_CYCLE
    either = " or ".join(rivals)
    what = f"{either} / learned cycle" if time else f"learned cycle / {either}"
    yield race_row(group, problem, what, time, races, rivals, RTOL, seeds=listed(seeds))


def worth(settings: Settings) -> Iterator[BarRow]:
    """Yield iterations and times over those of both cycles of multigrid, on scenes as in training and others.

    Free surfaces are of seeds that no training has seen. Coefficients are solved to 1e-8.
    """
    masked, with_coefficients = ((512, 512), (96, 96, 96)), ((256, 256), (48, 48, 48))
    cases: list[tuple[str, Callable[..., PoissonStencil], tuple[int, ...], int, float]] = [
        *(("free surfaces", _surface, shape, 200, RTOL) for shape in masked),
        *(("unseen", _unseen, shape, FIRST, RTOL) for shape in masked),
        *(("12 inclusions of 1e4", _inclusions, shape, FIRST, 1e-8) for shape in with_coefficients),
        ("strong axis by place, 100 : 1", _layers, (256, 256), FIRST, 1e-8),
    ]
    for name, scene, full, first, rtol in cases:
        shape, seeds, races = settings.cells(*full), seeds_of(settings, 6, first), []
        for seed in seeds:
            A, b = scene(shape, seed), np.random.default_rng(seed + 500).standard_normal(math.prod(shape))

            def make(A: PoissonStencil = A) -> PoissonStencil:
                return PoissonStencil(A.grid, A.coefficients)

            system = stencil_system(name, A, b)
            runs = {
                rival: ours(make, M, system, b, rtol)
                for rival, M in ((CLASSICAL, ns.Multigrid()), (V_CYCLE, ns.Multigrid("V")))
            }
            races.append(race(ours(make, ns.NeuralMultigrid(), system, b, rtol), runs, settings.repeats))
        problem, more = f"{name}, {named(shape)}, to {rtol:g}", {"seeds": listed(seeds)}
        steps = statistics.median(trials[OURS].iterations for trials in races)
        for rival in (CLASSICAL, V_CYCLE):
            what = f"iterations of the learned cycle / of {rival}"
            values = shares(races, rival, rtol)
            yield row("worth", problem, what, "x", None, values, iterations=steps, **more)
            yield race_row("worth", problem, f"learned cycle / {rival}", None, races, rival, rtol, **more)


def _surface(shape: tuple[int, ...], seed: int) -> PoissonStencil:
    return PoissonStencil(free_surface(shape, np.random.default_rng(seed)))


def _unseen(shape: tuple[int, ...], seed: int) -> PoissonStencil:
    return unseen_stencil(shape, seed, list(UNSEEN)[seed % len(UNSEEN)])


def _inclusions(shape: tuple[int, ...], seed: int) -> PoissonStencil:
    return varied(shape, np.random.default_rng(seed))


def _layers(shape: tuple[int, ...], seed: int) -> PoissonStencil:
    return layered(shape, np.random.default_rng(seed))


def batch(settings: Settings) -> Iterator[BarRow]:
    """Yield 16 right sides one by one over the same together."""
    shape, columns = settings.cells(64, 64, 64), 16
    A = unseen_stencil(shape, FIRST, next(iter(UNSEEN)))
    B = np.random.default_rng(FIRST).standard_normal((A.shape[0], columns))
    prepared, gains = ns.prepare(A, ns.CG(), M=ns.NeuralMultigrid(), rtol=RTOL), []
    together = prepared.solve(B)
    alone = [prepared.solve(np.ascontiguousarray(b)).iterations for b in B.T]
    for _ in range(settings.repeats):
        settle()
        whole = timed(lambda: prepared.solve(B))[0]
        single = timed(lambda: [prepared.solve(np.ascontiguousarray(b)) for b in B.T])[0]
        gains.append(single / whole)
    note = f"iterations together {together.iterations}, alone at most {max(alone)}"
    problem = f"unseen {named(shape)}, {columns} right sides"
    yield row(
        "batch",
        problem,
        "one by one / together",
        "x",
        Bars(1.5, 2.5, True),
        [statistics.median(gains)],
        note=note,
    )


def training(settings: Settings) -> Iterator[BarRow]:
    """Yield how long the weights that come with the package were trained, and how many solves pay for it."""
    from neuralsolve.preconditioners.weights import read_tensors, shipped

    make, system, b = unseen_system(settings.cells(64, 64, 64), FIRST, next(iter(UNSEEN)))
    runs = classical_runs(make, system, b)
    trials = race(
        ours(make, ns.NeuralMultigrid(), system, b, RTOL), {CLASSICAL: runs[CLASSICAL]}, settings.repeats
    )
    saved = trials[CLASSICAL].total_s - trials[OURS].total_s
    for name, path in sorted(shipped().items()):
        metadata = read_tensors(path)[1]
        seconds = float(metadata["wall_seconds"])
        note = "for the iterations in the other groups"
        if name == "cycle":
            pays = f"{seconds / saved:.3g} solves" if saved > 0 else "no solve"
            note = f"on {named(settings.cells(64, 64, 64))} {pays} would pay for it"
        yield row("training", name, "training", "s", None, [seconds], note=note)


def _learned(make: Callable[[], PoissonStencil], system: System, b: np.ndarray, name: str) -> Run:
    def run() -> Trial:
        method, M = ns.DCDM(history=2), ns.NeuralDirection(name)
        setup, prepared = timed(lambda: ns.prepare(make(), method, M=M, rtol=RTOL))
        solve, result = timed(lambda: prepared.solve(b, throw=False))
        return Trial(setup, solve, result.iterations, system.residual(np.asarray(result.x)))

    return run


def _median(run: Run, repeats: int) -> Trial:
    trials = []
    for _ in range(repeats):
        settle()
        trials.append(run())
    half = sorted(trials, key=lambda trial: trial.total_s)
    return half[len(half) // 2]
