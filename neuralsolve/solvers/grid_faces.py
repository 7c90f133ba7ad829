"""From the couplings and row sums of a matrix on a grid to the `PoissonStencil` that has them.

The mask says which cells are fluid; couplings between fluid cells are given. What is open is how the excess
of a row, its sum, is shared by the faces of its cell towards AIR and Dirichlet walls. Tried are, in order:
the cells and walls of the grid given; those walls Dirichlet, and then those cells AIR, beside which *every*
fluid cell has an excess; and those where one has. The first that explains every excess with one conductance
per axis makes a stencil without face coefficients, which the fastest kernels serve; else the first that has a
face for every excess. In 2D an excess that has none (the shift of an implicit time step) goes to the walls of
a further axis of one cell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralsolve.operators.grid import AIR, SOLID, Grid
from neuralsolve.operators.stencil import PoissonStencil, _face_sides

EXACT = 8 * torch.finfo(torch.float64).eps


class NoStencil(Exception):
    """A matrix is no stencil on the grid; says why."""


@dataclass(frozen=True)
class GridRows:
    """Rows of a matrix with couplings >= 0 and row sums >= 0, on a grid; axes as the grid's.

    Attributes
    ----------
    lower : (axes, n) conductance of the face of two fluid cells, by the upper one; see `csr_grid_rows`
    excess : (n,) row sums of fluid cells, 0 elsewhere
    found : cells with an excess
    extent : (axes, 2) least and largest coupling, (inf, -inf) where no cells couple
    rounding : relative
    """

    lower: Tensor
    excess: Tensor
    found: Tensor
    extent: Tensor
    rounding: float


def stencil_of(rows: GridRows, grid: Grid, hinted: bool) -> PoissonStencil:
    """Return the stencil of the rows; raise NoStencil where there is none.

    Parameters
    ----------
    grid : Grid
        Its fluid cells are those of the rows; the rest of it is taken where the rows agree.
    hinted : bool
        Its spacing and walls were given, not made up.
    """
    coupling = _constants(rows, grid)
    fitting: tuple[Grid, list[Tensor]] | None = None
    for cells, walls in _candidates(rows, grid, hinted):
        candidate = Grid(cells, grid.spacing, walls)
        counts = _air_faces(candidate)
        if coupling is not None and _explains(rows, coupling, counts):
            return PoissonStencil(Grid(cells, _spacing(coupling, grid.spacing), walls))
        if fitting is None and bool(sum(c[rows.found] for c in counts).all()):  # type: ignore[union-attr]
            fitting = candidate, counts
    if fitting is not None:
        return PoissonStencil(fitting[0], _coefficients(rows, *fitting))
    if len(grid.shape) == 2:
        return _shifted(rows, grid, coupling)
    where = tuple(int(i) for i in torch.unravel_index(rows.found[_without_face(rows, grid)], grid.shape))
    msg = (
        f"the row of cell {where} sums to {float(rows.excess.reshape(grid.shape)[where]):.3g}, and only "
        "fluid is around it (the shift of an implicit time step?)"
    )
    raise NoStencil(msg)


def _constants(rows: GridRows, grid: Grid) -> list[float] | None:
    """Return the coupling along each axis where it is constant; None where one varies.

    Of an axis along which no cells couple it follows from the spacing.
    """
    if not bool(
        (rows.extent[:, 1] - rows.extent[:, 0] <= rows.rounding * rows.extent[:, 1])
        .logical_or(torch.isinf(rows.extent[:, 1]))
        .all()
    ):
        return None
    seen = [float(c) if c > 0 else None for c in rows.extent[:, 1].tolist()]
    unit = next((c * h**2 for c, h in zip(seen, grid.spacing, strict=True) if c is not None), 1.0)
    return [unit / h**2 if c is None else c for c, h in zip(seen, grid.spacing, strict=True)]


def _spacing(coupling: list[float], given: tuple[float, ...]) -> list[float]:
    """Return the spacing of which 1/h^2 is the coupling: the one given where it is that."""
    return [
        h if abs(c * h**2 - 1) <= EXACT else 1 / math.sqrt(c) for c, h in zip(coupling, given, strict=True)
    ]


def _candidates(
    rows: GridRows, grid: Grid, hinted: bool
) -> Iterator[tuple[Tensor, Sequence[tuple[str, ...]]]]:
    fluid = grid.fluid
    excess = (rows.excess != 0).reshape(grid.shape)
    around = [_is_periodic(rows, grid, axis) for axis in range(len(grid.shape))]
    if hinted:
        given = [
            ("periodic",) * 2 if p else ("neumann",) * 2 if "periodic" in pair else pair
            for p, pair in zip(around, grid.walls, strict=True)
        ]
        yield grid.cells, given
    clear = fluid & ~excess
    beside_excess, beside_clear = _beside(excess, around), _beside(clear, around)
    for anywhere in (False, True):
        walls: list[tuple[str, ...]] = []
        for axis, p in enumerate(around):
            ends = [(excess.select(axis, i), clear.select(axis, i)) for i in (0, -1)]
            open_ = [bool(e.any()) and (anywhere or not bool(c.any())) for e, c in ends]
            walls.append(("periodic",) * 2 if p else tuple("dirichlet" if o else "neumann" for o in open_))
        if not anywhere:
            yield grid.cells, walls
        air = ~fluid & beside_excess & (beside_excess if anywhere else ~beside_clear)
        yield torch.where(fluid, grid.cells, torch.where(air, AIR, SOLID).to(torch.uint8)), walls


def _is_periodic(rows: GridRows, grid: Grid, axis: int) -> bool:
    side = grid.shape[axis]
    if side <= 2:
        return grid.periodic[axis]
    seam = rows.lower[axis].reshape(grid.shape).select(axis, 0)
    if bool(seam.any()):
        return True
    return grid.periodic[axis] and not bool((grid.fluid.select(axis, 0) & grid.fluid.select(axis, -1)).any())


def _beside(marked: Tensor, around: list[bool]) -> Tensor:
    """Return the cells that have a marked neighbour."""
    out = torch.zeros_like(marked)
    for axis, p in enumerate(around):
        n = marked.shape[axis]
        out.narrow(axis, 1, n - 1).logical_or_(marked.narrow(axis, 0, n - 1))
        out.narrow(axis, 0, n - 1).logical_or_(marked.narrow(axis, 1, n - 1))
        if p:
            out.select(axis, 0).logical_or_(marked.select(axis, -1))
            out.select(axis, -1).logical_or_(marked.select(axis, 0))
    return out


def _air_sides(grid: Grid, axis: int) -> tuple[Tensor, Tensor]:
    """Return, per cell, whether it is FLUID with AIR or a Dirichlet wall below it, and above it."""
    low, high = _face_sides(grid.cells, grid, axis)
    n = grid.shape[axis]
    return grid.fluid & (low.narrow(axis, 0, n) == AIR), grid.fluid & (high.narrow(axis, 1, n) == AIR)


def _air_faces(grid: Grid) -> list[Tensor]:
    """Return, per axis, how many faces of a FLUID cell lead to AIR, ``(n,)``."""
    return [
        sum(side.to(torch.uint8) for side in _air_sides(grid, axis)).reshape(-1)  # type: ignore[union-attr]
        for axis in range(len(grid.shape))
    ]


def _explains(rows: GridRows, coupling: list[float], counts: list[Tensor]) -> bool:
    """Whether every excess is that of the AIR faces of its cell, each of the constant of its axis."""
    if int(torch.count_nonzero(sum(counts))) != len(rows.found):  # type: ignore[arg-type]
        return False
    expected = sum(c[rows.found] * value for c, value in zip(counts, coupling, strict=True))
    slack = rows.rounding * 2 * sum(coupling)
    return bool(((expected - rows.excess[rows.found]).abs() <= slack).all())


def _coefficients(rows: GridRows, grid: Grid, counts: list[Tensor]) -> list[Tensor]:
    """Return face coefficients; the faces of a cell towards AIR share its excess with one coefficient."""
    weight = sum(c.double() / h**2 for c, h in zip(counts, grid.spacing, strict=True))
    share = torch.where(weight == 0, 0.0, rows.excess / weight).reshape(grid.shape)  # type: ignore[arg-type]
    fluid = grid.fluid
    faces = []
    for axis, (n, h) in enumerate(zip(grid.shape, grid.spacing, strict=True)):
        low, _ = _face_sides(grid.cells, grid, axis)
        pair = fluid & (low.narrow(axis, 0, n) == 0)
        if not grid.periodic[axis]:
            pair.select(axis, 0).fill_(False)
        below, above = _air_sides(grid, axis)
        inner = torch.where(pair, rows.lower[axis].reshape(grid.shape) * h**2, torch.where(below, share, 1.0))
        last = inner.select(axis, 0) if grid.periodic[axis] else torch.ones_like(inner.select(axis, 0))
        c = torch.cat([inner, last.unsqueeze(axis)], axis)
        if bool(above.any()):
            upper = c.narrow(axis, 1, n)
            upper.copy_(torch.where(above, share, upper))
        if grid.periodic[axis]:  # AIR across the seam: its face is the first and the last
            ends = c.select(axis, 0), c.select(axis, n)
            ends[0].copy_(torch.where(above.select(axis, -1), ends[1], ends[0]))
            ends[1].copy_(ends[0])
        faces.append(c)
    return faces


def _shifted(rows: GridRows, grid: Grid, coupling: list[float] | None) -> PoissonStencil:
    """Return a 2D stencil whose row sums are Dirichlet walls of a further axis of one cell."""
    around = [_is_periodic(rows, grid, axis) for axis in range(2)]
    walls = [("dirichlet",) * 2, *(("periodic" if p else "neumann",) * 2 for p in around)]
    cells = torch.where(grid.fluid, 0, SOLID).to(torch.uint8)
    shift, count = rows.excess[rows.found], int(grid.fluid.sum())
    if coupling is not None and len(shift) == count:
        low, high = (float(v) for v in shift.aminmax())
        if high - low <= rows.rounding * (high + 2 * sum(coupling)):
            spacing = [math.sqrt(2 / high), *_spacing(coupling, grid.spacing)]
            return PoissonStencil(Grid(cells[None], spacing, walls))
    closed = Grid(cells, grid.spacing, walls[1:])
    faces = _coefficients(
        GridRows(rows.lower, torch.zeros_like(rows.excess), rows.found[:0], rows.extent, rows.rounding),
        closed,
        _air_faces(closed),
    )
    across = (rows.excess / 2).reshape(1, *grid.shape).expand(2, -1, -1).contiguous()
    return PoissonStencil(Grid(cells[None], [1.0, *grid.spacing], walls), [across, *(c[None] for c in faces)])


def _without_face(rows: GridRows, grid: Grid) -> int:
    """Return which of the cells with an excess has only fluid around it."""
    around = [_is_periodic(rows, grid, axis) for axis in range(len(grid.shape))]
    outside = _beside(~grid.fluid, around)
    for axis, p in enumerate(around):
        if not p:
            outside.select(axis, 0).fill_(True)
            outside.select(axis, -1).fill_(True)
    return int((~outside.reshape(-1)[rows.found]).nonzero()[0])
