"""Smoothing and residual on a level of a grid for CUDA. Definitions: `neuralsolve.kernels.reference.padded`.

One kernel does a step on any x that can be told cell by cell: one that lies in memory, first D^-1 b, and
x + P e; so a start of two steps, and a correction followed by a step, are one launch each. What is told then
is told seven times, for a cell and its neighbours: numbers come from the first cache, and a launch is saved,
which small levels wait for. The step after a correction tells its iterate before, which nothing has stored,
once more.

Walls that wrap: see `neighbours`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.launch import launch
from neuralsolve.kernels.gpu.neighbours import CORRECTED, LYING, STARTED, correction, flow, residual_of
from neuralsolve.kernels.gpu.padded import SIDES, Shape, cells_of_tile, place_of, sides_of, tiles

# the iterate before: not asked for, in `out`, zero, in `out` with P e to be added
NO_PAST, PAST, ZERO_PAST, CORRECTED_PAST = range(4)
NO_WALL_WRAPS = (False, False, False)

_NO_PAST, _ZERO_PAST = tl.constexpr(NO_PAST), tl.constexpr(ZERO_PAST)
_CORRECTED_PAST = tl.constexpr(CORRECTED_PAST)


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
    at = place_of(z, y, c, ny, nx, GRID[3])
    own, drawn = flow(at, z, y, c, there, sides, source, first, faces, scale, WHAT, FACES, GRID, AROUND)
    d = tl.load(inverse + at, mask=there, other=0.0)
    change = d * (tl.load(b + at, mask=there, other=0.0) + drawn)
    if not FACES:
        change -= tl.where(d != 0, own, 0.0)
    new = own + weight * change
    if MEMORY == _ZERO_PAST:
        new += momentum * own
    elif MEMORY != _NO_PAST:
        past = tl.load(out + at, mask=there, other=0.0)
        if MEMORY == _CORRECTED_PAST:
            past += correction(at, z, y, c, there, sides, e, weights, GRID, AROUND)
        new += momentum * (own - past)
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
    at = place_of(z, y, c, ny, nx, GRID[3])
    r = residual_of(at, z, y, c, there, sides, source, inverse, faces, scale, FACES, GRID, AROUND)
    tl.store(out + at, r, mask=there)


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
    memory : NO_PAST, PAST, ZERO_PAST or CORRECTED_PAST, for a step with momentum
    around : axes along which neighbours are looked up on the other side
    started : x is first D^-1 b; `inverse` and weight of that step
    below : what P e is made of: e, the weights of P, the factors and the shape below. It is added to x, or to
        the iterate before, where `memory` says so
    """
    what, (before, weight_before) = LYING, started or (inverse, 0.0)
    e, weights, factors, coarse_shape = below or (x, x, (1, 1, 1), shape)
    if started is not None:
        what = STARTED
    elif below is not None and memory != CORRECTED_PAST:
        what = CORRECTED
    sides, _ = sides_of(shape)
    grid, tile = tiles(shape)
    launch(
        _relax,
        grid,
        *(b, before, inverse, faces, x, e, weights, out, *sides, *numbers_of(scale), float(weight_before)),
        *(float(number) for number in step),
        WHAT=what,
        MEMORY=memory if step[1] else NO_PAST,
        FACES=faces.numel() > 0,
        GRID=grid_of(shape, factors, coarse_shape),
        AROUND=around,
        **tile,
        num_warps=8 if what == CORRECTED else 4,  # seven corrections fill the registers of few threads
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
    relax(b, inverse, scale, faces, shape, step, x, out, PAST)


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
