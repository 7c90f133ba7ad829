"""Gauss-Seidel within blocks of rows, numba. Definitions: `neuralsolve.kernels.reference.blocks`.

Rows are filled up to a multiple of four entries with zeros that point at a column of the row. Most rows of a
mesh then take one turn of a loop of four; rows of varying length would have the processor guess their ends
wrongly, at the price of the row itself. The coupling to the row visited last, which a sweep waits for, comes
last in its row.
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
from neuralsolve.kernels.cpu.threads import ordered, over_ranges
from neuralsolve.kernels.cpu.vector import numbers


def over_blocks(starts: Tensor, kernel: Callable[[int, int], object], entries: int) -> None:
    """Call `kernel(lo, hi)` on every block, side by side where it pays."""
    blocks = list(pairwise(starts.tolist()))
    count = 1 if entries < threads.SERIAL_BELOW else min(torch.get_num_threads(), threads.MAX_THREADS)
    if count == 1:
        for lo, hi in blocks:
            kernel(lo, hi)
    else:
        threads.side_by_side(len(blocks), lambda q: kernel(*blocks[q]), count)


@ordered
def _less_row(s, indices, values, x, p, end):
    """S - (row . x), the entry that may have to be waited for last."""
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
    over_blocks(starts, lambda lo, hi: kernel(*A, X, lo, hi), k * (len(A[2]) + 2 * len(A[3])))


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
    over_ranges(len(Y), lambda lo, hi: kernel(*A, Y, lo, hi), entries=k * len(A[2]))


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
    P = p_indptr.numpy(), p_indices.numpy(), p_values.numpy(), numbers(e)
    n, X = len(P[0]) - 1, numbers(x)
    kernel, k = (_correct, 1) if X.ndim == 1 else (_correct_columns, X.shape[1])
    over_ranges(n, lambda lo, hi: kernel(*P, X, lo, hi), entries=k * len(P[2]))


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
    L, E = (l_indptr.numpy(), l_indices.numpy(), l_values.numpy()), (e_indptr.numpy(), e_indices.numpy())
    A, D, B, X = (*L, *E, e_values.numpy()), inverse.numpy(), numbers(b), numbers(x)
    kernel, k = (_backward, 1) if X.ndim == 1 else (_backward_columns, X.shape[1])
    work = k * (len(A[2]) + len(A[5]) + 2 * len(D))
    over_blocks(starts, lambda lo, hi: kernel(*A, D, B, X, lo, hi), work)
