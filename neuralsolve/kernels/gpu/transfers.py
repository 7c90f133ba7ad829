"""Transfers between grid levels for CUDA. Definitions and the layout: `neuralsolve.kernels.reference.padded`.

Restriction gathers, so that no two programs add to one cell: a block takes its own cells, and those beside it
that give weight to it, the odd ones below it and the even ones above it along every axis that is coarsened.
Lanes go over fine cells along x, every block by as many as it has; what they have gathered is summed over the
block in the end. The residual of a cell may be worked out on the way, four times in all: see `smoothing`.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.launch import launch
from neuralsolve.kernels.gpu.neighbours import correction, residual_of
from neuralsolve.kernels.gpu.padded import (
    SIDES,
    Shape,
    around_end,
    cells_of_tile,
    place_of,
    sides_of,
    size_of,
    tiles,
)
from neuralsolve.kernels.gpu.smoothing import NO_WALL_WRAPS, grid_of, numbers_of
from neuralsolve.kernels.reference.padded import OWN, WHOLE

WALLS, WRAPS, LAYER = 0, 1, 2  # ends of an axis: nothing beyond, the other side, the layer that is filled

_OWN, _WALLS, _WRAPS = tl.constexpr(OWN), tl.constexpr(WALLS), tl.constexpr(WRAPS)


@triton.jit
def _beside(block, up, n, END: tl.constexpr):
    """Return the cell before or after a block of two along an axis, and whether it gives weight to it.

    The last block of an odd side is one cell, which looks down: across the seam nothing comes up from it.
    """
    c = tl.where(up == 1, tl.minimum(2 * block + 2, n), 2 * block - 1)
    if END == _WALLS:
        return c, (c >= 0) & (c < n)
    return around_end(c, n, END == _WRAPS), c >= n % 2 - 1


@triton.jit(do_not_specialize=["r", "b", "inverse", "faces", "weights", "out", *SIDES])
def _restrict(
    r,
    b,
    inverse,
    faces,
    weights,
    out,
    nz,
    ny,
    nx,
    kz,
    ky,
    kx,
    gain,
    RESIDUAL: tl.constexpr,
    FACES: tl.constexpr,
    GRID: tl.constexpr,
    ENDS: tl.constexpr,
    LINES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    FZ: tl.constexpr = GRID[0]
    FY: tl.constexpr = GRID[1]
    FX: tl.constexpr = GRID[2]
    AROUND: tl.constexpr = (ENDS[0] == 1, ENDS[1] == 1, ENDS[2] == 1)  # type: ignore[assignment]
    mz, my, mx = tl.cdiv(nz, FZ), tl.cdiv(ny, FY), tl.cdiv(nx, FX)
    bz, by, i = cells_of_tile(my, mx * FX, LINES, WIDTH)
    bx = i // FX
    inside, n = (bz < mz) & (bx < mx), size_of(nz, ny, nx, GRID[3])
    source, sides, scale = (r, r, r, r, b), (nz, ny, nx), (kz, ky, kx)
    total = tl.zeros((LINES, WIDTH), tl.float32)
    for row in tl.static_range(4):  # type: ignore[misc]
        if row == _OWN or GRID[row] == 2:
            for one in range(2 if row == 0 else FZ):
                for other in range(2 if row == 1 else FY):
                    z, y, x = bz * FZ + one, by * FY + other, i
                    ok = inside
                    if row == 0:
                        z, there = _beside(bz, one, nz, ENDS[0])
                        ok = ok & there
                    if row == 1:
                        y, there = _beside(by, other, ny, ENDS[1])
                        ok = ok & there
                    if row == 2:
                        x, there = _beside(bx, i % 2, nx, ENDS[2])
                        ok = ok & there
                    if row != 0:
                        ok = ok & (z < nz)
                    if row != 1:
                        ok = ok & (y < ny)
                    if row != 2:
                        ok = ok & (x < nx)
                    at = place_of(z, y, x, ny, nx, GRID[3])
                    if RESIDUAL:
                        value = residual_of(
                            at, z, y, x, ok, sides, source, inverse, faces, scale, FACES, GRID, AROUND
                        )
                    else:
                        value = tl.load(r + at, mask=ok, other=0.0)
                    total += tl.load(weights + row * n + at, mask=ok, other=0).to(tl.float32) * value
    if FX == 2:
        total = tl.sum(tl.reshape(total, (LINES, WIDTH // 2, 2)), 2)
    bz, by, bx = cells_of_tile(my, mx, LINES, WIDTH // FX)
    tl.store(out + place_of(bz, by, bx, my, mx, GRID[4]), gain * total, mask=(bz < mz) & (bx < mx))


@triton.jit(do_not_specialize=["e", "weights", "x", *SIDES])
def _prolong(
    e,
    weights,
    x,
    nz,
    ny,
    nx,
    GRID: tl.constexpr,
    AROUND: tl.constexpr,
    LINES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    z, y, c = cells_of_tile(ny, nx, LINES, WIDTH)
    there = (z < nz) & (c < nx)
    at = place_of(z, y, c, ny, nx, GRID[3])
    change = correction(at, z, y, c, there, (nz, ny, nx), e, weights, GRID, AROUND)
    tl.store(x + at, tl.load(x + at, mask=there) + change, mask=there)


def restrict(
    r: Tensor,
    weights: Tensor,
    shape: Shape,
    factors: Shape,
    coarse_shape: Shape,
    gain: float,
    out: Tensor,
    ends: tuple[int, ...],
    matrix: tuple[Tensor, Tensor, Sequence[float], Tensor] | None = None,
) -> None:
    """Set out on the coarse level to gain P^T r; with a `matrix` (b, inverse, scale, faces) r is x.

    `ends` tells what is beyond the box along every axis: WALLS, WRAPS or LAYER.
    """
    b, inverse, scale, faces = matrix or (r, r, (0.0, 0.0, 0.0), r)
    sides, _ = sides_of(shape)
    grid, tile = tiles(coarse_shape, int(factors[2]))
    launch(
        _restrict,
        grid,
        *(r, b, inverse, faces, weights, out, *sides, *numbers_of(scale), float(gain) / WHOLE),
        RESIDUAL=matrix is not None,
        FACES=matrix is not None and faces.numel() > 0,
        GRID=grid_of(shape, factors, coarse_shape),
        ENDS=ends,
        **tile,
    )


def level_restrict(
    r: Tensor, weights: Tensor, shape: Shape, factors: Shape, coarse_shape: Shape, gain: float, out: Tensor
) -> None:
    """Set out on the coarse level to gain P^T r; r and the weights have their layers filled."""
    restrict(r, weights, shape, factors, coarse_shape, gain, out, (LAYER, LAYER, LAYER))


def level_prolong(
    e: Tensor,
    weights: Tensor,
    shape: Shape,
    factors: Shape,
    coarse_shape: Shape,
    x: Tensor,
    around: tuple[bool, ...] = NO_WALL_WRAPS,
) -> None:
    """Add P e to x; `around`: blocks beyond the box are looked up on the other side."""
    sides, _ = sides_of(shape)
    grid, tile = tiles(shape)
    launch(
        _prolong,
        grid,
        e,
        weights,
        x,
        *sides,
        GRID=grid_of(shape, factors, coarse_shape),
        AROUND=around,
        **tile,
    )
