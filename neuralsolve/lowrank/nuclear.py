"""The nuclear norm and a gradient of it that repeated and zero singular values do not harm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuralsolve.errors import ShapeError
from neuralsolve.lowrank.decompositions import check_finite, dense_svd
from neuralsolve.lowrank.products import HALF, as_tensor


def nuclear_norm(A: Tensor) -> Tensor:
    """Return ||A||_* = sum_j s_j, (...), of A (..., m, n); its gradient is the subgradient U_r Vh_r.

    U_r Vh_r over the s_j > 0 is always a subgradient: ||A + D||_* >= ||A||_* + Re <U_r Vh_r, D>
    (Watson, Linear Algebra Appl. 170 (1992) 33-45, ex. 2), where the gradient of an SVD divides by s_i - s_j.

    Raises
    ------
    ShapeError, OptionError, NonFiniteError

    Examples
    --------
    >>> A = torch.diag(torch.tensor([3.0, 3.0, 0.0])).requires_grad_()
    >>> nuclear_norm(A).backward()
    >>> A.grad.diagonal().tolist()
    [1.0, 1.0, 0.0]
    """
    A = as_tensor(A)
    if A.ndim < 2 or 0 in A.shape:
        msg = f"got A of shape {tuple(A.shape)}; (..., m, n) with m >= 1 and n >= 1 is needed"
        raise ShapeError(msg)
    check_finite(A)
    return _NuclearNorm.apply(A)  # type: ignore[no-any-return]


class _NuclearNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, A: Tensor) -> Tensor:
        U, s, Vh = dense_svd(A.float() if A.dtype in HALF else A)
        zero = max(A.shape[-2:]) * torch.finfo(s.dtype).eps * s[..., :1]
        ctx.save_for_backward(((U * (s > zero)[..., None, :]) @ Vh).to(A.dtype))
        return s.sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # type: ignore[override]
        (subgradient,) = ctx.saved_tensors
        return (grads[0][..., None, None] * subgradient).to(subgradient.dtype)
