"""Unstructured meshes with named groups of boundary nodes, read through meshio.

Cells are linear: of a quadratic or higher cell only the corners are kept, and the mesh says so in `note`.
Node order within a cell is VTK's.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import BufferedReader, FileIO, StringIO
from pathlib import Path

import numpy as np

from neuralsolve.errors import FormatError
from neuralsolve.io.files import bounded_memory, broken, existing_file

MESH_SUFFIXES = (".msh", ".vtk", ".vtu", ".obj", ".ply", ".stl", ".json")
CORNERS = {"triangle": 3, "quad": 4, "tetra": 4, "hexahedron": 8}
_DIMENSION = {"vertex": 0, "line": 1, "triangle": 2, "quad": 2, "tetra": 3, "hexahedron": 3}
# Facets of a cell in the numbering that scikit-fem uses when it packs boundary marks into cell data.
_FACETS = {
    "triangle": ((0, 1), (1, 2), (0, 2)),
    "quad": ((0, 1), (1, 2), (2, 3), (0, 3)),
    "tetra": ((0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)),
    "hexahedron": ((0, 4, 7, 3), (0, 3, 2, 1), (0, 1, 5, 4), (3, 7, 6, 2), (4, 5, 6, 7), (1, 2, 6, 5)),
}
# scikit-fem's own order of the eight corners, as positions in VTK's.
SKFEM_HEX = (0, 4, 3, 1, 7, 5, 2, 6)
# STL stores every triangle's corners anew, in float32: corners closer than this part of the diagonal are one.
_MERGE = 1e-6


@dataclass(frozen=True)
class Mesh:
    """Points, cells of one kind, and named groups of nodes.

    Attributes
    ----------
    points : ndarray (n, 2) or (n, 3), float64, in the file's unit of length
        Every point belongs to a cell.
    cells : ndarray (m, 3, 4 or 8), int64
    kind : "triangle", "quad", "tetra" or "hexahedron"
    groups : dict of name -> sorted node numbers
        Named boundary parts of the file, and always "boundary": every node on a facet of just one cell.
    note : str
        What was left out or merged on reading; "" if nothing.
    """

    points: np.ndarray
    cells: np.ndarray
    kind: str
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    note: str = ""

    @property
    def surface(self) -> bool:
        """Whether the cells are a curved surface in space."""
        return self.points.shape[1] == 3 and self.kind in ("triangle", "quad")


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
        return readers.get(suffix, _read_meshio)(path)
    except FormatError:
        raise
    # meshio and json meet hostile bytes with errors of a dozen kinds, and meshio may ask Python to exit
    except (Exception, SystemExit) as error:
        found = f"a damaged mesh ({type(error).__name__}: {error})"
        raise broken(path, found, f"a {suffix} mesh that was written to its end") from None


def outer_facets(cells: np.ndarray, kind: str) -> np.ndarray:
    """Return the facets that belong to one cell only, each with its corners in order around it."""
    facets = _all_facets(cells, kind)
    _, first, counts = np.unique(np.sort(facets, axis=1), axis=0, return_index=True, return_counts=True)
    return facets[first[counts == 1]]


def boundary_nodes(cells: np.ndarray, kind: str) -> np.ndarray:
    """Return the sorted nodes of the facets that belong to one cell only."""
    return np.unique(outer_facets(cells, kind))


def grid_mesh(shape: Sequence[int], spacing: Sequence[float], keep: np.ndarray) -> Mesh:
    """Return the chosen cells of a box grid as quads or hexahedra, for ParaView.

    Parameters
    ----------
    shape : (ny, nx) or (nz, ny, nx)
    spacing : side of a cell along each axis, in the order of `shape`
    keep : bool (cells,), which cells to keep, C order
    """
    corner = np.arange(np.prod([side + 1 for side in shape])).reshape([side + 1 for side in shape])
    low = (slice(None, -1), slice(1, None))
    if len(shape) == 2:
        steps = ((0, 0), (0, 1), (1, 1), (1, 0))  # (y, x) of a VTK quad's corners
    else:
        steps = ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0), (1, 0, 0), (1, 0, 1), (1, 1, 1), (1, 1, 0))
    cells = np.stack([corner[tuple(low[step] for step in steps_of)].ravel() for steps_of in steps], axis=1)
    axes = [np.arange(side + 1) * step for side, step in zip(shape, spacing, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(shape))[:, ::-1]
    points, cells, _ = _only_used(points, cells[keep], {})
    return Mesh(points, cells, "quad" if len(shape) == 2 else "hexahedron")


def _all_facets(cells: np.ndarray, kind: str) -> np.ndarray:
    return np.concatenate([cells[:, local] for local in _FACETS[kind]])


def _finish(
    path: Path, points: np.ndarray, cells: np.ndarray, kind: str, groups: dict, note: list[str]
) -> Mesh:
    """Check what a reader found, drop unused points, flatten plane meshes, add the group "boundary"."""
    points = np.array(points, dtype=np.float64)
    cells = np.array(cells)
    if cells.size == 0 or points.ndim != 2 or points.shape[1] not in (2, 3):
        raise broken(
            path, f"{len(cells)} cells on points of shape {points.shape}", "cells on points in 2-D or 3-D"
        )
    if cells.dtype.kind not in "iu" or cells.min() < 0 or cells.max() >= len(points):
        raise broken(path, "cells with corners that do not exist", f"corners from 0 to {len(points) - 1}")
    groups = {name: np.unique(nodes) for name, nodes in groups.items() if len(nodes)}
    for name, nodes in groups.items():
        if nodes.dtype.kind not in "iu" or nodes[0] < 0 or nodes[-1] >= len(points):
            raise broken(path, f"group {name!r} with nodes that do not exist", f"0 to {len(points) - 1}")
    points, cells, groups = _only_used(points, cells.astype(np.int64), groups)
    if not np.isfinite(points).all():
        raise broken(path, "NaN or infinite coordinates", "finite ones")
    flat = points.shape[1] == 3 and np.ptp(points[:, 2]) <= 1e-12 * np.abs(points).max()
    if flat and _DIMENSION[kind] == 2:
        points = np.ascontiguousarray(points[:, :2])
    groups.setdefault("boundary", boundary_nodes(cells, kind))
    return Mesh(points, cells, kind, groups, "; ".join(note))


def _only_used(points: np.ndarray, cells: np.ndarray, groups: dict) -> tuple[np.ndarray, np.ndarray, dict]:
    used = np.zeros(len(points), dtype=bool)
    used[cells.ravel()] = True
    number = np.cumsum(used) - 1
    groups = {name: number[nodes[used[nodes]]] for name, nodes in groups.items()}
    return points[used], number[cells], {name: nodes for name, nodes in groups.items() if len(nodes)}


def _read_meshio(path: Path) -> Mesh:
    mesh = _meshio_mesh(path)
    blocks = []  # (linear kind, corners, index of the block)
    note = []
    for index, block in enumerate(mesh.cells):
        kind = next((name for name in _DIMENSION if block.type.startswith(name)), None)
        if kind is None:
            note.append(f"{len(block.data)} {block.type} cells left out")
            continue
        corners = CORNERS.get(kind, _DIMENSION[kind] + 1)
        if _DIMENSION[kind] > 1 and np.shape(block.data)[1] > corners:
            note.append(f"{block.type} reduced to its {corners} corners")
        blocks.append((kind, np.asarray(block.data)[:, :corners], index))
    top = max((_DIMENSION[kind] for kind, _, _ in blocks), default=0)
    if top < 2:
        raise broken(
            path, f"cells of kind {[block.type for block in mesh.cells]}", "triangles, quads, tets or hexes"
        )
    inner = [(kind, cells) for kind, cells, _ in blocks if _DIMENSION[kind] == top]
    kind, cells = _one_kind(path, inner, note)
    groups = _physical_groups(mesh, [block for block in blocks if _DIMENSION[block[0]] < top])
    if len(inner) == 1:
        groups |= _skfem_groups(mesh, cells, kind)
    return _finish(path, np.asarray(mesh.points), cells, kind, groups, note)


class _EndingReader(BufferedReader):
    """A binary file that refuses to be read past its end again and again.

    meshio looks for the next section in loops that never end where the file does.
    """

    _reads_left = 100

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(-1 if size is None else size)
        if not line:
            self._reads_left -= 1
            if self._reads_left < 0:
                msg = "the file ends before its last section"
                raise EOFError(msg)
        return line


def _meshio_mesh(path: Path):
    """Read with the one reader of the suffix; meshio's own prints and NumPy's warnings go nowhere."""
    import meshio.gmsh.main
    import meshio.vtk._main

    suffix = path.suffix.lower()
    if suffix == ".vtu" and b"<!" in path.read_bytes()[:4096].replace(b"<!--", b""):
        raise broken(path, "XML declarations of entities", "plain VTU")
    stream_readers = {
        ".msh": meshio.gmsh.main.read_buffer,
        ".vtk": meshio.vtk._main.read_buffer,
        ".ply": meshio.ply.read,
    }
    with (
        warnings.catch_warnings(),
        redirect_stdout(StringIO()),
        redirect_stderr(StringIO()),
        bounded_memory(path),
    ):
        warnings.simplefilter("ignore")
        if suffix in stream_readers:
            with _EndingReader(FileIO(path)) as stream:
                return stream_readers[suffix](stream)
        return (meshio.vtu if suffix == ".vtu" else meshio.stl).read(str(path))


def _one_kind(path: Path, blocks: list[tuple[str, np.ndarray]], note: list[str]) -> tuple[str, np.ndarray]:
    kinds = sorted({kind for kind, _ in blocks})
    if len(kinds) == 1:
        return kinds[0], np.concatenate([cells for _, cells in blocks])
    if kinds != ["quad", "triangle"]:
        raise broken(path, f"cells of kinds {', '.join(kinds)}", "one kind, or quads beside triangles")
    note.append("quads beside triangles split in two")
    halves = [cells if kind == "triangle" else _split(cells) for kind, cells in blocks]
    return "triangle", np.concatenate(halves)


def _split(quads: np.ndarray) -> np.ndarray:
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _physical_groups(mesh, blocks: Sequence[tuple[str, np.ndarray, int]]) -> dict[str, np.ndarray]:
    """Return the nodes of gmsh's physical groups below the cells' dimension; tag 0 means none."""
    names = {
        (int(value[1]), int(value[0])): name for name, value in mesh.field_data.items() if len(value) == 2
    }
    tags = mesh.cell_data.get("gmsh:physical", [])
    found: dict[str, list[np.ndarray]] = {}
    for kind, cells, index in blocks:
        if index >= len(tags):
            continue
        for tag in np.unique(tags[index]):
            if tag != 0:
                name = names.get((_DIMENSION[kind], int(tag)), str(int(tag)))
                found.setdefault(name, []).append(cells[np.asarray(tags[index]) == tag].ravel())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _skfem_groups(mesh, cells: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    """Return the boundaries that scikit-fem packs into cell data: bit f of a cell marks its facet f."""
    if kind == "triangle":
        cells = np.sort(
            cells, axis=1
        )  # scikit-fem sorts the corners of a triangle before it numbers the facets
    groups = {}
    for name, data in mesh.cell_data.items():
        if name.startswith("skfem:b:") and len(data[-1]) == len(cells):
            bits = np.asarray(data[-1]).astype(np.int64)
            parts = [cells[(bits >> f) & 1 == 1][:, local].ravel() for f, local in enumerate(_FACETS[kind])]
            groups[name.removeprefix("skfem:b:")] = np.concatenate(parts)
    return groups


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
    facets = np.unique(np.sort(_all_facets(cells, kind), axis=1), axis=0)  # scikit-fem's numbering of facets
    groups = {}
    for name, numbers in (content.get("boundaries") or {}).items():
        chosen = np.array(numbers, dtype=np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(facets)):
            raise broken(
                path, f"boundary {name!r} with facet {chosen.max()}", f"facets 0 to {len(facets) - 1}"
            )
        groups[name] = facets[chosen].ravel()
    return _finish(path, points, cells, kind, groups, [])


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
    return _finish(path, np.array(points), np.array(triangles, dtype=np.int64), "triangle", {}, note)


def _read_stl(path: Path) -> Mesh:
    mesh = _meshio_mesh(path)
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
    return _finish(path, points[first], cells[whole], "triangle", {}, note)


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
