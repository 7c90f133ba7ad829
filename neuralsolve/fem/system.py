"""A linear system on a mesh, and what its assembly shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError, nearest
from neuralsolve.io.mesh import Mesh

if TYPE_CHECKING:
    import scipy.sparse


@dataclass(frozen=True)
class MeshSystem:
    """A x = b for the free unknowns of a mesh, with what brings x back to all of them.

    Unknowns are points, or in elasticity displacements, number 2 p along x and 2 p + 1 along y at point p.

    Attributes
    ----------
    A : scipy.sparse.csr_array (m, m), symmetric
    b : ndarray (m,)
    free : ndarray (m,), numbers of the free unknowns
    values : ndarray (n,), the held values, 0 at free unknowns
    mass : ndarray (points,), lumped mass: the measure (area, volume) that belongs to each point
    mesh : Mesh
    """

    A: scipy.sparse.csr_array
    b: np.ndarray
    free: np.ndarray
    values: np.ndarray
    mass: np.ndarray
    mesh: Mesh

    def expand(self, x: np.ndarray) -> np.ndarray:
        """Return the values at all ``(n,)``, ``(n, k)`` from those at the free ones, ``(m,)``, ``(m, k)``."""
        x = np.asarray(x)
        if x.shape[:1] != self.free.shape:
            msg = f"x has {x.shape[:1]} rows, the system has {len(self.free)} free points; pass result.x"
            raise ShapeError(msg)
        u = np.repeat(self.values[:, None], x.shape[1], axis=1) if x.ndim == 2 else self.values.copy()
        u[self.free] = x
        return u


def scikit_fem() -> Any:
    """Return the module skfem.

    Raises
    ------
    OptionError
        It is not installed.
    """
    try:
        import skfem
    except ImportError as error:
        msg = "assembly on meshes needs scikit-fem; install it with: pip install 'neuralsolve[fem]'"
        raise OptionError(msg) from error
    return skfem


def held_values(mesh: Mesh, dirichlet: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return which points are held, and the value of each, 0 at the others, from a value per group."""
    held, values = np.zeros(len(mesh.points), dtype=bool), np.zeros(len(mesh.points))
    for name, value in dirichlet.items():
        if name not in mesh.groups:
            msg = f"the mesh has no boundary group {name!r}{nearest(name, mesh.groups)}"
            raise OptionError(msg)
        if not np.isfinite(value):
            msg = f"the value on {name!r} is {value}; it must be finite"
            raise NonFiniteError(msg)
        held[mesh.groups[name]] = True
        values[mesh.groups[name]] = value
    return held, values


def symmetric(A: Any) -> scipy.sparse.csr_array:
    """Return (A + A^T) / 2 as canonical CSR: assembly leaves rounding between the triangles."""
    from scipy.sparse import csr_array

    half = csr_array(A)
    half = csr_array((half + half.T) / 2)
    half.sum_duplicates()
    half.sort_indices()
    return half
