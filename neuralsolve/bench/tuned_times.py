"""Seconds: SSOR-CG with a learner beside other solvers, the choice among recipes, and what learners cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

import neuralsolve as ns
from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, named, row
from neuralsolve.bench.baselines import SLACK, silent
from neuralsolve.bench.clock import settle, timed
from neuralsolve.bench.sor_counts import ARMS
from neuralsolve.bench.tuned_counts import LEARNERS
from neuralsolve.pde.sequences import HeatEquation, Step
from neuralsolve.pde.smoke import Plume
from neuralsolve.pde.smoke_case import SmokeCase
from neuralsolve.tuning import Fixed, Learner, Observation

RTOL = 1e-8
EVERY = 5  # steps of which PyAMG, which is set up for each of them, solves one
Contender = Callable[[Step], tuple[np.ndarray, int]]  # x and iterations


def peers(settings: Settings) -> Iterator[BarRow]:
    """Yield seconds a step of one period of the heat equation, update, learner and solve together."""
    cells, steps = (24, 10) if settings.quick else (200, 200)
    heat = HeatEquation(cells, dt=1 / steps, steps=steps)
    contenders: dict[str, Contender] = {
        "CG": _ours(ns.CG(), None),
        "SSOR-CG, omega = 1": _ours(ns.CG(), ns.SSOR()),
        "SSOR-CG, omega by ChebCB": _ours(ns.CG(), ns.SSOR(omega=ns.Tuned(1.0, 1.95, learner=ns.ChebCB()))),
        "CG, multigrid": _ours(ns.CG(), ns.Multigrid()),
        "automatic choice": _ours(None, None),
        "PyAMG RS + cg": _pyamg("rs"),
        "PyAMG SA + cg": _pyamg("sa"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    counts: dict[str, list[int]] = {name: [] for name in contenders}
    residuals: dict[str, float] = dict.fromkeys(contenders, 0.0)
    u = None
    for t in range(steps):
        step = heat.system(t, u)
        matrix = csr_matrix(heat.matrix(step.context))
        for name, contender in contenders.items():
            if name.startswith("PyAMG") and t % EVERY:
                continue
            given = step._replace(A=matrix) if name.startswith("PyAMG") else step
            took, (x, iterations) = timed(lambda c=contender, s=given: c(s))
            residual = float(np.linalg.norm(step.b - matrix @ x) / np.linalg.norm(step.b))
            residuals[name] = max(residuals[name], residual)
            if t > 0:  # the first step compiles
                seconds[name].append(took)
                counts[name].append(iterations)
            u = x if name == "CG" else u
    problem = f"heat, {cells} cells a side, one period in {steps} steps"
    for name in contenders:
        mean = 1e3 * statistics.fmean(seconds[name])
        note = f"median {1e3 * statistics.median(seconds[name]):.3g} ms, of {len(seconds[name])} steps"
        if residuals[name] > SLACK * RTOL:
            note += f"; missed {RTOL:g}"
        steps_ = {"iterations": statistics.fmean(counts[name]), "residual": residuals[name]}
        yield row("peers", problem, f"{name}: a step, mean", "ms", None, [mean], note=note, **steps_)


def _ours(method: Any, M: Any) -> Contender:
    prepared: list[Any] = []

    def solve(step: Step) -> tuple[np.ndarray, int]:
        if prepared:
            prepared[0].update(step.A)
        else:
            prepared.append(ns.prepare(step.A, method, M=M, rtol=RTOL))
        tuned = {"context": step.context}
        result = prepared[0].solve(step.b, x0=step.x0, throw=False, **tuned)
        return np.asarray(result.x), result.iterations

    return solve


def _pyamg(kind: str) -> Contender:
    from pyamg import ruge_stuben_solver, smoothed_aggregation_solver

    build = {"rs": ruge_stuben_solver, "sa": smoothed_aggregation_solver}[kind]

    def solve(step: Step) -> tuple[np.ndarray, int]:
        count: list[Any] = []
        with silent():
            hierarchy = build(step.A)
            x = hierarchy.solve(step.b, x0=step.x0, tol=RTOL, accel="cg", callback=count.append)
        return x, len(count)

    return solve


RECIPES: dict[str, Any] = {
    "Multigrid": ns.Multigrid(),
    "Multigrid V": ns.Multigrid("V"),
    "NeuralMultigrid": ns.NeuralMultigrid(),
    "MIC(0)": ns.IncompleteCholesky(modified=0.97),
    "EmbeddedBox": ns.EmbeddedBox(),
}


RECIPE_LEARNERS: dict[str, Learner] = {
    "Tsallis-INF": ns.TsallisINF(),
    "Thompson": ns.Thompson(),
}


def recipes(settings: Settings) -> Iterator[BarRow]:
    """Yield seconds of a choice among recipes by their time, over those of the best and the worst of them.

    The pressure systems of a plume, recorded once; in each step every fixed recipe solves the system, and
    each learner of each seed, all from their own last pressure, in turns.
    """
    for full in ((192, 192), (40, 40, 40)):
        shape, steps = settings.cells(*full), 12 if settings.quick else 300
        case = SmokeCase(shape=shape, steps=steps, obstacle_source="analytic")
        yield from _recipes(case, settings.seeds(5))


def _recipes(case: SmokeCase, seeds: list[int]) -> Iterator[BarRow]:
    A, sides = _pressure_systems(case)
    contenders: dict[tuple[str, int], Any] = {(name, 0): M for name, M in RECIPES.items()}
    for name, learner in RECIPE_LEARNERS.items():
        for seed in seeds:
            choices = list(RECIPES.values())
            contenders[name, seed] = ns.Tuned(choices, cost="seconds", seed=seed, learner=learner)
    total, residuals = _in_turns(A, sides, contenders, case.rtol)
    fixed = {name: total[name, 0] for name in RECIPES}
    best, worst = min(fixed, key=fixed.__getitem__), max(fixed, key=fixed.__getitem__)
    note = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in fixed.items())
    problem = f"smoke, {named(case.shape)}, {case.steps} steps"
    for name in RECIPE_LEARNERS:
        ours = [total[name, seed] for seed in seeds]
        more: dict[str, Any] = {
            "solve_s": statistics.median(ours),
            "residual": max(residuals[name, seed] for seed in seeds),
            "seeds": listed(seeds),
        }
        for rival, word, bars in ((best, "best", Bars(1.10)), (worst, "worst", None)):
            values = [seconds / fixed[rival] for seconds in ours]
            beside = {"baseline": rival, "baseline_s": fixed[rival]}
            what = f"recipe by {name} / {word} recipe ({rival})"
            yield row("recipes", problem, what, "x", bars, values, note=note, **beside, **more)


def _pressure_systems(case: SmokeCase) -> tuple[ns.PoissonStencil, list[Any]]:
    """Return A and the right sides of a plume."""
    plume, sides = Plume(case), []
    for _ in range(case.steps):
        plume.advance()
        assert plume.projection is not None
        sides.append(plume.projection.b)
    return plume.A, sides


def _in_turns(
    A: ns.PoissonStencil, sides: list[Any], contenders: dict[Any, Any], rtol: float
) -> tuple[dict[Any, float], dict[Any, float]]:
    """Return the seconds of each contender, set-up included, and its largest true residual."""
    for M in RECIPES.values():  # compiles
        ns.prepare(A, ns.CG(), M=M, rtol=rtol).solve(sides[0])
    settle()
    total, residuals, prepared, last = {}, dict.fromkeys(contenders, 0.0), {}, dict.fromkeys(contenders)
    for name, M in contenders.items():
        total[name], prepared[name] = timed(lambda M=M: ns.prepare(A, ns.CG(), M=M, rtol=rtol))
    names = list(contenders)
    for t, b in enumerate(sides):
        for name in names[t % len(names) :] + names[: t % len(names)]:
            options = {"x0": last[name], "throw": False}
            took, result = timed(lambda n=name, b=b, o=options: prepared[n].solve(b, **o))
            total[name], last[name] = total[name] + took, result.x
            residual = float((b - A.matvec(result.x)).norm()) / float(b.norm())
            residuals[name] = max(residuals[name], residual)
    return total, residuals


def overhead(settings: Settings) -> Iterator[BarRow]:
    """Yield microseconds of choose and learn for a solve at 20 arms, the mean of a whole run."""
    count = 100 if settings.quick else 5000
    learners = LEARNERS | {"Thompson": ns.Thompson(), "Fixed": Fixed(1.5)}
    for name, learner in learners.items():
        _microseconds(learner, 200)  # compiles
        settle()
        values = [_microseconds(learner, count) for _ in range(settings.repeats)]
        what = f"{name}: choose and learn, mean"
        problem = f"{len(ARMS)} arms, {count} solves"
        bars, middle = Bars(50.0), [statistics.median(values)]
        yield row("overhead", problem, what, "us", bars, middle, repeats=len(values))


def _microseconds(learner: Learner, count: int) -> float:
    """Return the mean time of a round, on costs by Young's theory with noise."""
    from neuralsolve.tuning.young import CENTRE, log_cost

    random, slope = np.random.default_rng(9001), np.empty(len(CENTRE))
    theta = CENTRE + np.array([-2.0, 1.5, 1.0, 0.0, 0.0])
    run, spent = learner.start(ARMS.tolist(), 9001, (0.0, 1.0)), 0.0
    for context in random.random(count).tolist():
        start = time.perf_counter()
        omega = run.choose(context)
        spent += time.perf_counter() - start
        cost = np.ceil(np.exp(log_cost(theta, context, omega, slope) + 0.02 * random.standard_normal()))
        seen = Observation(float(cost), residual_norms=np.geomspace(1, 1e-8, int(cost) + 1).tolist())
        start = time.perf_counter()
        run.learn(seen)
        spent += time.perf_counter() - start
    return 1e6 * spent / count
