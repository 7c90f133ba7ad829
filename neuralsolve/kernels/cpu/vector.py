"""Vector kernels, numba. Definitions, shapes and error bounds: `neuralsolve.kernels.reference.vector`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuralsolve.kernels.cpu.threads import over_ranges, serial

BLOCK = 256  # numbers: the columns of several rows at once, so that short rows fill the processor's vectors


def numbers(x: Tensor) -> np.ndarray:
    """View vectors as a kernel takes them: (n,), for one column too, or (n, k)."""
    X = x.numpy()
    return X.reshape(-1) if X.ndim == 2 and X.shape[1] == 1 else X


def tiled(alpha: Tensor | float, x: Tensor) -> np.ndarray:
    """Repeat a method's scalar, () or (k,), for the columns of a block of rows of x (n, k)."""
    k = x.shape[1]
    columns = torch.as_tensor(alpha, dtype=x.dtype).expand(k).numpy()
    return np.tile(columns, max(1, BLOCK // k))


def total(sums: list, x: Tensor) -> Tensor:
    """Add the float64 sums of ranges, numbers or (k,) arrays, and return them in the dtype of x."""
    if x.ndim == 1:
        return torch.scalar_tensor(sum(sums), dtype=x.dtype)
    return torch.from_numpy(np.atleast_1d(sum(sums))).to(x.dtype)


@serial
def folded(lanes, k):
    """Return the sums of the columns, (k,), from those of a block of rows."""
    sums = np.zeros(k)
    for j in range(lanes.size):
        sums[j % k] += lanes[j]
    return sums


@serial
def _dot(x, y, lo, hi):
    x, y = x[lo:hi], y[lo:hi]
    s = 0.0
    for i in range(x.size):
        s += np.float64(x[i]) * np.float64(y[i])
    return s


@serial
def _dot_columns(x, y, k, lo, hi):
    lanes = np.zeros(k * max(1, BLOCK // k))
    for start in range(lo * k, hi * k, lanes.size):
        stop = min(start + lanes.size, hi * k)
        a, b = x[start:stop], y[start:stop]
        for j in range(a.size):
            lanes[j] += np.float64(a[j]) * np.float64(b[j])
    return folded(lanes, k)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner product x.y, column by column for (n, k)."""
    X, Y = numbers(x), numbers(y)
    if X.ndim == 1:
        return total(over_ranges(len(X), lambda lo, hi: _dot(X, Y, lo, hi)), x)
    n, k = X.shape
    X, Y = X.reshape(-1), Y.reshape(-1)
    return total(over_ranges(n, lambda lo, hi: _dot_columns(X, Y, k, lo, hi), entries=n * k), x)


@serial
def _combine(a, x, b, y, lo, hi):
    x, y = x[lo:hi], y[lo:hi]
    for i in range(x.size):
        y[i] = a * x[i] + b * y[i]


@serial
def _combine_columns(a, x, b, y, k, lo, hi):
    for start in range(lo * k, hi * k, a.size):
        stop = min(start + a.size, hi * k)
        u, v = x[start:stop], y[start:stop]
        for j in range(u.size):
            v[j] = a[j] * u[j] + b[j] * v[j]


def _scaled_sum(a: Tensor | float, x: Tensor, b: Tensor | float, y: Tensor) -> None:
    """Set y = a x + b y: one kernel for `axpy` and `xpby`, which wait for memory either way."""
    X, Y = numbers(x), numbers(y)
    if X.ndim == 1:
        alpha, beta = float(a), float(b)
        over_ranges(len(X), lambda lo, hi: _combine(alpha, X, beta, Y, lo, hi))
        return
    n, k = X.shape
    X, Y, alphas, betas = X.reshape(-1), Y.reshape(-1), tiled(a, x), tiled(b, x)
    over_ranges(n, lambda lo, hi: _combine_columns(alphas, X, betas, Y, k, lo, hi), entries=n * k)


def axpy(alpha: Tensor, x: Tensor, y: Tensor) -> None:
    """Add in place: y += alpha x."""
    _scaled_sum(alpha, x, 1.0, y)


def xpby(x: Tensor, beta: Tensor, y: Tensor) -> None:
    """Scale and add in place: y = x + beta y."""
    _scaled_sum(1.0, x, beta, y)


@serial
def _scale(a, x, out, lo, hi):
    x, out = x[lo:hi], out[lo:hi]
    for i in range(x.size):
        out[i] = a * x[i]


@serial
def _scale_columns(a, x, out, k, lo, hi):
    for start in range(lo * k, hi * k, a.size):
        stop = min(start + a.size, hi * k)
        u, v = x[start:stop], out[start:stop]
        for j in range(u.size):
            v[j] = a[j] * u[j]


def scaled_copy(alpha: Tensor | float, x: Tensor, out: Tensor) -> None:
    """Out = alpha x, in the dtype of out; alpha a number or () for (n,), () or (k,) for (n, k)."""
    X, Y = numbers(x), numbers(out)
    if X.ndim == 1:
        a = float(alpha)
        over_ranges(len(X), lambda lo, hi: _scale(a, X, Y, lo, hi))
        return
    n, k = X.shape
    X, Y, alphas = X.reshape(-1), Y.reshape(-1), tiled(alpha, x)
    over_ranges(n, lambda lo, hi: _scale_columns(alphas, X, Y, k, lo, hi), entries=n * k)


@serial
def _split(x, out, lo, hi):
    """Rows lo..hi of x (n, k) to out (k, n), by blocks that stay in cache for all columns."""
    for start in range(lo, hi, BLOCK):
        for j in range(x.shape[1]):
            for i in range(start, min(start + BLOCK, hi)):
                out[j, i] = x[i, j]


@serial
def _join(x, out, lo, hi):
    """Columns lo..hi of x (k, n) to out (n, k)."""
    for start in range(lo, hi, BLOCK):
        for j in range(x.shape[0]):
            for i in range(start, min(start + BLOCK, hi)):
                out[i, j] = x[j, i]


def transposed_copy(x: Tensor, out: Tensor) -> None:
    """Set out (k, n) to the transpose of x (n, k)."""
    X, Y = x.numpy(), out.numpy()
    kernel = _split if len(X) >= len(Y) else _join
    over_ranges(max(X.shape), lambda lo, hi: kernel(X, Y, lo, hi), X.size)


@serial
def _largest(bits, keep, lo, hi):
    """Largest of the bits without the sign: numbers in that order, NaN above infinity."""
    bits, most = bits[lo:hi], bits.dtype.type(0)
    for i in range(bits.size):
        most = max(most, bits[i] & keep)
    return most


def _bits(x: Tensor) -> tuple[np.ndarray, np.signedinteger]:
    """View numbers as integers; and the mask of all but the sign."""
    kind = np.int64 if x.dtype == torch.float64 else np.int32
    return x.numpy().reshape(-1).view(kind), kind(np.iinfo(kind).max)


def _number(most: list, x: Tensor) -> float:
    double = x.dtype == torch.float64
    return float(
        np.array(max(most), np.int64 if double else np.int32).view(np.float64 if double else np.float32)
    )


def largest(x: Tensor) -> float:
    """Largest absolute entry of x, NaN where one is NaN."""
    bits, keep = _bits(x)
    most = over_ranges(len(bits), lambda lo, hi: _largest(bits, keep, lo, hi))
    return _number(most, x)


@serial
def _masked_copy(active, bits, out, k, keep, lo, hi):
    zero = bits.dtype.type(0)
    most = zero
    if k == 1:
        active, bits, out = active[lo:hi], bits[lo:hi], out[lo:hi]
        for i in range(bits.size):
            b = bits[i] if active[i] else zero
            out[i] = b
            most = max(most, b & keep)
        return most
    for i in range(lo, hi):
        row, to = bits[i * k : i * k + k], out[i * k : i * k + k]
        for j in range(k):
            b = row[j] if active[i] else zero
            to[j] = b
            most = max(most, b & keep)
    return most


def masked_copy(active: Tensor, x: Tensor, out: Tensor) -> float:
    """Copy x, 0 in the rows that are not active; return the largest absolute entry, NaN where one is NaN."""
    A, (bits, keep), (copy, _), k = active.numpy(), _bits(x), _bits(out), x[0].numel()
    ranges = over_ranges(len(A), lambda lo, hi: _masked_copy(A, bits, copy, k, keep, lo, hi), len(bits))
    return _number(ranges, x)


@serial
def _cg_update(alpha, p, Ap, x, r, lo, hi):
    p, Ap, x, r = p[lo:hi], Ap[lo:hi], x[lo:hi], r[lo:hi]
    s = 0.0
    if alpha == 0:  # whatever p and Ap hold
        for i in range(r.size):
            s += np.float64(r[i]) * np.float64(r[i])
        return s
    for i in range(x.size):
        x[i] += alpha * p[i]
        rest = r[i] - alpha * Ap[i]
        r[i] = rest
        s += np.float64(rest) * np.float64(rest)
    return s


@serial
def _cg_update_columns(alpha, p, Ap, x, r, k, lo, hi):
    lanes = np.zeros(alpha.size)
    for start in range(lo * k, hi * k, lanes.size):
        stop = min(start + lanes.size, hi * k)
        p_i, Ap_i, x_i, r_i = p[start:stop], Ap[start:stop], x[start:stop], r[start:stop]
        for j in range(p_i.size):
            a = alpha[j]
            x_i[j] += a * p_i[j] if a != 0 else a
            rest = r_i[j] - (a * Ap_i[j] if a != 0 else a)
            r_i[j] = rest
            lanes[j] += np.float64(rest) * np.float64(rest)
    return folded(lanes, k)


def cg_update(alpha: Tensor, p: Tensor, Ap: Tensor, x: Tensor, r: Tensor) -> Tensor:
    """Step in place and in one pass: x += alpha p, r -= alpha Ap; returns the new r.r."""
    X = numbers(x)
    if X.ndim == 1:
        P, Q, R, a = numbers(p), numbers(Ap), numbers(r), float(alpha)
        return total(over_ranges(len(X), lambda lo, hi: _cg_update(a, P, Q, X, R, lo, hi)), x)
    n, k = X.shape
    P, Q, X, R = (v.numpy().reshape(-1) for v in (p, Ap, x, r))
    alphas = tiled(alpha, x)
    sums = over_ranges(n, lambda lo, hi: _cg_update_columns(alphas, P, Q, X, R, k, lo, hi), entries=n * k)
    return total(sums, x)


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


def _subtract_means(labels: np.ndarray, size: np.ndarray, v: np.ndarray) -> float:
    """Take the means out of one column, return the square of the norm of what was removed."""
    sums = over_ranges(len(v), lambda lo, hi: _component_sums(labels, v, len(size), lo, hi))
    means = np.add.reduce(sums) / size
    over_ranges(len(v), lambda lo, hi: _subtract(labels, means, v, lo, hi))
    return float(size @ means**2)


def subtract_means(labels: Tensor, counts: Tensor, v: Tensor) -> Tensor:
    """Subtract from v its mean over every component, in place; returns the 2-norm of what was removed."""
    L, V, size = labels.numpy(), numbers(v), np.maximum(counts.numpy(), 1)
    if V.ndim == 1:
        return total([_subtract_means(L, size, V) ** 0.5], v)
    squares = [_subtract_means(L, size, V[:, j]) for j in range(V.shape[1])]
    return total([np.sqrt(squares)], v)
