"""Reads a CSR matrix as a stencil on the cells of a grid, plain torch: the definition."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def csr_grid_rows(
    indptr: Tensor,
    indices: Tensor,
    values: Tensor,
    place: Tensor,
    cells: Tensor,
    shape: Sequence[int],
    periodic: Tensor,
    rounding: float,
    lower: Tensor,
    excess: Tensor,
    extent: Tensor,
) -> tuple[int, int]:
    """Sort the entries of a square CSR matrix, whose rows are cells of a grid, by what they are on it.

    The row of a FLUID cell may hold its diagonal, couplings to its neighbours that are FLUID, and entries
    in columns of other cells; that of another cell its diagonal only.

    Parameters
    ----------
    indptr, indices, values : (m + 1,), (nnz,), (nnz,)
        Columns unique within a row; explicit zeros do not count.
    place : (m,) int32
        Cell of every row, each at most once.
    cells : (n,) uint8
        0 is FLUID.
    shape : (nz, ny, nx)
    periodic : (3,) bool
        Whether the first and the last cell of a line are neighbours; a side of 1 has none. On a side of 2
        the one entry is the sum of two couplings, and each is taken to be half of it.
    rounding : float
        A row sum of at most `rounding` times the sum of the absolute values is zero.
    lower : (3, n), zeros on entry
        Minus the entry of a FLUID cell with its lower neighbour along z, y, x; for the first cell of a line
        that with the last.
    excess : (n,), zeros on entry
        Sum of the row of a FLUID cell over FLUID columns; the diagonal of another cell.
    extent : (3, 2) float64, overwritten
        The least and the largest entry of `lower` per axis that stands in the matrix; (inf, -inf) without.

    Returns
    -------
    row : int
        One whose entries are of another kind, and then the outputs are unfinished; -1 where there is none.
    outside : int
        Number of nonzeros of FLUID rows in columns of other cells.
    """
    rows = torch.repeat_interleave(torch.arange(len(indptr) - 1), torch.diff(indptr).long())
    kept = values != 0
    rows, value = rows[kept], values[kept]
    i, j = place[rows].long(), place[indices[kept].long()].long()
    from_fluid, to_fluid, on_diagonal = cells[i] == 0, cells[j] == 0, i == j
    inside = from_fluid & to_fluid
    from_cell, to_cell = torch.unravel_index(i, tuple(shape)), torch.unravel_index(j, tuple(shape))
    apart = sum((p != q).int() for p, q in zip(from_cell, to_cell, strict=True))
    known = on_diagonal | (from_fluid & ~to_fluid)
    for a, side in enumerate(shape):
        step = to_cell[a] - from_cell[a]
        around = bool(periodic[a]) and side > 1
        near = (step.abs() == 1) | ((step.abs() == side - 1) & around)
        neighbour = inside & (apart == 1) & near
        below = neighbour & ((step == -1) | ((step == side - 1) & around))  # both where a side is of 2
        half = 2 if around and side == 2 else 1
        coupling = -value[below].double() / half
        lower[a, i[below]] = coupling.to(lower.dtype)
        found = len(coupling) > 0
        extent[a] = torch.stack(coupling.aminmax()) if found else torch.tensor([math.inf, -math.inf])
        known |= neighbour
    total, size = torch.zeros_like(excess), torch.zeros_like(excess)
    total.index_add_(0, i[inside], value[inside])
    size.index_add_(0, i[inside], value[inside].abs())
    excess += torch.where(total.abs() <= rounding * size, 0.0, total)
    alone = on_diagonal & ~from_fluid
    excess[i[alone]] = value[alone]
    wrong = rows[~known]
    return int(wrong[0]) if len(wrong) else -1, int((from_fluid & ~to_fluid).sum())
