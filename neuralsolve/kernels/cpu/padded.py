"""Grid levels of multigrid, numba. Definitions and the layout: `neuralsolve.kernels.reference.padded`.

A layer of cells around the box holds zeros (or the other side of a periodic axis), so a pass over a level is
one loop without branches over all planes, which the compiler vectorises in float32. Every pass writes to
another vector than those whose neighbours it reads: ranges may run side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.smoothing import relax_over, residual_cells, start_cells
from neuralsolve.kernels.cpu.threads import UNEVEN, bare, over_ranges

LARGE = np.float32(1e18)  # half the room of float32
NUMBERS = 4  # of a cell, and more, that a kernel of the set-up touches


@bare
def strides(shape):
    """Distance of neighbours along z and y, first cell, and one after the last one, of a padded box."""
    nz, ny, nx = shape
    sy = nx + 2
    sz = (ny + 2) * sy if nz > 1 else 0
    first = sz + sy + 1
    return sz, sy, first, first + (nz - 1) * (ny + 2) * sy + (ny - 1) * sy + nx


@bare
def row_start(shape, z, y):
    """Return the place of the first cell of a line."""
    sz, sy, first, _ = strides(shape)
    return first + z * sz + y * sy


@bare
def copy_line(source, target):
    """Copy a line, which an assignment to a slice would look at for overlaps."""
    for i in range(target.size):
        target[i] = source[i]


@bare
def wrap_sides(v, shape, periodic):
    """Fill the layer around the box from the other side along periodic axes."""
    nz, ny, nx = shape
    sz, sy, _, _ = strides(shape)
    if periodic[2]:
        for z in range(nz):
            for y in range(ny):
                s = row_start(shape, z, y)
                v[s - 1], v[s + nx] = v[s + nx - 1], v[s]
    if periodic[1]:
        for z in range(nz):
            s = row_start(shape, z, 0) - 1
            for i in range(s, s + nx + 2):
                v[i - sy], v[i + ny * sy] = v[i + (ny - 1) * sy], v[i]
    if periodic[0] and nz > 1:
        for i in range(sz):
            v[i], v[i + (nz + 1) * sz] = v[i + nz * sz], v[i + sz]


@bare
def _load(v, scale, shape, out, lo, hi):
    nx, beyond = shape[2], False
    for line in range(lo, hi):
        s = row_start(shape, line // shape[1], line % shape[1])
        source, target = v[line * nx : line * nx + nx], out[s : s + nx]
        for i in range(nx):
            target[i] = np.float32(scale * source[i])
            beyond |= abs(target[i]) > LARGE
    return beyond


@bare
def _store(x, scale, shape, out, lo, hi):
    nx = shape[2]
    for line in range(lo, hi):
        s = row_start(shape, line // shape[1], line % shape[1])
        source, target = x[s : s + nx], out[line * nx : line * nx + nx]
        for i in range(nx):
            target[i] = scale * np.float64(source[i])


def box(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return a shape as compiled code takes it."""
    nz, ny, nx = shape
    return int(nz), int(ny), int(nx)


def singles(scale: Sequence[float]) -> tuple[np.float32, np.float32, np.float32]:
    """Return three numbers in single precision."""
    kz, ky, kx = scale
    return np.float32(kz), np.float32(ky), np.float32(kx)


def flags(periodic: Sequence[bool]) -> tuple[bool, bool, bool]:
    """Return three truths as compiled code takes them."""
    z, y, x = periodic
    return bool(z), bool(y), bool(x)


def over_cells(shape: tuple[int, int, int], kernel: Callable[[int, int, int, int], None]) -> None:
    """Call a kernel on ranges of the padded box, from its first cell to its last: (S, L, first, size)."""
    S, L, first, end = strides(shape)
    over_ranges(end - first, lambda lo, hi: kernel(S, L, first + lo, hi - lo))


def over_lines(shape: tuple[int, int, int], entries: int, kernel: Callable[[int, int], Any]) -> list[Any]:
    """Call a kernel on ranges of the lines of a box; return the results."""
    return over_ranges(shape[0] * shape[1], kernel, entries)


def over_spans(
    spans: np.ndarray, factors: tuple[int, int, int], kernel: Callable[[int, int], Any]
) -> list[Any]:
    """Call a kernel on ranges of the rows of blocks that spans stand for; return the results."""
    blocks = int(np.maximum(spans[:, 1] - spans[:, 0], 0).sum())
    return over_ranges(len(spans), kernel, NUMBERS * blocks * math.prod(factors), UNEVEN)


def level_load(v: Tensor, scale: float, shape: Sequence[int], out: Tensor) -> bool:
    """Set the cells of the padded vector `out` to scale * v, v (n,); return whether any is beyond 1e18."""
    V, X, sides, s = v.numpy(), out.numpy(), box(shape), float(scale)
    return any(over_lines(sides, V.size, lambda lo, hi: _load(V, s, sides, X, lo, hi)))


def level_store(x: Tensor, scale: float, shape: Sequence[int], out: Tensor) -> None:
    """Set `out` (n,) to scale times the cells of the padded vector x."""
    X, V, sides, s = x.numpy(), out.numpy(), box(shape), float(scale)
    over_lines(sides, V.size, lambda lo, hi: _store(X, s, sides, V, lo, hi))


def level_start(
    b: Tensor,
    inverse: Tensor,
    scale: Sequence[float],
    faces: Tensor,
    shape: Sequence[int],
    first: float,
    second: tuple[float, float],
    out: Tensor,
) -> None:
    """Do two steps of `level_relax` from zero: of weight `first`, then of (weight, momentum) `second`."""
    B, d, c, X, sides, k = b.numpy(), inverse.numpy(), faces.numpy(), out.numpy(), box(shape), singles(scale)
    w, s, m = singles((first, *second))
    over_cells(sides, lambda S, L, at, size: start_cells(B, d, k, c, S, L, at, size, w, s, m, X, at))


def level_relax(
    b: Tensor,
    inverse: Tensor,
    scale: Sequence[float],
    faces: Tensor,
    shape: Sequence[int],
    step: tuple[float, float],
    x: Tensor,
    out: Tensor,
) -> None:
    """Set out to x + momentum (x - out) + weight D^-1 (b - A x); step is (weight, momentum)."""
    B, d, c, X, Y = b.numpy(), inverse.numpy(), faces.numpy(), x.numpy(), out.numpy()
    w, m, sides, k = np.float32(step[0]), np.float32(step[1]), box(shape), singles(scale)
    over_cells(sides, lambda S, L, at, size: relax_over(B, d, k, c, S, L, at, size, w, m, X, Y))


def level_residual(
    b: Tensor,
    inverse: Tensor,
    scale: Sequence[float],
    faces: Tensor,
    shape: Sequence[int],
    x: Tensor,
    out: Tensor,
) -> None:
    """Set out to b - A x."""
    B, d, c, X, R = b.numpy(), inverse.numpy(), faces.numpy(), x.numpy(), out.numpy()
    sides, k = box(shape), singles(scale)

    def kernel(S: int, L: int, at: int, size: int) -> None:
        residual_cells(B, d, k, c, S, L, at, size, X, (at - S, at, at + S), R, at)

    over_cells(sides, kernel)


def level_wrap(v: Tensor, shape: Sequence[int], periodic: Sequence[bool]) -> None:
    """Fill the layer around the box from the other side along periodic axes."""
    wrap_sides(v.numpy(), box(shape), flags(periodic))
