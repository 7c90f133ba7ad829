"""What cells draw from their neighbours and from the level below, for CUDA; for the kernels that do so.

Neighbours across a periodic wall are looked up on the other side: nothing fills the layer around the box
between launches. Without walls that wrap, and in the kernels under the names of the reference, the layer is
read. Definitions: `neuralsolve.kernels.reference.padded`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from neuralsolve.kernels.gpu.padded import around_end, place_of, size_of
from neuralsolve.kernels.reference.padded import OWN, WHOLE

LYING, STARTED, CORRECTED = 0, 1, 2  # x: in memory, after one step from zero, with P e to be added

_OWN, _UNIT = tl.constexpr(OWN), tl.constexpr(1 / WHOLE)
_LYING, _STARTED, _CORRECTED = tl.constexpr(LYING), tl.constexpr(STARTED), tl.constexpr(CORRECTED)


@triton.jit
def _step(c, n, stride, UP: tl.constexpr, WRAP: tl.constexpr):
    """Return how far the cell before or after lies, in a padded vector."""
    far = stride if UP else -stride
    if WRAP:
        whole = (n - 1).to(tl.int64) * stride
        far = tl.where(c == n - 1, -whole, far) if UP else tl.where(c == 0, whole, far)
    return far


@triton.jit
def _beyond(block, c, n, stride, WRAP: tl.constexpr):
    """Return how far the block on a cell's side lies, in the padded vector below."""
    side = 2 * (c & 1) - 1
    if WRAP:
        side = (around_end(block + side, n, WRAP) - block).to(tl.int64)
    return side * stride


@triton.jit
def correction(at, z, y, x, there, sides, e, weights, GRID: tl.constexpr, AROUND: tl.constexpr):
    """Return P e at cells, in the layer too; for GRID see `grid_of`."""
    nz, ny, nx = sides
    FZ: tl.constexpr = GRID[0]
    FY: tl.constexpr = GRID[1]
    FX: tl.constexpr = GRID[2]
    mz, my, mx = tl.cdiv(nz, FZ), tl.cdiv(ny, FY), tl.cdiv(nx, FX)
    # shifts and masks go down below zero, where a division would go up
    bz, by, bx = z >> (FZ - 1), y >> (FY - 1), x >> (FX - 1)
    place, n = place_of(bz, by, bx, my, mx, GRID[4]), size_of(nz, ny, nx, GRID[3])
    w = tl.load(weights + _OWN * n + at, mask=there, other=0).to(tl.float32)
    total = w * tl.load(e + place, mask=there, other=0.0)
    if FZ == 2:
        to = place + _beyond(bz, z, mz, (my + 2) * (mx + 2) * GRID[4], AROUND[0])
        w = tl.load(weights + at, mask=there, other=0).to(tl.float32)
        total += w * tl.load(e + to, mask=there, other=0.0)
    if FY == 2:
        to = place + _beyond(by, y, my, mx + 2, AROUND[1])
        w = tl.load(weights + n + at, mask=there, other=0).to(tl.float32)
        total += w * tl.load(e + to, mask=there, other=0.0)
    if FX == 2:
        to = place + _beyond(bx, x, mx, 1, AROUND[2])
        w = tl.load(weights + 2 * n + at, mask=there, other=0).to(tl.float32)
        total += w * tl.load(e + to, mask=there, other=0.0)
    return _UNIT * total


@triton.jit
def flow(
    at,
    z,
    y,
    x,
    there,
    sides,
    source,
    first,
    faces,
    scale,
    WHAT: tl.constexpr,
    FACES: tl.constexpr,
    GRID: tl.constexpr,
    AROUND: tl.constexpr,
):
    """Return x, and what neighbours give: -A x, or D x - A x where couplings are constant, not in `faces`."""
    nz, ny, nx = sides
    v, e, weights, before, b = source
    DEEP: tl.constexpr = GRID[3]
    n = size_of(nz, ny, nx, DEEP)
    strides = ((ny + 2) * (nx + 2), nx + 2, 1)
    if WHAT == _STARTED:
        own = first * (tl.load(before + at, mask=there, other=0.0) * tl.load(b + at, mask=there, other=0.0))
    else:
        own = tl.load(v + at, mask=there, other=0.0)
    if WHAT == _CORRECTED:
        own += correction(at, z, y, x, there, sides, e, weights, GRID, AROUND)
    total = tl.zeros_like(own)
    for axis in tl.static_range(3):  # type: ignore[misc]
        if axis > 0 or DEEP:
            c = z if axis == 0 else (y if axis == 1 else x)
            for up in tl.static_range(2):  # type: ignore[misc]
                to = at + _step(c, sides[axis], strides[axis], up, AROUND[axis])
                if WHAT == _STARTED:
                    d = tl.load(before + to, mask=there, other=0.0)
                    other = first * (d * tl.load(b + to, mask=there, other=0.0))
                else:
                    other = tl.load(v + to, mask=there, other=0.0)
                if WHAT == _CORRECTED:
                    next = around_end(c + 2 * up - 1, sides[axis], AROUND[axis])
                    to_z = next if axis == 0 else z
                    to_y = next if axis == 1 else y
                    to_x = next if axis == 2 else x
                    other += correction(to, to_z, to_y, to_x, there, sides, e, weights, GRID, AROUND)
                if FACES:
                    g = tl.load(faces + (axis * n + up * strides[axis]) + at, mask=there, other=0.0)
                    total += g * (other - own)
                else:
                    total += scale[axis] * other
    if FACES:
        total -= tl.load(faces + 3 * n + at, mask=there, other=0.0) * own
    return own, total


@triton.jit
def residual_of(
    at,
    z,
    y,
    x,
    there,
    sides,
    source,
    inverse,
    faces,
    scale,
    FACES: tl.constexpr,
    GRID: tl.constexpr,
    AROUND: tl.constexpr,
):
    """Return b - A x at cells, 0 where `inverse` is."""
    own, drawn = flow(at, z, y, x, there, sides, source, 0.0, faces, scale, _LYING, FACES, GRID, AROUND)
    d = tl.load(inverse + at, mask=there, other=0.0)
    r = tl.load(source[4] + at, mask=there, other=0.0) + drawn
    if not FACES:
        r -= own / tl.where(d != 0, d, 1.0)
    return tl.where(d != 0, r, 0.0)
