"""Reading unstructured meshes with named groups of boundary nodes.

Cells are linear: of a quadratic or higher cell only the corners are kept, and the mesh says so in `note`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from neuralsolve.errors import FormatError
from neuralsolve.io.files import broken, existing_file
from neuralsolve.io.mesh import SKFEM_HEX, Mesh, all_facets, finished
from neuralsolve.io.meshio_reader import meshio_mesh, read_by_meshio

MESH_SUFFIXES = (".msh", ".vtk", ".vtu", ".obj", ".ply", ".stl", ".json")
# STL stores every triangle's corners anew, in float32: corners closer than this part of the diagonal are one.
_MERGE = 1e-6


def read_mesh(path: str | os.PathLike[str]) -> Mesh:
    """Read ``.msh``, ``.vtk``, ``.vtu``, ``.obj``, ``.ply``, ``.stl`` or a scikit-fem ``.json`` dictionary.

    The cells of the highest dimension are taken. Groups come from gmsh's physical groups (by name, or by
    number where unnamed), scikit-fem's marks, and the dictionary's ``boundaries``. Triangles in a plane of
    constant z are a plane mesh, others a surface. Faces of an ``.obj`` with more than three corners are
    split, and so are quads beside triangles.

    Raises
    ------
    FileNotFoundError
    FormatError
        A damaged file, no cells, cells of kinds that cannot be mixed, corners that do not exist, NaN
        coordinates.
    """
    path = existing_file(path, MESH_SUFFIXES)
    suffix = path.suffix.lower()
    readers: dict[str, Callable[[Path], Mesh]] = {".json": _read_json, ".obj": _read_obj, ".stl": _read_stl}
    try:
        return readers.get(suffix, read_by_meshio)(path)
    except FormatError:
        raise
    # meshio and json meet hostile bytes with errors of a dozen kinds, and meshio may ask Python to exit
    except (Exception, SystemExit) as error:
        found = f"a damaged mesh ({type(error).__name__}: {error})"
        raise broken(path, found, f"a {suffix} mesh that was written to its end") from None


def _read_json(path: Path) -> Mesh:
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict) or not {"p", "t"} <= content.keys():
        raise broken(path, "JSON without 'p' and 't'", "a scikit-fem mesh dictionary (skfem.io.json.to_file)")
    points, cells = np.array(content["p"], dtype=np.float64), np.array(content["t"])
    if points.ndim != 2 or cells.ndim != 2:
        raise broken(path, f"p of shape {points.shape}, t of shape {cells.shape}", "two tables")
    kinds = {(2, 3): "triangle", (2, 4): "quad", (3, 4): "tetra", (3, 8): "hexahedron"}
    kind = kinds.get((points.shape[1], cells.shape[1]))
    if kind is None:
        raise broken(
            path, f"{cells.shape[1]} corners in {points.shape[1]}-D", "triangles, quads, tets or hexes"
        )
    if kind == "hexahedron":
        cells = cells[:, np.argsort(SKFEM_HEX)]
    facets = np.unique(np.sort(all_facets(cells, kind), axis=1), axis=0)  # scikit-fem's numbering of facets
    groups = {}
    for name, numbers in (content.get("boundaries") or {}).items():
        chosen = np.array(numbers, dtype=np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(facets)):
            raise broken(
                path, f"boundary {name!r} with facet {chosen.max()}", f"facets 0 to {len(facets) - 1}"
            )
        groups[name] = facets[chosen].ravel()
    return finished(path, points, cells, kind, groups, [])


def _read_obj(path: Path) -> Mesh:
    """Read vertices and faces only: meshio refuses files with more texture coordinates than vertices."""
    points: list[list[float]] = []
    triangles: list[tuple[int, int, int]] = []
    split = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "v":
            points.append([float(word) for word in words[1:4]])
        elif words[0] == "f":
            numbers = [int(word.split("/", 1)[0]) for word in words[1:]]
            corners = [number - 1 if number > 0 else len(points) + number for number in numbers]
            split += len(corners) > 3
            triangles += [(corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]
    note = [f"{split} faces with more than three corners split"] if split else []
    return finished(path, np.array(points), np.array(triangles, dtype=np.int64), "triangle", {}, note)


def _read_stl(path: Path) -> Mesh:
    mesh = meshio_mesh(path)
    if not mesh.cells:
        raise broken(path, "no triangles", "an STL surface")
    points = np.asarray(mesh.points, dtype=np.float64)
    if not np.isfinite(points).all():
        raise broken(path, "NaN or infinite coordinates", "finite ones")
    number = _merged(points)
    cells = number[np.asarray(mesh.cells[0].data)]
    first = np.zeros(number.max() + 1, dtype=np.int64)
    first[number[::-1]] = np.arange(len(points))[::-1]
    whole = (cells[:, 0] != cells[:, 1]) & (cells[:, 1] != cells[:, 2]) & (cells[:, 2] != cells[:, 0])
    note = [f"{3 * len(cells)} corners merged into {len(first)} points"]
    if not whole.all():
        note.append(f"{int((~whole).sum())} triangles without area left out")
    return finished(path, points[first], cells[whole], "triangle", {}, note)


def _merged(points: np.ndarray) -> np.ndarray:
    """Return a number for every point; points closer than the tolerance share it."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    size = np.linalg.norm(np.ptp(points, axis=0))
    if size == 0:
        return np.zeros(len(points), dtype=np.int64)
    # The lattice bounds the neighbours within the tolerance, however many points a hostile file piles up.
    lattice, inverse = np.unique(np.round(points / (0.5 * _MERGE * size)), axis=0, return_inverse=True)
    pairs = KDTree(lattice).query_pairs(2.0, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(lattice), len(lattice)))
    _, label = connected_components(graph, directed=False)
    return label[inverse.ravel()]
