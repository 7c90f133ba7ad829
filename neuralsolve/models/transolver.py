"""Transolver on grids: attention between learned slices of the domain instead of between its points.

Every node belongs to G slices by shares w = softmax_G(s / tau) of each head; a token is the mean of a slice's
nodes by these shares, the tokens attend to each other, and go back to the nodes by the same shares:

    t_g = sum_n w_ng v_n / sum_n w_ng,   t' = softmax(q k^T / sqrt(d)) v of the t_g,   y_n = sum_g w_ng t'_g

Layers: x + attention(norm x), then x + MLP(norm x), with layer norms; the nodes are looked at through 3^d
convolutions, as the source does on grids.

Source: Wu, Luo, Wang, Wang and Long, "Transolver" (ICML 2024, arXiv 2402.02366), sec. 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.models.unet import CONV, coordinates

TINY = 1e-5


class SliceAttention(nn.Module):
    """Attention between slices; nodes ``(batch, *shape, C)`` to the same."""

    def __init__(self, dim: int, channels: int, heads: int, slices: int):
        super().__init__()
        self.heads, d = heads, channels // heads
        self.look = CONV[dim](channels, 2 * channels, 3, padding=1)
        self.shares = nn.Linear(d, slices)
        nn.init.orthogonal_(self.shares.weight)
        self.temperature = nn.Parameter(torch.full((heads, 1, 1), 0.5))
        self.queries_keys_values = nn.Linear(d, 3 * d, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, *shape, C = x.shape
        seen = self.look(x.movedim(-1, 1)).movedim(1, -1).reshape(batch, -1, 2, self.heads, C // self.heads)
        values, marks = seen.permute(2, 0, 3, 1, 4)  # (batch, heads, nodes, d)
        w = (self.shares(marks) / self.temperature.clamp(0.1, 5.0)).softmax(-1)
        tokens = w.transpose(2, 3) @ values / (w.sum(2)[..., None] + TINY)
        q, k, v = self.queries_keys_values(tokens).chunk(3, -1)
        back = w @ F.scaled_dot_product_attention(q, k, v)
        return self.out(back.transpose(1, 2).reshape(batch, *shape, C))


class Transolver(nn.Module):
    """Transolver on grids of one to three axes.

    Parameters
    ----------
    dim, inputs, outputs : axes, channels
    width : hidden channels, a multiple of `heads`
    layers, heads, slices : of attention
    ratio : hidden channels of the MLP over `width`
    closed : as of `UNet`

    Raises
    ------
    OptionError

    Examples
    --------
    >>> Transolver(2, 1, 1, width=16, layers=1, slices=8)(torch.zeros(2, 1, 9, 11)).shape
    torch.Size([2, 1, 9, 11])
    """

    def __init__(
        self,
        dim: int,
        inputs: int,
        outputs: int,
        width: int = 64,
        layers: int = 4,
        heads: int = 8,
        slices: int = 32,
        ratio: int = 1,
        closed: bool | Sequence[bool] = True,
    ):
        super().__init__()
        if dim not in CONV or min(inputs, outputs, width, layers, heads, slices, ratio) < 1 or width % heads:
            msg = (
                f"dim = {dim}, inputs = {inputs}, outputs = {outputs}, width = {width}, layers = {layers}, "
                f"heads = {heads}, slices = {slices}, ratio = {ratio}; dim 1 to 3, the others >= 1 and heads "
                "dividing width are needed"
            )
            raise OptionError(msg)
        self.dim, self.inputs = dim, inputs
        self.closed = (closed,) * dim if isinstance(closed, bool) else tuple(closed)
        hidden = ratio * width
        self.lift = nn.Sequential(nn.Linear(inputs + dim, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.attention = nn.ModuleList([SliceAttention(dim, width, heads, slices) for _ in range(layers)])
        self.mlps = nn.ModuleList(
            [
                nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
                for _ in range(layers)
            ]
        )
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2 * layers)])
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.weight.shape[0] != slices:
                nn.init.trunc_normal_(module.weight, std=min(0.02, 1 / math.sqrt(module.in_features)))

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != self.dim + 2 or x.shape[1] != self.inputs:
            msg = (
                f"fields have the shape {tuple(x.shape)}; (batch, {self.inputs} channels, {self.dim} axes) "
                "is needed"
            )
            raise ShapeError(msg)
        x = self.lift(torch.cat([x, coordinates(x, self.closed)], 1).movedim(1, -1))
        for k, (attention, mlp) in enumerate(zip(self.attention, self.mlps, strict=True)):
            x = x + attention(self.norms[2 * k](x))
            x = x + mlp(self.norms[2 * k + 1](x))
        return self.head(x).movedim(-1, 1)
