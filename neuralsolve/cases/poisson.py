"""The grid, the coefficients and the right side of a ``kind = "poisson"`` case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralsolve.cases.files import referenced_file
from neuralsolve.cases.problem import Problem, source_and_reference
from neuralsolve.errors import ShapeError
from neuralsolve.io.files import broken
from neuralsolve.io.vectors import read_array
from neuralsolve.operators.coefficients import face_coefficients
from neuralsolve.operators.grid import AIR, FLUID, SOLID, Grid
from neuralsolve.operators.stencil import PoissonStencil

if TYPE_CHECKING:
    from neuralsolve.cases.schema import PoissonCase


def poisson_problem(case: PoissonCase) -> Problem:
    """Return A, b and, where the case names a solution, that solution."""
    shape = tuple(case.shape)
    spacing = case.spacing or 1 / shape[-1]
    steps = spacing if isinstance(spacing, list) else [float(spacing)] * len(shape)
    if len(steps) != len(shape):
        msg = f"{case.path}: {len(steps)} spacings on {len(shape)} axes; give one number, or one per axis"
        raise ShapeError(msg)
    axes = [(np.arange(side) + 0.5) * step for side, step in zip(shape, steps, strict=True)]
    points = np.meshgrid(*axes, indexing="ij", sparse=True)
    cells = np.full(shape, FLUID, dtype=np.uint8)
    if case.surface is not None:
        level = case.surface
        wave = np.sin(2 * np.pi * (level.waves * points[-1] + level.phase))
        cells[np.broadcast_to(points[0] > level.height + level.amplitude * wave, shape)] = AIR
    for table in case.obstacles:
        cells[_inside(case, table, points, shape)] = SOLID
    grid = Grid(cells, spacing=tuple(steps), walls=case.walls)
    coefficients = None
    if case.inclusions:
        values = np.ones(shape)
        for table in case.inclusions:
            values[_inside(case, table, points, shape)] = table.coefficient
        coefficients = face_coefficients(values, grid)
    A = PoissonStencil(grid, coefficients)
    b, reference = source_and_reference(case, A, grid)
    options = case.solve.model_dump(exclude_defaults=True)
    return Problem(case.path.stem, A, b, reference, grid=grid, options=options)


def _inside(
    case: PoissonCase, table: Any, points: Sequence[np.ndarray], shape: tuple[int, ...]
) -> np.ndarray:
    """Return which cell centres lie in a shape."""
    if table.shape == "ball":
        square = sum((p - c) ** 2 for p, c in zip(points, table.center, strict=True))
        return np.broadcast_to(square <= table.radius**2, shape)
    if table.shape == "box":
        inside = np.ones(shape, dtype=bool)
        for p, low, high in zip(points, table.low, table.high, strict=True):
            inside &= (p >= low) & (p <= high)
        return inside
    if table.shape == "bunny":
        from neuralsolve.pde.shapes import obstacle

        solid = obstacle("bunny", shape, center=table.center, size=table.height, source=table.origin)
        return solid.numpy()
    return _voxels(case, table, shape)


def _voxels(case: PoissonCase, table: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return the nearest voxel of every cell; the voxel block spans the whole grid."""
    path = referenced_file(case.path, table.file)
    voxels = read_array(path, table.key)
    if table.packed is not None:
        count = int(np.prod(table.packed))
        if voxels.dtype != np.uint8 or 8 * voxels.size < count:
            raise broken(path, f"{voxels.size} values of {voxels.dtype}", f"{count} voxels packed into bytes")
        voxels = np.unpackbits(voxels.ravel())[:count].reshape(table.packed)
    if voxels.ndim != len(shape):
        raise broken(
            path, f"voxels of shape {voxels.shape}", f"{len(shape)} axes (packed = [...] for packed bits)"
        )
    nearest = [np.minimum(np.arange(n) * m // n, m - 1) for n, m in zip(shape, voxels.shape, strict=True)]
    return voxels[np.ix_(*nearest)] != 0
