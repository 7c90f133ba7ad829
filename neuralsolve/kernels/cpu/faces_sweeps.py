"""SOR sweeps over the cells of a grid, numba. Definitions: `neuralsolve.kernels.reference.sweeps`.

A coupling of zero drops its neighbour, whatever the neighbour's value.
"""

from __future__ import annotations

from collections.abc import Sequence

from numba import uint64
from torch import Tensor

from neuralsolve.kernels.cpu.faces import drawn
from neuralsolve.kernels.cpu.stencil import wrapped_offsets
from neuralsolve.kernels.cpu.threads import in_blocks, ordered, over_ranges
from neuralsolve.kernels.cpu.vector import numbers


@ordered
def _across(i, offsets, d, lower, b, x):
    """b_i - diagonal_i x_i, and the neighbours along z and y."""
    zl, zh, yl, yh = offsets
    c, z, y = uint64(i), uint64(i + zh), uint64(i + yh)
    along_z = drawn(lower[0, c], x[uint64(i + zl)]) + drawn(lower[0, z], x[z])
    along_y = drawn(lower[1, c], x[uint64(i + yl)]) + drawn(lower[1, y], x[y])
    return (b[c] - d[c] * x[c]) + (along_z + along_y)


@ordered
def _sor(d, lower, shape, omega, b, x, reverse, box):
    """Cells z0..z1, y0..y1, x0..x1 = box in C order, or from the last to the first."""
    nz, ny, nx = shape
    z0, z1, y0, y1, x0, x1 = box
    step = -1 if reverse else 1
    for line in range((z1 - z0) * (y1 - y0)):
        q = (z1 - z0) * (y1 - y0) - 1 - line if reverse else line
        z, y = z0 + q // (y1 - y0), y0 + q % (y1 - y0)
        zl, zh = wrapped_offsets(z, nz, ny * nx)
        yl, yh = wrapped_offsets(y, ny, nx)
        start = (z * ny + y) * nx
        column = x1 - 1 if reverse else x0
        before = column - step
        # The cell visited last stays in a register and enters last: a line advances by one multiplication and
        # one addition per cell.
        fresh = x[uint64(start + before % nx)]
        for _ in range(x1 - x0):
            i, after = start + column, column + step
            after = start + (0 if after == nx else (nx - 1 if after < 0 else after))
            before = start + (column - step) % nx if column == 0 or column == nx - 1 else i - step
            behind, ahead = uint64(before if reverse else i), uint64(i if reverse else after)
            c = uint64(i)
            if d[c] != 0:
                rest = _across(i, (zl, zh, yl, yh), d, lower, b, x)
                rest += drawn(lower[2, ahead], x[uint64(after)])
                scale = omega / d[c]
                fresh = (x[c] + scale * rest) + drawn(scale * lower[2, behind], fresh)
                x[c] = fresh
            column += step


@ordered
def _color(d, lower, shape, omega, b, x, color, lo, hi):
    """Cells of one colour in the lines that start among the cells lo..hi."""
    nz, ny, nx = shape
    for line in range(-(-lo // nx), -(-hi // nx)):
        z, y = line // ny, line % ny
        zl, zh = wrapped_offsets(z, nz, ny * nx)
        yl, yh = wrapped_offsets(y, ny, nx)
        for column in range((z + y + color) % 2, nx, 2):
            i = line * nx + column
            c = uint64(i)
            if d[c] != 0:
                xl, xh = wrapped_offsets(column, nx, 1)
                right = uint64(i + xh)
                rest = _across(i, (zl, zh, yl, yh), d, lower, b, x)
                rest += drawn(lower[2, c], x[uint64(i + xl)]) + drawn(lower[2, right], x[right])
                x[c] += omega / d[c] * rest


@ordered
def _sor_columns(d, lower, shape, omega, b, x, reverse, box):
    """Line by line, so that the couplings of a line stay in cache for all columns."""
    z0, z1, y0, y1, x0, x1 = box
    lines = (z1 - z0) * (y1 - y0)
    for line in range(lines):
        q = lines - 1 - line if reverse else line
        z, y = z0 + q // (y1 - y0), y0 + q % (y1 - y0)
        for j in range(x.shape[1]):
            _sor(d, lower, shape, omega, b[:, j], x[:, j], reverse, (z, z + 1, y, y + 1, x0, x1))


@ordered
def _color_columns(d, lower, shape, omega, b, x, color, lo, hi):
    for start in range(lo, hi, shape[2]):
        for j in range(x.shape[1]):
            _color(d, lower, shape, omega, b[:, j], x[:, j], color, start, min(start + shape[2], hi))


def faces_sor_sweep(
    diagonal: Tensor,
    lower: Tensor,
    shape: Sequence[int],
    omega: float,
    b: Tensor,
    x: Tensor,
    reverse: bool,
) -> None:
    """Sweep once over all cells in C order, in place; from the last to the first if `reverse`."""
    box, factor, backwards = tuple(map(int, shape)), float(omega), bool(reverse)
    d, couplings, B, X = diagonal.numpy(), lower.numpy(), numbers(b), numbers(x)
    kernel = _sor if X.ndim == 1 else _sor_columns
    in_blocks(box, lambda block: kernel(d, couplings, box, factor, B, X, backwards, block), backwards)


def faces_redblack_sweep(
    diagonal: Tensor,
    lower: Tensor,
    shape: Sequence[int],
    omega: float,
    b: Tensor,
    x: Tensor,
    reverse: bool,
) -> None:
    """Sweep once over the red cells, z + y + x even, then over the black ones; black first if `reverse`."""
    box, factor = tuple(map(int, shape)), float(omega)
    d, couplings, B, X = diagonal.numpy(), lower.numpy(), numbers(b), numbers(x)
    kernel = _color if X.ndim == 1 else _color_columns
    for c in (1, 0) if reverse else (0, 1):
        over_ranges(
            len(X), lambda lo, hi, c=c: kernel(d, couplings, box, factor, B, X, c, lo, hi), entries=X.size
        )
