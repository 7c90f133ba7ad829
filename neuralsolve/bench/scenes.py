"""Random scenes of the kind on which solvers for free-surface flow are compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuralsolve.operators.grid import AIR, FLUID, SOLID, Grid


def free_surface(shape: tuple[int, ...], generator: np.random.Generator) -> Grid:
    """Return a unit box with Neumann walls, air above a wave, and four solid balls; unit spacing.

    The surface stands at 0.75 + 0.08 sin(2 pi (k y + phase)) along axis 0, with 0.05 sin(2 pi z) more in 3D,
    k one of 1, 2, 3; balls have centres uniform in [0.1, 0.9]^d and radii uniform in [0.05, 0.15]. Only the
    largest connected body of fluid is kept, the rest becomes solid.

    Parameters
    ----------
    shape : (n0, n1) or (n0, n1, n2)
    generator : numpy.random.Generator
    """
    from scipy.ndimage import label

    axes = [(np.arange(side) + 0.5) / side for side in shape]
    points = np.meshgrid(*axes, indexing="ij", sparse=True)
    waves, phase = int(generator.integers(1, 4)), generator.random()
    surface = 0.75 + 0.08 * np.sin(2 * np.pi * (waves * points[1] + phase))
    if len(shape) == 3:
        surface = surface + 0.05 * np.sin(2 * np.pi * points[2])
    cells = np.where(points[0] > surface, AIR, FLUID).astype(np.uint8)
    for _ in range(4):
        center, radius = generator.uniform(0.1, 0.9, len(shape)), generator.uniform(0.05, 0.15)
        square = sum((p - c) ** 2 for p, c in zip(points, center, strict=True))
        cells[np.broadcast_to(square <= radius**2, shape)] = SOLID
    bodies: Any
    bodies, count = label(cells == FLUID)  # type: ignore[misc]
    sizes = np.bincount(bodies.ravel(), minlength=count + 1)[1:]
    cells[(bodies != 0) & (bodies != 1 + sizes.argmax())] = SOLID
    return Grid(cells, spacing=1.0, walls="neumann")
