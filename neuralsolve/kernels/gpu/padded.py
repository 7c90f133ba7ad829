"""Cells of a padded level for CUDA: where they lie, and vectors in and out of them.

Definitions and the layout: `neuralsolve.kernels.reference.padded`. A program does a tile of some lines of the
box by some cells along x, so that neighbouring lanes read neighbouring cells. Lines of nx + 2 numbers begin
at any multiple of 4 bytes: loads are of one number a lane, 128 bytes a warp.

Sides of a box are arguments that Triton does not specialise, and tiles have few widths: levels of all sizes
share a few compiled programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.launch import block_for, blocks, fp64, launch
from neuralsolve.kernels.reference.padded import LARGE

TILE = 512  # cells of a program
WIDTHS = (128, 64, 32)  # of a tile
PARTS = 512  # programs that look for the largest entry
EXPONENT, ONE, MOST = 52, 1023, 1000  # of a float64: first bit, that of one, and of a size, at most
SIDES = ["nz", "ny", "nx"]

Shape = Sequence[int]


def tiles(shape: Shape, factor: int = 1) -> tuple[tuple[int], dict[str, int]]:
    """Return the grid of programs and a tile's sides, over lines of `factor` cells for each one of a box."""
    nz, ny, nx = shape
    nx *= factor
    width = min(WIDTHS, key=lambda width: -(-nx // width) * width)
    width = block_for(width)
    lines = block_for(TILE // width)
    return (blocks(nz * ny, lines) * blocks(nx, width),), {"LINES": lines, "WIDTH": width}


def sides_of(shape: Shape) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Return the sides of a box, and whether it has three dimensions, as kernels take them."""
    return tuple(int(n) for n in shape), {"DEEP": int(shape[0]) > 1}


@triton.jit
def cells_of_tile(ny, nx, LINES: tl.constexpr, WIDTH: tl.constexpr):
    """Return z, y (lines, 1) and x (1, width) of a program's cells; those beyond the box come along."""
    across = tl.cdiv(nx, WIDTH)
    program = tl.program_id(0)
    line = (program // across) * LINES + tl.arange(0, LINES)[:, None]
    return line // ny, line % ny, (program % across) * WIDTH + tl.arange(0, WIDTH)[None, :]


@triton.jit
def place_of(z, y, x, ny, nx, DEEP: tl.constexpr):
    """Return where cells lie in a padded vector."""
    line = (y + 1).to(tl.int64)
    if DEEP:
        line += (z + 1).to(tl.int64) * (ny + 2)
    return line * (nx + 2) + (x + 1)


@triton.jit
def size_of(nz, ny, nx, DEEP: tl.constexpr):
    """Return the number of entries of a padded vector."""
    return (nz.to(tl.int64) + 2 * DEEP) * (ny + 2) * (nx + 2)


@triton.jit
def around_end(c, n, WRAP: tl.constexpr):
    """Return positions along an axis; what lies one beyond its ends comes in at the other, if it wraps."""
    if WRAP:
        c = tl.where(c < 0, n - 1, tl.where(c >= n, 0, c))
    return c


@triton.jit(do_not_specialize=[*SIDES])
def _load(
    v,
    size,
    scale: fp64,
    out,
    nz,
    ny,
    nx,
    SIZED: tl.constexpr,
    DEEP: tl.constexpr,
    LINES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    z, y, x = cells_of_tile(ny, nx, LINES, WIDTH)
    there = (z < nz) & (x < nx)
    flat = (z.to(tl.int64) * ny + y) * nx + x
    if SIZED:
        scale = scale / tl.load(size)
    value = scale * tl.load(v + flat, mask=there).to(tl.float64)
    tl.store(out + place_of(z, y, x, ny, nx, DEEP), value.to(tl.float32), mask=there)


@triton.jit(do_not_specialize=[*SIDES])
def _store(
    x,
    size,
    scale: fp64,
    out,
    nz,
    ny,
    nx,
    SIZED: tl.constexpr,
    DEEP: tl.constexpr,
    LINES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    z, y, c = cells_of_tile(ny, nx, LINES, WIDTH)
    there = (z < nz) & (c < nx)
    if SIZED:
        scale = scale * tl.load(size)
    value = scale * tl.load(x + place_of(z, y, c, ny, nx, DEEP), mask=there).to(tl.float64)
    tl.store(out + (z.to(tl.int64) * ny + y) * nx + c, value, mask=there)


@triton.jit(do_not_specialize=["steps"])
def _tops(v, n, steps, tops, BLOCK: tl.constexpr):
    """Store bits of the largest |v| that a program sees: numbers >= 0 have bits in their order, NaN last."""
    top = tl.zeros((BLOCK,), tl.int64)
    for step in range(steps):
        i = (tl.program_id(0).to(tl.int64) + step * tl.num_programs(0)) * BLOCK + tl.arange(0, BLOCK)
        value = tl.abs(tl.load(v + i, mask=i < n, other=0.0).to(tl.float64))
        top = tl.maximum(top, value.to(tl.int64, bitcast=True))
    tl.store(tops + tl.program_id(0), tl.max(top, 0))


@triton.jit(do_not_specialize=["parts"])
def _power_above(
    tops, parts, size, EXPONENT: tl.constexpr, ONE: tl.constexpr, MOST: tl.constexpr, BLOCK: tl.constexpr
):
    """Store the next power of two, or one whose inverse is a number too; one for infinity and NaN."""
    top = tl.zeros((BLOCK,), tl.int64)
    for start in range(0, parts, BLOCK):
        i = start + tl.arange(0, BLOCK)
        top = tl.maximum(top, tl.load(tops + i, mask=i < parts, other=0))
    power = tl.max((top >> EXPONENT) + 1, 0)
    finite = power < 2 * ONE + 2
    power = tl.where(finite, tl.minimum(tl.maximum(power, ONE - MOST), ONE + MOST), ONE)
    tl.store(size, (power << EXPONENT).to(tl.float64, bitcast=True))


@triton.jit(do_not_specialize=[*SIDES])
def _wrap(v, nz, ny, nx, AROUND: tl.constexpr, DEEP: tl.constexpr, LINES: tl.constexpr, WIDTH: tl.constexpr):
    z, y, x = cells_of_tile(ny + 2, nx + 2, LINES, WIDTH)
    z, y, x = z - DEEP, y - 1, x - 1
    there = (z < nz + DEEP) & (x < nx + 1)
    to_z, to_y, to_x = (
        around_end(z, nz, AROUND[0]),
        around_end(y, ny, AROUND[1]),
        around_end(x, nx, AROUND[2]),
    )
    copied = there & ((to_z != z) | (to_y != y) | (to_x != x))
    other = tl.load(v + place_of(to_z, to_y, to_x, ny, nx, DEEP), mask=copied)
    tl.store(v + place_of(z, y, x, ny, nx, DEEP), other, mask=copied)


def level_load(v: Tensor, scale: float, shape: Shape, out: Tensor) -> bool:
    """Set the cells of `out` to scale * v; return whether any is beyond 1e18, which the host reads."""
    grid, tile = tiles(shape)
    sides, deep = sides_of(shape)
    launch(_load, grid, v, v, float(scale), out, *sides, SIZED=False, **deep, **tile)
    return bool((out.abs() > LARGE).any())


def level_load_scaled(v: Tensor, shape: Shape, out: Tensor, size: Tensor) -> None:
    """Set `size` () float64 to the power of two above max |v|, and the cells of `out` to v / size."""
    n, block = v.numel(), block_for(v.numel())
    parts = min(blocks(n, block), PARTS)
    tops = torch.empty(parts, dtype=torch.int64, device=v.device)
    launch(_tops, (parts,), v, n, blocks(n, block * parts), tops, BLOCK=block)
    numbers = {"EXPONENT": EXPONENT, "ONE": ONE, "MOST": MOST}
    launch(_power_above, (1,), tops, parts, size, **numbers, BLOCK=block_for(PARTS))
    grid, tile = tiles(shape)
    sides, deep = sides_of(shape)
    launch(_load, grid, v, size, 1.0, out, *sides, SIZED=True, **deep, **tile)


def level_store(x: Tensor, scale: float, shape: Shape, out: Tensor) -> None:
    """Set `out` (n,) to scale times the cells of the padded vector x."""
    grid, tile = tiles(shape)
    sides, deep = sides_of(shape)
    launch(_store, grid, x, x, float(scale), out, *sides, SIZED=False, **deep, **tile)


def level_store_scaled(x: Tensor, size: Tensor, scale: float, shape: Shape, out: Tensor) -> None:
    """Set `out` (n,) to size * scale times the cells of the padded vector x; size () float64."""
    grid, tile = tiles(shape)
    sides, deep = sides_of(shape)
    launch(_store, grid, x, size, float(scale), out, *sides, SIZED=True, **deep, **tile)


def level_wrap(v: Tensor, shape: Shape, periodic: Sequence[bool]) -> None:
    """Fill the layer around the box from the other side along periodic axes, edges and corners too."""
    sides, deep = sides_of(shape)
    nz, ny, nx = sides
    around = tuple(bool(p) for p in periodic)
    grid, tile = tiles((nz + 2 * deep["DEEP"], ny + 2, nx + 2))
    if any(around):
        around = (around[0] and deep["DEEP"], *around[1:])
        launch(_wrap, grid, v, *sides, AROUND=around, **deep, **tile)
