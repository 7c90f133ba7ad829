"""Set-up of grid levels for multigrid, numba. Definitions: `neuralsolve.kernels.reference.coarsen`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.padded import box, flags, over_lines, row_start, singles, strides
from neuralsolve.kernels.cpu.threads import serial
from neuralsolve.kernels.cpu.transfers import OWN, WHOLE, X


@serial
def _code_lines(bits, scale, fields):
    """Couplings to the lower neighbours and to fixed values, along z, y, x each, of one line: (6, nx).

    One loop per field: a loop that writes to several arrays is not vectorised.
    """
    for axis in range(3):
        k, row, fixed = np.float32(scale[axis]), fields[axis], fields[3 + axis]
        low, count = 2 * axis, 6 + 2 * axis
        for i in range(bits.size):
            row[i] = k * np.float32(np.int32(bits[i]) >> low & 1)
        for i in range(bits.size):
            b = np.int32(bits[i])
            fixed[i] = k * np.float32((b >> count & 3) - (b >> low & 1) - (b >> low + 1 & 1))


@serial
def _code_level(code, scale, shape, factors, inverse, weights, lo, hi):
    """Lines lo..hi of the finest level with constant coefficients: 1/diagonal, and the weights of P."""
    kz, ky, kx = scale
    nz, ny, nx = shape
    whole = WHOLE
    for line in range(lo, hi):
        z, y = line // ny, line % ny
        s = row_start(shape, z, y)
        bits, d = code[line * nx : line * nx + nx], inverse[s : s + nx]
        for i in range(nx):
            b = np.int32(bits[i])
            D = kz * np.float32(b >> 6 & 3) + ky * np.float32(b >> 8 & 3) + kx * np.float32(b >> 10 & 3)
            d[i] = np.float32(1) / D if D > 0 else np.float32(0)
        wz, wy, wx, own = (
            weights[0, s : s + nx],
            weights[1, s : s + nx],
            weights[X, s : s + nx],
            weights[OWN, s : s + nx],
        )
        for i in range(nx):
            own[i] = whole if d[i] > 0 else 0  # a cell without any neighbour takes nothing
            wz[i], wy[i], wx[i] = 0, 0, 0
        if factors[0] == 2 and (z % 2 == 1 or z < nz - 1):
            _quarters(bits, 0, z % 2, wz, own)
        if factors[1] == 2 and (y % 2 == 1 or y < ny - 1):
            _quarters(bits, 1, y % 2, wy, own)
        if factors[2] == 2:
            pairs = nx - nx % 2  # a last cell of an odd side has no partner
            _quarters(bits[0:pairs:2], 2, 0, wx[0:pairs:2], own[0:pairs:2])
            _quarters(bits[1:pairs:2], 2, 1, wx[1:pairs:2], own[1:pairs:2])


@serial
def _quarters(bits, axis, odd, taken, own):
    """Weights along an axis of cells whose partners lie above (even ones) or below (odd ones)."""
    partner, beyond = 2 * axis + 1 - odd, 2 * axis + odd
    for i in range(bits.size):
        b = np.int32(bits[i])
        open_ways = (b >> partner & 1) & (b >> (7 + 2 * axis) & 1)  # two faces open: the count's upper bit
        own[i] -= np.uint8((WHOLE // 4) * open_ways)
        taken[i] = np.uint8((WHOLE // 4) * (open_ways & (b >> beyond & 1)))


@serial
def _add_line(fields, factors, shares, first_z, first_y, sums):
    """Add one fine line to the sums of its coarse row, both (6, cells)."""
    fz, fy, fx = factors
    nx, half = fields.shape[1], np.float32(0.5)
    if first_z:
        _add_cells(fields[0], fx, half if fz == 2 else np.float32(1), sums[0])
    if first_y:
        _add_cells(fields[1], fx, half if fy == 2 else np.float32(1), sums[1])
    for X_, i in enumerate(range(0, nx, fx)):
        sums[2, X_] += fields[2, i] * (half if fx == 2 else np.float32(1))
    for axis in range(3):
        _add_cells(fields[3 + axis], fx, shares[axis], sums[3 + axis])


@serial
def _add_cells(values, fx, share, sums):
    if fx == 1:
        for i in range(values.size):
            sums[i] += share * values[i]
        return
    for i in range(values.size // 2):
        sums[i] += share * (values[2 * i] + values[2 * i + 1])
    if values.size % 2:
        sums[sums.size - 1] += share * values[values.size - 1]


@serial
def _coarse_couplings(
    code,
    scale,
    faces,
    outlets,
    attached,
    shape,
    factors,
    shares,
    coarse_shape,
    out_faces,
    out_outlets,
    lo,
    hi,
):
    """Rows lo..hi of the coarse box: sums of the fine couplings over faces and blocks."""
    nz, ny, nx = shape
    fz, fy, _ = factors
    _, Ny, Nx = coarse_shape
    fields, sums = np.empty((6, nx), np.float32), np.empty((6, Nx), np.float32)
    for row in range(lo, hi):
        Z, Y = row // Ny, row % Ny
        sums[:] = 0
        for z in range(Z * fz, min(Z * fz + fz, nz)):
            for y in range(Y * fy, min(Y * fy + fy, ny)):
                if code.size > 0:
                    line = (z * ny + y) * nx
                    _code_lines(code[line : line + nx], scale, fields)
                else:
                    s = row_start(shape, z, y)
                    for axis in range(3):
                        fields[axis] = faces[axis, s : s + nx]
                        fields[3 + axis] = outlets[axis, s : s + nx]
                    if attached.size > 0:
                        _leave_out(attached, s, shape, fields)
                _add_line(fields, factors, shares, z == Z * fz, y == Y * fy, sums)
        s = row_start(coarse_shape, Z, Y)
        for axis in range(3):
            if coarse_shape[axis] > 1:  # a cell that is its own neighbour has no coupling
                out_faces[axis, s : s + Nx] = sums[axis]
            out_outlets[axis, s : s + Nx] = sums[3 + axis]


@serial
def _leave_out(attached, s, shape, fields):
    """Take couplings and outlets of attached cells out of a line: they go elsewhere."""
    sz, sy, _, _ = strides(shape)
    for i in range(fields.shape[1]):
        c = s + i
        for axis in range(3):
            step = sz if axis == 0 else (sy if axis == 1 else 1)
            if attached[c] or attached[c - step]:
                fields[axis, i] = 0
            if attached[c]:
                fields[3 + axis, i] = 0


@serial
def _level_diagonal(faces, outlets, shape, inverse, lo, hi):
    """Lines lo..hi: add up the outlets, and fill 1/diagonal, 0 where the diagonal is."""
    sz, sy, _, _ = strides(shape)
    nx = shape[2]
    for line in range(lo, hi):
        s = row_start(shape, line // shape[1], line % shape[1])
        d, fixed = inverse[s : s + nx], faces[3, s : s + nx]
        for i in range(nx):
            c = s + i
            fixed[i] = outlets[0, c] + outlets[1, c] + outlets[2, c]
            total = (
                faces[0, c]
                + faces[0, c + sz]
                + faces[1, c]
                + faces[1, c + sy]
                + faces[2, c]
                + faces[2, c + 1]
            )
            total += fixed[i]
            d[i] = np.float32(1) / total if total > 0 else np.float32(0)


@serial
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


def code_level(
    code: Tensor,
    scale: Sequence[float],
    shape: Sequence[int],
    factors: Sequence[int],
    inverse: Tensor,
    weights: Tensor,
) -> None:
    """Fill 1/diagonal and the weights of P of a level with constant coefficients."""
    bits, d, w, k, sides, f = (
        code.numpy(),
        inverse.numpy(),
        weights.numpy(),
        singles(scale),
        box(shape),
        box(factors),
    )
    over_lines(sides, bits.size, lambda lo, hi: _code_level(bits, k, sides, f, d, w, lo, hi))


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
    coarse_faces: Tensor,
    coarse_outlets: Tensor,
) -> None:
    """Sum couplings and outlets, from a code or from those of a level, for the level below."""
    bits, c, o, a, C, D = (t.numpy() for t in (code, faces, outlets, attached, coarse_faces, coarse_outlets))
    k, sides, f, coarse, part = singles(scale), box(shape), box(factors), box(coarse_shape), singles(shares)
    entries = sides[0] * sides[1] * sides[2]

    def kernel(lo: int, hi: int) -> None:
        _coarse_couplings(bits, k, c, o, a, sides, f, part, coarse, C, D, lo, hi)

    over_lines(coarse, entries, kernel)


def level_diagonal(faces: Tensor, outlets: Tensor, shape: Sequence[int], inverse: Tensor) -> None:
    """Set the last row of faces to the sums of the outlets, and inverse to 1/diagonal, 0 where that is 0."""
    c, o, d, sides = faces.numpy(), outlets.numpy(), inverse.numpy(), box(shape)
    over_lines(sides, d.size, lambda lo, hi: _level_diagonal(c, o, sides, d, lo, hi))


def coarsest_matrix(faces: Tensor, shape: Sequence[int], periodic: Sequence[bool], out: Tensor) -> None:
    """Add the dense matrix of a small level to out (n, n)."""
    _coarsest_matrix(faces.numpy(), box(shape), flags(periodic), out.numpy())
