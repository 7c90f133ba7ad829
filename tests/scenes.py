"""Domains that several test files solve on."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import label

import neuralsolve as ns


def free_surface(shape: tuple[int, ...], rng: np.random.Generator) -> ns.Grid:
    """Return a unit box with Neumann walls: fluid under a wavy surface, air above, four solid balls.

    The surface lies at height 0.75 + 0.08 sin 2 pi (k y + phi) along axis 0, k of 1, 2, 3; in 3D another
    0.05 sin 2 pi (k z + phi) is added. Balls have centres uniform in [0.1, 0.9]^d and radii in U(0.05, 0.15).
    Only the largest connected component of the fluid is kept, the rest is solid.
    """
    centres = [(np.arange(side) + 0.5) / side for side in shape]
    x = np.meshgrid(*centres, indexing="ij")
    surface = 0.75 * np.ones(shape)
    for amplitude, across in zip((0.08, 0.05), x[1:], strict=False):
        surface += amplitude * np.sin(2 * np.pi * (rng.integers(1, 4) * across + rng.random()))
    cells = np.where(x[0] < surface, ns.FLUID, ns.AIR).astype(np.uint8)
    for _ in range(4):
        centre = rng.uniform(0.1, 0.9, len(shape))
        radius = rng.uniform(0.05, 0.15)
        cells[sum((a - c) ** 2 for a, c in zip(x, centre, strict=True)) < radius**2] = ns.SOLID
    labels, _ = label(cells == ns.FLUID)
    sizes = np.bincount(labels.ravel())[1:]
    cells[(labels > 0) & (labels != 1 + int(np.argmax(sizes)))] = ns.SOLID
    return ns.Grid(cells, walls="neumann")
