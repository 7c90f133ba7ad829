"""Random geometries, coefficients and right sides of pressure systems, to train, validate and measure on."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuralsolve.operators.coefficients import face_coefficients
from neuralsolve.operators.grid import AIR, FLUID, SOLID, Grid
from neuralsolve.operators.stencil import PoissonStencil


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


def varied(shape: tuple[int, ...], generator: np.random.Generator, contrast: float = 1e4) -> PoissonStencil:
    """Return the operator of `inclusions` in a box with Dirichlet walls."""
    grid = Grid(shape, walls="dirichlet")
    return PoissonStencil(grid, face_coefficients(inclusions(shape, generator, contrast), grid))


def layered(shape: tuple[int, ...], generator: np.random.Generator) -> PoissonStencil:
    """Return the operator of anisotropy of up to 100:1 that changes from place to place, Dirichlet walls.

    The angle of a smooth field turns the ratio of the couplings along the last two axes from 100:1 to 1:100;
    a stencil of 5 or 7 points has no couplings across.
    """
    grid = Grid(shape, walls="dirichlet")
    *_, y, x = np.meshgrid(*((np.arange(n) + 0.5) / n for n in shape), indexing="ij")
    k, phase = generator.integers(1, 4, 2), generator.uniform(0, 2 * np.pi, 2)
    turn = np.sin(2 * np.pi * k[0] * x + phase[0]) * np.sin(2 * np.pi * k[1] * y + phase[1])
    powers = [*[0.0 * turn] * (len(shape) - 2), turn, -turn]
    faces = [face_coefficients(10.0**power, grid)[axis] for axis, power in enumerate(powers)]
    return PoissonStencil(grid, tuple(faces))


def noise(A: PoissonStencil, generator: np.random.Generator) -> np.ndarray:
    """Return white noise on the fluid cells, ``(n,)``; its mean is not removed."""
    b = generator.standard_normal(A.shape[0])
    return b if A.active is None else np.where(A.active.numpy(), b, 0.0)


def smooth_divergence(A: PoissonStencil, generator: np.random.Generator, width: float = 0.05) -> np.ndarray:
    """Return the divergence of a random smooth velocity that does not leave the fluid, ``(n,)``.

    Each component is white noise under a Gaussian of deviation `width` times the longest side, on the faces
    between fluid cells; elsewhere it is zero, as at a wall. The mean over every fluid region is zero.
    """
    from scipy.ndimage import gaussian_filter

    shape, dim = A.grid.shape, len(A.grid.shape)
    b = np.zeros(shape)
    for axis, coupling in enumerate(A.faces()[1][3 - dim :].numpy()):
        velocity: Any = gaussian_filter(generator.standard_normal(shape), width * max(shape))
        velocity = np.where(coupling.reshape(shape) > 0, velocity, 0.0)  # through the lower face
        b += np.roll(velocity, -1, axis) - velocity
    return b.ravel()
