"""Sequences of related systems A_t x_t = b_t with a number c_t known before each solve, its context.

    ShiftedLaplacian    A_t = L + c_t I, L the 5-point Laplacian of cells x cells interior points, diagonal 4;
                        c_t = low + width Beta(alpha, beta); b_t standard normal, drawn again while
                        ||b_t|| > sqrt(n); context c_t.
    HeatEquation        u_t = k(t) Lap u + f on the unit square, u = 0 around it, by Crank-Nicolson:
                        (I - k_t dt/2 Lap_h) u_t = (I + k_(t-1) dt/2 Lap_h) u_(t-1) + dt/2 (f_(t-1) + f_t),
                        k = max(sin(2 pi t)/10, -10 sin(2 pi t)), f and u_0 bumps; context k_t, x0 = u_(t-1).

Both are the experiments of Khodak, Chow, Balcan and Talwalkar (ICLR 2024, arXiv 2310.02246, sec. 4). `system`
asks for the last solution, which the heat equation needs; the shifted systems do not look at it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil


class Step(NamedTuple):
    """One system: A (n, n), a csr_array or a stencil; b (n,), where to start from, and its context."""

    A: Any
    b: np.ndarray
    x0: np.ndarray | None
    context: float


def laplacian(points: int) -> sp.csr_array:
    """Return minus the 5-point Laplacian of points x points, diagonal 4, in CSR."""
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=(-1, 0, 1), shape=(points, points))  # type: ignore[arg-type]
    eye = sp.eye_array(points)
    matrix = sp.csr_array(sp.kron(line, eye) + sp.kron(eye, line))
    matrix.sort_indices()
    return matrix


@dataclass(frozen=True)
class ShiftedLaplacian:
    """L + c_t I; see the head of this file.

    Parameters
    ----------
    cells : interior points a side
    low, width, alpha, beta : c = low + width Beta(alpha, beta)
    steps, seed : a longer sequence begins like a shorter one of the same seed

    Examples
    --------
    >>> step = ShiftedLaplacian(cells=3, steps=4).system(2, None)
    >>> step.A.shape, bool(step.A.diagonal()[0] == 4 + step.context)
    ((9, 9), True)
    """

    cells: int = 10
    low: float = -0.15
    width: float = 0.6
    alpha: float = 0.5
    beta: float = 1.5
    steps: int = 5000
    seed: int = 1905

    @property
    def size(self) -> int:
        """The number of unknowns."""
        return self.cells**2

    @cached_property
    def contexts(self) -> np.ndarray:
        """The shifts c (steps,)."""
        random = np.random.default_rng([self.seed, 0])
        return self.low + self.width * random.beta(self.alpha, self.beta, size=self.steps)

    @cached_property
    def sides(self) -> np.ndarray:
        """The right sides (steps, n)."""
        return short_normals(np.random.default_rng([self.seed, 1]), self.steps, self.size)

    @cached_property
    def _laplacian(self) -> tuple[sp.csr_array, np.ndarray]:
        """L, and where its diagonal is."""
        L = laplacian(self.cells)
        rows = np.repeat(np.arange(len(L.indptr) - 1), np.diff(L.indptr))
        return L, np.flatnonzero(rows == L.indices)

    def system(self, t: int, x: np.ndarray | None) -> Step:
        """Return system number t, from 0."""
        (L, diagonal), c = self._laplacian, float(self.contexts[t])
        values = L.data.copy()
        values[diagonal] += c
        return Step(sp.csr_array((values, L.indices, L.indptr), shape=L.shape), self.sides[t], None, c)


def short_normals(random: np.random.Generator, count: int, n: int) -> np.ndarray:
    """Draw standard normal rows (count, n), each again while it is longer than sqrt(n)."""
    rows = np.empty((count, n))
    for row in rows:
        while True:
            random.standard_normal(out=row)
            if row @ row <= n:
                break
    return rows


@dataclass(frozen=True)
class HeatEquation:
    """Crank-Nicolson steps of the heat equation; see the head of this file.

    Parameters
    ----------
    cells : a side of the unit square; (cells - 1)^2 unknowns
    dt, steps : of time

    Examples
    --------
    >>> step = HeatEquation(cells=4, steps=2).system(0, None)
    >>> step.A.shape, round(step.context, 6)
    ((9, 9), 0.000628)
    """

    cells: int = 25
    dt: float = 1e-3
    steps: int = 5000

    @property
    def size(self) -> int:
        """The number of unknowns."""
        return (self.cells - 1) ** 2

    @cached_property
    def contexts(self) -> np.ndarray:
        """The conductivities k (steps,)."""
        return self._conductivity(self.dt * np.arange(1, self.steps + 1))

    @staticmethod
    def _conductivity(t: Any) -> Any:
        wave = np.sin(2 * np.pi * t)
        return np.maximum(0.1 * wave, -10 * wave)

    @cached_property
    def _laplacian(self) -> sp.csr_array:
        return laplacian(self.cells - 1)

    @cached_property
    def _axis(self) -> np.ndarray:
        return np.arange(1, self.cells) / self.cells

    def _bump(self, y: float, x: float, radius: float) -> np.ndarray:
        square = (self._axis[:, None] - y) ** 2 + (self._axis - x) ** 2
        with np.errstate(divide="ignore"):
            return np.exp(1 - 1 / (1 - np.minimum(1.0, square / radius**2))).ravel()

    def _forcing(self, t: float) -> np.ndarray:
        angle = 16 * np.pi * t
        return 32 * self._bump(0.5 + np.sin(angle) / 4, 0.5 + np.cos(angle) / 4, 0.125)

    @cached_property
    def initial(self) -> np.ndarray:
        """u_0 (n,)."""
        return self._bump(0.5, 0.5, 0.25)

    def scale(self, k: Any) -> Any:
        """Return what L is multiplied by in A = I + scale L."""
        return k * self.dt / 2 * self.cells**2

    def system(self, t: int, x: np.ndarray | None) -> Step:
        """Return system number t, from 0; x is the solution before it, the initial values for t = 0."""
        u = self.initial if x is None else x
        began, k = t * self.dt, float(self.contexts[t])
        forcing = self._forcing(began) + self._forcing(began + self.dt)
        b = u - self.scale(float(self._conductivity(began))) * (self._laplacian @ u) + self.dt / 2 * forcing
        return Step(self.stencil(k), b, u, k)

    def stencil(self, k: float) -> PoissonStencil:
        """Return I + scale L as a stencil: a Dirichlet wall beside a third axis of one cell adds the I."""
        side, h = self.cells - 1, 1 / math.sqrt(self.scale(k))
        walls = (("dirichlet", "neumann"), "dirichlet", "dirichlet")
        return PoissonStencil(Grid((1, side, side), spacing=(1.0, h, h), walls=walls))

    def matrix(self, k: float) -> sp.csr_array:
        """Return I + scale L in CSR."""
        return sp.csr_array(self.scale(k) * self._laplacian + sp.eye_array(self.size))
