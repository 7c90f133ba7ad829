"""Reads a CSR matrix as a stencil on a grid, numba. Definition: `neuralsolve.kernels.reference.grid`.

One pass over the entries, each told by the step to its column. The steps along z and y are the same for the
cells of a line, and made once per line.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.threads import over_ranges, serial

NONE = np.int64(-(2**62))  # the step to a neighbour that does not exist


@serial
def _steps(at, side, stride, periodic):
    """Return the steps to the lower and upper neighbour of a cell along an axis, and the part of an entry."""
    low = -stride if at > 0 else NONE
    high = stride if at < side - 1 else NONE
    if periodic and side > 1:
        low = low if at > 0 else stride * (side - 1)
        high = high if at < side - 1 else -stride * (side - 1)
    return low, high, 0.5 if periodic and side == 2 else 1.0


@serial
def _rows(indptr, indices, values, place, cells, shape, periodic, rounding, lower, excess, lo, hi):
    """Rows lo..hi; return the first that is of another kind or -1, entries in outside columns, extent."""
    nz, ny, nx = shape
    lower_z, lower_y, lower_x = lower[0], lower[1], lower[2]
    least_z = least_y = least_x = np.inf
    most_z = most_y = most_x = -np.inf
    outside, line, stray = 0, np.int64(-1), -1
    zl, zh, part_z = _steps(0, nz, ny * nx, False)
    yl, yh, part_y = _steps(0, ny, nx, False)
    for row in range(lo, hi):
        i = np.int64(place[row])
        if i // nx != line:
            line = i // nx
            zl, zh, part_z = _steps(line // ny, nz, ny * nx, periodic[0])
            yl, yh, part_y = _steps(line % ny, ny, nx, periodic[1])
        xl, xh, part_x = _steps(i - line * nx, nx, 1, periodic[2])
        fluid = cells[i] == 0
        total, size = 0.0, 0.0
        for p in range(indptr[row], indptr[row + 1]):
            value = values[p]
            if value == 0:
                continue
            j = np.int64(place[indices[p]])
            step = j - i
            if fluid and cells[j] != 0:
                outside += 1
                continue
            total += value
            size += abs(value)
            if step == 0:
                continue
            if not fluid:
                stray = row
            elif step == xl:
                lower_x[i] = -value * part_x
                least_x, most_x = min(least_x, lower_x[i]), max(most_x, lower_x[i])
            elif step == yl:
                lower_y[i] = -value * part_y
                least_y, most_y = min(least_y, lower_y[i]), max(most_y, lower_y[i])
            elif step == zl:
                lower_z[i] = -value * part_z
                least_z, most_z = min(least_z, lower_z[i]), max(most_z, lower_z[i])
            elif step != xh and step != yh and step != zh:
                stray = row
        if stray >= 0:
            break
        if not fluid or abs(total) > rounding * size:
            excess[i] = total
    return stray, outside, ((least_z, most_z), (least_y, most_y), (least_x, most_x))


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
    extents = np.array([part[2] for part in found])
    extent[:, 0] = extent.new_tensor(extents[..., 0].min(0))
    extent[:, 1] = extent.new_tensor(extents[..., 1].max(0))
    return next((part[0] for part in found if part[0] >= 0), -1), sum(part[1] for part in found)
