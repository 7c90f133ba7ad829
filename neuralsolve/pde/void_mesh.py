"""Meshes of the unit square around a random smooth void.

The void surrounds the centre, with the radius inner + (outer - inner) / (1 + exp(-g)), g a Gaussian field on
the circle, given by its values at `CODES` equal angles and by trigonometric interpolation between them. The
radii at those angles are the codes of a sample. The mesh is an O-grid of triangles: `around` rays from the
centre, one through each corner of the square, and `layers` points on each between void and wall. Its
topology is the same for all; the points move along their rays. Two corners of every triangle lie on one
ray, so all have positive area, whatever the void.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.io.mesh import Mesh
from neuralsolve.pde.random_fields import periodic

CODES = 42
CENTRE = 0.5


@dataclass(frozen=True)
class Void:
    """Random voids and their meshes; see the head of this file.

    Parameters
    ----------
    around : points on the void, and on the walls; a multiple of 4
    layers : points from void to wall
    inner, outer : bounds of the radius of the void
    alpha, tau : of the Gaussian field g on the circle of length 1: larger is smoother, and has finer waves
    spread : standard deviation of g
    rtol : of every solve on such a mesh

    Raises
    ------
    OptionError

    Examples
    --------
    >>> void = Void(around=36, layers=5)
    >>> mesh(void, radii(void, np.random.default_rng(7))).points.shape
    (180, 2)
    """

    around: int = 108
    layers: int = 9
    inner: float = 0.2
    outer: float = 0.4
    alpha: float = 3.0
    tau: float = 10.0
    spread: float = 1.0
    rtol: float = 1e-8

    def __post_init__(self) -> None:
        if self.around < 12 or self.around % 4 or self.layers < 3:
            msg = (
                f"around = {self.around}, layers = {self.layers}; a multiple of 4, at least 12, so that "
                "the corners are points, and 3 layers at least are needed"
            )
            raise OptionError(msg)
        if not 0 < self.inner < self.outer < CENTRE:
            msg = f"inner = {self.inner}, outer = {self.outer}; 0 < inner < outer < {CENTRE} is needed"
            raise OptionError(msg)
        positive = {name: getattr(self, name) for name in ("alpha", "tau", "spread", "rtol")}
        if not all(0 < value < math.inf for value in positive.values()):
            given = ", ".join(f"{name} = {value}" for name, value in positive.items())
            msg = f"{given}; all must be positive and finite"
            raise OptionError(msg)


def radii(void: Void, generator: np.random.Generator) -> np.ndarray:
    """Return the radii of a random void at `CODES` equal angles, the first at -pi / 4."""
    waves = np.fft.fftfreq(CODES, 1 / CODES)[1:]
    density = ((2 * np.pi * waves) ** 2 + void.tau**2) ** -void.alpha
    # `periodic` has this variance at every point, whatever alpha and tau
    variance = 2 * void.tau ** (2 * void.alpha - 1) * density.sum()
    g = periodic((CODES,), void.alpha, void.tau, generator) * (void.spread / math.sqrt(variance))
    return void.inner + (void.outer - void.inner) / (1 + np.exp(-g))


def mesh(void: Void, codes: np.ndarray) -> Mesh:
    """Return the O-grid around a void of given radii, with the groups void, top, bottom, left and right.

    Parameters
    ----------
    void : geometry
    codes : ``(CODES,)`` radii, between `inner` and `outer`
    """
    if codes.shape != (CODES,) or not (codes.min() > void.inner and codes.max() < void.outer):
        msg = (
            f"codes of the shape {codes.shape}; {CODES} radii are needed, all between "
            f"inner = {void.inner} and outer = {void.outer}"
        )
        raise ShapeError(msg)
    part = (codes - void.inner) / (void.outer - void.inner)
    g = np.log(part / (1 - part))
    angle = 2 * np.pi * np.arange(void.around) / void.around
    wave = np.arange(CODES // 2 + 1)
    modes = np.fft.rfft(g) / CODES
    modes[1:-1] *= 2  # the last wave of an even number is alone, as the first is
    g = (modes * np.exp(1j * angle[:, None] * wave)).real.sum(1)
    start = void.inner + (void.outer - void.inner) / (1 + np.exp(-g))
    direction = np.stack([np.cos(angle - np.pi / 4), np.sin(angle - np.pi / 4)], axis=-1)
    end = CENTRE / np.abs(direction).max(1)
    along = np.linspace(0, 1, void.layers)[:, None]
    points = CENTRE + (start + along * (end - start))[..., None] * direction
    points[-1][np.abs(points[-1]) < 1e-12] = 0.0
    points[-1][np.abs(points[-1] - 1) < 1e-12] = 1.0
    return moved(void, points.reshape(-1, 2))


def moved(void: Void, points: np.ndarray) -> Mesh:
    """Return the O-grid with given points."""
    ring, quarter = np.arange(void.around), void.around // 4
    wall = ring + void.around * (void.layers - 1)
    groups = {
        name: np.sort(np.take(wall, np.arange(k * quarter, (k + 1) * quarter + 1), mode="wrap"))
        for k, name in enumerate(("right", "top", "left", "bottom"))
    }
    groups |= {"void": ring, "boundary": np.concatenate([ring, wall])}
    return Mesh(points, cells(void), "triangle", groups)


def cells(void: Void) -> np.ndarray:
    """Return the triangles of the O-grid ``(2 around (layers - 1), 3)``, counter-clockwise."""
    low = np.arange(void.around * (void.layers - 1)).reshape(void.layers - 1, void.around)
    left = np.roll(low, -1, axis=1)  # one ray on
    inner = np.stack([low, low + void.around, left], axis=-1)
    outer = np.stack([low + void.around, left + void.around, left], axis=-1)
    return np.concatenate([inner.reshape(-1, 3), outer.reshape(-1, 3)])
