"""The connected regions of a stencil, plain torch: the definition."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuralsolve.kernels.reference.stencil import INSIDE


def stencil_regions(code: Tensor, shape: Sequence[int], labels: Tensor) -> Tensor:
    """Find the regions on which the graph Laplacian is singular: those of coupled cells with no way out.

    Parameters
    ----------
    code : (n,) uint16
        From `stencil_code` or `faces_code`. A cell has a way out where more faces are open along an axis
        than lead to coupled neighbours: to AIR, or through a Dirichlet wall.
    shape : (nz, ny, nx)
    labels : (n,) int32
        Overwritten by the number of the cell's region, -1 in regions with a way out and outside FLUID;
        left as it is where no region is singular.

    Returns
    -------
    (m,) float64
        Cells of every singular region; regions are numbered in the order of their first cells.
    """
    bits = code.to(torch.int32).reshape(*shape)
    n = bits.numel()
    first = torch.where((bits & INSIDE) != 0, torch.arange(n, device=bits.device).reshape(*shape), n)
    before = None
    while before is None or not torch.equal(before, first):  # the first cell's number spreads over its region
        before = first
        for side in range(6):
            reached = torch.minimum(first, first.roll(1 - 2 * (side % 2), side // 2))
            first = torch.where((bits >> side) & 1 != 0, reached, first)
    coupled = (bits & 0b010101) + ((bits >> 1) & 0b010101)  # two bits per axis, as the open faces have
    first = first.reshape(-1)
    grounded = torch.zeros(n + 1, dtype=torch.bool, device=bits.device)
    grounded[n] = True
    grounded[first[(coupled != ((bits >> 6) & 0b111111)).reshape(-1)]] = True
    regions = torch.unique(first[~grounded[first]])
    if len(regions):
        number = torch.full((n + 1,), -1, dtype=labels.dtype, device=bits.device)
        number[regions] = torch.arange(len(regions), dtype=labels.dtype, device=bits.device)
        labels.copy_(number[first])
    return torch.bincount(first, minlength=n + 1)[regions].to(torch.float64)
