"""Transfers between grid levels, numba. Definitions and the layout: `neuralsolve.kernels.reference.padded`.

Both go by rows of the coarse box: what a block's lines share is worked out once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.padded import box, over_lines, row_start, strides
from neuralsolve.kernels.cpu.threads import bare

OWN, X = 3, 2  # rows of the weights: towards the neighbours along z, y, x, and of the cell's own block
WHOLE = 252  # weights are stored in bytes, as multiples of 1/252: a half and a quarter are exact
UNIT = np.float32(1 / WHOLE)


@bare
def restrict_row(r, ring, weights, shape, factors, coarse_shape, Z, Y, gain, out, whole, flow):
    """Set row (Z, Y) of the coarse box to gain P^T r; `whole` and `flow` are room for a line.

    `ring` is (start, size, mask, base): line y of plane z of r starts, with the cell before it, at start
    + (z & mask) size + (y - base) (nx + 2).
    """
    start, size, mask, base = ring
    nz, ny, _ = shape
    fz, fy, fx = factors
    S, L, first, _ = strides(shape)
    for i in range(whole.size):
        whole[i], flow[i] = 0, 0
    y0, count_y, count_z = Y * fy, min(fy, ny - Y * fy), min(fz, nz - Z * fz)
    for z in range(Z * fz, Z * fz + count_z):
        line, at = start + (z & mask) * size + (y0 - base) * L, first - 1 + z * S + y0 * L
        _add_lines(r, line, L, weights, OWN, at, L, count_y, whole)
        if fx == 2:
            _add_lines(r, line, L, weights, X, at, L, count_y, flow)
        if fy == 2:  # the lines before and after the block
            seam = Y == 0 and ny % 2 == 1
            _add_sides(r, line - L, (count_y + 1) * L, weights, 1, at - L, (count_y + 1) * L, seam, whole)
    if fz == 2:  # the planes before and after it
        seam, ahead = Z == 0 and nz % 2 == 1, (count_z + 1) * S
        line, at = start + (y0 - base) * L, first - 1 + (Z * fz - 1) * S + y0 * L
        before, after = line + (Z * fz - 1 & mask) * size, line + (Z * fz + count_z & mask) * size
        for y in range(count_y):
            _add_sides(r, before + y * L, after - before, weights, 0, at + y * L, ahead, seam, whole)
    _gather(whole, flow, fx, gain * UNIT, out, row_start(coarse_shape, Z, Y))


@bare
def _add_lines(r, start, step, weights, row, at, ahead, count, sums):
    """Add one or two lines, weighted, to sums; the second one lies `step` and `ahead` further on."""
    n = sums.size
    v, w = r[start : start + n], weights[row, at : at + n]
    if count == 1:
        for i in range(n):
            sums[i] += np.float32(w[i]) * v[i]
        return
    v2, w2 = r[start + step : start + step + n], weights[row, at + ahead : at + ahead + n]
    for i in range(n):
        sums[i] += np.float32(w[i]) * v[i] + np.float32(w2[i]) * v2[i]


@bare
def _add_sides(r, start, step, weights, row, at, ahead, seam, sums):
    """Add the lines on both sides of a block.

    Across the seam of an odd side nothing comes up to the first one: the last block is one cell, which looks
    down.
    """
    if seam:
        _add_lines(r, start + step, 0, weights, row, at + ahead, 0, 1, sums)
    else:
        _add_lines(r, start, step, weights, row, at, ahead, 2, sums)


@bare
def _gather(whole, flow, fx, unit, out, start):
    """Sum a line over blocks along x, with what flows in from the cells beside them."""
    nx = whole.size - 2
    target = out[start : start + -(-nx // fx)]
    if fx == 1:
        source = whole[1:]
        for i in range(nx):
            target[i] = unit * source[i]
        return
    if nx % 2:
        flow[0] = 0
    for i in range(nx // 2):
        target[i] = unit * (whole[2 * i + 1] + whole[2 * i + 2] + flow[2 * i] + flow[2 * i + 3])
    if nx % 2:
        target[nx // 2] = unit * (whole[nx] + flow[nx - 1] + flow[nx + 1])


@bare
def prolong_line(e, weights, shape, factors, coarse_shape, z, y, x, out, to):
    """Set a line of `out`, from `to` on, to that of x + P e; the cells before and after it come along."""
    nx = shape[2]
    fz, fy, fx = factors
    S, L, first, _ = strides(shape)
    Sc, Lc, first_c, _ = strides(coarse_shape)
    at, c = first + z * S + y * L, first_c + z // fz * Sc + y // fy * Lc
    ez = c + (2 * (z % 2) - 1) * Sc if fz == 2 else c  # along other axes no weight refers to a neighbour
    ey = c + (2 * (y % 2) - 1) * Lc if fy == 2 else c
    out[to], out[to + nx + 1] = x[at - 1], x[at + nx]
    u, v = x[at : at + nx], out[to + 1 : to + 1 + nx]
    w, wz, wy, wx = (
        weights[OWN, at : at + nx],
        weights[0, at : at + nx],
        weights[1, at : at + nx],
        weights[X, at : at + nx],
    )
    own, side_z, side_y = e[c:], e[ez:], e[ey:]
    if fx == 1:
        for i in range(nx):
            sides = np.float32(wz[i]) * side_z[i] + np.float32(wy[i]) * side_y[i]
            v[i] = u[i] + UNIT * (np.float32(w[i]) * own[i] + sides)
        return
    low, high = e[c - 1 :], e[c + 1 :]
    for i in range(nx // 2):
        j = 2 * i
        sides = np.float32(wz[j]) * side_z[i] + np.float32(wy[j]) * side_y[i] + np.float32(wx[j]) * low[i]
        v[j] = u[j] + UNIT * (np.float32(w[j]) * own[i] + sides)
        sides = np.float32(wz[j + 1]) * side_z[i] + np.float32(wy[j + 1]) * side_y[i]
        sides += np.float32(wx[j + 1]) * high[i]
        v[j + 1] = u[j + 1] + UNIT * (np.float32(w[j + 1]) * own[i] + sides)
    if nx % 2:
        i, j = nx // 2, nx - 1
        sides = np.float32(wz[j]) * side_z[i] + np.float32(wy[j]) * side_y[i] + np.float32(wx[j]) * low[i]
        v[j] = u[j] + UNIT * (np.float32(w[j]) * own[i] + sides)


@bare
def restrict_range(r, weights, shape, factors, coarse_shape, gain, out, whole, flow, lo, hi):
    """Rows lo..hi of the coarse box: out = gain P^T r; r holds zeros, or the other side, around the box."""
    S, _, first, _ = strides(shape)
    whole_box = first - 1, S, -1, 0
    for row in range(lo, hi):
        Z, Y = row // coarse_shape[1], row % coarse_shape[1]
        restrict_row(r, whole_box, weights, shape, factors, coarse_shape, Z, Y, gain, out, whole, flow)


@bare
def prolong_range(e, weights, shape, factors, coarse_shape, x, out, lo, hi):
    """Lines lo..hi of the fine box: out = x + P e."""
    S, L, first, _ = strides(shape)
    for line in range(lo, hi):
        z, y = line // shape[1], line % shape[1]
        prolong_line(e, weights, shape, factors, coarse_shape, z, y, x, out, first - 1 + z * S + y * L)


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

    def kernel(lo: int, hi: int) -> None:
        whole, flow = np.empty((2, sides[2] + 2), np.float32)
        restrict_range(R, w, sides, f, coarse, g, C, whole, flow, lo, hi)

    over_lines(coarse, R.size, kernel)


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
    over_lines(sides, X.size, lambda lo, hi: prolong_range(E, w, sides, f, coarse, X, X, lo, hi))
