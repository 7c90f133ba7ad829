"""Attention from tokens to the points of patches and back, with gradients, by kernels where there are some.

Layouts and definitions: `neuralsolve.kernels.reference.tokens`. On CPUs in float32 and float64 (under
autocast in float32) the kernels do it; elsewhere, inside the transforms of `torch.func`, and for gradients
that will be differentiated again, plain torch does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.amp.autocast_mode import custom_bwd, custom_fwd

from neuralsolve.kernels import table
from neuralsolve.kernels.reference.tokens import decoded, encoded
from neuralsolve.kernels.reference.tokens import series as plain_series


def encode(x: Tensor, weight: Tensor, latent: Tensor, shape: Sequence[int], patch: Sequence[int]) -> Tensor:
    """Return tokens (P, G, T, D, 8): softmax over a patch of the scores of x, times its values, plus latent.

    Parameters
    ----------
    x : (n, C)
    weight : (G (T + D) 8, C)
        Gives scores and values.
    latent : (G, T, D, 8)
    shape, patch : sides of the field and of a patch
    """
    if without_kernels(x):
        return _encode(x, weight, latent, shape, patch)
    return _Encode.apply(x, weight, latent.contiguous(), shape, patch)  # type: ignore[return-value]


def decode(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    tokens: Tensor,
    order: Tensor,
    shape: Sequence[int],
    patch: Sequence[int],
) -> Tensor:
    """Return x (n, C) plus what its queries, by weight (G D 8, C) and bias, find in the tokens.

    The places of the channels of x in (G, D, 8) are given by order (C,).
    """
    if without_kernels(x):
        return _decode(x, weight, bias, tokens, order, shape, patch)
    return _Decode.apply(x, weight, bias, tokens.contiguous(), order, shape, patch)  # type: ignore[return-value]


def series(z: Tensor, sines: Tensor, cosines: Tensor) -> Tensor:
    """Return z + sum_k a_k sin(pi k z / K) + b_k cos(pi k z / K) of tokens z, a and b (G, K, D, 8)."""
    if without_kernels(z):
        return plain_series(z, sines, cosines)
    return _Series.apply(z.contiguous(), sines.contiguous(), cosines.contiguous())  # type: ignore[return-value]


def without_kernels(x: Tensor) -> bool:
    """Return whether plain torch has to do it."""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return True
    return x.dtype not in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")


def _encode(x: Tensor, weight: Tensor, latent: Tensor, shape: Sequence[int], patch: Sequence[int]) -> Tensor:
    return encoded(x @ weight.T, shape, patch, latent)


def _decode(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    tokens: Tensor,
    order: Tensor,
    shape: Sequence[int],
    patch: Sequence[int],
) -> Tensor:
    return decoded(x, torch.addmm(bias, x, weight.T), shape, patch, order, tokens)


def differentiable(ctx: Any, plain: Callable[..., Tensor], given: Sequence[Any], grad: Tensor) -> Any:
    """Return gradients with respect to what is given, as functions that can be differentiated."""
    wanted = [value for value, needed in zip(given, ctx.needs_input_grad, strict=True) if needed]
    found = iter(torch.autograd.grad(plain(*given), wanted, grad, create_graph=True))
    return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)


_in_float32 = custom_fwd(device_type="cpu", cast_inputs=torch.float32)
_as_given = custom_bwd(device_type="cpu")


class _Encode(torch.autograd.Function):
    @staticmethod
    @_in_float32
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, latent: Tensor, shape: Sequence[int], patch: Sequence[int]
    ) -> Tensor:
        points = x @ weight.T
        tokens = latent.new_empty(len(x) // math.prod(patch), *latent.shape)
        table(x.device).token_encode(points, shape, patch, latent.detach(), tokens)
        ctx.save_for_backward(x, weight, latent, points)
        ctx.sides = shape, patch
        return tokens

    @staticmethod
    @_as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, latent, points = ctx.saved_tensors
        if torch.is_grad_enabled():
            return differentiable(ctx, _encode, (x, weight, latent, *ctx.sides), grad)
        grad = grad.contiguous()
        slopes, total = torch.empty_like(points), torch.empty_like(latent)
        table(x.device).token_encode_backward(points, *ctx.sides, grad, slopes, total)
        return slopes @ weight, slopes.T @ x, total, None, None


class _Decode(torch.autograd.Function):
    @staticmethod
    @_in_float32
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        tokens: Tensor,
        order: Tensor,
        shape: Sequence[int],
        patch: Sequence[int],
    ) -> Tensor:
        queries, out = torch.addmm(bias, x, weight.T), torch.empty_like(x)
        table(x.device).token_decode(x.detach(), queries, shape, patch, order, tokens.detach(), out)
        ctx.save_for_backward(x, weight, bias, tokens, order, queries)
        ctx.sides = shape, patch
        return out

    @staticmethod
    @_as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, bias, tokens, order, queries = ctx.saved_tensors
        if torch.is_grad_enabled():
            return differentiable(ctx, _decode, (x, weight, bias, tokens, order, *ctx.sides), grad)
        grad = grad.contiguous()
        slopes, of_tokens = torch.empty_like(queries), torch.empty_like(tokens)
        table(x.device).token_decode_backward(grad, queries, *ctx.sides, order, tokens, slopes, of_tokens)
        of_x = torch.addmm(grad, slopes, weight)
        return of_x, slopes.T @ x, slopes.sum(0), of_tokens, None, None, None


class _Series(torch.autograd.Function):
    @staticmethod
    @_in_float32
    def forward(ctx: Any, z: Tensor, sines: Tensor, cosines: Tensor) -> Tensor:
        out = torch.empty_like(z)
        table(z.device).token_series(z.detach(), sines.detach(), cosines.detach(), out)
        ctx.save_for_backward(z, sines, cosines)
        return out

    @staticmethod
    @_as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        z, sines, cosines = ctx.saved_tensors
        if torch.is_grad_enabled():
            return differentiable(ctx, plain_series, (z, sines, cosines), grad)
        grads = torch.empty_like(z), torch.empty_like(sines), torch.empty_like(cosines)
        table(z.device).token_series_backward(z, grad.contiguous(), sines, cosines, *grads)
        return grads
