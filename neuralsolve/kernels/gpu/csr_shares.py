"""CSR products by equal shares of the entries, for rows of very different lengths.

Every program takes as many entries as the others, whatever their rows (Merrill and Garland 2016, with the
entries alone cut evenly), and adds those of a row by a segmented scan. A row that begins in a program's share
is stored by it, as far as it goes; what a share holds of a row begun before is put aside, and added by a
second kernel, in a fixed order: no atomic operations.
"""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false
# (what Triton's compiler takes is no Python to it)

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.launch import block_for, blocks, launch
from neuralsolve.kernels.gpu.patterns import shares_of

WIDE = 8  # columns of a tile, at most


@triton.jit
def value_at(values, order, at, inside, VALUES: tl.constexpr):
    """Return entries by place: of `values` (0), of `values` in another order (1), or ones (2)."""
    if VALUES == 2:
        v = inside.to(tl.float32)
    else:
        if VALUES == 1:
            at = tl.load(order + at, mask=inside, other=0)
        v = tl.load(values + at, mask=inside, other=0.0)
    return v


@triton.jit
def _after(sums, row, other, other_row):
    """Join two runs of entries: the sum of the last row of both, and that row."""
    return other + tl.where(row == other_row, sums, 0.0), other_row


@triton.jit
def _shares(
    indptr,
    indices,
    values,
    order,
    x,
    out,
    heads,
    rows,
    nnz,
    k,
    depth,
    VALUES: tl.constexpr,
    SIZE: tl.constexpr,
    COLS: tl.constexpr,
):
    share = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLS + tl.arange(0, COLS)
    entry = share * SIZE + tl.arange(0, SIZE)
    inside = entry < nnz
    low = tl.zeros([SIZE], tl.int64) + tl.load(rows + share)
    high = tl.zeros([SIZE], tl.int64) + tl.load(rows + share + 1)
    for _ in range(depth):  # the last row that starts at the entry or before
        middle = (low + high + 1) // 2
        before = tl.load(indptr + middle).to(tl.int64) <= entry
        low, high = tl.where(before, middle, low), tl.where(before, high, middle - 1)
    v = value_at(values, order, entry, inside, VALUES)
    j = tl.load(indices + entry, mask=inside, other=0).to(tl.int64)
    there = inside[:, None] & (column < k)[None, :]
    u = tl.load(x + j[:, None] * k + column[None, :], mask=there, other=0.0)
    row = low[:, None] + tl.zeros([SIZE, COLS], tl.int64)
    sums, _ = tl.associative_scan(((v[:, None] * u).to(out.dtype.element_ty), row), 0, _after)
    start = tl.load(indptr + low).to(tl.int64)
    stop = tl.load(indptr + low + 1).to(tl.int64)
    last = (entry + 1 == stop) | (tl.arange(0, SIZE) == SIZE - 1)
    own = start >= share * SIZE
    tl.store(out + row * k + column[None, :], sums, mask=there & (last & own)[:, None])
    head = heads + share * k + column[None, :] + tl.zeros([SIZE, COLS], tl.int64)
    tl.store(head, sums, mask=there & (last & (start < share * SIZE))[:, None])


@triton.jit
def _join(
    crossing,
    first,
    end,
    heads,
    out,
    count,
    k,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    COLS: tl.constexpr,
):
    """Add to rows of several shares what those after the first hold of them."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLS + tl.arange(0, COLS)
    start, stop = tl.load(first + i, mask=i < count, other=0), tl.load(end + i, mask=i < count, other=0)
    sums = tl.zeros([ROWS, LANES, COLS], out.dtype.element_ty)
    for turn in range(0, tl.max(stop - start), LANES):
        share = start[:, None] + turn + tl.arange(0, LANES)[None, :]
        there = (share < stop[:, None])[:, :, None] & (column < k)[None, None, :]
        sums += tl.load(heads + share[:, :, None] * k + column[None, None, :], mask=there, other=0.0)
    row = tl.load(crossing + i, mask=i < count, other=0)
    at, there = row[:, None] * k + column[None, :], (i < count)[:, None] & (column < k)[None, :]
    tl.store(out + at, tl.load(out + at, mask=there) + tl.sum(sums, 1), mask=there)


def shares_product(
    indptr: Tensor, indices: Tensor, values: Tensor, order: Tensor, x: Tensor, out: Tensor, kind: int
) -> None:
    """Set out = A x; `kind` of the entries as in `value_at`."""
    k, nnz = 1 if x.ndim == 1 else x.shape[1], len(indices)
    out.zero_()  # rows without entries are in no share
    columns = block_for(k, WIDE)
    size = max(1, block_for(nnz * columns) // columns)
    shares = shares_of(indptr, nnz, size)
    grid = blocks(nnz, size), blocks(k, columns)
    heads = torch.empty((grid[0], k), dtype=out.dtype, device=out.device)
    given = indptr, indices, values, order, x, out, heads, shares.rows, nnz, k, shares.depth
    launch(_shares, grid, *given, VALUES=kind, SIZE=size, COLS=columns)
    count, lanes = len(shares.crossing), block_for(4)
    rows = max(1, block_for(64) // (lanes * columns))
    given = shares.crossing, shares.first, shares.end, heads, out, count, k
    grid = blocks(count, rows), blocks(k, columns)
    launch(_join, grid, *given, ROWS=rows, LANES=lanes, COLS=columns)
