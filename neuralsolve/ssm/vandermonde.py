"""Sums of complex exponentials with gradients: kernels of diagonal systems, and states after many steps.

Formulas and cost: `neuralsolve.kernels.reference.vandermonde`. The two sums are adjoint to each other, so the
gradient of each is made of the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuralsolve.kernels import table
from neuralsolve.ssm.precision import as_given, first_derivative_only, not_compiled


@not_compiled
def vandermonde(w: Tensor, z: Tensor, length: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return out[h, m, l] = Re sum_n w[h, m, n] exp(l z[h, n]), l = 0..length-1.

    Parameters
    ----------
    w : (H, M, N) complex
    z : (H, N) complex
        Exponents of one step; phases are formed in float64 whatever `dtype` is.
    length : L
    dtype : of the result, float32 or float64

    Returns
    -------
    (H, M, L) real

    Examples
    --------
    >>> w, z = torch.ones(1, 1, 1, dtype=torch.complex128), torch.full((1, 1), -0.5 + torch.pi * 1j)
    >>> vandermonde(w, z, 3)
    tensor([[[ 1.0000, -0.6065,  0.3679]]], dtype=torch.float64)
    """
    return _Vandermonde.apply(w, z.to(torch.complex128), length, dtype)  # type: ignore[return-value]


@not_compiled
def vandermonde_adjoint(k: Tensor, z: Tensor) -> Tensor:
    """Return sums[h, m, n] = sum_l k[h, m, l] exp(l z[h, n]), complex128.

    With k a sequence turned round, and times gain B, these are the states after its last sample.

    Parameters
    ----------
    k : (H, M, L) real
    z : (H, N) complex
    """
    return _Adjoint.apply(k, z.to(torch.complex128))  # type: ignore[return-value]


class _Vandermonde(torch.autograd.Function):
    @staticmethod
    @as_given
    def forward(ctx: Any, w: Tensor, z: Tensor, length: int, dtype: torch.dtype) -> Tensor:
        out = torch.empty(*w.shape[:2], length, dtype=dtype, device=w.device)
        table(w.device).vandermonde(w.detach().resolve_conj(), z.detach().resolve_conj(), out)
        ctx.save_for_backward(w, z)
        return out

    @staticmethod
    @first_derivative_only
    @as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        w, z = (t.detach().resolve_conj() for t in ctx.saved_tensors)
        sums = torch.empty(w.shape, dtype=torch.complex128, device=w.device)
        moments = torch.empty_like(sums) if ctx.needs_input_grad[1] else None
        table(w.device).vandermonde_adjoint(grad, z, sums, moments)
        of_z = None if moments is None else (w * moments).conj().sum(1)
        return sums.conj().to(w.dtype), of_z, None, None


class _Adjoint(torch.autograd.Function):
    @staticmethod
    @as_given
    def forward(ctx: Any, k: Tensor, z: Tensor) -> Tensor:
        shape = *k.shape[:2], z.shape[1]
        sums = torch.empty(shape, dtype=torch.complex128, device=k.device)
        table(k.device).vandermonde_adjoint(k.detach(), z.detach().resolve_conj(), sums, None)
        ctx.save_for_backward(k, z)
        return sums

    @staticmethod
    @first_derivative_only
    @as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        k, z = (t.detach().resolve_conj() for t in ctx.saved_tensors)
        of_k = of_z = None
        if ctx.needs_input_grad[0]:
            of_k = torch.empty(k.shape, dtype=k.dtype, device=k.device)
            table(k.device).vandermonde(grad.conj().resolve_conj(), z, of_k)
        if ctx.needs_input_grad[1]:
            sums, moments = torch.empty_like(grad), torch.empty_like(grad)
            table(k.device).vandermonde_adjoint(k, z, sums, moments)
            of_z = (grad * moments.conj()).sum(1)
        return of_k, of_z
