"""Smoothing and residual on a level of a grid for CUDA. Definitions: `neuralsolve.kernels.reference.padded`.

One kernel does a step on any x that can be told cell by cell (`seen`): one that lies in memory, the first
step from zero, which is first D^-1 b, and x + P e, so that a start of two steps and a correction followed by
a step are one launch each. What neighbours are is then computed again, seven times in all: that is read from
the first cache, and it saves a launch. Where levels exceed the second cache it saves 8 bytes a cell.

Neighbours across a periodic wall are looked up on the other side: nothing fills the layer around the box
between launches. Without walls that wrap, and in the kernels under the names of the reference, the layer is
read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.launch import launch
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
from neuralsolve.kernels.reference.padded import OWN, WHOLE

LYING, STARTED, CORRECTED = 0, 1, 2  # x: in memory, after one step from zero, with P e to be added
NO_PAST, PAST, ZERO_PAST = 0, 1, 2  # the iterate before: not asked for, in `out`, zero
NO_WALL_WRAPS = (False, False, False)

_OWN, _UNIT = tl.constexpr(OWN), tl.constexpr(1 / WHOLE)
_STARTED, _CORRECTED = tl.constexpr(STARTED), tl.constexpr(CORRECTED)
_NO_PAST, _PAST = tl.constexpr(NO_PAST), tl.constexpr(PAST)


@triton.jit
def _weighted(e, weights, row, at, there, place, n):
    w = tl.load(weights + row * n + at, mask=there, other=0).to(tl.float32)
    return w * tl.load(e + place, mask=there, other=0.0)


@triton.jit
def correction(z, y, x, there, sides, e, weights, GRID: tl.constexpr, AROUND: tl.constexpr):
    """Return P e at cells, in the layer too; GRID is (factors, whether the boxes have three dimensions)."""
    nz, ny, nx = sides
    FZ: tl.constexpr = GRID[0]
    FY: tl.constexpr = GRID[1]
    FX: tl.constexpr = GRID[2]
    DEEP: tl.constexpr = GRID[3]
    DEEP_BELOW: tl.constexpr = GRID[4]
    Nz, Ny, Nx = tl.cdiv(nz, FZ), tl.cdiv(ny, FY), tl.cdiv(nx, FX)
    # shifts and masks go down below zero, where a division would go up
    Z, Y, X = z >> (FZ - 1), y >> (FY - 1), x >> (FX - 1)
    at, n = place_of(z, y, x, ny, nx, DEEP), size_of(nz, ny, nx, DEEP)
    total = _weighted(e, weights, _OWN, at, there, place_of(Z, Y, X, Ny, Nx, DEEP_BELOW), n)
    if FZ == 2:
        side = around_end(Z + 2 * (z & 1) - 1, Nz, AROUND[0])
        total += _weighted(e, weights, 0, at, there, place_of(side, Y, X, Ny, Nx, DEEP_BELOW), n)
    if FY == 2:
        side = around_end(Y + 2 * (y & 1) - 1, Ny, AROUND[1])
        total += _weighted(e, weights, 1, at, there, place_of(Z, side, X, Ny, Nx, DEEP_BELOW), n)
    if FX == 2:
        side = around_end(X + 2 * (x & 1) - 1, Nx, AROUND[2])
        total += _weighted(e, weights, 2, at, there, place_of(Z, Y, side, Ny, Nx, DEEP_BELOW), n)
    return _UNIT * total


@triton.jit
def _seen(z, y, x, there, sides, source, first, WHAT: tl.constexpr, GRID: tl.constexpr, AROUND: tl.constexpr):
    v, e, weights, before, b = source
    at = place_of(z, y, x, sides[1], sides[2], GRID[3])
    if WHAT == _STARTED:
        return first * (tl.load(before + at, mask=there, other=0.0) * tl.load(b + at, mask=there, other=0.0))
    u = tl.load(v + at, mask=there, other=0.0)
    if WHAT == _CORRECTED:
        u += correction(z, y, x, there, sides, e, weights, GRID, AROUND)
    return u


@triton.jit
def flow(
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
    """Return x, and what neighbours give: -A x with couplings in `faces`, D x - A x where they are constant."""
    nz, ny, nx = sides
    DEEP: tl.constexpr = GRID[3]
    own = _seen(z, y, x, there, sides, source, first, WHAT, GRID, AROUND)
    total = tl.zeros_like(own)
    n = size_of(nz, ny, nx, DEEP)
    for axis in tl.static_range(3):
        if axis > 0 or DEEP:
            for up in tl.static_range(2):
                to_z = around_end(z + 2 * up - 1, nz, AROUND[0]) if axis == 0 else z
                to_y = around_end(y + 2 * up - 1, ny, AROUND[1]) if axis == 1 else y
                to_x = around_end(x + 2 * up - 1, nx, AROUND[2]) if axis == 2 else x
                other = _seen(to_z, to_y, to_x, there, sides, source, first, WHAT, GRID, AROUND)
                if FACES:
                    at = place_of(
                        z + up * (axis == 0), y + up * (axis == 1), x + up * (axis == 2), ny, nx, DEEP
                    )
                    total += tl.load(faces + axis * n + at, mask=there, other=0.0) * (other - own)
                else:
                    total += scale[axis] * other
    if FACES:
        total -= tl.load(faces + 3 * n + place_of(z, y, x, ny, nx, DEEP), mask=there, other=0.0) * own
    return own, total


@triton.jit
def residual_of(
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
    own, drawn = flow(z, y, x, there, sides, source, 0.0, faces, scale, 0, FACES, GRID, AROUND)
    at = place_of(z, y, x, sides[1], sides[2], GRID[3])
    d = tl.load(inverse + at, mask=there, other=0.0)
    r = tl.load(source[4] + at, mask=there, other=0.0) + drawn
    if not FACES:
        r -= own / tl.where(d != 0, d, 1.0)
    return tl.where(d != 0, r, 0.0)


_UNSPECIFIC = ["b", "before", "inverse", "faces", "x", "e", "weights", "out", *SIDES]


@triton.jit(do_not_specialize=_UNSPECIFIC)
def _relax(
    b,
    before,
    inverse,
    faces,
    x,
    e,
    weights,
    out,
    nz,
    ny,
    nx,
    kz,
    ky,
    kx,
    first,
    weight,
    momentum,
    WHAT: tl.constexpr,
    MEMORY: tl.constexpr,
    FACES: tl.constexpr,
    GRID: tl.constexpr,
    AROUND: tl.constexpr,
    LINES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    z, y, c = cells_of_tile(ny, nx, LINES, WIDTH)
    there = (z < nz) & (c < nx)
    source, sides, scale = (x, e, weights, before, b), (nz, ny, nx), (kz, ky, kx)
    own, drawn = flow(z, y, c, there, sides, source, first, faces, scale, WHAT, FACES, GRID, AROUND)
    at = place_of(z, y, c, ny, nx, GRID[3])
    d = tl.load(inverse + at, mask=there, other=0.0)
    change = d * (tl.load(b + at, mask=there, other=0.0) + drawn)
    if not FACES:
        change -= tl.where(d != 0, own, 0.0)
    new = own + weight * change
    if MEMORY == _PAST:
        new += momentum * (own - tl.load(out + at, mask=there, other=0.0))
    elif MEMORY != _NO_PAST:
        new += momentum * own
    tl.store(out + at, new, mask=there)


@triton.jit(do_not_specialize=_UNSPECIFIC)
def _residual(
    b,
    inverse,
    faces,
    x,
    out,
    nz,
    ny,
    nx,
    kz,
    ky,
    kx,
    FACES: tl.constexpr,
    GRID: tl.constexpr,
    AROUND: tl.constexpr,
    LINES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    z, y, c = cells_of_tile(ny, nx, LINES, WIDTH)
    there = (z < nz) & (c < nx)
    source, sides, scale = (x, x, x, x, b), (nz, ny, nx), (kz, ky, kx)
    r = residual_of(z, y, c, there, sides, source, inverse, faces, scale, FACES, GRID, AROUND)
    tl.store(out + place_of(z, y, c, ny, nx, GRID[3]), r, mask=there)


@triton.jit(do_not_specialize=_UNSPECIFIC)
def _first(b, inverse, out, nz, ny, nx, weight, DEEP: tl.constexpr, LINES: tl.constexpr, WIDTH: tl.constexpr):
    z, y, x = cells_of_tile(ny, nx, LINES, WIDTH)
    there = (z < nz) & (x < nx)
    at = place_of(z, y, x, ny, nx, DEEP)
    tl.store(out + at, weight * tl.load(inverse + at, mask=there) * tl.load(b + at, mask=there), mask=there)


def grid_of(shape: Shape, factors: Shape = (1, 1, 1), coarse_shape: Shape = (1, 1, 1)) -> tuple[Any, ...]:
    """Return what programs are compiled for: factors, and whether a box and the one below are deep."""
    fz, fy, fx = factors
    return int(fz), int(fy), int(fx), int(shape[0]) > 1, int(coarse_shape[0]) > 1


def numbers_of(scale: Sequence[float]) -> tuple[float, float, float]:
    """Return three numbers as kernels take them."""
    kz, ky, kx = scale
    return float(kz), float(ky), float(kx)


def relax(
    b: Tensor,
    inverse: Tensor,
    scale: Sequence[float],
    faces: Tensor,
    shape: Shape,
    step: tuple[float, float],
    x: Tensor,
    out: Tensor,
    memory: int,
    around: tuple[bool, ...] = NO_WALL_WRAPS,
    started: tuple[Tensor, float] | None = None,
    below: tuple[Tensor, Tensor, Shape, Shape] | None = None,
) -> None:
    """Do a step, on x or on what it is after something that is done on the way.

    Parameters
    ----------
    memory : NO_PAST, PAST or ZERO_PAST
    around : axes along which neighbours are looked up on the other side
    started : x is first D^-1 b; `inverse` and weight of that step
    below : P e is added to x; e, the weights of P, the factors and the shape below
    """
    what, first, (before, weight_before) = LYING, (x, x, (1, 1, 1), shape), started or (inverse, 0.0)
    if started is not None:
        what = STARTED
    elif below is not None:
        what, first = CORRECTED, below
    e, weights, factors, coarse_shape = first
    sides, _ = sides_of(shape)
    grid, tile = tiles(shape)
    launch(
        _relax,
        grid,
        *(b, before, inverse, faces, x, e, weights, out, *sides, *numbers_of(scale), float(weight_before)),
        *(float(number) for number in step),
        WHAT=what,
        MEMORY=memory,
        FACES=faces.numel() > 0,
        GRID=grid_of(shape, factors, coarse_shape),
        AROUND=around,
        **tile,
    )


def first_step(b: Tensor, inverse: Tensor, shape: Shape, weight: float, out: Tensor) -> None:
    """Set out to weight D^-1 b: a step from zero."""
    sides, deep = sides_of(shape)
    grid, tile = tiles(shape)
    launch(_first, grid, b, inverse, out, *sides, float(weight), **deep, **tile)


def level_relax(
    b: Tensor,
    inverse: Tensor,
    scale: Sequence[float],
    faces: Tensor,
    shape: Shape,
    step: tuple[float, float],
    x: Tensor,
    out: Tensor,
) -> None:
    """Set out to x + momentum (x - out) + weight D^-1 (b - A x); step is (weight, momentum)."""
    relax(b, inverse, scale, faces, shape, step, x, out, PAST if step[1] else NO_PAST)


def level_start(
    b: Tensor,
    inverse: Tensor,
    scale: Sequence[float],
    faces: Tensor,
    shape: Shape,
    first: float,
    second: tuple[float, float],
    out: Tensor,
) -> None:
    """Do two steps of `level_relax` from zero: of weight `first`, then of (weight, momentum) `second`."""
    relax(b, inverse, scale, faces, shape, second, b, out, ZERO_PAST, started=(inverse, first))


def level_residual(
    b: Tensor,
    inverse: Tensor,
    scale: Sequence[float],
    faces: Tensor,
    shape: Shape,
    x: Tensor,
    out: Tensor,
    around: tuple[bool, ...] = NO_WALL_WRAPS,
) -> None:
    """Set out to b - A x, to 0 where `inverse` is; `around`: neighbours are looked up on the other side."""
    sides, _ = sides_of(shape)
    grid, tile = tiles(shape)
    options = {"FACES": faces.numel() > 0, "GRID": grid_of(shape), "AROUND": around}
    launch(_residual, grid, b, inverse, faces, x, out, *sides, *numbers_of(scale), **options, **tile)
