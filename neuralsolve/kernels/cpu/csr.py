"""CSR products, numba. Definitions, shapes and error bounds: `neuralsolve.kernels.reference.csr`.

Loop variables are unsigned: numba lets signed indices count from the end where they are negative, a test that
would cost as much as the sum.
"""

from __future__ import annotations

import numpy as np
from numba import uint64
from torch import Tensor

from neuralsolve.kernels.cpu.prefetch import AHEAD, IN_CACHE, prefetch
from neuralsolve.kernels.cpu.threads import ordered, over_ranges, serial
from neuralsolve.kernels.cpu.vector import numbers, total

WIDE = 16  # columns from which on they are vectors of their own


@serial
def _row_after(indptr, entries):
    """First row that starts at or after this many stored entries: it cuts the rows into equal work."""
    lo, hi = 0, indptr.size - 1
    while lo < hi:
        middle = (lo + hi) // 2
        if indptr[middle] < entries:
            lo = middle + 1
        else:
            hi = middle
    return lo


@serial
def _row_range(indptr, entries, lo, hi):
    """Return the rows that belong to the stored entries lo..hi out of all `entries`."""
    first = _row_after(indptr, lo) if lo > 0 else 0
    return first, (_row_after(indptr, hi) if hi < entries else indptr.size - 1)


@ordered
def _rows(indptr, indices, values, x, w, out, lo, hi):
    """Rows of out = A x with the entries lo..hi; returns their part of w.out."""
    first, last = _row_range(indptr, values.size, lo, hi)
    one, two, three, four = uint64(1), uint64(2), uint64(3), uint64(4)
    wy, far = 0.0, values.size > IN_CACHE
    p = uint64(indptr[first])
    for i in range(uint64(first), uint64(last)):
        end = uint64(indptr[i + one])
        s = 0.0
        while p + four <= end:
            if far:
                prefetch(values, p + uint64(AHEAD))
                prefetch(indices, p + uint64(AHEAD))
            a = values[p] * x[uint64(indices[p])] + values[p + one] * x[uint64(indices[p + one])]
            b = values[p + two] * x[uint64(indices[p + two])]
            s += a + (b + values[p + three] * x[uint64(indices[p + three])])
            p += four
        while p < end:
            s += values[p] * x[uint64(indices[p])]
            p += one
        out[i] = s
        wy += s * w[i]
    return wy


@ordered
def _rows_columns(indptr, indices, values, x, w, out, k, lo, hi):
    """Rows with the entries lo..hi for x (n, k) flat: four or two columns at a time, sums in registers."""
    first, last = _row_range(indptr, values.size, lo, hi)
    one, two, three, four = uint64(1), uint64(2), uint64(3), uint64(4)
    width = uint64(k)
    sums = np.zeros(k)
    for i in range(uint64(first), uint64(last)):
        start, end = uint64(indptr[i]), uint64(indptr[i + one])
        prefetch(values, start + uint64(AHEAD))
        prefetch(indices, start + uint64(AHEAD))
        row, j = i * width, uint64(0)
        while j + four <= width:
            s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
            for p in range(start, end):
                a, q = values[p], uint64(indices[p]) * width + j
                s0 += a * x[q]
                s1 += a * x[q + one]
                s2 += a * x[q + two]
                s3 += a * x[q + three]
            q = row + j
            out[q], out[q + one], out[q + two], out[q + three] = s0, s1, s2, s3
            j += four
        while j + two <= width:
            s0, s1 = 0.0, 0.0
            for p in range(start, end):
                a, q = values[p], uint64(indices[p]) * width + j
                s0 += a * x[q]
                s1 += a * x[q + one]
            out[row + j], out[row + j + one] = s0, s1
            j += two
        if j < width:
            s0 = 0.0
            for p in range(start, end):
                s0 += values[p] * x[uint64(indices[p]) * width + j]
            out[row + j] = s0
        for j in range(width):
            sums[j] += np.float64(w[row + j]) * out[row + j]
    return sums


@serial
def _add_row(indices, values, start, end, x, line):
    """Add to line (k,) all values[p] x[indices[p]], p in start..end: four rows of x (n, k) at a time."""
    one, two, three, four = uint64(1), uint64(2), uint64(3), uint64(4)
    p = start
    while p + three < end:
        a, b, c, d = values[p], values[p + one], values[p + two], values[p + three]
        i, j = uint64(indices[p]), uint64(indices[p + one])
        k, m = uint64(indices[p + two]), uint64(indices[p + three])
        for q in range(line.size):
            line[q] += (a * x[i, q] + b * x[j, q]) + (c * x[k, q] + d * x[m, q])
        p += four
    while p < end:
        a, i = values[p], uint64(indices[p])
        for q in range(line.size):
            line[q] += a * x[i, q]
        p += one


@serial
def _rows_wide(indptr, indices, values, x, out, lo, hi):
    """Rows of out = A x with the entries lo..hi for x (n, k) of many columns: all of them side by side."""
    first, last = _row_range(indptr, values.size, lo, hi)
    for i in range(first, last):
        line = out[i]
        line[:] = 0
        _add_row(indices, values, uint64(indptr[i]), uint64(indptr[i + 1]), x, line)


@serial
def _gram_rows(indptr, indices, values, x, lo, hi):
    """Return the sum of a_i^T (a_i x) over the rows a_i with the entries lo..hi: A x is never stored."""
    first, last = _row_range(indptr, values.size, lo, hi)
    out, line = np.zeros_like(x), np.empty(x.shape[1], x.dtype)
    for i in range(first, last):
        start, end = uint64(indptr[i]), uint64(indptr[i + 1])
        line[:] = 0
        _add_row(indices, values, start, end, x, line)
        for p in range(start, end):
            a, j = values[p], uint64(indices[p])
            for q in range(line.size):
                out[j, q] += a * line[q]
    return out


def _product(indptr: Tensor, indices: Tensor, values: Tensor, x: Tensor, w: Tensor, out: Tensor) -> list:
    """Set out = A x, return w.out by ranges: beside the memory traffic the inner product is free."""
    starts, columns, entries = indptr.numpy(), indices.numpy(), values.numpy()
    X, W, Y = numbers(x), numbers(w), numbers(out)
    if X.ndim == 1:
        return over_ranges(len(entries), lambda lo, hi: _rows(starts, columns, entries, X, W, Y, lo, hi))
    k = X.shape[1]
    X, W, Y = X.reshape(-1), W.reshape(-1), Y.reshape(-1)

    def kernel(lo: int, hi: int) -> np.ndarray:
        return _rows_columns(starts, columns, entries, X, W, Y, k, lo, hi)

    return over_ranges(len(entries), kernel, entries=k * len(entries))


def csr_matvec(indptr: Tensor, indices: Tensor, values: Tensor, x: Tensor, out: Tensor) -> None:
    """Out = A x; x (n,) or (n, k), out (m,) or (m, k) overwritten."""
    if x.ndim == 2 and x.shape[1] >= WIDE:
        starts, columns, entries = indptr.numpy(), indices.numpy(), values.numpy()
        X, Y, count = x.numpy(), out.numpy(), len(values)
        over_ranges(
            count,
            lambda lo, hi: _rows_wide(starts, columns, entries, X, Y, lo, hi),
            entries=x.shape[1] * count,
        )
        return
    _product(indptr, indices, values, x, out, out)


def csr_matvec_dot(indptr: Tensor, indices: Tensor, values: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """Out = A x for square A; returns x.out, () or (k,)."""
    return total(_product(indptr, indices, values, x, x, out), x)


def csr_gram(indptr: Tensor, indices: Tensor, values: Tensor, x: Tensor, out: Tensor) -> None:
    """Out = A^T A x; x and out (n, k)."""
    starts, columns, entries = indptr.numpy(), indices.numpy(), values.numpy()
    X, count = x.numpy(), len(values)
    parts = over_ranges(
        count,
        lambda lo, hi: _gram_rows(starts, columns, entries, X, lo, hi),
        entries=x.shape[1] * count,
        per_thread=1,  # each range has a sum of its own
    )
    total = out.numpy()
    total[:] = parts[0]
    for part in parts[1:]:
        total += part


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
