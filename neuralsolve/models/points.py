"""LSM on scattered points: through Fourier modes onto a regular latent grid, a U-Net there, and back.

    x      the points, mapped to the unit box by fixed bounds;  xi = deformation of x
    u      linear map of the inputs at the points, to `width` channels
    v      GELU(values on the grid of {W1 modes of u at xi} + linear map of the coordinates of the grid)
    w      1x1 convolution of the U-Net with spectral blocks of v
    out    width -> 128 -> outputs with GELU, of {values at xi of W2 modes of w} + linear map of x

W1, W2: a matrix for every mode. Sources: LSM (Wu et al., ICML 2023, arXiv 2301.12664) with the transfer of
Geo-FNO (Li et al., JMLR 24 (2023), arXiv 2207.05209). Known differences: transforms are means over the
points, so that the density of a mesh does not matter, and the weights begin at a size that keeps that of the
channels (the sources sum, and temper it by weights of 1 / width^2); coordinates of the grid are those of its
modes, j / latent (there j / (latent - 1)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.lowrank.views import MatrixView
from neuralsolve.models.deformation import Deformation
from neuralsolve.models.nonuniform import from_modes, grid_modes, grid_values, to_modes, waves
from neuralsolve.models.spectral_block import SpectralBlock, check_heads
from neuralsolve.models.unet import HEAD, NORMS, UNetBody

MEAN_SQUARE = 0.5  # of the real and of the imaginary part of a number of size one


class ModeWeights(nn.Module):
    """A complex matrix for every mode, kept as pairs of real numbers: optimisers and files take those."""

    matrix_views: ClassVar = {"pairs": MatrixView(rows=(2,), columns=(1, 0), pairs=True)}

    def __init__(self, dim: int, channels: int, modes: int):
        super().__init__()
        sides = [2 * modes] * (dim - 1) + [modes]
        drawn = torch.randn(math.prod(sides), channels, channels, 2)
        self.pairs = nn.Parameter(drawn * math.sqrt(MEAN_SQUARE / channels))

    def forward(self, modes: Tensor) -> Tensor:
        """Return the products, of modes ``(batch, channels, *sides)`` of the same shape."""
        rows = modes.flatten(2).movedim(2, 0)  # (modes, batch, channels)
        return (rows @ torch.view_as_complex(self.pairs)).movedim(0, 2).reshape(modes.shape)


class LatentSpectralPoints(nn.Module):
    """LSM on points of one to three coordinates; see the head of this file.

    Parameters
    ----------
    dim, inputs, outputs : coordinates of a point, and channels
    width, levels, tokens, basis, heads, norm : as of `LatentSpectral`
    modes : m, Fourier modes of an axis: k = -m .. m - 1
    latent : nodes of the latent grid along every axis, a multiple of 2^levels, at least 2 m
    code_length : numbers that describe the geometry of a sample and steer the deformation; 0: it depends on
        the points alone, and codes are not looked at
    deform : whether the points are deformed at all
    bounds : lowest and highest coordinates, (2, dim); None: the unit box
    scaled, bounded, mixing : as of `SpectralBlock`

    Raises
    ------
    OptionError

    Examples
    --------
    >>> net = LatentSpectralPoints(2, 3, 1, width=8, levels=2, modes=4, latent=16)
    >>> net(torch.zeros(5, 3, 70), torch.rand(5, 70, 2)).shape
    torch.Size([5, 1, 70])
    """

    bounds: Tensor

    def __init__(
        self,
        dim: int,
        inputs: int,
        outputs: int,
        width: int = 32,
        levels: int = 4,
        tokens: int = 4,
        basis: int = 12,
        heads: int = 8,
        norm: str = "batch",
        modes: int = 12,
        latent: int = 96,
        code_length: int = 0,
        deform: bool = True,
        bounds: Sequence[Sequence[float]] | None = None,
        scaled: bool = False,
        bounded: bool = False,
        mixing: bool = False,
    ):
        super().__init__()
        smallest = min(inputs, outputs, width, levels, modes)
        if not 1 <= dim <= 3 or norm not in NORMS or smallest < 1 or code_length < 0:
            msg = (
                f"dim = {dim}, inputs = {inputs}, outputs = {outputs}, width = {width}, levels = {levels}, "
                f"modes = {modes}, code_length = {code_length}, norm = {norm!r}; dim 1 to 3, code_length >= "
                f"0, the others >= 1, norm one of {', '.join(NORMS)} are needed"
            )
            raise OptionError(msg)
        check_heads(width, heads)
        if latent % 2**levels or latent < 2 * modes:
            msg = (
                f"latent = {latent}, levels = {levels}, modes = {modes}; a multiple of 2^levels = "
                f"{2**levels}, at least 2 modes = {2 * modes}, is needed"
            )
            raise OptionError(msg)
        self.dim, self.inputs, self.modes, self.latent = dim, inputs, modes, latent
        self.patch = [latent // 2**levels] * dim
        box = torch.tensor([[0.0] * dim, [1.0] * dim] if bounds is None else bounds, dtype=torch.float32)
        if box.shape != (2, dim) or not bool((box[1] > box[0]).all()):
            msg = f"bounds = {bounds}; lowest and highest of {dim} coordinates, (2, {dim}), are needed"
            raise OptionError(msg)
        self.register_buffer("bounds", box)
        self.deformation = Deformation(dim, code_length) if deform else None
        self.lift = nn.Linear(inputs, width)
        self.inward, self.outward = (ModeWeights(dim, width, modes) for _ in range(2))
        self.at_grid, self.at_points = nn.Linear(dim, width), nn.Linear(dim, width)

        def block(level: int, channels: int) -> SpectralBlock:
            return SpectralBlock(channels, tokens, basis, heads, scaled, bounded, mixing)

        self.body = UNetBody(dim, width, levels, norm, (False,) * dim, block)
        self.last = nn.Linear(width, width)
        self.head = nn.Sequential(nn.Linear(width, HEAD), nn.GELU(), nn.Linear(HEAD, outputs))

    def forward(self, x: Tensor, points: Tensor | None = None, codes: Tensor | None = None) -> Tensor:
        """Return the outputs ``(batch, outputs, N)``.

        Parameters
        ----------
        x : (batch, inputs, N)
        points : (batch, N, dim), or (1, N, dim) for all
        codes : (batch, code_length) where the network has such a length

        Raises
        ------
        ShapeError
        """
        place = self._placed(x, points)
        with torch.autocast(x.device.type, enabled=False):  # phases of half precision are noise
            wave = waves(self._deformed(place, codes), self.modes)
        u = self.lift(x.movedim(1, -1)).movedim(-1, 1)
        with torch.autocast(x.device.type, enabled=False):
            modes = self.inward(to_modes(u.to(place.dtype), wave))
            u = grid_values(modes, [self.latent] * self.dim)
        u = self.body(F.gelu(u + self.at_grid(self._nodes(u)).movedim(-1, 0)), self.patch)
        u = self.last(u.movedim(1, -1)).movedim(-1, 1)
        with torch.autocast(x.device.type, enabled=False):
            u = from_modes(self.outward(grid_modes(u.to(place.dtype), self.modes)), wave)
        return self.head(u.movedim(1, -1) + self.at_points(place)).movedim(-1, 1)

    def _placed(self, x: Tensor, points: Tensor | None) -> Tensor:
        """Return the points in the unit box."""
        wanted = f"points (batch or 1, {x.shape[-1]}, {self.dim}) of x (batch, {self.inputs}, N)"
        if points is None:
            msg = f"no points; {wanted} are needed: model.predict(inputs, points=mesh.points)"
            raise ShapeError(msg)
        if (
            x.ndim != 3
            or x.shape[1] != self.inputs
            or points.ndim != 3
            or points.shape[0] not in (1, len(x))
            or points.shape[1:] != (x.shape[-1], self.dim)
        ):
            msg = f"x has the shape {tuple(x.shape)} and points {tuple(points.shape)}; {wanted} are needed"
            raise ShapeError(msg)
        low, high = self.bounds
        return (points.to(low.dtype) - low) / (high - low)

    def _deformed(self, place: Tensor, codes: Tensor | None) -> Tensor:
        return place if self.deformation is None else self.deformation(place, codes)

    def _nodes(self, like: Tensor) -> Tensor:
        """Return the coordinates of the latent grid, ``(*shape, dim)``."""
        line = torch.arange(self.latent, dtype=like.dtype, device=like.device) / self.latent
        return torch.stack(torch.meshgrid(*[line] * self.dim, indexing="ij"), -1)
