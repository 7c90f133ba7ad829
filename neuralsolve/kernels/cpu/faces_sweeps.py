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
def _relax_columns(i, neighbours, d, lower, omega, b, x):
    """One cell for x (n, k)."""
    zl, zh, yl, yh, xl, xh = neighbours
    if d[i] == 0:
        return
    scale = omega / d[i]
    c0, c1, c2, c3 = lower[0, i], lower[0, i + zh], lower[1, i], lower[1, i + yh]
    c4, c5 = lower[2, i], lower[2, i + xh]
    for j in range(x.shape[1]):
        rest = b[i, j] - d[i] * x[i, j]
        rest += drawn(c0, x[i + zl, j]) + drawn(c1, x[i + zh, j])
        rest += drawn(c2, x[i + yl, j]) + drawn(c3, x[i + yh, j])
        rest += drawn(c4, x[i + xl, j]) + drawn(c5, x[i + xh, j])
        x[i, j] += scale * rest


@ordered
def _neighbours(i, shape):
    nz, ny, nx = shape
    zl, zh = wrapped_offsets(i // (nx * ny), nz, ny * nx)
    yl, yh = wrapped_offsets(i // nx % ny, ny, nx)
    xl, xh = wrapped_offsets(i % nx, nx, 1)
    return zl, zh, yl, yh, xl, xh


@ordered
def _sor_columns(d, lower, shape, omega, b, x, reverse, box):
    _, ny, nx = shape
    z0, z1, y0, y1, x0, x1 = box
    depth, height, width = z1 - z0, y1 - y0, x1 - x0
    cells = depth * height * width
    for visit in range(cells):
        q = cells - 1 - visit if reverse else visit
        z, y, column = z0 + q // (height * width), y0 + q // width % height, x0 + q % width
        i = (z * ny + y) * nx + column
        _relax_columns(i, _neighbours(i, shape), d, lower, omega, b, x)


@ordered
def _color_columns(d, lower, shape, omega, b, x, color, lo, hi):
    _, ny, nx = shape
    for i in range(lo, hi):
        if (i // (nx * ny) + i // nx % ny + i % nx) % 2 == color:
            _relax_columns(i, _neighbours(i, shape), d, lower, omega, b, x)


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
    kernel = _sor if x.ndim == 1 else _sor_columns
    box, factor, backwards = tuple(map(int, shape)), float(omega), bool(reverse)
    d, couplings, B, X = diagonal.numpy(), lower.numpy(), b.numpy(), x.numpy()
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
    kernel = _color if x.ndim == 1 else _color_columns
    box, factor = tuple(map(int, shape)), float(omega)
    d, couplings, B, X = diagonal.numpy(), lower.numpy(), b.numpy(), x.numpy()
    for c in (1, 0) if reverse else (0, 1):
        over_ranges(len(X), lambda lo, hi, c=c: kernel(d, couplings, box, factor, B, X, c, lo, hi))
