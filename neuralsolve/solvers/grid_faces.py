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
from dataclasses import dataclass, replace

import numpy as np
import torch

from neuralsolve.operators.grid import AIR, FLUID, SOLID, Grid
from neuralsolve.operators.stencil import PoissonStencil

EXACT = 8 * np.finfo(np.float64).eps

Sides = list[tuple[np.ndarray, np.ndarray]]  # per axis, whether a FLUID cell has AIR below it, and above it
WallPairs = Sequence[tuple[str, ...]]


class NoStencil(Exception):
    """A matrix is no stencil on the grid; says why."""


@dataclass(frozen=True)
class GridRows:
    """Rows of a matrix with couplings >= 0 and row sums >= 0, on a grid; axes as the grid's.

    Attributes
    ----------
    cells : of the grid's shape, uint8
    lower : (axes, *shape) conductance of the face of two fluid cells, by the upper one; see `csr_grid_rows`
    excess : (*shape) row sums of fluid cells, 0 elsewhere
    found : flat numbers of the cells with an excess
    extent : (axes, 2) least and largest coupling, (inf, -inf) where no cells couple
    rounding : relative
    """

    cells: np.ndarray
    lower: np.ndarray
    excess: np.ndarray
    found: np.ndarray
    extent: np.ndarray
    rounding: float

    @property
    def fluid(self) -> np.ndarray:
        """Mask of the fluid cells."""
        return self.cells == FLUID


def stencil_of(rows: GridRows, grid: Grid, hinted: bool) -> PoissonStencil:
    """Return the stencil of the rows; raise NoStencil where there is none.

    Parameters
    ----------
    grid : Grid
        Its fluid cells are those of the rows; the rest of it is taken where the rows agree.
    hinted : bool
        Its spacing and walls were given, not made up.
    """
    around = [_is_periodic(rows, grid, axis) for axis in range(len(grid.shape))]
    coupling, fitting = _constants(rows, grid, around), None
    for cells, walls in _candidates(rows, grid, around, hinted):
        sides = _air_sides(cells, walls)
        counts = [below.view(np.uint8) + above.view(np.uint8) for below, above in sides]
        if coupling is not None and _explains(rows, coupling, counts):
            return PoissonStencil(Grid(cells, _spacing(coupling, grid.spacing), walls))
        if fitting is None and bool(sum(c.ravel()[rows.found] for c in counts).all()):  # type: ignore[union-attr]
            fitting = Grid(cells, grid.spacing, walls), sides
        if fitting is not None and coupling is None:
            break
    if fitting is not None:
        return PoissonStencil(fitting[0], _coefficients(rows, *fitting))
    if len(grid.shape) == 2:
        return _shifted(rows, grid, around, coupling)
    buried = rows.found[~_has_outside(rows, around).ravel()[rows.found]][0]
    msg = (
        f"the row of cell {tuple(int(i) for i in np.unravel_index(buried, grid.shape))} sums to "
        f"{rows.excess.ravel()[buried]:.3g}, and only fluid is around it (a shift, as of an implicit step?)"
    )
    raise NoStencil(msg)


def _constants(rows: GridRows, grid: Grid, around: list[bool]) -> list[float] | None:
    """Return the coupling along each axis where it is constant; None where one varies, or a face is closed.

    Of an axis along which no cells are neighbours it follows from the spacing.
    """
    seen = [None if high < 0 else float(high) for high in rows.extent[:, 1]]
    if any(
        c is not None and c - low > rows.rounding * c for c, low in zip(seen, rows.extent[:, 0], strict=True)
    ):
        return None
    for axis, p in enumerate(around):
        pairs = _shifts(rows.fluid, axis, p)[0] & rows.fluid
        if np.count_nonzero(pairs) != np.count_nonzero(rows.lower[axis]):
            return None
    unit = next((c * h**2 for c, h in zip(seen, grid.spacing, strict=True) if c is not None), 1.0)
    return [unit / h**2 if c is None else c for c, h in zip(seen, grid.spacing, strict=True)]


def _spacing(coupling: list[float], given: tuple[float, ...]) -> list[float]:
    """Return the spacing of which 1/h^2 is the coupling: the one given where it is that."""
    return [
        h if abs(c * h**2 - 1) <= EXACT else 1 / math.sqrt(c) for c, h in zip(coupling, given, strict=True)
    ]


def _is_periodic(rows: GridRows, grid: Grid, axis: int) -> bool:
    if grid.shape[axis] <= 2:
        return grid.periodic[axis]
    if rows.lower[axis].take(0, axis).any():
        return True
    return grid.periodic[axis] and not (rows.fluid.take(0, axis) & rows.fluid.take(-1, axis)).any()


def _candidates(
    rows: GridRows, grid: Grid, around: list[bool], hinted: bool
) -> Iterator[tuple[np.ndarray, WallPairs]]:
    """Yield cells and walls, the likeliest first."""
    if hinted:
        given = (("neumann",) * 2 if "periodic" in pair else pair for pair in grid.walls)
        yield rows.cells, [("periodic",) * 2 if p else pair for p, pair in zip(around, given, strict=True)]
    fluid, excess = rows.fluid, rows.excess != 0
    clear = fluid & ~excess
    for anywhere in (False, True):
        walls: list[tuple[str, ...]] = []
        for axis, p in enumerate(around):
            ends = [(excess.take(end, axis), clear.take(end, axis)) for end in (0, -1)]
            grounded = [bool(e.any()) and (anywhere or not c.any()) for e, c in ends]
            words = tuple("dirichlet" if g else "neumann" for g in grounded)
            walls.append(("periodic",) * 2 if p else words)
        if not anywhere:
            yield rows.cells, walls
        air = ~fluid & _beside(excess, around)
        if not anywhere:
            air &= ~_beside(clear, around)
        yield np.where(fluid, FLUID, np.where(air, AIR, SOLID)).astype(np.uint8), walls


def _at(axis: int, part: int | slice) -> tuple[int | slice, ...]:
    """Return the index of a part along an axis."""
    return (slice(None),) * axis + (part,)


def _shifts(marked: np.ndarray, axis: int, around: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return whether the cell below each cell is marked, and the cell above."""
    below, above = np.zeros_like(marked), np.zeros_like(marked)
    first, last = (_at(axis, part) for part in (slice(1, None), slice(None, -1)))
    below[first], above[last] = marked[last], marked[first]
    if around and marked.shape[axis] > 1:  # else a cell would be its own neighbour
        ends = [_at(axis, end) for end in (0, -1)]
        below[ends[0]], above[ends[1]] = marked[ends[1]], marked[ends[0]]
    return below, above


def _beside(marked: np.ndarray, around: list[bool]) -> np.ndarray:
    """Return the cells that have a marked neighbour."""
    out = np.zeros_like(marked)
    for axis, p in enumerate(around):
        for shifted in _shifts(marked, axis, p):
            out |= shifted
    return out


def _has_outside(rows: GridRows, around: list[bool]) -> np.ndarray:
    """Return the cells beside one that is not fluid, or beside a wall."""
    outside = _beside(~rows.fluid, around)
    for axis, p in enumerate(around):
        if not p:
            for end in (0, -1):
                outside[_at(axis, end)] = True
    return outside


def _air_sides(cells: np.ndarray, walls: WallPairs) -> Sides:
    fluid, air = cells == FLUID, cells == AIR
    sides = []
    for axis, pair in enumerate(walls):
        around = "periodic" in pair
        below, above = _shifts(air, axis, around)
        for side, end, word in ((below, 0, pair[0]), (above, -1, pair[1])):
            if not around:
                side[_at(axis, end)] = word == "dirichlet"
            side &= fluid
        sides.append((below, above))
    return sides


def _explains(rows: GridRows, coupling: list[float], counts: list[np.ndarray]) -> bool:
    """Whether every excess is that of the AIR faces of its cell, each of the constant of its axis."""
    if int(np.count_nonzero(sum(counts))) != len(rows.found):  # type: ignore[arg-type]
        return False
    expected = sum(c.ravel()[rows.found] * value for c, value in zip(counts, coupling, strict=True))
    slack = rows.rounding * 2 * sum(coupling)
    return bool((abs(expected - rows.excess.ravel()[rows.found]) <= slack).all())


def _coefficients(rows: GridRows, grid: Grid, sides: Sides) -> list[torch.Tensor]:
    """Return face coefficients; the AIR faces of a cell share its excess as `_weights` says."""
    weights, total = _weights(rows, grid, sides), np.zeros(grid.shape)
    for pair, weight in zip(sides, weights, strict=True):
        for side, w in zip(pair, weight, strict=True):
            np.add(total, w, out=total, where=side)
    share = np.divide(rows.excess, total, out=np.zeros(grid.shape), where=total > 0)
    faces = []
    for axis, ((below, above), weight, h) in enumerate(zip(sides, weights, grid.spacing, strict=True)):
        n, around = grid.shape[axis], grid.periodic[axis]
        low, high, first, last = (_at(axis, part) for part in (slice(n), slice(1, None), 0, -1))
        c = np.ones([side + (a == axis) for a, side in enumerate(grid.shape)])
        np.multiply(
            rows.lower[axis], h**2, out=c[low], where=_shifts(rows.fluid, axis, around)[0] & rows.fluid
        )
        for part, side, w in ((low, below, weight[0]), (high, above, weight[1])):
            np.multiply(share, w * h**2, out=c[part], where=side)
        if around:  # the end faces are one: that below the first cell, or above the last where that has AIR
            c[first] = np.where(above[last], c[last], c[first])
            c[last] = c[first]
        faces.append(torch.from_numpy(c))
    return faces


def _weights(rows: GridRows, grid: Grid, sides: Sides) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the likely conductances of the lower and the upper faces along each axis, were they AIR faces.

    Inside the grid those of the fluid; at a wall the excess of some cell that has no other AIR face.
    """
    single = sum(side.view(np.uint8) for pair in sides for side in pair) == 1
    weights = []
    for axis, (pair, h) in enumerate(zip(sides, grid.spacing, strict=True)):
        typical = rows.extent[axis, 1] if rows.extent[axis, 1] > 0 else 1 / h**2
        along = []
        for side, end in zip(pair, (0, -1), strict=True):
            layers = np.full([n if a == axis else 1 for a, n in enumerate(grid.shape)], typical)
            alone = rows.excess[_at(axis, end)][(single & side)[_at(axis, end)]]
            if not grid.periodic[axis] and alone.any():
                layers[_at(axis, end)] = alone.max()
            along.append(layers)
        weights.append(tuple(along))
    return weights


def _shifted(rows: GridRows, grid: Grid, around: list[bool], coupling: list[float] | None) -> PoissonStencil:
    """Return a 2D stencil whose row sums are Dirichlet walls of a further axis of one cell."""
    walls = [("periodic" if p else "neumann",) * 2 for p in around]
    cells = np.where(rows.fluid, FLUID, SOLID).astype(np.uint8)
    low, high = float(rows.excess[rows.fluid].min()), float(rows.excess.max())
    within = [("dirichlet", "dirichlet"), *walls]
    if coupling is not None and high - low <= rows.rounding * (high + 2 * sum(coupling)):
        spacing = [math.sqrt(2 / high), *_spacing(coupling, grid.spacing)]
        return PoissonStencil(Grid(cells[None], spacing, within))
    closed = replace(rows, excess=np.zeros_like(rows.excess))
    faces = _coefficients(closed, Grid(cells, grid.spacing, walls), _air_sides(cells, walls))
    across = torch.from_numpy(np.stack([rows.excess / 2] * 2))
    return PoissonStencil(
        Grid(cells[None], [1.0, *grid.spacing], within), [across, *(c[None] for c in faces)]
    )
