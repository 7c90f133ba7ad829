"""The suite of constrained optimisation: values of f that a solution takes, beside SciPy's and the published.

A problem is solved where the KKT residual, with the multipliers of least squares and by the same judge for
every solver, is at most the tolerance within `cutest.BUDGET` values of f. The hidden half of the problems,
by a hash of their names, took part in no choice.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from importlib.util import find_spec

import numpy as np

from neuralsolve.bench import cutest
from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, row
from neuralsolve.bench.cutest import Judged, Run
from neuralsolve.bench.ipopt_peer import ipopt
from neuralsolve.bench.logistic import SETS, logistic
from neuralsolve.optimize.method import SketchedNewton
from neuralsolve.optimize.minimize import minimize
from neuralsolve.optimize.result import MinimizeResult
from neuralsolve.pde.control import PoissonControl

TOL = 1e-8
PUBLISHED_TOL = 1e-4
SOLVERS: dict[str, Callable[[Judged], None]] = {
    "neuralsolve": cutest.ours,
    "trust-constr": cutest.trust_constr,
    "SLSQP": cutest.slsqp,
} | ({"IPOPT": ipopt} if find_spec("casadi") else {})
SEEDS = 5  # of sketches
SIZES = (3, 16, 32, 64, 128, 256)  # of the control problem
CAPS: dict[str, int] = dict.fromkeys(
    ("gaussian", "countsketch", "srht"), 20_000
)  # a block costs as much as many rows
INNER = ("direct", "minres", "kaczmarz", "gaussian-vector", "gaussian", "countsketch", "srht")


@cache
def contest(quick: bool) -> tuple[Run, ...]:
    """Return what all solvers make of all problems, once in a process."""
    names = [name for name in cutest.names() if name.startswith("HS")][:6] if quick else cutest.names()
    return tuple(cutest.runs(names, SOLVERS, TOL))


def hidden(settings: Settings) -> Iterator[BarRow]:
    """Count solved problems of the half that no choice was made on."""
    yield from _counted("hidden", "the hidden half", settings, cutest.hidden, "SLSQP", 0, 3)


def every(settings: Settings) -> Iterator[BarRow]:
    """Count solved problems of all, and values of f."""
    yield from _counted("every", "all", settings, lambda name: True, "trust-constr", 4, 0)
    found = contest(settings.quick)
    for name in SOLVERS:
        if name != "neuralsolve":
            ratios = _ratios(found, name)
            bars = Bars(1.0) if name == "trust-constr" else None
            quantity = f"values of f, ours / {name}, where both solve"
            yield row("every", f"CUTEst, {len(ratios)} problems", quantity, "x", bars, ratios)


def _counted(
    group: str,
    which: str,
    settings: Settings,
    chosen: Callable[[str], bool],
    rival: str,
    over_trust: int,
    over_rival: int,
) -> Iterator[BarRow]:
    """Yield how many problems each solver solves, and ours beside the bars."""
    found = [each for each in contest(settings.quick) if chosen(each.problem)]
    total = len({each.problem for each in found})
    problem = f"CUTEst, {which} {total}, to {TOL:g}"
    solved = {name: sum(each.solved for each in found if each.solver == name) for name in SOLVERS}
    missed = ", ".join(each.problem for each in found if each.solver == "neuralsolve" and not each.solved)
    for name, count in solved.items():
        seconds = sum(each.seconds for each in found if each.solver == name)
        note = f"not solved: {missed}" if missed and name == "neuralsolve" else ""
        yield row(group, problem, f"solved by {name}", "", None, [float(count)], solve_s=seconds, note=note)
    for name, over in (("trust-constr", over_trust), (rival, over_rival)):
        if over or (name == "trust-constr" and group == "hidden"):
            more = [float(solved["neuralsolve"] - solved[name])]
            yield row(group, problem, f"solved, more than {name}", "", Bars(over, at_least=True), more)


def _ratios(found: Sequence[Run], rival: str) -> list[float]:
    by = {(each.problem, each.solver): each for each in found}
    names = dict.fromkeys(each.problem for each in found)
    pairs = [(by[name, "neuralsolve"], by[name, rival]) for name in names]
    return [ours.nfev / max(1, theirs.nfev) for ours, theirs in pairs if ours.solved and theirs.solved]


def published(settings: Settings) -> Iterator[BarRow]:
    """Count problems of the paper that its algorithm solves, by randomised Kaczmarz, over seeds."""
    kinds = (("optimisation", cutest.PUBLISHED, 25), ("square systems", cutest.PUBLISHED_SQUARE, 13))
    for what, names, must in kinds:
        names = names[:3] if settings.quick else names
        seeds = settings.seeds(SEEDS)
        counts, inner, missed = [], [], set()
        for seed in seeds:
            solve = partial(cutest.ours, method=SketchedNewton(faithful=True, inner_cap=100_000, seed=seed))
            found = cutest.runs(names, {"published": solve}, PUBLISHED_TOL)
            counts.append(float(sum(each.solved for each in found)))
            inner.append(sum(each.seconds for each in found))
            missed |= {each.problem for each in found if not each.solved}
        yield row(
            "published",
            f"CUTEst, {len(names)} {what} of the paper, to {PUBLISHED_TOL:g}",
            "solved by the published algorithm, Kaczmarz",
            "",
            Bars(must, at_least=True),
            counts,
            seeds=listed(seeds),
            solve_s=statistics.median(inner),
            note=f"missed by a seed: {', '.join(sorted(missed))}" if missed else "",
        )


def regression(settings: Settings) -> Iterator[BarRow]:
    """Yield steps of logistic regression under ten linear constraints and on a sphere."""
    for name in SETS[:1] if settings.quick else SETS:
        seeds = settings.seeds(SEEDS)
        results = [minimize(logistic(name, seed), tol=TOL) for seed in seeds]
        steps = [float(each.nit) if each.success else float("inf") for each in results]
        yield row(
            "regression",
            f"logistic regression, {name}",
            f"steps to {TOL:g}",
            "",
            Bars(15),
            steps,
            seeds=listed(seeds),
            solve_s=statistics.median(each.seconds for each in results),
            note=f"{statistics.median(each.nfev for each in results):g} values of f",
        )


def control(settings: Settings) -> Iterator[BarRow]:
    """Yield Poisson control by MINRES with multigrid, beside a sparse factorisation of the KKT matrix."""
    minimize(PoissonControl(4).problem())  # compiles
    for n in SIZES[:2] if settings.quick else SIZES:
        case = PoissonControl(n)
        times: dict[str, list[float]] = {"minres": [], "direct": []}
        results: dict[str, MinimizeResult] = {}
        for _ in range(settings.repeats):
            for inner, found in times.items():
                started = time.perf_counter()
                results[inner] = minimize(case.problem(), method=SketchedNewton(inner=inner), tol=TOL)
                found.append(time.perf_counter() - started)
        mine, direct = (statistics.median(times[inner]) for inner in ("minres", "direct"))
        problem = f"Poisson control, {n}^2, {3 * n * n} unknowns of KKT"
        residuals = [results["minres"].kkt_residual]
        yield row(
            "control",
            problem,
            "KKT residual",
            "",
            Bars(TOL),
            residuals,
            iterations=results["minres"].inner_iterations,
        )
        last = n == SIZES[-1]
        yield row(
            "control",
            problem,
            "time of MINRES with multigrid / of a sparse LU",
            "x",
            Bars(0.2) if last else None,
            [a / b for a, b in zip(times["minres"], times["direct"], strict=True)],
            solve_s=mine,
            baseline="sparse LU",
            baseline_s=direct,
            repeats=settings.repeats,
        )
        if last:
            yield row("control", problem, "seconds", "s", Bars(30), times["minres"], repeats=settings.repeats)


def inner(settings: Settings) -> Iterator[BarRow]:
    """Yield inner iterations and seconds of every inner solver on two small problems: no bars, no claims."""
    problems = {
        "Poisson control, 3^2": PoissonControl(3).problem(),
        "logistic regression, wine": logistic("wine", 9001),
    }
    for problem, given in problems.items():
        for name in INNER[:3] if settings.quick else INNER:
            method = SketchedNewton(inner=name, inner_cap=CAPS.get(name, 2_000_000), seed=9001)
            minimize(given, method=method, tol=PUBLISHED_TOL, maxiter=1)  # compiles
            result = minimize(given, method=method, tol=PUBLISHED_TOL)
            note = f"{result.nit} steps, {result.nfev} values of f, {result.status.name}"
            yield row(
                "inner",
                problem,
                f"inner iterations of {name} to {PUBLISHED_TOL:g}",
                "",
                None,
                [float(result.inner_iterations)],
                solve_s=result.seconds,
                note=note,
            )


def profiles(quick: bool = False) -> dict[str, list[float]]:
    """Return for each solver its values of f over the least of all, by problem; infinite if not solved."""
    found = contest(quick)
    least: dict[str, float] = {}
    for each in found:
        least[each.problem] = min(least.get(each.problem, np.inf), max(1.0, each.nfev))
    return {
        name: [
            max(1.0, each.nfev) / least[each.problem] if each.solved else np.inf
            for each in found
            if each.solver == name
        ]
        for name in SOLVERS
    }


GROUPS: dict[str, Callable[[Settings], Iterable[BarRow]]] = {
    "published": published,
    "hidden": hidden,
    "every": every,
    "regression": regression,
    "control": control,
    "inner": inner,
}
