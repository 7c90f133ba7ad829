"""No learning: one value for every solve, to compare learners with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from neuralsolve.errors import OptionError
from neuralsolve.tuning.learner import Learner, Learning, Observation


@dataclass(frozen=True)
class Fixed(Learner):
    """Choose the same value in each solve.

    Parameters
    ----------
    value : one of the arms, or of the things of a list; by default the first

    Examples
    --------
    >>> from neuralsolve.tuning import Fixed
    >>> Fixed(1.5).start([1.0, 1.5, 1.9], seed=7).choose()
    1.5
    """

    value: Any = None

    numeric: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if isinstance(self.value, float) and not math.isfinite(self.value):
            msg = f"Fixed(value={self.value!r}): value must be finite, or None for the first arm"
            raise OptionError(msg)

    def start(
        self, arms: Sequence[float], seed: int, context_range: tuple[float, float] | None = None
    ) -> Learning:
        """Open a run."""
        return _Fixed(self, arms, seed, context_range)


class _Fixed(Learning):
    learner: Fixed

    def __init__(self, learner: Fixed, *given):
        super().__init__(learner, *given)
        value = self.arms[0] if learner.value is None else learner.value
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            msg = f"Fixed(value={value!r}) is none of the choices; give one of them"
            raise OptionError(msg)
        distance = np.abs(self.arms - float(value))
        self._arm = int(distance.argmin())
        if distance[self._arm] > 1e-12 * abs(value):
            msg = f"Fixed(value={value:g}) is none of the arms {self.arms.tolist()}; give one of them"
            raise OptionError(msg)

    def choose(self, context: float | None = None) -> float:
        self._drawn = self._arm
        return float(self.arms[self._arm])

    def _learn(self, seen: Observation) -> None:
        pass
