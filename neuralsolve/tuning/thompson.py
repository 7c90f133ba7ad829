"""Thompson sampling on the logarithm of the cost: for costs that keep their level, as seconds do.

With x = ln cost, arm i has seen n_i costs of mean m_i, all with one variance s^2 about their own arm's mean.
A round draws z_i ~ N(m_i, s^2 / n_i) and takes the arm of the least z (Thompson 1933; Agrawal and Goyal
2013): an arm is tried as often as it may still be the best. Arms not seen yet come first. Old costs fade,
n_i by `MEMORY` a round, so that an arm that was given up is looked at again when it may have become cheaper
(Raj and Kalyani 2017, arXiv 1707.09727).

Regret O(ln T) where costs are independent of time, normal in the logarithm; none is proven for others. An arm
that costs ten times the best is tried twice, where a bandit against any costs must go on trying it. Cost
per solve: O(d).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuralsolve.tuning.learner import Learner, Learning, Observation

MEMORY = 0.995  # of a cost, for each later solve
SPREAD, WEIGHT = 0.2, 3.0  # of ln cost about the mean of an arm, before any was seen; in so many costs
LEAST = 1e-300  # a cost of zero counts as this


@dataclass(frozen=True)
class Thompson(Learner):
    """Draw each arm as often as it may be the best, by normal distributions of ln cost; no context.

    Examples
    --------
    >>> from neuralsolve.tuning import Observation, Thompson
    >>> run = Thompson().start([1.0, 1.5, 1.9], seed=7)
    >>> for _ in range(100):
    ...     run.learn(Observation(cost={1.0: 90, 1.5: 40, 1.9: 60}[run.choose()]))
    >>> run.pulls.tolist()
    [1, 98, 1]
    """

    def start(
        self, arms: Sequence[float], seed: int, context_range: tuple[float, float] | None = None
    ) -> Learning:
        """Open a run; contexts are ignored."""
        return _Thompson(self, arms, seed)


class _Thompson(Learning):
    stored = (*Learning.stored, "means", "counts", "squares", "weight")

    def __init__(self, learner: Thompson, arms: Sequence[float], seed: int):
        super().__init__(learner, arms, seed)
        self.means = np.zeros(len(self.arms))
        self.counts = np.zeros(len(self.arms))
        self.squares, self.weight = WEIGHT * SPREAD**2, WEIGHT

    def choose(self, context: float | None = None) -> float:
        spread = math.sqrt(self.squares / self.weight)
        with np.errstate(divide="ignore"):
            drawn = self.means + spread / np.sqrt(self.counts) * self._random.standard_normal(len(self.arms))
        unseen = self.pulls == 0
        drawn[unseen] = -np.inf
        first = self._random.permutation(len(self.arms))  # of equals any
        self._drawn = int(first[drawn[first].argmin()])
        return float(self.arms[self._drawn])

    def _learn(self, seen: Observation) -> None:
        i, x = self._drawn, math.log(max(seen.cost, LEAST))
        self.counts *= MEMORY
        off = x - self.means[i]
        if self.counts[i] > 0:
            self.squares = MEMORY * self.squares + off**2 * self.counts[i] / (self.counts[i] + 1)
            self.weight = MEMORY * self.weight + 1.0
        self.counts[i] += 1
        self.means[i] += off / self.counts[i]
