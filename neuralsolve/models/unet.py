"""A U-Net on grids of one to three axes and any size, with room for a block on every skip connection.

    coordinates in [0, 1] appended, lifted to `width` channels, zeros at the far ends up to a multiple of
    2^levels, levels times {max-pool 2, two convolutions}, channels w, 2w, 4w, 8w, ..., the last as many as
    the one before, the way back: linear upsampling (corners aligned), what was skipped beside it, two
    convolutions, 1x1 convolution, what was padded cut off, width -> 128 -> out with GELU

Two convolutions: {3^d, no bias, norm, ReLU} twice; they see zeros beyond the grid, or, along periodic axes,
its other end. `block(level)` says what every skip passes through; the
coarsest one passes too before it goes up. With spectral blocks this is LSM (Wu et al. 2023), with none its
own baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.models.pointwise_head import two_layers

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOL = {1: nn.functional.max_pool1d, 2: nn.functional.max_pool2d, 3: nn.functional.max_pool3d}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
NORMS = ("batch", "instance", "group")
MOST = 8  # levels: beyond it the coarsest convolutions alone fill the memory
ROOM = 8  # a grid is not padded to more times its size
HEAD = 128  # channels between the last two linear maps, from the source


def norm_of(kind: str, dim: int, channels: int) -> nn.Module:
    """Return a normalisation: "batch", "instance" (every channel by itself) or "group" (of eight)."""
    if kind == "batch":
        return BATCH_NORM[dim](channels)
    return nn.GroupNorm(channels if kind == "instance" else min(8, channels), channels)


class DoubleConv(nn.Module):
    """{3^d convolution, norm, ReLU} twice."""

    def __init__(
        self, inputs: int, outputs: int, norm: str, periodic: Sequence[bool], inner: int | None = None
    ):
        super().__init__()
        inner, dim = inner or outputs, len(periodic)
        self.periodic, padding = tuple(periodic), tuple(0 if around else 1 for around in periodic)
        self.first = CONV[dim](inputs, inner, 3, padding=padding, bias=False)
        self.first_norm = norm_of(norm, dim, inner)
        self.second = CONV[dim](inner, outputs, 3, padding=padding, bias=False)
        self.second_norm = norm_of(norm, dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first_norm(self.first(self._around(x))), inplace=True)
        return F.relu(self.second_norm(self.second(self._around(x))), inplace=True)

    def _around(self, x: Tensor) -> Tensor:
        """Return the field with the other end's nodes beyond each end of the periodic axes."""
        for axis, around in enumerate(self.periodic, 2):
            if around:
                last = x.narrow(axis, x.shape[axis] - 1, 1)
                x = torch.cat([last, x, x.narrow(axis, 0, 1)], axis)
        return x


def _dense(grad: Tensor) -> Tensor:
    """Return a gradient without gaps, channels last: with gaps, upsampling back takes five times as long."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return grad.contiguous(memory_format=formats.get(grad.ndim, torch.contiguous_format))


class UNetBody(nn.Module):
    """The U alone: ``(batch, width, *shape)`` to ``(batch, width, *shape)``, sides multiples of 2^levels.

    Parameters
    ----------
    dim : axes
    width : channels w at full size
    levels : how many times it is coarsened
    norm : see `norm_of`
    periodic : along each axis, whether convolutions go on at the other end
    block : level (0 the finest) and channels -> module (x, patch) -> x of the skip; None passes it as it is
    """

    def __init__(
        self,
        dim: int,
        width: int,
        levels: int,
        norm: str,
        periodic: Sequence[bool],
        block: Callable[[int, int], nn.Module] | None = None,
    ):
        super().__init__()
        self.dim, self.levels = dim, levels
        channels = [width * 2**k for k in range(levels)]
        channels.append(channels[-1])
        self.channels = channels
        self.down = nn.ModuleList(
            [DoubleConv(channels[max(0, k - 1)], channels[k], norm, periodic) for k in range(levels + 1)]
        )
        self.blocks = nn.ModuleList([block(k, c) for k, c in enumerate(channels)] if block else [])
        self.up = nn.ModuleList()
        for k in range(levels):
            joined = channels[k] + channels[k]  # what comes up has as many channels as what is skipped
            self.up.append(DoubleConv(joined, channels[max(0, k - 1)], norm, periodic, inner=joined // 2))

    def forward(self, x: Tensor, patch: Sequence[int]) -> Tensor:
        skips = []
        for k, down in enumerate(self.down):
            x = down(POOL[self.dim](x, 2) if k else x)
            skips.append(x)
        x = self._passed(self.levels, skips[-1], patch)
        for k in reversed(range(self.levels)):
            skip = self._passed(k, skips[k], patch)
            x = F.interpolate(x, skip.shape[2:], mode=LINEAR[self.dim], align_corners=True)
            if x.requires_grad:
                x.register_hook(_dense)
            x = self.up[k](torch.cat([skip, x], 1))
        return x

    def _passed(self, level: int, x: Tensor, patch: Sequence[int]) -> Tensor:
        return self.blocks[level](x, patch) if len(self.blocks) else x


class UNet(nn.Module):
    """A U-Net of fields on grids; see the head of this file.

    Parameters
    ----------
    dim : axes, 1 to 3
    inputs, outputs : channels
    width : channels w at full size
    levels : how many times it is coarsened; 2 or 3 for grids under about 32 nodes
    norm : "batch", "instance" or "group"; the first depends on the batch it is trained with
    patch : nodes of a patch of the block along each axis; "auto": 2^levels patches a side at any size, so
        that a patch covers the same part of the domain whatever the grid
    closed : along each axis, whether the last node lies on the wall (coordinates i / (n - 1)) or not (i / n)
    block : see `UNetBody`
    periodic : along each axis, whether convolutions go on at the other end, instead of meeting zeros; the
        sides
        of such grids are multiples of 2^levels

    Raises
    ------
    OptionError

    Examples
    --------
    >>> UNet(2, 3, 1, width=8, levels=2)(torch.zeros(2, 3, 13, 18)).shape
    torch.Size([2, 1, 13, 18])
    """

    def __init__(
        self,
        dim: int,
        inputs: int,
        outputs: int,
        width: int = 32,
        levels: int = 4,
        norm: str = "batch",
        patch: str | Sequence[int] = "auto",
        closed: bool | Sequence[bool] = True,
        block: Callable[[int, int], nn.Module] | None = None,
        periodic: bool | Sequence[bool] = False,
    ):
        super().__init__()
        sizes = min(inputs, outputs, width, levels) >= 1 and levels <= MOST
        if dim not in CONV or norm not in NORMS or not sizes:
            msg = (
                f"dim = {dim}, inputs = {inputs}, outputs = {outputs}, width = {width}, levels = {levels}, "
                f"norm = {norm!r}; dim 1 to 3, levels 1 to {MOST}, the others >= 1, norm one of "
                f"{', '.join(NORMS)} are needed"
            )
            raise OptionError(msg)
        self.dim, self.inputs, self.outputs, self.levels = dim, inputs, outputs, levels
        self.patch = patch if isinstance(patch, str) else tuple(patch)
        self.closed = (closed,) * dim if isinstance(closed, bool) else tuple(closed)
        self.periodic = (periodic,) * dim if isinstance(periodic, bool) else tuple(periodic)
        if (self.patch != "auto" and len(self.patch) != dim) or {len(self.closed), len(self.periodic)} != {
            dim
        }:
            msg = (
                f"patch = {patch!r}, closed = {closed!r}, periodic = {periodic!r}; 'auto', or one value per "
                f"axis, of {dim}, is needed"
            )
            raise OptionError(msg)
        self.lift = nn.Linear(inputs + dim, width)
        self.body = UNetBody(dim, width, levels, norm, self.periodic, block)
        self.last = nn.Linear(width, width)
        self.head = nn.Sequential(nn.Linear(width, HEAD), nn.GELU(), nn.Linear(HEAD, outputs))

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape[2:]
        if len(shape) != self.dim or x.shape[1] != self.inputs:
            msg = (
                f"fields have the shape {tuple(x.shape)}; (batch, {self.inputs} channels, {self.dim} axes) "
                "is needed"
            )
            raise ShapeError(msg)
        padded, patch = self.padded(shape)
        x = self.lift(torch.cat([x, coordinates(x, self.closed)], 1).movedim(1, -1)).movedim(-1, 1)
        room = [side for n, full in zip(shape[::-1], padded[::-1], strict=True) for side in (0, full - n)]
        x = self.last(self.body(F.pad(x, room), patch).movedim(1, -1))
        x = x[(slice(None), *(slice(n) for n in shape))].reshape(-1, self.last.out_features)
        layers = self.head[0], self.head[2]  # by name: an adapted layer has more parameters
        out = two_layers(x, *(getattr(each, key) for each in layers for key in ("weight", "bias")))
        return out.view(-1, *shape, self.outputs).movedim(-1, 1)

    def padded(self, shape: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the sides that a grid is padded to, and nodes of a patch, along each axis."""
        unit = 2**self.levels
        if unit > ROOM * min(shape):
            most = (ROOM * min(shape)).bit_length() - 1
            msg = (
                f"levels = {self.levels} on a grid of {tuple(shape)}, which would be padded to multiples of "
                f"{unit}; levels <= {most}, or a finer grid, are needed"
            )
            raise ShapeError(msg)
        patch = [-(-n // unit) for n in shape] if self.patch == "auto" else [int(p) for p in self.patch]
        full = [-(-n // (unit * p)) * unit * p for n, p in zip(shape, patch, strict=True)]
        if any(around and n != side for n, side, around in zip(shape, full, self.periodic, strict=True)):
            msg = (
                f"a grid of {tuple(shape)}, periodic = {self.periodic}; sides along periodic axes are needed "
                f"that are multiples of {unit}, 2^levels: take fewer levels, or periodic = false"
            )
            raise ShapeError(msg)
        return full, patch


def coordinates(x: Tensor, closed: Sequence[bool]) -> Tensor:
    """Return the coordinates of the nodes of fields ``(batch, channels, *shape)``, one channel an axis.

    In [0, 1] with both ends where an axis is closed, else i / n.
    """
    lines, dim = [], len(closed)
    for axis, (n, ends) in enumerate(zip(x.shape[2:], closed, strict=True)):
        line = torch.arange(n, dtype=x.dtype, device=x.device) / max(1, n - 1 if ends else n)
        lines.append(line.reshape([-1 if a == axis else 1 for a in range(dim)]).expand(x.shape[2:]))
    return torch.stack(lines).expand(len(x), -1, *x.shape[2:])
