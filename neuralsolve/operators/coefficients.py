"""Face coefficients of a grid: made from cell values, checked, and the cells on both sides of a face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from neuralsolve.errors import NonFiniteError, ShapeError, StructureError
from neuralsolve.kernels import table
from neuralsolve.kernels.reference.assemble import NEGATIVE, NON_FINITE, ZERO
from neuralsolve.operators.grid import AIR, SOLID, Grid
from neuralsolve.operators.vectors import shared

GHOST = {"neumann": SOLID, "dirichlet": AIR}


def face_coefficients(values: Any, grid: Grid) -> tuple[Tensor, ...]:
    """Return the harmonic means of cell coefficients on all faces, for `PoissonStencil(grid, coefficients)`.

    Parameters
    ----------
    values : tensor or array of the grid's shape, positive; a gradient passes through
        A wall face takes the value of its cell.
    grid : Grid

    Raises
    ------
    ShapeError, StructureError
    """
    values = torch.as_tensor(values)
    if tuple(values.shape) != grid.shape:
        msg = f"cell coefficients are {tuple(values.shape)}; the grid is {grid.shape}"
        raise ShapeError(msg)
    bad = ~((values.detach() > 0) & torch.isfinite(values.detach()))
    if bool(bad.any()):
        where = tuple(int(i) for i in bad.nonzero()[0])
        msg = (
            f"cell coefficients must be positive and finite, cell {where} holds "
            f"{float(values[where].detach())}; close single faces with coefficients of 0 in "
            "ns.PoissonStencil(grid, faces)"
        )
        raise StructureError(msg)
    faces = []
    for axis in range(values.ndim):
        ends = (-1, 0) if grid.periodic[axis] else (0, -1)
        padded = torch.cat([values.select(axis, i).unsqueeze(axis) for i in ends[:1]] + [values], axis)
        padded = torch.cat([padded, values.select(axis, ends[1]).unsqueeze(axis)], axis)
        n = grid.shape[axis] + 1
        low, high = padded.narrow(axis, 0, n), padded.narrow(axis, 1, n)
        faces.append(2 / (1 / low + 1 / high))
    return tuple(faces)


def with_ghosts(v: Tensor, grid: Grid, axis: int, beyond: int | tuple[int, int]) -> Tensor:
    """Return v with one layer of cells beyond each wall along `axis`: wrapped, or filled with `beyond`."""
    if grid.periodic[axis]:
        n = grid.shape[axis]
        return torch.cat([v.narrow(axis, n - 1, 1), v, v.narrow(axis, 0, 1)], axis)
    low, high = (beyond, beyond) if isinstance(beyond, int) else beyond
    width = [0, 0] * (v.ndim - axis - 1)
    return pad(pad(v, (*width, 1, 0), value=low), (*width, 0, 1), value=high)


def face_sides(cells: Tensor, grid: Grid, axis: int) -> tuple[Tensor, Tensor]:
    """Return the flags of the cells on the low and high side of every face along `axis`."""
    beyond = (GHOST.get(grid.walls[axis][0], 0), GHOST.get(grid.walls[axis][1], 0))
    padded = with_ghosts(cells, grid, axis, beyond)
    faces = grid.shape[axis] + 1
    return padded.narrow(axis, 0, faces), padded.narrow(axis, 1, faces)


def check_faces(coefficients: Sequence[Any], grid: Grid) -> tuple[tuple[Tensor, ...], bool]:
    """Return the coefficients as tensors of floating point, and whether one of them is zero."""
    needed = [tuple(s + (a == axis) for a, s in enumerate(grid.shape)) for axis in range(len(grid.shape))]
    if not isinstance(coefficients, Sequence) or isinstance(coefficients, str):
        msg = (
            f"face coefficients are a {type(coefficients).__name__}; one array per axis is needed, of shapes "
            f"{needed}: ns.face_coefficients(cell_values, grid) makes them from cell values"
        )
        raise ShapeError(msg)
    faces = tuple(c if isinstance(c, Tensor) else shared(np.asarray(c)) for c in coefficients)
    if [tuple(c.shape) for c in faces] != needed:
        given = [tuple(c.shape) for c in faces]
        msg = (
            f"face coefficients have shapes {given}; a grid of {grid.shape} needs {needed}, n + 1 faces "
            "along each axis; ns.face_coefficients(cell_values, grid) makes them from cell values"
        )
        raise ShapeError(msg)
    if any(c.is_complex() for c in faces):
        msg = "face coefficients are complex; real numbers >= 0 are needed"
        raise StructureError(msg)
    faces = tuple(c if c.dtype in (torch.float32, torch.float64) else c.double() for c in faces)
    closed = False
    for axis, c in enumerate(faces):
        values = c.detach()
        kinds = table(values.device).faces_kinds(_distinct(values))
        closed |= bool(kinds & ZERO)
        if kinds & NON_FINITE:
            msg = f"face coefficients along axis {axis} hold NaN or infinite values"
            raise NonFiniteError(msg)
        if kinds & NEGATIVE:
            msg = (
                f"face coefficients along axis {axis} fall to {float(values.min())}; they must be >= 0 (0: "
                "closed)"
            )
            raise StructureError(msg)
        if grid.periodic[axis] and not torch.equal(values.select(axis, 0), values.select(axis, -1)):
            msg = (
                f"axis {axis} is periodic: its first and last faces are the same face, and their values "
                "differ"
            )
            raise StructureError(msg)
    return faces, closed


def _distinct(values: Tensor) -> Tensor:
    """Return the numbers that a tensor holds, each once where it was expanded, as a flat vector."""
    once = [slice(0, 1) if stride == 0 else slice(None) for stride in values.stride()]
    return values[tuple(once)].contiguous().reshape(-1)
