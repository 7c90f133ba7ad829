"""The suite of learned solvers: networks beside the classical methods of this package and of others.

Scenes of a class that no training has seen (`scenes.unseen`, seeds 1000 and on), unless a group says
otherwise; white noise on the right; true residual 1e-6. Times hold A, the set-up, what the networks make of
the geometry included, and the solve. Training is not among them: its own group has it, and the number of
solves that pay for it.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, islice
from typing import Any

import numpy as np

import neuralsolve as ns
from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, missing, named, race_row, row
from neuralsolve.bench.baselines import SLACK
from neuralsolve.bench.clock import settle, timed
from neuralsolve.bench.learned_cycle import layered
from neuralsolve.bench.rivals import OURS, Run, Trial, ours, pyamg, race, stencil_system
from neuralsolve.bench.scenes import UNSEEN, inclusions, unseen
from neuralsolve.bench.system import System
from neuralsolve.operators.coefficients import face_coefficients
from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil

RTOL = 1e-6
FIRST = 1000  # seed of the scenes
CLASSICAL, V_CYCLE = "Multigrid", "Multigrid V(2,2)"


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
        for seed in _seeds(settings, count):
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
            "seeds": listed(_seeds(settings, count)),
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
        growth, seeds = [], _seeds(settings, 5)
        for seed, kind in zip(seeds, cycle(UNSEEN), strict=False):
            few, many = (
                _count(_scene(settings.cells(*shape), seed, kind), seed, ns.CG(), ns.NeuralMultigrid())
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
        shape, seeds = settings.cells(*full), _seeds(settings, 3)
        gains: dict[str, list[float]] = {"CG": [], "CG with MIC(0)": []}
        for seed, kind in zip(seeds, cycle(UNSEEN), strict=False):
            A = _scene(shape, seed, kind)
            few = _count(A, seed, ns.CG(), ns.NeuralMultigrid())
            gains["CG"].append(_count(A, seed, ns.CG(), None) / few)
            gains["CG with MIC(0)"].append(
                _count(A, seed, ns.CG(), ns.IncompleteCholesky(modified=0.97)) / few
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
        shape, seeds, races = settings.cells(*full), _seeds(settings, 3), []
        for seed, kind in zip(seeds, cycle(UNSEEN), strict=False):
            make, system, b = _system(shape, seed, kind)
            wanted = {*rivals, V_CYCLE}
            runs = {name: run for name, run in _runs(make, system, b).items() if name in wanted}
            races.append(race(ours(make, ns.NeuralMultigrid(), system, b, RTOL), runs, settings.repeats))
        for name, each in rivals.items():
            names = (CLASSICAL, V_CYCLE) if name == CLASSICAL else (name,)
            what, problem = f"{' or '.join(names)} / learned cycle", f"unseen {named(shape)}"
            yield race_row("times", problem, what, each, races, names, RTOL, seeds=listed(seeds))


def coefficients(settings: Settings) -> Iterator[BarRow]:
    """Yield the learned cycle on inclusions of a contrast of 1e4, layouts not seen, beside multigrid."""
    for full in ((256, 256), (48, 48, 48)):
        shape, seeds, races = settings.cells(*full), _seeds(settings, 5), []
        grid = Grid(shape, walls="dirichlet")
        for seed in seeds:
            generator = np.random.default_rng(seed)
            values, b = inclusions(shape, generator, 1e4), generator.standard_normal(math.prod(shape))

            def make(values: np.ndarray = values, grid: Grid = grid) -> PoissonStencil:
                return PoissonStencil(grid, face_coefficients(values, grid))

            system = stencil_system("inclusions", make(), b)
            rivals = {CLASSICAL: ours(make, ns.Multigrid(), system, b, RTOL)}
            races.append(race(ours(make, ns.NeuralMultigrid(), system, b, RTOL), rivals, settings.repeats))
        shares = [trials[OURS].iterations / trials[CLASSICAL].iterations for trials in races]
        problem, more = f"12 inclusions of 1e4, {named(shape)}", {"seeds": listed(seeds)}
        what = "iterations of the learned cycle / of multigrid"
        yield row("coefficients", problem, what, "x", Bars(0.6, 0.35), shares, **more)
        what = f"{CLASSICAL} / learned cycle"
        yield race_row("coefficients", problem, what, Bars(1.3, 2.5, True), races, CLASSICAL, RTOL, **more)


def anisotropy(settings: Settings) -> Iterator[BarRow]:
    """Yield the learned cycle where the strong axis changes from place to place, up to 100 : 1.

    A stencil of five points has no couplings across, so the angle of the strong direction itself cannot turn.
    """
    shape, seeds, races = settings.cells(256, 256), _seeds(settings, 5), []
    for seed in seeds:
        b = np.random.default_rng(seed + 500).standard_normal(math.prod(shape))

        def make(seed: int = seed) -> PoissonStencil:
            return layered(shape, seed)

        system = stencil_system("layers", make(), b)
        rivals = _runs(make, system, b)
        chosen = {name: rivals[name] for name in (V_CYCLE, "PyAMG SA + cg")}
        races.append(race(ours(make, ns.NeuralMultigrid(), system, b, RTOL), chosen, settings.repeats))
    shares = [trials[OURS].iterations / trials[V_CYCLE].iterations for trials in races]
    problem, more = f"strong axis by place, 100 : 1, {named(shape)}", {"seeds": listed(seeds)}
    what = f"iterations of the learned cycle / of {V_CYCLE}"
    yield row("anisotropy", problem, what, "x", Bars(0.5, 0.25), shares, **more)
    name = "PyAMG SA + cg"
    yield race_row(
        "anisotropy", problem, f"{name} / learned cycle", Bars(1, 2, True), races, name, RTOL, **more
    )


def precision(settings: Settings) -> Iterator[BarRow]:
    """Say that the cycle has one precision: there is nothing that float32 could be compared with."""
    why = "the cycle is float32 alone; its solves reach 1e-10 in float64 CG"
    yield missing(
        "precision", "float32 cycle", "iterations beyond those of a float64 cycle", "its", Bars(1, 0), why
    )


def batch(settings: Settings) -> Iterator[BarRow]:
    """Yield 16 right sides one by one over the same together."""
    shape, columns = settings.cells(64, 64, 64), 16
    A = _scene(shape, FIRST, next(iter(UNSEEN)))
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
    from neuralsolve.models.files import read_tensors, shipped

    make, system, b = _system(settings.cells(64, 64, 64), FIRST, next(iter(UNSEEN)))
    runs = _runs(make, system, b)
    trials = race(
        ours(make, ns.NeuralMultigrid(), system, b, RTOL), {CLASSICAL: runs[CLASSICAL]}, settings.repeats
    )
    saved = trials[CLASSICAL].total_s - trials[OURS].total_s
    for name, path in sorted(shipped().items()):
        metadata = read_tensors(path)[1]
        seconds = float(metadata.get("wall_seconds", 0)) or sum(json.loads(metadata["seconds"]).values())
        note = "for the iterations in the other groups"
        if name == "cycle":
            pays = f"{seconds / saved:.3g} solves" if saved > 0 else "no solve"
            note = f"on {named(settings.cells(64, 64, 64))} {pays} would pay for it"
        yield row("training", name, "training", "s", None, [seconds], note=note)


def table(settings: Settings) -> Iterator[BarRow]:
    """Yield every method on one scene: set-up, solve, iterations, total over that of multigrid."""
    for full in ((64, 64), (512, 512), (64, 64, 64)):
        shape, kind = settings.cells(*full), next(iter(UNSEEN))
        make, system, b = _system(shape, FIRST, kind)
        runs = _runs(make, system, b) | {
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


GROUPS: dict[str, Callable[[Settings], Iterable[BarRow]]] = {
    "table": table,
    "directions": directions,
    "masked_directions": masked_directions,
    "transfer": transfer,
    "sizes": sizes,
    "against": against,
    "times": times,
    "coefficients": coefficients,
    "anisotropy": anisotropy,
    "precision": precision,
    "batch": batch,
    "training": training,
}


def histories(shape: tuple[int, ...] = (64, 64), kind: str = "boxes") -> dict[str, list[float]]:
    """Return the residual norms of the methods on one scene, by name, for a figure."""
    make, _, b = _system(shape, FIRST, kind)
    A = make()
    chosen: dict[str, tuple[Any, Any]] = {
        "CG": (ns.CG(), None),
        "CG, MIC(0)": (ns.CG(), ns.IncompleteCholesky(modified=0.97)),
        "CG, multigrid": (ns.CG(), ns.Multigrid()),
        "CG, learned cycle": (ns.CG(), ns.NeuralMultigrid()),
        "DCDM, its network": (ns.DCDM(history=2), ns.NeuralDirection("dcdm2d")),
        "DCDM, NPSDO": (ns.DCDM(history=2), ns.NeuralDirection("npsdo2d")),
    }
    return {
        name: ns.solve(A, b, method, M=M, rtol=RTOL, throw=False).residual_norms
        for name, (method, M) in chosen.items()
    }


def _seeds(settings: Settings, count: int) -> list[int]:
    return list(range(FIRST, FIRST + (min(count, 2) if settings.quick else count)))


def _scene(shape: tuple[int, ...], seed: int, kind: str) -> PoissonStencil:
    return PoissonStencil(unseen(shape, np.random.default_rng(seed), kind))


def _system(
    shape: tuple[int, ...], seed: int, kind: str
) -> tuple[Callable[[], PoissonStencil], System, np.ndarray]:
    """Return how to make A from cells, the system of its fluid cells, and white noise."""
    generator = np.random.default_rng(seed)
    cells = unseen(shape, generator, kind).cells.numpy()
    b = generator.standard_normal(cells.size)

    def make() -> PoissonStencil:
        return PoissonStencil(Grid(cells, walls="neumann"))

    return make, stencil_system(f"unseen {named(shape)}", make(), b), b


def _runs(make: Callable[[], PoissonStencil], system: System, b: np.ndarray) -> dict[str, Run]:
    """Return runs of the classical methods, by name."""
    recipes: dict[str, Any] = {
        "CG": None,
        "MIC(0) + CG": ns.IncompleteCholesky(modified=0.97),
        CLASSICAL: ns.Multigrid(),
        V_CYCLE: ns.Multigrid("V"),
    }
    runs = {name: ours(make, M, system, b, RTOL) for name, M in recipes.items()}
    return runs | {f"PyAMG {kind.upper()} + cg": pyamg(kind, system, RTOL) for kind in ("rs", "sa")}


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
    seeds = _seeds(settings, 20)
    learned = ns.NeuralMultigrid() if name == "cycle" else ns.NeuralDirection(name)
    rivals = {"CG": None, CLASSICAL: ns.Multigrid(), V_CYCLE: ns.Multigrid("V")}
    shares, steps = [], []
    for seed, kind in zip(seeds, islice(cycle(UNSEEN), len(seeds)), strict=True):
        A = _scene(shape, seed, kind)
        steps.append(_count(A, seed, method, learned))
        shares.append(steps[-1] / _count(A, seed, ns.CG(), rivals[rival]))
    what = f"iterations of {name} / of {rival}"
    more: dict[str, Any] = {"iterations": statistics.median(steps), "seeds": listed(seeds)}
    yield row(group, f"unseen {named(shape)}", what, "x", bars, shares, **more)


def _count(A: PoissonStencil, seed: int, method: Any, M: Any) -> float:
    """Return the iterations of a solve, infinitely many where it missed the tolerance."""
    b = np.random.default_rng(seed + 500).standard_normal(A.shape[0])
    result = ns.prepare(A, method, M=M, rtol=RTOL).solve(b, throw=False)
    residual = stencil_system("count", A, b).residual(np.asarray(result.x))
    return result.iterations if residual <= SLACK * RTOL else math.inf
