"""What learners have chosen, how often, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np

from neuralsolve.errors import ShapeError

LINES, INTERVALS = 24, 12  # more numbers than this are told in so many intervals


class Pull(NamedTuple):
    """One solve.

    Attributes
    ----------
    choice : what was chosen, in words
    cost, context : of the solve
    capped : it hit its cap, or missed the tolerance and was finished by the automatic choice
    first : the first with this choice in this process, of which the learner is not told
    """

    choice: str
    cost: float
    context: float | None = None
    capped: bool = False
    first: bool = False


def in_words(value: Any) -> str:
    """Return a value in few words: numbers, and options that are not as they are by default."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if not is_dataclass(value) or isinstance(value, type):
        return repr(value)
    told = [f"{f.name}={in_words(v)}" for f in fields(value) if (v := getattr(value, f.name)) != f.default]
    return f"{type(value).__name__}({', '.join(told)})"


@dataclass(frozen=True)
class TuningTable:
    """One tuned parameter.

    Attributes
    ----------
    name : such as "SSOR.omega"
    unit : of the cost: "iterations", "matvecs" or "seconds"
    learner : what chooses, in words
    choices : what was chosen from, and numbers between that were chosen
    pulls, mean_costs : of every choice, how often and at what mean cost, first ones apart; NaN where never
    history : every solve, in order
    """

    name: str
    unit: str
    learner: str
    choices: tuple[str, ...]
    pulls: np.ndarray
    mean_costs: np.ndarray
    history: tuple[Pull, ...]

    @classmethod
    def of(
        cls, name: str, unit: str, learner: Any, labels: Sequence[str], history: Sequence[Pull]
    ) -> TuningTable:
        """Count the pulls."""
        known = dict.fromkeys([*labels, *(pull.choice for pull in history)])
        costs: dict[str, list[float]] = {label: [] for label in known}
        counts = dict.fromkeys(known, 0)
        for pull in history:
            counts[pull.choice] += 1
            if not pull.first:
                costs[pull.choice].append(pull.cost)
        pulls = np.array(list(counts.values()))
        means = np.array([np.mean(each) if each else np.nan for each in costs.values()])
        words = "a learner not yet asked" if learner is None else in_words(learner)
        return cls(name, unit, words, tuple(costs), pulls, means, tuple(history))

    @property
    def capped(self) -> int:
        """Solves that missed the tolerance or hit the cap."""
        return sum(pull.capped for pull in self.history)

    def regret(self, costs: Any) -> np.ndarray:
        """Return what the first 1, 2, ... solves cost beyond the best fixed choice in hindsight, (T,).

        Parameters
        ----------
        costs : (T, d), what every solve would have cost with every choice: a table that a simulation does not
            have, from solving each system with all of them

        Raises
        ------
        ShapeError
            There is not one row for every solve of `history`.
        """
        table = np.asarray(costs, dtype=float)
        if table.ndim != 2 or len(table) != len(self.history):
            count = len(self.history)
            msg = (
                f"costs are {table.shape}; one row for each of {count} solves is needed, one column a choice"
            )
            raise ShapeError(msg)
        best = table[:, table.sum(0).argmin()]
        return np.cumsum([pull.cost for pull in self.history]) - np.cumsum(best)

    def __str__(self) -> str:
        total = sum(pull.cost for pull in self.history)
        lines = [f"{self.name} by {self.learner}: {len(self.history)} solves, {total:.6g} {self.unit}"]
        if self.capped:
            lines[0] += f", {self.capped} of them capped or finished by the automatic choice"
        rows = self.summary()
        width = max((len(label) for label, _, _ in rows), default=0)
        for label, count, mean in rows:
            each = "its first" if np.isnan(mean) else f"{mean:.4g} {self.unit} each"
            lines.append(f"  {label:<{width}}  {count:6d} times, {each}")
        return "\n".join(lines)

    def summary(self) -> list[tuple[str, int, float]]:
        """Return label, pulls and mean cost of what was chosen; many numbers are told in intervals."""
        rows = [
            (label, int(count), float(mean))
            for label, count, mean in zip(self.choices, self.pulls, self.mean_costs, strict=True)
            if count
        ]
        if len(rows) <= LINES:
            return rows
        values = np.array([float(label) for label, _, _ in rows])  # only numbers are as many
        edges = np.linspace(values.min(), values.max(), INTERVALS + 1)
        part = np.minimum(np.searchsorted(edges, values, side="right") - 1, INTERVALS - 1)
        found = []
        for k in np.unique(part):
            inside = [rows[i] for i in np.flatnonzero(part == k)]
            known = [(count, mean) for _, count, mean in inside if not np.isnan(mean)]
            count, weight = sum(count for _, count, _ in inside), sum(count for count, _ in known)
            mean = sum(count * mean for count, mean in known) / weight if weight else np.nan
            found.append((f"{edges[k]:.4g} to {edges[k + 1]:.4g}", count, mean))
        return found


@dataclass(frozen=True)
class TuningReport:
    """All tuned parameters of a `Prepared`; `str` gives their tables."""

    tables: tuple[TuningTable, ...] = ()

    def __str__(self) -> str:
        return "\n".join(str(table) for table in self.tables)
