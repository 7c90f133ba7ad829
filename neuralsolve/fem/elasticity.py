"""Linear elasticity of plane solids: linear triangles by scikit-fem, and the von Mises stress.

Problem: -div sigma = 0, sigma = 2 mu eps + lambda tr(eps) I, eps the symmetric gradient of the displacement;
no displacement on clamped boundary groups, a given traction on others, none elsewhere. Small strains, one
material. The matrix is symmetric positive definite once two points are clamped.
Plane strain: no displacement across the plane, sigma_zz = nu (sigma_xx + sigma_yy). Plane stress:
sigma_zz = 0, by lambda' = 2 lambda mu / (lambda + 2 mu).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neuralsolve.errors import NonFiniteError, OptionError, StructureError, nearest
from neuralsolve.fem.system import MeshSystem, held_values, scikit_fem, symmetric
from neuralsolve.io.mesh import Mesh

PLANES = ("strain", "stress")


def elasticity(
    mesh: Mesh,
    clamped: Sequence[str],
    traction: Mapping[str, Sequence[float]],
    young: float = 1.0,
    ratio: float = 0.3,
    plane: str = "strain",
) -> MeshSystem:
    """Assemble plane linear elasticity with linear triangles.

    Parameters
    ----------
    mesh : triangles in the plane
    clamped : boundary groups that do not move
    traction : force per length ``(x, y)`` per boundary group, on facets with both ends in the group
    young : Young's modulus > 0
    ratio : Poisson's ratio, in (-1, 1/2)
    plane : "strain" or "stress"

    Returns
    -------
    MeshSystem
        Its unknowns are displacements, 2 p and 2 p + 1 along x and y at point p.

    Raises
    ------
    OptionError
        An unknown group, nothing clamped, a material out of range; scikit-fem missing (extra `fem`).
    StructureError
        Cells that are no triangles in the plane, or without area.

    Examples
    --------
    A bar of modulus 2 that is pulled by 1 gets longer by a half of itself.

    >>> import numpy as np
    >>> points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> groups = {"bottom": np.array([0, 1]), "top": np.array([2, 3])}
    >>> square = Mesh(points, np.array([[0, 1, 2], [0, 2, 3]]), "triangle", groups)
    >>> system = elasticity(square, ["bottom"], {"top": (0.0, 1.0)}, young=2.0, ratio=0.0)
    >>> system.expand(np.linalg.solve(system.A.toarray(), system.b)).reshape(4, 2)[:, 1].round(12).tolist()
    [0.0, 0.0, 0.5, 0.5]
    """
    skfem = scikit_fem()
    from skfem.models.elasticity import linear_elasticity

    if not clamped:
        msg = f"nothing is clamped; name at least one boundary group{nearest('boundary', mesh.groups)}"
        raise OptionError(msg)
    basis = _basis(mesh)
    with np.errstate(divide="ignore", invalid="ignore"):  # flat cells are looked for below
        K = linear_elasticity(*lame(young, ratio, plane)).assemble(basis)
    if not np.isfinite(K.data).all():
        msg = "the mesh has cells without area; repair it, or leave those cells out"
        raise StructureError(msg)
    load = np.zeros(basis.N)
    for name, force in traction.items():
        load += _traction(skfem, basis, mesh, name, force)
    held = np.repeat(held_values(mesh, dict.fromkeys(clamped, 0.0))[0], 2)
    free = np.flatnonzero(~held)
    mass = np.bincount(mesh.cells.ravel(), np.repeat(areas(mesh) / 3, 3), len(mesh.points))
    return MeshSystem(symmetric(K[free][:, free]), load[free], free, np.zeros(basis.N), mass, mesh)


def von_mises(
    mesh: Mesh, displacement: np.ndarray, young: float = 1.0, ratio: float = 0.3, plane: str = "strain"
) -> np.ndarray:
    """Return the von Mises stress at the points ``(n,)``: the mean of the cells around, weighted by area.

    Parameters
    ----------
    mesh : triangles in the plane
    displacement : ``(2 n,)``, as `MeshSystem.expand` of `elasticity` returns it
    young, ratio, plane : as in `elasticity`
    """
    first, mu = lame(young, ratio, plane)
    gradient = np.asarray(_basis(mesh).interpolate(displacement).grad)[..., 0]  # the same all over a cell
    strain = (gradient + gradient.swapaxes(0, 1)) / 2
    xx, yy = (2 * mu * strain[k, k] + first * (strain[0, 0] + strain[1, 1]) for k in (0, 1))
    xy, zz = 2 * mu * strain[0, 1], ratio * (xx + yy) if plane == "strain" else np.zeros_like(xx)
    of_cells = np.sqrt(((xx - yy) ** 2 + (yy - zz) ** 2 + (zz - xx) ** 2) / 2 + 3 * xy**2)
    area, corners = np.repeat(areas(mesh), 3), mesh.cells.ravel()
    total = np.bincount(corners, area * np.repeat(of_cells, 3), len(mesh.points))
    return total / np.bincount(corners, area, len(mesh.points))


def lame(young: float, ratio: float, plane: str) -> tuple[float, float]:
    """Return lambda and mu of plane strain, or those that make plane stress of it.

    >>> lame(1.0, 0.25, "strain"), lame(1.0, 0.0, "stress")
    ((0.4, 0.4), (0.0, 0.5))
    """
    if not (0 < young < np.inf and -1 < ratio < 0.5):
        msg = f"young = {young}, ratio = {ratio}; young > 0 and -1 < ratio < 1/2 are needed"
        raise OptionError(msg)
    if plane not in PLANES:
        msg = f"plane = {plane!r}{nearest(plane, PLANES)}"
        raise OptionError(msg)
    first, mu = young * ratio / ((1 + ratio) * (1 - 2 * ratio)), young / (2 * (1 + ratio))
    return (first if plane == "strain" else 2 * first * mu / (first + 2 * mu)), mu


def areas(mesh: Mesh) -> np.ndarray:
    """Return the areas of triangles in the plane ``(m,)``, without a sign."""
    corner = mesh.points[mesh.cells]
    (ax, ay), (bx, by) = (corner[:, 1] - corner[:, 0]).T, (corner[:, 2] - corner[:, 0]).T
    return np.abs(ax * by - ay * bx) / 2


def _basis(mesh: Mesh) -> Any:
    if mesh.kind != "triangle" or mesh.surface:
        msg = (
            f"elasticity on cells of the kind {mesh.kind!r} in {mesh.points.shape[1]}-D; triangles in the "
            "plane are needed"
        )
        raise StructureError(msg)
    skfem = scikit_fem()
    shape = skfem.MeshTri(np.ascontiguousarray(mesh.points.T), np.ascontiguousarray(mesh.cells.T))
    with np.errstate(divide="ignore", invalid="ignore"):
        return skfem.Basis(shape, skfem.ElementVector(skfem.ElementTriP1()))


def _traction(skfem: Any, basis: Any, mesh: Mesh, name: str, force: Sequence[float]) -> np.ndarray:
    if name not in mesh.groups:
        msg = f"the mesh has no boundary group {name!r}{nearest(name, mesh.groups)}"
        raise OptionError(msg)
    if np.shape(force) != (2,) or not np.isfinite(force).all():
        msg = f"the traction on {name!r} is {force}; two finite numbers are needed, its x and y"
        raise NonFiniteError(msg)
    outer = basis.mesh.boundary_facets()
    ends = np.isin(basis.mesh.facets[:, outer], mesh.groups[name]).all(0)
    facets = skfem.FacetBasis(basis.mesh, basis.elem, facets=outer[ends])
    return skfem.LinearForm(lambda v, _: force[0] * v[0] + force[1] * v[1]).assemble(facets)
