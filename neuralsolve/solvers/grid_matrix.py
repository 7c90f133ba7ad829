"""Reads a CSR matrix from a CFD script, given the mask of its cells, as the stencil that it is.

Its rows are cells in C or Fortran order: all of them, those outside the fluid standing alone (rows of the
identity, or empty), or the fluid ones only, numbered on. One pass, the kernel `csr_grid_rows`, sorts the
entries: minus the entry of two neighbours is the conductance of their face; what a row sums to, its *excess*,
is the conductance towards cells and walls where the value is prescribed. `grid_faces` takes it from there.

Nothing is believed: the stencil is taken only where its product with random vectors agrees with the matrix's,
row by row, to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError, StructureError
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator
from neuralsolve.operators.csr import CSROperator
from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.solvers.grid_faces import GridRows, NoStencil, stencil_of
from neuralsolve.solvers.numbering import Numbering

ROUNDINGS = 64  # as in `recognise`: assembled values differ by a few units of rounding
KINDS = ("FLUID", "SOLID", "AIR")


def read_on_grid(A: LinearOperator, grid: object) -> tuple[PoissonStencil, float, Numbering] | str:
    """Return (stencil, sign, numbering), A = sign * stencil on the fluid rows; or why A is no stencil.

    Parameters
    ----------
    A : CSROperator
    grid : Grid, or its cells

    Raises
    ------
    ShapeError, StructureError, OptionError
        A grid of another size, without fluid, or none at all; an A that is no sparse matrix.

    Examples
    --------
    >>> from neuralsolve.operators.convert import as_operator
    >>> cells = np.array([[0, 0, 1], [0, 0, 0]])
    >>> S = PoissonStencil(Grid(cells, walls="dirichlet")).to_scipy()
    >>> fluid = np.flatnonzero(cells.ravel() == 0)
    >>> stencil, sign, numbering = read_on_grid(as_operator(-S[fluid][:, fluid]), cells)
    >>> stencil.grid.walls, stencil.coefficients, sign, numbering.place.tolist()
    ((('dirichlet', 'dirichlet'), ('dirichlet', 'dirichlet')), None, -1.0, [0, 1, 3, 4, 5])
    """
    known = grid if isinstance(grid, Grid) else Grid(grid)
    if not isinstance(A, CSROperator):
        msg = (
            "grid= says how the rows of a sparse matrix lie on the cells of a grid, and A is a "
            f"{type(A).__name__}; leave grid out, or pass A as a scipy.sparse.csr_array"
        )
        raise OptionError(msg)
    matrix = A.to("cpu", torch.float64)
    rounding = ROUNDINGS * torch.finfo(A.dtype).eps
    why = ""
    for place in _places(A.shape, known):
        try:
            rows, sign, numbering = _read(matrix, known, place, rounding)
            stencil = stencil_of(rows, known, isinstance(grid, Grid))
            _verify(stencil, sign, numbering, rounding)
        except NoStencil as unlike:
            why = why or str(unlike)
        else:
            return stencil, sign, numbering
    return why


def _places(shape: tuple[int, int], grid: Grid) -> Iterator[np.ndarray]:
    """Yield the cell of every row, in C and in Fortran order."""
    fluid = grid.fluid.numpy().ravel()
    count = int(fluid.sum())
    if count == 0:
        msg = (
            f"grid has no FLUID cell among {grid.size}; FLUID is 0: pass np.where(solid, ns.SOLID, ns.FLUID)"
        )
        raise StructureError(msg)
    if shape not in ((grid.size, grid.size), (count, count)):
        msg = (
            f"A is {shape[0]} x {shape[1]}, the grid {grid.shape} has {grid.size} cells, {count} of them "
            "FLUID; A needs a row for each cell or for each FLUID one: pass the cells that A was made from, "
            "or leave grid out"
        )
        raise ShapeError(msg)
    order = np.arange(grid.size, dtype=np.int32)
    yield order if shape[0] == grid.size else order[fluid]
    if sum(side > 1 for side in grid.shape) > 1:
        order = order.reshape(grid.shape).ravel(order="F")
        yield order if shape[0] == grid.size else order[fluid[order]]


def _sort(
    A: CSROperator, grid: Grid, place: np.ndarray, rounding: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return lower, excess, extent and the count outside, see `csr_grid_rows`, with the axes of the grid.

    Raise NoStencil where an entry does not belong.
    """
    missing = 3 - len(grid.shape)
    periodic = [n > 2 or around for n, around in zip(grid.shape, grid.periodic, strict=True)]
    lower = torch.zeros(3, grid.size, dtype=torch.float64)
    excess = torch.zeros(grid.size, dtype=torch.float64)
    extent = torch.empty(3, 2, dtype=torch.float64)
    row, outside = table().csr_grid_rows(
        A.indptr,
        A.indices,
        A.values.detach(),
        torch.from_numpy(place),
        grid.cells.reshape(-1),
        (1,) * missing + grid.shape,
        torch.tensor([False] * missing + periodic),
        rounding,
        lower,
        excess,
        extent,
    )
    if row >= 0:
        raise NoStencil(_describe(A, row, place, grid.cells.reshape(-1)))
    return lower[missing:].numpy(), excess.numpy(), extent[missing:].numpy(), outside


def _read(
    A: CSROperator, grid: Grid, place: np.ndarray, rounding: float
) -> tuple[GridRows, float, Numbering]:
    """Return the rows of A with couplings >= 0, the sign that this took, and where on the grid they are."""
    lower, sums, extent, outside = _sort(A, grid, place, rounding)
    cells = grid.cells.numpy()
    alone = np.flatnonzero(cells.ravel()[place])
    pivots = torch.from_numpy(sums[place[alone]])
    sums[place[alone]] = 0
    low, high = extent[:, 0].min(), extent[:, 1].max()
    if low < 0 < high:
        msg = f"couplings are of both signs, from {low:.3g} to {high:.3g}"
        raise NoStencil(msg)
    found = np.flatnonzero(sums)
    least, most = sums[found].min(initial=0.0), sums[found].max(initial=0.0)
    sign = -1.0 if high < 0 < -low or (high == -np.inf and least < -most) else 1.0
    if sign < 0:
        np.negative(lower, out=lower)
        np.negative(sums, out=sums)
        least, extent = -most, -extent[:, ::-1]
    if least < 0:
        row = int(np.flatnonzero(place == found[sums[found].argmin()])[0])
        msg = f"the diagonal of row {row} is smaller than its couplings by {-least:.3g}"
        raise NoStencil(msg)
    in_order = np.array_equal(place, np.arange(grid.size, dtype=np.int32))
    numbering = Numbering(A, grid.size, None if in_order else place, alone, pivots, outside > 0)
    shape = grid.shape
    read = GridRows(cells, lower.reshape(-1, *shape), sums.reshape(shape), found, extent, rounding)
    return read, sign, numbering


def _describe(A: CSROperator, row: int, place: np.ndarray, cells: Tensor) -> str:
    """Say what is wrong with a row that `csr_grid_rows` refused: it holds a stray column."""
    kind = KINDS[int(cells[int(place[row])])]
    if kind != "FLUID":
        return f"row {row} belongs to a cell that is {kind} and is none of the identity's"
    entries = slice(int(A.indptr[row]), int(A.indptr[row + 1]))
    columns = A.indices[entries][A.values.detach()[entries] != 0].tolist()
    return f"row {row} couples to a cell that is no neighbour (its columns: {str(columns)[1:60].rstrip(']')})"


def _verify(stencil: PoissonStencil, sign: float, numbering: Numbering, rounding: float) -> None:
    """Raise NoStencil unless both have the same product with random vectors: |difference| <= eps |A||x|.

    No entry of the vectors is near zero, so that one wrong entry of A shows whatever the draw; |A||x| is at
    most 1.5 times the absolute row sum, at most twice the diagonal.
    """
    random = np.random.default_rng(577215)
    bound: Any = 3 * rounding * 2 * sum(stencil.scale)
    if stencil.coefficients is not None:
        bound = 3 * rounding * stencil.diagonal().numpy()
    for _ in range(2):
        x = random.random(numbering.matrix.shape[0])
        x += 0.5
        x[::2] *= -1
        v = numbering.to_grid(torch.from_numpy(x))
        x[numbering.alone] = 0
        theirs = numbering.to_grid(numbering.matrix.matvec(torch.from_numpy(x))).numpy()
        difference = stencil.matvec(v).numpy()
        difference *= sign
        difference -= theirs
        worst = np.abs(difference, out=difference)
        bad = worst > bound
        if bad.any():
            cell = int(np.argmax(bad))
            row = cell if numbering.place is None else int(np.flatnonzero(numbering.place == cell)[0])
            msg = (
                f"row {row} of A x differs from the stencil's by {worst[cell]:.3g} for a random x: a "
                "coupling that is not the same in both directions"
            )
            raise NoStencil(msg)
