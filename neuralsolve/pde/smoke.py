"""A smoke plume that rises around an obstacle: the main job.

Problem: du/dt + u . grad u = -grad p + f, div u = 0, dq/dt + u . grad q = source, on a MAC grid; inviscid,
rho = 1, f = buoyancy q upwards plus vorticity confinement (Stam 1999; Fedkiw, Stam and Jensen 2001; Bridson
2015).
Each step: emit smoke; carry velocity and smoke along the divergence-free velocity; add the forces; project.
Cost: one pressure system a step, prepared once because the obstacle stands still, started from the last
pressure.
Stopping rule of the projection: ‖div u‖ <= rtol ‖div u*‖ over fluid cells, checked on the velocity itself.

Lengths are in units of the box width, so the spacing is 1 / nx. Axes run (y, x) or (z, y, x); y is up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from neuralsolve.errors import SolveError
from neuralsolve.kernels.cpu.threads import torch_on_one_thread
from neuralsolve.operators.grid import SOLID, Grid
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.pde.advection import Velocity, advect, courant
from neuralsolve.pde.comparison import OURS, PressureComparison, PressureTiming, TimingTable
from neuralsolve.pde.forces import buoyancy, confinement
from neuralsolve.pde.mac import MACGrid, Projection
from neuralsolve.pde.smoke_case import SmokeCase
from neuralsolve.solvers.solve import prepare
from neuralsolve.tuning.report import TuningReport


@dataclass(frozen=True)
class StepRecord:
    """What happened in one step.

    Attributes
    ----------
    step : int, from 1
    time : float, at its end
    cfl : float, cells crossed in the step along one axis, at most
    divergence_before, divergence_after : float, largest |div u| in a fluid cell, before and after the
    projection
    relative_divergence : float, ‖div u‖/‖div u*‖ over fluid cells: the quantity that rtol bounds
    iterations : int, of the pressure solve
    solve_seconds : float
    mass : float, integral of the density
    energy : float, kinetic energy
    """

    step: int
    time: float
    cfl: float
    divergence_before: float
    divergence_after: float
    relative_divergence: float
    iterations: int
    solve_seconds: float
    mass: float
    energy: float


@dataclass(frozen=True)
class SmokeResult:
    """The last state of a run and its records.

    Attributes
    ----------
    case : SmokeCase
    density : Tensor of the case's shape, in [0, 1], zero in solids
    velocity : tuple of face tensors
    pressure : Tensor of the case's shape
    solid : bool Tensor of the case's shape
    frames : tuple of (time, density)
    records : tuple of StepRecord
    timings : TimingTable
        Ours alone where the comparison was off.
    explanation : str
        What the pressure solver was and why.
    seconds : float
        Wall time of everything but the baselines.
    tuning : TuningReport
        What learners chose, where method or M hold something `Tuned`.
    """

    case: SmokeCase
    density: Tensor
    velocity: Velocity
    pressure: Tensor
    solid: Tensor
    frames: tuple[tuple[float, Tensor], ...]
    records: tuple[StepRecord, ...]
    timings: TimingTable
    explanation: str
    seconds: float
    tuning: TuningReport = field(default_factory=TuningReport)


Progress = Callable[[int, int, StepRecord], object]


class Plume:
    """A running simulation: `advance` makes one step.

    Parameters
    ----------
    case : SmokeCase
    method, M
        As in `ns.prepare`, which chooses CG with `Multigrid`, or `FastPoisson` where there is no obstacle.

    Attributes
    ----------
    density, velocity, pressure : the present state
    mac : MACGrid
    A : PoissonStencil
    prepared : Prepared
    projection : Projection or None, the last one
    setup_seconds : float
        Of the pressure solver; the first projection, which loads or compiles kernels, counts as set-up.
    """

    def __init__(self, case: SmokeCase, method: Any = None, M: Any = None):
        self.case, self.step = case, 0
        grid = case.grid()
        self.mac = MACGrid(grid, _floor_inflow(case, grid))
        self.cells_from, self.faces_from = self.mac.nearest()
        self.source = _source(case) & self.mac.fluid
        self.A = PoissonStencil(grid)
        self.density = torch.zeros(case.shape, dtype=torch.float64)
        self.pressure: Tensor | None = None
        self.projection: Projection | None = None
        generator = torch.Generator().manual_seed(case.seed)
        noise = tuple(
            case.noise * torch.randn(u.shape, dtype=u.dtype, generator=generator) for u in self.mac.zeros()
        )
        began = time.perf_counter()
        self.prepared = prepare(self.A, method, M=M, rtol=case.rtol)
        self.velocity = self.mac.project(noise, self.prepared).velocity
        self.setup_seconds = time.perf_counter() - began

    def advance(self) -> StepRecord:
        """Make one step and return its record.

        Raises
        ------
        SolveError
            If the pressure solve or the divergence misses the tolerance.
        NonFiniteError
            If the velocity is NaN or infinite.
        """
        case, mac = self.case, self.mac
        number = courant(self.velocity, mac.spacing, case.dt)
        with torch_on_one_thread():
            self._emit()
            starred = self._carry()
            self._force(starred)
        projection = mac.project(starred, self.prepared, x0=self.pressure)
        mac.check(projection, case.rtol)
        self._check_bound(projection)
        self.step += 1
        self.velocity, self.projection, self.pressure = projection.velocity, projection, projection.pressure
        cell = math.prod(mac.spacing)
        return StepRecord(
            step=self.step,
            time=self.step * case.dt,
            cfl=number,
            divergence_before=projection.divergence_before,
            divergence_after=projection.divergence_after,
            relative_divergence=projection.norm_after / projection.norm_before
            if projection.norm_before
            else 0.0,
            iterations=projection.result.iterations,
            solve_seconds=projection.seconds,
            mass=float(self.density.sum()) * cell,
            energy=0.5 * mac.energy(self.velocity) * cell,
        )

    def _emit(self) -> None:
        """Let the density in the source approach one: q' = rate (1 - q), exactly over dt."""
        share = -math.expm1(-self.case.source_rate * self.case.dt)
        self.density = torch.where(
            self.source, torch.lerp(self.density, torch.ones(()).double(), share), self.density
        )

    def _carry(self) -> Velocity:
        """Carry density and velocity along the velocity; return the new velocity, before forces."""
        case, mac = self.case, self.mac
        options = {"periodic": mac.periodic, "scheme": case.advection, "cfl": case.cfl}
        flow = tuple(_extend(u, index) for u, index in zip(self.velocity, self.faces_from, strict=True))
        smoke = _extend(self.density, self.cells_from)
        self.density = advect(smoke, flow, case.dt, mac.spacing, **options) * mac.fluid
        return tuple(
            advect(u, flow, case.dt, mac.spacing, face_axis=axis, **options) for axis, u in enumerate(flow)
        )

    def _force(self, starred: Velocity) -> None:
        """Add dt times the forces in place."""
        case, mac = self.case, self.mac
        for u, lift in zip(starred, buoyancy(mac, self.density, case.buoyancy), strict=True):
            u.add_(lift, alpha=case.dt)
        if case.confinement:
            for u, swirl in zip(starred, confinement(mac, self.velocity, case.confinement), strict=True):
                u.add_(swirl, alpha=case.dt)

    def _check_bound(self, projection: Projection) -> None:
        bound = self.case.max_divergence
        if bound is not None and not projection.divergence_after <= bound:
            msg = (
                f"the largest divergence after the projection is {projection.divergence_after:.3e}, "
                f"max_divergence={bound:.3e} was asked for; lower rtol={self.case.rtol:.1e}, it follows"
            )
            raise SolveError(msg, projection.result)


def simulate(
    case: SmokeCase,
    *,
    progress: Progress | None = None,
    compare: bool = True,
    method: Any = None,
    M: Any = None,
) -> SmokeResult:
    """Run a case.

    Parameters
    ----------
    case : SmokeCase
    progress : callable (step, steps, record), optional
        Called after every step.
    compare : bool
        Whether every pressure system is also solved by SciPy's CG and by PyAMG, for the timing table.
    method, M
        As in `Plume`.

    Returns
    -------
    SmokeResult

    Raises
    ------
    SolveError, NonFiniteError
        See `Plume.advance`.

    Examples
    --------
    >>> result = simulate(SmokeCase(shape=(16, 16), steps=3, obstacle="sphere"), compare=False)
    >>> result.records[-1].relative_divergence <= 1e-6
    True
    """
    began = time.perf_counter()
    plume = Plume(case, method, M)
    setup = {OURS: plume.setup_seconds}
    race, away = None, 0.0
    if compare:
        paused = time.perf_counter()
        race = PressureComparison(plume.A, case.rtol)
        setup |= race.setup_seconds
        away += time.perf_counter() - paused
    records, rows, frames = [], [], []
    kept = {math.ceil(case.steps * (i + 1) / case.frames) for i in range(case.frames)}
    for step in range(1, case.steps + 1):
        start = plume.pressure
        record = plume.advance()
        records.append(record)
        paused = time.perf_counter()
        rows += _rows(plume, record, start, race)
        away += time.perf_counter() - paused
        if step in kept:
            frames.append((record.time, plume.density))
        if progress is not None:
            progress(step, case.steps, record)
    return SmokeResult(
        case=case,
        density=plume.density,
        velocity=plume.velocity,
        pressure=torch.zeros(case.shape) if plume.pressure is None else plume.pressure.reshape(case.shape),
        solid=plume.mac.grid.cells == SOLID,
        frames=tuple(frames),
        records=tuple(records),
        timings=TimingTable(tuple(rows), setup),
        explanation=plume.projection.result.explanation if plume.projection else "",
        seconds=time.perf_counter() - began - away,
        tuning=plume.prepared.report(),
    )


def _rows(
    plume: Plume, record: StepRecord, x0: Tensor | None, race: PressureComparison | None
) -> list[PressureTiming]:
    """Return the timing rows of one step: ours, then the baselines on the same b and x0."""
    last = plume.projection
    if last is None:
        return []
    residual = record.relative_divergence if race is None else race.residual(last.pressure, last.b)
    numbers = record.iterations, record.solve_seconds, residual
    ours = PressureTiming(record.step, OURS, *numbers, plume.prepared.chosen)
    return [ours, *([] if race is None else race.solve(record.step, last.b, x0))]


def _extend(field: Tensor, index: Tensor) -> Tensor:
    """Fill solids from the closest place with data (see `MACGrid.nearest`)."""
    return field.reshape(-1).index_select(0, index).view(field.shape)


def _source(case: SmokeCase) -> Tensor:
    """Return the cells of the smoke source: a ball."""
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) / case.shape[-1] for n in case.shape]
    points = torch.meshgrid(*axes, indexing="ij")
    center = case.in_all_axes(case.source_center)
    square = sum((p - c).square() for p, c in zip(points, center, strict=True))
    return torch.as_tensor(square) <= case.source_radius**2


def _floor_inflow(case: SmokeCase, grid: Grid) -> Velocity | None:
    """Return the even inflow through the floor."""
    if not case.inflow:
        return None
    up = len(case.shape) - 2
    faces = MACGrid(grid).zeros()
    faces[up].select(up, 0).fill_(case.inflow)
    return faces
