"""Transfers between grid levels, numba. Definitions and the layout: `neuralsolve.kernels.reference.padded`.

Both go by rows of the coarse box: what a block's lines share is worked out once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.padded import box, over_lines, row_start
from neuralsolve.kernels.cpu.threads import serial

OWN, X = 3, 2  # rows of the weights: towards the neighbours along z, y, x, and of the cell's own block
WHOLE = 252  # weights are stored in bytes, as multiples of 1/252: a half and a quarter are exact
UNIT = np.float32(1 / WHOLE)


@serial
def restrict_range(r, weights, shape, factors, coarse_shape, gain, out, lo, hi):
    """Rows lo..hi of the coarse box: out = gain P^T r; r holds zeros, or the other side, around the box."""
    nz, ny, nx = shape
    fz, fy, fx = factors
    width, unit = nx + 2, gain * UNIT
    whole, flow = np.empty(width, np.float32), np.empty(width, np.float32)
    for row in range(lo, hi):
        Z, Y = row // coarse_shape[1], row % coarse_shape[1]
        whole[:] = 0
        flow[:] = 0
        for z in range(Z * fz, min(Z * fz + fz, nz)):
            for y in range(Y * fy, min(Y * fy + fy, ny)):
                s = row_start(shape, z, y) - 1
                v, own, wx = r[s : s + width], weights[OWN, s : s + width], weights[X, s : s + width]
                for i in range(width):
                    whole[i] += np.float32(own[i]) * v[i]
                    flow[i] += np.float32(wx[i]) * v[i]
            if fy == 2:
                _add_sides(r, weights[1], shape, 1, Y, z, whole)
        if fz == 2:
            for y in range(Y * fy, min(Y * fy + fy, ny)):
                _add_sides(r, weights[0], shape, 0, Z, y, whole)
        s = row_start(coarse_shape, Z, Y)
        target = out[s : s + coarse_shape[2]]
        if fx == 1:
            source = whole[1 : nx + 1]
            for i in range(nx):
                target[i] = unit * source[i]
            continue
        if nx % 2:
            flow[0] = 0
        for i in range(nx // 2):
            target[i] = unit * (whole[2 * i + 1] + whole[2 * i + 2] + flow[2 * i] + flow[2 * i + 3])
        if nx % 2:
            target[nx // 2] = unit * (whole[nx] + flow[nx - 1] + flow[nx + 1])


@serial
def _add_sides(r, weights, shape, axis, block, across, whole):
    """Add what the lines before and after a block along z or y give to it.

    Across the seam of an odd side nothing comes up: the last block is a single cell, which looks down.
    """
    n = shape[axis]
    before, after = 2 * block - 1, min(2 * block + 2, n)
    for line in (before, after):
        if line == -1 and n % 2:
            continue
        at = row_start(shape, line, across) if axis == 0 else row_start(shape, across, line)
        v, w = r[at - 1 : at - 1 + whole.size], weights[at - 1 : at - 1 + whole.size]
        for i in range(whole.size):
            whole[i] += np.float32(w[i]) * v[i]


@serial
def _spread(values, first, factor, out):
    """Repeat coarse values, from the first on, over the fine cells of their blocks."""
    v = values[first : first + (out.size + factor - 1) // factor]
    if factor == 1:
        for i in range(out.size):
            out[i] = v[i]
        return
    for i in range(out.size // 2):
        out[2 * i] = v[i]
        out[2 * i + 1] = v[i]
    if out.size % 2:
        out[out.size - 1] = v[v.size - 1]


@serial
def _spread_sides(values, first, out):
    """Give every fine cell the coarse value on its side of the block along x."""
    low, high = values[first - 1 :], values[first + 1 :]
    for i in range(out.size // 2):
        out[2 * i] = low[i]
        out[2 * i + 1] = high[i]
    if out.size % 2:
        out[out.size - 1] = low[out.size // 2]


@serial
def _blend(u, w, wz, wy, wx, own, ez, ey, ex):
    for i in range(u.size):
        sides = np.float32(wz[i]) * ez[i] + np.float32(wy[i]) * ey[i] + np.float32(wx[i]) * ex[i]
        u[i] += UNIT * (np.float32(w[i]) * own[i] + sides)


@serial
def prolong_range(e, weights, shape, factors, coarse_shape, x, lo, hi):
    """Rows lo..hi of the coarse box: x += P e on their blocks."""
    nz, ny, nx = shape
    fz, fy, fx = factors
    own, ex = np.empty(nx, np.float32), np.zeros(nx, np.float32)
    ez, ey = np.zeros((2, nx), np.float32), np.zeros((2, nx), np.float32)
    for row in range(lo, hi):
        Z, Y = row // coarse_shape[1], row % coarse_shape[1]
        c = row_start(coarse_shape, Z, Y)
        _spread(e, c, fx, own)
        if fx == 2:
            _spread_sides(e, c, ex)
        for k in range(2):  # along an axis that is not coarsened no weight refers to a neighbour
            if fy == 2:
                _spread(e, row_start(coarse_shape, Z, Y + 2 * k - 1), fx, ey[k])
            if fz == 2:  # the only coarse plane is its own neighbour, if any
                there = Z + 2 * k - 1 if coarse_shape[0] > 1 else Z
                _spread(e, row_start(coarse_shape, there, Y), fx, ez[k])
        for z in range(Z * fz, min(Z * fz + fz, nz)):
            for y in range(Y * fy, min(Y * fy + fy, ny)):
                s = row_start(shape, z, y)
                wz, wy, wx = weights[0, s : s + nx], weights[1, s : s + nx], weights[X, s : s + nx]
                _blend(x[s : s + nx], weights[OWN, s : s + nx], wz, wy, wx, own, ez[z % 2], ey[y % 2], ex)


def level_restrict(
    r: Tensor,
    weights: Tensor,
    shape: Sequence[int],
    factors: Sequence[int],
    coarse_shape: Sequence[int],
    gain: float,
    out: Tensor,
) -> None:
    """Set out on the coarse level to gain P^T r."""
    R, w, C, sides, f, coarse = (
        r.numpy(),
        weights.numpy(),
        out.numpy(),
        box(shape),
        box(factors),
        box(coarse_shape),
    )
    g = np.float32(gain)
    over_lines(coarse, R.size, lambda lo, hi: restrict_range(R, w, sides, f, coarse, g, C, lo, hi))


def level_prolong(
    e: Tensor,
    weights: Tensor,
    shape: Sequence[int],
    factors: Sequence[int],
    coarse_shape: Sequence[int],
    x: Tensor,
) -> None:
    """Add P e to x."""
    E, w, X, sides, f, coarse = (
        e.numpy(),
        weights.numpy(),
        x.numpy(),
        box(shape),
        box(factors),
        box(coarse_shape),
    )
    over_lines(coarse, X.size, lambda lo, hi: prolong_range(E, w, sides, f, coarse, X, lo, hi))
