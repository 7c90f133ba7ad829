"""Newton's method on the exact augmented Lagrangian as it was published, constants and all.

At (x, lam), with the KKT residual R and Gamma = [[B, G^T], [G, 0]], right side -(g_L, c):

1. the end, "singular", if the least eigenvalue xi_G of G G^T is below `INDEPENDENT`
2. B = H, plus (xi_B + ||H||) I where H is not positive on the kernel of G
3. Psi = 20 max(||B||^2, 1) / (min(xi_G, 1) min(xi_B, 1)),  Ups = max(||G||, ||H||, 1),
   delta = min(delta, (1/2 - beta) eta2 / ((1 + eta1 + eta2) Ups^2 Psi^2)), at least `DELTA_LEAST`
4. sketch and project from where it stands until ||Gamma|| Psi ||Gamma d - right|| <= theta delta ||right||,
   or for `cap` iterations; if d does not descend, grad M . d > -(eta2/2) R^2, then eta1 *= nu^2, eta2 /= nu,
   delta smaller, and on
5. alpha = 1, 1/2, ... until M falls by beta alpha grad M . d; x and lam move together

Norms of matrices are Frobenius's. Penalties and delta are kept from step to step and only sharpened.

Two differences: grad M has the Hessian of L, where the released code has that of f, which is no gradient
unless c is linear; and alpha has a floor, where the code would halve for ever.

Source: Hong, Na, Mahoney, Kolar (ICML 2023, arXiv 2305.18379), and their released code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import qr

from neuralsolve.optimize.kkt import dense
from neuralsolve.optimize.merit import ExactLagrangian
from neuralsolve.optimize.problem import Budget, Evaluations, Matrix, Point, Vector
from neuralsolve.optimize.result import MinimizeStatus
from neuralsolve.optimize.sketch_and_project import SketchAndProject

XI_B, DELTA, NU, THETA = 0.1, 0.1, 1.5, 1.0
INDEPENDENT, POSITIVE, DELTA_LEAST = 1e-2, 1e-6, 1e-6
LARGE, SMALL = 1e8, 1e-8  # of eta1, of eta2: a direction is then taken as it is
CHUNK = 20  # sweeps over all rows between two looks at the accuracy
HALVINGS = 50


class FaithfulNewton:
    """A minimisation; its parts are those of `newton.Newton`.

    Parameters
    ----------
    evaluations : the problem
    inner : Gamma, right side -> what solves it step by step
    start : penalties to begin with
    beta : part of the promised descent that a step must bring
    cap : inner iterations a step
    tol, maxiter : of R, of steps
    told : called with the row of each step; True stops
    """

    def __init__(
        self,
        evaluations: Evaluations,
        inner: Callable[[np.ndarray, Vector], SketchAndProject],
        start: ExactLagrangian,
        beta: float,
        cap: int,
        tol: float,
        maxiter: int,
        told: Callable[[dict[str, Any]], bool],
    ):
        self.ask, self.solver, self.merit, self.beta = evaluations, inner, start, beta
        self.cap, self.tol, self.maxiter, self.told = cap, tol, maxiter, told
        self.point = evaluations.start()
        given = evaluations.first_multipliers()
        self.lam = np.zeros(len(self.point.c)) if given is None else given
        self.delta = DELTA
        self.nit = self.inner = 0
        self.name, self.minimum = "the algorithm as published", None

    def run(self) -> MinimizeStatus:
        """Take steps; return why it ended. `point` and `lam` are what was reached."""
        try:
            while True:
                if self.point.residual(self.lam) <= self.tol:
                    return MinimizeStatus.CONVERGED
                if self.nit >= self.maxiter:
                    return MinimizeStatus.MAX_ITER
                status = self._advance()
                if status is not None:
                    return status
        except Budget:
            return MinimizeStatus.MAX_ITER

    def _advance(self) -> MinimizeStatus | None:
        """Take one step."""
        point, n = self.point, len(self.point.x)
        H, G = dense(self.ask.hessian(point.x, self.lam)), dense(point.G)
        xi = float(np.linalg.eigvalsh(G @ G.T)[0]) if len(G) else 1.0
        if xi < INDEPENDENT:
            return MinimizeStatus.SINGULAR_JACOBIAN
        B = H if _positive_on_kernel(H, G) else H + (XI_B + np.linalg.norm(H)) * np.eye(n)
        before = self.inner
        d, exact = self._direction(H, B, G, xi)
        dx, dlam = d[:n], d[n:]
        slope = self.merit.along(point, self.lam, H, dx, dlam)
        found = self._along(dx, dlam, slope)
        if found is None:
            return MinimizeStatus.LINE_SEARCH_FAILED if exact else MinimizeStatus.INNER_CAP
        alpha, self.point, self.lam = found
        self.nit += 1
        row = {"step_length": alpha, "shift": float(B[0, 0] - H[0, 0]), "eta1": self.merit.eta1}
        row |= {"eta2": self.merit.eta2, "inner": self.inner - before}
        return MinimizeStatus.STOPPED if self.told(row) else None

    def _direction(self, H: Matrix, B: Matrix, G: Matrix, xi: float) -> tuple[Vector, bool]:
        """Return a direction of descent, or the last one tried, and whether it is as exact as was asked."""
        point, lam, n = self.point, self.lam, len(self.point.x)
        Gamma = np.block([[B, G.T], [G, np.zeros((len(G), len(G)))]])
        right = -np.concatenate([point.slope(lam), point.c])
        psi = 20 * max(float(np.linalg.norm(B)) ** 2, 1.0) / (min(xi, 1.0) * min(XI_B, 1.0))
        upsilon = max(float(np.linalg.norm(G)), float(np.linalg.norm(H)), 1.0)
        self._tighten(upsilon, psi, 1.0)
        solver = self.solver(Gamma, right)
        scale = float(np.linalg.norm(right)) / (np.linalg.norm(Gamma) * psi)
        residual = point.residual(lam)
        while True:
            last, asked = solver.iterations + self.cap, THETA * self.delta * scale
            while solver.residual > asked and solver.iterations < last:
                solver.advance(min(CHUNK * len(right), last - solver.iterations))
            d = solver.d
            slope = self.merit.along(point, lam, H, d[:n], d[n:])
            spent = self.merit.eta1 > LARGE or self.merit.eta2 < SMALL
            if spent or self.merit.descends(slope, residual):
                self.inner += solver.iterations
                return d.copy(), bool(solver.residual <= asked)
            self.merit = self.merit.sharpened(NU, square=True)
            self._tighten(upsilon, psi, NU**4)

    def _tighten(self, upsilon: float, psi: float, by: float) -> None:
        """Set the accuracy delta of the inner solver for the penalties at hand."""
        eta1, eta2 = self.merit.eta1, self.merit.eta2
        trial = (0.5 - self.beta) * eta2 / ((1 + eta1 + eta2) * upsilon**2 * psi**2)
        self.delta = max(min(self.delta / by, trial), DELTA_LEAST)

    def _along(self, dx: Vector, dlam: Vector, slope: float) -> tuple[float, Point, Vector] | None:
        here, alpha = self.merit.value(self.point, self.lam), 1.0
        for _ in range(HALVINGS):
            x, lam = self.point.x + alpha * dx, self.lam + alpha * dlam
            values = self.ask.values(x)
            if np.isfinite(values[0]) and np.isfinite(values[1]).all():
                point = self.ask.point(x, values)
                if point.finite and self.merit.value(point, lam) <= here + alpha * self.beta * slope:
                    return alpha, point, lam
            alpha /= 2
        return None


def _positive_on_kernel(H: np.ndarray, G: np.ndarray) -> bool:
    m, n = G.shape
    if m >= n:
        return True
    Q: np.ndarray = np.asarray(qr(G.T)[0]) if m else np.eye(n)
    Z = Q[:, m:]
    return bool(np.linalg.eigvalsh(Z.T @ H @ Z)[0] >= POSITIVE)
