"""Seconds: SSOR-CG with a learner beside other solvers, the choice among recipes, and what learners cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

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
        for name, contender in contenders.items():
            if name.startswith("PyAMG") and t % EVERY:
                continue
            took, (x, iterations) = timed(lambda c=contender, s=step: c(s))
            residual = float(np.linalg.norm(step.b - step.A @ x) / np.linalg.norm(step.b))
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
    from scipy.sparse import csr_matrix

    build = {"rs": ruge_stuben_solver, "sa": smoothed_aggregation_solver}[kind]

    def solve(step: Step) -> tuple[np.ndarray, int]:
        count: list[Any] = []
        with silent():
            hierarchy = build(csr_matrix(step.A))
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


def recipes(settings: Settings) -> Iterator[BarRow]:
    """Yield seconds of a choice among recipes by their time, over those of the best and the worst of them.

    The pressure systems of a plume, recorded once; in each step every fixed recipe solves the system, and one
    learner of each seed, all from their own last pressure, in turns.
    """
    steps, shape = (12, (24, 24)) if settings.quick else (300, (128, 128))
    case = SmokeCase(shape=shape, steps=steps, obstacle_source="analytic")
    plume = Plume(case)
    sides = []
    for _ in range(steps):
        plume.advance()
        assert plume.projection is not None
        sides.append(plume.projection.b)
    seeds, A = settings.seeds(5), plume.A
    choices = list(RECIPES.values())
    makers: dict[Any, Any] = dict(RECIPES) | {
        seed: ns.Tuned(choices, cost="seconds", seed=seed) for seed in seeds
    }
    for M in choices:  # compiles
        ns.prepare(A, ns.CG(), M=M, rtol=case.rtol).solve(sides[0])
    settle()
    total, residuals, last = dict.fromkeys(makers, 0.0), dict.fromkeys(makers, 0.0), dict.fromkeys(makers)
    prepared: dict[Any, Any] = {}
    for name, M in makers.items():
        total[name], prepared[name] = timed(lambda M=M: ns.prepare(A, ns.CG(), M=M, rtol=case.rtol))
    for t, b in enumerate(sides):
        size, names = float(b.norm()), list(makers)
        for name in names[t % len(names) :] + names[: t % len(names)]:
            took, result = timed(lambda n=name, b=b: prepared[n].solve(b, x0=last[n], throw=False))
            total[name], last[name] = total[name] + took, result.x
            residuals[name] = max(residuals[name], float((b - A.matvec(result.x)).norm()) / size)
    fixed = {name: total[name] for name in RECIPES}
    best, worst = min(fixed, key=fixed.__getitem__), max(fixed, key=fixed.__getitem__)
    problem, whole = (
        f"smoke, {named(shape)}, {steps} steps",
        ", ".join(f"{n} {s:.3g} s" for n, s in fixed.items()),
    )
    ours = [total[seed] for seed in seeds]
    more: dict[str, Any] = {
        "solve_s": statistics.median(ours),
        "residual": max(residuals[seed] for seed in seeds),
        "seeds": listed(seeds),
    }
    values = [seconds / fixed[best] for seconds in ours]
    beside = {"baseline": best, "baseline_s": fixed[best]}
    yield row(
        "recipes",
        problem,
        f"Tuned / best recipe ({best})",
        "x",
        Bars(1.10),
        values,
        note=whole,
        **beside,
        **more,
    )
    values = [seconds / fixed[worst] for seconds in ours]
    note = f"best / worst {fixed[best] / fixed[worst]:.3g}"
    yield row("recipes", problem, f"Tuned / worst recipe ({worst})", "x", None, values, note=note, **more)


def overhead(settings: Settings) -> Iterator[BarRow]:
    """Yield microseconds of choose and learn for a solve at 20 arms, the mean of a whole run."""
    count = 100 if settings.quick else 5000
    learners = LEARNERS | {"Fixed": Fixed(1.5)}
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
