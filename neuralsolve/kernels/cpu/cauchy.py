"""Cauchy sums over poles in conjugate pairs, numba. Definitions: `neuralsolve.kernels.reference.cauchy`."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.threads import over_ranges, unchecked

SUM = 10  # what a term costs, in numbers touched


@unchecked
def _cauchy(v_re, v_im, s_re, s_im, g, out, lo, hi):
    _, M, N = v_re.shape
    fr, fi, er, ei = np.empty(N), np.empty(N), np.empty(N), np.empty(N)
    for h in range(lo, hi):
        for i in range(g.size):
            _fractions(g[i].real, g[i].imag, s_re[h], s_im[h], fr, fi, er, ei)
            for m in range(M):
                x, y = 0.0, 0.0
                for n in range(N):  # v f + conj(v) f'
                    x += v_re[h, m, n] * (fr[n] + er[n]) - v_im[h, m, n] * (fi[n] - ei[n])
                    y += v_re[h, m, n] * (fi[n] + ei[n]) + v_im[h, m, n] * (fr[n] - er[n])
                out[h, m, i] = complex(x, y)


@unchecked
def _fractions(x, y, s_re, s_im, fr, fi, er, ei):
    """Set f = 1 / (x + i y - s) and e = 1 / (x + i y - conj(s)), by parts."""
    for n in range(s_re.size):
        u, p, q = x - s_re[n], y - s_im[n], y + s_im[n]
        c, d = 1 / (u * u + p * p), 1 / (u * u + q * q)
        fr[n], fi[n] = u * c, -p * c
        er[n], ei[n] = u * d, -q * d


@unchecked
def _adjoint(k, s_re, s_im, g, sums, squares, lo, hi):
    _, M, points = k.shape
    N = s_re.shape[1]
    fr, fi, er, ei = np.empty(N), np.empty(N), np.empty(N), np.empty(N)
    total = np.empty((4, M, N))
    for h in range(lo, hi):
        total[:] = 0
        for i in range(points):
            _fractions(g[i].real, g[i].imag, s_re[h], s_im[h], fr, fi, er, ei)
            for m in range(M):
                x, y = k[h, m, i].real, k[h, m, i].imag
                for n in range(N):  # k conj(f) + conj(k) f'
                    total[0, m, n] += x * (fr[n] + er[n]) + y * (fi[n] + ei[n])
                    total[1, m, n] += y * (fr[n] - er[n]) - x * (fi[n] - ei[n])
                for n in range(N):
                    a, b = fr[n] * fr[n] - fi[n] * fi[n], 2 * fr[n] * fi[n]
                    c, d = er[n] * er[n] - ei[n] * ei[n], 2 * er[n] * ei[n]
                    total[2, m, n] += x * (a + c) + y * (b + d)
                    total[3, m, n] += y * (a - c) - x * (b - d)
        for m in range(M):
            for n in range(N):
                sums[h, m, n] = complex(total[0, m, n], total[1, m, n])
                squares[h, m, n] = complex(total[2, m, n], total[3, m, n])


def _parts(x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return real and imaginary parts, each contiguous."""
    return np.ascontiguousarray(x.detach().real.numpy()), np.ascontiguousarray(x.detach().imag.numpy())


def cauchy(v: Tensor, s: Tensor, g: Tensor, out: Tensor) -> None:
    """Set out[h, m, l] = sum_n v / (g[l] - s) + conj(v) / (g[l] - conj(s))."""
    v_re, v_im = _parts(v.resolve_conj())
    s_re, s_im = _parts(s.resolve_conj())
    points, to = g.numpy(), out.numpy()
    over_ranges(
        len(to),
        lambda lo, hi: _cauchy(v_re, v_im, s_re, s_im, points, to, lo, hi),
        SUM * s.numel() * g.numel(),
    )


def cauchy_adjoint(k: Tensor, s: Tensor, g: Tensor, sums: Tensor, squares: Tensor) -> None:
    """Set sums and squares (H, M, N) to sum_l k conj(f) + conj(k) f', and to the same of f^2 and f'^2."""
    s_re, s_im = _parts(s.resolve_conj())
    given, points = k.detach().resolve_conj().contiguous().numpy(), g.numpy()
    to, square = sums.numpy(), squares.numpy()
    over_ranges(
        len(to),
        lambda lo, hi: _adjoint(given, s_re, s_im, points, to, square, lo, hi),
        2 * SUM * s.numel() * g.numel(),
    )
