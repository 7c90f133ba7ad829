"""Steps that a filter takes, where none descends on the merit function any more: Jacobians that lose rank.

The merit function (`merit`) looks at multipliers, and those grow without bound towards points where the
gradients of the constraints are dependent: its line search then ends far from a solution. A filter looks at f
and ||c|| alone. A point along a step is taken if no entry of the filter is better in both, and

    f falls by Armijo's rule, where the step promises more for f than there is of c to lose, or else
    f or ||c|| falls by a small factor.

A full step that brings neither is tried with up to four corrections towards c = 0. Where no point of a step
will do, Levenberg and Marquardt make ||c|| smaller until the filter takes the point (restoration).
Multipliers are those of least squares over singular values above `TRUNCATED`, where they leave less of the
KKT residual than the step's own.

Source: Waechter and Biegler, Math. Program. 106 (2006) 25-57, sec. 2.3, 2.4, 3.3, with its constants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from neuralsolve.optimize.kkt import Step
from neuralsolve.optimize.multipliers import first_multipliers, least_squares_multipliers
from neuralsolve.optimize.problem import Evaluations, Point, Vector

MARGIN = 1e-5  # by which f or ||c|| must be better than an entry's
ARMIJO = 1e-4
POWER_F, POWER_C = 2.3, 1.1  # of what a step promises for f, and of ||c||, in the switching condition
HIGHEST, LOWEST = 1e4, 1e-4  # of ||c||, times that at the start: never above; below it f decides
CORRECTIONS, WORTH = 4, 0.99  # of second order; ||c|| must fall by it for the next
SHORTEST = 1e-9  # of step lengths
ROUNDING = 1e-14  # of f
TRUNCATED = 1e-6  # singular values of G, over the largest
RESTORING, DAMPED, MOST_DAMPED = 100, 1e-4, 1e6  # steps; damping over |G|^2, first and last
RESTORED = 0.9  # of ||c||


@dataclass(frozen=True)
class Moved:
    """Where a filter went: the point, its multipliers, how far along the step (0: by restoration)."""

    point: Point
    lam: Vector
    alpha: float


class Filter:
    """Pairs (||c||, f) that no later point may be worse than in both.

    Parameters
    ----------
    evaluations : the problem
    point : where it begins
    """

    def __init__(self, evaluations: Evaluations, point: Point):
        self.ask = evaluations
        violation = max(1.0, violated(point.c))
        self.highest, self.lowest = HIGHEST * violation, LOWEST * violation
        self.entries: list[tuple[float, float]] = []

    def accepts(self, violation: float, f: float) -> bool:
        """Return whether a pair is better than every entry in one of its numbers."""
        return violation <= self.highest and all(
            violation <= (1 - MARGIN) * v or f <= old - MARGIN * v for v, old in self.entries
        )

    def along(self, point: Point, lam: Vector, step: Step) -> Moved | None:
        """Return where along a step a point is taken; None where none is."""
        violation, descent = violated(point.c), -float(point.g @ step.dx)
        alpha = 1.0
        while alpha > SHORTEST:
            promised = descent > 0 and alpha * descent**POWER_F > violation**POWER_C
            by_f = promised and violation <= self.lowest
            x, values = point.x + alpha * step.dx, None
            for correction in range(1 + (CORRECTIONS if alpha == 1 and len(lam) else 0)):
                if values is not None:
                    x = x - np.linalg.lstsq(point.G, values[1], rcond=None)[0]
                last, values = values, self.ask.values(x)
                if self._takes(point, values, alpha * descent if by_f else 0.0):
                    new = self.ask.point(x, values)
                    if new.finite:
                        if not by_f:
                            self.entries.append((violation, point.f))
                        return Moved(new, steadied(new, lam + alpha * step.dlam), alpha)
                now = violated(values[1])
                worse = last is not None and now > WORTH * violated(last[1])
                if not math.isfinite(now) or worse or (correction == 0 and now < violation):
                    break
            alpha /= 2
        return None

    def _takes(self, point: Point, values: tuple[float, Vector], promised: float) -> bool:
        """Return whether f and c at a trial point will do; promised: of f, 0 where c may serve as well."""
        f, violation = values[0], violated(values[1])
        if not (math.isfinite(f) and math.isfinite(violation) and self.accepts(violation, f)):
            return False
        if promised:
            return f <= point.f - ARMIJO * promised + ROUNDING * abs(point.f)
        before = violated(point.c)
        return violation <= (1 - MARGIN) * before or f <= point.f - MARGIN * before

    def restored(self, point: Point) -> Moved | None:
        """Return a point of smaller ||c|| that is taken; None where ||c|| has a minimum on the way."""
        first = violated(point.c)
        self.entries.append((first, point.f))
        damping = DAMPED
        for _ in range(RESTORING):
            c, G = point.c, point.G
            scale = float(np.abs(G).max(initial=0)) ** 2
            while True:
                normal = G @ G.T + damping * scale * np.eye(len(c))
                x = point.x - G.T @ np.linalg.lstsq(normal, c, rcond=None)[0]
                values = self.ask.values(x)
                if violated(values[1]) <= (1 - ARMIJO) * violated(c):
                    break
                damping *= 10
                if damping > MOST_DAMPED:
                    return None
            damping /= 10
            point = self.ask.point(x, values)
            if not point.finite:
                return None
            if violated(point.c) <= RESTORED * first and self.accepts(violated(point.c), point.f):
                return Moved(point, first_multipliers(point, TRUNCATED), 0.0)
        return None


def violated(c: Vector) -> float:
    """Return ||c||."""
    return float(np.linalg.norm(c))


def steadied(point: Point, lam: Vector) -> Vector:
    """Return the better of two multipliers."""
    other = least_squares_multipliers(point, TRUNCATED)
    return other if point.residual(other) < point.residual(lam) else lam
