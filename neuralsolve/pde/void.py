"""Poisson's equation and a linear elastic solid on the unit square around a random smooth void, on meshes.

The geometry: the void surrounds the centre, with the radius inner + (outer - inner) / (1 + exp(-g)), g a
Gaussian field on the circle, given by its values at `CODES` equal angles and by trigonometric interpolation
between them. The radii at those angles are the codes of a sample. The mesh is an O-grid of triangles:
`around` rays from the centre, one through each corner of the square, and `layers` points on each between
void and wall. Its topology is the same for all; the points move along their rays. Two corners of every
triangle lie on one ray, so all have positive area, whatever the void.

    poisson-void       -Laplace u = 1, u = 0 on the void and on the walls; out: u
    elasticity-void    linear elasticity, clamped bottom, unit traction (0, 1) on top, free elsewhere;
                       out: the von Mises stress at the points, mean of the cells around

In: the coordinates of the points. Elements are linear, every system is solved by the package.

Differs from the source of the second: its solid is hyperelastic, this one is linear.

Source: Z. Li et al., "Fourier neural operator with learned deformations for PDEs on general geometries", JMLR
24 (2023) (arXiv 2207.05209), elasticity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from neuralsolve.data.samples import Layout, Samples
from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.fem import elasticity, poisson, von_mises
from neuralsolve.fem.elasticity import lame
from neuralsolve.fem.system import MeshSystem
from neuralsolve.io.mesh import Mesh
from neuralsolve.pde.equation import described, distance, stream
from neuralsolve.pde.random_fields import periodic
from neuralsolve.solvers.solve import solve

CODES = 42
CENTRE = 0.5

Shape: TypeAlias = "VoidPoisson | VoidElasticity"


@dataclass(frozen=True)
class VoidPoisson:
    """Poisson's equation around a random void; see the head of this file.

    Parameters
    ----------
    around : points on the void, and on the walls; a multiple of 4
    layers : points from void to wall
    inner, outer : bounds of the radius of the void
    alpha, tau : of the Gaussian field g on the circle of length 1: larger is smoother, and has finer waves
    spread : standard deviation of g
    rtol : of every solve

    Raises
    ------
    OptionError

    Examples
    --------
    >>> data = VoidPoisson(around=36, layers=5).samples(range(3), seed=7)
    >>> data.inputs.shape, data.outputs.shape, data.points.shape, data.cells.shape, data.codes.shape
    ((3, 2, 180), (3, 1, 180), (3, 180, 2), (288, 3), (3, 42))
    >>> bool(data.residuals.max() < 1e-8)
    True
    """

    name: ClassVar[str] = "poisson-void"

    around: int = 108
    layers: int = 9
    inner: float = 0.2
    outer: float = 0.4
    alpha: float = 3.0
    tau: float = 10.0
    spread: float = 1.0
    rtol: float = 1e-8

    def __post_init__(self) -> None:
        _check(self)

    def layout(self) -> Layout:
        units = {"x": "1", "y": "1", "u": "1"}
        return Layout((), ("x", "y"), ("u",), units, (), described(self))

    def samples(self, numbers: Sequence[int], seed: int) -> Samples:
        codes = np.stack([radii(self, stream(seed, number)) for number in numbers])
        outputs = np.empty((len(codes), 1, self.around * self.layers), np.float32)
        residuals = np.empty(len(codes))
        for k, each in enumerate(codes):
            outputs[k, 0], residuals[k] = _solved(self.system(mesh(self, each)), self.rtol)
        return _gathered(self, codes, outputs, residuals)

    def system(self, mesh: Mesh) -> MeshSystem:
        """Return the linear system on a mesh with the groups of `mesh`."""
        return poisson(mesh, {"boundary": 0.0})

    def residual(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return ‖b - A u‖ / ‖b‖ of each sample, on the mesh of its coordinates."""
        found = np.empty(len(inputs))
        for k, (points, u) in enumerate(zip(inputs.astype(float), outputs.astype(float), strict=True)):
            system = self.system(_moved(self, points.T))
            found[k] = np.linalg.norm(system.b - system.A @ u[0, system.free]) / np.linalg.norm(system.b)
        return found


@dataclass(frozen=True)
class VoidElasticity:
    """A linear elastic plate with a random void, pulled at its top; see the head of this file.

    Parameters
    ----------
    around, layers, inner, outer, alpha, tau, spread : the geometry, as in `VoidPoisson`
    ratio : Poisson's ratio. Young's modulus changes no stress.
    plane : "strain" or "stress"
    rtol : of every solve

    Raises
    ------
    OptionError

    Examples
    --------
    >>> data = VoidElasticity(around=36, layers=5).samples(range(2), seed=7)
    >>> data.outputs.shape, bool(data.outputs.min() >= 0), bool(data.residuals.max() < 1e-8)
    ((2, 1, 180), True, True)
    """

    name: ClassVar[str] = "elasticity-void"

    around: int = 108
    layers: int = 9
    inner: float = 0.2
    outer: float = 0.4
    alpha: float = 3.0
    tau: float = 10.0
    spread: float = 1.0
    ratio: float = 0.3
    plane: str = "strain"
    rtol: float = 1e-8

    def __post_init__(self) -> None:
        _check(self)
        lame(1.0, self.ratio, self.plane)

    def layout(self) -> Layout:
        units = {"x": "1", "y": "1", "von Mises stress": "traction"}
        return Layout((), ("x", "y"), ("von Mises stress",), units, (), described(self))

    def samples(self, numbers: Sequence[int], seed: int) -> Samples:
        codes = np.stack([radii(self, stream(seed, number)) for number in numbers])
        outputs = np.empty((len(codes), 1, self.around * self.layers), np.float32)
        residuals = np.empty(len(codes))
        for k, each in enumerate(codes):
            outputs[k, 0], residuals[k] = self.stress(mesh(self, each))
        return _gathered(self, codes, outputs, residuals)

    def system(self, mesh: Mesh) -> MeshSystem:
        """Return the linear system on a mesh with the groups of `mesh`."""
        return elasticity(mesh, ["bottom"], {"top": (0.0, 1.0)}, ratio=self.ratio, plane=self.plane)

    def stress(self, mesh: Mesh) -> tuple[np.ndarray, float]:
        """Return the von Mises stress at the points, and the relative residual of the displacement."""
        displacement, residual = _solved(self.system(mesh), self.rtol)
        return von_mises(mesh, displacement, ratio=self.ratio, plane=self.plane), residual

    def residual(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return how far the stress is from that of a solve on the same coordinates, relative in L2.

        A stress alone has no residual: the displacement is not among the data.
        """
        points = inputs.astype(float).swapaxes(1, 2)
        expected = np.stack([self.stress(_moved(self, each))[0] for each in points])
        return distance(outputs[:, 0], expected)


def radii(shape: Shape, generator: np.random.Generator) -> np.ndarray:
    """Return the radii of a random void at `CODES` equal angles, the first at -pi / 4."""
    waves = np.fft.fftfreq(CODES, 1 / CODES)[1:]
    density = ((2 * np.pi * waves) ** 2 + shape.tau**2) ** -shape.alpha
    # `periodic` has this variance at every point, whatever alpha and tau
    variance = 2 * shape.tau ** (2 * shape.alpha - 1) * density.sum()
    g = periodic((CODES,), shape.alpha, shape.tau, generator) * (shape.spread / math.sqrt(variance))
    return shape.inner + (shape.outer - shape.inner) / (1 + np.exp(-g))


def mesh(shape: Shape, codes: np.ndarray) -> Mesh:
    """Return the O-grid around a void of given radii, with the groups void, top, bottom, left and right.

    Parameters
    ----------
    shape : an equation of this file
    codes : ``(CODES,)`` radii, between `inner` and `outer`
    """
    if codes.shape != (CODES,) or not (codes.min() > shape.inner and codes.max() < shape.outer):
        msg = (
            f"codes of the shape {codes.shape}; {CODES} radii are needed, all between "
            f"inner = {shape.inner} and outer = {shape.outer}"
        )
        raise ShapeError(msg)
    part = (codes - shape.inner) / (shape.outer - shape.inner)
    g = np.log(part / (1 - part))
    angle = 2 * np.pi * np.arange(shape.around) / shape.around
    wave = np.arange(CODES // 2 + 1)
    modes = np.fft.rfft(g) / CODES
    modes[1:-1] *= 2  # the last wave of an even number is alone, as the first is
    g = (modes * np.exp(1j * angle[:, None] * wave)).real.sum(1)
    start = shape.inner + (shape.outer - shape.inner) / (1 + np.exp(-g))
    direction = np.stack([np.cos(angle - np.pi / 4), np.sin(angle - np.pi / 4)], axis=-1)
    end = CENTRE / np.abs(direction).max(1)
    along = np.linspace(0, 1, shape.layers)[:, None]
    points = CENTRE + (start + along * (end - start))[..., None] * direction
    points[-1][np.abs(points[-1]) < 1e-12] = 0.0
    points[-1][np.abs(points[-1] - 1) < 1e-12] = 1.0
    return _moved(shape, points.reshape(-1, 2))


def _moved(shape: Shape, points: np.ndarray) -> Mesh:
    """Return the O-grid with given points."""
    ring, quarter = np.arange(shape.around), shape.around // 4
    wall = ring + shape.around * (shape.layers - 1)
    groups = {
        name: np.sort(np.take(wall, np.arange(k * quarter, (k + 1) * quarter + 1), mode="wrap"))
        for k, name in enumerate(("right", "top", "left", "bottom"))
    }
    groups |= {"void": ring, "boundary": np.concatenate([ring, wall])}
    return Mesh(points, cells(shape), "triangle", groups)


def cells(shape: Shape) -> np.ndarray:
    """Return the triangles of the O-grid ``(2 around (layers - 1), 3)``, counter-clockwise."""
    low = np.arange(shape.around * (shape.layers - 1)).reshape(shape.layers - 1, shape.around)
    left = np.roll(low, -1, axis=1)  # one ray on
    inner = np.stack([low, low + shape.around, left], axis=-1)
    outer = np.stack([low + shape.around, left + shape.around, left], axis=-1)
    return np.concatenate([inner.reshape(-1, 3), outer.reshape(-1, 3)])


def _solved(system: MeshSystem, rtol: float) -> tuple[np.ndarray, float]:
    """Return the values of all unknowns, and the relative residual."""
    result = solve(system.A, system.b, rtol=rtol)
    return system.expand(result.x), result.residual_norms[-1] / float(np.linalg.norm(system.b))


def _gathered(equation: Any, codes: np.ndarray, outputs: np.ndarray, residuals: np.ndarray) -> Samples:
    points = np.stack([mesh(equation, each).points for each in codes])
    inputs = points.swapaxes(1, 2).astype(np.float32)
    return Samples(inputs, outputs, equation.layout(), residuals, points, cells(equation), codes)


def _check(shape: Any) -> None:
    if shape.around < 12 or shape.around % 4 or shape.layers < 3:
        msg = (
            f"around = {shape.around}, layers = {shape.layers}; a multiple of 4, at least 12, so that "
            "the corners are points, and 3 layers at least are needed"
        )
        raise OptionError(msg)
    if not 0 < shape.inner < shape.outer < CENTRE:
        msg = f"inner = {shape.inner}, outer = {shape.outer}; 0 < inner < outer < {CENTRE} is needed"
        raise OptionError(msg)
    positive = {name: getattr(shape, name) for name in ("alpha", "tau", "spread", "rtol")}
    if not all(0 < value < math.inf for value in positive.values()):
        given = ", ".join(f"{name} = {value}" for name, value in positive.items())
        msg = f"{given}; all must be positive and finite"
        raise OptionError(msg)
