"""Divergence, gradient and pressure projection on a staggered (MAC) grid.

Velocity lives on faces: ``velocity[a]`` has the shape of the grid, longer by one along axis a; entry i along
that axis is the lower face of cell i (Harlow and Welch 1965; Bridson 2015, chapter 2). Pressure lives in
cells.

A face is *open* where the pressure acts on it: between two FLUID cells, between FLUID and AIR, or between
FLUID and a Dirichlet wall. On the other faces of a fluid cell the normal velocity is prescribed: zero, or an
inflow.

With A = -div grad on the fluid cells (`PoissonStencil`), b = -div u* and u = u* - grad p, *any* p obeys
div u = -(b - A p): what the solver calls its residual is the divergence that is left, and a tolerance on one
is a tolerance on the other. As grad = -div^T on open faces, the step is the orthogonal projection on
divergence-free fields (Chorin 1968): kinetic energy cannot grow.

Unit of p: it stands for dt p / rho, a velocity times a length.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from neuralsolve.errors import ShapeError, SolveError
from neuralsolve.operators.grid import AIR, FLUID, SOLID, Grid

if TYPE_CHECKING:
    from neuralsolve.pde.advection import Velocity

BEYOND = {"neumann": SOLID, "dirichlet": AIR}


class PressureSolver(Protocol):
    """What a projection asks of its solver: `ns.Prepared` has it."""

    def solve(self, b: Any, *, x0: Any = None) -> Any:
        """Return a result with x, converged, iterations and removed."""
        ...


@dataclass(frozen=True)
class Projection:
    """One projected velocity and how it came about.

    Attributes
    ----------
    velocity : tuple of face tensors, divergence-free to the solver's tolerance
    pressure : Tensor (n,), zero outside FLUID
    divergence_before, divergence_after : float
        Largest |div u| over fluid cells (unit 1/time).
    norm_before, norm_after : float
        2-norms of div u over fluid cells: ‖b‖ and the true residual of the solve.
    b : Tensor (n,), the right side -div u*
    seconds : float, wall time of the solve
    result : SolveResult
    """

    velocity: Velocity
    pressure: Tensor
    divergence_before: float
    divergence_after: float
    norm_before: float
    norm_after: float
    b: Tensor
    seconds: float
    result: Any


class MACGrid:
    """Face velocities on a `Grid`.

    Parameters
    ----------
    grid : Grid
    inflow : tuple of face tensors, optional
        Normal velocities on prescribed faces (inflow through a wall, a moving obstacle); zero by default.
        Values on open faces are ignored.

    Attributes
    ----------
    open : tuple of bool face tensors, where the pressure gradient acts
    wet : tuple of bool face tensors, faces with fluid on a side

    Examples
    --------
    >>> import neuralsolve as ns
    >>> mac = MACGrid(ns.Grid((4, 6), walls="neumann"))
    >>> [tuple(u.shape) for u in mac.zeros()]
    [(5, 6), (4, 7)]
    """

    def __init__(self, grid: Grid, inflow: Sequence[Tensor] | None = None):
        self.grid = grid
        self.shape, self.spacing, self.periodic = grid.shape, grid.spacing, grid.periodic
        self.fluid = grid.fluid
        lower, upper = zip(*(self._sides(axis) for axis in range(len(self.shape))), strict=True)
        pairs = list(zip(lower, upper, strict=True))
        self.wet = tuple((low == FLUID) | (high == FLUID) for low, high in pairs)
        self.open = tuple(
            wet & (low != SOLID) & (high != SOLID) for wet, (low, high) in zip(self.wet, pairs, strict=True)
        )
        self.inflow = self._prescribed(inflow)

    def zeros(self) -> Velocity:
        """Return a velocity at rest."""
        return tuple(torch.zeros_like(mask, dtype=torch.float64) for mask in self.open)

    def constrain(self, velocity: Velocity) -> Velocity:
        """Return the velocity with prescribed faces set, faces away from fluid zero, periodic ends equal."""
        kept = []
        for axis, (u, is_open, fixed) in enumerate(zip(velocity, self.open, self.inflow, strict=True)):
            u = torch.where(is_open, u, fixed)
            if self.periodic[axis]:
                u.select(axis, -1).copy_(u.select(axis, 0))
            kept.append(u)
        return tuple(kept)

    def divergence(self, velocity: Velocity) -> Tensor:
        """Return div u in fluid cells, zero elsewhere, of the grid's shape."""
        total = torch.zeros(self.shape, dtype=torch.float64)
        for axis, (u, h) in enumerate(zip(velocity, self.spacing, strict=True)):
            total += u.diff(dim=axis) / h
        return total.masked_fill_(~self.fluid, 0.0)

    def gradient(self, pressure: Tensor) -> Velocity:
        """Return grad p on open faces, zero elsewhere; p ``(n,)`` is 0 in AIR and beyond Dirichlet walls."""
        p = pressure.reshape(self.shape)
        faces = []
        for axis, (is_open, h) in enumerate(zip(self.open, self.spacing, strict=True)):
            first, last = p.narrow(axis, 0, 1), p.narrow(axis, self.shape[axis] - 1, 1)
            before, after = (last, first) if self.periodic[axis] else (torch.zeros_like(first),) * 2
            faces.append(torch.cat([before, p, after], dim=axis).diff(dim=axis).mul_(is_open).div_(h))
        return tuple(faces)

    def energy(self, velocity: Velocity) -> float:
        """Return the sum of u^2 over wet faces, periodic ends once: twice the kinetic energy per cell."""
        total = 0.0
        for axis, (u, wet) in enumerate(zip(velocity, self.wet, strict=True)):
            faces = u.square() * wet
            if self.periodic[axis]:
                faces = faces.narrow(axis, 0, self.shape[axis])
            total += float(faces.sum())
        return total

    def project(self, velocity: Velocity, solver: PressureSolver, *, x0: Tensor | None = None) -> Projection:
        """Return the divergence-free part of a velocity.

        Parameters
        ----------
        velocity : tuple of face tensors
        solver : Prepared
            For `PoissonStencil(grid)`, the same grid.
        x0 : Tensor (n,), optional
            First guess of the pressure, usually the last one.
        """
        starred = self.constrain(velocity)
        b = self.divergence(starred).neg_()
        began = time.perf_counter()
        result = solver.solve(b.reshape(-1), x0=x0)
        seconds = time.perf_counter() - began
        pressure = result.x
        projected = tuple(u - g for u, g in zip(starred, self.gradient(pressure), strict=True))
        left = self.divergence(projected)
        return Projection(
            velocity=projected,
            pressure=pressure,
            divergence_before=float(b.abs().max()),
            divergence_after=float(left.abs().max()),
            norm_before=float(torch.linalg.vector_norm(b)),
            norm_after=float(torch.linalg.vector_norm(left)),
            b=b.reshape(-1),
            seconds=seconds,
            result=result,
        )

    def rounding(self, projection: Projection) -> float:
        """Return a bound for the rounding error in ‖div u‖: 2d differences of u and 4d of p, each to eps."""
        eps = torch.finfo(torch.float64).eps
        pressure = float(projection.pressure.abs().max())
        largest = sum(
            2 * float(u.abs().max()) / h + 4 * pressure / h**2
            for u, h in zip(projection.velocity, self.spacing, strict=True)
        )
        return 4 * eps * largest * float(self.fluid.sum()) ** 0.5

    def check(self, projection: Projection, rtol: float, atol: float = 0.0) -> None:
        """Raise where ‖div u‖ is over max(rtol ‖div u*‖, atol) and rounding does not explain it.

        Raises
        ------
        SolveError
        """
        allowed = max(rtol * projection.norm_before, atol) + self.rounding(projection)
        if projection.norm_after <= allowed:  # false for NaN too
            return
        msg = (
            f"the divergence after the projection is {projection.norm_after:.3e} (2-norm over fluid cells), "
            f"allowed is {allowed:.3e}; the solver removed {float(projection.result.removed):.3e} from b as "
            "unsolvable: a closed region needs inflow and outflow that cancel; give it an open wall "
            '(walls="dirichlet" on a side), else tighten the solve with ns.prepare(A, rtol=...)'
        )
        raise SolveError(msg, projection.result)

    def nearest(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return flat indices that fill solids from the closest place with data.

        The first maps every cell to the nearest one that is not SOLID; the others map every face to the
        nearest one that touches fluid. ``field.reshape(-1)[index]`` extends a field by them, so that
        interpolation beside an obstacle neither eats smoke nor slows the flow along it (Bridson 2015, section
        3.3).
        """
        cells = _closest(self.grid.cells != SOLID)
        return cells, tuple(_closest(wet) for wet in self.wet)

    def _sides(self, axis: int) -> tuple[Tensor, Tensor]:
        """Return the kind of cell on the lower and on the upper side of every face."""
        cells = self.grid.cells
        low, high = self.grid.walls[axis]
        first, last = cells.narrow(axis, 0, 1), cells.narrow(axis, self.shape[axis] - 1, 1)
        if low == "periodic":
            before, after = last, first
        else:
            before, after = torch.full_like(first, BEYOND[low]), torch.full_like(first, BEYOND[high])
        return torch.cat([before, cells], dim=axis), torch.cat([cells, after], dim=axis)

    def _prescribed(self, inflow: Sequence[Tensor] | None) -> Velocity:
        """Keep the given normal velocities on prescribed faces only."""
        if inflow is None:
            return self.zeros()
        for given, is_open in zip(inflow, self.open, strict=True):
            if given.shape != is_open.shape:
                msg = f"inflow is {tuple(given.shape)}, faces are {tuple(is_open.shape)}; start from zeros()"
                raise ShapeError(msg)
        return tuple(
            torch.where(wet & ~is_open, u.to(torch.float64), torch.zeros((), dtype=torch.float64))
            for u, wet, is_open in zip(inflow, self.wet, self.open, strict=True)
        )


def _closest(valid: Tensor) -> Tensor:
    """Return for every place the flat index of the closest valid one, itself where valid."""
    from scipy.ndimage import distance_transform_edt

    own = torch.arange(valid.numel())
    if not bool(valid.any()) or bool(valid.all()):
        return own
    indices = distance_transform_edt(~valid.numpy(), return_distances=False, return_indices=True)
    flat = torch.zeros(valid.shape, dtype=torch.int64)
    for axis_index, n in zip(torch.as_tensor(indices), valid.shape, strict=True):
        flat = flat * n + axis_index
    return flat.reshape(-1)
