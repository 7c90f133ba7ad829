"""What a learner would have cost on a table of the costs of all arms, and what hindsight would.

The table is what no simulation has: each solve done once with every arm. It tells the regret, and lets many
seeds be compared on the same solves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.tuning.learner import Learner, Observation


@dataclass(frozen=True)
class Replay:
    """Totals over T solves, for each seed, and those of hindsight.

    `totals` (seeds,), `choices` (seeds, T) the arms, `best_fixed` the total of the cheapest single arm
    `best_arm`, `oracle` that of the cheapest arm of each solve.
    """

    totals: np.ndarray
    choices: np.ndarray
    best_arm: int
    best_fixed: float
    oracle: float

    @property
    def ratios(self) -> np.ndarray:
        """Totals over the best fixed arm's."""
        return self.totals / self.best_fixed

    @property
    def regret(self) -> np.ndarray:
        """Totals minus the best fixed arm's."""
        return self.totals - self.best_fixed


def replay(
    learner: Learner,
    costs: np.ndarray,
    contexts: Sequence[float] | np.ndarray | None = None,
    seeds: Iterable[int] = range(10),
    *,
    context_range: tuple[float, float] | None = None,
    arms: Sequence[float] | None = None,
    cap: float | None = None,
) -> Replay:
    """Run a learner on a table of costs.

    Parameters
    ----------
    learner : its options
    costs : (T, d), finite and not negative
    contexts : (T,), by default none
    seeds : one run for each
    context_range : as for `Learner.start`
    arms : (d,) values, by default `range(d)`; needed for a numeric learner, which is given the cost of the
        arm nearest to what it chose: what it could do between the arms is not measured
    cap : costs from here on are told as capped

    Raises
    ------
    OptionError
        Costs that are not finite and not negative; a learner that wants contexts or values of the arms.
    ShapeError

    Examples
    --------
    >>> import numpy as np
    >>> from neuralsolve.tuning import Fixed, replay
    >>> replay(Fixed(1), np.array([[3.0, 2.0], [1.0, 2.0]]), seeds=[7]).ratios.tolist()
    [1.0]
    """
    costs, contexts = _checked(learner, costs, contexts, arms)
    values = np.arange(costs.shape[1], dtype=float) if arms is None else np.array(arms, dtype=float)
    seeds = list(seeds)
    totals, choices = np.zeros(len(seeds)), np.zeros((len(seeds), len(costs)), dtype=np.int64)
    for row, seed in enumerate(seeds):
        run = learner.start(values.tolist(), seed, context_range)
        for t, cost in enumerate(costs):
            context = None if contexts is None else float(contexts[t])
            arm = int(np.abs(values - run.choose(context)).argmin())
            choices[row, t] = arm
            totals[row] += cost[arm]
            run.learn(
                Observation(float(cost[arm]), capped=cap is not None and bool(cost[arm] >= cap)), context
            )
    fixed = costs.sum(axis=0)
    return Replay(totals, choices, int(fixed.argmin()), float(fixed.min()), float(costs.min(axis=1).sum()))


def _checked(
    learner: Learner,
    costs: np.ndarray,
    contexts: Sequence[float] | np.ndarray | None,
    arms: Sequence[float] | None,
) -> tuple[np.ndarray, np.ndarray | None]:
    costs = np.asarray(costs, dtype=np.float64)
    if costs.ndim != 2 or costs.size == 0:
        msg = f"costs must be a table (T, d) of T solves and d arms, given shape {costs.shape}"
        raise ShapeError(msg)
    if not (np.isfinite(costs).all() and (costs >= 0).all()):
        msg = "costs must be finite and not negative; give a solve that failed its cap"
        raise OptionError(msg)
    if arms is not None and len(arms) != costs.shape[1]:
        msg = f"costs have {costs.shape[1]} columns, given {len(arms)} arms"
        raise ShapeError(msg)
    name = type(learner).__name__
    if learner.numeric and arms is None:
        msg = f"{name} chooses numbers: give the values of the columns, replay(..., arms=[...])"
        raise OptionError(msg)
    if contexts is None:
        if learner.needs_context:
            msg = f"{name} needs a context for each solve: replay(..., contexts=c), c of shape (T,)"
            raise OptionError(msg)
        return costs, None
    contexts = np.asarray(contexts, dtype=np.float64)
    if contexts.shape != (len(costs),):
        msg = f"contexts must have shape ({len(costs)},), one for each solve, given {contexts.shape}"
        raise ShapeError(msg)
    return costs, contexts
