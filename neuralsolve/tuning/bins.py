"""Tsallis-INF over a context: the range is cut into bins, each learns on its own.

Khodak et al. (2024, sec. 3.2), "Tsallis-INF-CB": with m equal bins a solve asks the bin of its context.
Regret against the best arm of each bin: O(sqrt(m d T)); a finer cut follows the context better and learns
more slowly. When a range that was not given grows, each new bin takes over the scores of the old bin in
which its centre lies, or of the nearest one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from neuralsolve.errors import OptionError
from neuralsolve.tuning.learner import Learner, Learning, Observation
from neuralsolve.tuning.state import Stored
from neuralsolve.tuning.tsallis import Scores


@dataclass(frozen=True)
class TsallisINFBins(Learner):
    """One `TsallisINF` for each of some equal bins of the context.

    Parameters
    ----------
    bins : how many
    variance_reduced : as in `TsallisINF`
    strict : a context outside a given range is an error; by default it is clipped, with one warning

    Examples
    --------
    >>> from neuralsolve.tuning import Observation, TsallisINFBins
    >>> run = TsallisINFBins(bins=2).start([1.0, 1.9], seed=7, context_range=(0, 1))
    >>> for i in range(600):
    ...     omega = run.choose(i % 2)
    ...     run.learn(Observation(cost=30 + abs(omega - 1 - i % 2)*50))
    >>> round(run.choose(0.0)), round(run.choose(1.0))
    (1, 2)
    """

    bins: int = 5
    variance_reduced: bool = True
    strict: bool = False

    needs_context: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.bins, int) or isinstance(self.bins, bool) or self.bins < 1:
            msg = f"TsallisINFBins(bins={self.bins!r}): bins must be an integer of at least 1, for example 5"
            raise OptionError(msg)

    def start(
        self, arms: Sequence[float], seed: int, context_range: tuple[float, float] | None = None
    ) -> Learning:
        """Open a run."""
        return _Bins(self, arms, seed, context_range)


class _Row(Stored):
    """The bins in order."""

    def __init__(self, bins: list[Scores]):
        self.stored = tuple(f"bin{i}" for i in range(len(bins)))
        for name, scores in zip(self.stored, bins, strict=True):
            setattr(self, name, scores)

    def __getitem__(self, i: int) -> Scores:
        return getattr(self, self.stored[i])


class _Bins(Learning):
    stored = (*Learning.stored, "row", "_bin")
    learner: TsallisINFBins

    def __init__(
        self,
        learner: TsallisINFBins,
        arms: Sequence[float],
        seed: int,
        context_range: tuple[float, float] | None,
    ):
        super().__init__(learner, arms, seed, context_range, strict=learner.strict)
        self.row = _Row([Scores(len(self.arms), learner.variance_reduced) for _ in range(learner.bins)])
        self._bin = 0

    def choose(self, context: float | None = None) -> float:
        self._bin = min(int(self._place(context) * self.learner.bins), self.learner.bins - 1)
        scores = self.row[self._bin]
        self._drawn = scores.choose(self._random.random())
        self.probabilities = scores.p.copy()
        return float(self.arms[self._drawn])

    def _learn(self, seen: Observation) -> None:
        self.row[self._bin].learn(self._drawn, seen.cost)

    def _grow(self, old: tuple[float, float], new: tuple[float, float]) -> None:
        bins = self.learner.bins
        width = old[1] - old[0]
        sources = []
        for i in range(bins):
            centre = new[0] + (i + 0.5) / bins * (new[1] - new[0])
            place = (centre - old[0]) / width if width > 0 else 0.5
            sources.append(min(max(int(place * bins), 0), bins - 1))
        self.row = _Row([copy.deepcopy(self.row[source]) for source in sources])
