"""Learners beside the best fixed omega in hindsight: SOR and SSOR-CG of "Learning to Relax", new families."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

import neuralsolve as ns
from neuralsolve.bench import sor_counts
from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, row
from neuralsolve.bench.grid_counts import FivePoint, sor_count, sor_table, ssor_cg_counts
from neuralsolve.bench.sor_counts import ARMS, Systems
from neuralsolve.bench.tuned_play import costs_of, ratios_row, side_by_side
from neuralsolve.pde.sequences import HeatEquation, short_normals
from neuralsolve.tuning import Learner

STEPS, EARLY = 5000, 500
LEARNERS: dict[str, Learner] = {
    "Tsallis-INF": ns.TsallisINF(),
    "Tsallis-INF, 5 bins": ns.TsallisINFBins(bins=5),
    "ChebCB": ns.ChebCB(),
    "AdaptiveSOR": ns.AdaptiveSOR(),
    "ScalarFit": ns.ScalarFit(),
}
AS_PUBLISHED: dict[str, Learner] = {  # what the defaults above depart from
    "Tsallis-INF, plain": ns.TsallisINF(variance_reduced=False),
    "ChebCB, released code": ns.ChebCB(paper_compat=True, exploitation=1.0),
}
SOR_BARS = {
    ("high", "Tsallis-INF"): Bars(1.22),
    ("low", "Tsallis-INF"): Bars(1.17),
    ("high", "ChebCB"): Bars(0.68),
    ("low", "ChebCB"): Bars(0.82),
}
# of cells a side: must and, for the best learner, the aim
HEAT_BARS = {
    (25, "Tsallis-INF"): Bars(1.06),
    (50, "Tsallis-INF"): Bars(1.10),
    (25, "ChebCB"): Bars(0.87, 0.84),
    (50, "ChebCB"): Bars(0.85, 0.825),
    (25, "ScalarFit"): Bars(0.87, 0.84),
    (50, "ScalarFit"): Bars(0.85, 0.825),
}


def _steps(settings: Settings) -> int:
    return 120 if settings.quick else STEPS


def sor(settings: Settings) -> Iterator[BarRow]:
    """Yield costs of SOR on shifted Laplacians over the best fixed omega, and over Young's omega*."""
    count, seeds = _steps(settings), settings.seeds(10)
    for kind in sor_counts.BETA:
        ratios: dict[str, list[float]] = {name: [] for name in ("omega = 1", "best arm of each solve")}
        learners = LEARNERS | AS_PUBLISHED
        ratios |= {name: [] for name in (*learners, "Young's omega*")}
        whole: list[float] = []
        early: list[float] = []
        best: list[float] = []

        def prepared(seed: int, kind: str = kind) -> tuple[Systems, np.ndarray, np.ndarray]:
            systems = sor_counts.draw_systems(kind, seed, count)
            young = sor_counts.count_each(systems, np.asarray(sor_counts.best_omega(systems.c)))
            return systems, sor_counts.count_table(systems), young

        for seed, (systems, table, young) in side_by_side(prepared, seeds):

            def solve(t: int, omega: float, norms: np.ndarray, systems: Systems = systems) -> float:
                rest = sor_counts.DIAGONAL + systems.c[t], omega, sor_counts.TOLERANCE, sor_counts.CAP, norms
                return float(sor_counts.count_sweeps(systems.b[t], *rest))

            fixed = table.sum(axis=0)
            best.append(float(ARMS[fixed.argmin()]))
            ratios["omega = 1"].append(fixed[0] / fixed.min())
            ratios["best arm of each solve"].append(table.min(axis=1).sum() / fixed.min())
            ratios["Young's omega*"].append(young.sum() / fixed.min())
            for name, learner in learners.items():
                costs = costs_of(learner, ARMS, table, systems.c, seed, sor_counts.RANGE, solve)
                ratios[name].append(costs.sum() / fixed.min())
                if name == "ScalarFit":
                    whole.append(costs.sum() / young.sum())
                    early.append(costs[:EARLY].sum() / young[:EARLY].sum())
        problem = f"SOR, {kind}, {count} solves"
        note = f"best fixed omega {statistics.median(best):g}"
        for name, values in ratios.items():
            bars = SOR_BARS.get((kind, name))
            yield ratios_row("sor", problem, f"{name} / best fixed", bars, values, seeds, note=note)
        yield ratios_row("sor", problem, "ScalarFit / Young's omega*", Bars(1.02), whole, seeds)
        what = f"ScalarFit / Young's omega*, first {min(EARLY, count)}"
        yield ratios_row("sor", problem, what, Bars(1.05), early, seeds)


@dataclass(frozen=True)
class HeatTable:
    """Iterations (T, d) of CG with SSOR along one trajectory, and the conductivities k (T,)."""

    counts: np.ndarray
    contexts: np.ndarray


def heat_table(heat: HeatEquation, omegas: np.ndarray = ARMS) -> HeatTable:
    """Solve each step of the heat equation with every omega, from the last step's solution."""
    counts, u = np.empty((heat.steps, len(omegas))), None
    for t, k in enumerate(heat.contexts):
        step = heat.system(t, u)
        A = FivePoint.laplacian(heat.cells - 1, heat.scale(k), 1.0)
        assert step.x0 is not None
        counts[t], u = ssor_cg_counts(A, step.b, step.x0, omegas)
    return HeatTable(counts, heat.contexts)


def heat(settings: Settings) -> Iterator[BarRow]:
    """Yield iterations of SSOR-CG on the heat equation over those of the best fixed omega."""
    seeds = settings.seeds(10)
    learners = {name: each for name, each in LEARNERS.items() if name != "AdaptiveSOR"}
    del learners["Tsallis-INF, 5 bins"]
    learners |= {"Tsallis-INF, 6 bins": ns.TsallisINFBins(bins=6)}
    for cells in (25, 50):
        equation = HeatEquation(cells // 3 if settings.quick else cells, steps=_steps(settings))
        table = heat_table(equation)
        fixed = table.counts.sum(axis=0)
        best, problem = fixed.min(), f"SSOR-CG, heat, {equation.cells} cells a side, {equation.steps} solves"
        references = {f"omega = {ARMS[k]:g}": fixed[k] for k in (0, 6, 10, 15, 19)}
        references["best arm of each solve"] = table.counts.min(axis=1).sum()
        more = {"note": f"best fixed omega {ARMS[fixed.argmin()]:g}, {best:.0f} iterations"}
        for name, cost in references.items():
            yield row("heat", problem, f"{name} / best fixed", "x", None, [cost / best], **more)
        for name, learner in learners.items():
            bars = HEAT_BARS.get((cells, name))
            for word, contexts in _heat_contexts(table.contexts, name).items():
                highest = float(contexts.max())
                values = [
                    costs_of(learner, ARMS, table.counts, contexts, seed, (0.0, highest)).sum() / best
                    for seed in seeds
                ]
                yield ratios_row("heat", problem, f"{name}{word} / best fixed", bars, values, seeds)


def _heat_contexts(k: np.ndarray, learner: str) -> dict[str, np.ndarray]:
    """Return k, and for learners that fit curves its root, in which the best omega is smoother."""
    return {"": k} if learner.startswith("Tsallis") else {", context k": k, ", context sqrt(k)": np.sqrt(k)}


def _l_shape(_: np.random.Generator) -> FivePoint:
    """Return the Laplacian of 12 x 12 points without a quarter."""
    inside = np.ones((12, 12), dtype=bool)
    inside[:6, 6:] = False
    A = FivePoint.laplacian(12)
    A.across[:, 1:-1] *= inside[:, 1:] & inside[:, :-1]
    A.down[1:-1] *= inside[1:] & inside[:-1]
    return FivePoint(np.where(inside, A.diagonal, 1.0), A.across, A.down)


def _anisotropic(_: np.random.Generator) -> FivePoint:
    """Return -u_xx - u_yy/10."""
    A = FivePoint.laplacian(10)
    A.down[:] /= 10
    return FivePoint(np.full((10, 10), 2.2), A.across, A.down)


def _variable(random: np.random.Generator) -> FivePoint:
    """Return -div(a grad u), ln a normal with deviation 1 in every cell, harmonic means on the faces."""
    a = np.exp(random.standard_normal((12, 12)))
    across = 2 / (1 / a[1:-1, 1:] + 1 / a[1:-1, :-1])
    down = 2 / (1 / a[1:, 1:-1] + 1 / a[:-1, 1:-1])
    diagonal = across[:, 1:] + across[:, :-1] + down[1:] + down[:-1]
    across[:, [0, -1]], down[[0, -1]] = 0.0, 0.0
    return FivePoint(diagonal, across, down)


def _square(_: np.random.Generator) -> FivePoint:
    return FivePoint.laplacian(10)


FAMILIES: dict[str, Callable[[np.random.Generator], FivePoint]] = {
    "L-shaped domain": _l_shape,
    "anisotropic, 10 : 1": _anisotropic,
    "variable coefficient": _variable,
    "drifting shift": _square,
}


@dataclass(frozen=True)
class FamilySystems:
    """Systems (A + c_t I) x = b_t: A, c (T,), b (T, n)."""

    A: FivePoint
    c: np.ndarray
    b: np.ndarray


def family_systems(name: str, seed: int, count: int) -> FamilySystems:
    """Draw a sequence; shifts as far from the least eigenvalue, in its units, as in "high"."""
    random = np.random.default_rng([seed, list(FAMILIES).index(name)])
    A = FAMILIES[name](random)
    inside = (A.across[:, 1:] + A.across[:, :-1] + A.down[1:] + A.down[:-1]).ravel() > 0
    least = np.linalg.eigvalsh(A.dense()[np.ix_(inside, inside)])[0]
    if name == "drifting shift":
        wave = np.sin(2 * np.pi * (1.25 * np.arange(count) / count + random.random()))
        place = np.clip(0.5 + 0.45 * wave + 0.03 * random.standard_normal(count), 0, 1)
    else:
        place = random.beta(0.5, 1.5, size=count)
    sides = np.zeros((count, A.diagonal.size))
    sides[:, inside] = short_normals(random, count, int(inside.sum()))
    return FamilySystems(A, least * (-0.926 + 3.7 * place), sides)


def families(settings: Settings) -> Iterator[BarRow]:
    """Yield costs of SOR on families that no setting was chosen on; the range of contexts is not given."""
    count, seeds = _steps(settings), settings.seeds(10)
    medians: dict[str, list[float]] = {name: [] for name in LEARNERS}
    for family in FAMILIES:

        def prepared(seed: int, family: str = family) -> tuple[FamilySystems, np.ndarray]:
            systems = family_systems(family, seed, count)
            return systems, sor_table(systems.A, systems.c, systems.b, ARMS)

        ratios: dict[str, list[float]] = {name: [] for name in ("best arm of each solve", *LEARNERS)}
        for seed, (systems, table) in side_by_side(prepared, seeds):

            def solve(t: int, omega: float, norms: np.ndarray, s: FamilySystems = systems) -> float:
                return float(sor_count(s.A, s.c[t], s.b[t], omega, norms))

            best = table.sum(axis=0).min()
            ratios["best arm of each solve"].append(table.min(axis=1).sum() / best)
            for name, learner in LEARNERS.items():
                costs = costs_of(learner, ARMS, table, systems.c, seed, None, solve)
                ratios[name].append(costs.sum() / best)
        for name, values in ratios.items():
            bars = Bars(1.25) if name in LEARNERS else None
            problem = f"SOR, {family}, {count} solves"
            yield ratios_row("families", problem, f"{name} / best fixed", bars, values, seeds)
            if name in LEARNERS:
                medians[name].append(statistics.median(values))
    for name, values in medians.items():
        bars = None if name == "Tsallis-INF" else Bars(1.0)
        what = f"{name} / best fixed, median of the families"
        middle = [statistics.median(values)]
        yield row("families", "all families", what, "x", bars, middle, seeds=listed(seeds))
