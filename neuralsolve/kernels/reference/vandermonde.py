"""Sums of complex exponentials at whole numbers, and their adjoint, plain torch: the definition.

    out[h, m, l] = Re sum_n w[h, m, n] exp(l z[h, n]),   l = 0..L-1

is the kernel of a diagonal state-space model: z = log of the eigenvalues of a step, w = C B. A table of all
exponentials would have H N L entries. With l = a Q + b the sum splits into powers far from and near to zero,

    exp(l z) = exp(a Q z) exp(b z),   Q about sqrt(L),

so that two real matrices of 2 N sqrt(L) entries for each h, and their product, give it. The phases, which
reach 10^4, are formed in float64 whatever the precision of the result; only the two factors are rounded.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def near_count(length: int) -> int:
    """Return Q, the power of two next to sqrt(L)."""
    return 1 << max(0, math.ceil(math.log2(max(length, 1)) / 2))


def _powers(z: Tensor, count: int, stride: int) -> Tensor:
    """Return exp(stride a z), (..., count) complex128."""
    steps = stride * torch.arange(count, dtype=torch.float64, device=z.device)
    return torch.exp(z.to(torch.complex128)[..., None] * steps)


def _reals(x: Tensor, axis: int) -> Tensor:
    """Return complex numbers as twice as many real ones along an axis: the real parts first."""
    return torch.cat([x.real, x.imag], axis)


def vandermonde(w: Tensor, z: Tensor, out: Tensor) -> None:
    """Set out[h, m, l] = Re sum_n w[h, m, n] exp(l z[h, n]).

    w (H, M, N) complex, z (H, N) complex128, out (H, M, L) real, overwritten. The error of an entry is about
    eps_out sum_n |w_n exp(l z_n)| + l eps |z| of float64.
    """
    (H, M, N), length = w.shape, out.shape[2]
    Q = near_count(length)
    R = -(-length // Q)
    far = w.to(torch.complex128)[:, :, None] * _powers(z, R, Q).transpose(1, 2)[:, None]  # (H, M, R, N)
    rows = _reals(far.conj(), 3).reshape(H, M * R, 2 * N).to(out.dtype)
    near = _reals(_powers(z, Q, 1), 1).to(out.dtype)  # (H, 2 N, Q)
    out.copy_(torch.bmm(rows, near).view(H, M, R * Q)[:, :, :length])


def vandermonde_adjoint(k: Tensor, z: Tensor, sums: Tensor, moments: Tensor | None) -> None:
    """Set sums[h, m, n] = sum_l k[h, m, l] exp(l z[h, n]), and moments to sum_l l k exp(l z) unless None.

    k (H, M, L) real, z (H, N) complex128, sums and moments (H, M, N) complex128. With kbar the gradient of
    out, conj(sums) is that of w and conj(w moments) that of z, to be summed over m.
    """
    (H, M, length), N = k.shape, z.shape[1]
    Q = near_count(length)
    R = -(-length // Q)
    rows = k.new_zeros(H, M, R * Q)
    rows[:, :, :length] = k
    rows = rows.view(H, M * R, Q)
    near = _reals(_powers(z, Q, 1), 1).to(k.dtype).transpose(1, 2)  # (H, Q, 2 N)
    far = _powers(z, R, Q).transpose(1, 2)[:, None]  # (H, 1, R, N)

    def met(rows: Tensor) -> Tensor:
        found = torch.bmm(rows, near).double().view(H, M, R, 2, N)
        return torch.complex(found[:, :, :, 0], found[:, :, :, 1])

    parts = met(rows)
    sums.copy_((far * parts).sum(2))
    if moments is not None:
        within = met(rows * torch.arange(Q, dtype=k.dtype, device=k.device))
        steps = Q * torch.arange(R, dtype=torch.float64, device=k.device)[:, None]
        moments.copy_((far * (steps * parts + within)).sum(2))
