"""Grid levels of multigrid, numba. Definitions and the layout: `neuralsolve.kernels.reference.padded`.

A layer of cells around the box holds zeros (or the other side of a periodic axis), so a pass over a level is
one loop without branches over all planes, which the compiler vectorises in float32. Every pass writes to
another vector than those whose neighbours it reads: ranges may run side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.threads import over_ranges, serial

OWN, X = 3, 2  # rows of the weights: towards the neighbours along z, y, x, and of the cell's own block
WHOLE = 252  # weights are stored in bytes, as multiples of 1/252: a half and a quarter are exact
UNIT = np.float32(1 / WHOLE)
LARGE = np.float32(1e18)  # half the room of float32


@serial
def strides(shape):
    """Distance of neighbours along z and y, first cell, and one after the last one, of a padded box."""
    nz, ny, nx = shape
    sy = nx + 2
    sz = (ny + 2) * sy if nz > 1 else 0
    first = sz + sy + 1
    return sz, sy, first, first + (nz - 1) * (ny + 2) * sy + (ny - 1) * sy + nx


@serial
def row_start(shape, z, y):
    """Return the place of the first cell of a line."""
    sz, sy, first, _ = strides(shape)
    return first + z * sz + y * sy


@serial
def _beside(v, lo, hi, sz, sy):
    """Return the six neighbours of the cells lo..hi."""
    z_low, z_high, y_low = v[lo - sz : hi - sz], v[lo + sz : hi + sz], v[lo - sy : hi - sy]
    return z_low, z_high, y_low, v[lo + sy : hi + sy], v[lo - 1 : hi - 1], v[lo + 1 : hi + 1]


@serial
def _couplings(faces, lo, hi, sz, sy):
    """Return the couplings to the six neighbours, and to fixed values, of the cells lo..hi."""
    cz, cy, cx = faces[0], faces[1], faces[2]
    return (
        cz[lo:hi],
        cz[lo + sz : hi + sz],
        cy[lo:hi],
        cy[lo + sy : hi + sy],
        cx[lo:hi],
        cx[lo + 1 : hi + 1],
        faces[3, lo:hi],
    )


@serial
def start_range(b, inverse, scale, faces, shape, first, second, momentum, out, lo, hi):
    """Two steps of `relax_range` from zero: of weight `first`, then `second` with `momentum`."""
    sz, sy, _, _ = strides(shape)
    B, d, row = b[lo:hi], inverse[lo:hi], out[lo:hi]
    bzl, bzh, byl, byh, bxl, bxh = _beside(b, lo, hi, sz, sy)
    dzl, dzh, dyl, dyh, dxl, dxh = _beside(inverse, lo, hi, sz, sy)
    kz, ky, kx = scale
    spread = first * second
    if faces.size == 0:
        keep = first * (np.float32(1) + momentum - second) + second
        for i in range(row.size):
            around = kz * (dzl[i] * bzl[i] + dzh[i] * bzh[i]) + ky * (dyl[i] * byl[i] + dyh[i] * byh[i])
            around += kx * (dxl[i] * bxl[i] + dxh[i] * bxh[i])
            row[i] = d[i] * (keep * B[i] + spread * around)
        return
    keep = first * (np.float32(1) + momentum) + second
    czl, czh, cyl, cyh, cxl, cxh, fixed = _couplings(faces, lo, hi, sz, sy)
    for i in range(row.size):
        u = d[i] * B[i]
        flow = czl[i] * (dzl[i] * bzl[i] - u) + czh[i] * (dzh[i] * bzh[i] - u)
        flow += cyl[i] * (dyl[i] * byl[i] - u) + cyh[i] * (dyh[i] * byh[i] - u)
        flow += cxl[i] * (dxl[i] * bxl[i] - u) + cxh[i] * (dxh[i] * bxh[i] - u) - fixed[i] * u
        row[i] = keep * u + spread * d[i] * flow


@serial
def relax_range(b, inverse, scale, faces, shape, weight, momentum, x, out, lo, hi):
    """Set out to x + momentum (x - out) + weight D^-1 (b - A x); without momentum `out` is not read."""
    sz, sy, _, _ = strides(shape)
    B, d, row, u = b[lo:hi], inverse[lo:hi], out[lo:hi], x[lo:hi]
    zl, zh, yl, yh, xl, xh = _beside(x, lo, hi, sz, sy)
    kz, ky, kx = scale
    grown = np.float32(1) + momentum
    if faces.size == 0 and momentum == 0:
        for i in range(row.size):
            around = kz * (zl[i] + zh[i]) + ky * (yl[i] + yh[i]) + kx * (xl[i] + xh[i])
            own = u[i] if d[i] != 0 else np.float32(0)
            row[i] = u[i] + weight * (d[i] * (B[i] + around) - own)
    elif faces.size == 0:
        for i in range(row.size):
            around = kz * (zl[i] + zh[i]) + ky * (yl[i] + yh[i]) + kx * (xl[i] + xh[i])
            own = u[i] if d[i] != 0 else np.float32(0)
            row[i] = grown * u[i] - momentum * row[i] + weight * (d[i] * (B[i] + around) - own)
    else:
        czl, czh, cyl, cyh, cxl, cxh, fixed = _couplings(faces, lo, hi, sz, sy)
        if momentum == 0:
            for i in range(row.size):
                c = u[i]
                flow = (
                    czl[i] * (zl[i] - c) + czh[i] * (zh[i] - c) + cyl[i] * (yl[i] - c) + cyh[i] * (yh[i] - c)
                )
                flow += cxl[i] * (xl[i] - c) + cxh[i] * (xh[i] - c) - fixed[i] * c
                row[i] = c + weight * (d[i] * (B[i] + flow))
        else:
            for i in range(row.size):
                c = u[i]
                flow = (
                    czl[i] * (zl[i] - c) + czh[i] * (zh[i] - c) + cyl[i] * (yl[i] - c) + cyh[i] * (yh[i] - c)
                )
                flow += cxl[i] * (xl[i] - c) + cxh[i] * (xh[i] - c) - fixed[i] * c
                row[i] = grown * c - momentum * row[i] + weight * (d[i] * (B[i] + flow))


@serial
def residual_range(b, inverse, scale, faces, shape, x, out, lo, hi):
    """Set out to b - A x where D^-1 is not zero, else to 0."""
    sz, sy, _, _ = strides(shape)
    B, d, row, u = b[lo:hi], inverse[lo:hi], out[lo:hi], x[lo:hi]
    zl, zh, yl, yh, xl, xh = _beside(x, lo, hi, sz, sy)
    kz, ky, kx = scale
    if faces.size == 0:
        for i in range(row.size):
            around = kz * (zl[i] + zh[i]) + ky * (yl[i] + yh[i]) + kx * (xl[i] + xh[i])
            row[i] = B[i] + around - u[i] / d[i] if d[i] != 0 else np.float32(0)
        return
    czl, czh, cyl, cyh, cxl, cxh, fixed = _couplings(faces, lo, hi, sz, sy)
    for i in range(row.size):
        c = u[i]
        flow = czl[i] * (zl[i] - c) + czh[i] * (zh[i] - c) + cyl[i] * (yl[i] - c) + cyh[i] * (yh[i] - c)
        flow += cxl[i] * (xl[i] - c) + cxh[i] * (xh[i] - c) - fixed[i] * c
        row[i] = B[i] + flow if d[i] != 0 else np.float32(0)


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


@serial
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


@serial
def _load(v, scale, shape, out, lo, hi):
    nx, beyond = shape[2], False
    for line in range(lo, hi):
        s = row_start(shape, line // shape[1], line % shape[1])
        source, target = v[line * nx : line * nx + nx], out[s : s + nx]
        for i in range(nx):
            target[i] = np.float32(scale * source[i])
            beyond |= abs(target[i]) > LARGE
    return beyond


@serial
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


def over_cells(shape: tuple[int, int, int], kernel: Callable[[int, int], Any]) -> None:
    """Call a kernel on ranges of the padded box, from its first cell to its last."""
    _, _, first, end = strides(shape)
    over_ranges(end - first, lambda lo, hi: kernel(first + lo, first + hi))


def over_lines(shape: tuple[int, int, int], entries: int, kernel: Callable[[int, int], Any]) -> list[Any]:
    """Call a kernel on ranges of the lines of a box; return the results."""
    return over_ranges(shape[0] * shape[1], kernel, entries)


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
    over_cells(sides, lambda lo, hi: start_range(B, d, k, c, sides, w, s, m, X, lo, hi))


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
    over_cells(sides, lambda lo, hi: relax_range(B, d, k, c, sides, w, m, X, Y, lo, hi))


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
    over_cells(sides, lambda lo, hi: residual_range(B, d, k, c, sides, X, R, lo, hi))


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


def level_wrap(v: Tensor, shape: Sequence[int], periodic: Sequence[bool]) -> None:
    """Fill the layer around the box from the other side along periodic axes."""
    wrap_sides(v.numpy(), box(shape), flags(periodic))
