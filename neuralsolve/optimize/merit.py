"""The exact augmented Lagrangian: one function of x and multipliers whose minima are those of the problem.

    M(x, lam) = f + lam . c + eta1/2 ||c||^2 + eta2/2 ||g_L||^2,       g_L = g + G^T lam
    grad M = (g_L + eta2 H g_L + eta1 G^T c,  c + eta2 G g_L),         H the Hessian of the Lagrangian in x

A step (dx, dlam) of Newton's method descends on M if eta1 is large and eta2 small enough:

    grad M . d <= -(eta2 / 2) ||(g_L, c)||^2                                                            (1)

Source: Hong, Na, Mahoney, Kolar (ICML 2023, arXiv 2305.18379). Their released code has the Hessian of f for
H in grad M; the two agree where c is linear, and this one is the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

from neuralsolve.optimize.problem import Matrix, Point, Vector

MOST, LEAST = 1e10, 1e-10  # of eta1 and eta2: beyond, they drown the function in rounding


@dataclass(frozen=True)
class ExactLagrangian:
    """The merit function M with its two penalties.

    Examples
    --------
    >>> import numpy as np
    >>> point = Point(np.ones(2), 1.0, np.array([2.0]), np.zeros(2), np.ones((1, 2)))
    >>> ExactLagrangian(eta1=1.0, eta2=0.5).value(point, np.array([3.0]))
    13.5
    """

    eta1: float = 1.0
    eta2: float = 0.1

    def value(self, point: Point, lam: Vector) -> float:
        """Return M."""
        slope, c = point.slope(lam), point.c
        return float(point.f + lam @ c + 0.5 * self.eta1 * (c @ c) + 0.5 * self.eta2 * (slope @ slope))

    def gradient(self, point: Point, lam: Vector, H: Matrix) -> tuple[Vector, Vector]:
        """Return the derivatives of M in x and in the multipliers."""
        slope = point.slope(lam)
        in_x = slope + self.eta2 * (H @ slope) + self.eta1 * (point.G.T @ point.c)
        return in_x, point.c + self.eta2 * (point.G @ slope)

    def along(self, point: Point, lam: Vector, H: Matrix, dx: Vector, dlam: Vector) -> float:
        """Return the derivative of M along a step."""
        in_x, in_lam = self.gradient(point, lam, H)
        return float(in_x @ dx + in_lam @ dlam)

    def descends(self, slope: float, residual: float) -> bool:
        """Return whether (1) holds, given the derivative along a step and the KKT residual."""
        return slope <= -0.5 * self.eta2 * residual**2

    @property
    def at_an_end(self) -> bool:
        """Whether the penalties are as far as they go."""
        return self.eta1 > MOST or self.eta2 < LEAST

    def sharpened(self, by: float, square: bool = False) -> ExactLagrangian:
        """Return M with more weight on c and less on g_L; `square`: the first by the square."""
        return ExactLagrangian(self.eta1 * by ** (2 if square else 1), self.eta2 / by)

    def relaxed(self, by: float, start: ExactLagrangian) -> ExactLagrangian:
        """Return M with penalties nearer to those of the start, never beyond."""
        return ExactLagrangian(max(start.eta1, self.eta1 / by), min(start.eta2, self.eta2 * by))
