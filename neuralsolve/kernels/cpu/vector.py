"""Vector kernels, numba. Definitions, shapes and error bounds: `neuralsolve.kernels.reference.vector`."""

from __future__ import annotations

import numpy as np
import torch
from numba import prange
from torch import Tensor

from neuralsolve.kernels.cpu.threads import parts, serial, threaded


def per_column(alpha: Tensor | float, x: Tensor) -> np.ndarray:
    """Return a method's scalar, () or (k,), as one number for each column of x (n, k)."""
    return torch.as_tensor(alpha, dtype=x.dtype).expand(x.shape[1]).contiguous().numpy()


def as_scalars(sums: np.ndarray, x: Tensor) -> Tensor:
    """Return the float64 sums of the columns, (k,), in the dtype of x."""
    return torch.from_numpy(sums).to(x.dtype)


@serial
def _dot(x, y):
    total = 0.0
    for i in range(x.size):
        total += np.float64(x[i]) * np.float64(y[i])
    return total


@threaded
def _dot_threads(x, y, chunks):
    n = x.size
    partial = np.zeros(chunks)
    for c in prange(chunks):
        lo, hi = n * c // chunks, n * (c + 1) // chunks
        partial[c] = _dot(x[lo:hi], y[lo:hi])
    total = 0.0
    for c in range(chunks):
        total += partial[c]
    return total


@serial
def _dot_columns(x, y, sums):
    for i in range(x.shape[0]):
        for j in range(sums.size):
            sums[j] += np.float64(x[i, j]) * np.float64(y[i, j])


@threaded
def _dot_columns_threads(x, y, partial):
    n, chunks = x.shape[0], partial.shape[0]
    for c in prange(chunks):
        lo, hi = n * c // chunks, n * (c + 1) // chunks
        _dot_columns(x[lo:hi], y[lo:hi], partial[c])


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner product x.y, column by column for (n, k)."""
    X, Y = x.numpy(), y.numpy()
    chunks = parts(x.numel())
    if x.ndim == 1:
        return torch.scalar_tensor(_dot(X, Y) if chunks == 1 else _dot_threads(X, Y, chunks), dtype=x.dtype)
    partial = np.zeros((chunks, x.shape[1]))
    if chunks == 1:
        _dot_columns(X, Y, partial[0])
    else:
        _dot_columns_threads(X, Y, partial)
    return as_scalars(partial.sum(0), x)


@serial
def _linear(a, x, b, y):
    for i in range(x.size):
        y[i] = a * x[i] + b * y[i]


@threaded
def _linear_threads(a, x, b, y, chunks):
    n = x.size
    for c in prange(chunks):
        lo, hi = n * c // chunks, n * (c + 1) // chunks
        _linear(a, x[lo:hi], b, y[lo:hi])


@serial
def _linear_columns(a, x, b, y):
    for i in range(x.shape[0]):
        for j in range(a.size):
            y[i, j] = a[j] * x[i, j] + b[j] * y[i, j]


@threaded
def _linear_columns_threads(a, x, b, y, chunks):
    n = x.shape[0]
    for c in prange(chunks):
        lo, hi = n * c // chunks, n * (c + 1) // chunks
        _linear_columns(a, x[lo:hi], b, y[lo:hi])


def _combine(a: Tensor | float, x: Tensor, b: Tensor | float, y: Tensor) -> None:
    """Set y = a x + b y: one kernel for `axpy` and `xpby`, memory-bound either way."""
    chunks = parts(x.numel())
    if x.ndim == 1:
        if chunks == 1:
            _linear(float(a), x.numpy(), float(b), y.numpy())
        else:
            _linear_threads(float(a), x.numpy(), float(b), y.numpy(), chunks)
    elif chunks == 1:
        _linear_columns(per_column(a, x), x.numpy(), per_column(b, x), y.numpy())
    else:
        _linear_columns_threads(per_column(a, x), x.numpy(), per_column(b, x), y.numpy(), chunks)


def axpy(alpha: Tensor, x: Tensor, y: Tensor) -> None:
    """y += alpha x, in place."""
    _combine(alpha, x, 1.0, y)


def xpby(x: Tensor, beta: Tensor, y: Tensor) -> None:
    """y = x + beta y, in place."""
    _combine(1.0, x, beta, y)


@serial
def _cg_update(alpha, p, Ap, x, r):
    total = 0.0
    for i in range(x.size):
        x[i] += alpha * p[i]
        rest = r[i] - alpha * Ap[i]
        r[i] = rest
        total += np.float64(rest) * np.float64(rest)
    return total


@threaded
def _cg_update_threads(alpha, p, Ap, x, r, chunks):
    n = x.size
    partial = np.zeros(chunks)
    for c in prange(chunks):
        lo, hi = n * c // chunks, n * (c + 1) // chunks
        partial[c] = _cg_update(alpha, p[lo:hi], Ap[lo:hi], x[lo:hi], r[lo:hi])
    total = 0.0
    for c in range(chunks):
        total += partial[c]
    return total


@serial
def _cg_update_columns(alpha, p, Ap, x, r, sums):
    for i in range(x.shape[0]):
        for j in range(sums.size):
            x[i, j] += alpha[j] * p[i, j]
            rest = r[i, j] - alpha[j] * Ap[i, j]
            r[i, j] = rest
            sums[j] += np.float64(rest) * np.float64(rest)


@threaded
def _cg_update_columns_threads(alpha, p, Ap, x, r, partial):
    n, chunks = x.shape[0], partial.shape[0]
    for c in prange(chunks):
        lo, hi = n * c // chunks, n * (c + 1) // chunks
        _cg_update_columns(alpha, p[lo:hi], Ap[lo:hi], x[lo:hi], r[lo:hi], partial[c])


def cg_update(alpha: Tensor, p: Tensor, Ap: Tensor, x: Tensor, r: Tensor) -> Tensor:
    """X += alpha p and r -= alpha Ap, in place and in one pass; returns the new r.r."""
    P, Q, X, R = p.numpy(), Ap.numpy(), x.numpy(), r.numpy()
    chunks = parts(x.numel())
    if x.ndim == 1:
        a = float(alpha)
        rr = _cg_update(a, P, Q, X, R) if chunks == 1 else _cg_update_threads(a, P, Q, X, R, chunks)
        return torch.scalar_tensor(rr, dtype=x.dtype)
    partial = np.zeros((chunks, x.shape[1]))
    if chunks == 1:
        _cg_update_columns(per_column(alpha, x), P, Q, X, R, partial[0])
    else:
        _cg_update_columns_threads(per_column(alpha, x), P, Q, X, R, partial)
    return as_scalars(partial.sum(0), x)


@serial
def _component_sums(labels, v, sums):
    # Entries of a component come in runs: the running sum stays in a register until the label changes.
    current, run = labels.dtype.type(-1), 0.0
    for i in range(v.size):
        c = labels[i]
        if c != current:
            if current >= 0:
                sums[current] += run
            current, run = c, 0.0
        run += np.float64(v[i])
    if current >= 0:
        sums[current] += run


@serial
def _sum_inside(labels, v):
    total = 0.0
    for i in range(v.size):
        total += np.float64(v[i]) if labels[i] >= 0 else 0.0
    return total


@serial
def _subtract(labels, means, v):
    for i in range(v.size):
        c = labels[i]
        if c >= 0:
            v[i] -= means[c]


@threaded
def _subtract_means(labels, counts, v, chunks):
    n, m = v.size, counts.size
    partial = np.zeros((chunks, m))
    for c in prange(chunks):
        lo, hi = n * c // chunks, n * (c + 1) // chunks
        if m == 1:
            partial[c, 0] = _sum_inside(labels[lo:hi], v[lo:hi])
        else:
            _component_sums(labels[lo:hi], v[lo:hi], partial[c])
    means, square = partial[0], 0.0
    for j in range(m):
        for c in range(1, chunks):
            means[j] += partial[c, j]
        means[j] /= max(counts[j], 1)
        square += counts[j] * means[j] ** 2
    for c in prange(chunks):
        lo, hi = n * c // chunks, n * (c + 1) // chunks
        _subtract(labels[lo:hi], means, v[lo:hi])
    return np.sqrt(square)


@serial
def _subtract_means_columns(labels, counts, v, removed):
    sums = np.zeros((counts.size, removed.size))
    for i in range(labels.size):
        if labels[i] >= 0:
            for j in range(removed.size):
                sums[labels[i], j] += np.float64(v[i, j])
    for c in range(counts.size):
        for j in range(removed.size):
            sums[c, j] /= max(counts[c], 1)
            removed[j] += counts[c] * sums[c, j] ** 2
    for i in range(labels.size):
        if labels[i] >= 0:
            for j in range(removed.size):
                v[i, j] -= sums[labels[i], j]


def subtract_means(labels: Tensor, counts: Tensor, v: Tensor) -> Tensor:
    """Subtract from v its mean over every component, in place; returns the 2-norm of what was removed."""
    L, C, V = labels.numpy(), counts.numpy(), v.numpy()
    if v.ndim == 1:
        return torch.scalar_tensor(_subtract_means(L, C, V, parts(len(L))), dtype=v.dtype)
    removed = np.zeros(v.shape[1])
    _subtract_means_columns(L, C, V, removed)
    return as_scalars(np.sqrt(removed), v)
