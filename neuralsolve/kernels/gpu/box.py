"""How a program walks through a grid: a tile of a plane, plane after plane.

Along the slowest axis with more than one cell a program goes from plane to plane, so that a value is read as
one of the plane above, and kept for its own plane and the plane below; the neighbours within the plane come
from the first cache, and what two runs of planes share from the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.launch import block_for, blocks

CELLS = 512  # numbers of a tile: about the registers that seven neighbours leave room for
LINE = 128  # cells of a tile along x in 3-D, at most
WIDE = 8  # columns of a tile, at most
ENOUGH = 1024  # programs that fill a device: only with more of them does each go through several planes
PLANES = 32  # of a program's run, at most


class Walk(NamedTuple):
    """A grid cut into tiles and runs of planes; a single plane is cut into lines instead."""

    flat: bool
    sides: tuple[int, int, int]
    k: int
    turns: int
    grid: tuple[int, int]
    constants: dict[str, Any]


def walk(shape: Sequence[int], x: Tensor) -> Walk:
    """Cut a grid (nz, ny, nx) for vectors like x, (n,) or (n, k)."""
    nz, ny, nx = (int(side) for side in shape)
    flat, k = nz == 1, 1 if x.ndim == 1 else x.shape[1]
    sides = (ny, 1, nx) if flat else (nz, ny, nx)
    columns = block_for(k, WIDE)
    along = block_for(nx, max(1, block_for(CELLS if flat else LINE, CELLS) // columns))
    lines = block_for(sides[1], max(1, block_for(CELLS, CELLS) // (along * columns)))
    tiles, across = blocks(nx, along) * blocks(sides[1], lines), blocks(k, columns)
    turns = min(max(1, sides[0] * tiles * across // ENOUGH), PLANES)
    turns = 1 << (turns.bit_length() - 1)  # powers of two: few programs to compile
    grid = tiles * blocks(sides[0], turns), across
    constants = {"FLAT": flat, "BY": lines, "BX": along, "COLS": columns}
    return Walk(flat, sides, k, turns, grid, constants | {"num_warps": warps(along * lines * columns)})


def warps(numbers: int) -> int:
    """Return how many warps share a tile: two numbers a thread, so that a warp reads few cache lines."""
    return min(max(1, numbers // 64), 8)


@triton.jit
def columns_of(COLS: tl.constexpr):
    """Return the program's columns, (COLS,)."""
    column = tl.arange(0, COLS)
    if COLS > 1:
        column += tl.program_id(1) * COLS
    return column


@triton.jit
def in_tile(y, x, cell, inside, k, COLS: tl.constexpr):
    """Give cells the shape of a tile's numbers, (T,) or, for several columns, (T, COLS); return a mask too.

    Whatever is read has that shape, what belongs to cells alone too: threads need not exchange numbers then.
    """
    at = cell
    if COLS > 1:
        column = columns_of(COLS)
        y, x, inside = y[:, None], x[:, None], inside[:, None] & (column < k)[None, :]
        cell = cell[:, None] + tl.zeros([1, COLS], tl.int64)
        at = cell * k + column[None, :]
    return y, x, cell, at, inside


@triton.jit
def place(middle, line, k, turns, BY: tl.constexpr, BX: tl.constexpr, COLS: tl.constexpr):
    """Return the program's first plane, its cells' y, x and offsets, its numbers' offsets, and a mask."""
    across = tl.cdiv(line, BX)
    tiles = across * tl.cdiv(middle, BY)
    run, which = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    t = tl.arange(0, BY * BX)
    y = which // across * BY + t // BX
    x = which % across * BX + t % BX
    cell = y.to(tl.int64) * line + x
    y, x, cell, at, there = in_tile(y, x, cell, (y < middle) & (x < line), k, COLS)
    return (run * turns).to(tl.int64), y, x, cell, at, there


@triton.jit
def scalars_of(beta, k, step, COLS: tl.constexpr):
    """Return a method's scalar, (1,), or one for each column, (1, COLS)."""
    column = columns_of(COLS)
    b = tl.load(beta + column * step, mask=column < k, other=0.0)
    if COLS > 1:
        b = b[None, :]
    return b


@triton.jit
def beside(position, side, stride):
    """Offsets of the lower and the upper neighbour along an axis, round the box at its walls; int64."""
    step = tl.cast(stride, tl.int64)
    around = (side - 1) * step
    low = tl.where(position > 0, -step, around)
    high = tl.where(position < side - 1, step, -around)
    return low, high


@triton.jit
def iterate_at(x, p, beta, at, there, DIRECTION: tl.constexpr):
    """Values of x, or of the new direction x + beta p."""
    u = tl.load(x + at, mask=there, other=0.0)
    if DIRECTION:
        u += beta * tl.load(p + at, mask=there, other=0.0)
    return u
