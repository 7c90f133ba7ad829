"""A learned map of the points of a geometry to a box on which Fourier modes are at home.

    xi = x + x * g(features(x), code)        elementwise product

    features    coordinates; in 2-D also angle and radius, in 3-D two angles and the radius, about `centre`
    g           {linear map of the features, sin and cos of pi 2^j features, j = 0 .. 7, linear map of the
                code}, three layers of tanh, a linear map

Source: IPHI of Geo-FNO (Li, Huang, Liu and Anandkumar, JMLR 24 (2023), arXiv 2207.05209) as released with
LSM. Known differences: the centre of the angles is a corner just outside the box (1e-4 beyond it, the
source: 1e-4 within), so that neither angle nor radius is singular at a point of the box; there is one first
layer, with or without a code (the source makes both, and never uses 12 416 numbers of one of them).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuralsolve.errors import OptionError, ShapeError

OUTSIDE = 1e-4  # how far the centre of the angles lies beyond the corner
OCTAVES = 8


class Deformation(nn.Module):
    """The map of points ``(batch, N, dim)`` of about the unit box to points of about the unit box.

    Parameters
    ----------
    dim : 1 to 3
    code_length : numbers that describe the geometry of a sample, given with the points; 0 for none
    width : of the features; the layers have four times as many
    centre : of angles and radius, one number per axis; None: a corner of the box. Within the box the angle
        jumps on a ray from the centre.

    Raises
    ------
    OptionError

    Examples
    --------
    >>> x = torch.rand(2, 30, 2, generator=torch.Generator().manual_seed(5))
    >>> Deformation(2, code_length=3)(x, torch.zeros(2, 3)).shape
    torch.Size([2, 30, 2])
    """

    centre: Tensor
    octaves: Tensor

    def __init__(
        self, dim: int, code_length: int = 0, width: int = 32, centre: Sequence[float] | None = None
    ):
        super().__init__()
        if not 1 <= dim <= 3 or code_length < 0 or width < 1 or (centre is not None and len(centre) != dim):
            msg = (
                f"dim = {dim}, code_length = {code_length}, width = {width}, centre = {centre}; dim 1 to 3, "
                "code_length >= 0, width >= 1 and a centre of one number per axis are needed"
            )
            raise OptionError(msg)
        self.code_length = code_length
        place = [-OUTSIDE] * dim if centre is None else [float(c) for c in centre]
        self.register_buffer("centre", torch.tensor(place), persistent=False)
        self.register_buffer("octaves", math.pi * 2.0 ** torch.arange(OCTAVES), persistent=False)
        features = {1: 1, 2: 4, 3: 6}[dim]
        self.linear = nn.Linear(features, width)
        seen = width + 2 * OCTAVES * features
        self.code = nn.Linear(code_length, width) if code_length else None
        inner = 4 * width
        self.enter = nn.Linear(seen + (width if code_length else 0), inner)
        self.layers = nn.ModuleList([nn.Linear(inner, inner) for _ in range(2)])
        self.last = nn.Linear(inner, dim)

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        given = 0 if codes is None else codes.shape[-1]
        if self.code is not None and given != self.code_length:
            msg = f"codes of length {given}; code_length = {self.code_length} is needed"
            raise ShapeError(msg)
        features = self.features(x)
        turned = (features[..., None] * self.octaves).flatten(-2)
        seen = [self.linear(features), turned.sin(), turned.cos()]
        if self.code is not None:
            assert codes is not None
            code = self.code(codes)[:, None]
            batch = max(len(x), len(code))
            seen = [each.expand(batch, -1, -1) for each in seen] + [code.expand(batch, x.shape[1], -1)]
        g = torch.tanh(self.enter(torch.cat(seen, -1)))
        for layer in self.layers:
            g = torch.tanh(layer(g))
        return x + x * self.last(g)

    def features(self, x: Tensor) -> Tensor:
        """Return coordinates, angles and radius, ``(batch, N, features)``."""
        if x.shape[-1] == 1:
            return x
        away = x - self.centre
        radius = away.norm(dim=-1, keepdim=True)
        angles = [torch.atan2(away[..., 1:2], away[..., 0:1])]
        if x.shape[-1] == 3:
            angles.append(torch.atan2(away[..., :2].norm(dim=-1, keepdim=True), away[..., 2:]))
        return torch.cat([x, *angles, radius], -1)
