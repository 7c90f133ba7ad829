"""Random scenes and coefficients on which solvers are compared, and nothing is trained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neuralsolve.operators.grid import AIR, FLUID, SOLID, Grid
from neuralsolve.pde.random_fields import neumann


def two_phase(
    shape: tuple[int, ...], generator: np.random.Generator, low: float = 3.0, high: float = 12.0
) -> np.ndarray:
    """Return cell coefficients of Darcy flow: `high` where a smooth Gaussian field is >= 0, else `low`.

    The field has covariance (-Laplace + 9)^-2 with Neumann walls on a unit box: cosines of wave number k with
    independent amplitudes of deviation 1/(pi^2 |k|^2 + 9), no constant part (Li et al. 2021, sec. A.3.2).
    """
    return np.where(neumann(shape, 2.0, 3.0, generator) >= 0, high, low)


def unseen(shape: tuple[int, ...], generator: np.random.Generator, kind: str) -> Grid:
    """Return a scene of a class that no training has seen: a unit box with Neumann walls, unit spacing.

    Liquid stands below a tilted plane of height 0.8 in the middle and slope up to 0.2, air above, and in it
    lie

    - "boxes": five boxes turned by any angle in the plane of the last two axes, half sides in [0.04, 0.16];
    - "rings": four rings (tori in 3D) of radius in [0.08, 0.2] and a third of that in thickness, with a gap;
    - "channels": everything solid but three L-shaped channels, of widths in [0.08, 0.2], up to the air;
    - "plates": eight plates of one cell, across any axis, half as long as the box at most;
    - "pockets": four closed rings (shells in 3D) that hold liquid without a way out.
    """
    axes = [(np.arange(side) + 0.5) / side for side in shape]
    points = list(np.meshgrid(*axes, indexing="ij"))
    surface = 0.8 + generator.uniform(-0.2, 0.2) * (points[1] - 0.5)
    cells = np.where(points[0] > surface, AIR, FLUID).astype(np.uint8)
    solid = UNSEEN[kind](points, generator)
    cells[solid if kind != "channels" else solid & (points[0] <= surface)] = SOLID
    return Grid(cells, spacing=1.0, walls="neumann")


def _boxes(points: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    solid = np.zeros(points[0].shape, bool)
    for _ in range(5):
        away, angle = [p - generator.uniform(0.1, 0.9) for p in points], generator.uniform(0, np.pi)
        c, s = np.cos(angle), np.sin(angle)
        away[-2:] = c * away[-2] + s * away[-1], c * away[-1] - s * away[-2]
        solid |= np.logical_and.reduce([abs(a) <= generator.uniform(0.04, 0.16) for a in away])
    return solid


def _rings(points: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    solid = np.zeros(points[0].shape, bool)
    for _ in range(4):
        away = [p - generator.uniform(0.15, 0.8) for p in points]
        radius, gap = generator.uniform(0.08, 0.2), generator.uniform(-np.pi, np.pi)
        in_plane = np.hypot(away[-2], away[-1]) - radius
        distance = in_plane if len(points) == 2 else np.hypot(in_plane, away[0])
        turned = np.angle(np.exp(1j * (np.arctan2(away[-2], away[-1]) - gap)))
        solid |= (abs(distance) <= radius / 6) & (abs(turned) > 0.4)
    return solid


def _channels(points: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    fluid = np.zeros(points[0].shape, bool)
    for _ in range(3):
        half, depth = generator.uniform(0.04, 0.1), generator.uniform(0.1, 0.6)
        first, last = np.sort(generator.uniform(0.1, 0.9, 2))
        near = [abs(p - generator.uniform(0.2, 0.8)) <= 2 * half for p in points[1:-1]]
        down = (abs(points[-1] - first) <= half) & (points[0] >= depth - half)
        along = (abs(points[0] - depth) <= half) & (points[-1] >= first - half) & (points[-1] <= last)
        fluid |= np.logical_and.reduce([down | along, *near])
    return ~fluid


def _plates(points: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    shape = points[0].shape
    solid = np.zeros(shape, bool)
    for k in range(8):
        axis, place = k % len(shape), []
        for side in shape:
            length = max(1, int(side * generator.uniform(0.1, 0.5)))
            start = int(generator.integers(0, side - length + 1))
            place.append(slice(start, start + length))
        at = int(generator.integers(1, shape[axis] - 1))
        place[axis] = slice(at, at + 1)
        solid[tuple(place)] = True
    return solid


def _pockets(points: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    solid = np.zeros(points[0].shape, bool)
    for _ in range(4):
        radius = generator.uniform(0.08, 0.18)
        square = sum((p - generator.uniform(0.15, 0.8)) ** 2 for p in points)
        solid |= abs(np.sqrt(square) - radius) <= 1.5 / min(points[0].shape)
    return solid


UNSEEN: dict[str, Callable[[list[np.ndarray], np.random.Generator], np.ndarray]] = {
    "boxes": _boxes,
    "rings": _rings,
    "channels": _channels,
    "plates": _plates,
    "pockets": _pockets,
}
