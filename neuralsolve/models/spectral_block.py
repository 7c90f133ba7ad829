"""The patched latent spectral block of LSM: attention to few tokens, a trigonometric series, and back.

Fields are cut into patches of M points; all below is of one patch and one of h heads, d = channels / h.

    z  = softmax_M(z0 k^T) v + z0         k, v: linear maps of the points x; z0: T learned tokens (T, d)
    z' = z + sum_k a_k sin(pi k z / K) + b_k cos(pi k z / K)      elementwise, a, b by channel
    y  = x + softmax_T(q z'^T) z'         q: a linear map of x

Source: Wu, Hu, Luo, Wang and Long (ICML 2023, arXiv 2301.12664), sec. 3.2 and 3.3, with the frequencies pi k
/ K of the released module and, as there, no 1 / sqrt(d).

How it is computed: the scores z0 k^T are one linear map of x, since z0 is the same for all patches (what is
constant over a patch leaves the softmax alone); with v and q they are one product with all points. The heads
of a patch are then one product with a block diagonal of tokens: h times the arithmetic of the definition, in
batches of matrices that a library is fast at. The series is one kernel.

Options that the source does not have: `scaled` divides scores by sqrt(d), `bounded` takes the series of
2 K tanh(z / (2 K)), so that no token leaves the interval on which the series is monotonic in frequency,
`mixing` lets the tokens of all patches of a field attend to each other before the series.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralsolve.errors import OptionError
from neuralsolve.models.trigonometric import trigonometric


class SpectralBlock(nn.Module):
    """One block, fields ``(batch, channels, *shape)`` to the same; see the head of this file.

    Parameters
    ----------
    channels : C, a multiple of `heads`
    tokens : T per patch and head
    basis : K functions of each kind
    heads : h
    scaled, bounded, mixing : see the head of this file; none of them is in the source

    Raises
    ------
    OptionError

    Examples
    --------
    >>> block = SpectralBlock(16)
    >>> block(torch.ones(2, 16, 8, 8), patch=(4, 4)).shape
    torch.Size([2, 16, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        tokens: int = 4,
        basis: int = 12,
        heads: int = 8,
        scaled: bool = False,
        bounded: bool = False,
        mixing: bool = False,
    ):
        super().__init__()
        if channels % heads or min(channels, tokens, basis, heads) < 1:
            msg = (
                f"channels = {channels}, heads = {heads}, tokens = {tokens}, basis = {basis}; all >= 1 and "
                "heads dividing channels are needed"
            )
            raise OptionError(msg)
        self.channels, self.heads, self.tokens, self.basis = channels, heads, tokens, basis
        self.scaled, self.bounded = scaled, bounded
        d = channels // heads
        self.keys_values = nn.Linear(channels, 2 * channels)
        self.queries = nn.Linear(channels, channels)
        self.latent = nn.Parameter(torch.rand(heads, tokens, d) / channels)
        self.sines = nn.Parameter(torch.rand(channels, basis) / channels)
        self.cosines = nn.Parameter(torch.rand(channels, basis) / channels)
        self.mixer = nn.MultiheadAttention(channels, heads, batch_first=True) if mixing else None

    def forward(self, x: Tensor, patch: Sequence[int]) -> Tensor:
        shape, batch = x.shape[2:], len(x)
        points = to_patches(x, patch)
        return from_patches(points + self.of_points(points, batch), batch, shape, patch)

    def of_points(self, x: Tensor, batch: int) -> Tensor:
        """Return what is added to the points ``(batch * patches, M, C)``."""
        h, T, C = self.heads, self.tokens, self.channels
        keys = self.keys_values.weight[:C].view(h, C // h, C)
        scores = (self._scale() * (self.latent @ keys)).transpose(0, 1).reshape(T * h, C)
        weight = torch.cat([scores, self.keys_values.weight[C:], self._scale() * self.queries.weight])
        bias = [scores.new_zeros(T * h), self.keys_values.bias[C:], self._scale() * self.queries.bias]
        scores, values, queries = F.linear(x, weight, torch.cat(bias)).split([T * h, C, C], 2)
        z = self.encoded(scores, values)
        if self.mixer is not None:
            z = self._mixed(z, batch)
        return self.decoded(queries, self.series(z))

    def encoded(self, scores: Tensor, values: Tensor) -> Tensor:
        """Return tokens ``(patches, T, h, d)`` of scores ``(patches, M, T h)`` and values."""
        h, T, C = self.heads, self.tokens, self.channels
        pooled = scores.softmax(1).transpose(1, 2) @ values  # of every head by all; its own are wanted
        own = torch.diagonal(pooled.view(-1, T, h, h, C // h), 0, 2, 3)
        return own.movedim(-1, 2) + self.latent.transpose(0, 1)

    def series(self, z: Tensor) -> Tensor:
        """Return z + sum_k a_k sin(pi k z / K) + b_k cos(pi k z / K)."""
        flat = z.reshape(-1, self.channels)
        span = 2 * self.basis
        seen = span * torch.tanh(flat / span) if self.bounded else flat
        return (flat + trigonometric(seen, self.sines, self.cosines)).view_as(z)

    def decoded(self, queries: Tensor, z: Tensor) -> Tensor:
        """Return softmax_T(q z^T) z for queries ``(patches, M, C)`` and tokens ``(patches, T, h, d)``."""
        patches, points = queries.shape[:2]
        block = _block_diagonal(z)
        # tokens outermost: a softmax over four neighbours in memory is twenty times slower
        scores = (block @ queries.transpose(1, 2)).view(patches, self.tokens, -1)
        return scores.softmax(1).view(patches, -1, points).transpose(1, 2) @ block

    def _scale(self) -> float:
        return math.sqrt(self.heads / self.channels) if self.scaled else 1.0

    def _mixed(self, z: Tensor, batch: int) -> Tensor:
        assert self.mixer is not None
        rows = z.reshape(batch, -1, self.channels)
        return (rows + self.mixer(rows, rows, rows, need_weights=False)[0]).view_as(z)


def _block_diagonal(z: Tensor) -> Tensor:
    """Return the tokens of all heads ``(patches, T h, C)``, zero outside of a head's own channels."""
    patches, T, h, d = z.shape
    out = z.new_zeros(patches, T, h, h, d)
    return torch.diagonal_scatter(out, z.movedim(2, -1), 0, 2, 3).view(patches, T * h, h * d)


def to_patches(x: Tensor, patch: Sequence[int]) -> Tensor:
    """Return fields ``(batch, C, *shape)`` as points ``(batch * patches, M, C)``; patches in C order."""
    dim, batch, channels = len(patch), len(x), x.shape[1]
    split = [part for n, p in zip(x.shape[2:], patch, strict=True) for part in (n // p, p)]
    cut = x.movedim(1, -1).reshape(batch, *split, channels)
    return cut.permute(*_order(dim)).reshape(-1, math.prod(patch), channels)


def from_patches(points: Tensor, batch: int, shape: Sequence[int], patch: Sequence[int]) -> Tensor:
    """Return points as fields ``(batch, C, *shape)``: the way back from `to_patches`."""
    dim = len(patch)
    counts = [n // p for n, p in zip(shape, patch, strict=True)]
    cut = points.view(batch, *counts, *patch, points.shape[-1])
    back = [0, *(place for a in range(dim) for place in (1 + a, 1 + dim + a)), 1 + 2 * dim]
    return cut.permute(*back).reshape(batch, *shape, points.shape[-1]).movedim(-1, 1)


def _order(dim: int) -> list[int]:
    return [0, *range(1, 2 * dim, 2), *range(2, 2 * dim + 1, 2), 2 * dim + 1]
