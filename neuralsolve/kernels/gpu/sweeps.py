"""Sweeps in the order of colours, in Triton. Definitions: `neuralsolve.kernels.reference.sweeps`.

One launch per colour: cells or rows of a colour are not coupled, so they go at the same time, in place.
"""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false
# (what Triton's compiler takes is no Python to it)

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.box import CELLS, beside, columns_of, in_tile, warps
from neuralsolve.kernels.gpu.csr import entries_of
from neuralsolve.kernels.gpu.faces import drawn
from neuralsolve.kernels.gpu.launch import block_for, blocks, fp64, launch
from neuralsolve.kernels.gpu.patterns import lanes_of, numbers_of

WIDE = 16  # columns of a tile, at most


@triton.jit
def _relax_rows(
    indptr,
    indices,
    values,
    omega: fp64,
    b,
    x,
    members,
    start,
    count,
    k,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    COLS: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = columns_of(COLS)
    wide = column < k
    row = tl.load(members + start + i, mask=i < count, other=0).to(tl.int64)
    first, stop, longest = entries_of(indptr, row, i < count, LANES)
    products = tl.zeros([ROWS, LANES, COLS], x.dtype.element_ty)
    diagonal = tl.zeros([ROWS, LANES], values.dtype.element_ty)
    for turn in range(0, longest, LANES):
        inside = first + turn < stop
        j = tl.load(indices + first + turn, mask=inside, other=0).to(tl.int64)
        v = tl.load(values + first + turn, mask=inside, other=0.0)
        diagonal += tl.where(j == row[:, None], v, 0.0)
        there = inside[:, :, None] & wide[None, None, :]
        u = tl.load(x + j[:, :, None] * k + column[None, None, :], mask=there, other=0.0)
        products += (v[:, :, None] * u).to(x.dtype.element_ty)
    d = tl.sum(diagonal, 1)[:, None]
    at, there = row[:, None] * k + column[None, :], (i < count)[:, None] & wide[None, :] & (d != 0)
    residual = tl.load(b + at, mask=there, other=0.0) - tl.sum(products, 1)
    step = omega * residual / tl.where(d != 0, d, 1.0)
    tl.store(x + at, tl.load(x + at, mask=there, other=0.0) + step, mask=there)


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

    color_ptr is read once, wherever it lives: the number of launches depends on it.
    """
    starts, k = numbers_of(color_ptr), 1 if x.ndim == 1 else x.shape[1]
    columns = block_for(k, WIDE)
    lanes = block_for(max(1, lanes_of(indptr, len(indices)) // columns))
    rows = max(1, block_for(len(color_rows) * lanes * columns) // (lanes * columns))
    colors = range(len(starts) - 1)
    for c in reversed(colors) if reverse else colors:
        count = starts[c + 1] - starts[c]
        grid = blocks(count, rows), blocks(k, columns)
        given = indptr, indices, values, float(omega), b, x, color_rows, starts[c], count, k
        launch(_relax_rows, grid, *given, ROWS=rows, LANES=lanes, COLS=columns)


@triton.jit
def _relax_cells(
    diagonal,
    lower,
    omega: fp64,
    b,
    x,
    color,
    nz,
    ny,
    nx,
    k,
    BX: tl.constexpr,
    BY: tl.constexpr,
    COLS: tl.constexpr,
):
    """Cells of one colour of a tile of a plane: every second one of a line."""
    across = tl.cdiv(tl.cdiv(nx, 2), BX)
    tiles = across * tl.cdiv(ny, BY)
    z, which = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    t = tl.arange(0, BX * BY)
    y = which // across * BY + t // BX
    line_x = 2 * (which % across * BX + t % BX) + ((z + y + color) & 1)
    cell = (z * ny + y) * nx + line_x
    y, line_x, cell, at, there = in_tile(y, line_x, cell, (y < ny) & (line_x < nx), k, COLS)
    d = tl.load(diagonal + cell, mask=there, other=0.0)
    u = tl.load(x + at, mask=there, other=0.0)
    residual = tl.load(b + at, mask=there, other=0.0) - d * u
    plane = z * 0 + ny * nx
    for axis in tl.static_range(3):
        if axis == 0:
            low, high = beside(z + tl.zeros_like(cell), nz, plane)
        elif axis == 1:
            low, high = beside(y, ny, nx)
        else:
            low, high = beside(line_x, nx, 1)
        coupling = lower + axis * nz * plane
        c = tl.load(coupling + cell, mask=there, other=0.0)
        residual += drawn(c, tl.load(x + at + low * k, mask=there & (c != 0), other=0.0))
        c = tl.load(coupling + cell + high, mask=there, other=0.0)
        residual += drawn(c, tl.load(x + at + high * k, mask=there & (c != 0), other=0.0))
    step = omega * residual / tl.where(d != 0, d, 1.0)
    tl.store(x + at, u + step, mask=there & (d != 0))


def faces_redblack_sweep(
    diagonal: Tensor,
    lower: Tensor,
    shape: Sequence[int],
    omega: float,
    b: Tensor,
    x: Tensor,
    reverse: bool,
) -> None:
    """Sweep once over the red cells, z + y + x even, then over the black ones; black first if `reverse`."""
    nz, ny, nx = (int(side) for side in shape)
    k = 1 if x.ndim == 1 else x.shape[1]
    columns = block_for(k, WIDE)
    along = block_for(blocks(nx, 2), max(1, block_for(CELLS, CELLS) // columns))
    lines = block_for(ny, max(1, block_for(CELLS, CELLS) // (along * columns)))
    grid = nz * blocks(blocks(nx, 2), along) * blocks(ny, lines), blocks(k, columns)
    constants = {"BX": along, "BY": lines, "COLS": columns, "num_warps": warps(along * lines * columns)}
    for color in (1, 0) if reverse else (0, 1):
        given = diagonal, lower, float(omega), b, x, color, nz, ny, nx, k
        launch(_relax_cells, grid, *given, **constants)
