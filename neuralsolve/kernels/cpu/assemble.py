"""Stencils with face coefficients, from cells to couplings, numba.

Definitions: `neuralsolve.kernels.reference.assemble`. One pass over cells and coefficients, by
segments of lines whose neighbours lie at the same offsets; loops are functions of their own, which LLVM then
vectorises.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.stencil import INSIDE, SEGMENT, kinds_beside, kinds_room, segment_end
from neuralsolve.kernels.cpu.threads import over_ranges, serial
from neuralsolve.kernels.reference.assemble import NEGATIVE, NON_FINITE, ZERO
from neuralsolve.kernels.reference.stencil import AIR, FLUID, SOLID


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
def segment_faces(values, room, shape, axis, line, after):
    """Coefficients of the lower and the upper faces along an axis of a segment of lines."""
    _, ny, nx = shape
    size = (after - line) * nx
    low, high = room[0, :size], room[1, :size]
    if values.size == 0:
        low[:], high[:] = 1, 1
        return low, high
    if axis < 2:
        start = line * nx if axis == 0 else (line + line // ny) * nx
        up = start + (ny * nx if axis == 0 else nx)
        return values[start : start + size], values[up : up + size]
    for k in range(after - line):
        for i in range(nx):
            low[k * nx + i] = values[(line + k) * (nx + 1) + i]
        for i in range(nx):
            high[k * nx + i] = values[(line + k) * (nx + 1) + i + 1]
    return low, high


@serial
def _mark(x0, low, high, c0, c1, unit, row):
    """Add to the codes of a line what its faces along an axis say; `unit` is the axis' first bit."""
    for i in range(row.size):
        below = np.int32(65) if low[i] == FLUID else np.int32(64 if low[i] == AIR else 0)
        above = np.int32(66) if high[i] == FLUID else np.int32(64 if high[i] == AIR else 0)
        below = below if c0[i] != 0 else np.int32(0)
        above = above if c1[i] != 0 else np.int32(0)
        row[i] += unit * (below + above) if x0[i] == FLUID else 0


@serial
def _code(cells, shape, walls, coefficients, out, lo, hi):
    nx, line = shape[2], lo
    room, numbers = kinds_room(nx), np.empty((2, nx + SEGMENT), coefficients[0].dtype)
    while line < hi:
        after = segment_end(line, hi, shape)
        x0, row = cells[line * nx : after * nx], out[line * nx : after * nx]
        for i in range(row.size):
            row[i] = INSIDE if x0[i] == FLUID else 0
        for axis in range(3):
            low, high = kinds_beside(cells, room, shape, walls, axis, line, after)
            c0, c1 = segment_faces(coefficients[axis], numbers, shape, axis, line, after)
            _mark(x0, low, high, c0, c1, 1 << 2 * axis, row)
        line = after


def faces_code(cells: Tensor, walls: Tensor, coefficients: Sequence[Tensor], out: Tensor) -> None:
    """Describe every cell's row in 16 bits, faces of coefficient 0 closed: see the definition."""
    kinds, box, sides = cells.reshape(-1).numpy(), tuple(cells.shape), tuple(walls.tolist())
    c, bits = tuple(v.numpy() for v in coefficients), out.numpy()
    over_ranges(
        box[0] * box[1], lambda lo, hi: _code(kinds, box, sides, c, bits, lo, hi), entries=2 * len(bits)
    )


@serial
def _couple(x0, low, high, c0, c1, unit, total, row):
    """Set the lower couplings of a line along an axis and add what its faces give the diagonal."""
    for i in range(row.size):
        inside, below, above = x0[i] == FLUID, unit * c0[i], unit * c1[i]
        coupling = below if low[i] == FLUID else 0.0
        gone_low = below if low[i] != SOLID else 0.0
        gone_high = above if high[i] != SOLID else 0.0
        row[i] = coupling if inside else 0.0
        total[i] += (gone_low + gone_high) if inside else 0.0


@serial
def _assemble(cells, shape, walls, scale, coefficients, diagonal, lower, lo, hi):
    nx, line = shape[2], lo
    room, numbers = kinds_room(nx), np.empty((2, nx + SEGMENT), diagonal.dtype)
    while line < hi:
        after = segment_end(line, hi, shape)
        start, stop = line * nx, after * nx
        total, x0 = diagonal[start:stop], cells[start:stop]
        total[:] = 0
        for axis in range(3):
            low, high = kinds_beside(cells, room, shape, walls, axis, line, after)
            c0, c1 = segment_faces(coefficients[axis], numbers, shape, axis, line, after)
            _couple(x0, low, high, c0, c1, diagonal.dtype.type(scale[axis]), total, lower[axis, start:stop])
        line = after


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
def leaving(x0, low, high, c0, c1, unit, row):
    """Set what leaves the fluid cells of a segment towards AIR along an axis."""
    for i in range(row.size):
        below, above = unit * c0[i], unit * c1[i]
        gone = (below if low[i] == AIR else 0.0) + (above if high[i] == AIR else 0.0)
        row[i] = gone if x0[i] == FLUID else 0.0


@serial
def _outlets(cells, shape, walls, axis, scale, values, out, lo, hi):
    nx, line = shape[2], lo
    room, numbers = kinds_room(nx), np.empty((2, nx + SEGMENT), out.dtype)
    while line < hi:
        after = segment_end(line, hi, shape)
        low, high = kinds_beside(cells, room, shape, walls, axis, line, after)
        c0, c1 = segment_faces(values, numbers, shape, axis, line, after)
        start, stop = line * nx, after * nx
        leaving(cells[start:stop], low, high, c0, c1, out.dtype.type(scale), out[start:stop])
        line = after


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
