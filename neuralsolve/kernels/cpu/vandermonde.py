"""Sums of complex exponentials, numba. Definitions: `neuralsolve.kernels.reference.vandermonde`.

Powers are formed in double precision by a recurrence that starts afresh from an exponential every `BLOCK`
steps; the products of their matrices are torch's.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuralsolve.kernels.cpu.threads import over_ranges, serial
from neuralsolve.kernels.reference.vandermonde import near_count

BLOCK = 32
POWER = 8  # what a power costs, in numbers touched


@serial
def _power(z, steps):
    """Return exp(steps z), its phase reduced by the exact remainder that libm takes."""
    size, angle = np.exp(z.real * steps), z.imag * steps
    return complex(size * np.cos(angle), size * np.sin(angle))


@serial
def _near(z, out, lo, hi):
    """Set rows n and N + n of out (H, 2 N, Q) to the real and imaginary parts of exp(b z)."""
    N, Q = z.shape[1], out.shape[2]
    for h in range(lo, hi):
        for n in range(N):
            e = _power(z[h, n], 1.0)
            p = complex(1.0, 0.0)
            for b in range(Q):
                if b % BLOCK == 0:
                    p = _power(z[h, n], float(b))
                out[h, n, b] = p.real
                out[h, N + n, b] = p.imag
                p = p * e


@serial
def _far(w, z, Q, out, lo, hi):
    """Set out (H, M, R, 2 N) to the real parts of w exp(a Q z), and minus the imaginary parts."""
    _, M, R, _ = out.shape
    N = z.shape[1]
    for h in range(lo, hi):
        for n in range(N):
            e = _power(z[h, n], float(Q))
            p = complex(1.0, 0.0)
            for a in range(R):
                if a % BLOCK == 0:
                    p = _power(z[h, n], float(a * Q))
                for m in range(M):
                    x = w[h, m, n] * p
                    out[h, m, a, n] = x.real
                    out[h, m, a, N + n] = -x.imag
                p = p * e


@serial
def _gather(parts, within, z, Q, sums, moments, lo, hi):
    """Sum parts and within (H, M, R, 2 N) over R with the weights exp(a Q z)."""
    _, M, R, _ = parts.shape
    N = z.shape[1]
    counted = len(moments) > 0
    for h in range(lo, hi):
        sums[h] = 0
        if counted:
            moments[h] = 0
        for n in range(N):
            e = _power(z[h, n], float(Q))
            p = complex(1.0, 0.0)
            for a in range(R):
                if a % BLOCK == 0:
                    p = _power(z[h, n], float(a * Q))
                for m in range(M):
                    x = p * complex(parts[h, m, a, n], parts[h, m, a, N + n])
                    sums[h, m, n] += x
                    if counted:
                        moments[h, m, n] += float(a * Q) * x + p * complex(
                            within[h, m, a, n], within[h, m, a, N + n]
                        )
                p = p * e


def _near_powers(z: Tensor, Q: int, dtype: torch.dtype) -> Tensor:
    near = torch.empty(z.shape[0], 2 * z.shape[1], Q, dtype=dtype)
    given, made = z.numpy(), near.numpy()
    over_ranges(len(given), lambda lo, hi: _near(given, made, lo, hi), POWER * near.numel())
    return near


def vandermonde(w: Tensor, z: Tensor, out: Tensor) -> None:
    """Set out[h, m, l] = Re sum_n w[h, m, n] exp(l z[h, n])."""
    (H, M, N), length = w.shape, out.shape[2]
    Q = near_count(length)
    R = -(-length // Q)
    z, far = z.detach().contiguous(), torch.empty(H, M, R, 2 * N, dtype=out.dtype)
    weights, exponents, made = w.detach().to(torch.complex128).numpy(), z.numpy(), far.numpy()
    over_ranges(H, lambda lo, hi: _far(weights, exponents, Q, made, lo, hi), POWER * far.numel())
    whole = torch.bmm(far.view(H, M * R, 2 * N), _near_powers(z, Q, out.dtype))
    out.copy_(whole.view(H, M, R * Q)[:, :, :length])


def vandermonde_adjoint(k: Tensor, z: Tensor, sums: Tensor, moments: Tensor | None) -> None:
    """Set sums[h, m, n] = sum_l k[h, m, l] exp(l z[h, n]), moments = sum_l l k exp(l z) unless None."""
    (H, M, length), N = k.shape, z.shape[1]
    Q = near_count(length)
    R = -(-length // Q)
    z = z.detach().contiguous()
    rows = k.detach()
    if length < R * Q:
        rows = torch.nn.functional.pad(rows, (0, R * Q - length))
    rows = rows.reshape(H, M * R, Q)
    near = _near_powers(z, Q, k.dtype).transpose(1, 2)
    parts = torch.bmm(rows, near).view(H, M, R, 2 * N)
    within = parts
    if moments is not None:
        within = torch.bmm(rows * torch.arange(Q, dtype=k.dtype), near).view(H, M, R, 2 * N)
    given = parts.numpy(), within.numpy(), z.numpy(), Q, sums.numpy()
    counted = np.empty((0, M, N), np.complex128) if moments is None else moments.numpy()
    over_ranges(H, lambda lo, hi: _gather(*given, counted, lo, hi), POWER * parts.numel())
