"""Incomplete Cholesky on a grid, numba. Definitions: `neuralsolve.kernels.reference.factor`.

The value of the cell before stays in a register and enters last: a line advances by one multiplication and
addition per cell. Large grids are cut into blocks that threads do side by side (`in_blocks`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import uint64
from torch import Tensor

from neuralsolve.kernels.cpu.threads import in_blocks, ordered
from neuralsolve.kernels.cpu.vector import numbers


@ordered
def _factor(diagonal, lower, shape, modified, floor, inverse):
    nz, ny, nx = shape
    strides, sides, at = (ny * nx, nx, 1), (nz, ny, nx), np.zeros(3, np.int64)
    for i in range(diagonal.size):
        pivot = np.float64(diagonal[i])
        inverse[i] = 0
        if pivot == 0:
            continue
        at[0], at[1], at[2] = i // (ny * nx), i // nx % ny, i % nx
        for a in range(3):
            j = i - strides[a]
            if at[a] == 0 or inverse[j] == 0:
                continue
            dropped = 0.0
            for other in range(3):
                if other != a and at[other] + 1 < sides[other]:
                    dropped += lower[other, j + strides[other]]
            pivot -= lower[a, i] * (lower[a, i] + modified * dropped) * inverse[j]
        if floor > 0 and pivot < floor * diagonal[i]:
            pivot = np.float64(diagonal[i])
        if not pivot > 0:
            return i + 1
        inverse[i] = 1 / pivot
    return 0


def faces_ic0_factor(
    diagonal: Tensor,
    lower: Tensor,
    shape: Sequence[int],
    modified: float,
    out_inverse_pivot: Tensor,
    floor: float = 0.0,
) -> int:
    """Pivots of M = (D + L) D^-1 (D + L)^T: IC(0), MIC(0); 0, or 1 + the cell of a pivot not positive."""
    box = tuple(map(int, shape))
    d, couplings, inverse = diagonal.numpy(), lower.numpy(), out_inverse_pivot.numpy()
    return int(_factor(d, couplings, box, float(modified), float(floor), inverse))


@ordered
def _forward(inverse, lower, shape, b, out, box):
    """Solve (D + L) D^-1 out = b in a block: out_i = (b_i + sum lower out) / D_i."""
    _, ny, nx = shape
    z0, z1, y0, y1, x0, x1 = box
    for z in range(z0, z1):
        for y in range(y0, y1):
            start = (z * ny + y) * nx
            fresh = np.float64(out[uint64(start + x0 - 1)]) if x0 > 0 else 0.0
            for i in range(uint64(start + x0), uint64(start + x1)):
                known = np.float64(b[i])
                if z > 0:
                    known += lower[0, i] * out[i - uint64(ny * nx)]
                if y > 0:
                    known += lower[1, i] * out[i - uint64(nx)]
                # A cell outside is 0 whatever b is there, and has no couplings.
                value = known * inverse[i] if inverse[i] != 0 else 0.0
                fresh = value + (lower[2, i] * inverse[i]) * fresh
                out[i] = fresh


@ordered
def _backward(inverse, lower, shape, out, box):
    """Solve (D + L)^T x = D out in a block: x_i = out_i + sum lower x / D_i."""
    nz, ny, nx = shape
    z0, z1, y0, y1, x0, x1 = box
    for z in range(z1 - 1, z0 - 1, -1):
        for y in range(y1 - 1, y0 - 1, -1):
            start = (z * ny + y) * nx
            fresh, coupling = 0.0, 0.0
            if x1 < nx:
                after = uint64(start + x1)
                fresh, coupling = np.float64(out[after]), np.float64(lower[2, after])
            for q in range(x1 - x0):
                i = uint64(start + x1 - 1 - q)
                known = 0.0
                if z + 1 < nz:
                    above = i + uint64(ny * nx)
                    known += lower[0, above] * out[above]
                if y + 1 < ny:
                    above = i + uint64(nx)
                    known += lower[1, above] * out[above]
                value = out[i] + known * inverse[i]
                fresh = value + (coupling * inverse[i]) * fresh
                coupling = np.float64(lower[2, i])
                out[i] = fresh


@ordered
def _forward_columns(inverse, lower, shape, b, out, box):
    """Line by line, so that the couplings of a line stay in cache for all columns."""
    z0, z1, y0, y1, x0, x1 = box
    for z in range(z0, z1):
        for y in range(y0, y1):
            for j in range(out.shape[1]):
                _forward(inverse, lower, shape, b[:, j], out[:, j], (z, z + 1, y, y + 1, x0, x1))


@ordered
def _backward_columns(inverse, lower, shape, out, box):
    z0, z1, y0, y1, x0, x1 = box
    for z in range(z1 - 1, z0 - 1, -1):
        for y in range(y1 - 1, y0 - 1, -1):
            for j in range(out.shape[1]):
                _backward(inverse, lower, shape, out[:, j], (z, z + 1, y, y + 1, x0, x1))


def faces_ic0_solve(
    inverse_pivot: Tensor, lower: Tensor, shape: Sequence[int], b: Tensor, out: Tensor
) -> None:
    """Solve (D + L) D^-1 (D + L)^T out = b; b outside is never used, out is 0 there."""
    box = tuple(map(int, shape))
    inverse, couplings, B, Y = inverse_pivot.numpy(), lower.numpy(), numbers(b), numbers(out)
    forward, backward = (_forward, _backward) if B.ndim == 1 else (_forward_columns, _backward_columns)
    in_blocks(box, lambda block: forward(inverse, couplings, box, B, Y, block), reverse=False)
    in_blocks(box, lambda block: backward(inverse, couplings, box, Y, block), reverse=True)
