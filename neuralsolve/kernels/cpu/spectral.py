"""Fast Poisson kernels, numba. Definitions and shapes: `neuralsolve.kernels.reference.spectral`."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.threads import over_ranges, serial

BLOCK = 1024  # modes of a cyclic line that are carried along together


@serial
def _factor(shift, low, high, out):
    outer, n, inner = out.shape
    for o in range(outer):
        for j in range(inner):
            out[o, 0, j] = 1 / (low + shift[o, j])
        for i in range(1, n - 1):
            for j in range(inner):
                out[o, i, j] = 1 / (2 + shift[o, j] - out[o, i - 1, j])
        for j in range(inner):
            pivot = high + shift[o, j] - out[o, n - 2, j]
            out[o, n - 1, j] = 1 / pivot if pivot != 0 else 0.0


def tridiagonal_factor(shift: Tensor, low: float, high: float, out: Tensor) -> None:
    """Reciprocal pivots of tridiag(-1, 2 + shift, -1), its first and last diagonals low and high.

    shift and out (outer, n, inner).
    """
    _factor(shift.numpy(), low, high, out.numpy())


@serial
def _sweep(p, gain, v, lo, hi):
    """Solve for the modes lo..hi of one line, v (n, inner): the loops run along memory."""
    n = len(v)
    for j in range(lo, hi):
        v[0, j] = gain * v[0, j] * p[0, j]
    for i in range(1, n):
        for j in range(lo, hi):
            v[i, j] = (gain * v[i, j] + v[i - 1, j]) * p[i, j]
    for i in range(n - 2, -1, -1):
        for j in range(lo, hi):
            v[i, j] += p[i, j] * v[i + 1, j]


@serial
def _sweep_columns(p, gain, v, lo, hi):
    """Do the same for v (n, inner, w): the w right sides of a mode share its pivots."""
    n, _, w = v.shape
    for j in range(lo, hi):
        for c in range(w):
            v[0, j, c] = gain * v[0, j, c] * p[0, j]
    for i in range(1, n):
        for j in range(lo, hi):
            for c in range(w):
                v[i, j, c] = (gain * v[i, j, c] + v[i - 1, j, c]) * p[i, j]
    for i in range(n - 2, -1, -1):
        for j in range(lo, hi):
            for c in range(w):
                v[i, j, c] += p[i, j] * v[i + 1, j, c]


@serial
def _modes(p, gain, v, lo, hi):
    """Solve for the modes lo..hi of all outer * inner, in pieces of a line as long as can be."""
    inner = p.shape[2]
    for o in range(lo // inner, -(-hi // inner)):
        _sweep(p[o], gain, v[o], max(lo - o * inner, 0), min(hi - o * inner, inner))


@serial
def _modes_columns(p, gain, v, lo, hi):
    inner = p.shape[2]
    for o in range(lo // inner, -(-hi // inner)):
        _sweep_columns(p[o], gain, v[o], max(lo - o * inner, 0), min(hi - o * inner, inner))


def tridiagonal_solve(reciprocal: Tensor, gain: float, v: Tensor) -> None:
    """Solve T y = gain v for every mode in place; reciprocal (outer, n, inner), v (outer, n, inner, w)."""
    P, one = reciprocal.numpy(), v.shape[3] == 1
    V, kernel = (v[..., 0].numpy(), _modes) if one else (v.numpy(), _modes_columns)
    over_ranges(P.shape[0] * P.shape[2], lambda lo, hi: kernel(P, gain, V, lo, hi), entries=v.numel())


@serial
def _sum_of_decay(decay, row, x):
    for j in range(x.size):
        x[j] = decay[j] * x[j] + row[j]


@serial
def _forth(decay, gain, row, x, back, power):
    for j in range(x.size):
        y = decay[j] * (gain * row[j] + x[j])
        row[j] = x[j] = y
        back[j] += power[j] * y
        power[j] *= decay[j]


@serial
def _back(decay, row, x):
    for j in range(x.size):
        y = decay[j] * x[j] + row[j]
        row[j] = x[j] = y


@serial
def _cyclic_block(decay, around, gain, v, lo, hi):
    """Solve for the modes lo..hi of one line, v (n, inner); what rows hand on stays in cache."""
    n = len(v)
    rate, whole = decay[lo:hi], around[lo:hi]
    x, back, power = np.zeros(hi - lo), np.zeros(hi - lo), np.ones(hi - lo)
    for i in range(n):
        _sum_of_decay(rate, v[i, lo:hi], x)
    for j in range(x.size):
        x[j] *= gain * rate[j] * whole[j]
    for i in range(n):
        _forth(rate, gain, v[i, lo:hi], x, back, power)
    for j in range(x.size):
        x[j] = whole[j] * back[j]
    for i in range(n - 1, -1, -1):
        _back(rate, v[i, lo:hi], x)


@serial
def _cyclic_modes(decay, around, gain, v, lo, hi):
    inner = decay.shape[1]
    while lo < hi:
        o, first = lo // inner, lo % inner
        last = min(inner, first + min(BLOCK, hi - lo))
        _cyclic_block(decay[o], around[o], gain, v[o], first, last)
        lo += last - first


def cyclic_solve(decay: Tensor, around: Tensor, gain: float, v: Tensor) -> None:
    """Solve the cyclic tridiagonal systems in place; decay and around (outer, inner), v (outer, n, inner)."""
    modes = decay.numpy(), around.numpy(), gain, v.numpy()
    over_ranges(decay.numel(), lambda lo, hi: _cyclic_modes(*modes, lo, hi), entries=v.numel())
