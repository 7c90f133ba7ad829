"""What has changed on a grid level, numba. Definitions: `neuralsolve.kernels.reference.spans`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.padded import box, over_lines, row_start, strides
from neuralsolve.kernels.cpu.threads import bare, serial


@bare
def _code_changes(before, code, nx, changed, lo, hi):
    for line in range(lo, hi):
        a, b, other = before[line * nx : line * nx + nx], code[line * nx : line * nx + nx], np.uint16(0)
        for i in range(nx):
            other |= a[i] ^ b[i]
        first, last = 0, 0
        if other:
            last = nx
            while a[first] == b[first]:
                first += 1
            while a[last - 1] == b[last - 1]:
                last -= 1
        changed[line, 0], changed[line, 1] = first, last


@bare
def _spans_below(changed, shape, factors, spans):
    (nz, ny, nx), (fz, fy, fx) = shape, factors
    rows = -(-ny // fy)
    for row in range(len(spans)):
        Z, Y = row // rows, row % rows
        first, last = nx, 0
        for z in range(Z * fz, min(Z * fz + fz + 1, nz)):
            for y in range(Y * fy, min(Y * fy + fy + 1, ny)):
                lo, hi = changed[z * ny + y, 0], changed[z * ny + y, 1]
                if lo < hi:
                    first, last = min(first, max(lo - 1, 0)), max(last, hi)
        spans[row, 0] = first // fx if first < last else 0
        spans[row, 1] = -(-last // fx)


@bare
def _spans_around(spans, shape, out):
    nz, ny, nx = shape
    for row in range(len(spans)):
        z, y = row // ny, row % ny
        first, last = nx, 0
        if spans[row, 0] < spans[row, 1]:
            first, last = max(spans[row, 0] - 1, 0), min(spans[row, 1] + 1, nx)
        for k in range(4):
            there = z > 0 if k == 0 else (z < nz - 1 if k == 1 else (y > 0 if k == 2 else y < ny - 1))
            if there:
                other = row - ny if k == 0 else (row + ny if k == 1 else (row - 1 if k == 2 else row + 1))
                if spans[other, 0] < spans[other, 1]:
                    first, last = min(first, spans[other, 0]), max(last, spans[other, 1])
        out[row, 0] = first if first < last else 0
        out[row, 1] = last


@bare
def _widen(spans, row, first, last):
    if spans[row, 0] < spans[row, 1]:
        first, last = min(first, spans[row, 0]), max(last, spans[row, 1])
    spans[row, 0], spans[row, 1] = first, last


@bare
def _spans_join(others, spans):
    for row in range(len(spans)):
        if others[row, 0] < others[row, 1]:
            _widen(spans, row, others[row, 0], others[row, 1])


@bare
def _target(attached, c, position, factors, out):
    """Write the coarse cell of a fine one; no axis is periodic."""
    for axis in range(3):
        out[axis] = position[axis] // factors[axis]
    if attached[c]:
        axis = attached[c] - 1
        out[axis] += 1 if position[axis] % 2 else -1


@serial
def _spans_attached(attached, shape, factors, coarse_shape, spans):
    sides, (nz, ny, nx) = shape, shape
    sz, sy, _, _ = strides(shape)
    position, here, there = np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(3, np.int64)
    for line in range(nz * ny):
        s, count = row_start(shape, line // ny, line % ny), 0
        flags = attached[s : s + nx]
        for i in range(nx):
            count += np.int32(flags[i] > 0)
        if count == 0:
            continue
        for i in range(nx):
            if flags[i] == 0:
                continue
            position[0], position[1], position[2] = line // ny, line % ny, i
            _target(attached, s + i, position, factors, here)
            for way in range(6):
                axis, hop = way // 2, way % 2 * 2 - 1
                step = sz if axis == 0 else (sy if axis == 1 else 1)
                if not 0 <= position[axis] + hop < sides[axis]:
                    continue
                position[axis] += hop
                _target(attached, s + i + hop * step, position, factors, there)
                position[axis] -= hop
                for z in range(min(here[0], there[0]), max(here[0], there[0]) + 1):
                    for y in range(min(here[1], there[1]), max(here[1], there[1]) + 1):
                        row = z * coarse_shape[1] + y
                        _widen(spans, row, min(here[2], there[2]), max(here[2], there[2]) + 1)


def code_changes(before: Tensor, code: Tensor, shape: Sequence[int], changed: Tensor) -> None:
    """Set the spans of lines in which two codes (n,) differ."""
    a, b, out, sides = before.numpy(), code.numpy(), changed.numpy(), box(shape)
    over_lines(sides, a.size, lambda lo, hi: _code_changes(a, b, sides[2], out, lo, hi))


def spans_below(changed: Tensor, shape: Sequence[int], factors: Sequence[int], spans: Tensor) -> None:
    """Set the spans of blocks that have a cell which has changed, or whose upper neighbour has."""
    _spans_below(changed.numpy(), box(shape), box(factors), spans.numpy())


def spans_around(spans: Tensor, coarse_shape: Sequence[int], out: Tensor) -> None:
    """Set the spans of blocks that are in one of `spans`, or next to one along an axis."""
    _spans_around(spans.numpy(), box(coarse_shape), out.numpy())


def spans_join(others: Tensor, spans: Tensor) -> None:
    """Widen spans so that they hold others."""
    _spans_join(others.numpy(), spans.numpy())


def spans_attached(
    attached: Tensor, shape: Sequence[int], factors: Sequence[int], coarse_shape: Sequence[int], spans: Tensor
) -> None:
    """Widen spans of the level below by what `coarse_attached` may add to."""
    _spans_attached(attached.numpy(), box(shape), box(factors), box(coarse_shape), spans.numpy())
