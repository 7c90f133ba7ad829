"""Poisson's equation on meshes: linear elements by scikit-fem, and the cotangent Laplacian of surfaces.

Problem: -div(c grad u) + s u = f, u = g on named boundary groups, no flux elsewhere. One unknown per point
that is not held; the matrix is symmetric positive definite once a point is held or s > 0, and otherwise
singular with the constants as null space.

Source of the cotangent weights: U. Pinkall, K. Polthier, "Computing discrete minimal surfaces and their
conjugates", Experimental Mathematics 2 (1993).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError, StructureError
from neuralsolve.fem.system import MeshSystem, held_values, scikit_fem, symmetric
from neuralsolve.io.mesh import SKFEM_HEX, Mesh


def poisson(
    mesh: Mesh,
    dirichlet: Mapping[str, float] | None = None,
    source: float | np.ndarray = 1.0,
    coefficient: float = 1.0,
    shift: float = 0.0,
) -> MeshSystem:
    """Assemble -div(c grad u) + s u = f with linear elements.

    Parameters
    ----------
    mesh : triangles or quads in the plane, tetrahedra, hexahedra, or a surface of triangles or quads in space
    dirichlet : value of u per boundary group ("boundary" is all of it); a point of several groups takes the
        value of the last. None or {} holds nothing: a pure Neumann problem.
    source : f, a constant, or ``(n,)`` values at the points, linear between them
    coefficient : c > 0
    shift : s >= 0

    Returns
    -------
    MeshSystem

    Raises
    ------
    OptionError
        An unknown boundary group, a coefficient or shift out of range; scikit-fem missing (extra `fem`;
        surfaces do without it).
    ShapeError
        A source of another length than the points, or no free point.
    StructureError
        Cells without area or volume.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralsolve.io import grid_mesh
    >>> square = grid_mesh((8, 8), (1 / 8, 1 / 8), np.ones(64, dtype=bool))
    >>> left = {"left": np.flatnonzero(square.points[:, 0] == 0)}
    >>> square = Mesh(square.points, square.cells, square.kind, left)
    >>> system = poisson(square, {"left": 2.0}, source=0.0)
    >>> bool(abs(np.linalg.solve(system.A.toarray(), system.b) - 2.0).max() < 1e-12)
    True
    """
    if not coefficient > 0 or not 0 <= shift < np.inf or not coefficient < np.inf:
        msg = (
            f"coefficient {coefficient} and shift {shift} are given; coefficient > 0, shift >= 0, both finite"
        )
        raise OptionError(msg)
    f = _source_at_points(mesh, source)
    K, M = _surface_matrices(mesh) if mesh.surface else _plane_or_solid_matrices(mesh)
    if not np.isfinite(K.data).all():
        msg = "the mesh has cells without area or volume; repair it, or leave those cells out"
        raise StructureError(msg)
    mass = np.asarray(M.sum(axis=1)).ravel()
    held, values = held_values(mesh, dirichlet or {})
    free = np.flatnonzero(~held)
    if not len(free):
        msg = f"all {len(mesh.points)} points are held by {sorted(dirichlet or {})}; leave some of them free"
        raise ShapeError(msg)
    A = coefficient * K + shift * M
    load = M @ f - A @ values
    return MeshSystem(symmetric(A[free][:, free]), load[free], free, values, mass, mesh)


def _source_at_points(mesh: Mesh, source: float | np.ndarray) -> np.ndarray:
    f = np.asarray(source, dtype=np.float64)
    if f.ndim and f.shape != (len(mesh.points),):
        msg = f"source has shape {f.shape}; one number, or one per point ({len(mesh.points)},) is needed"
        raise ShapeError(msg)
    if not np.isfinite(f).all():
        msg = "source holds NaN or infinite values"
        raise NonFiniteError(msg)
    return np.broadcast_to(f, (len(mesh.points),))


def _plane_or_solid_matrices(mesh: Mesh) -> tuple[Any, Any]:
    """Return stiffness and consistent mass on all points, by scikit-fem."""
    skfem = scikit_fem()
    from skfem.models import laplace, mass

    meshes = {
        "triangle": (skfem.MeshTri, skfem.ElementTriP1),
        "quad": (skfem.MeshQuad, skfem.ElementQuad1),
        "tetra": (skfem.MeshTet, skfem.ElementTetP1),
        "hexahedron": (skfem.MeshHex, skfem.ElementHex1),
    }
    make, element = meshes[mesh.kind]
    cells = mesh.cells[:, SKFEM_HEX] if mesh.kind == "hexahedron" else mesh.cells
    with np.errstate(divide="ignore", invalid="ignore"):  # flat cells: the caller looks at the matrix
        basis = skfem.Basis(
            make(np.ascontiguousarray(mesh.points.T), np.ascontiguousarray(cells.T)), element()
        )
        return laplace.assemble(basis), mass.assemble(basis)


def _surface_matrices(mesh: Mesh) -> tuple[Any, Any]:
    """Return the cotangent Laplacian and the consistent mass of a surface of triangles."""
    from scipy.sparse import coo_array

    cells = mesh.cells
    if mesh.kind == "quad":
        cells = np.concatenate([cells[:, [0, 1, 2]], cells[:, [0, 2, 3]]])
    n = len(mesh.points)
    rows, columns, stiffness = [], [], []
    corner = mesh.points[cells]  # (triangles, 3, 3)
    double_area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    for k in range(3):  # the edge (i, j) lies opposite to corner k
        i, j = cells[:, (k + 1) % 3], cells[:, (k + 2) % 3]
        to_i, to_j = (corner[:, (k + s) % 3] - corner[:, k] for s in (1, 2))
        with np.errstate(divide="ignore", invalid="ignore"):  # flat cells: the caller looks at the matrix
            half_cotangent = 0.5 * np.einsum("ij,ij->i", to_i, to_j) / double_area
        rows += [i, j, i, j]
        columns += [j, i, i, j]
        stiffness += [-half_cotangent, -half_cotangent, half_cotangent, half_cotangent]
    K = coo_array((np.concatenate(stiffness), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n))
    a, b = np.repeat(cells, 3, axis=1).ravel(), np.tile(cells, (1, 3)).ravel()
    weights = (np.ones((3, 3)) + np.eye(3)).ravel() / 24  # integrals of phi_a phi_b over twice the area
    M = coo_array((np.outer(double_area, weights).ravel(), (a, b)), shape=(n, n))
    return K.tocsr(), M.tocsr()
