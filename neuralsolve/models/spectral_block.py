"""The patched latent spectral block of LSM: attention to some tokens, a trigonometric series, attention back.

Fields are cut into patches of M points; all below is of one patch and one of h heads, d = channels / h.

    z  = softmax_M(z0 k^T) v + z0         k, v: linear maps of the points x; z0: T learned tokens (T, d)
    z' = z + sum_k a_k sin(pi k z / K) + b_k cos(pi k z / K)      elementwise, a, b by channel
    y  = x + softmax_T(q z'^T) z'         q: a linear map of x

Source: Wu, Hu, Luo, Wang and Long (ICML 2023, arXiv 2301.12664), sec. 3.2 and 3.3, with the frequencies pi
k / K of the released module and, as there, no 1 / sqrt(d).

How it is computed: the scores z0 k^T are one linear map of x, since z0 is the same for all patches (what is
constant over a patch leaves the softmax alone), and one product with all points gives them and v. Weights
are put in an order in which eight heads are neighbours, which the kernels do at once; the bias of v moves
to z0.

Options that the source does not have: `scaled` divides scores by sqrt(d), `bounded` takes the series of 2 K
tanh(z / (2 K)), so that no token leaves the interval on which the series is monotonic in frequency,
`mixing` lets the tokens of all patches of a field attend to each other before the series.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.kernels.reference.tokens import LANES
from neuralsolve.models.token_attention import decode, encode, series


def check_heads(width: int, heads: int) -> None:
    """Raise OptionError where the channels of a network cannot be shared among its heads."""
    if heads < 1 or width % heads:
        msg = f"width = {width}, heads = {heads}; a width that is a multiple of heads >= 1 is needed"
        raise OptionError(msg)


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

    linear_on_input: ClassVar = ("keys_values", "queries")  # what `neuralsolve.lowrank.compress` asks for

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
        c = torch.arange(channels)
        places = ((c // d // LANES) * d + c % d) * LANES + c // d % LANES  # of the channels in (G, d, 8)
        self.places: Tensor
        self.register_buffer("places", places, persistent=False)
        self.mixer = nn.MultiheadAttention(channels, heads, batch_first=True) if mixing else None

    def forward(self, x: Tensor, patch: Sequence[int]) -> Tensor:
        """Return the field, channels last in memory; sides of a patch divide those of the field."""
        shape, batch, C = x.shape[2:], len(x), self.channels
        self._check(x, patch)
        points = x.movedim(1, -1).reshape(-1, C)
        z = self._encoded(points, shape, patch)
        if self.mixer is not None:
            z = self._mixed(z, batch)
        weight = self._by_lanes(self._scaled(self.queries.weight)).flatten(0, 2)
        bias = self._by_lanes(self._scaled(self.queries.bias)).flatten()
        out = decode(points, weight, bias, self._transformed(z), self.places, shape, patch)
        return out.to(x.dtype).view(batch, *shape, C).movedim(-1, 1)

    def _encoded(self, points: Tensor, shape: Sequence[int], patch: Sequence[int]) -> Tensor:
        C, latent = self.channels, self.latent
        keys = self.keys_values.weight[:C].view(self.heads, -1, C)
        scores = self._by_lanes(self._scaled(latent @ keys))
        values, bias = self._by_lanes(self.keys_values.weight[C:]), self._by_lanes(self.keys_values.bias[C:])
        weight = torch.cat([scores.flatten(0, 2), values.flatten(0, 2)])
        return encode(points, weight, self._by_lanes(latent).movedim(3, 2) + bias[:, None], shape, patch)

    def _transformed(self, z: Tensor) -> Tensor:
        """Return the tokens and their trigonometric series."""
        sines, cosines = (self._by_lanes(v).movedim(3, 1) for v in (self.sines, self.cosines))
        if not self.bounded:
            return series(z, sines, cosines)
        span = 2 * self.basis
        seen = span * torch.tanh(z / span)
        return series(seen, sines, cosines) + (z - seen)

    def _by_lanes(self, v: Tensor) -> Tensor:
        """Return ``(G, n, 8, ...)`` of numbers of heads ``(h, n, m)`` or of channels ``(C,)``, ``(C, m)``."""
        if v.ndim < 3:
            v = v.view(self.heads, -1, *v.shape[1:])
        if self.heads % LANES:
            v = torch.cat([v, v.new_zeros(-self.heads % LANES, *v.shape[1:])])
        return v.view(-1, LANES, *v.shape[1:]).transpose(1, 2)

    def _scaled(self, v: Tensor) -> Tensor:
        return v / math.sqrt(self.channels // self.heads) if self.scaled else v

    def _mixed(self, z: Tensor, batch: int) -> Tensor:
        """Return the tokens of every field after they have attended to each other."""
        assert self.mixer is not None
        by_head = z.permute(0, 2, 1, 4, 3)  # (P, T, G, 8, D)
        rows = by_head.reshape(batch, -1, z[0, :, 0].numel())
        more = self.mixer(*3 * (rows[..., : self.channels],), need_weights=False)[0]
        more = F.pad(more, [0, rows.shape[-1] - self.channels]).reshape(by_head.shape)
        return z + more.permute(0, 2, 1, 4, 3)

    def _check(self, x: Tensor, patch: Sequence[int]) -> None:
        sides = tuple(x.shape[2:])
        if x.shape[1] != self.channels or len(sides) != len(patch) or len(sides) > 3:
            msg = (
                f"a field {tuple(x.shape)} with patch {tuple(patch)}; {self.channels} channels, 1 to 3 axes "
                "and a side of the patch for each are needed"
            )
            raise ShapeError(msg)
        if any(n % p for n, p in zip(sides, patch, strict=True)):
            msg = f"sides {sides} are no multiples of those of a patch, {tuple(patch)}; pad the field before"
            raise ShapeError(msg)
