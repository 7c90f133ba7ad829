"""The levels of geometric multigrid on a grid of cells: made once per geometry, never assembled.

A level is a box of cells with couplings to the lower neighbours and to fixed values (outlets: air, Dirichlet
walls). The level below has one cell per block of two cells along every axis that is coarsened; strongly
anisotropic grids coarsen the axes of strong coupling alone until the others are as strong. A coarse face is
the parallel circuit of the fine faces in it, twice as long; the way to an outlet grows by half of what a cell
does. Sizes, odd ones too, are halved upwards: a block at the wall may hold one layer. Cells that a thin wall
parts from the rest of their block are counted to the next one (`level_attach`).

All numbers are float32, in units of A's mean coupling, so that no spacing leaves their range. Where
coefficients vary the unit is a power of two near that, and an update keeps it: what is the same stays as it
is. An update does the blocks anew of which a coupling has changed, and those that depend on them, told in
spans (`kernels.reference.spans`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.preconditioners.filling import NO_CODE, NO_FACES, NO_SPANS, load, load_faces, refill

COARSEST = 80  # cells of a level that is solved densely
SMALL = 70_000  # padded cells of the levels that are done by one compiled call
STRONG = 0.3  # of the strongest coupling: an axis weaker than that is not coarsened yet

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
    """

    plan: Plan
    inverse: Tensor
    faces: Tensor
    weights: Tensor
    b: Tensor
    x: Tensor
    y: Tensor
    colors: tuple[Tensor, Tensor] | None = None


@dataclass
class Filled:
    """What levels were filled with; one object for all that share them.

    Attributes
    ----------
    leaks : (3, lines) bytes, 0 for lines of the finest level without outlets along an axis
    whole : False while they are being filled, and after a failure
    code : of the operator, held, not copied: it does not change
    key : plans and units; with others, everything is another
    reach : for each level, spans of the one below to which attached cells have added; none without such cells
    """

    leaks: Tensor
    whole: bool = False
    code: Tensor = NO_CODE
    key: object = None
    reach: list[Tensor] = field(default_factory=list)


@dataclass
class Hierarchy:
    """All levels, the small ones once more as one compiled call takes them, and the solution of the coarsest.

    `table` has one row per small level: its shape, factors and size, and where in `floats` its b, x, y,
    inverse, red, black and faces lie, and in `bytes` its weights. `inverse` is the pseudo-inverse of the
    coarsest matrix; `unit` the number that A was divided by, `scale` the couplings along z, y, x where they
    are constant. For updates: `spare` holds the outlets of levels that have couplings, (3, n), and `parts`,
    (2, n) bytes, which of their cells stay in their blocks and which are attached; `filled` what they are of.
    """

    levels: list[Level]
    first_small: int
    floats: Tensor
    bytes: Tensor
    table: Tensor
    unit: float
    scale: tuple[float, float, float]
    periodic: tuple[bool, bool, bool]
    inverse: Tensor
    spare: list[Tensor]
    parts: list[Tensor]
    filled: Filled


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
        table_rows.append([*plan.shape, *plan.factors, n, *places, at, at_w])
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
    missing = 3 - len(A.grid.shape)
    # a side of one cell is its own neighbour across a periodic wall, which couples nothing
    long = [n > 1 for n in A.shape3]
    pz, py, px = (p and n for p, n in zip((False,) * missing + A.grid.periodic, long, strict=True))
    if before is not None and not _fits(before, A, (pz, py, px)):
        before = None
    changed, usual, unit = NO_SPANS, A.scale, max(A.scale) or 1.0
    if A.code is None:
        changed, usual, unit = load(A, before)
    most = max(usual) or 1.0
    z, y, x = (k / most or 1.0 for k in usual)  # an axis that couples nothing may be coarsened with any other
    nz, ny, nx = A.shape3
    plans = plan_levels((nz, ny, nx), (z, y, x), coarsest, limit, strong)
    kz, ky, kx = (s / unit if n else 0.0 for s, n in zip(A.scale, long, strict=True))
    if before is not None and [p.shape for p in plans] == [level.plan.shape for level in before.levels]:
        for level, plan in zip(before.levels, plans, strict=True):
            level.plan = plan
        h = replace(before, unit=unit, scale=(kz, ky, kx))
    else:
        levels, first_small, floats, weights, rows = _allocate(plans, A.code is not None, colored)
        sizes = [plan.size if k or A.code is None else 0 for k, plan in enumerate(plans)]
        spare = [torch.from_numpy(np.zeros((3, n), np.float32)) for n in sizes]
        parts = [torch.from_numpy(np.zeros((2, n), np.uint8)) for n in sizes]
        room, rest = (
            (floats.all, weights.all, rows),
            (NO_FACES, spare, parts, Filled(torch.zeros((3, nz * ny), dtype=torch.uint8))),
        )
        h = Hierarchy(levels, first_small, *room, unit, (kz, ky, kx), (pz, py, px), *rest)
        if A.code is None:
            load_faces(A, unit, h, changed)
    h.inverse = refill(A, h, changed)
    return h


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


def _fits(h: Hierarchy, A: PoissonStencil, periodic: tuple[bool, bool, bool]) -> bool:
    """Whether the finest level of a hierarchy has room for another operator."""
    constant = not h.levels[0].faces.numel()
    return h.levels[0].plan.shape == A.shape3 and h.periodic == periodic and constant == (A.code is not None)
