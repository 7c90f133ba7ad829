"""Stencils with face coefficients, from cells to couplings, numba.

Definitions: `neuralsolve.kernels.reference.assemble`. One pass over cells and coefficients, line by line; what a
line needs a second time is still in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.stencil import INSIDE, beside, ghosts
from neuralsolve.kernels.cpu.threads import over_ranges, serial
from neuralsolve.kernels.reference.assemble import NEGATIVE, NON_FINITE, ZERO
from neuralsolve.kernels.reference.stencil import AIR, DIRICHLET, FLUID, PERIODIC, SOLID


@serial
def _kinds(values, lo, hi):
    values, kinds = values[lo:hi], np.int32(0)
    for i in range(values.size):
        v = values[i]
        kinds |= np.int32(not abs(v) < np.inf) | np.int32(v < 0) << 1 | np.int32(v == 0) << 2
    return kinds


def faces_kinds(values: Tensor) -> int:
    """Tell what coefficients (m,) hold: 1 NaN or infinity, 2 a negative number, 4 a zero, added up."""
    V = values.numpy()
    found = over_ranges(len(V), lambda lo, hi: _kinds(V, lo, hi))
    return int(np.bitwise_or.reduce(found)) & (NON_FINITE | NEGATIVE | ZERO)


@serial
def _neighbours(cells, beyond, around, shape, walls, axis, line):
    """Kinds of the lower and upper neighbours of a line along an axis; `around` is room for those of x."""
    nz, ny, nx = shape
    start, stop = line * nx, line * nx + nx
    if axis < 2:
        position, side = (line // ny, nz) if axis == 0 else (line % ny, ny)
        stride = ny * nx if axis == 0 else nx
        low = beside(cells, beyond, start, stop, position, side, stride, walls[2 * axis], False)
        return low, beside(cells, beyond, start, stop, position, side, stride, walls[2 * axis + 1], True)
    around[1 : nx + 1] = cells[start:stop]
    closed = walls[4] != PERIODIC or nx == 1
    around[0] = (AIR if walls[4] == DIRICHLET else SOLID) if closed else around[nx]
    around[nx + 1] = (AIR if walls[5] == DIRICHLET else SOLID) if closed else around[1]
    return around[:nx], around[2:]


@serial
def _faces(values, ones, shape, axis, line):
    """Coefficients of the lower and the upper faces of a line along an axis."""
    _, ny, nx = shape
    if values.size == 0:
        return ones[:nx], ones[:nx]
    if axis == 2:
        start = line * (nx + 1)
        return values[start : start + nx], values[start + 1 : start + nx + 1]
    start = line * nx if axis == 0 else (line + line // ny) * nx
    up = start + (ny * nx if axis == 0 else nx)
    return values[start : start + nx], values[up : up + nx]


@serial
def _code(cells, shape, walls, coefficients, out, lo, hi):
    nx = shape[2]
    beyond, around, ones = ghosts(shape), np.empty(nx + 2, np.uint8), np.ones(nx, coefficients[0].dtype)
    for line in range(lo, hi):
        row, x0 = out[line * nx : line * nx + nx], cells[line * nx : line * nx + nx]
        row[:] = INSIDE
        for axis in range(3):
            low, high = _neighbours(cells, beyond, around, shape, walls, axis, line)
            c0, c1 = _faces(coefficients[axis], ones, shape, axis, line)
            for i in range(nx):
                k0 = low[i] if c0[i] != 0 else SOLID
                k1 = high[i] if c1[i] != 0 else SOLID
                row[i] |= ((k0 == FLUID) | (k1 == FLUID) << 1) << (2 * axis)
                row[i] |= ((k0 != SOLID) + (k1 != SOLID)) << (6 + 2 * axis)
        for i in range(nx):
            row[i] = row[i] if x0[i] == FLUID else 0


def faces_code(cells: Tensor, walls: Tensor, coefficients: Sequence[Tensor], out: Tensor) -> None:
    """Describe every cell's row in 16 bits, faces of coefficient 0 closed: see the definition."""
    kinds, box, sides = cells.reshape(-1).numpy(), tuple(cells.shape), tuple(walls.tolist())
    c, bits = tuple(v.numpy() for v in coefficients), out.numpy()
    over_ranges(
        box[0] * box[1], lambda lo, hi: _code(kinds, box, sides, c, bits, lo, hi), entries=2 * len(bits)
    )


@serial
def _assemble(cells, shape, walls, scale, coefficients, diagonal, lower, lo, hi):
    nx = shape[2]
    beyond, around, ones = ghosts(shape), np.empty(nx + 2, np.uint8), np.ones(nx, diagonal.dtype)
    for line in range(lo, hi):
        start, stop = line * nx, line * nx + nx
        total, x0 = diagonal[start:stop], cells[start:stop]
        total[:] = 0
        for axis in range(3):
            low, high = _neighbours(cells, beyond, around, shape, walls, axis, line)
            c0, c1 = _faces(coefficients[axis], ones, shape, axis, line)
            row, unit = lower[axis, start:stop], diagonal.dtype.type(scale[axis])
            for i in range(nx):
                inside = x0[i] == FLUID
                below, above = unit * c0[i], unit * c1[i]
                row[i] = below if inside & (low[i] == FLUID) else 0
                total[i] += (below if inside & (low[i] != SOLID) else 0) + (
                    above if inside & (high[i] != SOLID) else 0
                )


def faces_assemble(
    cells: Tensor,
    walls: Tensor,
    scale: Sequence[float],
    coefficients: Sequence[Tensor],
    diagonal: Tensor,
    lower: Tensor,
) -> None:
    """Set the diagonal (n,) and the couplings (3, n) of -div(c grad): see the definition."""
    kinds, box, sides = cells.reshape(-1).numpy(), tuple(cells.shape), tuple(walls.tolist())
    c, units = tuple(v.numpy() for v in coefficients), tuple(float(s) for s in scale)
    d, couplings = diagonal.numpy(), lower.numpy()
    over_ranges(
        box[0] * box[1],
        lambda lo, hi: _assemble(kinds, box, sides, units, c, d, couplings, lo, hi),
        entries=7 * len(d),
    )


@serial
def _outlets(cells, shape, walls, axis, scale, values, out, lo, hi):
    nx, unit = shape[2], out.dtype.type(scale)
    beyond, around, ones = ghosts(shape), np.empty(nx + 2, np.uint8), np.ones(nx, out.dtype)
    for line in range(lo, hi):
        row, x0 = out[line * nx : line * nx + nx], cells[line * nx : line * nx + nx]
        low, high = _neighbours(cells, beyond, around, shape, walls, axis, line)
        c0, c1 = _faces(values, ones, shape, axis, line)
        for i in range(nx):
            inside = x0[i] == FLUID
            below = unit * c0[i] if inside & (low[i] == AIR) else 0
            row[i] = below + (unit * c1[i] if inside & (high[i] == AIR) else 0)


def faces_outlets(
    cells: Tensor, walls: Tensor, axis: int, scale: float, coefficients: Tensor, out: Tensor
) -> None:
    """Set what leaves fluid cells towards AIR along an axis, (n,): see the definition."""
    kinds, box, sides = cells.reshape(-1).numpy(), tuple(cells.shape), tuple(walls.tolist())
    c, leaving, unit = coefficients.numpy(), out.numpy(), float(scale)
    over_ranges(
        box[0] * box[1],
        lambda lo, hi: _outlets(kinds, box, sides, axis, unit, c, leaving, lo, hi),
        entries=2 * len(leaving),
    )
