"""A box of cells, each FLUID, SOLID or AIR, and what lies beyond its walls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError, StructureError, nearest

FLUID, SOLID, AIR = 0, 1, 2
WALLS = ("neumann", "dirichlet", "periodic")

Walls = str | Sequence[str | Sequence[str]]


class Grid:
    """Cells of a uniform box grid in 2D or 3D.

    Parameters
    ----------
    cells : (ny, nx) or (nz, ny, nx) integers, FLUID (0), SOLID (1) or AIR (2); NumPy or torch
        A plain shape such as ``(128, 128)`` stands for a box full of fluid.
    spacing : float or one float per axis
        Edge length of a cell, in the caller's unit of length.
    walls : "neumann", "dirichlet" or "periodic"; or one per axis; or a pair (low, high) per axis
        Beyond a Neumann wall lies SOLID (no flux), beyond a Dirichlet wall AIR (value zero in the ghost
        cell). Axes run as in `cells`: z, y, x.

    Raises
    ------
    ShapeError, StructureError, OptionError, NonFiniteError

    Examples
    --------
    >>> grid = Grid((4, 8), spacing=1 / 8, walls=("periodic", ("neumann", "dirichlet")))
    >>> grid.shape, grid.walls
    ((4, 8), (('periodic', 'periodic'), ('neumann', 'dirichlet')))
    """

    def __init__(self, cells: object, spacing: float | Sequence[float] = 1.0, walls: Walls = "neumann"):
        self.cells = _cells(cells)
        self.shape = tuple(self.cells.shape)
        self.spacing = _spacing(spacing, self.cells.ndim)
        self.walls = _walls(walls, self.cells.ndim)

    @property
    def size(self) -> int:
        """Number of cells, fluid or not."""
        return self.cells.numel()

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Per axis, whether the box closes on itself."""
        return tuple(low == "periodic" for low, _ in self.walls)

    @property
    def fluid(self) -> Tensor:
        """Mask of the fluid cells, of the grid's shape."""
        return torch.from_numpy(self.cells.numpy() == FLUID)

    @property
    def is_box(self) -> bool:
        """Whether every cell is fluid."""
        return not self.cells.numpy().any()

    def __repr__(self) -> str:
        return f"Grid(shape={self.shape}, spacing={self.spacing}, walls={self.walls})"


def _cells(cells: object) -> Tensor:
    if isinstance(cells, Sequence) and all(isinstance(side, int | np.integer) for side in cells):
        if len(cells) not in (2, 3) or min(cells) < 1:
            msg = f"a grid shape must be (ny, nx) or (nz, ny, nx) of positive integers; given {tuple(cells)}"
            raise ShapeError(msg)
        return torch.zeros(tuple(int(side) for side in cells), dtype=torch.uint8)
    try:
        flags = np.asarray(cells.detach().cpu() if isinstance(cells, Tensor) else cells)
    except ValueError as ragged:
        msg = f"cells make no grid ({ragged}); integers of shape (ny, nx) or (nz, ny, nx) are needed"
        raise ShapeError(msg) from None
    if flags.ndim not in (2, 3) or flags.size == 0:
        msg = (
            f"cells must be integers of shape (ny, nx) or (nz, ny, nx), not empty, or a shape of positive "
            f"integers; given {cells!r:.60} of shape {flags.shape}"
        )
        raise ShapeError(msg)
    if flags.dtype.kind not in "iu":
        msg = (
            f"cells must be integers FLUID (0), SOLID (1) or AIR (2), given {flags.dtype}; "
            "from a mask of solids: np.where(solid, ns.SOLID, ns.FLUID)"
        )
        raise StructureError(msg)
    if int(flags.min()) < 0 or int(flags.max()) > AIR:
        msg = (
            f"cells hold values from {int(flags.min())} to {int(flags.max())}; only FLUID 0, SOLID 1, AIR 2 "
            "exist"
        )
        raise StructureError(msg)
    return torch.from_numpy(flags.astype(np.uint8, order="C"))


def _spacing(spacing: float | Sequence[float], ndim: int) -> tuple[float, ...]:
    try:
        per_axis = tuple(np.asarray(spacing, np.float64).ravel().tolist())
    except (TypeError, ValueError):
        msg = f"spacing is {spacing!r}; a positive number is needed, or one per axis"
        raise StructureError(msg) from None
    per_axis = per_axis * ndim if len(per_axis) == 1 else per_axis
    if len(per_axis) != ndim:
        msg = (
            f"spacing has {len(per_axis)} entries for a grid of {ndim} axes; pass one number, or one per axis"
        )
        raise ShapeError(msg)
    if not all(1e-150 < h < 1e150 for h in per_axis):  # 1/h^2 must be a number; NaN is none
        msg = f"spacing must be positive and finite (so must 1/spacing^2), given {spacing}"
        raise NonFiniteError(msg)
    return per_axis


def _walls(walls: Walls, ndim: int) -> tuple[tuple[str, str], ...]:
    per_axis = tuple(walls) if _is_list(walls) else (walls,) * ndim
    if len(per_axis) != ndim:
        msg = (
            f"walls has {len(per_axis)} entries for a grid of {ndim} axes; pass one word, or one entry per "
            "axis"
        )
        raise ShapeError(msg)
    pairs = []
    for axis, entry in enumerate(per_axis):
        pair = tuple(entry) if _is_list(entry) else (entry, entry)
        if len(pair) != 2:
            msg = f"walls of axis {axis} are {entry!r}; give one word or a pair (low, high)"
            raise ShapeError(msg)
        for word in pair:
            if word not in WALLS:
                msg = f"unknown wall {word!r}{nearest(str(word), WALLS)}"
                raise OptionError(msg)
        if (pair[0] == "periodic") != (pair[1] == "periodic"):
            msg = f"walls of axis {axis} are {pair}: a periodic axis is periodic on both sides"
            raise StructureError(msg)
        pairs.append(pair)
    return tuple(pairs)


def _is_list(entry: object) -> TypeGuard[Sequence]:
    return isinstance(entry, Sequence) and not isinstance(entry, str)
