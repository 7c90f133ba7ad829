"""Smoothing and residual on some lines of a plane of a grid level, numba.

Formulas are those of `neuralsolve.kernels.reference.padded`. `at` is the place of the first cell in the
vectors of the level, S and L the distances of neighbours along z and y in it, `k` the couplings where they
are constant. x and what is written may lie elsewhere, as in the rings of `neuralsolve.kernels.cpu.tiles`:
`place` holds where the first cell lies in the planes of x below, of, and above the present one, `to` where it
is written.
"""

from __future__ import annotations

import numpy as np

from neuralsolve.kernels.cpu.threads import bare


@bare
def _beside(v, at, size, S, L):
    """Return the six neighbours of `size` cells."""
    z_low, z_high = v[at - S : at - S + size], v[at + S : at + S + size]
    y_low, y_high = v[at - L : at - L + size], v[at + L : at + L + size]
    return z_low, z_high, y_low, y_high, v[at - 1 : at - 1 + size], v[at + 1 : at + 1 + size]


@bare
def _around(x, place, size, L):
    """Return the six neighbours in planes of a ring, and the cells themselves."""
    low, here, high = place
    y_low, y_high = x[here - L : here - L + size], x[here + L : here + L + size]
    x_low, own, x_high = x[here - 1 : here - 1 + size], x[here : here + size], x[here + 1 : here + 1 + size]
    return x[low : low + size], x[high : high + size], y_low, y_high, x_low, x_high, own


@bare
def _couplings(faces, at, size, S, L):
    """Return the couplings to the six neighbours, and to fixed values."""
    cz, cy, cx = faces[0], faces[1], faces[2]
    z_low, z_high = cz[at : at + size], cz[at + S : at + S + size]
    y_low, y_high = cy[at : at + size], cy[at + L : at + L + size]
    x_low, x_high = cx[at : at + size], cx[at + 1 : at + 1 + size]
    return z_low, z_high, y_low, y_high, x_low, x_high, faces[3, at : at + size]


@bare
def starts_with_two(steps):
    """Whether `start_cells` can do the first two steps: a third one must not ask for what was before."""
    return len(steps) == 2 or (len(steps) > 2 and steps[2, 1] == 0)


@bare
def start_cells(b, inverse, k, faces, S, L, at, size, first, second, momentum, out, to):
    """Do two steps from zero: of weight `first`, then `second` with `momentum`."""
    B, d, row = b[at : at + size], inverse[at : at + size], out[to : to + size]
    bzl, bzh, byl, byh, bxl, bxh = _beside(b, at, size, S, L)
    dzl, dzh, dyl, dyh, dxl, dxh = _beside(inverse, at, size, S, L)
    kz, ky, kx = k
    spread = first * second
    if faces.size == 0:
        keep = first * (np.float32(1) + momentum - second) + second
        for i in range(size):
            around = kz * (dzl[i] * bzl[i] + dzh[i] * bzh[i]) + ky * (dyl[i] * byl[i] + dyh[i] * byh[i])
            around += kx * (dxl[i] * bxl[i] + dxh[i] * bxh[i])
            row[i] = d[i] * (keep * B[i] + spread * around)
        return
    keep = first * (np.float32(1) + momentum) + second
    czl, czh, cyl, cyh, cxl, cxh, fixed = _couplings(faces, at, size, S, L)
    for i in range(size):
        u = d[i] * B[i]
        flow = czl[i] * (dzl[i] * bzl[i] - u) + czh[i] * (dzh[i] * bzh[i] - u)
        flow += cyl[i] * (dyl[i] * byl[i] - u) + cyh[i] * (dyh[i] * byh[i] - u)
        flow += cxl[i] * (dxl[i] * bxl[i] - u) + cxh[i] * (dxh[i] * bxh[i] - u) - fixed[i] * u
        row[i] = keep * u + spread * d[i] * flow


@bare
def relax_cells(b, inverse, k, faces, S, L, at, size, weight, momentum, x, place, before, was, out, to):
    """Set out to x + momentum (x - before) + weight D^-1 (b - A x); `before` is not `out`."""
    B, d, old, row = b[at : at + size], inverse[at : at + size], before[was : was + size], out[to : to + size]
    zl, zh, yl, yh, xl, xh, u = _around(x, place, size, L)
    kz, ky, kx = k
    grown = np.float32(1) + momentum
    if faces.size == 0:
        for i in range(size):
            around = kz * (zl[i] + zh[i]) + ky * (yl[i] + yh[i]) + kx * (xl[i] + xh[i])
            own = u[i] if d[i] != 0 else np.float32(0)
            row[i] = grown * u[i] - momentum * old[i] + weight * (d[i] * (B[i] + around) - own)
        return
    czl, czh, cyl, cyh, cxl, cxh, fixed = _couplings(faces, at, size, S, L)
    for i in range(size):
        c = u[i]
        flow = czl[i] * (zl[i] - c) + czh[i] * (zh[i] - c) + cyl[i] * (yl[i] - c) + cyh[i] * (yh[i] - c)
        flow += cxl[i] * (xl[i] - c) + cxh[i] * (xh[i] - c) - fixed[i] * c
        row[i] = grown * c - momentum * old[i] + weight * (d[i] * (B[i] + flow))


@bare
def relax_over(b, inverse, k, faces, S, L, at, size, weight, momentum, x, out):
    """Set out to x + momentum (x - out) + weight D^-1 (b - A x); without momentum `out` is not read.

    One vector is read and written here, which no compiler would find out of `relax_cells`.
    """
    B, d, row = b[at : at + size], inverse[at : at + size], out[at : at + size]
    zl, zh, yl, yh, xl, xh, u = _around(x, (at - S, at, at + S), size, L)
    kz, ky, kx = k
    grown = np.float32(1) + momentum
    if momentum == 0:
        for i in range(size):
            row[i] = 0
    if faces.size == 0:
        for i in range(size):
            around = kz * (zl[i] + zh[i]) + ky * (yl[i] + yh[i]) + kx * (xl[i] + xh[i])
            own = u[i] if d[i] != 0 else np.float32(0)
            row[i] = grown * u[i] - momentum * row[i] + weight * (d[i] * (B[i] + around) - own)
        return
    czl, czh, cyl, cyh, cxl, cxh, fixed = _couplings(faces, at, size, S, L)
    for i in range(size):
        c = u[i]
        flow = czl[i] * (zl[i] - c) + czh[i] * (zh[i] - c) + cyl[i] * (yl[i] - c) + cyh[i] * (yh[i] - c)
        flow += cxl[i] * (xl[i] - c) + cxh[i] * (xh[i] - c) - fixed[i] * c
        row[i] = grown * c - momentum * row[i] + weight * (d[i] * (B[i] + flow))


@bare
def residual_cells(b, inverse, k, faces, S, L, at, size, x, place, out, to):
    """Set out to b - A x where D^-1 is not zero, else to 0."""
    B, d, row = b[at : at + size], inverse[at : at + size], out[to : to + size]
    zl, zh, yl, yh, xl, xh, u = _around(x, place, size, L)
    kz, ky, kx = k
    if faces.size == 0:
        for i in range(size):
            around = kz * (zl[i] + zh[i]) + ky * (yl[i] + yh[i]) + kx * (xl[i] + xh[i])
            row[i] = B[i] + around - u[i] / d[i] if d[i] != 0 else np.float32(0)
        return
    czl, czh, cyl, cyh, cxl, cxh, fixed = _couplings(faces, at, size, S, L)
    for i in range(size):
        c = u[i]
        flow = czl[i] * (zl[i] - c) + czh[i] * (zh[i] - c) + cyl[i] * (yl[i] - c) + cyh[i] * (yh[i] - c)
        flow += cxl[i] * (xl[i] - c) + cxh[i] * (xh[i] - c) - fixed[i] * c
        row[i] = B[i] + flow if d[i] != 0 else np.float32(0)
