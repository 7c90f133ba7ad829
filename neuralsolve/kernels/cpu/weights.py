"""Weights of interpolation on grid levels, numba. Definition: `neuralsolve.kernels.reference.coarsen`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.padded import box, copy_line, over_spans, row_start, strides
from neuralsolve.kernels.cpu.threads import bare, bare_unchecked, serial
from neuralsolve.kernels.cpu.transfers import OWN, WHOLE


@bare_unchecked
def _sides(faces, axis, s, step, n, upper, room):
    """Couplings along z or y that lead out of the blocks, to the upper side if so, and back into them."""
    low, high = faces[axis, s : s + n], faces[axis, s + step : s + step + n]
    out, back = room[9, :n], room[10, :n]
    copy_line(high if upper else low, out)
    copy_line(low if upper else high, back)


@bare_unchecked
def _sides_x(faces, s, n, room):
    """Couplings along x that lead out of the blocks, to the lower side for even cells, and back into them."""
    low, high, odd = faces[2, s : s + n], faces[2, s + 1 : s + 1 + n], room[13, :n]
    out, back = room[9, :n], room[10, :n]
    for i in range(n):
        a, b = low[i], high[i]
        out[i] = b if odd[i] > 0 else a
    for i in range(n):
        a, b = low[i], high[i]
        back[i] = a if odd[i] > 0 else b


@bare_unchecked
def _without(attached, s, step, n, room):
    """Leave out the partners of cells beside attached ones: those say nothing about a block."""
    lower, upper, back = attached[s - step : s - step + n], attached[s + step : s + step + n], room[10, :n]
    count = 0
    for i in range(n):
        count += np.int32(lower[i] | upper[i])
    if count > 0:
        for i in range(n):
            value = back[i]
            back[i] = value if lower[i] | upper[i] == 0 else np.float32(0)


@bare_unchecked
def _outlets(faces, outlets, axis, s, n, room):
    """Outlets along an axis; they are zero where all of a cell are."""
    gone, fixed, total = room[11, :n], faces[3, s : s + n], np.float32(0)
    for i in range(n):
        total += fixed[i]
    if total > 0:
        copy_line(outlets[axis, s : s + n], gone)
    else:
        gone[:] = 0


@bare_unchecked
def _axis_weights(axis, n, scale, room):
    """Weights along one axis: half of the outward part of a cell's couplings, and its strength there.

    One loop per result: a loop that writes to several arrays is not vectorised.
    """
    zero, half = np.float32(0), np.float32(0.5)
    out, back, outlets = room[9, :n], room[10, :n], room[11, :n]
    w, fluid, strength = room[axis, :n], room[3 + axis, :n], room[6 + axis, :n]
    for i in range(n):
        direct, gone, inward = out[i], outlets[i], back[i]
        outward = direct if direct > 0 else gone
        part = half * outward / (outward + inward)
        w[i] = part if (inward > 0) & (outward > 0) else zero
    for i in range(n):
        direct, gone, inward = out[i], outlets[i], back[i]
        outward = direct if direct > 0 else gone
        strength[i] = scale * (outward if outward > inward else inward)
    for i in range(n):
        fluid[i] = np.float32(1) if out[i] > 0 else zero


@bare
def _weigh_line(faces, outlets, attached, nominal, shape, factors, z, y, first, end, room):
    """Fill the first nine rows of room: w, what leads to fluid, and strengths, of a piece of a line."""
    sz, sy, _, _ = strides(shape)
    n, s = end - first, row_start(shape, z, y) + first
    for axis in range(3):
        if factors[axis] == 1:
            continue
        step, position = sz if axis == 0 else (sy if axis == 1 else 1), z if axis == 0 else y
        if axis == 2:
            _sides_x(faces, s, n, room)
            if end == shape[2] and end % 2:
                room[10, n - 1] = 0  # a last cell of an odd side has no partner
        else:
            _sides(faces, axis, s, step, n, position % 2 == 1, room)
            if position % 2 == 0 and position == shape[axis] - 1:
                room[10, :n] = 0
        if attached.size > 0:
            _without(attached, s, step, n, room)
        _outlets(faces, outlets, axis, s, n, room)
        _axis_weights(axis, n, np.float32(1) / nominal[axis], room)


@serial
def _level_weights(faces, outlets, inverse, attached, nominal, shape, factors, spans, weights, lo, hi):
    """Weights of P of the cells in rows lo..hi of blocks, on a level with couplings of its own."""
    sides, (nz, ny, nx), (fz, fy, fx) = shape, shape, factors
    rows = -(-ny // fy)
    room = np.zeros((16, nx), np.float32)  # w, fluid, strength of three axes, and what these are made from
    room[13, 1::2] = 1
    for row in range(lo, hi):
        Z, Y = row // rows, row % rows
        first, end = spans[row, 0] * fx, min(spans[row, 1] * fx, nx)
        n = end - first
        if n <= 0:
            continue
        for z in range(Z * fz, min(Z * fz + fz, nz)):
            for y in range(Y * fy, min(Y * fy + fy, ny)):
                _weigh_line(faces, outlets, attached, nominal, sides, factors, z, y, first, end, room)
                s = row_start(shape, z, y) + first
                _store_weights(room, inverse, weights, s, n)
                if attached.size > 0:
                    _store_attached(attached, weights, s, n)


@bare_unchecked
def _store_weights(room, inverse, weights, s, nx):
    """Weigh the axes by their strengths, and store all as bytes."""
    one, inverse = np.float32(1), inverse[s : s + nx]
    s0, s1, s2, part, total = room[6, :nx], room[7, :nx], room[8, :nx], room[14, :nx], room[15, :nx]
    for i in range(nx):
        strongest = s1[i] if s1[i] > s2[i] else s2[i]
        strongest = s0[i] if s0[i] > strongest else strongest
        share = one / strongest
        part[i] = share if strongest > 0 else one
    total[:] = 0
    for axis in range(3):
        wa, sa = room[axis, :nx], room[6 + axis, :nx]
        for i in range(nx):
            wa[i] *= sa[i] * part[i]
        for i in range(nx):
            total[i] += wa[i]
    for i in range(nx):
        total[i] = np.float32(WHOLE) / (total[i] if total[i] > one else one)
    own = weights[OWN, s : s + nx]
    for i in range(nx):
        own[i] = WHOLE if inverse[i] > 0 else 0
    for axis in range(3):
        wa, fa, taken = room[axis, :nx], room[3 + axis, :nx], weights[axis, s : s + nx]
        for i in range(nx):
            taken[i] = np.uint8(np.int32(total[i] * wa[i]))
        for i in range(nx):
            part_taken, left = taken[i], own[i]
            own[i] = left - part_taken if left > 0 else left
        for i in range(nx):
            part_taken, fluid = taken[i], fa[i]
            taken[i] = part_taken if fluid > 0 else np.uint8(0)


@bare
def _store_attached(attached, weights, s, nx):
    for c in range(s, s + nx):
        if attached[c]:
            for axis in range(3):
                weights[axis, c] = WHOLE if attached[c] == 1 + axis else 0
            weights[OWN, c] = 0


def level_weights(
    faces: Tensor,
    outlets: Tensor,
    inverse: Tensor,
    attached: Tensor,
    nominal: Sequence[float],
    shape: Sequence[int],
    factors: Sequence[int],
    spans: Tensor,
    out: Tensor,
) -> None:
    """Fill the weights of P of a level with couplings of its own."""
    c, o, d, w, sides, f = (
        faces.numpy(),
        outlets.numpy(),
        inverse.numpy(),
        out.numpy(),
        box(shape),
        box(factors),
    )
    usual, a, parts = np.array(nominal, np.float32), attached.numpy(), spans.numpy()
    over_spans(parts, f, lambda lo, hi: _level_weights(c, o, d, a, usual, sides, f, parts, w, lo, hi))
