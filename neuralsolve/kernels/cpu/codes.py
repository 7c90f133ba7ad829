"""Grid levels made from a 16-bit code, numba. Definitions: `neuralsolve.kernels.reference.coarsen`.

Constant coefficients are counted: three counts of ten bits each go in one word, so a line takes two loops.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.padded import box, over_spans, row_start, singles
from neuralsolve.kernels.cpu.threads import bare, bare_unchecked, serial
from neuralsolve.kernels.cpu.transfers import OWN, WHOLE


@serial
def _code_level(code, scale, shape, factors, spans, inverse, weights, lo, hi):
    """Rows lo..hi of blocks of the finest level with constant coefficients: 1/diagonal, and weights of P."""
    (nz, ny, nx), (fz, fy, fx) = shape, factors
    rows, odd = -(-ny // fy), np.zeros(nx, np.int32)
    odd[1::2] = 1
    for row in range(lo, hi):
        first, end = spans[row, 0] * fx, min(spans[row, 1] * fx, nx)
        if first >= end:
            continue
        n, Z, Y = end - first, row // rows, row % rows
        for z in range(Z * fz, min(Z * fz + fz, nz)):
            for y in range(Y * fy, min(Y * fy + fy, ny)):
                start, s = (z * ny + y) * nx + first, row_start(shape, z, y) + first
                _diagonals(code, scale, start, n, inverse, weights, s)
                if fz == 2 and (z % 2 == 1 or z < nz - 1):
                    _quarters(code, 0, z % 2, start, n, weights, s)
                if fy == 2 and (y % 2 == 1 or y < ny - 1):
                    _quarters(code, 1, y % 2, start, n, weights, s)
                if fx == 2:  # a last cell of an odd side has no partner
                    _quarters_x(code, odd, start, n - n % 2, weights, s)


@bare_unchecked
def _diagonals(code, scale, start, n, inverse, weights, s):
    """1/diagonal of cells, and weights of those that take from their own block alone."""
    kz, ky, kx = scale
    bits, d, own = code[start : start + n], inverse[s : s + n], weights[OWN, s : s + n]
    for i in range(n):
        b = np.int32(bits[i])
        D = kz * np.float32(b >> 6 & 3) + ky * np.float32(b >> 8 & 3) + kx * np.float32(b >> 10 & 3)
        share = np.float32(1) / D
        d[i] = share if D > 0 else np.float32(0)
    for i in range(n):
        own[i] = WHOLE if d[i] > 0 else 0  # a cell without any neighbour takes nothing
    weights[0, s : s + n] = 0
    weights[1, s : s + n] = 0
    weights[2, s : s + n] = 0


@bare
def _quarters(code, axis, odd, start, n, weights, s):
    """Weights along an axis of cells whose partners lie above (even ones) or below (odd ones)."""
    bits, taken, own = code[start : start + n], weights[axis, s : s + n], weights[OWN, s : s + n]
    partner, beyond, both = np.uint16(2 * axis + 1 - odd), np.uint16(2 * axis + odd), np.uint16(7 + 2 * axis)
    for i in range(n):
        b = bits[i]
        ways = b >> partner & b >> both & 1  # two faces open: the count's upper bit
        own[i] -= np.uint8((WHOLE // 4) * ways)
    for i in range(n):
        b = bits[i]
        taken[i] = np.uint8((WHOLE // 4) * (b >> partner & b >> both & b >> beyond & 1))


@bare
def _quarters_x(code, odd, start, n, weights, s):
    """Weights along x, where even cells and odd ones take turns."""
    bits, taken, own = code[start : start + n], weights[2, s : s + n], weights[OWN, s : s + n]
    for i in range(n):
        b, turn = np.int32(bits[i]), odd[i]
        partner = b >> 4 if turn > 0 else b >> 5
        own[i] -= np.uint8((WHOLE // 4) * (partner & b >> 11 & 1))
    for i in range(n):
        b = np.int32(bits[i])
        taken[i] = np.uint8((WHOLE // 4) * (b >> 4 & b >> 5 & b >> 11 & 1))


@bare
def _apart(fields):
    """Bits 0-1, 2-3 and 4-5, ten bits apart."""
    return (fields & 3) | (fields & 12) << 8 | (fields & 48) << 16


@bare
def _outlets(b):
    """Faces to fixed values along z, y and x, two bits each: open ones without those to cells."""
    return (b >> 6 & 63) - (b & 21) - (b >> 1 & 21)


@bare
def _count_line(code, start, n, fx, mask, low, fixed):
    """Count couplings to lower neighbours, of the axes in `mask`, and outlets, of the blocks of a line."""
    bits, N = code[start : start + n], n // fx
    if fx == 2:
        for i in range(N):
            a, b = np.int32(bits[2 * i]), np.int32(bits[2 * i + 1])
            low[i] += _apart(a & mask) + _apart(b & mask & 5)
        for i in range(N):
            a, b = np.int32(bits[2 * i]), np.int32(bits[2 * i + 1])
            fixed[i] += _apart(_outlets(a)) + _apart(_outlets(b))
    else:
        for i in range(N):
            low[i] += _apart(np.int32(bits[i]) & mask)
        for i in range(N):
            fixed[i] += _apart(_outlets(np.int32(bits[i])))
    if n % fx:
        a = np.int32(bits[n - 1])
        low[N] += _apart(a & mask)
        fixed[N] += _apart(_outlets(a))


@bare
def _store_counts(counts, share, axis, N, out, s):
    row, shift = out[axis, s : s + N], np.int32(10 * axis)
    for i in range(N):
        row[i] = share * np.float32(counts[i] >> shift & 1023)


@serial
def coarse_from_code(
    code, scale, shape, factors, shares, coarse_shape, spans, out_faces, out_outlets, lo, hi
):
    """Rows lo..hi of the coarse box: sums of the fine couplings over faces and blocks."""
    coarse, (nz, ny, nx), (fz, fy, fx) = coarse_shape, shape, factors
    Ny, Nx = coarse_shape[1], coarse_shape[2]
    low, fixed = np.empty(Nx, np.int32), np.empty(Nx, np.int32)
    for row in range(lo, hi):
        first, end, N = spans[row, 0] * fx, min(spans[row, 1] * fx, nx), spans[row, 1] - spans[row, 0]
        if first >= end:
            continue
        Z, Y = row // Ny, row % Ny
        low[:N] = 0
        fixed[:N] = 0
        for z in range(Z * fz, min(Z * fz + fz, nz)):
            for y in range(Y * fy, min(Y * fy + fy, ny)):
                mask = np.int32(16 | (z == Z * fz) | (y == Y * fy) << 2)
                _count_line(code, (z * ny + y) * nx + first, end - first, fx, mask, low, fixed)
        s = row_start(coarse_shape, Z, Y) + spans[row, 0]
        for axis in range(3):
            half = np.float32(1) / np.float32(factors[axis])
            if coarse[axis] > 1:  # a cell that is its own neighbour has no coupling
                _store_counts(low, scale[axis] * half, axis, N, out_faces, s)
            _store_counts(fixed, scale[axis] * shares[axis], axis, N, out_outlets, s)


def code_level(
    code: Tensor,
    scale: Sequence[float],
    shape: Sequence[int],
    factors: Sequence[int],
    spans: Tensor,
    inverse: Tensor,
    weights: Tensor,
) -> None:
    """Fill 1/diagonal and the weights of P of a level with constant coefficients."""
    bits, d, w, parts = code.numpy(), inverse.numpy(), weights.numpy(), spans.numpy()
    k, sides, f = singles(scale), box(shape), box(factors)
    over_spans(parts, f, lambda lo, hi: _code_level(bits, k, sides, f, parts, d, w, lo, hi))
