"""The levels of geometric multigrid on a grid of cells: made once per geometry, never assembled.

A level is a box of cells with couplings to the lower neighbours and to fixed values (outlets: air, Dirichlet
walls). The level below has one cell per block of two cells along every axis that is coarsened; strongly
anisotropic grids coarsen the axes of strong coupling alone until the others are as strong. A coarse face is
the parallel circuit of the fine faces in it, twice as long; the way to an outlet grows by half of what a cell
does. Sizes, odd ones too, are halved upwards: a block at the wall may hold one layer. Cells that a thin wall
parts from the rest of their block are counted to the next one (`level_attach`).

All numbers are float32, in units of A's mean coupling, so that no spacing leaves their range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from neuralsolve.kernels import table
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.preconditioners.conductors import NO_CONDUCTORS, Conductors, find_conductors, packed

COARSEST = 80  # cells of a level that is solved densely
SMALL = 70_000  # padded cells of the levels that are done by one compiled call
STRONG = 0.3  # of the strongest coupling: an axis weaker than that is not coarsened yet
NO_FACES = torch.empty((4, 0), dtype=torch.float32)
NO_OUTLETS = torch.empty((3, 0), dtype=torch.float32)
NONE_ATTACHED = torch.empty(0, dtype=torch.uint8)
NO_CODE = torch.empty(0, dtype=torch.uint16)
NO_CONDUCTORS_ROW = [0] * 5  # of the table

RANK_TOLERANCE = 1e-12  # of the largest eigenvalue: smaller ones are those of regions without a way out

Sides = tuple[int, int, int]
Couplings = tuple[float, float, float]


@dataclass
class Plan:
    """Shape of a level, the factors by which its axes are coarsened, and what is usual along them.

    Attributes
    ----------
    nominal : usual couplings along z, y, x
    shares : the part of an outlet's coupling that is left where it is seen from a block's centre
    """

    shape: Sides
    factors: Sides
    nominal: Couplings
    shares: Couplings

    @property
    def padded(self) -> Sides:
        """Shape with the layer of cells around the box; none along z in two dimensions."""
        nz, ny, nx = self.shape
        return (nz + 2 if nz > 1 else 1, ny + 2, nx + 2)

    @property
    def size(self) -> int:
        """Cells of the padded box."""
        return int(np.prod(self.padded))


@dataclass
class Level:
    """One level.

    Attributes
    ----------
    inverse : (n,) 1/diagonal, 0 outside the fluid
    faces : (4, n) couplings to the lower neighbours along z, y, x, and to fixed values; (4, 0) where A has
        constant coefficients
    weights : (4, n) bytes, of P: see `kernels.reference.padded`
    b, x, y : (n,) right side, iterate, and room for one more vector
    colors : `inverse` of the red cells and of the black ones, where the smoother wants them
    conductors : whose means are corrected apart; none where A has constant coefficients
    """

    plan: Plan
    inverse: Tensor
    faces: Tensor
    weights: Tensor
    b: Tensor
    x: Tensor
    y: Tensor
    colors: tuple[Tensor, Tensor] | None = None
    conductors: Conductors = NO_CONDUCTORS


@dataclass
class Hierarchy:
    """All levels, the small ones once more as one compiled call takes them, and the solution of the coarsest.

    `table` has one row per small level: its shape, factors and size, and where in `floats` its b, x, y,
    inverse, red, black and faces lie, in `bytes` its weights, in `places` and `numbers` its conductors.
    `inverse` is the pseudo-inverse of the coarsest matrix; `unit` the number that A was divided by, `scale`
    the couplings along z, y, x where they are constant, `spare` room for the outlets of the coarse levels.
    """

    levels: list[Level]
    first_small: int
    floats: Tensor
    bytes: Tensor
    table: Tensor
    places: Tensor
    numbers: Tensor
    unit: float
    scale: tuple[float, float, float]
    periodic: tuple[bool, bool, bool]
    inverse: Tensor
    spare: list[Tensor]


def plan_levels(shape: Sides, nominal: Couplings, coarsest: int, limit: int, strong: float) -> list[Plan]:
    """Return shapes and factors of all levels, the finest first."""
    plans: list[Plan] = []
    width = [1, 1, 1]  # of a cell along every axis, in cells of the finest level
    while True:
        long = [a for a in range(3) if shape[a] > 1]
        strongest = max((nominal[a] for a in long), default=0.0)
        fz, fy, fx = (2 if a in long and nominal[a] >= strong * strongest else 1 for a in range(3))
        # an outlet lies half a cell of the finest level beyond the face: (w + 1)/2 from the centre of a cell
        sz, sy, sx = ((w + 1) / (f * w + 1) for w, f in zip(width, (fz, fy, fx), strict=True))
        plans.append(Plan(shape, (fz, fy, fx), nominal, (sz, sy, sx)))
        if shape[0] * shape[1] * shape[2] <= coarsest or len(plans) == limit or not long:
            return plans
        (nz, ny, nx), (kz, ky, kx), volume = shape, nominal, fz * fy * fx
        shape = -(-nz // fz), -(-ny // fy), -(-nx // fx)
        nominal = kz * volume / fz**2, ky * volume / fy**2, kx * volume / fx**2
        width = [w * f for w, f in zip(width, (fz, fy, fx), strict=True)]


class _Room:
    """Memory for vectors, cut from one piece where `size` is given."""

    def __init__(self, size: int, dtype: type):
        self.all = torch.from_numpy(np.zeros(size, dtype))
        self.used = 0

    def take(self, *shape: int) -> tuple[Tensor, int]:
        """Return a piece, and where it starts."""
        start, n = self.used, int(np.prod(shape))
        self.used += n
        return self.all[start : start + n].view(shape), start


def _allocate(
    plans: list[Plan], constant: bool, colored: bool
) -> tuple[list[Level], int, _Room, _Room, Tensor]:
    """Return levels of zeros, the first small one, and the memory and the table of the small ones."""
    vectors = [4 + 2 * colored + 4 * (k > 0 or not constant) for k in range(len(plans))]
    first_small = next((k for k, plan in enumerate(plans) if plan.size <= SMALL), len(plans) - 1)
    small = range(first_small, len(plans))
    floats = _Room(sum(vectors[k] * plans[k].size for k in small), np.float32)
    weights = _Room(sum(4 * plans[k].size for k in small), np.uint8)
    levels, table_rows = [], []
    for k, plan in enumerate(plans):
        n = plan.size
        numbers = floats if k in small else _Room(vectors[k] * n, np.float32)
        parts = [numbers.take(n) for _ in range(4 + 2 * colored)]
        faces, at = numbers.take(4, n) if vectors[k] > len(parts) else (NO_FACES, -1)
        w, at_w = (weights if k in small else _Room(4 * n, np.uint8)).take(4, n)
        b, x, y, inverse, *colors = (part for part, _ in parts)
        levels.append(Level(plan, inverse, faces, w, b, x, y, (colors[0], colors[1]) if colored else None))
        places = [place for _, place in parts] + ([] if colored else [-1, -1])
        table_rows.append([*plan.shape, *plan.factors, n, *places, at, at_w, *NO_CONDUCTORS_ROW])
    return levels, first_small, floats, weights, torch.tensor(table_rows[first_small:], dtype=torch.int64)


def build(
    A: PoissonStencil,
    coarsest: int = COARSEST,
    limit: int = 40,
    strong: float = STRONG,
    colored: bool = False,
    before: Hierarchy | None = None,
) -> Hierarchy:
    """Make all levels of a stencil.

    Parameters
    ----------
    coarsest : cells at which coarsening stops
    limit : at most so many levels
    strong : an axis is coarsened where its usual coupling is at least so large a part of the strongest
    colored : prepare red-black sweeps
    before : levels made with the same options, whose room is used again where the shapes agree
    """
    usual = _usual_couplings(A)
    unit = max(usual) or 1.0
    z, y, x = (k / unit or 1.0 for k in usual)  # an axis that couples nothing may be coarsened with any other
    nz, ny, nx = A.shape3
    plans = plan_levels((nz, ny, nx), (z, y, x), coarsest, limit, strong)
    missing = 3 - len(A.grid.shape)
    # a side of one cell is its own neighbour across a periodic wall, which couples nothing
    long = [n > 1 for n in A.shape3]
    pz, py, px = (p and n for p, n in zip((False,) * missing + A.grid.periodic, long, strict=True))
    kz, ky, kx = (s / unit if n else 0.0 for s, n in zip(A.scale, long, strict=True))
    if before is not None and _serves(before, plans, (pz, py, px), A):
        inverse = refill(A, before.levels, unit, before.periodic, before.spare)
        h = replace(before, unit=unit, scale=(kz, ky, kx), inverse=inverse)
        return h if A.code is not None else _with_conductors(h)
    levels, first_small, floats, weights, rows = _allocate(plans, A.code is not None, colored)
    spare = [torch.from_numpy(np.zeros((3, plan.size), np.float32)) for plan in plans[1:]]
    inverse = refill(A, levels, unit, (pz, py, px), spare)
    places, numbers, _ = packed([])
    room = floats.all, weights.all, rows, places, numbers
    h = Hierarchy(levels, first_small, *room, unit, (kz, ky, kx), (pz, py, px), inverse, spare)
    return h if A.code is not None else _with_conductors(h)


def _with_conductors(h: Hierarchy) -> Hierarchy:
    """Return the levels with their conductors; the coarsest one, which is solved, wants none."""
    for level in h.levels[:-1]:
        plan = level.plan
        level.conductors = find_conductors(level.faces, level.inverse, plan.nominal, plan.shape, h.periodic)
    places, numbers, rows = packed([level.conductors for level in h.levels[h.first_small :]])
    h.table[:, -rows.shape[1] :] = rows
    return replace(h, places=places, numbers=numbers)


def with_room(h: Hierarchy) -> Hierarchy:
    """Return the same levels with vectors of their own."""
    floats, rows, levels = h.floats.clone(), h.table.clone(), []
    for depth, level in enumerate(h.levels):
        n = level.plan.size
        b, x, y = (
            [torch.from_numpy(np.zeros(n, np.float32)) for _ in range(3)]
            if depth < h.first_small
            else [floats[at : at + n] for at in rows[depth - h.first_small, 7:10].tolist()]
        )
        levels.append(replace(level, b=b, x=x, y=y))
    return replace(h, levels=levels, floats=floats, table=rows)


def _serves(h: Hierarchy, plans: list[Plan], periodic: tuple[bool, bool, bool], A: PoissonStencil) -> bool:
    """Whether the room of a hierarchy fits another operator."""
    same = [level.plan.shape for level in h.levels] == [plan.shape for plan in plans]
    constant = not h.levels[0].faces.numel()
    if not same or h.periodic != periodic or constant != (A.code is not None):
        return False
    for level, plan in zip(h.levels, plans, strict=True):
        level.plan = plan
    return True


def refill(
    A: PoissonStencil, levels: list[Level], unit: float, periodic: tuple[bool, ...], spare: list[Tensor]
) -> Tensor:
    """Fill the levels with the couplings of A; return the inverse of the coarsest matrix."""
    K, scale = table(A.device), tuple(s / unit for s in A.scale)
    finest, outlets = levels[0], NO_OUTLETS
    code = NO_CODE if A.code is None else A.code
    if A.code is not None:
        K.code_level(code, scale, A.shape3, finest.plan.factors, finest.inverse, finest.weights)
        _wrap_all(finest.weights, finest.plan, periodic)
    else:
        outlets = _load_faces(A, finest, unit)
    attached = NONE_ATTACHED
    if A.code is None:
        attached = _finish(finest, levels[1].plan if len(levels) > 1 else None, outlets, periodic)
    for k, (fine, level) in enumerate(pairwise(levels)):
        below = spare[k]
        plan, coarse = fine.plan, level.plan.shape
        given = outlets, attached, plan.shape, plan.factors, plan.shares, coarse
        K.coarse_couplings(code, scale, fine.faces, *given, level.faces, below)
        if len(attached):
            K.coarse_attached(fine.faces, *given, periodic, level.faces, below)
        code, outlets = NO_CODE, below
        attached = _finish(level, levels[k + 2].plan if k + 2 < len(levels) else None, outlets, periodic)
    for level in levels:
        if level.colors is not None:
            _paint(level)
    return _coarsest_inverse(A, levels[-1], unit, periodic)


def _finish(level: Level, below: Plan | None, outlets: Tensor, periodic: tuple[bool, ...]) -> Tensor:
    """Fill what follows from the couplings of a level; return which cells are attached to the next block."""
    K, plan = table(), level.plan
    _wrap_all(level.faces[:3], plan, periodic)
    K.level_diagonal(level.faces, outlets, plan.shape, level.inverse)
    if below is None:
        return NONE_ATTACHED
    attached = torch.from_numpy(np.zeros(plan.size, np.uint8))
    if not K.level_attach(
        level.faces, level.inverse, plan.shape, plan.factors, below.shape, periodic, attached
    ):
        attached = NONE_ATTACHED
    K.level_weights(
        level.faces, outlets, level.inverse, attached, plan.nominal, plan.shape, plan.factors, level.weights
    )
    _wrap_all(level.weights, plan, periodic)
    return attached


def _wrap_all(rows: Tensor, plan: Plan, periodic: tuple[bool, ...]) -> None:
    if any(periodic):
        for row in rows:
            table().level_wrap(row, plan.shape, periodic)


def _usual_couplings(A: PoissonStencil) -> Couplings:
    """Return the mean coupling of neighbours along z, y and x; 1/h^2 where coefficients are constant."""
    if A.coefficients is None:
        return A.scale  # type: ignore[return-value]
    means = [0.0, 0.0, 0.0]
    for axis, row in enumerate(A.faces()[1]):
        count = int(torch.count_nonzero(row)) if A.shape3[axis] > 1 else 0
        means[axis] = float(row.sum()) / count if count else 0.0
    return means[0], means[1], means[2]


def _load_faces(A: PoissonStencil, finest: Level, unit: float) -> Tensor:
    """Fill the couplings of the finest level; return its outlets."""
    K, plan = table(), finest.plan
    outlets = torch.from_numpy(np.zeros((3, plan.size), np.float32))
    for axis, row in enumerate(A.faces()[1]):
        K.level_load(row, 1 / unit, plan.shape, finest.faces[axis])
    missing = 3 - len(A.grid.shape)
    for axis in range(len(A.grid.shape)):
        K.level_load(A.outlets(axis), 1 / unit, plan.shape, outlets[missing + axis])
    return outlets


def _paint(level: Level) -> None:
    """Split 1/diagonal into that of the red cells, z + y + x even, and that of the black ones."""
    assert level.colors is not None
    padded = level.plan.padded
    parity = sum(
        torch.arange(n).view([-1 if a == axis else 1 for a in range(3)]) for axis, n in enumerate(padded)
    )
    red = ((torch.as_tensor(parity) + (padded[0] > 1) * 3) % 2 == 0).reshape(-1)
    level.colors[0].copy_(torch.where(red, level.inverse, 0.0))
    level.colors[1].copy_(torch.where(red, 0.0, level.inverse))


def _coarsest_inverse(A: PoissonStencil, level: Level, unit: float, periodic: tuple[bool, ...]) -> Tensor:
    """Return the pseudo-inverse of the coarsest matrix, float32; singular where a region has no way out."""
    nz, ny, nx = level.plan.shape
    if level.faces.numel():
        dense = torch.zeros((nz * ny * nx,) * 2, dtype=torch.float64)
        table().coarsest_matrix(level.faces, level.plan.shape, periodic, dense)
    else:
        dense = torch.from_numpy(A.to_scipy().toarray()) / unit
    values, vectors = torch.linalg.eigh(dense)
    good = values > RANK_TOLERANCE * values.max().clamp(min=0)
    inverse = (vectors[:, good] / values[good] @ vectors[:, good].T).float().contiguous()
    empty = dense.diagonal() == 0
    inverse[empty], inverse[:, empty] = 0.0, 0.0  # but for rounding, they are
    return inverse
