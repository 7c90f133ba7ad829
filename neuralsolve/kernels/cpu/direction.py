"""The next direction of conjugate gradients and its product, numba. Definitions: `kernels.reference.stencil`.

Two passes: the product wants the new direction at all neighbours, which other threads make.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from neuralsolve.kernels.cpu.faces import faces_matvec_dot
from neuralsolve.kernels.cpu.stencil import stencil_matvec_dot
from neuralsolve.kernels.cpu.threads import over_ranges, serial
from neuralsolve.kernels.cpu.vector import numbers, tiled


@serial
def _add(z, beta, p, out, lo, hi):
    z, p, out = z[lo:hi], p[lo:hi], out[lo:hi]
    for i in range(out.size):
        out[i] = z[i] + beta * p[i]


@serial
def _add_columns(z, beta, p, out, k, lo, hi):
    for start in range(lo * k, hi * k, beta.size):
        stop = min(start + beta.size, hi * k)
        u, v, w = z[start:stop], p[start:stop], out[start:stop]
        for j in range(w.size):
            w[j] = u[j] + beta[j] * v[j]


def _next(z: Tensor, beta: Tensor, p: Tensor, out: Tensor) -> None:
    """Set out = z + beta p."""
    Z, P, X = numbers(z), numbers(p), numbers(out)
    if X.ndim == 1:
        b = float(beta)
        over_ranges(len(X), lambda lo, hi: _add(Z, b, P, X, lo, hi))
        return
    n, k = X.shape
    Z, P, X, betas = Z.reshape(-1), P.reshape(-1), X.reshape(-1), tiled(beta, z)
    over_ranges(n, lambda lo, hi: _add_columns(Z, betas, P, X, k, lo, hi), entries=n * k)


def stencil_direction_dot(
    code: Tensor,
    scale: Sequence[float],
    shape: Sequence[int],
    z: Tensor,
    beta: Tensor,
    p: Tensor,
    out_p: Tensor,
    Ap: Tensor,
) -> Tensor:
    """Set out_p = z + beta p and Ap = A out_p; returns out_p.Ap over the fluid cells."""
    _next(z, beta, p, out_p)
    return stencil_matvec_dot(code, scale, shape, out_p, Ap)


def faces_direction_dot(
    diagonal: Tensor,
    lower: Tensor,
    shape: Sequence[int],
    z: Tensor,
    beta: Tensor,
    p: Tensor,
    out_p: Tensor,
    Ap: Tensor,
) -> Tensor:
    """Set out_p = z + beta p and Ap = A out_p; returns out_p.Ap over the cells inside."""
    _next(z, beta, p, out_p)
    return faces_matvec_dot(diagonal, lower, shape, out_p, Ap)
