"""Gauss-Seidel and SOR sweeps, plain torch: the definition.

One sweep visits the rows in an order and sets x_i += omega (b_i - (A x)_i) / A_ii, each row seeing the rows
before it (Saad 2003, sec. 4.1). Rows whose diagonal is zero, or not stored, are left as they are. In matrix
form, with A = D - E - F in the order of the visits, E strictly lower: x_new = x + (D/omega - E)^-1 (b - A x).
The reverse sweep has E and F swapped: for symmetric A it is the adjoint, which is what makes forward, then
reverse (SSOR) a symmetric preconditioner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def _visit(
    rows: Iterable[int],
    indptr: Tensor,
    indices: Tensor,
    values: Tensor,
    omega: float,
    b: Tensor,
    x: Tensor,
) -> None:
    for i in rows:
        entries = slice(int(indptr[i]), int(indptr[i + 1]))
        columns, row = indices[entries].long(), values[entries]
        diagonal = row[columns == i].sum()
        if diagonal != 0:
            x[i] += omega * (b[i] - row @ x[columns]) / diagonal


def csr_sor_sweep(
    indptr: Tensor, indices: Tensor, values: Tensor, omega: float, b: Tensor, x: Tensor, reverse: bool
) -> None:
    """Sweep once over all rows in order, in place; from the last row to the first if `reverse`.

    x is the iterate, (n,) or (n, k) like b.
    """
    n = len(indptr) - 1
    _visit(range(n - 1, -1, -1) if reverse else range(n), indptr, indices, values, omega, b, x)


def csr_color_sweep(
    indptr: Tensor,
    indices: Tensor,
    values: Tensor,
    omega: float,
    b: Tensor,
    x: Tensor,
    color_ptr: Tensor,
    color_rows: Tensor,
    reverse: bool,
) -> None:
    """Sweep once colour by colour, in place; from the last colour to the first if `reverse`.

    Colour c holds the rows color_rows[color_ptr[c]:color_ptr[c + 1]], none coupled to another one of them
    (`csr_coloring`): their order does not matter, and they may be visited at the same time.
    """
    starts, rows = color_ptr.tolist(), color_rows.tolist()
    colors = range(len(starts) - 1)
    for c in reversed(colors) if reverse else colors:
        _visit(rows[starts[c] : starts[c + 1]], indptr, indices, values, omega, b, x)


def _visit_cells(
    cells: Iterable[int],
    diagonal: Tensor,
    lower: Tensor,
    shape: Sequence[int],
    omega: float,
    b: Tensor,
    x: Tensor,
) -> None:
    index = torch.arange(len(diagonal)).reshape(tuple(shape))
    below = [index.roll(1, axis).reshape(-1) for axis in range(3)]
    above = [index.roll(-1, axis).reshape(-1) for axis in range(3)]
    for i in cells:
        if diagonal[i] == 0:
            continue
        residual = b[i] - diagonal[i] * x[i]
        for axis in range(3):
            for j, coupling in (
                (below[axis][i], lower[axis, i]),
                (above[axis][i], lower[axis, above[axis][i]]),
            ):
                if coupling != 0:
                    residual = residual + coupling * x[j]
        x[i] += omega * residual / diagonal[i]


def faces_sor_sweep(
    diagonal: Tensor,
    lower: Tensor,
    shape: Sequence[int],
    omega: float,
    b: Tensor,
    x: Tensor,
    reverse: bool,
) -> None:
    """Sweep once over all cells in C order, in place, with the matrix of `faces_matvec`."""
    n = len(diagonal)
    _visit_cells(range(n - 1, -1, -1) if reverse else range(n), diagonal, lower, shape, omega, b, x)


def faces_redblack_sweep(
    diagonal: Tensor,
    lower: Tensor,
    shape: Sequence[int],
    omega: float,
    b: Tensor,
    x: Tensor,
    reverse: bool,
) -> None:
    """Sweep once over the red cells, z + y + x even, then over the black ones; black first if `reverse`.

    Cells of one colour must not be coupled: periodic sides have to be even, which the caller checks.
    """
    z, y, column = torch.meshgrid(*[torch.arange(side) for side in shape], indexing="ij")
    color = ((z + y + column) % 2).reshape(-1)
    for c in (1, 0) if reverse else (0, 1):
        _visit_cells(torch.nonzero(color == c)[:, 0].tolist(), diagonal, lower, shape, omega, b, x)
