"""Stencil with variable face couplings, numba. Definitions: `neuralsolve.kernels.reference.stencil`.

Built like the constant-coefficient stencil: long loops over flattened cells. A coupling of zero drops
its neighbour, whatever the neighbour's value; lines with a periodic wrap along x, and the cells before
them, are cut out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.stencil import wrapped_offsets
from neuralsolve.kernels.cpu.threads import over_ranges, serial
from neuralsolve.kernels.cpu.vector import numbers, total

CACHED = 8192  # numbers of x that, with the couplings of their cells, stay in the second cache


@serial
def drawn(coupling, value):
    """Return a neighbour's part of the sum, without it 0: selected, since 0 times a NaN is a NaN."""
    product = coupling * value
    return product if coupling != 0 else 0.0


@serial
def _cell(d, cz, cy, cx, x, out, i, offsets):
    """One cell, given the offsets of its six neighbours; returns its part of x.out."""
    zl, zh, yl, yh, xl, xh = offsets
    u = x[i] if d[i] != 0 else 0.0
    around = drawn(cz[i], x[i + zl]) + drawn(cz[i + zh], x[i + zh])
    around += drawn(cy[i], x[i + yl]) + drawn(cy[i + yh], x[i + yh])
    around += drawn(cx[i], x[i + xl]) + drawn(cx[i + xh], x[i + xh])
    value = d[i] * u - around if d[i] != 0 else 0.0
    out[i] = value
    return u * value


@serial
def _cells(d, cz, cy, cx, x, out, start, stop, offsets):
    """Consecutive cells, given the offsets of their neighbours along z and y; returns their part of x.out."""
    zl, zh, yl, yh = offsets
    centre, row, x0 = d[start:stop], out[start:stop], x[start:stop]
    x_low, x_high, cx0, cx1 = (
        x[start - 1 : stop - 1],
        x[start + 1 : stop + 1],
        cx[start:stop],
        cx[start + 1 : stop + 1],
    )
    y_low, y_high, cy0, cy1 = (
        x[start + yl : stop + yl],
        x[start + yh : stop + yh],
        cy[start:stop],
        cy[start + yh : stop + yh],
    )
    z_low, z_high, cz0, cz1 = (
        x[start + zl : stop + zl],
        x[start + zh : stop + zh],
        cz[start:stop],
        cz[start + zh : stop + zh],
    )
    xy = 0.0
    for i in range(row.size):
        u = x0[i] if centre[i] != 0 else 0.0
        around = drawn(cz0[i], z_low[i]) + drawn(cz1[i], z_high[i])
        around += drawn(cy0[i], y_low[i]) + drawn(cy1[i], y_high[i])
        around += drawn(cx0[i], x_low[i]) + drawn(cx1[i], x_high[i])
        value = centre[i] * u - around if centre[i] != 0 else 0.0
        row[i] = value
        xy += u * value
    return xy


@serial
def _lines(d, lower, shape, x, out, lo, hi):
    """Lines (all cells of one z and y) that start among the cells lo..hi; returns their part of x.out."""
    nz, ny, nx = shape
    lo, hi = -(-lo // nx), -(-hi // nx)
    cz, cy, cx = lower[0], lower[1], lower[2]
    n, line, xy = d.size, lo, 0.0
    low, high = wrapped_offsets(0, nx, 1)
    while line < hi:
        z, y = line // ny, line % ny
        zl, zh = wrapped_offsets(z, nz, ny * nx)
        yl, yh = wrapped_offsets(y, ny, nx)
        start, after = line * nx, line + 1
        periodic = cx[start] != 0
        if not periodic:
            last = min(hi, (z + 1) * ny - 1) if 0 < y < ny - 1 else after
            while after < last and cx[after * nx] == 0:
                after += 1
        stop = after * nx
        # The ends of a periodic line wrap; the cell before such a line would take its wrap for a coupling of
        # its own; no cell is in memory before the first of the box, or after its last.
        alone = periodic or stop == n or cx[stop % n] != 0
        if periodic or start == 0:
            xy += _cell(d, cz, cy, cx, x, out, start, (zl, zh, yl, yh, low, high))
            start += 1
        if alone and start < stop:
            stop -= 1
            xy += _cell(d, cz, cy, cx, x, out, stop, (zl, zh, yl, yh, -1, -low))
        if start < stop:
            xy += _cells(d, cz, cy, cx, x, out, start, stop, (zl, zh, yl, yh))
        line = after
    return xy


@serial
def _columns(d, lower, shape, x, out, lo, hi):
    """Lines that start among the cells lo..hi for x (n, k): some lines at a time, which stay in cache."""
    sums = np.zeros(x.shape[1])
    step = max(1, CACHED // (shape[2] * sums.size)) * shape[2]
    for start in range(lo, hi, step):
        stop = min(start + step, hi)
        for j in range(sums.size):
            sums[j] += _lines(d, lower, shape, x[:, j], out[:, j], start, stop)
    return sums


def _product(diagonal: Tensor, lower: Tensor, shape: Sequence[int], x: Tensor, out: Tensor) -> list:
    """Set out = A x, return x.out: the inner product is free beside the memory traffic."""
    nz, ny, nx = shape
    box = (int(nz), int(ny), int(nx))
    d, couplings, X, Y = diagonal.numpy(), lower.numpy(), numbers(x), numbers(out)
    kernel = _lines if X.ndim == 1 else _columns
    return over_ranges(len(X), lambda lo, hi: kernel(d, couplings, box, X, Y, lo, hi), entries=X.size)


def faces_matvec(diagonal: Tensor, lower: Tensor, shape: Sequence[int], x: Tensor, out: Tensor) -> None:
    """out_i = diagonal_i x_i - sum_a (lower[a, i] x_{i - e_a} + lower[a, i + e_a] x_{i + e_a})."""
    _product(diagonal, lower, shape, x, out)


def faces_matvec_dot(diagonal: Tensor, lower: Tensor, shape: Sequence[int], x: Tensor, out: Tensor) -> Tensor:
    """`faces_matvec`, and the inner product x.out over the cells inside, () or (k,)."""
    return total(_product(diagonal, lower, shape, x, out), x)
