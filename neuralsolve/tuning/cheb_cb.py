"""ChebCB: each arm's cost is a polynomial of the context; the arms are drawn by inverse gaps.

SquareCB (Foster & Rakhlin 2020, ICML) with Chebyshev regression (Khodak et al. 2024, sec. 3.3). With the
context c in [a, b], phi(c) = (T_0, ..., T_(m-1))(2 (c - a)/(b - a) - 1), m = degree + 1, arm i is predicted
to cost y_i = theta_i . phi(c); with i* the cheapest,

    p_j = 1 / (d + eta (y_j - y_i*)),  j != i*,        p_i* = 1 - sum of the others,
    theta_i = argmin sum_s (theta . phi(c_s) - l_s)^2  over  |theta_0| <= K, |theta_j| <= 2 (b - a) Lip / j,
    eta = exploitation 2 t sqrt(d t / (R - res + 2 alpha^2 t)),
    alpha = (pi + (2/pi) ln(2m + 1)) (b - a) Lip / (2 (m + 1)),

where K is the largest cost seen, Lip = (largest - smallest cost)/(b - a), R the sum of squared errors of the
predictions when they were made, res that of the fits now: R - res is what the regression lost by not knowing
the future. The bounds are those of the coefficients of a Lipschitz function, alpha the error of its best
polynomial. Costs, predictions and alpha are divided by the scale K N, N = 2 + 4 (b - a) (Lip/K)(1 + ln m),
in eta. Regret against the best arm of each context: T^(9/11) up to logarithms, for eta without the factor t,
which the released code has for its speed.

Differences from the released code, all undone by `paper_compat=True`: its smallest cost is zero until the
last round, so Lip = K/(b - a); its res is that of the last constrained fit alone; costs are reduced by one
iteration; there is no ridge. Here a ridge of 1e-3 j^2 on theta_j keeps high degrees out of a fit to few
costs. Instead of all rounds, the Gram matrix of each arm is kept: neither time nor memory grows with t.
Where the range of contexts grows, the sums are carried over to the new polynomials exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neuralsolve.errors import OptionError
from neuralsolve.tuning.learner import Learner, Learning, Observation

SMOOTH = 1e-3  # ridge on theta_j, times j^2


@dataclass(frozen=True)
class ChebCB(Learner):
    """Predict each arm's cost by a polynomial of the context, explore by inverse gaps.

    Parameters
    ----------
    degree : of the polynomials
    exploitation : factor of eta; larger trusts the predictions earlier
    paper_compat : with the oddities of the released code
    strict : a context outside a given range is an error; by default it is clipped, with one warning

    Examples
    --------
    >>> from neuralsolve.tuning import ChebCB, Observation
    >>> run = ChebCB(degree=2).start([1.0, 1.5, 1.9], seed=7, context_range=(0, 1))
    >>> for i in range(400):
    ...     c = i % 11 / 10
    ...     omega = run.choose(c)
    ...     run.learn(Observation(cost=30 + (omega - 1 - c) ** 2))
    >>> [round(float(run.predict(c).min()), 1) for c in (0.0, 0.5)]
    [30.0, 30.0]
    """

    degree: int = 5
    exploitation: float = 2.0
    paper_compat: bool = False
    strict: bool = False

    needs_context: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.degree, int) or isinstance(self.degree, bool) or not 0 <= self.degree <= 20:
            msg = f"ChebCB(degree={self.degree!r}): degree must be an integer from 0 to 20, for example 5"
            raise OptionError(msg)
        if not 0 < self.exploitation < math.inf:
            msg = f"ChebCB(exploitation={self.exploitation!r}): it must be positive, for example 2"
            raise OptionError(msg)

    def start(
        self, arms: Sequence[float], seed: int, context_range: tuple[float, float] | None = None
    ) -> Learning:
        """Open a run."""
        return _Cheb(self, arms, seed, context_range)


class _Cheb(Learning):
    stored = (
        *Learning.stored,
        *("theta", "gram", "right", "squares", "residuals", "phi", "predicted"),
        *("rounds", "eta", "error", "largest", "smallest"),
    )
    learner: ChebCB

    def __init__(
        self,
        learner: ChebCB,
        arms: Sequence[float],
        seed: int,
        context_range: tuple[float, float] | None,
    ):
        super().__init__(learner, arms, seed, context_range, strict=learner.strict)
        d, m = len(self.arms), learner.degree + 1
        self.theta, self.right, self.gram = np.zeros((d, m)), np.zeros((d, m)), np.zeros((d, m, m))
        self.squares, self.residuals = np.zeros(d), np.zeros(d)  # sum of l^2; of squared residuals
        self.phi, self.predicted = np.zeros(m), np.zeros(d)
        self.rounds, self.eta, self.error = 0, 0.0, 0.0
        self.largest, self.smallest = 0.0, 0.0
        self._offset = 1.0 if learner.paper_compat else 0.0

    def choose(self, context: float | None = None) -> float:
        from neuralsolve.tuning.cheb_fit import chebyshev, distribution
        from neuralsolve.tuning.newton import draw

        chebyshev(2 * self._place(context) - 1, self.phi)
        p = np.empty(len(self.arms))
        distribution(self.theta, self.phi, self.eta, self.predicted, p)
        self._drawn = int(draw(p, self._random.random()))
        self.probabilities = p
        return float(self.arms[self._drawn])

    def predict(self, context: float) -> np.ndarray:
        """Return the predicted cost of each arm, (d,)."""
        low, high = self.context_range or (context, context)
        x = 2 * (context - low) / (high - low) - 1 if high > low else 0.0
        return np.asarray(np.polynomial.chebyshev.chebval(x, self.theta.T)) + self._offset

    def _learn(self, seen: Observation) -> None:
        from neuralsolve.tuning.cheb_fit import absorb

        cost, i = seen.cost - self._offset, self._drawn
        bounds_moved = self.rounds == 0 or not self.smallest <= seen.cost <= self.largest
        self.largest = max(self.largest, seen.cost)
        if not self.learner.paper_compat:
            self.smallest = seen.cost if self.rounds == 0 else min(self.smallest, seen.cost)
        self.rounds += 1
        self.error += (self.predicted[i] - cost) ** 2
        self.squares[i] += cost * cost
        absorb(self.gram[i], self.right[i], self.phi, cost)
        arms = np.flatnonzero(self.pulls).tolist() if bounds_moved else [i]
        last = self._refit(arms)
        self._set_eta(last if self.learner.paper_compat else float(self.residuals.sum()))

    def _refit(self, arms: Sequence[int]) -> float:
        """Fit the arms again; return the squared residual of the last one."""
        from neuralsolve.tuning.cheb_fit import refit

        bounds = self._bounds()
        ridge = 0.0 if self.learner.paper_compat else SMOOTH
        for i in arms:
            fit = refit(self.gram[i], self.right[i], self.squares[i], ridge, bounds, self.theta[i])
            self.residuals[i] = fit
        return float(self.residuals[arms[-1]]) if len(arms) else 0.0

    def _bounds(self) -> np.ndarray:
        """Return the largest size of each coefficient, (m,)."""
        spread = self.largest - self.smallest
        bounds = 2 * spread / np.maximum(np.arange(len(self.phi)), 1)
        bounds[0] = max(self.largest, 1e-300)
        return bounds

    def _set_eta(self, residuals: float) -> None:
        m, t, d = len(self.phi), self.rounds, len(self.arms)
        spread = self.largest - self.smallest  # (b - a) Lip
        alpha = (math.pi + 2 / math.pi * math.log(2 * m + 1)) * spread / (2 * (m + 1))
        lost = max(self.error - residuals, 0.0) + 2 * alpha**2 * t
        # every cost in it is divided by the scale, and so is the gap that eta multiplies: the scale cancels
        self.eta = self.learner.exploitation * 2 * t * math.sqrt(d * t / lost) if lost > 0 else 0.0

    def _grow(self, old: tuple[float, float], new: tuple[float, float]) -> None:
        # T_new(c) = B T_old(c) as polynomials, B from the values at the old range's Chebyshev nodes. The new
        # ones are at most 1 there, so B is small: nothing is amplified.
        m = len(self.phi)
        nodes = np.cos(np.pi * (np.arange(m) + 0.5) / m)
        points = old[0] + (nodes + 1) / 2 * (old[1] - old[0])
        x = 2 * (points - new[0]) / (new[1] - new[0]) - 1
        values = np.polynomial.chebyshev.chebvander(x, m - 1)
        B = np.linalg.solve(np.polynomial.chebyshev.chebvander(nodes, m - 1), values).T
        self.right = self.right @ B.T
        self.gram = B @ self.gram @ B.T
        if self.rounds:
            self._refit(np.flatnonzero(self.pulls).tolist())
