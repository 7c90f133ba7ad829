"""Fourier modes of values at scattered points, and values at points of Fourier modes; and the same of grids.

    to_modes      U_k = 1/N sum_n u_n e^{-2 pi i k.x_n}        points -> modes
    from_modes    v_n = Re sum_k c_k V_k e^{2 pi i k.x_n}      modes -> points, c_k = 1 where the last k is 0,
                                                               else 2: the other half is the conjugate
    grid_modes    as to_modes for values at the nodes j / S of a grid
    grid_values   as from_modes at these nodes

Modes of m an axis: k = 0 .. m - 1, -m .. -1, on the last axis 0 .. m - 1 alone, since fields are real. At the
nodes of a grid of 2 m or more a side the pairs are the same, and they are rfftn and irfftn with the factor
1/N on the way in ("forward"). Of points given twice nothing changes, nor much where a mesh is refined evenly:
sums are means over the points. They are no integrals: a part of the domain with more points weighs more.

Cost per sample: N 2^(d-1) m^d C complex multiply-adds for C channels. The exponentials are products over the
axes, so N (2 d - 1) m of them are taken, and N (C m + (2 m)^(d-1)) numbers are held.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def waves(points: Tensor, modes: int) -> list[Tensor]:
    """Return e^{-2 pi i k x_a} of every axis a, ``(batch, N, k)``, of points ``(batch, N, dim)``.

    Differentiable with respect to the points. One batch of them serves any number of fields.

    Examples
    --------
    >>> [tuple(wave.shape) for wave in waves(torch.rand(1, 50, 3), modes=4)]
    [(1, 50, 8), (1, 50, 8), (1, 50, 4)]
    """
    found, dim = [], points.shape[-1]
    for axis in range(dim):
        k = torch.arange(modes, dtype=points.dtype, device=points.device)
        if axis < dim - 1:
            k = torch.cat([k, k - modes])
        angle = -2 * math.pi * k * points[..., axis : axis + 1]
        found.append(torch.complex(angle.cos(), angle.sin()))
    return found


def to_modes(values: Tensor, wave: Sequence[Tensor]) -> Tensor:
    """Return the modes ``(batch, C, 2 m, ..., m)`` of values ``(batch, C, N)``; see the head of this file.

    Examples
    --------
    >>> x = torch.rand(1, 500, 2, generator=torch.Generator().manual_seed(7))
    >>> found = to_modes(torch.ones(1, 1, 500), waves(x, 3))
    >>> found.shape, abs(float(found[0, 0, 0, 0].real) - 1) < 1e-6
    (torch.Size([1, 1, 6, 3]), True)
    """
    batch, channels, count = values.shape
    *rest, last = wave
    side = values[:, :, None] * last.mT[:, None]  # (batch, C, m, N)
    found = side.reshape(batch, -1, count) @ _joined(rest, last) / count
    found = found.view(batch, channels, last.shape[-1], *(each.shape[-1] for each in rest))
    return found.movedim(2, -1)


def from_modes(modes: Tensor, wave: Sequence[Tensor]) -> Tensor:
    """Return the values ``(batch, C, N)`` of modes ``(batch, C, 2 m, ..., m)``.

    Examples
    --------
    >>> constant = torch.zeros(1, 1, 6, 3, dtype=torch.complex64)
    >>> constant[..., 0, 0] = 2.5
    >>> from_modes(constant, waves(torch.rand(1, 4, 2), 3))
    tensor([[[2.5000, 2.5000, 2.5000, 2.5000]]])
    """
    *rest, last = wave
    batch, channels, m = len(modes), modes.shape[1], modes.shape[-1]
    twice = torch.full((m,), 2.0, dtype=last.real.dtype, device=last.device)
    twice[0] = 1.0
    rows = (modes * twice).movedim(-1, 2).reshape(batch, channels * m, -1)
    side = rows @ _joined(rest, last).mH  # (batch, C m, N)
    side = side.view(batch, channels, m, -1)
    turned = last.mT[:, None]  # Re(a conj b) = Re a Re b + Im a Im b
    return (side.real * turned.real + side.imag * turned.imag).sum(2)


def _joined(rest: Sequence[Tensor], last: Tensor) -> Tensor:
    """Return the products over all axes but the last, ``(batch, N, k)``."""
    out = last.new_ones(*last.shape[:2], 1)
    for wave in rest:
        out = (out[..., :, None] * wave[..., None, :]).flatten(2)
    return out


def grid_modes(values: Tensor, modes: int) -> Tensor:
    """Return the modes ``(batch, C, 2 m, ..., m)`` of a grid ``(batch, C, *shape)`` of 2 m or more a side.

    Examples
    --------
    >>> grid_modes(torch.ones(1, 1, 8, 8), 3)[0, 0, :2, :2].real
    tensor([[1., 0.],
            [0., 0.]])
    """
    axes = tuple(range(2, values.ndim))
    found = torch.fft.rfftn(values, dim=axes, norm="forward")
    for axis in axes[:-1]:
        near = found.narrow(axis, 0, modes), found.narrow(axis, found.shape[axis] - modes, modes)
        found = torch.cat(near, axis)
    return found[..., :modes]


def grid_values(modes: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the values ``(batch, C, *shape)`` on a grid of 2 m or more a side.

    Examples
    --------
    >>> u = torch.cos(2 * torch.pi * torch.arange(8) / 8)[None, None]
    >>> bool(torch.allclose(grid_values(grid_modes(u, 3), (8,)), u, atol=1e-6))
    True
    """
    m, axes = modes.shape[-1], tuple(range(2, modes.ndim))
    for axis, n in zip(axes[:-1], shape, strict=False):
        gap = list(modes.shape)
        gap[axis] = n - 2 * m
        halves = modes.narrow(axis, 0, m), modes.new_zeros(gap), modes.narrow(axis, m, m)
        modes = torch.cat(halves, axis)
    return torch.fft.irfftn(modes, s=tuple(shape), dim=axes, norm="forward")
