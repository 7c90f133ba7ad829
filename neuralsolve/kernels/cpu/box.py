"""Compares a CSR matrix with the stencil of a box, numba. Definition: `neuralsolve.kernels.reference.box`.

The cells inside a line of the box have the same row: the same steps to their neighbours, the same values. It
is made once per line, and once for each end of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import uint64
from torch import Tensor

from neuralsolve.kernels.cpu.threads import over_ranges, serial


@serial
def _insert(count, steps, expected, slack, step, value, rounding):
    """Put an entry where it belongs among the `count` that are there, by step; return their new number."""
    q = count
    while q > 0 and steps[q - 1] > step:
        steps[q], expected[q], slack[q] = steps[q - 1], expected[q - 1], slack[q - 1]
        q -= 1
    steps[q], expected[q], slack[q] = step, value, rounding
    return count + 1


@serial
def _stencil_row(cell, shape, coupling, ends, periodic, centre, rounding, steps, expected, slack):
    """Fill in the row of a cell, by column: steps, values, tolerances; return their number."""
    diagonal = centre
    count, stride = 0, 1
    for a in (2, 1, 0):
        if shape[a] > 1:
            around, tolerance = stride * (shape[a] - 1), rounding * abs(coupling[a])
            for at_wall, step in ((cell[a] == 0, -stride), (cell[a] == shape[a] - 1, stride)):
                if not at_wall:
                    count = _insert(count, steps, expected, slack, step, -coupling[a], tolerance)
                elif periodic[a]:
                    back = around if step < 0 else -around
                    count = _insert(count, steps, expected, slack, back, -coupling[a], tolerance)
        if cell[a] == 0:
            diagonal += ends[a, 0]
        if cell[a] == shape[a] - 1:
            diagonal += ends[a, 1]
        stride *= shape[a]
    tolerance = rounding * (abs(centre) + np.sum(np.abs(ends)))
    return _insert(count, steps, expected, slack, 0, diagonal, tolerance)


@serial
def _same(indptr, indices, values, i, count, steps, expected, slack):
    """Whether the nonzeros of row i are the expected ones."""
    q = uint64(0)
    one = uint64(1)
    for p in range(uint64(indptr[i]), uint64(indptr[i + 1])):
        value = values[p]
        if value == 0:
            continue
        if q == count or indices[p] - i != steps[q] or not abs(value - expected[q]) <= slack[q]:
            return False
        q += one
    return True


@serial
def _lines(indptr, indices, values, shape, coupling, ends, periodic, centre, rounding, lo, hi):
    """First row that differs among the lines lo..hi (one z and y each), or -1."""
    _, ny, nx = shape
    steps, expected, slack = np.empty(7, np.int64), np.empty(7), np.empty(7)
    for line in range(lo, hi):
        x = 0
        while x < nx:
            cell = (line // ny, line % ny, x)
            row = steps, expected, slack
            count = _stencil_row(cell, shape, coupling, ends, periodic, centre, rounding, *row)
            alike = nx - 1 if 0 < x < nx - 1 else x + 1
            for i in range(line * nx + x, line * nx + alike):
                if not _same(indptr, indices, values, i, count, *row):
                    return i
            x = alike
    return -1


def csr_box_difference(
    indptr: Tensor,
    indices: Tensor,
    values: Tensor,
    shape: Sequence[int],
    coupling: Tensor,
    ends: Tensor,
    periodic: Tensor,
    centre: float,
    rounding: float,
) -> int:
    """Return a row in which a square CSR matrix differs from the box stencil, -1 where there is none."""
    matrix = indptr.numpy(), indices.numpy(), values.numpy()
    nz, ny, nx = (int(n) for n in shape)
    box = (nz, ny, nx), coupling.numpy(), ends.numpy(), periodic.numpy(), float(centre), float(rounding)
    rows = over_ranges(nz * ny, lambda lo, hi: _lines(*matrix, *box, lo, hi), entries=values.numel())
    return next((row for row in rows if row >= 0), -1)
