"""Networks of about the same size that state-space layers are compared with on words."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POSITIONS = 128


class Recurrent(nn.Module):
    """Gated recurrent units in both directions; padding is not gone through."""

    def __init__(self, vocabulary: int, classes: int, channels: int, layers: int):
        super().__init__()
        self.encoder = nn.Embedding(vocabulary, channels)
        self.units = nn.GRU(channels, channels // 2, layers, batch_first=True, bidirectional=True)
        self.decoder = nn.Linear(channels, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return answers (batch, classes) for words (batch, length)."""
        packed = nn.utils.rnn.pack_padded_sequence(self.encoder(x), lengths, True, enforce_sorted=False)
        h, _ = nn.utils.rnn.pad_packed_sequence(self.units(packed)[0], batch_first=True)
        return self.decoder(_mean(h, _valid(h, lengths), lengths))


class LinearAttention(nn.Module):
    """A transformer of linear attention, with learned positions, layer norms before, and no mask of time.

    Katharopoulos, Vyas, Pappas, Fleuret, ICML 2020 (arXiv 2006.16236), eq. 5: features elu + 1.
    """

    def __init__(self, vocabulary: int, classes: int, channels: int, layers: int, heads: int = 4):
        super().__init__()
        self.encoder = nn.Embedding(vocabulary, channels)
        self.positions = nn.Parameter(torch.randn(POSITIONS, channels) / channels**0.5)
        self.blocks = nn.ModuleList(_AttentionBlock(channels, heads) for _ in range(layers))
        self.norm, self.decoder = nn.LayerNorm(channels), nn.Linear(channels, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return answers (batch, classes) for words (batch, length)."""
        x = x[:, : int(lengths.max())]
        h, valid = self.encoder(x) + self.positions[: x.shape[1]], _valid(x, lengths)
        for block in self.blocks:
            h = block(h, valid)
        return self.decoder(_mean(self.norm(h), valid, lengths))


class _AttentionBlock(nn.Module):
    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.mixed, self.joined = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.after = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )

    def forward(self, h: Tensor, valid: Tensor) -> Tensor:
        q, k, v = self.mixed(self.norms[0](h)).unflatten(2, (3, self.heads, -1)).unbind(2)
        q, k = F.elu(q) + 1, (F.elu(k) + 1) * valid[..., None]
        seen = torch.einsum("blhd,blhe->bhde", k, v)
        weight = torch.einsum("blhd,bhd->blh", q, k.sum(1))
        found = torch.einsum("blhd,bhde->blhe", q, seen) / weight[..., None]
        h = h + self.joined(found.flatten(2))
        return h + self.after(self.norms[1](h))


def _valid(h: Tensor, lengths: Tensor) -> Tensor:
    return (torch.arange(h.shape[1]) < lengths[:, None])[..., None].float()


def _mean(h: Tensor, valid: Tensor, lengths: Tensor) -> Tensor:
    return (h * valid).sum(1) / lengths[:, None]
