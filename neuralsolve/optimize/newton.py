"""Newton's method on the exact augmented Lagrangian, as it serves users: `SketchedNewton()`.

Each step solves the KKT system (`kkt`), finds penalties for which the solution descends on the merit
function M (`merit`), and looks along it for a point

    M(new) <= M + beta alpha (grad M . d),   alpha = 1, 1/2, 1/4, ...,   or   R(new) <= `FAST` R,

R the KKT residual: near a solution the second lets full steps pass that M would cut (Maratos). R falls by a
factor with each of those, so they cannot go on for ever without convergence. A full step that fails is tried
once more with a correction towards c = 0 (second order). Where no point along two ever shorter steps will do,
a filter has its turn (`filter`); where that finds no solution either, M goes on from where it was.

Differs from the source (`faithful`): the shift of H is the least that the inertia of the KKT matrix asks for;
dependent constraints are damped instead of the end; penalties come back towards their first values whenever R
is smaller than ever; after short steps shift and damping grow and after full ones they fall (Levenberg,
Marquardt), so that a step becomes shorter by turning, not by cutting alone.

Sources: Hong, Na, Mahoney, Kolar (ICML 2023, arXiv 2305.18379); Nocedal and Wright, Numerical Optimization
(2006), ch. 18.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from neuralsolve.optimize.filter import TRUNCATED, Filter
from neuralsolve.optimize.kkt import DAMPING, InnerCap, Step, StepFinder, is_minimum
from neuralsolve.optimize.merit import ExactLagrangian
from neuralsolve.optimize.multipliers import first_multipliers, least_squares_multipliers
from neuralsolve.optimize.problem import Budget, Evaluations, Matrix, Point, Vector, finite
from neuralsolve.optimize.result import MinimizeStatus

FAST = 0.9  # of R, that a step may leave to be taken without M
HALVINGS = 30
SHORT = 0.3  # steps below it make the next one more careful
CARE_H, CARE_C, MORE, LESS = 1e-2, 1e-4, 4.0, 10.0  # first shift and damping, over their scales; growth, fall
MOST_CARE = 1e4  # of shift and damping, over their scales
IDLE = 5  # such steps are the end
FAR = 1e8  # times |f(x0)| below zero and ||x0|| from it: on the way to minus infinity
FEW, RETRIES = 2, 12  # of more care where no point along a step is good: before the filter's turn, and after
PATIENCE = 60  # steps of the filter
RELAX = 4.0  # of penalties
SHARPEN = 2.0
STATIONARY = 1e-7  # ||G^T c|| / (||G|| ||c||)
ROUNDING = 1e-14  # of M, or of f
FAILED = (
    MinimizeStatus.LINE_SEARCH_FAILED,
    MinimizeStatus.SINGULAR_JACOBIAN,
)  # ends that a filter goes on from
EXACT = 1e-11  # accuracy of an inexact step at last

Told = Callable[[dict[str, Any]], bool]


class Newton:
    """A minimisation: `run` goes on until there is a reason to stop.

    Parameters
    ----------
    evaluations : the problem
    finder : of steps
    start : penalties to begin with
    beta : part of the promised descent that a step must bring
    tol, maxiter : of R, of steps
    told : called with the row of each step; True stops
    """

    def __init__(
        self,
        evaluations: Evaluations,
        finder: StepFinder,
        start: ExactLagrangian,
        beta: float,
        tol: float,
        maxiter: int,
        told: Told,
    ):
        self.ask, self.finder, self.start, self.beta = evaluations, finder, start, beta
        self.tol, self.maxiter, self.told = tol, maxiter, told
        self.point = evaluations.start()
        given = evaluations.first_multipliers()
        self.lam = first_multipliers(self.point) if given is None else given
        self.merit, self.least, self.first = start, math.inf, self.point
        self.size = max(1.0, float(np.linalg.norm(self.point.x)))
        self.shift = self.damping = 0.0
        self.nit = self.inner = self.idle = 0
        self.minimum: bool | None = None
        self.name = f"Newton's method on the exact augmented Lagrangian, steps by {finder.name}"

    def run(self) -> MinimizeStatus:
        """Take steps; return why it ended. `point` and `lam` are what was reached."""
        self.retries = FEW if self._has_filter else RETRIES
        status = self._until_end(self._advance)
        if status not in FAILED or self.idle >= IDLE or not self._has_filter:
            return status
        there = self.point, self.lam, self.shift, self.damping, self.merit
        self.filter, self.last = Filter(self.ask, self.point), self.nit + PATIENCE
        self.lam, self.idle = first_multipliers(self.point, TRUNCATED), 0
        status = self._until_end(self._advance_by_filter)
        if status in (MinimizeStatus.CONVERGED, MinimizeStatus.STOPPED):
            return status
        (self.point, self.lam, self.shift, self.damping, self.merit), self.idle = there, 0
        self.retries = RETRIES
        return self._until_end(self._advance)

    @property
    def _has_filter(self) -> bool:
        """Whether a filter can go on where M fails: it is for constraints whose Jacobian is dense."""
        return len(self.lam) > 0 and not sp.issparse(self.point.G)

    @property
    def residual(self) -> float:
        """R, of the point that was reached."""
        return self.point.residual(self.lam)

    def _until_end(self, advance: Callable[[], MinimizeStatus | None]) -> MinimizeStatus:
        try:
            while True:
                status = self._ended()
                if status is None:
                    status = advance()
                if status is not None:
                    return status
        except Budget:
            return MinimizeStatus.MAX_ITER
        except InnerCap:
            return MinimizeStatus.INNER_CAP

    def _ended(self) -> MinimizeStatus | None:
        """Return why there is no next step."""
        point, lam = self.point, self.lam
        residual = point.residual(lam)
        if residual > self.tol and not sp.issparse(point.G):
            nearer = least_squares_multipliers(point)
            if point.residual(nearer) <= self.tol:
                self.lam, residual = nearer, point.residual(nearer)
        if residual <= self.tol:
            if not sp.issparse(point.G):
                self.minimum = is_minimum(self.ask.hessian(point.x, self.lam), point.G)
            return MinimizeStatus.CONVERGED
        if point.f < -FAR * max(1.0, abs(self.first.f)) and np.linalg.norm(point.x) > FAR * self.size:
            return MinimizeStatus.UNBOUNDED
        if self.idle >= IDLE:
            return MinimizeStatus.LINE_SEARCH_FAILED
        if stationary_for_constraints(point, STATIONARY) and np.linalg.norm(point.c) > self.tol:
            return MinimizeStatus.INFEASIBLE_STATIONARY
        return MinimizeStatus.MAX_ITER if self.nit >= self.maxiter else None

    def _advance(self) -> MinimizeStatus | None:
        """Take one step."""
        point, lam = self.point, self.lam
        H = self.ask.hessian(point.x, lam)
        if not finite(H):
            return MinimizeStatus.NON_FINITE
        residual = point.residual(lam)
        if residual < self.least:
            self.least, self.merit = residual, self.merit.relaxed(RELAX, self.start)
        for _ in range(self.retries):
            step = self._step(H, residual)
            if step is None:
                return MinimizeStatus.SINGULAR_JACOBIAN
            found = self._along(H, step, residual)
            if found is not None:
                break
            self._care(H, LESS)
        else:
            contradict = stationary_for_constraints(point, math.sqrt(STATIONARY))
            feasible = np.linalg.norm(point.c) <= math.sqrt(self.tol)
            return (
                MinimizeStatus.INFEASIBLE_STATIONARY
                if contradict and not feasible
                else MinimizeStatus.LINE_SEARCH_FAILED
            )
        alpha, self.point, self.lam = found
        self._watch(point, lam, residual)
        if alpha < SHORT:
            self._care(H, MORE)
        elif alpha == 1:
            self._ease(H)
        self.nit += 1
        row = {"step_length": alpha, "shift": step.shift, "eta1": self.merit.eta1, "eta2": self.merit.eta2}
        return MinimizeStatus.STOPPED if self.told(row | {"inner": step.inner}) else None

    def _advance_by_filter(self) -> MinimizeStatus | None:
        """Take one step, or restore."""
        point, lam = self.point, self.lam
        H = self.ask.hessian(point.x, lam)
        if not finite(H):
            return MinimizeStatus.NON_FINITE
        if self.nit >= self.last:
            return MinimizeStatus.LINE_SEARCH_FAILED
        step = self.finder.step(H, point.G, point.slope(lam), point.c, 0.0, 0.0, EXACT)
        moved = None if step is None else self.filter.along(point, lam, step)
        if moved is None:
            if np.linalg.norm(point.c) <= self.tol:
                return MinimizeStatus.LINE_SEARCH_FAILED
            moved = self.filter.restored(point)
        if moved is None:
            return MinimizeStatus.INFEASIBLE_STATIONARY
        self.point, self.lam = moved.point, moved.lam
        same = abs(point.f - moved.point.f) <= 4 * ROUNDING * abs(point.f)
        self.idle = self.idle + 1 if same and self.residual > FAST * point.residual(lam) else 0
        self.nit += 1
        row = {"step_length": moved.alpha, "eta1": self.merit.eta1, "eta2": self.merit.eta2}
        taken = {"shift": step.shift, "inner": step.inner} if step else {"shift": 0.0, "inner": 0}
        return MinimizeStatus.STOPPED if self.told(row | taken) else None

    def _watch(self, point: Point, lam: Vector, residual: float) -> None:
        """Count the steps that brought nothing beyond rounding, one after another."""
        here, new = self.merit.value(point, lam), self.merit.value(self.point, self.lam)
        gained = here - new > 4 * ROUNDING * abs(here) or self.point.residual(self.lam) <= FAST * residual
        self.idle = 0 if gained else self.idle + 1

    def _step(self, H: Matrix, residual: float) -> Step | None:
        """Return a direction that descends on M, whose penalties are sharpened until it does."""
        point, lam = self.point, self.lam
        accuracy = max(min(self.finder.forcing, residual), EXACT)
        while True:
            system = H, point.G, point.slope(lam), point.c
            step = self.finder.step(*system, self.shift, self.damping, accuracy)
            if step is None:
                return None
            self.inner += step.inner
            merit = self.merit
            while not (good := merit.descends(self._slope(merit, H, step), residual)) and not merit.at_an_end:
                merit = merit.sharpened(SHARPEN)
            if good:
                self.merit = merit
                return step
            if self.damping:  # a step that hardly lowers |c| descends for no penalties
                self.damping = 0.0
            elif step.accuracy <= EXACT or step.accuracy > accuracy:
                return step
            else:
                accuracy = max(0.1 * step.accuracy, EXACT)

    def _slope(self, merit: ExactLagrangian, H: Matrix, step: Step) -> float:
        return merit.along(self.point, self.lam, H, step.dx, step.dlam)

    def _along(self, H: Matrix, step: Step, residual: float) -> tuple[float, Point, Vector] | None:
        """Return how far a good point lies along the step, it, and its multipliers."""
        here = self.merit.value(self.point, self.lam)
        slope = self._slope(self.merit, H, step)

        def judged(x: Vector, lam: Vector, alpha: float) -> tuple[Point | None, Vector]:
            """Return the point where it is good, and c there."""
            values = self.ask.values(x)
            if not (math.isfinite(values[0]) and np.isfinite(values[1]).all()):
                return None, values[1]
            point = self.ask.point(x, values)
            descends = self.merit.value(point, lam) <= here + self.beta * alpha * slope + ROUNDING * abs(here)
            good = point.finite and (descends or point.residual(lam) <= FAST * residual)
            return (point if good else None), point.c

        alpha = 1.0
        for _ in range(HALVINGS):
            x, lam = self.point.x + alpha * step.dx, self.lam + alpha * step.dlam
            point, c = judged(x, lam, alpha)
            if point is None and alpha == 1 and step.damping <= DAMPING:
                aside = self._correction(c)
                if aside is not None and np.linalg.norm(aside) <= np.linalg.norm(step.dx):
                    point, _ = judged(x + aside, lam, alpha)
            if point is not None:
                return alpha, point, lam
            alpha /= 2
        return None

    def _correction(self, c: Vector) -> Vector | None:
        """Return the least s with G s = -c: what the curvature of the constraints left over."""
        if not len(c) or sp.issparse(self.point.G) or not np.isfinite(c).all():
            return None
        return -np.linalg.lstsq(self.point.G, c, rcond=None)[0]

    def _care(self, H: Matrix, more: float) -> None:
        """Ask for shorter steps."""
        h, g = self._scales(H)
        self.shift = min(max(more * self.shift, CARE_H * h), MOST_CARE * h)
        self.damping = min(max(more * self.damping, CARE_C * g**2 / h), MOST_CARE * g**2 / h)

    def _ease(self, H: Matrix) -> None:
        """Ask for less care."""
        h, g = self._scales(H)
        self.shift = self.shift / LESS if self.shift > 1e-6 * h else 0.0
        self.damping = self.damping / LESS if self.damping > 1e-8 * g**2 / h else 0.0

    def _scales(self, H: Matrix) -> tuple[float, float]:
        g = float(abs(self.point.G).max()) if len(self.point.c) else 0.0
        return max(float(np.abs(H.diagonal()).max()), 1e-8), max(g, 1e-8)


def stationary_for_constraints(point: Point, bound: float) -> bool:
    """Return whether c cannot be made smaller from here, to first order."""
    c = float(np.linalg.norm(point.c))
    G = float(sp.linalg.norm(point.G) if sp.issparse(point.G) else np.linalg.norm(point.G))
    return c > 0 and float(np.linalg.norm(point.G.T @ point.c)) <= bound * max(G, 1e-300) * c
