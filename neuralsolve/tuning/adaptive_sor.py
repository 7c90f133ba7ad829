"""AdaptiveSOR: estimate the Jacobi radius from how fast the residual fell, then take Young's omega.

Hageman & Young (1981, Applied Iterative Methods, ch. 9): while omega < omega*, the residual falls in the
end by the factor rho per sweep, and rho gives beta,

    beta = (rho + omega - 1) / (omega sqrt(rho)),       omega* = 2 / (1 + sqrt(1 - beta^2)).

From above omega* nothing can be read: all eigenvalues have the modulus omega - 1, and rho tells omega
itself. So omega is kept a little low, omega = omega* - z (2 - omega*); where rho <= omega - 1 within 2 %,
omega was too high, and 1/beta - 1 is taken for a fifth larger than thought. rho is the geometric mean over
the last third of a solve, as early ratios show all modes at once. With contexts, 1/beta - 1 is linear in
the context (`tuning.young`) and fitted by recursive least squares, which forgets 1 % of the old solves at
each new one.

A baseline: in solves of a few dozen sweeps the last third is not the end, and omega comes out too high; so it
does where contexts that are not given a range hardly differ. Either was seen to cost up to six times the best
omega.

Difference from the source: there omega changes between the sweeps of one solve; here between solves, and the
residual norms of the solves that were wanted anyway are all that it takes. Cost: O(length of a solve).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neuralsolve.errors import OptionError
from neuralsolve.tuning.learner import Learner, Learning, Observation
from neuralsolve.tuning.scalar_fit import check_omegas, nearest_arm, places

FORGET = 0.99  # weight that a solve keeps at each later one
SAME = 1.02  # rho below SAME (omega - 1) is the modulus of all eigenvalues
RAISE = 0.2  # part of 1/beta - 1 to add where omega was too high
SHORTEST = 6  # norms: fewer show no rate
START = 0.05  # 1/beta - 1 before anything is known: omega* = 1.53


@dataclass(frozen=True)
class AdaptiveSOR(Learner):
    """Read beta off the residual norms of SOR; needs them in each `Observation`.

    Parameters
    ----------
    below : z, by how much of 2 - omega* omega stays below omega*
    strict : a context outside a given range is an error; by default it is clipped, with one warning

    Examples
    --------
    >>> from neuralsolve.tuning import AdaptiveSOR, Observation
    >>> run = AdaptiveSOR(below=0.0).start([1.0, 1.95], seed=7)
    >>> omega, beta = run.choose(), 0.99
    >>> rho = (omega * beta / 2 + (omega**2 * beta**2 / 4 - omega + 1) ** 0.5) ** 2
    >>> run.learn(Observation(cost=40, residual_norms=[rho**k for k in range(41)]))
    >>> round(run.beta(), 6)
    0.99
    """

    below: float = 0.01
    strict: bool = False

    needs_context: ClassVar[bool] = False
    numeric: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.below < 1:
            msg = f"AdaptiveSOR(below={self.below!r}): it must lie in [0, 1), for example 0.01"
            raise OptionError(msg)

    def start(
        self, arms: Sequence[float], seed: int, context_range: tuple[float, float] | None = None
    ) -> Learning:
        """Open a run; arms are omegas between 0 and 2."""
        return _Adaptive(self, arms, seed, context_range)


class _Adaptive(Learning):
    stored = (*Learning.stored, "gram", "right", "line", "readings", "_omega", "_place_now")
    growth = 1.0
    learner: AdaptiveSOR

    def __init__(
        self,
        learner: AdaptiveSOR,
        arms: Sequence[float],
        seed: int,
        context_range: tuple[float, float] | None,
    ):
        super().__init__(learner, arms, seed, context_range, strict=learner.strict)
        check_omegas("AdaptiveSOR", self.arms)
        # g = 1/beta - 1 = line[0] (1 - u) + line[1] u, with a prior of little weight
        self.line = np.array([START, START])
        self.gram = 1e-6 * np.eye(2)
        self.right = self.gram @ self.line
        self.readings = 0  # solves that told beta
        self._omega, self._place_now = 0.0, 0.0

    def choose(self, context: float | None = None) -> float:
        self._place_now = 0.0 if context is None else self._place(context)
        beta = 1 / (1 + self._g(self._place_now))
        best = 2 / (1 + math.sqrt(1 - beta * beta))
        omega = best - self.learner.below * (2 - best)
        self._omega = float(min(max(omega, self.arms[0]), self.arms[-1]))
        self._drawn = nearest_arm(self.arms, self._omega)
        return self._omega

    def beta(self, context: float | None = None) -> float:
        """Return the Jacobi radius that was found."""
        if context is None or self.context_range is None:
            return 1 / (1 + self._g(0.0))
        return 1 / (1 + self._g(float(places(np.array([context]), self.context_range)[0])))

    def _g(self, place: float) -> float:
        return max(float(self.line[0] * (1 - place) + self.line[1] * place), 1e-8)

    def _learn(self, seen: Observation) -> None:
        rho = late_rate(seen.residual_norms)
        if rho is None:
            return
        omega, features = self._omega, np.array([1 - self._place_now, self._place_now])
        if rho > SAME * (omega - 1):
            beta = min((rho + omega - 1) / (omega * math.sqrt(rho)), 1 - 1e-8)
            g = 1 / beta - 1
            self.readings += 1
        elif omega > self.arms[0]:
            g = (1 + RAISE) * self._g(self._place_now)
            if self.readings == 0:  # nothing to keep to: the line moves as a whole
                self.line *= 1 + RAISE
                self.right = self.gram @ self.line
                return
        else:
            return
        self.gram = FORGET * self.gram + np.outer(features, features)
        self.right = FORGET * self.right + g * features
        self.line = np.linalg.solve(self.gram + 1e-9 * np.eye(2), self.right + 1e-9 * self.line)

    def _grow(self, old: tuple[float, float], new: tuple[float, float]) -> None:
        # new hat functions (1 - u, u) = B times the old ones: their values at the old ends
        low = [(new[1] - c) / (new[1] - new[0]) for c in old]
        B = np.array([low, [1 - x for x in low]])
        self.gram, self.right = B @ self.gram @ B.T, B @ self.right
        width = old[1] - old[0]
        steps = [(c - old[0]) / width if width > 0 else 0.5 for c in new]
        self.line = np.array([self.line[0] + (self.line[1] - self.line[0]) * s for s in steps])


def late_rate(norms: Sequence[float]) -> float | None:
    """Return the mean factor of the last third of a solve; None where it is short or did not fall."""
    if len(norms) < SHORTEST:
        return None
    first = len(norms) - 1 - len(norms) // 3
    start, end = float(norms[first]), float(norms[-1])
    if not (0 < end < start < math.inf):
        return None
    return (end / start) ** (1 / (len(norms) - 1 - first))
