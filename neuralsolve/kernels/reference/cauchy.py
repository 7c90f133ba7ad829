"""Cauchy sums over poles in conjugate pairs, and their adjoint, plain torch: the definition.

    out[h, m, l] = sum_n v[h, m, n] / (g[l] - s[h, n]) + conj(v[h, m, n]) / (g[l] - conj(s[h, n]))

is the transfer function of a real system with the poles s and conj(s) at the points g (Gu, Goel & Re, ICLR
2022, arXiv 2111.00396, app. C.3). A real pole of residue r is the pair with v = r / 2. The table over
H, N and L is never made: points are taken in blocks.
"""

from __future__ import annotations

from torch import Tensor

BLOCK = 64  # points at a time


def cauchy(v: Tensor, s: Tensor, g: Tensor, out: Tensor) -> None:
    """Set out (H, M, L); v (H, M, N) residues, s (H, N) poles, g (L,) points, all complex128."""
    for lo in range(0, g.numel(), BLOCK):
        points = g[lo : lo + BLOCK]
        one, other = 1 / (points - s[..., None]), 1 / (points - s.conj()[..., None])  # (H, N, block)
        out[..., lo : lo + BLOCK] = v @ one + v.conj() @ other


def cauchy_adjoint(k: Tensor, s: Tensor, g: Tensor, sums: Tensor, squares: Tensor) -> None:
    """Set sums and squares (H, M, N) to sum_l k conj(f) + conj(k) f', and to the same of f^2 and f'^2.

    f = 1 / (g - s) and f' = 1 / (g - conj(s)), k (H, M, L). With k the gradient of out, sums is that of v
    and conj(v) squares that of s, to be summed over m.
    """
    sums.zero_()
    squares.zero_()
    for lo in range(0, g.numel(), BLOCK):
        points, part = g[lo : lo + BLOCK, None], k[..., lo : lo + BLOCK]
        one, other = 1 / (points - s[:, None]), 1 / (points - s.conj()[:, None])  # (H, block, N)
        sums += part @ one.conj() + part.conj() @ other
        squares += part @ one.conj().square() + part.conj() @ other.square()
