"""Tsallis-INF: the bandit whose regret is optimal for adversarial and for random costs alike.

Each round t = 1, 2, ... draws an arm from the minimiser over distributions p of

    sum_i p_i S_i - (4/eta) sum_i (sqrt(p_i) - p_i / 2),        eta = factor / sqrt(t),

that is p_i = 4 / (eta (S_i - x))^2 with x such that sum p = 1 (Zimmert & Seldin 2021, J. Mach. Learn. Res.
22, alg. 1 and sec. 3). S_i estimates the sum of the costs that arm i would have had, divided by the mean
cost so far, for the unit of a cost is not known beforehand. With the cost l of the arm drawn,

    plain      S_i += l_i / p_i [i drawn]                       factor 2 (Khodak et al. 2024, sec. 3)
    reduced    S_j += B_j + max((l - B_j) / p_j, -C) [j drawn]  factor 4, C = 2 sqrt(t) mean costs.

Plain: regret O(sqrt(d T)) against any costs in a known range. Reduced: B_j is what arm j cost lately (a
running mean, the newest cost with weight 1/2), but never above the present level (over all arms, weight
1/16), so that an arm whose cost was seen at a bad time is not written off; any B_j known before the draw
keeps the estimate unbiased and takes most of its variance. Where p_j is small and the cost happens to be
below B_j, the correction would be a large negative number that makes a bad arm the favourite for as many
rounds: it is cut at -C. The cut is a bias that the proofs do not cover. A smaller C costs less on random
costs and finds an arm that turned good later. Why it is the default: the group `sor` of `neuralsolve bench
--suite tuned` shows less than half of the plain estimate's excess over the best fixed arm.

Differences from Khodak et al. (2024): costs are not reduced by one iteration (seconds have no such unit),
and Newton's method starts where it converges monotonically; theirs may fail, and then records a wrong
probability. Cost per solve: O(d) and about ten Newton steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neuralsolve.tuning.learner import Learner, Learning, Observation
from neuralsolve.tuning.state import Stored

PLAIN, REDUCED = 2.0, 4.0  # factors of eta
MEMORY = 1 / 16  # weight of the newest cost in the present level
FRESH = 1 / 2  # least weight of the newest cost in the mean of its arm
CUT = 2.0  # of sqrt(t) mean costs


@dataclass(frozen=True)
class TsallisINF(Learner):
    """Draw an arm, without a context, so that no fixed arm would have cost much less in the long run.

    Parameters
    ----------
    variance_reduced : take the mean cost of an arm off before dividing by its probability

    Examples
    --------
    >>> from neuralsolve.tuning import Observation, TsallisINF
    >>> run = TsallisINF().start([1.0, 1.5, 1.9], seed=7)
    >>> for _ in range(500):
    ...     omega = run.choose()
    ...     run.learn(Observation(cost={1.0: 90, 1.5: 40, 1.9: 60}[omega]))
    >>> float(run.arms[run.pulls.argmax()])
    1.5
    """

    variance_reduced: bool = True

    needs_context: ClassVar[bool] = False

    def start(
        self, arms: Sequence[float], seed: int, context_range: tuple[float, float] | None = None
    ) -> Learning:
        """Open a run; contexts are ignored."""
        return _Tsallis(self, arms, seed)


class _Tsallis(Learning):
    stored = (*Learning.stored, "scores")

    def __init__(self, learner: TsallisINF, arms: Sequence[float], seed: int):
        super().__init__(learner, arms, seed)
        self.scores = Scores(len(self.arms), learner.variance_reduced)

    def choose(self, context: float | None = None) -> float:
        self._drawn = self.scores.choose(self._random.random())
        self.probabilities = self.scores.p.copy()
        return float(self.arms[self._drawn])

    def _learn(self, seen: Observation) -> None:
        self.scores.learn(self._drawn, seen.cost)


class Scores(Stored):
    """The scores of d arms: S, and what they are scaled and reduced by."""

    stored = ("p", "sums", "means", "pulls", "rounds", "total", "level")

    def __init__(self, arms: int, reduced: bool):
        self.p = np.full(arms, 1 / arms)
        self.sums = np.zeros(arms)  # S times the mean cost
        self.means = np.zeros(arms)
        self.pulls = np.zeros(arms)
        self.rounds = 0
        self.total = 0.0
        self.level = 0.0
        self._reduced = reduced
        self._factor = REDUCED if reduced else PLAIN

    @property
    def _mean(self) -> float:
        return self.total / self.rounds if self.total > 0 else 1.0

    def choose(self, uniform: float) -> int:
        """Draw an arm by a number from [0, 1)."""
        from neuralsolve.tuning.newton import draw, tsallis_distribution  # numba: not before it is needed

        tsallis_distribution(self.sums, self._mean, self._factor / math.sqrt(self.rounds + 1), self.p)
        return int(draw(self.p, uniform))

    def learn(self, drawn: int, cost: float) -> None:
        """Charge the arm drawn."""
        from neuralsolve.tuning.newton import charge

        self.rounds += 1
        self.total += cost
        clip = CUT * math.sqrt(self.rounds) * self._mean
        charge(self.sums, self.p, drawn, cost, self.means, self.pulls, self.level, clip)
        if self._reduced:
            self.level += (cost - self.level) * (MEMORY if self.rounds > 1 else 1.0)
        self.pulls[drawn] += 1
        self.means[drawn] += (cost - self.means[drawn]) * max(1 / self.pulls[drawn], FRESH)
