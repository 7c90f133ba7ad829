"""Poisson's equation and a linear elastic solid on the unit square around a random smooth void, on meshes.

    poisson-void       -Laplace u = 1, u = 0 on the void and on the walls; out: u
    elasticity-void    linear elasticity, clamped bottom, unit traction (0, 1) on top, free elsewhere;
                       out: the von Mises stress at the points, mean of the cells around

In: the coordinates of the points; voids and meshes are those of `void_mesh`. Elements are linear, every
system is solved by the package.

Differs from the source of the second: its solid is hyperelastic, this one is linear.

Source: Z. Li et al., "Fourier neural operator with learned deformations for PDEs on general geometries", JMLR
24 (2023) (arXiv 2207.05209), elasticity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neuralsolve.data.samples import Layout, Samples
from neuralsolve.fem import elasticity, poisson, von_mises
from neuralsolve.fem.elasticity import lame
from neuralsolve.fem.system import MeshSystem
from neuralsolve.io.mesh import Mesh
from neuralsolve.pde.equation import described, distance, stream
from neuralsolve.pde.void_mesh import Void, cells, mesh, moved, radii
from neuralsolve.solvers.solve import solve


class _OnVoids(Void, ABC):
    """What the equations share: samples of random voids, solved one by one."""

    @abstractmethod
    def layout(self) -> Layout:
        """Return axes, channels, units and boundary of the samples."""

    @abstractmethod
    def field(self, mesh: Mesh) -> tuple[np.ndarray, float]:
        """Return the output at the points of a mesh, and the relative residual of its solve."""

    def samples(self, numbers: Sequence[int], seed: int) -> Samples:
        codes = np.stack([radii(self, stream(seed, number)) for number in numbers])
        points = np.empty((len(codes), self.around * self.layers, 2))
        outputs = np.empty((len(codes), 1, self.around * self.layers), np.float32)
        residuals = np.empty(len(codes))
        for k, each in enumerate(codes):
            around = mesh(self, each)
            points[k] = around.points
            outputs[k, 0], residuals[k] = self.field(around)
        inputs = points.swapaxes(1, 2).astype(np.float32)
        return Samples(inputs, outputs, self.layout(), residuals, points, cells(self), codes)


@dataclass(frozen=True)
class VoidPoisson(_OnVoids):
    """Poisson's equation around a random void; see the head of this file. Parameters: those of `Void`.

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

    def layout(self) -> Layout:
        units = {"x": "1", "y": "1", "u": "1"}
        return Layout((), ("x", "y"), ("u",), units, (), described(self))

    def field(self, mesh: Mesh) -> tuple[np.ndarray, float]:
        """Return u at the points of a mesh, and the relative residual of its solve."""
        return _solved(self.system(mesh), self.rtol)

    def system(self, mesh: Mesh) -> MeshSystem:
        """Return the linear system on a mesh with the groups of `mesh`."""
        return poisson(mesh, {"boundary": 0.0})

    def residual(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return ‖b - A u‖ / ‖b‖ of each sample, on the mesh of its coordinates."""
        found = np.empty(len(inputs))
        for k, (points, u) in enumerate(zip(inputs.astype(float), outputs.astype(float), strict=True)):
            system = self.system(moved(self, points.T))
            found[k] = np.linalg.norm(system.b - system.A @ u[0, system.free]) / np.linalg.norm(system.b)
        return found


@dataclass(frozen=True)
class VoidElasticity(_OnVoids):
    """A linear elastic plate with a random void, pulled at its top; see the head of this file.

    Parameters
    ----------
    around, layers, inner, outer, alpha, tau, spread, rtol : as of `Void`
    ratio : Poisson's ratio. Young's modulus changes no stress.
    plane : "strain" or "stress"

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

    ratio: float = 0.3
    plane: str = "strain"

    def __post_init__(self) -> None:
        super().__post_init__()
        lame(1.0, self.ratio, self.plane)

    def layout(self) -> Layout:
        units = {"x": "1", "y": "1", "von Mises stress": "traction"}
        return Layout((), ("x", "y"), ("von Mises stress",), units, (), described(self))

    def field(self, mesh: Mesh) -> tuple[np.ndarray, float]:
        """Return the von Mises stress at the points, and the relative residual of the displacement."""
        displacement, residual = _solved(self.system(mesh), self.rtol)
        return von_mises(mesh, displacement, ratio=self.ratio, plane=self.plane), residual

    def system(self, mesh: Mesh) -> MeshSystem:
        """Return the linear system on a mesh with the groups of `mesh`."""
        return elasticity(mesh, ["bottom"], {"top": (0.0, 1.0)}, ratio=self.ratio, plane=self.plane)

    def residual(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return how far the stress is from that of a solve on the same coordinates, relative in L2.

        A stress alone has no residual: the displacement is not among the data.
        """
        points = inputs.astype(float).swapaxes(1, 2)
        expected = np.stack([self.field(moved(self, each))[0] for each in points])
        return distance(outputs[:, 0], expected)


def _solved(system: MeshSystem, rtol: float) -> tuple[np.ndarray, float]:
    """Return the values of all unknowns, and the relative residual."""
    result = solve(system.A, system.b, rtol=rtol)
    return system.expand(result.x), result.residual_norms[-1] / float(np.linalg.norm(system.b))
