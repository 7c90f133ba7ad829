"""Gauss-Seidel within blocks of rows, numba. Definitions: `neuralsolve.kernels.reference.blocks`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from numba import uint64
from torch import Tensor

from neuralsolve.kernels.cpu import threads
from neuralsolve.kernels.cpu.prefetch import AHEAD, prefetch
from neuralsolve.kernels.cpu.threads import ordered, serial
from neuralsolve.kernels.cpu.vector import numbers


def _over_blocks(starts: Tensor, kernel: Callable[[int, int], object], entries: int) -> None:
    """Call `kernel(lo, hi)` on every block, side by side where it pays."""
    blocks = list(pairwise(starts.tolist()))
    count = 1 if entries < threads.SERIAL_BELOW else min(torch.get_num_threads(), threads.MAX_THREADS)
    if count == 1:
        for lo, hi in blocks:
            kernel(lo, hi)
    else:
        threads.side_by_side(len(blocks), lambda q: kernel(*blocks[q]), count)


@serial
def _count(indptr, indices, values, lower, rest, lo, hi):
    """Set the lengths of the rows of L and E in row i + 1 of `lower` and `rest`."""
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
        lower[i + 1] = before
        rest[i + 1] = others + (0.75 * diagonal + 0.5 * between > diagonal)


@serial
def _fill(indptr, indices, values, factor, lp, li, lv, ep, ei, ev, inverse, lo, hi):
    for i in range(lo, hi):
        a, c, diagonal, between = uint64(lp[i]), uint64(ep[i]), 0.0, 0.0
        for p in range(uint64(indptr[i]), uint64(indptr[i + 1])):
            j, value = indices[p], values[p]
            if j == i:
                diagonal += value
            elif j < i and j >= lo:
                li[a], lv[a] = j, factor * value
                a += uint64(1)
            else:
                ei[c], ev[c] = j, factor * value
                c += uint64(1)
                if j < lo or j >= hi:
                    between += abs(value)
        divisor = 0.75 * diagonal + 0.5 * between
        if divisor > diagonal:
            ei[c], ev[c] = i, factor * (diagonal - divisor)
        else:
            divisor = diagonal
        inverse[i] = 1 / (factor * divisor) if diagonal > 0 else 0.0


def csr_block_split(
    indptr: Tensor, indices: Tensor, values: Tensor, starts: Tensor, factor: float, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Split factor * A; return L and E, three tensors each, and 1 / D, in `dtype`."""
    A = indptr.numpy(), indices.numpy(), values.numpy()
    n, kind = len(A[0]) - 1, np.float32 if dtype == torch.float32 else np.float64
    lp, ep = np.zeros(n + 1, np.int32), np.zeros(n + 1, np.int32)
    _over_blocks(starts, lambda lo, hi: _count(*A, lp, ep, lo, hi), len(A[2]))
    np.cumsum(lp, out=lp)
    np.cumsum(ep, out=ep)
    L = lp, np.empty(lp[-1], np.int32), np.empty(lp[-1], kind)
    E = ep, np.empty(ep[-1], np.int32), np.empty(ep[-1], kind)
    inverse = np.empty(n, kind)
    _over_blocks(starts, lambda lo, hi: _fill(*A, float(factor), *L, *E, inverse, lo, hi), len(A[2]))
    return tuple(torch.from_numpy(part) for part in (*L, *E, inverse))


@ordered
def _forward(indptr, indices, values, inverse, b, x, lo, hi):
    one = uint64(1)
    p = uint64(indptr[lo])
    for i in range(uint64(lo), uint64(hi)):
        s, end = b[i], uint64(indptr[i + one])
        prefetch(values, p + uint64(AHEAD))
        prefetch(indices, p + uint64(AHEAD))
        while p < end:
            s -= values[p] * x[uint64(indices[p])]
            p += one
        x[i] = s * inverse[i]


@ordered
def _forward_columns(indptr, indices, values, inverse, b, x, lo, hi):
    k = x.shape[1]
    for i in range(lo, hi):
        for c in range(k):
            x[i, c] = b[i, c]
        for p in range(indptr[i], indptr[i + 1]):
            a, j = values[p], indices[p]
            for c in range(k):
                x[i, c] -= a * x[j, c]
        for c in range(k):
            x[i, c] *= inverse[i]


def csr_block_forward(
    l_indptr: Tensor,
    l_indices: Tensor,
    l_values: Tensor,
    inverse: Tensor,
    starts: Tensor,
    b: Tensor,
    x: Tensor,
) -> None:
    """Set x = B^-1 b; b and x (n,) or (n, k)."""
    L, D, B, X = (
        (l_indptr.numpy(), l_indices.numpy(), l_values.numpy()),
        inverse.numpy(),
        numbers(b),
        numbers(x),
    )
    kernel, k = (_forward, 1) if X.ndim == 1 else (_forward_columns, X.shape[1])
    _over_blocks(starts, lambda lo, hi: kernel(*L, D, B, X, lo, hi), k * (len(L[2]) + 2 * len(D)))


@ordered
def _backward(lp, li, lv, ep, ei, ev, inverse, b, y, x, lo, hi):
    one = uint64(1)
    for q in range(hi - lo):
        i = hi - 1 - q
        u = uint64(i)
        s, first, start = b[u], lp[u], ep[u]
        prefetch(lv, first - AHEAD)
        prefetch(li, first - AHEAD)
        prefetch(ev, start - AHEAD)
        prefetch(ei, start - AHEAD)
        for p in range(uint64(first), uint64(lp[u + one])):
            s -= lv[p] * y[uint64(li[p])]
        for p in range(uint64(start), uint64(ep[u + one])):
            j = ei[p]
            s -= ev[p] * (x[uint64(j)] if j > i and j < hi else y[uint64(j)])
        x[u] = s * inverse[u]


@ordered
def _backward_columns(lp, li, lv, ep, ei, ev, inverse, b, y, x, lo, hi):
    k = x.shape[1]
    for i in range(hi - 1, lo - 1, -1):
        for c in range(k):
            x[i, c] = b[i, c]
        for p in range(lp[i], lp[i + 1]):
            for c in range(k):
                x[i, c] -= lv[p] * y[li[p], c]
        for p in range(ep[i], ep[i + 1]):
            j = ei[p]
            z = x if j > i and j < hi else y
            for c in range(k):
                x[i, c] -= ev[p] * z[j, c]
        for c in range(k):
            x[i, c] *= inverse[i]


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
    y: Tensor,
    x: Tensor,
) -> None:
    """Set x = y + B^-T (b - A y); b, y, x (n,) or (n, k)."""
    parts = l_indptr, l_indices, l_values, e_indptr, e_indices, e_values, inverse
    A, B, Y, X = [part.numpy() for part in parts], numbers(b), numbers(y), numbers(x)
    kernel, k = (_backward, 1) if X.ndim == 1 else (_backward_columns, X.shape[1])
    work = k * (len(l_values) + len(e_values) + 3 * len(inverse))
    _over_blocks(starts, lambda lo, hi: kernel(*A, B, Y, X, lo, hi), work)
