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
STRONG = 0.3  # of the strongest coupling: an axis weaker than that is not coarsened yet
SIZE, B, X, Y = 6, 7, 8, 9  # columns of the table of levels
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
    colors : `inverse` of the red cells and of the black ones, where the smoother wants them
    conductors : whose means are corrected apart; none where A has constant coefficients
    """

    plan: Plan
    inverse: Tensor
    faces: Tensor
    weights: Tensor
    colors: tuple[Tensor, Tensor] | None = None
    conductors: Conductors = NO_CONDUCTORS


@dataclass
class Hierarchy:
    """All levels, the vectors on them, and the solution of the coarsest.

    All vectors lie in `vectors`, all numbers of the matrices in `matrices`, as a compiled cycle takes them:
    `table` has one row per level, its shape, factors and size, where in `vectors` its right side b, iterate x and
    one more vector y lie (x and y may change places), where in `matrices` its inverse, red, black and faces (-1:
    none), in `bytes` its weights, in `places` and `numbers` its conductors. `inverse` is the pseudo-inverse of the coarsest matrix; `unit` the
    number that A was divided by, `scale` the couplings along z, y, x where they are constant, `spare` room for the
    outlets of the coarse levels.
    """

    levels: list[Level]
    vectors: Tensor
    matrices: Tensor
    bytes: Tensor
    table: Tensor
    places: Tensor
    numbers: Tensor
    unit: float
    scale: tuple[float, float, float]
    periodic: tuple[bool, bool, bool]
    inverse: Tensor
    spare: list[Tensor]

    def vector(self, depth: int, column: int) -> Tensor:
        """View b, x or y (columns B, X, Y of the table) of a level."""
        row = self.table.numpy()[depth]
        size, start = int(row[SIZE]), int(row[column])
        return self.vectors[start : start + size]


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
) -> tuple[list[Level], Tensor, Tensor, Tensor, Tensor]:
    """Return levels of zeros, the memory that all share, and the table of where they lie in it."""
    with_faces = [k > 0 or not constant for k in range(len(plans))]
    cells = [plan.size for plan in plans]
    rows_of_matrix = [1 + 2 * colored + 4 * has for has in with_faces]
    vectors, weights = _Room(3 * sum(cells), np.float32), _Room(4 * sum(cells), np.uint8)
    matrices = _Room(sum(r * n for r, n in zip(rows_of_matrix, cells, strict=True)), np.float32)
    levels, rows = [], []
    for plan, n, has in zip(plans, cells, with_faces, strict=True):
        places = [vectors.take(n)[1] for _ in range(3)]
        (inverse, *colors), at = zip(*(matrices.take(n) for _ in range(1 + 2 * colored)), strict=True)
        faces, at_faces = matrices.take(4, n) if has else (NO_FACES, -1)
        w, at_w = weights.take(4, n)
        levels.append(Level(plan, inverse, faces, w, (colors[0], colors[1]) if colored else None))
        places += [*at, *([] if colored else [-1, -1]), at_faces, at_w]
        rows.append([*plan.shape, *plan.factors, n, *places, *NO_CONDUCTORS_ROW])
    return levels, vectors.all, matrices.all, weights.all, torch.tensor(rows, dtype=torch.int64)


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
    levels, *room = _allocate(plans, A.code is not None, colored)
    spare = [torch.from_numpy(np.zeros((3, plan.size), np.float32)) for plan in plans[1:]]
    inverse = refill(A, levels, unit, (pz, py, px), spare)
    places, numbers, _ = packed([])
    h = Hierarchy(levels, *room, places, numbers, unit, (kz, ky, kx), (pz, py, px), inverse, spare)
    return h if A.code is not None else _with_conductors(h)


def _with_conductors(h: Hierarchy) -> Hierarchy:
    """Return the levels with their conductors; the coarsest one, which is solved, wants none."""
    for level in h.levels[:-1]:
        plan = level.plan
        level.conductors = find_conductors(level.faces, level.inverse, plan.nominal, plan.shape, h.periodic)
    places, numbers, rows = packed([level.conductors for level in h.levels])
    h.table[:, -rows.shape[1] :] = rows
    return replace(h, places=places, numbers=numbers)


def with_room(h: Hierarchy) -> Hierarchy:
    """Return the same levels with vectors of their own."""
    return replace(h, vectors=torch.from_numpy(np.zeros(len(h.vectors), np.float32)), table=h.table.clone())


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
