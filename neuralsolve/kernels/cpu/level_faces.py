"""Couplings of the finest grid level, numba. Definition: `neuralsolve.kernels.reference.spans`.

One pass over cells and coefficients, as in `assemble`; what is there already is read, and written only where
it differs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neuralsolve.kernels.cpu.assemble import leaving, segment_faces
from neuralsolve.kernels.cpu.padded import box, over_lines, row_start
from neuralsolve.kernels.cpu.stencil import SEGMENT, kinds_beside, kinds_room, segment_end
from neuralsolve.kernels.cpu.threads import bare, serial
from neuralsolve.kernels.reference.stencil import AIR, FLUID


@bare
def _lower(x0, low, c0, unit, row):
    """Set the couplings of a segment to the lower neighbours; return their sum and number."""
    total, count = 0.0, 0.0
    for i in range(row.size):
        value = unit * c0[i]
        value = value if (x0[i] == FLUID) & (low[i] == FLUID) else 0.0
        row[i] = value
        total += value
        count += 1.0 if value != 0 else 0.0
    return total, count


@bare
def _is_air(kinds):
    found = 0
    for i in range(kinds.size):
        found += np.int32(kinds[i] == AIR)
    return found > 0


@bare
def _put(row, k, n, unit, room, target, axis, s, changed, line):
    """Set a line to n entries / unit where it is something else; widen the span of what has changed."""
    given, new, old, other = row[k : k + n], room[:n], target[axis, s : s + n], 0
    for i in range(n):
        new[i] = np.float32(given[i] * unit)
    for i in range(n):
        other += np.int32(new[i] != old[i])
    if other == 0:
        return
    first, last = 0, n
    while new[first] == old[first]:
        first += 1
    while new[last - 1] == old[last - 1]:
        last -= 1
    if changed[line, 0] < changed[line, 1]:
        changed[line, 0], changed[line, 1] = min(changed[line, 0], first), max(changed[line, 1], last)
    else:
        changed[line, 0], changed[line, 1] = first, last
    for i in range(n):
        old[i] = new[i]


@bare
def _put_lines(row, line, after, shape, unit, room, target, axis, changed):
    _, ny, nx = shape
    for k in range(line, after):
        s = row_start(shape, k // ny, k % ny)
        _put(row, (k - line) * nx, nx, unit, room, target, axis, s, changed, k)


@serial
def _level_faces(cells, shape, walls, scale, coefficients, unit, faces, outlets, leaks, changed, lo, hi):
    nx = shape[2]
    room, numbers = kinds_room(nx), np.empty((2, nx + SEGMENT), coefficients[2].dtype)
    whole, single = np.empty(nx + SEGMENT, coefficients[2].dtype), np.empty(nx, np.float32)
    found, line = np.zeros((3, 2)), lo
    while line < hi:
        after = segment_end(line, hi, shape)
        x0 = cells[line * nx : after * nx]
        row = whole[: x0.size]
        if faces.size > 0:
            changed[line:after] = 0
        for axis in range(3):
            low, high = kinds_beside(cells, room, shape, walls, axis, line, after)
            c0, c1 = segment_faces(coefficients[axis], numbers, shape, axis, line, after)
            step = coefficients[2].dtype.type(scale[axis])
            total, count = _lower(x0, low, c0, step, row)
            found[axis, 0] += total
            found[axis, 1] += count
            if faces.size == 0:
                continue
            _put_lines(row, line, after, shape, unit, single, faces, axis, changed)
            leak = _is_air(low) or _is_air(high)
            if leak or np.any(leaks[axis, line:after]):
                leaks[axis, line:after] = leak
                leaving(x0, low, high, c0, c1, step, row)
                _put_lines(row, line, after, shape, unit, single, outlets, axis, changed)
        line = after
    return found


def level_faces(
    cells: Tensor,
    walls: Tensor,
    scale: Sequence[float],
    coefficients: Sequence[Tensor],
    unit: float,
    faces: Tensor,
    outlets: Tensor,
    leaks: Tensor,
    changed: Tensor,
) -> Tensor:
    """Set couplings and outlets of the finest level; return sums and counts of the couplings."""
    kinds, shape, sides = cells.reshape(-1).numpy(), box(cells.shape), tuple(walls.tolist())
    c, steps, part = tuple(v.numpy() for v in coefficients), tuple(float(s) for s in scale), 1 / float(unit)
    room = faces.numpy(), outlets.numpy(), leaks.numpy(), changed.numpy()
    given = kinds, shape, sides, steps, c, part, *room
    found = over_lines(shape, 4 * kinds.size, lambda lo, hi: _level_faces(*given, lo, hi))
    return torch.from_numpy(np.sum(found, 0))
