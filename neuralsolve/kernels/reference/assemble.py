"""Stencils with face coefficients, from cells to couplings, plain torch: the definition.

Coefficients are a flat vector per axis z, y, x, of n_a + 1 faces along that axis; an empty one stands for
ones. Cells, walls and shapes are those of `neuralsolve.kernels.reference.stencil`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuralsolve.kernels.reference.stencil import FLUID, INSIDE, SOLID, neighbour_kinds

NON_FINITE, NEGATIVE, ZERO = 1, 2, 4


def faces_kinds(values: Tensor) -> int:
    """Tell what coefficients (m,) hold: the sum of 1 NaN or infinity, 2 a negative number, 4 a zero."""
    kinds = (~torch.isfinite(values)).any() * NON_FINITE + (values < 0).any() * NEGATIVE
    return int(kinds + (values == 0).any() * ZERO)


def _of_side(cells: Tensor, values: Tensor, axis: int, up: int, like: Tensor) -> Tensor:
    """Coefficients of the lower or upper faces of all cells along an axis, (nz, ny, nx)."""
    if values.numel() == 0:
        return torch.ones(cells.shape, dtype=like.dtype, device=cells.device)
    shape = [side + (a == axis) for a, side in enumerate(cells.shape)]
    return values.reshape(shape).narrow(axis, up, cells.shape[axis])


def faces_code(cells: Tensor, walls: Tensor, coefficients: Sequence[Tensor], out: Tensor) -> None:
    """Describe every cell's row as `stencil_code` does, a face of coefficient 0 being closed, (n,) uint16."""
    code = torch.full(cells.shape, INSIDE, dtype=torch.int32, device=cells.device)
    for side, wall in enumerate(walls.tolist()):
        axis, up = side // 2, side % 2
        shut = _of_side(cells, coefficients[axis], axis, up, torch.empty(0)) == 0
        around = neighbour_kinds(cells, axis, 2 * up - 1, wall).masked_fill(shut, SOLID)
        code += (around == FLUID).int() << side
        code += (around != SOLID).int() << (6 + 2 * axis)
    code[cells != FLUID] = 0
    out.copy_(code.reshape(-1))


def faces_assemble(
    cells: Tensor,
    walls: Tensor,
    scale: Sequence[float],
    coefficients: Sequence[Tensor],
    diagonal: Tensor,
    lower: Tensor,
) -> None:
    """Set the matrix of -div(c grad) on the fluid cells, as `faces_matvec` takes it.

    lower[a, i] = scale_a c_f of the face f towards the lower neighbour along a, where both are FLUID;
    diagonal_i = sum over the faces of a cell of scale_a c_f, but for those towards SOLID; 0 outside FLUID.

    Parameters
    ----------
    cells : (nz, ny, nx) uint8
    walls : (6,) int8
    scale : 3 floats
        1/h^2 along z, y, x.
    coefficients : 3 vectors
    diagonal, lower : (n,) and (3, n)
        Overwritten. The diagonal errs by at most 6 eps of itself, the couplings by eps.
    """
    inside, total = cells == FLUID, torch.zeros(cells.shape, dtype=diagonal.dtype, device=cells.device)
    for axis in range(3):
        for up in (0, 1):
            around = neighbour_kinds(cells, axis, 2 * up - 1, int(walls[2 * axis + up]))
            coupling = scale[axis] * _of_side(cells, coefficients[axis], axis, up, diagonal)
            total += torch.where(inside & (around != SOLID), coupling, 0.0)
            if not up:
                both = inside & (around == FLUID)
                lower[axis].copy_(torch.where(both, coupling, 0.0).reshape(-1))
    diagonal.copy_(total.reshape(-1))


def faces_outlets(
    cells: Tensor, walls: Tensor, axis: int, scale: float, coefficients: Tensor, out: Tensor
) -> None:
    """Set what leaves a fluid cell towards AIR along an axis: out_i = sum of scale c_f over such faces, (n,).

    `coefficients` are those of the axis, `scale` its 1/h^2.
    """
    total = torch.zeros(cells.shape, dtype=out.dtype, device=cells.device)
    for up in (0, 1):
        around = neighbour_kinds(cells, axis, 2 * up - 1, int(walls[2 * axis + up]))
        leaves = (cells == FLUID) & (around != FLUID) & (around != SOLID)
        total += torch.where(leaves, scale * _of_side(cells, coefficients, axis, up, out), 0.0)
    out.copy_(total.reshape(-1))
