"""The network of NPSDO: a multigrid-shaped map, linear in r, with weights made from the cells.

Source: Lan, Gueidon, Kaneda, Panetta and Teran, A neural-preconditioned Poisson solver for mixed Dirichlet
and Neumann boundary conditions, ICML 2024 (PMLR 235). The image I of the cells has three channels: air,
fluid, and one that is 1 where the cell is not solid. I_0 = I, I_{l+1} = pool I_l, the means of 2^d cells,
zeros added where a side is odd; I_n, the first of a single cell, ends it: n follows the grid.

    spatially varying convolution   K = W * I + w0 (3^d, zero padding, 3 -> 3^d channels)
                                    (K x)(i) = sum_k K_k(i) x(i + k), k over the 3^d neighbours
    scalar of a level               c = <w, mean of the 3^d patches of I> + w0

    x_0 = pre_0 r;  x_l = pre_l pool(x_{l-1}), l < n;  x_n = bottom pool(x_{n-1})
    for l = n .. 1:  x_{l-1} = c0_{l-1} x_{l-1} + 4 c1_{l-1} post_{l-1} up(x_l)
    z = x_0 on the fluid

Weights of pre_l, post_l, c0_l, c1_l are a level's own for l < m; all coarser levels share those of l = m - 1.
Seen from there A is the same map on ever wider cells, with 1/4 of the eigenvalues at each step: hence the 4,
and hence what was trained on small grids holds on large ones, where only more levels of the same kind appear.

`up` is nearest in 2D and trilinear in 3D. There is no activation on the way of r, so z is linear in it; it
is not symmetric. Everything that depends on the cells alone is made once a geometry: `freeze`.

Cost of an application: 2 (1 + 2^-d + ...) stencils of 3^d numbers a cell, in arithmetic five (2D) or nine
(3D) products with A; of `freeze`, 3^{2d+1} multiply-adds a cell and stencil. Memory: the stencils,
2 * 3^d * 4 bytes a cell.

Differences from the source: there every level has its own weights, n is fixed, sides are multiples of 2^n,
and the 4 is left to c1; so trained, the coarse levels are bound to one size, and on larger grids they end
before a single cell. Stencils are frozen (the released code makes them anew at every application). The
scalars of a level in 2D have 28 parameters (27 weights and a bias), as the rule says.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from neuralsolve.models.direction import padded, pooled
from neuralsolve.operators.grid import AIR, FLUID, SOLID

WIDENING = 4.0  # of A^-1, where cells are twice as wide


@dataclass
class Frozen:
    """The stencils and scalars of geometries; fields ``(batch, 3^d, *shape of the level)``."""

    pre: list[Tensor]  # of levels 0 .. n; the last is `bottom`
    post: list[Tensor]  # of levels 0 .. n-1
    keep: list[Tensor]  # c0
    add: list[Tensor]  # c1

    def to(self, device: torch.device, dtype: torch.dtype) -> Frozen:
        """Return them on a device, in a precision."""
        parts = (self.pre, self.post, self.keep, self.add)
        return Frozen(*([field.to(device, dtype) for field in part] for part in parts))


class StencilNet(nn.Module):
    """(r, cells), both ``(batch, 1, *shape)`` -> z, for any shape.

    Parameters
    ----------
    dim : 2 or 3
    own_levels : levels m, from the finest on, with weights of their own; coarser ones share the last's

    Examples
    --------
    >>> [sum(p.numel() for p in StencilNet(3, m).parameters()) for m in (4, 5)]
    [20582, 25174]
    """

    def __init__(self, dim: int, own_levels: int):
        super().__init__()
        self.dim, self.own_levels = dim, own_levels
        conv = nn.Conv2d if dim == 2 else nn.Conv3d
        self.pre = nn.ModuleList(conv(3, 3**dim, 3, padding=1) for _ in range(own_levels))
        self.post = nn.ModuleList(conv(3, 3**dim, 3, padding=1) for _ in range(own_levels))
        self.keep = nn.ModuleList(conv(3, 1, 3, padding=1) for _ in range(own_levels))
        self.add = nn.ModuleList(conv(3, 1, 3, padding=1) for _ in range(own_levels))
        self.bottom = conv(3, 3**dim, 3, padding=1)

    def forward(self, r: Tensor, cells: Tensor) -> Tensor:
        z = self.apply_frozen(self.freeze(cells), r)
        return torch.where(cells == FLUID, z, 0.0)

    def freeze(self, cells: Tensor) -> Frozen:
        """Return what the network makes of cells ``(batch, 1, *shape)``."""
        axes = tuple(range(1, self.dim + 2))
        frozen, flags = Frozen([], [], [], []), image(cells)
        while max(flags.shape[2:]) > 1:
            level = min(len(frozen.post), self.own_levels - 1)
            frozen.pre.append(self.pre[level](flags))
            frozen.post.append(self.post[level](flags))
            frozen.keep.append(self.keep[level](flags).mean(axes, keepdim=True))
            frozen.add.append(self.add[level](flags).mean(axes, keepdim=True))
            flags = pooled(padded(flags, 2))
        frozen.pre.append(self.bottom(flags))
        return frozen

    def apply_frozen(self, frozen: Frozen, r: Tensor) -> Tensor:
        """Return z = P r for the geometry of `frozen`: linear in r, on all cells."""
        left = [varying(frozen.pre[0], r)]
        for K in frozen.pre[1:]:
            left.append(varying(K, pooled(padded(left[-1], 2))))
        x = left.pop()
        for level in reversed(range(len(left))):
            correction = varying(frozen.post[level], self._up(x, left[level].shape))
            x = frozen.keep[level] * left[level] + WIDENING * frozen.add[level] * correction
        return x

    def _up(self, v: Tensor, shape: torch.Size) -> Tensor:
        if self.dim == 2:
            v = nn.functional.interpolate(v, scale_factor=2.0, mode="nearest")
        else:
            v = nn.functional.interpolate(v, scale_factor=2.0, mode="trilinear", align_corners=False)
        return v[(..., *(slice(side) for side in shape[2:]))]


def image(cells: Tensor) -> Tensor:
    """Return the three channels of cells ``(batch, 1, *shape)``: air, fluid, not solid.

    Zero padding of it reads as solid: a Neumann wall.
    """
    return torch.cat([cells == AIR, cells == FLUID, cells != SOLID], 1).float()


def varying(K: Tensor, x: Tensor) -> Tensor:
    """Return sum_k K_k(i) x(i + k) for stencils ``(batch, 3^d, *shape)`` on fields ``(batch, 1, *shape)``."""
    around = nn.functional.pad(x, [1, 1] * (x.ndim - 2))
    shape = x.shape[2:]
    corners = product(range(3), repeat=len(shape))
    shifted = (
        around[
            (slice(None), slice(None), *(slice(s, s + side) for s, side in zip(corner, shape, strict=True)))
        ]
        for corner in corners
    )
    if torch.is_grad_enabled():  # few operations to record
        return (K * torch.cat(list(shifted), 1)).sum(1, keepdim=True)
    out = torch.zeros_like(x)
    for k, neighbour in enumerate(shifted):
        out.addcmul_(K[:, k : k + 1], neighbour)
    return out
