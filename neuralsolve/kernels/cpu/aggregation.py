"""Set-up of smoothed aggregation, numba. Definitions: `neuralsolve.kernels.reference.aggregation`.

The rows of a product are made one after the other; a marker says where a column stands in the present row, if
it does already. Ranges of rows do so side by side, each with a marker of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numba import uint64
from torch import Tensor

from neuralsolve.kernels.cpu.prefetch import prefetch
from neuralsolve.kernels.cpu.threads import over_ranges, serial

Rows = tuple[Tensor, Tensor, Tensor]
Part = tuple[np.ndarray, np.ndarray]  # columns and values of a range of rows

ROOM = 4  # entries of A P per entry of A, to begin with; 1.3 for a 7-point matrix
AHEAD = 6  # rows of A P that are asked for before they are needed


@serial
def _row_sizes(indptr, indices, values, diagonal, scale, lo, hi):
    for i in range(lo, hi):
        largest, d = 0.0, 0.0
        for p in range(uint64(indptr[i]), uint64(indptr[i + 1])):
            if indices[p] == i:
                d += values[p]
            else:
                largest = max(largest, abs(values[p]))
        diagonal[i], scale[i] = d, np.sqrt(largest)


def csr_row_sizes(indptr: Tensor, indices: Tensor, values: Tensor, diagonal: Tensor, scale: Tensor) -> None:
    """Set diagonal_i = a_ii and scale_i = sqrt(max |a_ij|, j != i), both (n,)."""
    A = indptr.numpy(), indices.numpy(), values.numpy()
    d, s = diagonal.numpy(), scale.numpy()
    over_ranges(len(d), lambda lo, hi: _row_sizes(*A, d, s, lo, hi), entries=len(A[2]))


@serial
def _aggregate(indptr, indices, values, scale, theta, out):
    n, count = out.size, 0
    out[:] = -1
    for i in range(n):
        if out[i] != -1:
            continue
        limit, free, coupled = theta * scale[i], True, False
        for p in range(uint64(indptr[i]), uint64(indptr[i + 1])):
            j = indices[p]
            if j != i and abs(values[p]) > limit * scale[j]:
                coupled = True
                if out[j] != -1:
                    free = False
                    break
        if not (coupled and free):
            continue
        out[i] = count
        for p in range(uint64(indptr[i]), uint64(indptr[i + 1])):
            j = indices[p]
            if j != i and abs(values[p]) > limit * scale[j]:
                out[j] = count
        count += 1
    for i in range(n):
        if out[i] != -1:
            continue
        limit, largest, chosen = theta * scale[i], 0.0, -1
        for p in range(uint64(indptr[i]), uint64(indptr[i + 1])):
            j, a = indices[p], abs(values[p])
            if j != i and a > limit * scale[j] and out[j] >= 0 and a > largest:
                largest, chosen = a, out[j]
        if chosen >= 0:
            out[i] = -2 - chosen  # such rows attract no others
    for i in range(n):
        if out[i] <= -2:
            out[i] = -2 - out[i]
    return count


def csr_aggregate(
    indptr: Tensor, indices: Tensor, values: Tensor, scale: Tensor, theta: float, out: Tensor
) -> int:
    """Cut the graph of strong couplings into aggregates, out (n,) int32; return their number."""
    return _aggregate(
        indptr.numpy(), indices.numpy(), values.numpy(), scale.numpy(), float(theta), out.numpy()
    )


@serial
def _smoothed(indptr, indices, values, scale, theta, omega, labels, count, longest, lengths, lo, hi):
    room = indptr[hi] - indptr[lo] + hi - lo
    columns, numbers = np.empty(room, np.int32), np.empty(room, np.float32)
    mark, sums = np.full(count, -1, np.int64), np.empty(256)
    q = 0
    for i in range(lo, hi):
        first, limit, d, size = q, theta * scale[i], 0.0, 0.0
        if indptr[i + 1] - indptr[i] > longest:
            lengths[i] = labels[i] >= 0
            if labels[i] >= 0:
                columns[q], numbers[q] = labels[i], 1.0
                q += 1
            continue
        if sums.size < indptr[i + 1] - indptr[i] + 1:
            sums = np.empty(2 * (indptr[i + 1] - indptr[i]))
        for p in range(uint64(indptr[i]), uint64(indptr[i + 1])):
            j, a = indices[p], values[p]
            if j == i or abs(a) <= limit * scale[j]:
                d += a
                continue
            size += abs(a)
            label = labels[j]
            if label >= 0:
                at = mark[label]
                if at < first:
                    mark[label], columns[q], sums[q - first] = q, label, a
                    q += 1
                else:
                    sums[at - first] += a
        size += abs(d)
        w = omega / size if size > 0 else 0.0
        label = labels[i]
        if label >= 0 and mark[label] < first:
            mark[label], columns[q], sums[q - first] = q, label, 0.0
            q += 1
        for p in range(first, q):
            numbers[p] = (1 - w * (d + sums[p - first])) if columns[p] == label else -w * sums[p - first]
        lengths[i] = q - first
    return columns[:q], numbers[:q]


def csr_smoothed_aggregates(
    indptr: Tensor,
    indices: Tensor,
    values: Tensor,
    scale: Tensor,
    theta: float,
    omega: float,
    labels: Tensor,
    count: int,
    longest: int,
) -> Rows:
    """Return P = (I - W A_F) T, (n, count) with float32 values; rows longer than `longest` are those of T."""
    A = indptr.numpy(), indices.numpy(), values.numpy()
    more = scale.numpy(), float(theta), float(omega), labels.numpy(), count, longest
    return _made(len(A[0]) - 1, lambda lengths, lo, hi: _smoothed(*A, *more, lengths, lo, hi), len(A[2]))


def _made(rows: int, kernel: Callable[[np.ndarray, int, int], Part], entries: int) -> Rows:
    """Join the rows that ranges return; `kernel(lengths, lo, hi)` also writes their lengths."""
    starts = np.zeros(rows + 1, np.int32)
    parts = over_ranges(rows, lambda lo, hi: kernel(starts[1:], lo, hi), entries=entries)
    np.cumsum(starts, out=starts)
    columns, values = (
        parts[0] if len(parts) == 1 else [np.concatenate([part[k] for part in parts]) for k in (0, 1)]
    )
    return torch.from_numpy(starts), torch.from_numpy(columns), torch.from_numpy(values)


@serial
def _transpose_count(indices, starts, lo, hi):
    for p in range(uint64(indices.size)):
        j = indices[p]
        if j >= lo and j < hi:
            starts[j + 1] += 1


@serial
def _transpose(indptr, indices, values, at, rows, out, lo, hi):
    """Columns lo..hi of A; `at` is where the next entry of each goes."""
    for i in range(indptr.size - 1):
        for p in range(uint64(indptr[i]), uint64(indptr[i + 1])):
            j = indices[p]
            if j >= lo and j < hi:
                q = uint64(at[j])
                rows[q], out[q] = i, values[p]
                at[j] += 1


def csr_transpose(indptr: Tensor, indices: Tensor, values: Tensor, columns: int) -> Rows:
    """Return A^T for A of shape (m, columns), its columns within a row rising."""
    starts, cols, numbers = indptr.numpy(), indices.numpy(), values.numpy()
    new = np.zeros(columns + 1, np.int32)
    over_ranges(columns, lambda lo, hi: _transpose_count(cols, new, lo, hi), entries=len(cols))
    np.cumsum(new, out=new)
    at, rows, out = new.copy(), np.empty(len(cols), np.int32), np.empty_like(numbers)
    over_ranges(
        columns, lambda lo, hi: _transpose(starts, cols, numbers, at, rows, out, lo, hi), entries=len(cols)
    )
    return torch.from_numpy(new), torch.from_numpy(rows), torch.from_numpy(out)


@serial
def _times_p(indptr, indices, values, p_indptr, p_indices, p_values, m, room, ends, columns, out, lo, hi):
    """Rows lo..hi of A P, those of a range one after the other from room * indptr[lo]; False: no room."""
    mark = np.full(m, -1, np.int64)
    q, limit = room * np.int64(indptr[lo]), room * np.int64(indptr[hi])
    for i in range(lo, hi):
        first = q
        for p in range(uint64(indptr[i]), uint64(indptr[i + 1])):
            j, a = uint64(indices[p]), values[p]
            start, end = uint64(p_indptr[j]), uint64(p_indptr[j + uint64(1)])
            if q + np.int64(end - start) > limit:
                return False
            for r in range(start, end):
                k = uint64(p_indices[r])
                at = mark[k]
                if at < first:
                    mark[k], columns[q], out[q] = q, k, a * p_values[r]
                    q += 1
                else:
                    out[uint64(at)] += a * p_values[r]
        ends[i, 0], ends[i, 1] = first, q
    return True


@serial
def _r_times(indptr, indices, values, diagonal, ends, columns, numbers, rounding, lengths, lo, hi):
    """Rows lo..hi of R (A P)."""
    m = indptr.size - 1
    room = 4 * (indptr[hi] - indptr[lo]) + 1024
    made, out = np.empty(room, np.int32), np.empty(room, np.float64)
    mark, last = np.full(m, -1, np.int64), uint64(indices.size - 1)
    q = 0
    for i in range(lo, hi):
        first, size = q, 0.0
        if q + m > room:  # else no row can be too long
            most = q
            for p in range(indptr[i], indptr[i + 1]):
                most += ends[indices[p], 1] - ends[indices[p], 0]
            most = min(most, q + m)
            if most > room:
                room = max(2 * room, most)
                more, also = np.empty(room, np.int32), np.empty(room, np.float64)
                more[:q], also[:q] = made[:q], out[:q]
                made, out = more, also
        for p in range(uint64(indptr[i]), uint64(indptr[i + 1])):
            j, w = uint64(indices[p]), np.float64(values[p])
            next_row = uint64(ends[indices[min(p + uint64(AHEAD), last)], 0])
            prefetch(columns, next_row)
            prefetch(numbers, next_row)
            size += w * w * diagonal[j]
            for r in range(uint64(ends[j, 0]), uint64(ends[j, 1])):
                k = uint64(columns[r])
                at = mark[k]
                if at < first:
                    mark[k], made[q], out[q] = q, k, w * numbers[r]
                    q += 1
                else:
                    out[uint64(at)] += w * numbers[r]
        if mark[i] < first or out[mark[i]] <= rounding * size:
            out[first:q] = 0.0
        lengths[i] = q - first
    return made[:q], out[:q]


def csr_galerkin(
    indptr: Tensor,
    indices: Tensor,
    values: Tensor,
    diagonal: Tensor,
    p_indptr: Tensor,
    p_indices: Tensor,
    p_values: Tensor,
    r_indptr: Tensor,
    r_indices: Tensor,
    r_values: Tensor,
    rounding: float,
) -> Rows:
    """Return A_c = R A P in float64, R = P^T; rows that are nothing but rounding are set to zero."""
    A = indptr.numpy(), indices.numpy(), values.numpy()
    P = p_indptr.numpy(), p_indices.numpy(), p_values.numpy()
    n, m, entries, room = len(A[0]) - 1, len(r_indptr) - 1, len(A[2]), ROOM
    ends = np.empty((n, 2), np.int64)
    while True:  # what is not written to takes no memory
        columns, numbers = np.empty(room * entries, np.int32), np.empty(room * entries)

        def times_p(lo: int, hi: int, room=room, columns=columns, numbers=numbers) -> bool:
            return _times_p(*A, *P, m, room, ends, columns, numbers, lo, hi)

        if all(over_ranges(n, times_p, entries=3 * entries)):
            break
        room *= 4
    R = r_indptr.numpy(), r_indices.numpy(), r_values.numpy()
    product = diagonal.numpy(), ends, columns, numbers, float(rounding)
    return _made(m, lambda lengths, lo, hi: _r_times(*R, *product, lengths, lo, hi), 8 * len(R[2]))
