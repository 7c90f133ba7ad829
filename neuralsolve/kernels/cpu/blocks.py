"""Gauss-Seidel within blocks of rows, numba. Definitions: `neuralsolve.kernels.reference.blocks`.

Rows are filled up to a multiple of four entries with zeros that point at a column of the row. Most rows of a mesh
then take one turn of a loop of four; rows of varying length would have the processor guess each end wrongly, at the
price of the row itself. The coupling to the row visited last, which a sweep waits for, comes last in its row.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from numba import uint64
from torch import Tensor

from neuralsolve.kernels.cpu import threads
from neuralsolve.kernels.cpu.prefetch import AHEAD, prefetch
from neuralsolve.kernels.cpu.threads import ordered, over_ranges, serial
from neuralsolve.kernels.cpu.vector import numbers

WIDTH = 4
Rows = tuple[Tensor, Tensor, Tensor]


def _over_blocks(starts: Tensor, kernel: Callable[[int, int], object], entries: int) -> None:
    """Call `kernel(lo, hi)` on every block, side by side where it pays."""
    blocks = list(pairwise(starts.tolist()))
    count = 1 if entries < threads.SERIAL_BELOW else min(torch.get_num_threads(), threads.MAX_THREADS)
    if count == 1:
        for lo, hi in blocks:
            kernel(lo, hi)
    else:
        threads.side_by_side(len(blocks), lambda q: kernel(*blocks[q]), count)


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
    _over_blocks(starts, lambda lo, hi: _count(*A, lp, ep, lo, hi), len(A[2]))
    np.cumsum(lp, out=lp)
    np.cumsum(ep, out=ep)
    L = lp, np.empty(lp[-1], np.int32), np.empty(lp[-1], kind)
    E = ep, np.empty(ep[-1], np.int32), np.empty(ep[-1], kind)
    D = np.empty(n, kind), np.empty(n, kind)
    _over_blocks(starts, lambda lo, hi: _divide(*A, float(factor), *L, *E, *D, lo, hi), len(A[2]))
    return tuple(torch.from_numpy(part) for part in (*L, *E, *D))


@ordered
def _less_row(s, indices, values, x, p, end):
    """s - (row . x), the entry that may have to be waited for last."""
    one, two, three, four = uint64(1), uint64(2), uint64(3), uint64(4)
    while p < end:
        s -= values[p] * x[uint64(indices[p])] + values[p + one] * x[uint64(indices[p + one])]
        s -= values[p + two] * x[uint64(indices[p + two])]
        s -= values[p + three] * x[uint64(indices[p + three])]
        p += four
    return s


@ordered
def _less_row_columns(out, indices, values, x, start, end):
    for p in range(start, end):
        a, j = values[p], indices[p]
        for c in range(out.size):
            out[c] -= a * x[j, c]


@ordered
def _forward(indptr, indices, values, inverse, b, x, lo, hi):
    one, n = uint64(1), uint64(inverse.size)
    p = uint64(indptr[lo])
    for i in range(uint64(lo), uint64(hi)):
        end = uint64(indptr[i + one])
        prefetch(values, p + uint64(AHEAD))
        prefetch(indices, p + uint64(AHEAD))
        s = _less_row(inverse[i] * b[i], indices, values, x, p, end)
        x[i], x[n + i] = s, s
        p = end


@ordered
def _forward_columns(indptr, indices, values, inverse, b, x, lo, hi):
    n, s = inverse.size, np.empty(x.shape[1], x.dtype)
    for i in range(lo, hi):
        for c in range(s.size):
            s[c] = inverse[i] * b[i, c]
        _less_row_columns(s, indices, values, x, indptr[i], indptr[i + 1])
        for c in range(s.size):
            x[i, c] = x[n + i, c] = s[c]


def csr_block_forward(
    l_indptr: Tensor,
    l_indices: Tensor,
    l_values: Tensor,
    inverse: Tensor,
    starts: Tensor,
    b: Tensor,
    x: Tensor,
) -> None:
    """Set both halves of x to B^-1 b; b (n,) or (n, k), x (2 n,) or (2 n, k)."""
    A = l_indptr.numpy(), l_indices.numpy(), l_values.numpy(), inverse.numpy(), numbers(b)
    X = numbers(x)
    kernel, k = (_forward, 1) if X.ndim == 1 else (_forward_columns, X.shape[1])
    _over_blocks(starts, lambda lo, hi: kernel(*A, X, lo, hi), k * (len(l_values) + 2 * len(inverse)))


@ordered
def _residual(indptr, indices, values, divisor, x, out, lo, hi):
    one, two, three, four = uint64(1), uint64(2), uint64(3), uint64(4)
    p = uint64(indptr[lo])
    for i in range(uint64(lo), uint64(hi)):
        s, end = out.dtype.type(0), uint64(indptr[i + one])
        prefetch(values, p + uint64(AHEAD))
        prefetch(indices, p + uint64(AHEAD))
        while p < end:
            u = values[p] * x[uint64(indices[p])] + values[p + one] * x[uint64(indices[p + one])]
            v = values[p + two] * x[uint64(indices[p + two])]
            s -= u + (v + values[p + three] * x[uint64(indices[p + three])])
            p += four
        out[i] = divisor[i] * s


@ordered
def _residual_columns(indptr, indices, values, divisor, x, out, lo, hi):
    for i in range(lo, hi):
        for c in range(out.shape[1]):
            out[i, c] = 0.0
        _less_row_columns(out[i], indices, values, x, indptr[i], indptr[i + 1])
        for c in range(out.shape[1]):
            out[i, c] *= divisor[i]


def csr_block_residual(
    e_indptr: Tensor, e_indices: Tensor, e_values: Tensor, divisor: Tensor, x: Tensor, out: Tensor
) -> None:
    """Set out = -E x, which is b - A x after `csr_block_forward`; out (n,) or (n, k), x twice as long."""
    A = e_indptr.numpy(), e_indices.numpy(), e_values.numpy(), divisor.numpy(), numbers(x)
    Y = numbers(out)
    kernel, k = (_residual, 1) if Y.ndim == 1 else (_residual_columns, Y.shape[1])
    over_ranges(len(Y), lambda lo, hi: kernel(*A, Y, lo, hi), entries=k * len(e_values))


@ordered
def _correct(indptr, indices, values, e, x, lo, hi):
    one, two, three, four = uint64(1), uint64(2), uint64(3), uint64(4)
    p, n = uint64(indptr[lo]), uint64(indptr.size - 1)
    for i in range(uint64(lo), uint64(hi)):
        s, end = x[i], uint64(indptr[i + one])
        prefetch(values, p + uint64(AHEAD))
        prefetch(indices, p + uint64(AHEAD))
        while p < end:
            u = values[p] * e[uint64(indices[p])] + values[p + one] * e[uint64(indices[p + one])]
            v = values[p + two] * e[uint64(indices[p + two])]
            s += u + (v + values[p + three] * e[uint64(indices[p + three])])
            p += four
        x[i], x[n + i] = s, s


@ordered
def _correct_columns(indptr, indices, values, e, x, lo, hi):
    n = indptr.size - 1
    for i in range(lo, hi):
        for p in range(indptr[i], indptr[i + 1]):
            for c in range(x.shape[1]):
                x[i, c] += values[p] * e[indices[p], c]
        for c in range(x.shape[1]):
            x[n + i, c] = x[i, c]


def csr_block_correct(p_indptr: Tensor, p_indices: Tensor, p_values: Tensor, e: Tensor, x: Tensor) -> None:
    """Add P e to the first half of x and copy it to the second; P from `csr_padded`."""
    P, n = (p_indptr.numpy(), p_indices.numpy(), p_values.numpy(), numbers(e)), len(p_indptr) - 1
    X = numbers(x)
    kernel, k = (_correct, 1) if X.ndim == 1 else (_correct_columns, X.shape[1])
    over_ranges(n, lambda lo, hi: kernel(*P, X, lo, hi), entries=k * len(p_values))


@ordered
def _backward(lp, li, lv, ep, ei, ev, inverse, b, x, lo, hi):
    one = uint64(1)
    for q in range(hi - lo):
        i = uint64(hi - 1 - q)
        first, start = lp[i], ep[i]
        prefetch(lv, first - AHEAD)
        prefetch(li, first - AHEAD)
        prefetch(ev, start - AHEAD)
        prefetch(ei, start - AHEAD)
        s = _less_row(inverse[i] * b[i], li, lv, x, uint64(first), uint64(lp[i + one]))
        x[i] = _less_row(s, ei, ev, x, uint64(start), uint64(ep[i + one]))


@ordered
def _backward_columns(lp, li, lv, ep, ei, ev, inverse, b, x, lo, hi):
    s = np.empty(x.shape[1], x.dtype)
    for i in range(hi - 1, lo - 1, -1):
        for c in range(s.size):
            s[c] = inverse[i] * b[i, c]
        _less_row_columns(s, li, lv, x, lp[i], lp[i + 1])
        _less_row_columns(s, ei, ev, x, ep[i], ep[i + 1])
        for c in range(s.size):
            x[i, c] = s[c]


def csr_block_backward(
    l_indptr: Tensor,
    l_indices: Tensor,
    l_values: Tensor,
    e_indptr: Tensor,
    e_indices: Tensor,
    e_values: Tensor,
    inverse: Tensor,
    starts: Tensor,
    b: Tensor,
    x: Tensor,
) -> None:
    """Add B^-T (b - A x) to the first half of x, whose second half is equal to it."""
    L, E = (l_indptr.numpy(), l_indices.numpy(), l_values.numpy()), (e_indptr, e_indices, e_values)
    A = *L, *(part.numpy() for part in E), inverse.numpy(), numbers(b)
    X = numbers(x)
    kernel, k = (_backward, 1) if X.ndim == 1 else (_backward_columns, X.shape[1])
    work = k * (len(l_values) + len(e_values) + 2 * len(inverse))
    _over_blocks(starts, lambda lo, hi: kernel(*A, X, lo, hi), work)
