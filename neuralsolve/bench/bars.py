"""Rows with two bars each: what must be reached, and what is aimed at."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from neuralsolve.bench.baselines import SLACK
from neuralsolve.bench.clock import CPU
from neuralsolve.bench.rivals import OURS, Trial, medians

FIRST_SEED = 9001  # of the geometries; none of them took part in tuning


@dataclass(frozen=True)
class Settings:
    """How much to measure, and where: rounds of every timing; toy sizes, which show that all runs, or not."""

    repeats: int = 5
    quick: bool = False
    device: torch.device = CPU

    def cells(self, *shape: int) -> tuple[int, ...]:
        """Return a shape, an eighth of it in a quick run."""
        return tuple(max(16, side // 8) for side in shape) if self.quick else shape

    def seeds(self, count: int) -> list[int]:
        """Return the seeds of so many geometries; of two at most in a quick run."""
        return list(range(FIRST_SEED, FIRST_SEED + (min(count, 2) if self.quick else count)))


@dataclass(frozen=True)
class Bars:
    """A bar that must be met and one that is aimed at, if any; at least so much, or at most."""

    must: float
    aim: float | None = None
    at_least: bool = False

    @property
    def sense(self) -> str:
        """``>=`` or ``<=``."""
        return ">=" if self.at_least else "<="

    def worst(self, values: Sequence[float]) -> float:
        """Return the value that is farthest from the bars."""
        return min(values) if self.at_least else max(values)


@dataclass(frozen=True)
class BarRow:
    """One measured quantity of one problem.

    Attributes
    ----------
    group : the part of the suite that it belongs to
    problem, quantity, unit : what was measured
    sense, must, aim : ``<=`` or ``>=`` and the two bars; None where there are none
    median, worst : over geometries, each with its own median of repeats; NaN where nothing was measured
    setup_s, solve_s : medians of ours, where times are concerned
    baseline, baseline_s : what ours is compared with, and its median time
    iterations : of ours, the median
    residual : the largest true residual of ours, relative to b
    repeats : runs of ours per geometry
    seeds : of the geometries
    note : anything else
    """

    group: str
    problem: str
    quantity: str
    unit: str
    sense: str
    must: float | None
    aim: float | None
    median: float
    worst: float
    setup_s: float | None = None
    solve_s: float | None = None
    baseline: str = ""
    baseline_s: float | None = None
    iterations: float | None = None
    residual: float | None = None
    repeats: int = 1
    seeds: str = ""
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the row as a dictionary, in the order of its fields."""
        return asdict(self)

    @property
    def measured(self) -> bool:
        """Whether there is a value."""
        return not math.isnan(self.median)

    def verdict(self) -> str:
        """Return how the median stands to the bars, and the worst case where it stands otherwise."""
        if self.must is None or not self.measured:
            return ""
        words = [self._stands(value) for value in (self.median, self.worst)]
        return words[0] if words[0] == words[1] else f"{words[0]}, worst case {words[1]}"

    def _stands(self, value: float) -> str:
        assert self.must is not None
        sign = -1 if self.sense == ">=" else 1
        if self.aim is not None and sign * value <= sign * self.aim:
            return "aim met"
        return "met" if sign * value <= sign * self.must else "**short**"


def row(
    group: str,
    problem: str,
    quantity: str,
    unit: str,
    bars: Bars | None,
    values: Sequence[float],
    **more: Any,
) -> BarRow:
    """Return a row of the median and the worst of some values; of none where the list is empty."""
    median = statistics.median(values) if values else math.nan
    if bars is None:
        return BarRow(group, problem, quantity, unit, "", None, None, median, max(values or [median]), **more)
    worst = bars.worst(values) if values else math.nan
    return BarRow(group, problem, quantity, unit, bars.sense, bars.must, bars.aim, median, worst, **more)


def missing(group: str, problem: str, quantity: str, unit: str, bars: Bars | None, why: str) -> BarRow:
    """Return the row of something that could not be measured."""
    return row(group, problem, quantity, unit, bars, [], repeats=0, note=f"not measured: {why}")


def race_row(
    group: str,
    problem: str,
    quantity: str,
    bars: Bars | None,
    races: Sequence[dict[str, Trial]],
    rivals: str | Sequence[str],
    rtol: float,
    unit: str = "x",
    **more: Any,
) -> BarRow:
    """Return a row of total times, set-up and solve, against the fastest of some rivals in each race.

    Where the bars ask for more, it is the rival's time over ours, else ours over the rival's. A rival that
    missed the tolerance is no rival, and a race in which ours missed it is worth nothing; the note says so.
    """
    names = [rivals] if isinstance(rivals, str) else list(rivals)
    values, best = [], []
    for trials in races:
        valid = [trials[name] for name in names if trials[name].residual <= SLACK * rtol]
        if valid and trials[OURS].residual <= SLACK * rtol:
            best.append(min(valid, key=lambda trial: trial.total_s))
            gain = best[-1].total_s / trials[OURS].total_s
            values.append(gain if bars is not None and bars.at_least else 1 / gain)
    our_trials = [trials[OURS] for trials in races]
    return row(
        group,
        problem,
        quantity,
        unit,
        bars,
        values,
        setup_s=statistics.median(trial.setup_s for trial in our_trials),
        solve_s=statistics.median(trial.solve_s for trial in our_trials),
        baseline=" / ".join(names),
        baseline_s=statistics.median(trial.total_s for trial in best) if best else None,
        iterations=statistics.median(trial.iterations for trial in our_trials),
        residual=max(trial.residual for trial in our_trials),
        repeats=min(trial.runs for trial in our_trials),
        note=_remarks(races, names, rtol),
        **more,
    )


def shares(races: Sequence[dict[str, Trial]], rival: str, rtol: float) -> list[float]:
    """Return our iterations over a rival's: infinite where ours missed the tolerance, none where it did."""
    return [
        trials[OURS].iterations / trials[rival].iterations
        if trials[OURS].residual <= SLACK * rtol
        else math.inf
        for trials in races
        if trials[rival].residual <= SLACK * rtol
    ]


def _remarks(races: Sequence[dict[str, Trial]], names: Sequence[str], rtol: float) -> str:
    """Say what the rivals did, those that iterate, and who missed the tolerance."""
    parts = []
    for name in names:
        found = medians([trials[name] for trials in races])
        if found.iterations:
            steps = f"{found.setup_s:.3g} + {found.solve_s:.3g} s, at most {found.iterations} its"
            version = f", {found.version}" if found.version else ""
            parts.append(f"{name}: {steps}, residual {found.residual:.1e}{version}")
    for name in (OURS, *names):
        missed = sum(trials[name].residual > SLACK * rtol for trials in races)
        if missed:
            parts.append(f"{name} missed {rtol:g} in {missed} of {len(races)}")
    return "; ".join(parts)


def named(shape: Sequence[int]) -> str:
    """Return ``128^3``, or ``24 x 16``."""
    return f"{shape[0]}^{len(shape)}" if len(set(shape)) == 1 else " x ".join(map(str, shape))


def listed(seeds: Sequence[int]) -> str:
    """Return ``9001-9005``."""
    return f"{seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
