"""Reads a CSR matrix as a stencil on a grid, numba. Definition: `neuralsolve.kernels.reference.grid`.

One pass over the entries. The coordinates of a cell are counted on from those of the cell before it; an entry
is told by its step, first along x, whose couplings come most often.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.threads import over_ranges, serial


@serial
def _keep(coupling, a, i, lower, extent):
    lower[a, i] = coupling
    extent[a, 0] = min(extent[a, 0], coupling)
    extent[a, 1] = max(extent[a, 1], coupling)
    return True


@serial
def _take(step, value, i, cell, shape, strides, periodic, lower, extent):
    """Take an entry between two FLUID cells for a coupling; return whether it is one."""
    for a in (2, 1, 0):
        side, stride = shape[a], strides[a]
        if side == 1:
            continue
        if periodic[a] and side == 2:
            if step == (stride if cell[a] == 0 else -stride):
                return _keep(-value / 2, a, i, lower, extent)
        elif step == -stride:
            if cell[a] > 0:
                return _keep(-value, a, i, lower, extent)
        elif step == stride:
            if cell[a] < side - 1:
                return True
        elif periodic[a] and abs(step) == stride * (side - 1):
            if step > 0 and cell[a] == 0:
                return _keep(-value, a, i, lower, extent)
            if step < 0 and cell[a] == side - 1:
                return True
    return False


@serial
def _rows(indptr, indices, values, place, cells, shape, periodic, rounding, lower, excess, lo, hi):
    """Rows lo..hi; return the first that is of another kind or -1, entries in outside columns, extent."""
    _, ny, nx = shape
    strides = (ny * nx, nx, 1)
    outside, before, x, y, z = 0, np.int64(-2), 0, 0, 0
    extent = np.empty((3, 2))
    extent[:, 0], extent[:, 1] = np.inf, -np.inf
    for row in range(lo, hi):
        i = np.int64(place[row])
        if i == before + 1 and x < nx - 1:
            x += 1
        else:
            z, y, x = i // (ny * nx), i // nx % ny, i % nx
        before = i
        fluid = cells[i] == 0
        total, size = 0.0, 0.0
        for p in range(indptr[row], indptr[row + 1]):
            value = values[p]
            if value == 0:
                continue
            j = np.int64(place[indices[p]])
            if not fluid:
                if i != j:
                    return row, outside, extent
                excess[i] = value
            elif cells[j] != 0:
                outside += 1
            elif i == j or _take(j - i, value, i, (z, y, x), shape, strides, periodic, lower, extent):
                total += value
                size += abs(value)
            else:
                return row, outside, extent
        if fluid and abs(total) > rounding * size:
            excess[i] = total
    return -1, outside, extent


def csr_grid_rows(
    indptr: Tensor,
    indices: Tensor,
    values: Tensor,
    place: Tensor,
    cells: Tensor,
    shape: Sequence[int],
    periodic: Tensor,
    rounding: float,
    lower: Tensor,
    excess: Tensor,
    extent: Tensor,
) -> tuple[int, int]:
    """Sort the entries of a square CSR matrix, whose rows are cells of a grid, by what they are on it."""
    matrix = indptr.numpy(), indices.numpy(), values.numpy(), place.numpy(), cells.numpy()
    nz, ny, nx = (int(n) for n in shape)
    rule = (nz, ny, nx), periodic.numpy(), float(rounding), lower.numpy(), excess.numpy()
    found = over_ranges(len(place), lambda lo, hi: _rows(*matrix, *rule, lo, hi), entries=values.numel())
    extent[:, 0] = extent.new_tensor(np.min([part[2][:, 0] for part in found], 0))
    extent[:, 1] = extent.new_tensor(np.max([part[2][:, 1] for part in found], 0))
    return next((part[0] for part in found if part[0] >= 0), -1), sum(part[1] for part in found)
