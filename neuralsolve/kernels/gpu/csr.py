"""CSR products in Triton. Definitions and error bounds: `neuralsolve.kernels.reference.csr`.

Rows of much the same length go by tiles of rows, each row's entries side by side on a few lanes (Bell and
Garland 2009, the vector kernel); rows of very different lengths go by equal shares of the entries
(`csr_shares`). Which of the two is decided once per pattern. Sums run in the dtype of `out`.
"""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false
# (what Triton's compiler takes is no Python to it)

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.csr_shares import shares_product, value_at
from neuralsolve.kernels.gpu.launch import block_for, blocks, launch
from neuralsolve.kernels.gpu.patterns import is_regular, lanes_of, transposed
from neuralsolve.kernels.gpu.tiles import new_partials, put_partial, total
from neuralsolve.kernels.gpu.vector import dot

WIDE = 16  # columns of a tile, at most
NUMBERS = 512  # of a tile, at most: with more, registers leave room for few programs at a time


@triton.jit
def entries_of(indptr, row, there, lanes: tl.constexpr):
    """Return the first entry of every row on its lanes, (ROWS, LANES), where they end, and the most turns."""
    start = tl.load(indptr + row, mask=there, other=0).to(tl.int64)
    stop = tl.load(indptr + row + 1, mask=there, other=0).to(tl.int64)
    first = start[:, None] + tl.arange(0, lanes)[None, :]
    return first, stop[:, None], tl.max(stop - start)


@triton.jit
def _rows(
    indptr,
    indices,
    values,
    order,
    x,
    out,
    partial,
    m,
    k,
    DOT: tl.constexpr,
    VALUES: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    COLS: tl.constexpr,
):
    """Multiply a tile of rows, their entries on lanes, by a block of columns."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLS + tl.arange(0, COLS)
    wide = column < k
    first, stop, longest = entries_of(indptr, row, row < m, LANES)
    sums = tl.zeros([ROWS, LANES, COLS], out.dtype.element_ty)
    for turn in range(0, longest, LANES):
        inside = first + turn < stop
        j = tl.load(indices + first + turn, mask=inside, other=0).to(tl.int64)
        v = value_at(values, order, first + turn, inside, VALUES)
        there = inside[:, :, None] & wide[None, None, :]
        u = tl.load(x + j[:, :, None] * k + column[None, None, :], mask=there, other=0.0)
        sums += v[:, :, None] * u
    y = tl.sum(sums, 1)
    at, there = row[:, None] * k + column[None, :], (row < m)[:, None] & wide[None, :]
    tl.store(out + at, y, mask=there)
    if DOT:
        u = tl.load(x + at, mask=there, other=0.0)
        put_partial(tl.sum(u.to(tl.float64) * y.to(tl.float64), 0), partial, column, k)


def product(
    indptr: Tensor,
    indices: Tensor,
    values: Tensor | None,
    x: Tensor,
    out: Tensor,
    order: Tensor | None = None,
    with_dot: bool = False,
) -> Tensor | None:
    """Set out = A x and return x.out if asked.

    The entries are `values`, values[order] where an order is given, or ones where there are none.
    """
    m, k, nnz = len(indptr) - 1, 1 if x.ndim == 1 else x.shape[1], len(indices)
    kind = 2 if values is None else int(order is not None)
    columns = block_for(k, WIDE)
    lanes = block_for(max(1, lanes_of(indptr, nnz) // columns))
    rows = max(1, block_for(m * lanes * columns, NUMBERS) // (lanes * columns))
    given = indptr, indices, values if values is not None else x, order if order is not None else indices
    if not is_regular(indptr, rows, lanes):
        shares_product(*given, x, out, kind)
        return dot(x, out) if with_dot else None
    grid = blocks(m, rows), blocks(k, columns)
    partial = new_partials(grid[0], k, x) if with_dot else out
    constants = {"ROWS": rows, "LANES": lanes, "COLS": columns}
    launch(_rows, grid, *given, x, out, partial, m, k, DOT=with_dot, VALUES=kind, **constants)
    return total(partial, x) if with_dot else None


def csr_matvec(indptr: Tensor, indices: Tensor, values: Tensor, x: Tensor, out: Tensor) -> None:
    """Out = A x; x (n,) or (n, k), out (m,) or (m, k) overwritten."""
    product(indptr, indices, values, x, out)


def csr_matvec_dot(indptr: Tensor, indices: Tensor, values: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """Out = A x for square A; returns x.out, () or (k,)."""
    inner = product(indptr, indices, values, x, out, with_dot=True)
    assert inner is not None
    return inner


def csr_gram(indptr: Tensor, indices: Tensor, values: Tensor, x: Tensor, out: Tensor) -> None:
    """Out = A^T A x; x and out (n, k). The transpose's pattern is made once: no sums by atomic operations."""
    y = torch.empty((len(indptr) - 1, x.shape[1]), dtype=x.dtype, device=x.device)
    product(indptr, indices, values, x, y)
    turned = transposed(indptr, indices, len(x))
    product(turned.indptr, turned.indices, values, y, out, turned.order)


@triton.jit
def _diagonal(indptr, indices, values, out, n, ROWS: tl.constexpr, LANES: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    first, stop, longest = entries_of(indptr, row, row < n, LANES)
    sums = tl.zeros([ROWS, LANES], out.dtype.element_ty)
    for turn in range(0, longest, LANES):
        inside = first + turn < stop
        j = tl.load(indices + first + turn, mask=inside, other=-1)
        sums += tl.load(values + first + turn, mask=inside & (j == row[:, None]), other=0.0)
    tl.store(out + row, tl.sum(sums, 1), mask=row < n)


def csr_diagonal(indptr: Tensor, indices: Tensor, values: Tensor, out: Tensor) -> None:
    """out_i = A_ii, 0 where it is not stored; out (min(m, n),)."""
    n, lanes = len(out), block_for(lanes_of(indptr, len(indices)))
    rows = max(1, block_for(n * lanes, NUMBERS) // lanes)
    launch(_diagonal, (blocks(n, rows),), indptr, indices, values, out, n, ROWS=rows, LANES=lanes)
