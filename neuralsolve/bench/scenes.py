"""Random scenes and coefficients of the kind on which solvers are compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuralsolve.pde.scenes import free_surface as free_surface


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
