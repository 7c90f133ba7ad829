"""The series f_c(z) = sum_k a_ck sin(pi k z / K) + b_ck cos(pi k z / K), k = 0 .. K - 1, by channel c.

One sine and one cosine a number; the others follow by turning, (sin, cos)(k + 1)t = those of kt turned by t.
The derivative with respect to z comes from the same turn, so the way back reads what the way there has kept.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def trigonometric(z: Tensor, sines: Tensor, cosines: Tensor) -> Tensor:
    """Return f ``(n, C)`` of z ``(n, C)`` with a and b ``(C, K)``; gradients flow to all three."""
    return _Series.apply(z, sines, cosines)  # type: ignore[return-value]


class _Series(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, sines: Tensor, cosines: Tensor) -> Tensor:
        K = sines.shape[1]
        step = math.pi / K
        s1, c1 = torch.sin(step * z), torch.cos(step * z)
        out = cosines[:, 0].expand_as(z).clone()
        slope = torch.zeros_like(z)
        s, c = s1, c1
        for k in range(1, K):
            out.addcmul_(s, sines[:, k]).addcmul_(c, cosines[:, k])
            slope.addcmul_(c, k * step * sines[:, k]).addcmul_(s, -k * step * cosines[:, k])
            if k + 1 < K:
                s, c = s * c1 + c * s1, c * c1 - s * s1
        ctx.save_for_backward(z, slope)
        ctx.basis = K
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        z, slope = ctx.saved_tensors
        step = math.pi / ctx.basis
        s1, c1 = torch.sin(step * z), torch.cos(step * z)
        a, b = [torch.zeros_like(grad[0])], [grad.sum(0)]
        s, c = s1, c1
        for _ in range(1, ctx.basis):
            a.append((grad * s).sum(0))
            b.append((grad * c).sum(0))
            s, c = s * c1 + c * s1, c * c1 - s * s1
        return grad * slope, torch.stack(a, 1), torch.stack(b, 1)
