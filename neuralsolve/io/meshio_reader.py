"""Meshes through meshio: gmsh, VTK, VTU, PLY and STL."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import BufferedReader, FileIO, StringIO
from pathlib import Path

import numpy as np

from neuralsolve.io.files import bounded_memory, broken
from neuralsolve.io.mesh import CORNERS, DIMENSION, FACETS, Mesh, finished


def read_by_meshio(path: Path) -> Mesh:
    """Return the cells of the highest dimension, reduced to their corners, with groups and boundary."""
    mesh = meshio_mesh(path)
    blocks = []  # (linear kind, corners, index of the block)
    note = []
    for index, block in enumerate(mesh.cells):
        kind = next((name for name in DIMENSION if block.type.startswith(name)), None)
        if kind is None:
            note.append(f"{len(block.data)} {block.type} cells left out")
            continue
        corners = CORNERS.get(kind, DIMENSION[kind] + 1)
        if DIMENSION[kind] > 1 and np.shape(block.data)[1] > corners:
            note.append(f"{block.type} reduced to its {corners} corners")
        blocks.append((kind, np.asarray(block.data)[:, :corners], index))
    top = max((DIMENSION[kind] for kind, _, _ in blocks), default=0)
    if top < 2:
        raise broken(
            path, f"cells of kind {[block.type for block in mesh.cells]}", "triangles, quads, tets or hexes"
        )
    inner = [(kind, cells) for kind, cells, _ in blocks if DIMENSION[kind] == top]
    kind, cells = _one_kind(path, inner, note)
    groups = _physical_groups(mesh, [block for block in blocks if DIMENSION[block[0]] < top])
    if len(inner) == 1:
        groups |= _skfem_groups(mesh, cells, kind)
    return finished(path, np.asarray(mesh.points), cells, kind, groups, note)


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


def meshio_mesh(path: Path):
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
                name = names.get((DIMENSION[kind], int(tag)), str(int(tag)))
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
            parts = [cells[(bits >> f) & 1 == 1][:, local].ravel() for f, local in enumerate(FACETS[kind])]
            groups[name.removeprefix("skfem:b:")] = np.concatenate(parts)
    return groups
