"""Random mixtures of rows or columns, numba. Definition and shapes: `neuralsolve.kernels.reference.mixing`.

One pass over A, which waits for memory: the sum of squares comes with it, of each group apart, or small
entries would be lost beside large ones. Threads take ranges of columns,
which share no entry of the result. Eights of rows and columns are vectors in registers; what is left of both
at the edges is copied into such eights, filled up by zeros.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuralsolve.kernels.cpu.lanes import LANES, load, narrow, store, widen
from neuralsolve.kernels.cpu.prefetch import prefetch
from neuralsolve.kernels.cpu.threads import ordered, over_ranges, side_by_side, thread_count

GROUP = 8  # rows that are turned together
WIDTH = 2048  # columns at a time: rows of them are read at the speed of memory, and their sums stay near


@ordered
def _squares(a, b, c, d):
    """Return a^2 + b^2 + c^2 + d^2."""
    return widen((a * a + b * b) + (c * c + d * d))


@ordered
def _add(x, out, place):
    store(load(out, place) + x, out, place)


@ordered
def _mix(A, n, signs, places, out, width, first, last, squares):
    """Add S A to out (l, width), columns first..last of A (8 groups, n), all flat; sum their squares."""
    total, step = load(squares, 0), places.shape[0] * n
    nothing = total - total
    for g in range(places.shape[0]):
        p, s, part = places[g], GROUP * LANES * g, nothing
        d0, d1, d2, d3 = load(signs, s), load(signs, s + 8), load(signs, s + 16), load(signs, s + 24)
        d4, d5, d6, d7 = load(signs, s + 32), load(signs, s + 40), load(signs, s + 48), load(signs, s + 56)
        p0, p1, p2, p3 = p[0] * width, p[1] * width, p[2] * width, p[3] * width
        p4, p5, p6, p7 = p[4] * width, p[5] * width, p[6] * width, p[7] * width
        for j in range(first, last, LANES):
            r = g * n + j
            for i in range(GROUP):  # the next group
                prefetch(A, r + n + i * step)
            a, b, c, e = load(A, r), load(A, r + step), load(A, r + 2 * step), load(A, r + 3 * step)
            part = part + _squares(a, b, c, e)
            a, b, c, e = narrow(a) * d0, narrow(b) * d1, narrow(c) * d2, narrow(e) * d3
            r += 4 * step
            f, h, k, q = load(A, r), load(A, r + step), load(A, r + 2 * step), load(A, r + 3 * step)
            part = part + _squares(f, h, k, q)
            f, h, k, q = narrow(f) * d4, narrow(h) * d5, narrow(k) * d6, narrow(q) * d7
            a, b, c, e, f, h, k, q = a + b, a - b, c + e, c - e, f + h, f - h, k + q, k - q
            a, c, b, e, f, k, h, q = a + c, a - c, b + e, b - e, f + k, f - k, h + q, h - q
            _add(a + f, out, p0 + j)
            _add(b + h, out, p1 + j)
            _add(c + k, out, p2 + j)
            _add(e + q, out, p3 + j)
            _add(a - f, out, p4 + j)
            _add(b - h, out, p5 + j)
            _add(c - k, out, p6 + j)
            _add(e - q, out, p7 + j)
        total = total + part
    store(total, squares, 0)


@ordered
def _mix_columns(B, signs, places, out, strides, lo, hi):
    """Add B T^T to out for the rows lo..hi, flat: the first n numbers of each are a matrix (8 groups, 8)."""
    squares, (n, length, width) = np.zeros(LANES), strides
    for i in range(lo, hi):
        line, to = B[i * length : i * length + n], out[i * width : (i + 1) * width]
        _mix(line, LANES, signs, places, to, LANES, 0, LANES, squares)
    return squares.sum()


def _sketch(A: np.ndarray, signs: np.ndarray, places: np.ndarray, out: np.ndarray) -> float:
    """Add S A to out for A (8 groups, n), without the last n % 8 columns; return their squares."""
    columns, n, width = A.shape[1] // LANES, A.shape[1], out.shape[1]
    threads = thread_count()
    tasks = max(-(-LANES * columns // WIDTH), min(threads, columns))
    flat, to, factors = A.reshape(-1), out.reshape(-1), signs.reshape(-1)

    def task(c: int) -> float:
        squares = np.zeros(LANES)
        first, last = columns * c // tasks * LANES, columns * (c + 1) // tasks * LANES
        _mix(flat, n, factors, places, to, width, first, last, squares)
        return float(squares.sum())

    return sum(side_by_side(tasks, task, threads)) if columns else 0.0


def _factors(signs: np.ndarray, groups: int) -> np.ndarray:
    """Return signs (m, 8) over 8^(1/2) by groups, (groups, 8, 8), those of the last rows at the end."""
    full, d = len(signs) // GROUP, np.zeros((groups, GROUP, LANES), np.float32)
    scaled = signs / np.float32(GROUP**0.5)
    d[:full] = scaled[: full * GROUP].reshape(GROUP, full, LANES).swapaxes(0, 1)
    d.reshape(-1, LANES)[full * GROUP : len(signs)] = scaled[full * GROUP :]
    return d


def hadamard_sketch(A: Tensor, signs: Tensor, places: Tensor, out: Tensor) -> float:
    """Out = S A float32 (l, n) for A (m, n); returns ||A||_F^2."""
    X, Y, P = A.numpy(), out.numpy(), places.numpy()
    (m, n), full = X.shape, len(A) // GROUP
    d = _factors(np.repeat(signs.numpy()[:, None], LANES, 1), len(P))
    Y[:] = 0
    squares = _sketch(X[: full * GROUP], d[:full], P[:full], Y)
    if m > full * GROUP:
        rest = np.zeros((GROUP, n), X.dtype)
        rest[: m - full * GROUP] = X[full * GROUP :]
        squares += _sketch(rest, d[full:], P[full:], Y)
    whole = n // LANES * LANES
    if n > whole:
        rest = np.zeros((m, LANES), X.dtype)
        rest[:, : n - whole] = X[:, whole:]
        edge = torch.empty((len(Y), LANES))
        squares += hadamard_sketch(torch.from_numpy(rest), signs, places, edge)
        Y[:, whole:] = edge.numpy()[:, : n - whole]
    return squares


def hadamard_sketch_columns(B: Tensor, signs: Tensor, places: Tensor, out: Tensor) -> float:
    """Out = B T^T (l, 8 c) for B (l, n), the columns of every eighth place mixed apart; returns ||B||_F^2."""
    X, Y, P = B.numpy(), out.numpy(), places.numpy()
    block, d = GROUP * LANES, signs.numpy()
    if X.shape[1] % LANES:
        X, d = (np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % LANES)]) for x in (X, d))
    d = _factors(d.reshape(-1, LANES), len(P))
    full = X.shape[1] // block
    Y[:] = 0
    squares = _sketch_columns(X, full * block, d[:full], P[:full], Y)
    if X.shape[1] > full * block:
        rest = np.zeros((len(X), block), np.float32)
        rest[:, : X.shape[1] - full * block] = X[:, full * block :]
        squares += _sketch_columns(rest, block, d[full:], P[full:], Y)
    return squares


def _sketch_columns(B: np.ndarray, n: int, signs: np.ndarray, places: np.ndarray, out: np.ndarray) -> float:
    """Add B T^T to out for the first n columns of B, n a multiple of 64; return their squares."""
    flat, to, factors = B.reshape(-1), out.reshape(-1), signs.reshape(-1)
    strides = (n, B.shape[1], out.shape[1])

    def kernel(lo: int, hi: int) -> float:
        return _mix_columns(flat, factors, places, to, strides, lo, hi)

    return sum(over_ranges(len(B), kernel, entries=B.size))
