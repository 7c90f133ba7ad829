"""Set-up of grid levels for multigrid, numba. Definitions: `neuralsolve.kernels.reference.coarsen`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.codes import coarse_from_code
from neuralsolve.kernels.cpu.padded import box, flags, over_spans, row_start, singles, strides
from neuralsolve.kernels.cpu.threads import bare, bare_unchecked, serial


@bare
def _add_line(fields, nx, factors, shares, first_z, first_y, sums):
    """Add nx cells of a fine line to the sums of their coarse row, both of six fields."""
    fz, fy, fx = factors
    half, N = np.float32(0.5), -(-nx // fx)
    if first_z:
        _add_cells(fields, 0, nx, fx, half if fz == 2 else np.float32(1), sums)
    if first_y:
        _add_cells(fields, 1, nx, fx, half if fy == 2 else np.float32(1), sums)
    low, along = fields[2, :nx], sums[2, :N]
    if fx == 2:
        for i in range(N):
            along[i] += half * low[2 * i]
    else:
        for i in range(N):
            along[i] += low[i]
    for axis in range(3):
        _add_cells(fields, 3 + axis, nx, fx, shares[axis], sums)


@bare
def _add_cells(fields, row, nx, fx, share, sums):
    values, total = fields[row, :nx], sums[row]
    if fx == 1:
        for i in range(nx):
            total[i] += share * values[i]
        return
    for i in range(nx // 2):
        total[i] += share * (values[2 * i] + values[2 * i + 1])
    if nx % 2:
        total[nx // 2] += share * values[nx - 1]


@serial
def _coarse_couplings(
    faces,
    outlets,
    attached,
    shape,
    factors,
    shares,
    coarse_shape,
    spans,
    out_faces,
    out_outlets,
    lo,
    hi,
):
    """Rows lo..hi of the coarse box: sums of the fine couplings over faces and blocks."""
    nz, ny, nx = shape
    fz, fy, fx = factors
    _, Ny, Nx = coarse_shape
    fields, sums = np.empty((6, nx), np.float32), np.empty((6, Nx), np.float32)
    for row in range(lo, hi):
        Z, Y = row // Ny, row % Ny
        first, end = spans[row, 0] * fx, min(spans[row, 1] * fx, nx)
        if first >= end:
            continue
        n, N = end - first, spans[row, 1] - spans[row, 0]
        sums[:] = 0
        for z in range(Z * fz, min(Z * fz + fz, nz)):
            for y in range(Y * fy, min(Y * fy + fy, ny)):
                s = row_start(shape, z, y) + first
                for axis in range(3):
                    _copy(faces, axis, s, n, fields, axis)
                    _copy(outlets, axis, s, n, fields, 3 + axis)
                if attached.size > 0:
                    _leave_out(attached, s, shape, n, fields)
                _add_line(fields, n, factors, shares, z == Z * fz, y == Y * fy, sums)
        s = row_start(coarse_shape, Z, Y) + spans[row, 0]
        for axis in range(3):
            if coarse_shape[axis] > 1:  # a cell that is its own neighbour has no coupling
                out_faces[axis, s : s + N] = sums[axis, :N]
            out_outlets[axis, s : s + N] = sums[3 + axis, :N]


@bare
def _copy(source, axis, s, n, target, row):
    given, taken = source[axis, s : s + n], target[row, :n]
    for i in range(n):
        taken[i] = given[i]


@bare
def _leave_out(attached, s, shape, n, fields):
    """Take couplings and outlets of attached cells out of a line: they go elsewhere."""
    sz, sy, _, _ = strides(shape)
    for axis in range(3):
        step = sz if axis == 0 else (sy if axis == 1 else 1)
        _leave_out_axis(attached, s, step, n, fields, axis)


@bare
def _leave_out_axis(attached, s, step, n, fields, axis):
    own, below = attached[s : s + n], attached[s - step : s - step + n]
    zero, count = np.float32(0), 0
    for i in range(n):
        count += np.int32(own[i] | below[i])
    if count > 0:
        coupling, fixed = fields[axis, :n], fields[3 + axis, :n]
        for i in range(n):
            coupling[i] = coupling[i] if own[i] | below[i] == 0 else zero
        for i in range(n):
            fixed[i] = fixed[i] if own[i] == 0 else zero


@bare
def _level_diagonal(faces, outlets, shape, factors, spans, inverse, lo, hi):
    """Rows lo..hi of blocks: add up the outlets, and fill 1/diagonal, 0 where the diagonal is."""
    sides, (nz, ny, nx), (fz, fy, fx) = shape, shape, factors
    rows = -(-ny // fy)
    for row in range(lo, hi):
        first, end = spans[row, 0] * fx, min(spans[row, 1] * fx, nx)
        if first >= end:
            continue
        Z, Y = row // rows, row % rows
        for z in range(Z * fz, min(Z * fz + fz, nz)):
            for y in range(Y * fy, min(Y * fy + fy, ny)):
                s = row_start(shape, z, y)
                _diagonal_line(faces, outlets, sides, s + first, s + end, inverse)


@bare_unchecked
def _diagonal_line(faces, outlets, shape, s, end, inverse):
    sz, sy, _, _ = strides(shape)
    oz, oy, ox = outlets[0, s:end], outlets[1, s:end], outlets[2, s:end]
    cz, cy, cx = faces[0, s:end], faces[1, s:end], faces[2, s:end]
    czh, cyh, cxh = faces[0, s + sz : end + sz], faces[1, s + sy : end + sy], faces[2, s + 1 : end + 1]
    d, fixed = inverse[s:end], faces[3, s:end]
    for i in range(d.size):
        fixed[i] = oz[i] + oy[i] + ox[i]
    for i in range(d.size):
        total = cz[i] + czh[i] + cy[i] + cyh[i] + cx[i] + cxh[i] + fixed[i]
        share = np.float32(1) / total
        d[i] = share if total > 0 else np.float32(0)


@bare
def _coarsest_matrix(faces, shape, periodic, out):
    """Dense matrix of a small level; cells in C order."""
    sides = shape
    ny, nx = shape[1], shape[2]
    for z in range(shape[0]):
        for y in range(ny):
            for x in range(nx):
                c, i = row_start(shape, z, y) + x, (z * ny + y) * nx + x
                out[i, i] += faces[3, c]
                for axis in range(3):
                    position = z if axis == 0 else (y if axis == 1 else x)
                    hop = ny * nx if axis == 0 else (nx if axis == 1 else 1)
                    if position > 0 or periodic[axis]:
                        j = i - hop if position > 0 else i + (sides[axis] - 1) * hop
                        g = faces[axis, c]
                        out[i, i] += g
                        out[j, j] += g
                        out[i, j] -= g
                        out[j, i] -= g


def coarse_couplings(
    code: Tensor,
    scale: Sequence[float],
    faces: Tensor,
    outlets: Tensor,
    attached: Tensor,
    shape: Sequence[int],
    factors: Sequence[int],
    shares: Sequence[float],
    coarse_shape: Sequence[int],
    spans: Tensor,
    coarse_faces: Tensor,
    coarse_outlets: Tensor,
) -> None:
    """Sum couplings and outlets, from a code or from those of a level, for the level below."""
    bits, c, o, a, C, D = (t.numpy() for t in (code, faces, outlets, attached, coarse_faces, coarse_outlets))
    k, sides, f, coarse, part = singles(scale), box(shape), box(factors), box(coarse_shape), singles(shares)
    pieces = spans.numpy()

    def kernel(lo: int, hi: int) -> None:
        if bits.size > 0:
            coarse_from_code(bits, k, sides, f, part, coarse, pieces, C, D, lo, hi)
        else:
            _coarse_couplings(c, o, a, sides, f, part, coarse, pieces, C, D, lo, hi)

    over_spans(pieces, f, kernel)


def level_diagonal(
    faces: Tensor,
    outlets: Tensor,
    shape: Sequence[int],
    factors: Sequence[int],
    spans: Tensor,
    inverse: Tensor,
) -> None:
    """Set the last row of faces to the sums of the outlets, and inverse to 1/diagonal, 0 where that is 0."""
    c, o, d, sides, f, parts = (
        faces.numpy(),
        outlets.numpy(),
        inverse.numpy(),
        box(shape),
        box(factors),
        spans.numpy(),
    )
    over_spans(parts, f, lambda lo, hi: _level_diagonal(c, o, sides, f, parts, d, lo, hi))


def coarsest_matrix(faces: Tensor, shape: Sequence[int], periodic: Sequence[bool], out: Tensor) -> None:
    """Add the dense matrix of a small level to out (n, n)."""
    _coarsest_matrix(faces.numpy(), box(shape), flags(periodic), out.numpy())
