"""Matrix-free 5- and 7-point stencils, plain torch: the definition.

Grids are 3-D, shape (nz, ny, nx) flattened in C order; a 2-D grid has nz = 1. Axes are counted z, y, x =
0, 1, 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuralsolve.kernels.reference.vector import dot

FLUID, SOLID, AIR = 0, 1, 2
NEUMANN, DIRICHLET, PERIODIC = 0, 1, 2
INSIDE = 1 << 12  # the bit of a stencil code that marks a FLUID cell


def neighbour_kinds(cells: Tensor, axis: int, step: int, wall: int) -> Tensor:
    """Types of the neighbours at step -1 or +1 along an axis; beyond the box, what its wall stands for."""
    if wall == PERIODIC and cells.shape[axis] > 1:
        return cells.roll(-step, axis)
    beyond = (
        AIR if wall == DIRICHLET else SOLID
    )  # a cell is no neighbour of itself: a periodic side of 1 is closed
    around = cells.roll(-step, axis)
    around.select(axis, 0 if step < 0 else -1).fill_(beyond)
    return around


def stencil_code(cells: Tensor, walls: Tensor, out: Tensor) -> None:
    """Describe every cell's row of the graph Laplacian in 16 bits.

    Parameters
    ----------
    cells : (nz, ny, nx) uint8
        0 FLUID, 1 SOLID, 2 AIR.
    walls : (6,) int8
        z-, z+, y-, y+, x-, x+: 0 Neumann, 1 Dirichlet (AIR beyond the box), 2 periodic (both sides of
        the axis).
    out : (n,) uint16
        Bits 0..5: the neighbour z-, z+, y-, y+, x-, x+ is FLUID. Bits 6-7, 8-9, 10-11: open faces along
        z, y, x (towards FLUID or AIR). Bit 12: the cell itself is FLUID. 0 for a cell that is not.

    Notes
    -----
    A periodic side of 2 counts its one neighbour twice; along a periodic side of 1 a cell would be its own
    neighbour, whose difference is zero: no bit, no open face.
    """
    code = torch.full(cells.shape, INSIDE, dtype=torch.int32, device=cells.device)
    for side, wall in enumerate(walls.tolist()):
        axis, step = side // 2, 2 * (side % 2) - 1
        around = neighbour_kinds(cells, axis, step, wall)
        code += (around == FLUID).int() << side
        code += (around != SOLID).int() << (6 + 2 * axis)
    code[cells != FLUID] = 0
    out.copy_(code.reshape(-1))


def stencil_matvec(
    code: Tensor, scale: Sequence[float], shape: Sequence[int], x: Tensor, out: Tensor
) -> None:
    """Apply the scaled graph Laplacian of the fluid cells, minus the discrete Laplacian.

    y_i = sum_a scale_a (open_a(i) x_i - sum of x over its fluid neighbours along a), 0 outside FLUID.

    Parameters
    ----------
    code : (n,) or (n, k) uint16
        From `stencil_code`; (n, k) beside x (n, k) where every column is a system of its own.
    scale : 3 floats
        1/h^2 along z, y, x.
    shape : (nz, ny, nx)
    x, out : (n,) or (n, k)
        x outside FLUID is never used, whatever it is; out is overwritten.

    Notes
    -----
    Row i errs by at most about 8 eps sum_a scale_a (open_a |x_i| + sum |x_j|).
    """
    box = (*shape, *x.shape[1:])
    bits = code.to(torch.int32).reshape(*shape, *([1] * (x.ndim - 1) if code.ndim == 1 else code.shape[1:]))
    inside = (bits & INSIDE) != 0
    u = torch.where(inside, x.reshape(box), 0.0)
    y = torch.zeros_like(u)
    for axis in range(3):
        difference = ((bits >> (6 + 2 * axis)) & 3) * u
        for side, step in ((2 * axis, 1), (2 * axis + 1, -1)):
            difference = difference - torch.where((bits >> side) & 1 != 0, u.roll(step, axis), 0.0)
        y += scale[axis] * difference
    out.copy_(torch.where(inside, y, 0.0).reshape(x.shape))


def stencil_matvec_dot(
    code: Tensor, scale: Sequence[float], shape: Sequence[int], x: Tensor, out: Tensor
) -> Tensor:
    """`stencil_matvec`, and the inner product x.out over the fluid cells, () or (k,)."""
    stencil_matvec(code, scale, shape, x, out)
    inside = (code.to(torch.int32) & INSIDE) != 0
    return _dot_inside(inside, x, out)


def _dot_inside(inside: Tensor, x: Tensor, out: Tensor) -> Tensor:
    return dot(torch.where(inside if inside.ndim == x.ndim else inside[:, None], x, 0.0), out)


def stencil_direction_dot(
    code: Tensor,
    scale: Sequence[float],
    shape: Sequence[int],
    z: Tensor,
    beta: Tensor,
    p: Tensor,
    out_p: Tensor,
    Ap: Tensor,
) -> Tensor:
    """Take the next direction of conjugate gradients, and its product with the stencil.

    Parameters
    ----------
    code, scale, shape
        See `stencil_matvec`.
    z, p : (n,) or (n, k)
        Preconditioned residual, and the direction before.
    beta : () for (n,), () or (k,) for (n, k)
    out_p, Ap : (n,) or (n, k)
        Set to z + beta p, on all cells, and to A out_p; neither shares memory with z or p.

    Returns
    -------
    () or (k,)
        out_p.Ap over the fluid cells: the curvature (Saad 2003, alg. 6.18).
    """
    out_p.copy_(z + beta * p)
    return stencil_matvec_dot(code, scale, shape, out_p, Ap)


def faces_matvec(diagonal: Tensor, lower: Tensor, shape: Sequence[int], x: Tensor, out: Tensor) -> None:
    """Apply a symmetric 5- or 7-point matrix with variable couplings.

    y_i = diagonal_i x_i - sum_a (lower[a, i] x_{i - e_a} + lower[a, i + e_a] x_{i + e_a}); indices wrap.

    Parameters
    ----------
    diagonal : (n,)
        0 marks a cell outside: y = 0 there and x is never used.
    lower : (3, n)
        Coupling >= 0 of a cell with its lower neighbour along z, y, x: for the first cell of a line the
        one with the line's last cell (periodic), 0 where there is none.
    shape : (nz, ny, nx)
    x, out : (n,) or (n, k)
        out is overwritten.
    """
    box = (*shape, *x.shape[1:])
    column = (*shape, *[1] * (x.ndim - 1))
    d = diagonal.reshape(column)
    u = torch.where(d != 0, x.reshape(box), 0.0)
    y = d * u
    for axis in range(3):
        coupling = lower[axis].reshape(column)
        y = y - torch.where(coupling != 0, coupling * u.roll(1, axis), 0.0)
        above = coupling.roll(-1, axis)
        y = y - torch.where(above != 0, above * u.roll(-1, axis), 0.0)
    out.copy_(torch.where(d != 0, y, 0.0).reshape(x.shape))


def faces_matvec_dot(diagonal: Tensor, lower: Tensor, shape: Sequence[int], x: Tensor, out: Tensor) -> Tensor:
    """`faces_matvec`, and the inner product x.out over the cells inside, () or (k,)."""
    faces_matvec(diagonal, lower, shape, x, out)
    return _dot_inside(diagonal != 0, x, out)


def faces_direction_dot(
    diagonal: Tensor,
    lower: Tensor,
    shape: Sequence[int],
    z: Tensor,
    beta: Tensor,
    p: Tensor,
    out_p: Tensor,
    Ap: Tensor,
) -> Tensor:
    """`stencil_direction_dot` with the matrix of `faces_matvec`."""
    out_p.copy_(z + beta * p)
    return faces_matvec_dot(diagonal, lower, shape, out_p, Ap)
