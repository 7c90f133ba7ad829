"""A Fourier layer with a network at every node: z + F(K z), K a matrix for each of the lowest modes.

Channels are last. On a line of few nodes the transforms are products with matrices of cosines and sines,
which costs less than to bring the nodes side by side for an FFT.

Source: Li et al., ICLR 2021 (arXiv 2010.08895); after the product in Fourier space, a network of two layers
instead of one and a sum with its input as in Tran et al., ICLR 2023 (arXiv 2111.13802), which also take one
axis at a time, where this layer takes all together.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor, nn

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.models.points import ModeWeights

FEW = 128  # nodes of a line


class FourierLayer(nn.Module):
    """Fields ``(batch, *shape, channels)`` to the same.

    Parameters
    ----------
    dim : axes
    channels : of the fields
    modes : m, kept along each axis: k = -m .. m - 1, of the last axis those that are not negative
    ratio : channels of the network between its two layers, over those of the fields

    Raises
    ------
    OptionError
    ShapeError
        At a call: more modes than the grid has.

    Examples
    --------
    >>> FourierLayer(2, channels=4, modes=3)(torch.ones(5, 8, 8, 4)).shape
    torch.Size([5, 8, 8, 4])
    """

    def __init__(self, dim: int, channels: int, modes: int, ratio: int = 2):
        super().__init__()
        if not 1 <= dim <= 3 or min(channels, modes, ratio) < 1:
            msg = (
                f"dim = {dim}, channels = {channels}, modes = {modes}, ratio = {ratio}; dim 1 to 3 and the "
                "others >= 1 are needed"
            )
            raise OptionError(msg)
        self.dim, self.modes = dim, modes
        self.weights = ModeWeights(dim, channels, modes)
        self.after = nn.Sequential(
            nn.Linear(channels, ratio * channels), nn.GELU(), nn.Linear(ratio * channels, channels)
        )

    def forward(self, z: Tensor) -> Tensor:
        shape, axes = z.shape[1:-1], tuple(range(1, 1 + self.dim))
        if len(shape) != self.dim or min(shape) < 2 * self.modes:
            msg = (
                f"{self.modes} modes of an axis on {tuple(shape)} nodes; modes <= {min(shape) // 2} are "
                "needed, or a finer grid"
            )
            raise ShapeError(msg)
        with torch.autocast(z.device.type, enabled=False):  # transforms want float32
            few = self.dim == 1 and shape[0] <= FEW
            mixed = self._by_products(z.float()) if few else self._by_fft(z.float(), axes)
        return z + self.after(mixed.to(z.dtype))

    def _by_fft(self, z: Tensor, axes: tuple[int, ...]) -> Tensor:
        spectrum, shape = torch.fft.rfftn(z, dim=axes, norm="forward"), z.shape[1:-1]
        kept = self.weights(self._lowest(spectrum).movedim(-1, 1)).movedim(1, -1)
        full = torch.zeros_like(spectrum)
        for corner, part in self._corners(shape):
            full[corner] = kept[part]
        return torch.fft.irfftn(full, s=shape, dim=axes, norm="forward")

    def _by_products(self, z: Tensor) -> Tensor:
        """Return the same for fields (batch, n, C) on a line: real parts, and imaginary ones below them."""
        (batch, n, C), m = z.shape, self.modes
        turns = (torch.arange(m, device=z.device)[:, None] * torch.arange(n, device=z.device)) % n
        angles = -2 * math.pi / n * turns.double()
        waves = torch.cat([angles.cos(), angles.sin()])  # (2 m, n)
        there = (waves / n).to(z.dtype)
        twice = torch.full((2 * m, 1), 2.0, device=z.device, dtype=torch.float64)
        twice[0] = 1.0  # all modes but the mean stand for two
        back = (waves * twice).T.to(z.dtype)
        rows = (there @ z).view(batch, 2, m, C).permute(2, 0, 1, 3).reshape(m, batch, 2 * C)
        re, im = self.weights.pairs.unbind(-1)
        weights = torch.cat([torch.cat([re, im], 2), torch.cat([-im, re], 2)], 1)  # (m, 2 C, 2 C)
        rows = (rows @ weights).view(m, batch, 2, C).permute(1, 2, 0, 3).reshape(batch, 2 * m, C)
        return back @ rows

    def _lowest(self, spectrum: Tensor) -> Tensor:
        """Return the modes k = 0 .. m - 1, -m .. -1 of each axis, of the last those from 0."""
        for axis in range(1, self.dim):
            n = spectrum.shape[axis]
            ends = spectrum.narrow(axis, 0, self.modes), spectrum.narrow(axis, n - self.modes, self.modes)
            spectrum = torch.cat(ends, axis)
        return spectrum.narrow(self.dim, 0, self.modes)

    def _corners(self, shape: torch.Size) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        """Return places of the kept modes in the whole spectrum, and among themselves."""
        m, found = self.modes, []
        for ends in product((False, True), repeat=self.dim - 1):
            whole = [slice(n - m, n) if end else slice(0, m) for n, end in zip(shape, ends, strict=False)]
            own = [slice(m, 2 * m) if end else slice(0, m) for end in ends]
            found.append(
                ((slice(None), *whole, slice(0, m)), (slice(None), *own, slice(0, m)))  # batch first
            )
        return found
