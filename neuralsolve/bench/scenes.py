"""Random scenes and coefficients of the kind on which solvers are compared."""

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


def inclusions(
    shape: tuple[int, ...], generator: np.random.Generator, contrast: float, count: int = 12
) -> np.ndarray:
    """Return cell coefficients: 1, and `contrast` in balls and boxes of a unit box, half of each.

    Centres are uniform in the box, radii (half the sides of a box) uniform in [0.03, 0.15]; they may overlap.
    """
    axes = [(np.arange(side) + 0.5) / side for side in shape]
    points = np.meshgrid(*axes, indexing="ij", sparse=True)
    values = np.ones(shape)
    for k in range(count):
        center, radius = generator.random(len(shape)), generator.uniform(0.03, 0.15)
        away = [abs(p - c) for p, c in zip(points, center, strict=True)]
        inside: Any = sum(d**2 for d in away) <= radius**2
        if k % 2:
            inside = np.logical_and.reduce(np.broadcast_arrays(*(d <= radius for d in away)))
        values[np.broadcast_to(inside, shape)] = contrast
    return values


def two_phase(
    shape: tuple[int, ...], generator: np.random.Generator, low: float = 3.0, high: float = 12.0
) -> np.ndarray:
    """Return cell coefficients of Darcy flow: `high` where a smooth Gaussian field is >= 0, else `low`.

    The field has covariance (-Laplace + 9)^-2 with Neumann walls on a unit box: cosines of wave number k with
    independent amplitudes of deviation 1/(pi^2 |k|^2 + 9), no constant part (Li et al. 2021, sec. A.3.2).
    """
    from scipy.fft import idctn

    square: Any = sum(k.astype(float) ** 2 for k in np.ogrid[tuple(slice(side) for side in shape)])
    amplitude = generator.standard_normal(shape) / (np.pi**2 * square + 9)
    amplitude.flat[0] = 0.0
    field: Any = idctn(amplitude, norm="ortho")
    return np.where(field >= 0, high, low)
