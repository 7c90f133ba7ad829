"""Rows as the sweeps within blocks take them, numba: split, divided by the diagonal, filled with zeros.

Definitions: `neuralsolve.kernels.reference.blocks`.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import uint64
from torch import Tensor

from neuralsolve.kernels.cpu.blocks import over_blocks
from neuralsolve.kernels.cpu.threads import over_ranges, serial

WIDTH = 4  # entries to whose multiples rows are filled
Rows = tuple[Tensor, Tensor, Tensor]


def _numpy(dtype: torch.dtype) -> type:
    return np.float32 if dtype == torch.float32 else np.float64


@serial
def _filled(length):
    return (length + WIDTH - 1) // WIDTH * WIDTH


@serial
def _padded(indptr, indices, values, starts, columns, numbers, lo, hi):
    for i in range(lo, hi):
        q = starts[i]
        for p in range(indptr[i], indptr[i + 1]):
            columns[q], numbers[q] = indices[p], values[p]
            q += 1
        for r in range(q, starts[i + 1]):
            columns[r], numbers[r] = columns[q - 1], 0.0


def csr_padded(indptr: Tensor, indices: Tensor, values: Tensor, dtype: torch.dtype) -> Rows:
    """Return the same matrix in `dtype`, its rows filled to multiples of four entries."""
    A = indptr.numpy(), indices.numpy(), values.numpy()
    n = len(A[0]) - 1
    starts = np.zeros(n + 1, np.int32)
    np.cumsum((np.diff(A[0]) + WIDTH - 1) // WIDTH * WIDTH, out=starts[1:])
    made = starts, np.empty(starts[-1], np.int32), np.empty(starts[-1], _numpy(dtype))
    over_ranges(n, lambda lo, hi: _padded(*A, *made, lo, hi), entries=len(A[2]))
    return torch.from_numpy(made[0]), torch.from_numpy(made[1]), torch.from_numpy(made[2])


@serial
def _count(indptr, indices, values, lower, rest, lo, hi):
    """Set the filled lengths of the rows of L and E in row i + 1 of `lower` and `rest`."""
    for i in range(lo, hi):
        before, others, diagonal, between = 0, 0, 0.0, 0.0
        for p in range(uint64(indptr[i]), uint64(indptr[i + 1])):
            j = indices[p]
            if j == i:
                diagonal += values[p]
            elif j < i and j >= lo:
                before += 1
            else:
                others += 1
                if j < lo or j >= hi:
                    between += abs(values[p])
        others += 0.75 * diagonal + 0.5 * between > diagonal
        lower[i + 1] = _filled(before) if diagonal > 0 else 0
        rest[i + 1] = _filled(others) if diagonal > 0 else 0


@serial
def _divide(indptr, indices, values, factor, lp, li, lv, ep, ei, ev, divisor, inverse, lo, hi):
    n = inverse.size
    for i in range(lo, hi):
        diagonal, between = 0.0, 0.0
        for p in range(uint64(indptr[i]), uint64(indptr[i + 1])):
            if indices[p] == i:
                diagonal += values[p]
            elif indices[p] < lo or indices[p] >= hi:
                between += abs(values[p])
        if not diagonal > 0:
            divisor[i], inverse[i] = 0.0, 0.0
            continue
        d = max(diagonal, 0.75 * diagonal + 0.5 * between)
        divisor[i], inverse[i], scale = factor * d, 1 / (factor * d), 1 / d
        # both from the last place backwards: L ends with the row before i, E with the row after it
        a, c = lp[i + 1], ep[i]
        for p in range(indptr[i + 1] - 1, indptr[i] - 1, -1):
            j, value = indices[p], values[p] * scale
            if j < i and j >= lo:
                a -= 1
                li[a], lv[a] = j, value
            elif j != i:
                ei[c], ev[c] = (j if j >= lo and j < hi else n + j), value
                c += 1
        if d > diagonal:
            ei[c], ev[c] = i, (diagonal - d) * scale
            c += 1
        _fill(li, lv, lp[i], a, li[a] if a < lp[i + 1] else 0)
        _shift(ei, ev, ep[i], c, ep[i + 1])


@serial
def _fill(indices, values, start, end, column):
    for p in range(start, end):
        indices[p], values[p] = column, 0.0


@serial
def _shift(indices, values, start, end, last):
    """Move the entries start..end so that they end at `last`, and fill what is before them."""
    gap = last - end
    if gap > 0:
        for p in range(end - 1, start - 1, -1):
            indices[p + gap], values[p + gap] = indices[p], values[p]
        _fill(indices, values, start, start + gap, indices[start + gap])


def csr_block_split(
    indptr: Tensor, indices: Tensor, values: Tensor, starts: Tensor, factor: float, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Split factor * A; return D^-1 L and D^-1 E, three tensors each, D and D^-1, in `dtype`."""
    A = indptr.numpy(), indices.numpy(), values.numpy()
    n, kind = len(A[0]) - 1, _numpy(dtype)
    lp, ep = np.zeros(n + 1, np.int32), np.zeros(n + 1, np.int32)
    over_blocks(starts, lambda lo, hi: _count(*A, lp, ep, lo, hi), len(A[2]))
    np.cumsum(lp, out=lp)
    np.cumsum(ep, out=ep)
    L = lp, np.empty(lp[-1], np.int32), np.empty(lp[-1], kind)
    E = ep, np.empty(ep[-1], np.int32), np.empty(ep[-1], kind)
    D = np.empty(n, kind), np.empty(n, kind)
    over_blocks(starts, lambda lo, hi: _divide(*A, float(factor), *L, *E, *D, lo, hi), len(A[2]))
    return tuple(torch.from_numpy(part) for part in (*L, *E, *D))
