"""The network of DCDM: a small convolutional net with one coarse level, from a residual to a direction.

Source: Kaneda, Akar, Chen, Kala, Hyde and Teran, ICML 2023 (PMLR 202), models for 64^3 and for 128^3. All
convolutions 3^d, stride 1, zero padding, `width` filters, with bias; "pair" is b = relu(conv a), then
a = relu(conv b) + a.

    a = conv r                                     stem, linear
    a = relu(conv a); fine pairs; S = relu(conv a)
    a = average pool 2 of S; coarse pairs          the one coarse level
    a = nearest upsampling of a + S; last pairs
    d = per-cell linear map of a to one number     head

The geometry, the coefficients and the kind of wall are no input: the zero padding alone tells of a wall.
Cost: about 61,000 multiply-adds per cell in 3D and 20,000 in 2D, against 7 and 5 of a product with A.

Difference from the source: also in 2D, and any side: `padded` adds zeros up to an even number.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

DEPTHS = {"shallow": (1, 3, 2), "deep": (2, 5, 3)}  # fine, coarse and last pairs: the 64^3 and 128^3 models


class _Pairs(nn.Module):
    def __init__(self, count: int, width: int, dim: int):
        super().__init__()
        self.layers = nn.ModuleList(_conv(width, width, dim) for _ in range(2 * count))

    def forward(self, a: Tensor) -> Tensor:
        for first, second in zip(self.layers[::2], self.layers[1::2], strict=True):
            a = torch.relu(second(torch.relu(first(a)))) + a
        return a


class DirectionNet(nn.Module):
    """r ``(batch, 1, *shape)`` -> d of the same shape; every side must be even.

    Parameters
    ----------
    dim : 2 or 3
    depth : "shallow" (the source's model for 64^3) or "deep" (for 128^3)
    width : filters of every layer; 16 in the source

    Examples
    --------
    >>> [sum(p.numel() for p in DirectionNet(d, k).parameters()) for d in (2, 3) for k in ("shallow", "deep")]
    [32657, 51217, 97457, 152881]
    """

    def __init__(self, dim: int, depth: str = "shallow", width: int = 16):
        super().__init__()
        fine, coarse, last = DEPTHS[depth]
        self.dim, self.multiple = dim, 2
        self.stem = _conv(1, width, dim)
        self.enter, self.fine = _conv(width, width, dim), _Pairs(fine, width, dim)
        self.leave = _conv(width, width, dim)
        self.coarse = _Pairs(coarse, width, dim)
        self.last = _Pairs(last, width, dim)
        self.head = _linear(width, dim)

    def forward(self, r: Tensor, cells: Tensor | None = None) -> Tensor:  # blind to the cells
        a = torch.relu(self.enter(self.stem(r)))
        skip = torch.relu(self.leave(self.fine(a)))
        a = self.coarse(pooled(skip))
        a = nn.functional.interpolate(a, scale_factor=2.0, mode="nearest") + skip
        return self.head(self.last(a))


def _conv(inward: int, outward: int, dim: int) -> nn.Module:
    return (nn.Conv2d if dim == 2 else nn.Conv3d)(inward, outward, 3, padding=1)


def _linear(width: int, dim: int) -> nn.Module:
    return (nn.Conv2d if dim == 2 else nn.Conv3d)(width, 1, 1)


def memory_format(dim: int) -> torch.memory_format:
    """Return the layout in which the CPU's convolutions are fastest: channels last."""
    return torch.channels_last if dim == 2 else torch.channels_last_3d


def padded(v: Tensor, multiple: int) -> Tensor:
    """Return fields ``(..., *shape)`` of 2 or 3 axes after two, zeros added at the high ends of each."""
    room = [n for side in reversed(v.shape[2:]) for n in (0, -side % multiple)]
    return nn.functional.pad(v, room) if any(room) else v


def pooled(v: Tensor) -> Tensor:
    """Return the means of 2^d cells of fields ``(batch, channels, *shape)``, sides even, in their dtype."""
    if v.ndim == 4:
        return nn.functional.avg_pool2d(v, 2)
    if v.device.type == "cpu" and v.itemsize == 2:  # torch has that of three axes for longer numbers alone
        return nn.functional.avg_pool3d(v.float(), 2).to(v.dtype)
    return nn.functional.avg_pool3d(v, 2)
