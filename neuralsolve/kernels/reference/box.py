"""Compares a CSR matrix with the stencil of a box, plain torch: the definition."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def csr_box_difference(
    indptr: Tensor,
    indices: Tensor,
    values: Tensor,
    shape: Sequence[int],
    coupling: Tensor,
    ends: Tensor,
    periodic: Tensor,
    centre: float,
    rounding: float,
) -> int:
    """Return a row in which a square CSR matrix differs from the box stencil, -1 where there is none.

    The stencil couples a cell to its neighbours along axis a by -coupling_a; its diagonal is centre, plus
    ends[a, 0] in the first and ends[a, 1] in the last cell along a.

    Parameters
    ----------
    indptr, indices, values : (n + 1,), (nnz,), (nnz,)
        Columns sorted and unique within a row; explicit zeros do not count. As many nonzeros as the stencil
        has: then every entry being one of the stencil's makes the matrix equal to it.
    shape : (nz, ny, nx)
        Sides; periodic ones are 3 or longer.
    coupling : (3,) float64
        0 along a side of one cell.
    ends : (3, 2) float64
    periodic : (3,) bool
    centre : float
    rounding : float
        Tolerance: relative to the coupling off the diagonal, to |centre| + sum |ends| on it.
    """
    rows = torch.repeat_interleave(torch.arange(len(indptr) - 1), torch.diff(indptr))
    columns = indices.long()
    from_cell = torch.unravel_index(rows, tuple(shape))
    to_cell = torch.unravel_index(columns, tuple(shape))
    on_diagonal = (rows == columns).double()
    expected = centre * on_diagonal
    slack = rounding * (abs(centre) + ends.abs().sum()) * on_diagonal
    apart = sum((i != j).int() for i, j in zip(from_cell, to_cell, strict=True))
    for a, (i, j) in enumerate(zip(from_cell, to_cell, strict=True)):
        distance = (i - j).abs()
        near = (distance == 1) | (bool(periodic[a]) & (distance == shape[a] - 1))
        neighbour = (apart == 1) & near
        expected[neighbour] = -coupling[a]
        slack[neighbour] = rounding * coupling[a].abs()
        expected += on_diagonal * ((i == 0) * ends[a, 0] + (i == shape[a] - 1) * ends[a, 1])
    wrong = (values != 0) & ~((values - expected).abs() <= slack)
    return int(rows[wrong][0]) if bool(wrong.any()) else -1
