"""LSM written down plainly, step by step as its definition says: what the fast module must equal."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# what the parts of the plain module are called in the fast one
PARTS = {
    "lift": "net.lift",
    "down": "net.body.down",
    "blocks": "net.body.blocks",
    "up": "net.body.up",
    "last": "net.last",
    "out": "net.head",
}


class PlainBlock(nn.Module):
    """A patched latent spectral block in 2D, patch by patch joined to the batch, head by head."""

    def __init__(self, channels: int, patch: tuple[int, int], tokens: int, basis: int, heads: int):
        super().__init__()
        self.patch, self.tokens, self.basis, self.heads = patch, tokens, basis, heads
        self.keys_values = nn.Conv2d(channels, 2 * channels, 1)
        self.queries = nn.Conv2d(channels, channels, 1)
        self.latent = nn.Parameter(torch.rand(heads, tokens, channels // heads) / channels)
        self.sines = nn.Parameter(torch.rand(channels, basis) / channels)
        self.cosines = nn.Parameter(torch.rand(channels, basis) / channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, C, H, W = x.shape
        p, q = self.patch
        x = x.view(batch, C, H // p, p, W // q, q).permute(0, 2, 4, 1, 3, 5).reshape(-1, C, p, q)
        keys, values = self.keys_values(x).flatten(2).chunk(2, 1)
        keys, values = (self._heads(v) for v in (keys, values))  # (patches, h, M, d)
        z = torch.softmax(self.latent @ keys.transpose(-1, -2), -1) @ values + self.latent
        channel = z.permute(0, 1, 3, 2).reshape(len(z), C, self.tokens, 1)
        angle = math.pi * torch.arange(self.basis, dtype=z.dtype) * channel / self.basis
        channel = (
            channel[..., 0]
            + (self.sines[:, None] * torch.sin(angle)).sum(-1)
            + (self.cosines[:, None] * torch.cos(angle)).sum(-1)
        )
        z = channel.view(len(z), self.heads, C // self.heads, self.tokens).transpose(-1, -2)
        asked = self._heads(self.queries(x).flatten(2))
        back = torch.softmax(asked @ z.transpose(-1, -2), -1) @ z
        x = x + back.permute(0, 1, 3, 2).reshape(x.shape)
        x = x.view(batch, H // p, W // q, C, p, q).permute(0, 3, 1, 4, 2, 5)
        return x.reshape(batch, C, H, W)

    def _heads(self, v: Tensor) -> Tensor:
        return v.view(len(v), self.heads, -1, v.shape[-1]).transpose(-1, -2)


def plain_double(inputs: int, outputs: int, inner: int | None = None) -> nn.Sequential:
    """Return two convolutions, each with batch norm and ReLU."""
    inner = inner or outputs
    return nn.Sequential(
        nn.Conv2d(inputs, inner, 3, padding=1, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.Conv2d(inner, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class PlainLSM(nn.Module):
    """The published model in 2D: four coarsenings, batch norm."""

    def __init__(self, inputs: int, outputs: int, width: int, side: int):
        super().__init__()
        full = 16 * -(-side // 16)
        self.room, patch = full - side, (full // 16, full // 16)
        channels = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        self.lift = nn.Linear(inputs + 2, width)
        self.down = nn.ModuleList(plain_double(channels[max(0, k - 1)], channels[k]) for k in range(5))
        self.blocks = nn.ModuleList(PlainBlock(c, patch, 4, 12, 8) for c in channels)
        self.up = nn.ModuleList(
            plain_double(2 * channels[k], channels[max(0, k - 1)], channels[k]) for k in range(4)
        )
        self.last = nn.Conv2d(width, width, 1)
        self.out = nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, outputs))

    def forward(self, x: Tensor) -> Tensor:
        n, m = x.shape[2:]
        y, z = torch.linspace(0, 1, n, dtype=x.dtype), torch.linspace(0, 1, m, dtype=x.dtype)
        place = torch.stack(torch.meshgrid(y, z, indexing="ij")).expand(len(x), -1, -1, -1)
        x = self.lift(torch.cat([x, place], 1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = F.pad(x, [0, self.room, 0, self.room])
        skips = []
        for k in range(5):
            x = self.down[k](F.max_pool2d(x, 2) if k else x)
            skips.append(x)
        x = self.blocks[4](skips[4])
        for k in (3, 2, 1, 0):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = self.up[k](torch.cat([self.blocks[k](skips[k]), x], 1))
        x = self.last(x)[:, :, :n, :m]
        return self.out(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def same_weights(plain: PlainLSM, fast: nn.Module) -> None:
    """Give the fast module the weights of the plain one: both name their parts in the same order."""
    theirs, ours, new = plain.state_dict(), fast.state_dict(), {}
    for part, start in PARTS.items():
        names = [name for name in theirs if name.startswith(part + ".")]
        keys = [key for key in ours if key.startswith(start + ".")]
        new |= {key: theirs[name].reshape(ours[key].shape) for key, name in zip(keys, names, strict=True)}
    fast.load_state_dict(new)
