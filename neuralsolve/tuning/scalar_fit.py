"""ScalarFit: learn the Jacobi radius beta from what solves cost, then take Young's omega in closed form.

For SOR on a consistently ordered A the whole curve of cost over omega hangs on beta (`tuning.young`): costs
at a few omegas tell it, and omega*(c) follows for each context c, though no solve had that c before. ln
cost is fitted by least squares, with Huber weights and weak priors, to 256 solves (`tuning.memory`); theta
= (beta at both ends of the range of c, tolerance, two constants of the shape). Neither beta, nor the
diagonal, nor the tolerance is given.

Where to solve: omega = omega* + z (2 - omega*), with omega* of the fit and z = 0.015 + 0.2 * 6/(t + 6):
just above omega* the cost is flat, below it is steep. What is solved above omega* alone tells nothing of
beta, and a fit that lies too high would stay there. So sqrt(30 t) of the first t solves are probes a little
below or above, z = -0.025 or 0.025: without them the fit was seen to get lost, at up to three times the
cost. A solve that costs more than e^0.3 times what the fit says makes the fit start everywhere anew.

When the model does not fit (A not consistently ordered, a varying diagonal, SSOR, another parameter
altogether), a bandit takes over for good: `ChebCB` where contexts are given, else `TsallisINF`, over the
arms. Three early solves are probes of the shape, z = 0.5, -0.3 and -0.3; the model is given up from the
twelfth solve on if the first or both others are off by more than a factor e^0.4, or if the root mean square
error of ln cost over the last 64 solves exceeds 0.2. On SOR that error is 0.02 to 0.1. A model that is
wrong but predicts the costs is kept. Contexts that are missing, while beta varies, look like a model that
does not fit.

Without contexts beta is one number. If A's diagonal varies with the context as in I + c A, pass 1/c: then
1/beta is linear in it. Cost: O(1) in t; 25 us per solve on average, some ms where the fit starts everywhere.
Sources: Young 1971, Iterative Solution of Large Linear Systems, sec. 6.2; Khodak et al. 2024 for the setting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neuralsolve.errors import OptionError
from neuralsolve.tuning.cheb_cb import ChebCB
from neuralsolve.tuning.learner import Learner, Learning, Observation
from neuralsolve.tuning.memory import RECENT, Memory
from neuralsolve.tuning.tsallis import TsallisINF

MARGIN, WIDE, SOLVES = 0.015, 0.2, 6  # z = MARGIN + WIDE * SOLVES / (t + SOLVES)
NUDGE, PROBES = 0.025, 30.0  # |z| of a probe, and their number squared over t
SHAPE = {5: 0.5, 7: -0.3, 9: -0.3}  # solve: z, probes of the shape of the curve
EVERYWHERE = {2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128}  # solves after which the fit starts everywhere
SURPRISE, AGAIN, SELDOM = 0.3, 32, 1024  # of ln cost: a fit that starts everywhere, this many solves after
PATIENCE, OFF, WINDOW, ERROR = 12, 0.4, 64, 0.2  # when the model is given up


@dataclass(frozen=True)
class ScalarFit(Learner):
    """Fit Young's theory to the costs of SOR; a bandit takes over where it does not fit.

    Parameters
    ----------
    strict : a context outside a given range is an error; by default it is clipped, with one warning

    Examples
    --------
    Gauss-Seidel to SOR on a model problem with beta = 0.95, costs by Young's formula:

    >>> import math
    >>> from neuralsolve.tuning import Observation, ScalarFit
    >>> def sweeps(omega, beta=0.95):
    ...     under = omega**2 * beta**2 - 4 * (omega - 1)
    ...     rho = ((omega * beta + math.sqrt(under)) / 2) ** 2 if under > 0 else omega - 1
    ...     return 18 / -math.log(rho)
    >>> run = ScalarFit().start([1.0, 1.25, 1.5, 1.75, 1.95], seed=7)
    >>> for _ in range(100):
    ...     run.learn(Observation(sweeps(run.choose())))
    >>> round(run.beta(), 2)
    0.95
    """

    strict: bool = False

    needs_context: ClassVar[bool] = False
    numeric: ClassVar[bool] = True

    def start(
        self, arms: Sequence[float], seed: int, context_range: tuple[float, float] | None = None
    ) -> Learning:
        """Open a run; arms are omegas between 0 and 2."""
        return _ScalarFit(self, arms, seed, context_range)


class _ScalarFit(Learning):
    stored = (
        *Learning.stored,
        *("theta", "memory", "looked", "handed_over", "with_context"),
        *("_omega", "_context", "_plain", "_contextual"),
    )
    growth = 1.0  # beyond the contexts seen A may be singular, and 1/beta - 1 no exponential

    def __init__(
        self,
        learner: ScalarFit,
        arms: Sequence[float],
        seed: int,
        context_range: tuple[float, float] | None,
    ):
        super().__init__(learner, arms, seed, context_range, strict=learner.strict)
        check_omegas("ScalarFit", self.arms)
        from neuralsolve.tuning.young import CENTRE

        self.theta = CENTRE.copy()
        self.memory = Memory()
        self.looked = 0  # the solve after which the fit last started everywhere
        self.handed_over = False
        self.with_context = -1  # not known before the first choice
        self._omega, self._context = 0.0, 0.0
        self._plain = TsallisINF().start(arms, seed)
        self._contextual = ChebCB(strict=learner.strict).start(arms, seed, context_range)

    def choose(self, context: float | None = None) -> float:
        self._check_kind(context)
        if self.handed_over:
            bandit = self._bandit
            omega = bandit.choose(context)
            self._drawn, self.probabilities = bandit._drawn, bandit.probabilities
            return omega
        if context is not None:
            context = float(context)
            self._place(context)
        omega = self.best(context)
        omega += self._margin() * (2 - omega)
        self._omega = min(max(omega, float(self.arms[0])), float(self.arms[-1]))
        self._context = 0.0 if context is None else self._inside(context)
        self._drawn = nearest_arm(self.arms, self._omega)
        return self._omega

    def best(self, context: float | None = None) -> float:
        """Return omega* of the fit."""
        from neuralsolve.tuning.young import best_omega

        return best_omega(self.theta, self._where(context))

    def beta(self, context: float | None = None) -> float:
        """Return the Jacobi radius that was found."""
        from neuralsolve.tuning.young import jacobi_radius

        return jacobi_radius(self.theta, self._where(context))

    def _where(self, context: float | None) -> float:
        if context is None or self.context_range is None:
            return 0.0
        return float(places(np.array([context]), self.context_range)[0])

    @property
    def _bandit(self) -> Learning:
        return self._contextual if self.with_context == 1 else self._plain

    def _check_kind(self, context: float | None) -> None:
        kind = int(context is not None)
        if self.with_context not in (-1, kind):
            was = "with" if self.with_context else "without"
            msg = f"this run of ScalarFit began {was} contexts, given {context}; give all solves one, or none"
            raise OptionError(msg)
        self.with_context = kind

    def _margin(self) -> float:
        """Return z, how far above omega* to solve."""
        t = self.memory.added
        if t in SHAPE:
            return SHAPE[t]
        probe = int(math.sqrt(PROBES * t))
        if t > max(SHAPE) and probe != int(math.sqrt(PROBES * (t - 1))):
            return -NUDGE if probe % 2 else NUDGE
        return MARGIN + WIDE * SOLVES / (t + SOLVES)

    def _learn(self, seen: Observation) -> None:
        if self.handed_over:
            self._bandit.learn(seen)
            return
        if seen.cost == 0:  # no logarithm, and nothing to improve
            return
        log_cost, memory = math.log(seen.cost), self.memory
        if memory.added == 0:
            self.theta[2] = log_cost - 2.3  # -1/ln rho is about 10 where it all starts
        surprised = memory.added > 0 and log_cost - self._predicted() > SURPRISE
        memory.add(self._context, self._omega, log_cost, self._random)
        t = memory.added
        look = t in EVERYWHERE or t - self.looked >= (AGAIN if surprised else SELDOM)
        if look or t <= 32 or t % (4 if t <= 256 else 16) == 0:
            self._fit(everywhere=look)
            if t >= PATIENCE and self._is_off():
                self._fit(everywhere=True)  # it may have lost its way
                self.handed_over = self._is_off()
                self._bandit._warned = self._warned

    def _seen(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return places, omegas and ln costs of the solves that are remembered."""
        n, memory = len(self.memory), self.memory
        where = np.zeros(n)
        if self.context_range is not None and self.with_context == 1:
            where = places(memory.contexts[:n], self.context_range)
        return where, memory.omegas[:n], memory.logs[:n]

    def _predicted(self) -> float:
        from neuralsolve.tuning.young import SIZE, log_cost

        context = self._context if self.with_context == 1 else None
        return log_cost(self.theta, self._where(context), self._omega, np.empty(SIZE))

    def _fit(self, *, everywhere: bool) -> None:
        from neuralsolve.tuning.young import fit

        if everywhere:
            self.looked = self.memory.added
        near = self._random.random() < 0.5
        fit(self.theta, *self._seen(), self._random.standard_normal(2) * (0.1 if near else 0.6), everywhere)

    def _is_off(self) -> bool:
        from neuralsolve.tuning.young import residuals

        errors = np.empty(len(self.memory))
        residuals(self.theta, *self._seen(), errors)
        if self.memory.added <= RECENT:
            above, *below = (abs(errors[t]) for t in SHAPE)
            # below omega* a b with little of the slow mode is solved sooner: two such are no accident
            if max(above, min(below)) > OFF:
                return True
        return bool(np.sqrt(np.mean(self.memory.last(errors, WINDOW) ** 2)) > ERROR)

    def _grow(self, old: tuple[float, float], new: tuple[float, float]) -> None:
        # 1/beta - 1 is linear in the context: the same line at the new ends, kept above zero
        g = np.exp(self.theta[:2])
        width = old[1] - old[0]
        ends = [g[0] + (g[1] - g[0]) * ((c - old[0]) / width if width > 0 else 0.5) for c in new]
        self.theta[:2] = np.log(np.maximum(ends, 1e-5))


def places(contexts: np.ndarray, context_range: tuple[float, float]) -> np.ndarray:
    """Return where contexts lie in their range, in [0, 1]."""
    low, high = context_range
    return np.clip((contexts - low) / (high - low), 0, 1) if high > low else np.full(len(contexts), 0.5)


def check_omegas(learner: str, arms: np.ndarray) -> None:
    """Refuse arms that are no relaxation factors."""
    if arms[0] <= 0 or arms[-1] >= 2:
        msg = (
            f"{learner} fits relaxation factors between 0 and 2, given {arms[0]:g} to {arms[-1]:g}; for "
            "another parameter use TsallisINF() or ChebCB()"
        )
        raise OptionError(msg)


def nearest_arm(arms: np.ndarray, value: float) -> int:
    """Return the arm nearest to a value; arms increase."""
    i = int(np.searchsorted(arms, value))
    if i == 0 or i == len(arms):
        return min(i, len(arms) - 1)
    return i if arms[i] - value <= value - arms[i - 1] else i - 1
