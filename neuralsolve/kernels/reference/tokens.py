"""Attention between the points and the tokens of patches of fields, plain torch: the definition.

A field has the shape (batch, *shape, channels), flattened to rows (n, channels); it is cut into patches of
M points each, P in all, in C order: batch first, then along the axes. Heads come in G groups of 8, filled
up with heads of zeros: whatever belongs to a head has them as its last axis, (G, ..., 8). D is the number
of channels of a head, T that of tokens.

`encoded`, `decoded` and `series` are functions that autograd can follow; a kernel writes what they return,
and one with the name `_backward` their gradients.

Source of the attention: Wu, Hu, Luo, Wang and Long (ICML 2023, arXiv 2301.12664), sec. 3.2 and 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LANES = 8


def cut(rows: Tensor, shape: Sequence[int], patch: Sequence[int]) -> Tensor:
    """Return the rows (n, F) of fields by patches, (P, M, F)."""
    dim, split = len(patch), _split(shape, patch)
    order = [0, *range(1, 2 * dim, 2), *range(2, 2 * dim + 1, 2), 2 * dim + 1]
    return rows.reshape(-1, *split, rows.shape[1]).permute(order).reshape(-1, math.prod(patch), rows.shape[1])


def joined(points: Tensor, shape: Sequence[int], patch: Sequence[int]) -> Tensor:
    """Return points (P, M, F) as rows of fields, (n, F): the way back from `cut`."""
    dim, split = len(patch), _split(shape, patch)
    order = [0, *(place for a in range(dim) for place in (1 + a, 1 + dim + a)), 1 + 2 * dim]
    whole = points.reshape(-1, *split[::2], *split[1::2], points.shape[2])
    return whole.permute(order).reshape(-1, points.shape[2])


def _split(shape: Sequence[int], patch: Sequence[int]) -> list[int]:
    return [part for n, p in zip(shape, patch, strict=True) for part in (n // p, p)]


def weighed(
    points: Tensor, shape: Sequence[int], patch: Sequence[int], latent: Tensor
) -> tuple[Tensor, Tensor]:
    """Return softmax_M(scores) (P, M, G, T, 8) and values (P, M, G, D, 8) of points (n, G (T + D) 8)."""
    G, T, D, _ = latent.shape
    scores, values = cut(points, shape, patch).split([G * T * LANES, G * D * LANES], 2)
    return scores.unflatten(2, (G, T, LANES)).softmax(1), values.unflatten(2, (G, D, LANES))


def encoded(points: Tensor, shape: Sequence[int], patch: Sequence[int], latent: Tensor) -> Tensor:
    """Return the tokens softmax_M(scores) values + latent, (P, G, T, D, 8)."""
    return torch.einsum("pmgtl,pmgdl->pgtdl", *weighed(points, shape, patch, latent)) + latent


def decoded(
    x: Tensor, queries: Tensor, shape: Sequence[int], patch: Sequence[int], order: Tensor, tokens: Tensor
) -> Tensor:
    """Return x + softmax_T(queries tokens^T) tokens, (n, C)."""
    _, G, _, D, _ = tokens.shape
    asked = cut(queries, shape, patch).unflatten(2, (G, D, LANES))
    scores = torch.einsum("pmgdl,pgtdl->pmgtl", asked, tokens)
    found = torch.einsum("pmgtl,pgtdl->pmgdl", scores.softmax(3), tokens)
    return x + joined(found.flatten(2), shape, patch)[:, order]


def series(z: Tensor, sines: Tensor, cosines: Tensor) -> Tensor:
    """Return z + sum_k a_k sin(pi k z / K) + b_k cos(pi k z / K), z (P, G, T, D, 8), a, b (G, K, D, 8)."""
    K, out = sines.shape[1], z
    for k in range(K):
        angle = (math.pi * k / K) * z
        out = out + sines[:, k, None] * torch.sin(angle) + cosines[:, k, None] * torch.cos(angle)
    return out


def token_encode(
    points: Tensor, shape: Sequence[int], patch: Sequence[int], latent: Tensor, tokens: Tensor
) -> None:
    """Tokens of patches by attention of learned queries to the points: softmax_M(scores) values + latent.

    Parameters
    ----------
    points : (n, G (T + D) 8)
        Scores (G, T, 8), overwritten by their softmax over the points of a patch, and values (G, D, 8).
    shape, patch : 1 to 3 sides
        Those of a patch divide those of the field.
    latent : (G, T, D, 8)
    tokens : (P, G, T, D, 8)
        Overwritten.

    Notes
    -----
    A token errs by about (M + 4) eps of the sum of the absolute terms, as any sum of M rounded products; a
    weight by the rounding of its score, eps |score|, and a few eps.
    """
    weights, _ = weighed(points, shape, patch, latent)
    tokens.copy_(encoded(points, shape, patch, latent))
    points[:, : weights[0, 0].numel()] = joined(weights.flatten(2), shape, patch)


def token_encode_backward(
    points: Tensor, shape: Sequence[int], patch: Sequence[int], grad: Tensor, out: Tensor, latent: Tensor
) -> None:
    """Gradients of `token_encode` with respect to its points and its latent tokens.

    Parameters
    ----------
    points : (n, G (T + D) 8)
        Weights and values, as `token_encode` leaves them.
    shape, patch : as of `token_encode`
    grad : (P, G, T, D, 8)
        Gradient of the tokens.
    out : (n, G (T + D) 8)
        Gradient of scores and values, overwritten.
    latent : (G, T, D, 8)
        Overwritten by the sum of grad over the patches.
    """
    _, G, T, D, _ = grad.shape
    weights, values = cut(points, shape, patch).split([G * T * LANES, G * D * LANES], 2)
    weights, values = weights.unflatten(2, (G, T, LANES)), values.unflatten(2, (G, D, LANES))
    slopes = weights * torch.einsum("pgtdl,pmgdl->pmgtl", grad, values)
    slopes = slopes - weights * slopes.sum(1, keepdim=True)
    of_values = torch.einsum("pmgtl,pgtdl->pmgdl", weights, grad)
    out.copy_(joined(torch.cat([slopes.flatten(2), of_values.flatten(2)], 2), shape, patch))
    latent.copy_(grad.sum(0))


def token_decode(
    x: Tensor,
    queries: Tensor,
    shape: Sequence[int],
    patch: Sequence[int],
    order: Tensor,
    tokens: Tensor,
    out: Tensor,
) -> None:
    """Attention of the points of patches to their tokens, added to x: x + softmax_T(queries tokens^T) tokens.

    Parameters
    ----------
    x : (n, C)
    queries : (n, G D 8)
    shape, patch : as of `token_encode`
    order : (C,) int64
        Where the channels of x are in (G, D, 8).
    tokens : (P, G, T, D, 8)
    out : (n, C)
        Overwritten; may be x.

    Notes
    -----
    A score errs by about D eps of the sum of its absolute terms, a weight by that and a few eps.
    """
    out.copy_(decoded(x, queries, shape, patch, order, tokens))


def token_decode_backward(
    grad: Tensor,
    queries: Tensor,
    shape: Sequence[int],
    patch: Sequence[int],
    order: Tensor,
    tokens: Tensor,
    queries_grad: Tensor,
    tokens_grad: Tensor,
) -> None:
    """Gradients of `token_decode` for its queries and its tokens; that for x is the given one.

    Parameters
    ----------
    grad : (n, C)
        Gradient of its result.
    queries, shape, patch, order, tokens : as of `token_decode`
    queries_grad : (n, G D 8)
        Overwritten.
    tokens_grad : (P, G, T, D, 8)
        Overwritten.
    """
    _, G, _, D, _ = tokens.shape
    asked = cut(queries, shape, patch).unflatten(2, (G, D, LANES))
    given = torch.zeros_like(queries)
    given[:, order] = grad
    given = cut(given, shape, patch).unflatten(2, (G, D, LANES))
    weights = torch.einsum("pmgdl,pgtdl->pmgtl", asked, tokens).softmax(3)
    slopes = weights * torch.einsum("pmgdl,pgtdl->pmgtl", given, tokens)
    slopes = slopes - weights * slopes.sum(3, keepdim=True)
    of_queries = torch.einsum("pmgtl,pgtdl->pmgdl", slopes, tokens)
    queries_grad.copy_(joined(of_queries.flatten(2), shape, patch))
    tokens_grad.copy_(torch.einsum("pmgtl,pmgdl->pgtdl", weights, given))
    tokens_grad.add_(torch.einsum("pmgtl,pmgdl->pgtdl", slopes, asked))


def token_series(z: Tensor, sines: Tensor, cosines: Tensor, out: Tensor) -> None:
    """Add a trigonometric series of every number: z + sum_k a_k sin(pi k z / K) + b_k cos(pi k z / K).

    Parameters
    ----------
    z : (P, G, T, D, 8)
    sines, cosines : (G, K, D, 8)
        a and b, k = 0 .. K - 1.
    out : (P, G, T, D, 8)
        Overwritten.

    Notes
    -----
    The sine of pi k z / K errs by the rounding of its argument, pi k |z| / K eps, and, where it follows from
    those of smaller k by turning, by about 4 k eps.
    """
    out.copy_(series(z, sines, cosines))


def token_series_backward(
    z: Tensor,
    grad: Tensor,
    sines: Tensor,
    cosines: Tensor,
    z_grad: Tensor,
    sines_grad: Tensor,
    cosines_grad: Tensor,
) -> None:
    """Gradients of `token_series`, given that of its result.

    Parameters
    ----------
    z, sines, cosines : as of `token_series`
    grad, z_grad : (P, G, T, D, 8)
        That of the result; that of z, overwritten.
    sines_grad, cosines_grad : (G, K, D, 8)
        Overwritten.
    """
    K, slope = sines.shape[1], torch.ones_like(z)
    for k in range(K):
        frequency = math.pi * k / K
        s, c = torch.sin(frequency * z), torch.cos(frequency * z)
        slope = slope + frequency * (sines[:, k, None] * c - cosines[:, k, None] * s)
        sines_grad[:, k] = (grad * s).sum((0, 2))
        cosines_grad[:, k] = (grad * c).sum((0, 2))
    z_grad.copy_(grad * slope)
