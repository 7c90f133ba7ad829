"""CSR products, numba. Definitions, shapes and error bounds: `neuralsolve.kernels.reference.csr`.

Loop variables are unsigned: numba wraps negative signed indices round, a test that would cost as much as the sum.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import prange, uint64
from torch import Tensor

from neuralsolve.kernels.cpu.threads import ordered, parts, serial, threaded
from neuralsolve.kernels.cpu.vector import as_scalars


@ordered
def _rows(indptr, indices, values, x, w, out, lo, hi):
    """Rows lo..hi of out = A x; returns their part of w.out."""
    one, two, three, four = uint64(1), uint64(2), uint64(3), uint64(4)
    total = 0.0
    p = uint64(indptr[lo])
    for i in range(uint64(lo), uint64(hi)):
        end = uint64(indptr[i + one])
        s = 0.0
        while p + four <= end:
            s += (values[p] * x[uint64(indices[p])] + values[p + one] * x[uint64(indices[p + one])]) + (
                values[p + two] * x[uint64(indices[p + two])]
                + values[p + three] * x[uint64(indices[p + three])]
            )
            p += four
        while p < end:
            s += values[p] * x[uint64(indices[p])]
            p += one
        out[i] = s
        total += s * w[i]
    return total


@serial
def _row_after(indptr, entries):
    """First row that starts at or after this many stored entries: ranges of rows of equal work."""
    lo, hi = 0, indptr.size - 1
    while lo < hi:
        middle = (lo + hi) // 2
        if indptr[middle] < entries:
            lo = middle + 1
        else:
            hi = middle
    return lo


@threaded
def _rows_threads(indptr, indices, values, x, w, out, chunks):
    work = values.size
    partial = np.zeros(chunks)
    for c in prange(chunks):
        lo = _row_after(indptr, work * c // chunks) if c > 0 else 0
        hi = _row_after(indptr, work * (c + 1) // chunks) if c + 1 < chunks else out.size
        partial[c] = _rows(indptr, indices, values, x, w, out, lo, hi)
    total = 0.0
    for c in range(chunks):
        total += partial[c]
    return total


@ordered
def _rows_columns(indptr, indices, values, x, w, out, lo, hi, sums):
    """Rows lo..hi for x (n, k), four columns at a time so that their sums stay in registers."""
    one, k = uint64(1), uint64(x.shape[1])
    for i in range(uint64(lo), uint64(hi)):
        start, end = uint64(indptr[i]), uint64(indptr[i + one])
        j = uint64(0)
        while j + uint64(4) <= k:
            s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
            for p in range(start, end):
                a, col = values[p], uint64(indices[p])
                s0 += a * x[col, j]
                s1 += a * x[col, j + one]
                s2 += a * x[col, j + uint64(2)]
                s3 += a * x[col, j + uint64(3)]
            out[i, j], out[i, j + one], out[i, j + uint64(2)], out[i, j + uint64(3)] = s0, s1, s2, s3
            j += uint64(4)
        while j < k:
            s = 0.0
            for p in range(start, end):
                s += values[p] * x[uint64(indices[p]), j]
            out[i, j] = s
            j += one
        for j in range(k):
            sums[j] += np.float64(w[i, j]) * out[i, j]


@threaded
def _rows_columns_threads(indptr, indices, values, x, w, out, partial):
    work, chunks = values.size, partial.shape[0]
    for c in prange(chunks):
        lo = _row_after(indptr, work * c // chunks) if c > 0 else 0
        hi = _row_after(indptr, work * (c + 1) // chunks) if c + 1 < chunks else out.shape[0]
        _rows_columns(indptr, indices, values, x, w, out, lo, hi, partial[c])


def _product(A: tuple[Tensor, Tensor, Tensor], x: Tensor, w: Tensor, out: Tensor) -> float | np.ndarray:
    """Set out = A x, return w.out: the inner product is free beside the memory traffic, so one kernel does both."""
    indptr, indices, values = (part.numpy() for part in A)
    X, W, Y = x.numpy(), w.numpy(), out.numpy()
    chunks = parts(values.size)
    if x.ndim == 1:
        if chunks == 1:
            return _rows(indptr, indices, values, X, W, Y, 0, len(Y))
        return _rows_threads(indptr, indices, values, X, W, Y, chunks)
    partial = np.zeros((chunks, x.shape[1]))
    if chunks == 1:
        _rows_columns(indptr, indices, values, X, W, Y, 0, len(Y), partial[0])
    else:
        _rows_columns_threads(indptr, indices, values, X, W, Y, partial)
    return partial.sum(0)


def csr_matvec(indptr: Tensor, indices: Tensor, values: Tensor, x: Tensor, out: Tensor) -> None:
    """Out = A x; x (n,) or (n, k), out (m,) or (m, k) overwritten."""
    _product((indptr, indices, values), x, out, out)


def csr_matvec_dot(indptr: Tensor, indices: Tensor, values: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """Out = A x for square A; returns x.out, () or (k,)."""
    total = _product((indptr, indices, values), x, x, out)
    if isinstance(total, np.ndarray):
        return as_scalars(total, x)
    return torch.scalar_tensor(total, dtype=x.dtype)


@serial
def _diagonal(indptr, indices, values, out):
    for i in range(out.size):
        total = values.dtype.type(0)
        for p in range(indptr[i], indptr[i + 1]):
            if indices[p] == i:
                total += values[p]
        out[i] = total


def csr_diagonal(indptr: Tensor, indices: Tensor, values: Tensor, out: Tensor) -> None:
    """out_i = A_ii, 0 where it is not stored; out (min(m, n),)."""
    _diagonal(indptr.numpy(), indices.numpy(), values.numpy(), out.numpy())


@serial
def _coloring(indptr, indices, out):
    n, colors = out.size, 0
    taken_by = np.full(n + 1, -1, np.int64)  # taken_by[c] == i: colour c is used by a neighbour of row i
    out[:] = -1
    for i in range(n):
        for p in range(indptr[i], indptr[i + 1]):
            j = indices[p]
            if j != i and out[j] >= 0:
                taken_by[out[j]] = i
        color = 0
        while taken_by[color] == i:
            color += 1
        out[i] = color
        colors = max(colors, color + 1)
    return colors


def csr_coloring(indptr: Tensor, indices: Tensor, out: Tensor) -> int:
    """Colour the graph of a symmetric pattern greedily; out (n,) int32, returns the number of colours."""
    return _coloring(indptr.numpy(), indices.numpy(), out.numpy())
