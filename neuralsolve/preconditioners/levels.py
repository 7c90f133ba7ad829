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

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.preconditioners.conductors import NO_CONDUCTORS, Conductors, find_conductors, packed
from neuralsolve.preconditioners.filling import NO_CODE, NO_FACES, NO_SPANS, load, load_faces, refill

COARSEST, LARGEST_COARSEST = 80, 4000  # cells of a level that is solved densely, by default and at most
FINE = 300_000  # padded cells of a level on which conductors are looked for
SIZE, B, X, Y = 6, 7, 8, 9  # columns of the table of levels
NO_CONDUCTORS_ROW = [0] * 5  # of it
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
    """All levels, the vectors on them, and the solution of the coarsest.

    All vectors lie in `vectors`, all numbers of the matrices in `matrices`, as a compiled cycle takes them:
    `table` has one row per level, its shape, factors and size, where in `vectors` its right side b, iterate x
    and one more vector y lie (x and y may change places), where in `matrices` its inverse, red, black and
    faces (-1: none), in `bytes` its weights, in `places` and `numbers` its conductors. `inverse` is the
    pseudo-inverse of the coarsest matrix; `unit` the number that A was divided by, `scale` the couplings
    along z, y, x where they are constant. For updates: `spare` holds the outlets of levels that have
    couplings, (3, n), and `parts`, (2, n) bytes, which of their cells stay in their blocks and which are
    attached; `filled` what they are of.
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
    parts: list[Tensor]
    filled: Filled

    def vector(self, depth: int, column: int) -> Tensor:
        """View b, x or y (columns B, X, Y of the table) of a level."""
        row = self.table.numpy()[depth]
        size, start = int(row[SIZE]), int(row[column])
        return self.vectors.narrow(0, start, size)


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
) -> tuple[list[Level], tuple[Tensor, Tensor, Tensor, Tensor]]:
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
    return levels, (vectors.all, matrices.all, weights.all, torch.tensor(rows, dtype=torch.int64))


def build(
    A: PoissonStencil,
    coarsest: int = COARSEST,
    limit: int = 40,
    strong: float = STRONG,
    colored: bool = False,
    before: Hierarchy | None = None,
    adapt: Callable[[Hierarchy], None] | None = None,
) -> Hierarchy:
    """Make all levels of a stencil.

    Parameters
    ----------
    coarsest : cells at which coarsening stops
    limit : at most so many levels
    strong : an axis is coarsened where its usual coupling is at least so large a part of the strongest
    colored : prepare red-black sweeps
    before : levels made with the same options, whose room is used again where the shapes agree
    adapt : changes the levels when they are filled, before their conductors are looked for
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
        levels, room = _allocate(plans, A.code is not None, colored)
        places, numbers, _ = packed([])
        sizes = [plan.size if k or A.code is None else 0 for k, plan in enumerate(plans)]
        spare = [torch.from_numpy(np.zeros((3, n), np.float32)) for n in sizes]
        parts = [torch.from_numpy(np.zeros((2, n), np.uint8)) for n in sizes]
        filled = Filled(torch.zeros((3, nz * ny), dtype=torch.uint8))
        numbers_of_A = unit, (kz, ky, kx), (pz, py, px), NO_FACES
        h = Hierarchy(levels, *room, places, numbers, *numbers_of_A, spare, parts, filled)
        if A.code is None:
            load_faces(A, unit, h, changed)
    h.inverse = refill(A, h, changed, adapt)
    return h if A.code is not None else _with_conductors(h)


def _with_conductors(h: Hierarchy) -> Hierarchy:
    """Return the levels with their conductors.

    The coarsest one, which is solved, wants none, nor do levels of more than `FINE` cells: those below them
    have enough left to part conductors.
    """
    for level in h.levels[:-1]:
        plan, level.conductors = level.plan, NO_CONDUCTORS
        if plan.size <= FINE:
            given = level.faces, level.inverse, plan.nominal, plan.shape, h.periodic
            level.conductors = find_conductors(*given)
    places, numbers, rows = packed([level.conductors for level in h.levels])
    h.table[:, -rows.shape[1] :] = rows
    return replace(h, places=places, numbers=numbers)


def with_room(h: Hierarchy) -> Hierarchy:
    """Return the same levels with vectors of their own."""
    return replace(h, vectors=torch.from_numpy(np.zeros(len(h.vectors), np.float32)), table=h.table.clone())


def moved(h: Hierarchy, device: torch.device) -> Hierarchy:
    """Return the same levels for cycles on another device, which want no more than what is copied here."""
    parts = h.matrices, h.bytes, h.places, h.numbers, h.inverse
    matrices, weights, places, numbers, inverse = (part.to(device) for part in parts)
    vectors = torch.zeros(len(h.vectors), dtype=h.vectors.dtype, device=device)
    copied = {"matrices": matrices, "bytes": weights, "places": places, "numbers": numbers}
    return replace(h, vectors=vectors, inverse=inverse, **copied)


def _fits(h: Hierarchy, A: PoissonStencil, periodic: tuple[bool, bool, bool]) -> bool:
    """Whether the finest level of a hierarchy has room for another operator."""
    constant = not h.levels[0].faces.numel()
    return h.levels[0].plan.shape == A.shape3 and h.periodic == periodic and constant == (A.code is not None)
