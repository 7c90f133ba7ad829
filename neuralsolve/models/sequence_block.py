"""What a model of sequences is stacked from: a state-space layer between norm, gate and residual."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralsolve.models.state_space import StateSpaceLayer


class SequenceBlock(nn.Module):
    """One layer between norm, gate and residual, of sequences (batch, length, channels).

    Parameters
    ----------
    layer : its sequences are those of the block
    norm : of channels, "layer", "batch" or "none"; `before` the layer, or after the sum
    residual : whether what came in is added
    dropout : part of the channels
    """

    def __init__(self, layer: StateSpaceLayer, norm: str, before: bool, residual: bool, dropout: float):
        super().__init__()
        channels = layer.channels
        self.layer, self.before, self.residual, self.dropout = layer, before, residual, dropout
        self.norm = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}.get(norm, nn.Identity)(channels)
        self.gate = nn.Linear(channels, 2 * channels)

    def forward(self, x: Tensor, valid: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
        """Return the block's sequences; valid : (batch, length, 1), 0 where there is no sample."""
        seen = self._normed(x, valid) if self.before else x
        given = seen if valid is None else seen * valid
        y = self._gated(self.layer(given) if steps is None else self.layer(given, steps=steps))
        return self._joined(x, y, valid)

    def step(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the block's output for one sample (batch, channels), and the layer's next state."""
        y, state = self.layer.step(self._normed(x) if self.before else x, state)
        return self._joined(x, self._gated(y)), state

    def _gated(self, y: Tensor) -> Tensor:
        return self._dropped(F.glu(self.gate(self._dropped(F.gelu(y))), -1))

    def _joined(self, x: Tensor, y: Tensor, valid: Tensor | None = None) -> Tensor:
        out = x + y if self.residual else y
        return out if self.before else self._normed(out, valid)

    def _normed(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return over_channels(self.norm, x, valid)

    def _dropped(self, x: Tensor) -> Tensor:
        if not (self.training and self.dropout):
            return x
        return x * F.dropout(x.new_ones(len(x), *[1] * (x.ndim - 2), x.shape[-1]), self.dropout)


def over_channels(norm: nn.Module, x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the norm of (batch, channels) or (batch, length, channels) over the last axis.

    valid : (batch, length, 1), 0 in padding, which a batch's means leave out; it becomes zero there
    """
    if not isinstance(norm, nn.BatchNorm1d) or x.ndim == 2:
        return norm(x)
    if valid is None:
        return norm(x.transpose(1, 2)).transpose(1, 2)
    samples = valid[..., 0] > 0
    out = torch.zeros_like(x)
    out[samples] = norm(x[samples])
    return out
