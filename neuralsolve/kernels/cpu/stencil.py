"""Constant-coefficient stencil, numba. Definitions: `neuralsolve.kernels.reference.stencil`.

Cells of a plane are flattened, so the neighbours of consecutive cells are consecutive too, at six fixed
offsets: long loops without branches, which the compiler vectorises. A cell reads a wrong neighbour only
where its code has no bit for that neighbour, and the value is then dropped (selected away, not
multiplied by zero: it may be NaN). Lines with a periodic wrap along x are cut out of the long loops.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.threads import over_ranges, serial
from neuralsolve.kernels.cpu.vector import BLOCK, folded, numbers, total
from neuralsolve.kernels.reference.stencil import AIR, DIRICHLET, FLUID, PERIODIC, SOLID

Z_LOW, Z_HIGH, Y_LOW, Y_HIGH, X_LOW, X_HIGH, INSIDE = 1, 2, 4, 8, 16, 32, 4096
ALL_FLUID = INSIDE | 2 << 6 | 2 << 8 | 2 << 10 | 63
SEGMENT = 4096  # cells of whole lines whose codes are made in one loop


@serial
def wrapped_offsets(position, side, stride):
    """Offsets to the lower and the upper neighbour along an axis, round the box at its walls."""
    around = (side - 1) * stride
    return (-stride if position > 0 else around), (stride if position < side - 1 else -around)


@serial
def segment_end(line, hi, shape):
    """Line after those, of a plane and not at its edge, whose neighbours lie at the same offsets."""
    _, ny, nx = shape
    inner = 0 < line % ny < ny - 1
    return min(hi, (line // ny + 1) * ny - 1, line + 1 + SEGMENT // nx) if inner else line + 1


@serial
def kinds_room(nx):
    """Room for the kinds of neighbours of a segment of lines: all SOLID, all AIR, and two along x."""
    room = np.empty((4, nx + SEGMENT), np.uint8)
    room[SOLID], room[AIR] = SOLID, AIR
    return room


@serial
def _beside(cells, room, start, stop, position, side, stride, wall, up):
    """Cells next to those of start..stop along z or y: of the box, or what its wall stands for."""
    low, high = wrapped_offsets(position, side, stride)
    at_wall = position == side - 1 if up else position == 0
    if at_wall and (wall != PERIODIC or side == 1):  # a periodic side of one cell is closed
        return room[AIR if wall == DIRICHLET else SOLID, : stop - start]
    offset = high if up else low
    return cells[start + offset : stop + offset]


@serial
def _beside_x(cells, room, start, stop, nx, walls):
    """Cells before and after those of start..stop, of whole lines, along x."""
    size, around = stop - start, walls[4] == PERIODIC and nx > 1
    low, high = room[FLUID, :size], room[3, :size]
    low[1:], high[: size - 1] = cells[start : stop - 1], cells[start + 1 : stop]
    ends = AIR if walls[4] == DIRICHLET else SOLID, AIR if walls[5] == DIRICHLET else SOLID
    for first in range(0, size, nx):
        last = first + nx - 1
        low[first] = cells[start + last] if around else ends[0]
        high[last] = cells[start + first] if around else ends[1]
    return low, high


@serial
def kinds_beside(cells, room, shape, walls, axis, line, after):
    """Kinds of the lower and the upper neighbours along an axis of a segment of lines."""
    nz, ny, nx = shape
    start, stop = line * nx, after * nx
    if axis == 2:
        return _beside_x(cells, room, start, stop, nx, walls)
    position, side, stride = (line // ny, nz, ny * nx) if axis == 0 else (line % ny, ny, nx)
    low = _beside(cells, room, start, stop, position, side, stride, walls[2 * axis], False)
    return low, _beside(cells, room, start, stop, position, side, stride, walls[2 * axis + 1], True)


@serial
def _code(cells, shape, walls, out, lo, hi):
    """Codes of the lines that start among the cells lo..hi."""
    nx = shape[2]
    line, hi, room = -(-lo // nx), -(-hi // nx), kinds_room(nx)
    while line < hi:
        after = segment_end(line, hi, shape)
        z_low, z_high = kinds_beside(cells, room, shape, walls, 0, line, after)
        y_low, y_high = kinds_beside(cells, room, shape, walls, 1, line, after)
        x_low, x_high = kinds_beside(cells, room, shape, walls, 2, line, after)
        x0, row = cells[line * nx : after * nx], out[line * nx : after * nx]
        for i in range(row.size):
            # FLUID 0, SOLID 1, AIR 2: k & 1 says SOLID, k + 1 >> 1 not FLUID
            zl, zh, yl, yh = np.int32(z_low[i]), np.int32(z_high[i]), np.int32(y_low[i]), np.int32(y_high[i])
            xl, xh = np.int32(x_low[i]), np.int32(x_high[i])
            solid = ((zl & 1) + (zh & 1)) << 6 | ((yl & 1) + (yh & 1)) << 8 | ((xl & 1) + (xh & 1)) << 10
            other = (zl + 1) >> 1 | (zh + 1) & 2 | ((yl + 1) & 2) << 1 | ((yh + 1) & 2) << 2
            other |= ((xl + 1) & 2) << 3 | ((xh + 1) & 2) << 4
            row[i] = (ALL_FLUID - solid - other) if x0[i] == FLUID else 0
        line = after


def stencil_code(cells: Tensor, walls: Tensor, out: Tensor) -> None:
    """Describe every cell's row of the graph Laplacian in 16 bits: see the definition."""
    nz, ny, nx = cells.shape
    kinds, sides, bits = cells.reshape(-1).numpy(), tuple(walls.tolist()), out.numpy()
    over_ranges(len(bits), lambda lo, hi: _code(kinds, (nz, ny, nx), sides, bits, lo, hi))


@serial
def _value(bits, u, z_low, z_high, y_low, y_high, x_low, x_high, scale):
    z = np.int32((bits >> 6) & 3) * u - (z_low if bits & Z_LOW else 0.0) - (z_high if bits & Z_HIGH else 0.0)
    y = np.int32((bits >> 8) & 3) * u - (y_low if bits & Y_LOW else 0.0) - (y_high if bits & Y_HIGH else 0.0)
    x = np.int32((bits >> 10) & 3) * u - (x_low if bits & X_LOW else 0.0) - (x_high if bits & X_HIGH else 0.0)
    return scale[0] * z + scale[1] * y + scale[2] * x


@serial
def _cell(code, x, out, i, offsets, scale):
    """One cell, given the offsets of its six neighbours; returns its part of x.out."""
    zl, zh, yl, yh, xl, xh = offsets
    bits = code[i]
    u = x[i] if bits & INSIDE else 0.0
    value = _value(bits, u, x[i + zl], x[i + zh], x[i + yl], x[i + yh], x[i + xl], x[i + xh], scale)
    out[i] = value
    return u * value


@serial
def _cells(code, x, out, start, stop, offsets, scale):
    """Consecutive cells, given the offsets of their neighbours along z and y; returns their part of x.out."""
    zl, zh, yl, yh = offsets
    bits, row, x0 = code[start:stop], out[start:stop], x[start:stop]
    x_low, x_high = x[start - 1 : stop - 1], x[start + 1 : stop + 1]
    y_low, y_high = x[start + yl : stop + yl], x[start + yh : stop + yh]
    z_low, z_high = x[start + zl : stop + zl], x[start + zh : stop + zh]
    xy = 0.0
    for i in range(row.size):
        u = x0[i] if bits[i] & INSIDE else 0.0
        value = _value(bits[i], u, z_low[i], z_high[i], y_low[i], y_high[i], x_low[i], x_high[i], scale)
        row[i] = value
        xy += u * value
    return xy


@serial
def _lines(code, scale, shape, x, out, lo, hi):
    """Lines (all cells of one z and y) that start among the cells lo..hi; returns their part of x.out."""
    nz, ny, nx = shape
    lo, hi = -(-lo // nx), -(-hi // nx)
    n, line, xy = code.size, lo, 0.0
    low, high = wrapped_offsets(0, nx, 1)
    while line < hi:
        z, y = line // ny, line % ny
        zl, zh = wrapped_offsets(z, nz, ny * nx)
        yl, yh = wrapped_offsets(y, ny, nx)
        start, after = line * nx, line + 1
        periodic = (code[start] & X_LOW) != 0
        if not periodic:
            last = min(hi, (z + 1) * ny - 1) if 0 < y < ny - 1 else after
            while after < last and not code[after * nx] & X_LOW:
                after += 1
        stop = after * nx
        # The ends of a periodic line wrap; no cell is in memory before the first one or after the last.
        if periodic or start == 0:
            xy += _cell(code, x, out, start, (zl, zh, yl, yh, low, high), scale)
            start += 1
        if (periodic or stop == n) and start < stop:
            stop -= 1
            xy += _cell(code, x, out, stop, (zl, zh, yl, yh, -1, -low), scale)
        if start < stop:
            xy += _cells(code, x, out, start, stop, (zl, zh, yl, yh), scale)
        line = after
    return xy


@serial
def repeat(line, k, wide):
    """wide[i * k + j] = line[i]: the loop over the columns j is the outer one, since they are few."""
    for j in range(k):
        columns = wide[j:]
        for i in range(line.size):
            columns[i * k] = line[i]


@serial
def line_cuts(nx, whole):
    """Pieces (first, last, x_low, x_high) of a line: all of it, or its two ends, which wrap, and the rest."""
    around = nx - 1
    head = 0 if whole else 1
    tail = nx if whole else max(1, nx - 1)
    return (0, head, around, min(1, around)), (head, tail, -1, 1), (tail, nx, -1, -around)


@serial
def _wide_cells(wide, x, out, start, cut, offsets, k, scale, lanes):
    """Cells of one piece of a line for x (n, k) flat, their codes repeated for the columns."""
    first, last, xl, xh = cut
    zl, zh, yl, yh = offsets
    for a in range(first * k, last * k, lanes.size):
        b = min(a + lanes.size, last * k)
        p, q = start * k + a, start * k + b
        bits, row, x0 = wide[a:b], out[p:q], x[p:q]
        x_low, x_high = x[p + xl * k : q + xl * k], x[p + xh * k : q + xh * k]
        y_low, y_high = x[p + yl * k : q + yl * k], x[p + yh * k : q + yh * k]
        z_low, z_high = x[p + zl * k : q + zl * k], x[p + zh * k : q + zh * k]
        for i in range(row.size):
            u = x0[i] if bits[i] & INSIDE else 0.0
            value = _value(bits[i], u, z_low[i], z_high[i], y_low[i], y_high[i], x_low[i], x_high[i], scale)
            row[i] = value
            lanes[i] += u * value


@serial
def _columns(code, scale, shape, x, out, k, lo, hi):
    """Lines that start among the cells lo..hi for x (n, k) flat; returns their part of x.out, (k,)."""
    nz, ny, nx = shape
    lanes, wide = np.zeros(k * max(1, BLOCK // k)), np.empty(nx * k, np.uint16)
    for line in range(-(-lo // nx), -(-hi // nx)):
        zl, zh = wrapped_offsets(line // ny, nz, ny * nx)
        yl, yh = wrapped_offsets(line % ny, ny, nx)
        start = line * nx
        repeat(code[start : start + nx], k, wide)
        cuts = line_cuts(nx, 0 < line < nz * ny - 1 and not code[start] & X_LOW)
        for piece in range(3):
            _wide_cells(wide, x, out, start, cuts[piece], (zl, zh, yl, yh), k, scale, lanes)
    return folded(lanes, k)


@serial
def _systems(code, scale, shape, x, out, lo, hi):
    """Lines that start among the cells lo..hi, a code for every column; returns their part of x.out, (k,)."""
    sums = np.zeros(x.shape[1])
    for j in range(sums.size):
        sums[j] = _lines(code[:, j], scale, shape, x[:, j], out[:, j], lo, hi)
    return sums


def _product(code: Tensor, scale: Sequence[float], shape: Sequence[int], x: Tensor, out: Tensor) -> list:
    """Set out = A x, return x.out: the inner product is free beside the memory traffic."""
    sz, sy, sx = scale
    nz, ny, nx = shape
    scales, box = (float(sz), float(sy), float(sx)), (int(nz), int(ny), int(nx))
    bits, X, Y = code.numpy(), numbers(x), numbers(out)
    bits = bits.reshape(-1) if X.ndim == 1 else bits
    if X.ndim == 1:
        return over_ranges(len(X), lambda lo, hi: _lines(bits, scales, box, X, Y, lo, hi))
    n, k = X.shape
    if bits.ndim > 1:
        return over_ranges(n, lambda lo, hi: _systems(bits, scales, box, X, Y, lo, hi), entries=n * k)
    X, Y = X.reshape(-1), Y.reshape(-1)
    return over_ranges(n, lambda lo, hi: _columns(bits, scales, box, X, Y, k, lo, hi), entries=n * k)


def stencil_matvec(
    code: Tensor, scale: Sequence[float], shape: Sequence[int], x: Tensor, out: Tensor
) -> None:
    """out_i = sum_a scale_a (open_a(i) x_i - sum of x over the fluid neighbours along a), 0 outside FLUID."""
    _product(code, scale, shape, x, out)


def stencil_matvec_dot(
    code: Tensor, scale: Sequence[float], shape: Sequence[int], x: Tensor, out: Tensor
) -> Tensor:
    """`stencil_matvec`, and the inner product x.out over the fluid cells, () or (k,)."""
    return total(_product(code, scale, shape, x, out), x)
