"""Vector kernels, numba. Definitions, shapes and error bounds: `neuralsolve.kernels.reference.vector`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuralsolve.kernels.cpu.threads import over_ranges, serial


def per_column(alpha: Tensor | float, x: Tensor) -> np.ndarray:
    """Return a method's scalar, () or (k,), as one number for each column of x (n, k)."""
    return torch.as_tensor(alpha, dtype=x.dtype).expand(x.shape[1]).contiguous().numpy()


def total(sums: list, x: Tensor) -> Tensor:
    """Add the float64 sums of ranges, numbers or (k,) arrays, and return them in the dtype of x."""
    if x.ndim == 1:
        return torch.scalar_tensor(sum(sums), dtype=x.dtype)
    return torch.from_numpy(sum(sums)).to(x.dtype)


@serial
def _dot(x, y, lo, hi):
    x, y = x[lo:hi], y[lo:hi]
    s = 0.0
    for i in range(x.size):
        s += np.float64(x[i]) * np.float64(y[i])
    return s


@serial
def _dot_columns(x, y, lo, hi):
    sums = np.zeros(x.shape[1])
    for i in range(lo, hi):
        a, b = x[i], y[i]
        for j in range(sums.size):
            sums[j] += np.float64(a[j]) * np.float64(b[j])
    return sums


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner product x.y, column by column for (n, k)."""
    X, Y = x.numpy(), y.numpy()
    kernel = _dot if x.ndim == 1 else _dot_columns
    return total(over_ranges(len(X), lambda lo, hi: kernel(X, Y, lo, hi)), x)


@serial
def _combine(a, x, b, y, lo, hi):
    x, y = x[lo:hi], y[lo:hi]
    for i in range(x.size):
        y[i] = a * x[i] + b * y[i]


@serial
def _combine_columns(a, x, b, y, lo, hi):
    for i in range(lo, hi):
        u, v = x[i], y[i]
        for j in range(a.size):
            v[j] = a[j] * u[j] + b[j] * v[j]


def _scaled_sum(a: Tensor | float, x: Tensor, b: Tensor | float, y: Tensor) -> None:
    """Set y = a x + b y: one kernel for `axpy` and `xpby`, which wait for memory either way."""
    X, Y = x.numpy(), y.numpy()
    if x.ndim == 1:
        alpha, beta = float(a), float(b)
        over_ranges(len(X), lambda lo, hi: _combine(alpha, X, beta, Y, lo, hi))
    else:
        alphas, betas = per_column(a, x), per_column(b, x)
        over_ranges(len(X), lambda lo, hi: _combine_columns(alphas, X, betas, Y, lo, hi))


def axpy(alpha: Tensor, x: Tensor, y: Tensor) -> None:
    """Add in place: y += alpha x."""
    _scaled_sum(alpha, x, 1.0, y)


def xpby(x: Tensor, beta: Tensor, y: Tensor) -> None:
    """Scale and add in place: y = x + beta y."""
    _scaled_sum(1.0, x, beta, y)


@serial
def _cg_update(alpha, p, Ap, x, r, lo, hi):
    p, Ap, x, r = p[lo:hi], Ap[lo:hi], x[lo:hi], r[lo:hi]
    s = 0.0
    for i in range(x.size):
        x[i] += alpha * p[i]
        rest = r[i] - alpha * Ap[i]
        r[i] = rest
        s += np.float64(rest) * np.float64(rest)
    return s


@serial
def _cg_update_columns(alpha, p, Ap, x, r, lo, hi):
    sums = np.zeros(alpha.size)
    for i in range(lo, hi):
        p_i, Ap_i, x_i, r_i = p[i], Ap[i], x[i], r[i]
        for j in range(alpha.size):
            x_i[j] += alpha[j] * p_i[j]
            rest = r_i[j] - alpha[j] * Ap_i[j]
            r_i[j] = rest
            sums[j] += np.float64(rest) * np.float64(rest)
    return sums


def cg_update(alpha: Tensor, p: Tensor, Ap: Tensor, x: Tensor, r: Tensor) -> Tensor:
    """Step in place and in one pass: x += alpha p, r -= alpha Ap; returns the new r.r."""
    P, Q, X, R = p.numpy(), Ap.numpy(), x.numpy(), r.numpy()
    if x.ndim == 1:
        a = float(alpha)
        return total(over_ranges(len(X), lambda lo, hi: _cg_update(a, P, Q, X, R, lo, hi)), x)
    alphas = per_column(alpha, x)
    return total(over_ranges(len(X), lambda lo, hi: _cg_update_columns(alphas, P, Q, X, R, lo, hi)), x)


@serial
def _component_sums(labels, v, components, lo, hi):
    """Sum of v over each component, (components,)."""
    labels, v = labels[lo:hi], v[lo:hi]
    sums = np.zeros(components)
    if components == 1:
        s = 0.0
        for i in range(v.size):
            s += np.float64(v[i]) if labels[i] >= 0 else 0.0
        sums[0] = s
        return sums
    # Entries of a component come in runs: the running sum stays in a register until the label changes.
    current, s = labels.dtype.type(-1), 0.0
    for i in range(v.size):
        c = labels[i]
        if c != current:
            if current >= 0:
                sums[current] += s
            current, s = c, 0.0
        s += np.float64(v[i])
    if current >= 0:
        sums[current] += s
    return sums


@serial
def _subtract(labels, means, v, lo, hi):
    labels, v = labels[lo:hi], v[lo:hi]
    if means.size == 1:
        mean = means[0]
        for i in range(v.size):
            v[i] = v[i] - mean if labels[i] >= 0 else v[i]
    else:
        for i in range(v.size):
            if labels[i] >= 0:
                v[i] -= means[labels[i]]


@serial
def _component_sums_columns(labels, v, components, lo, hi):
    """Sum of each column of v over each component, (components, k)."""
    sums = np.zeros((components, v.shape[1]))
    for i in range(lo, hi):
        if labels[i] >= 0:
            row = sums[labels[i]]
            for j in range(row.size):
                row[j] += np.float64(v[i, j])
    return sums


@serial
def _subtract_columns(labels, means, v, lo, hi):
    for i in range(lo, hi):
        if labels[i] >= 0:
            for j in range(v.shape[1]):
                v[i, j] -= means[labels[i], j]


def subtract_means(labels: Tensor, counts: Tensor, v: Tensor) -> Tensor:
    """Subtract from v its mean over every component, in place; returns the 2-norm of what was removed."""
    L, V, size = labels.numpy(), v.numpy(), np.maximum(counts.numpy(), 1)
    sums, subtract = _component_sums, _subtract
    if v.ndim == 2:
        sums, subtract, size = _component_sums_columns, _subtract_columns, size[:, None]
    means = np.add.reduce(over_ranges(len(L), lambda lo, hi: sums(L, V, len(size), lo, hi))) / size
    over_ranges(len(L), lambda lo, hi: subtract(L, means, V, lo, hi))
    return torch.as_tensor(np.sqrt((size * means**2).sum(0)), dtype=v.dtype)
