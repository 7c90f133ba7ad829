"""What every online learner offers: choose a value, see what the solve cost, choose better.

A `Learner` is a frozen set of options; `start` opens a run, a `Learning`, which holds everything that was
learned. One round is `choose`, the solve, `learn`. Nothing but the observed cost is told to a learner (bandit
feedback): what the other values would have cost stays unknown. A choice that is not followed by `learn`
(the solve raised) is forgotten by the next one.

Contexts are one number per solve, known before it. Where no range is given, the range grows with what is
seen; by half its width at least, so that it grows O(log) times, where each growth costs something.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from neuralsolve.errors import OptionError
from neuralsolve.tuning.state import Stored, numbers


@dataclass(frozen=True)
class Observation:
    """What a solve showed.

    Parameters
    ----------
    cost : iterations, matvecs or seconds; finite, not negative; what is to be made small
    capped : the solve hit its cap, and `cost` is that cap
    residual_norms : of the solve, the initial one first; `AdaptiveSOR` alone looks at them
    """

    cost: float
    capped: bool = False
    residual_norms: Sequence[float] = ()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cost) and self.cost >= 0):
            msg = (
                f"a cost must be finite and not negative, given {self.cost}; charge a solve that failed its "
                "cap: Observation(cost=cap, capped=True)"
            )
            raise OptionError(msg)
        object.__setattr__(self, "cost", float(self.cost))  # a NumPy number would not go into JSON


class Learner(ABC):
    """Options of a learner; `start` opens a run.

    `needs_context`: cannot choose without a context. `numeric`: wants a range of numbers and may choose any
    number in it; the other learners take a list of things.
    """

    needs_context: ClassVar[bool] = False
    numeric: ClassVar[bool] = False

    @abstractmethod
    def start(
        self, arms: Sequence[float], seed: int, context_range: tuple[float, float] | None = None
    ) -> Learning:
        """Open a run.

        Parameters
        ----------
        arms : the values to choose from, `range(d)` where they stand for things; a numeric learner takes
            them in increasing order, chooses from [arms[0], arms[-1]], and keeps to them if it hands over to
            a bandit
        seed : of the run's own random numbers; the same seed and costs make the same choices
        context_range : lowest and highest context; by default it grows with what is seen
        """


class Learning(Stored, ABC):
    """One run: what was chosen, what it cost, what follows from it.

    Attributes
    ----------
    arms : (d,)
    pulls, totals : (d,), how often each arm was chosen and what that cost in sum; a numeric learner counts
        the nearest arm
    probabilities : (d,) of the last draw, None where nothing was drawn
    """

    stored = ("pulls", "totals", "_drawn")
    growth: ClassVar[float] = 1.5  # of a range of contexts that was not given, each time that it grows

    def __init__(
        self,
        learner: Learner,
        arms: Sequence[float],
        seed: int,
        context_range: tuple[float, float] | None = None,
        *,
        strict: bool = False,
    ):
        self.learner = learner
        self.arms = _checked_arms(learner, arms)
        self.pulls = np.zeros(len(self.arms), dtype=np.int64)
        self.totals = np.zeros(len(self.arms))
        self.probabilities: np.ndarray | None = None
        self._random = np.random.default_rng(seed)
        self._drawn = -1  # the arm that `learn` will be about
        self._strict = strict
        self._warned = False
        self._fixed_range = context_range is not None
        self.context_range = None if context_range is None else _checked_range(context_range)

    # -- one round ---------------------------------------------------------------------------------------

    @abstractmethod
    def choose(self, context: float | None = None) -> float:
        """Return the value for the next solve."""

    @abstractmethod
    def _learn(self, seen: Observation) -> None:
        """Learn about the last choice; pulls and totals count it already."""

    def learn(self, seen: Observation, context: float | None = None) -> None:
        """Learn what the last choice cost; its context is remembered from `choose`."""
        if self._drawn < 0:
            msg = "learn() is about the last choose(), and there is none; call choose() before each solve"
            raise OptionError(msg)
        self.pulls[self._drawn] += 1
        self.totals[self._drawn] += seen.cost
        self._learn(seen)
        self._drawn = -1

    # -- contexts ----------------------------------------------------------------------------------------

    def _place(self, context: float | None) -> float:
        """Return where a context lies in the range, in [0, 1]; the range grows unless it was given."""
        if context is None or not math.isfinite(context):
            name = type(self.learner).__name__
            msg = f"{name} needs a finite context for each choice, given {context}; pass solve(b, context=c)"
            raise OptionError(msg)
        context = float(context)
        if self.context_range is None:
            self.context_range = (context, context)
        low, high = self.context_range
        if not low <= context <= high:
            if self._fixed_range:
                context = self._clip(context)
            else:
                self.context_range = _grown(low, high, context, self.growth)
                self._grow((low, high), self.context_range)
            low, high = self.context_range
        return (context - low) / (high - low) if high > low else 0.5

    def _inside(self, context: float) -> float:
        low, high = self.context_range or (context, context)
        return min(max(context, low), high)

    def _clip(self, context: float) -> float:
        low, high = self.context_range or (context, context)
        msg = f"context {context:g} lies outside context_range=({low:g}, {high:g})"
        if self._strict:
            msg += "; give a wider range, or none to let it grow"
            raise OptionError(msg)
        if not self._warned:
            self._warned = True
            warnings.warn(f"{msg} and is clipped; give a wider range, or none to let it grow", stacklevel=5)
        return self._inside(context)

    def _grow(self, old: tuple[float, float], new: tuple[float, float]) -> None:
        """Express what was learned on the range `old` on the range `new`."""

    # -- saving ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state in strings, numbers, lists and dicts, for `json.dumps`."""
        return {
            **self._header(),
            "random": self._random.bit_generator.state,
            "probabilities": None if self.probabilities is None else self.probabilities.tolist(),
            "context_range": None if self.context_range is None else list(self.context_range),
            "values": super().state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken, bit for bit.

        Raises
        ------
        OptionError
            A state of another learner, of other arms, or a broken one. Nothing is changed then.
        """
        self._check_header(state)
        probabilities = _optional("probabilities", state, len(self.arms))
        context_range = _optional("context_range", state, 2)
        random = np.random.default_rng()
        try:
            random.bit_generator.state = state["random"]
        except (KeyError, TypeError, ValueError) as error:
            msg = "state: 'random' is no state of a PCG64 generator; take it from state_dict()"
            raise OptionError(msg) from error
        super().load_state_dict(state["values"])
        self._random, self.probabilities = random, probabilities
        self.context_range = None if context_range is None else _checked_range(context_range.tolist())

    def _header(self) -> dict[str, Any]:
        return {
            "learner": repr(self.learner),
            "arms": self.arms.tolist(),
            "range_given": list(self.context_range or ()) if self._fixed_range else None,
        }

    def _check_header(self, state: Mapping[str, Any]) -> None:
        own = self._header()
        if not isinstance(state, Mapping) or not {*own, "random", "values"} <= set(state):
            msg = "this is no state of a learner; take it from state_dict()"
            raise OptionError(msg)
        for name, value in own.items():
            if state[name] != value:
                msg = (
                    f"the state has {name} {state[name]}, this run has {value}; start the run as that one was"
                )
                raise OptionError(msg)


def _checked_arms(learner: Learner, arms: Sequence[float]) -> np.ndarray:
    values = np.array(list(arms), dtype=np.float64)
    name = type(learner).__name__
    if values.size == 0:
        msg = f"{name}: nothing to choose from; give one arm at least"
        raise OptionError(msg)
    if not np.isfinite(values).all():
        msg = f"{name}: arms must be finite numbers, given {values.tolist()}"
        raise OptionError(msg)
    if learner.numeric and (np.diff(values) <= 0).any():
        msg = f"{name}: a numeric learner needs arms in increasing order, given {values.tolist()}"
        raise OptionError(msg)
    return values


def _checked_range(context_range: Sequence[float]) -> tuple[float, float]:
    low, high = (float(end) for end in context_range)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        msg = f"context_range must be two finite numbers, low < high, given ({low}, {high})"
        raise OptionError(msg)
    return low, high


def _grown(low: float, high: float, context: float, growth: float) -> tuple[float, float]:
    """Widen (low, high) to the context, to `growth` times the width at least."""
    wider = (growth - 1) * (high - low)
    return (min(context, low - wider), high) if context < low else (low, max(context, high + wider))


def _optional(name: str, state: Mapping[str, Any], size: int) -> np.ndarray | None:
    """Return what a state holds under a name that may be empty: before the first choice there is none."""
    if state.get(name) is None:
        return None
    values = numbers(name, state[name])
    if values.shape != (size,):
        msg = f"state: {name!r} must hold {size} numbers; take it from state_dict()"
        raise OptionError(msg)
    return values
