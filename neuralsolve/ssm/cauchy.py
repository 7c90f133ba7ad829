"""Transfer functions of poles in conjugate pairs, with gradients: `neuralsolve.kernels.reference.cauchy`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuralsolve.kernels import table
from neuralsolve.ssm.precision import as_given, first_derivative_only, not_compiled


@not_compiled
def cauchy(v: Tensor, poles: Tensor, points: Tensor) -> Tensor:
    """Return sum_n v / (g - s) + conj(v) / (g - conj(s)), the transfer function of a real system.

    Parameters
    ----------
    v : (H, M, N) complex128
        Residues of M functions with the same poles; of a real pole, half of its residue.
    poles : (H, N) complex128
    points : (L,) complex128
        g, away from the poles; no gradient with respect to them.

    Returns
    -------
    (H, M, L) complex128

    Examples
    --------
    >>> v, s = torch.full((1, 1, 1), 0.5 + 0j).to(torch.complex128), torch.full((1, 1), -1.0 + 0j)
    >>> cauchy(v, s.to(v.dtype), torch.tensor([0.0 + 0j], dtype=v.dtype)).real  # 1 / (0 + 1)
    tensor([[[1.]]], dtype=torch.float64)
    """
    return _Cauchy.apply(v, poles, points)  # type: ignore[return-value]


class _Cauchy(torch.autograd.Function):
    @staticmethod
    @as_given
    def forward(ctx: Any, v: Tensor, poles: Tensor, points: Tensor) -> Tensor:
        out = v.new_empty(*v.shape[:2], points.numel())
        table(v.device).cauchy(v.detach().resolve_conj(), poles.detach().resolve_conj(), points.detach(), out)
        ctx.save_for_backward(v, poles, points)
        return out

    @staticmethod
    @first_derivative_only
    @as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        v, poles, points = (t.detach().resolve_conj() for t in ctx.saved_tensors)
        sums, squares = torch.empty_like(v), torch.empty_like(v)
        table(v.device).cauchy_adjoint(grad.resolve_conj().contiguous(), poles, points, sums, squares)
        return sums, (v.conj() * squares).sum(1), None
