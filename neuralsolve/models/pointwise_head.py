"""The last two linear maps of a network and the GELU between them, in pieces that stay in the cache.

What lies between has 128 channels at full size, and as many for its gradients: most of the memory of a
narrow U-Net, and a quarter of its time, spent on waiting for memory. Here a piece is computed, used and
forgotten; the way back computes it once more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from neuralsolve.models.token_attention import differentiable, without_kernels

PIECE = 128 * 1024  # numbers of a piece: 512 kB in float32


def two_layers(x: Tensor, first: Tensor, bias: Tensor, second: Tensor, offset: Tensor) -> Tensor:
    """Return GELU(x first^T + bias) second^T + offset, x ``(n, C)``, first ``(H, C)``, second ``(O, H)``."""
    if without_kernels(x) or torch.is_autocast_enabled("cpu"):
        return _plain(x, first, bias, second, offset)
    return _TwoLayers.apply(x, first, bias, second, offset)  # type: ignore[return-value]


def _plain(x: Tensor, first: Tensor, bias: Tensor, second: Tensor, offset: Tensor) -> Tensor:
    return F.linear(F.gelu(F.linear(x, first, bias)), second, offset)


def _pieces(x: Tensor, first: Tensor) -> list[slice]:
    rows = max(1, PIECE // len(first))
    return [slice(lo, min(lo + rows, len(x))) for lo in range(0, len(x), rows)]


class _TwoLayers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, first: Tensor, bias: Tensor, second: Tensor, offset: Tensor) -> Tensor:
        out, pieces = x.new_empty(len(x), len(second)), _pieces(x, first)
        room = x.new_empty(2, pieces[0].stop if pieces else 0, len(first))
        for piece in pieces:
            hidden, bent = room[:, : piece.stop - piece.start]
            torch.addmm(bias, x[piece], first.T, out=hidden)
            torch.ops.aten.gelu.out(hidden, out=bent)
            torch.addmm(offset, bent, second.T, out=out[piece])
        ctx.save_for_backward(x, first, bias, second, offset)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, first, bias, second, offset = ctx.saved_tensors
        if torch.is_grad_enabled():
            return differentiable(ctx, _plain, (x, first, bias, second, offset), grad)
        grad, pieces = grad.contiguous(), _pieces(x, first)
        room = x.new_empty(3, pieces[0].stop if pieces else 0, len(first))
        of_x, of_first, of_second = torch.empty_like(x), torch.zeros_like(first), torch.zeros_like(second)
        of_bias = torch.zeros_like(bias)
        for piece in pieces:
            hidden, bent, slope = room[:, : piece.stop - piece.start]
            torch.addmm(bias, x[piece], first.T, out=hidden)
            torch.ops.aten.gelu.out(hidden, out=bent)
            of_second.addmm_(grad[piece].T, bent)
            # one output is an outer product, at which libraries for matrices are slow
            (torch.mul if len(second) == 1 else torch.mm)(grad[piece], second, out=bent)
            torch.ops.aten.gelu_backward.grad_input(bent, hidden, grad_input=slope)
            of_first.addmm_(slope.T, x[piece])
            of_bias.add_(slope.sum(0))
            torch.mm(slope, first, out=of_x[piece])
        return of_x, of_first, of_bias, of_second, grad.sum(0)
