"""A mesh: points, linear cells of one kind, named groups of nodes. Node order within a cell is VTK's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neuralsolve.io.files import broken

CORNERS = {"triangle": 3, "quad": 4, "tetra": 4, "hexahedron": 8}
DIMENSION = {"vertex": 0, "line": 1, "triangle": 2, "quad": 2, "tetra": 3, "hexahedron": 3}
# Facets of a cell in the numbering that scikit-fem uses when it packs boundary marks into cell data.
FACETS = {
    "triangle": ((0, 1), (1, 2), (0, 2)),
    "quad": ((0, 1), (1, 2), (2, 3), (0, 3)),
    "tetra": ((0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)),
    "hexahedron": ((0, 4, 7, 3), (0, 3, 2, 1), (0, 1, 5, 4), (3, 7, 6, 2), (4, 5, 6, 7), (1, 2, 6, 5)),
}
# scikit-fem's own order of the eight corners, as positions in VTK's.
SKFEM_HEX = (0, 4, 3, 1, 7, 5, 2, 6)


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


def outer_facets(cells: np.ndarray, kind: str) -> np.ndarray:
    """Return the facets that belong to one cell only, each with its corners in order around it."""
    facets = all_facets(cells, kind)
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
    points, cells, _ = only_used(points, cells[keep], {})
    return Mesh(points, cells, "quad" if len(shape) == 2 else "hexahedron")


def all_facets(cells: np.ndarray, kind: str) -> np.ndarray:
    """Return the facets of all cells, every inner one twice."""
    return np.concatenate([cells[:, local] for local in FACETS[kind]])


def finished(
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
    points, cells, groups = only_used(points, cells.astype(np.int64), groups)
    if not np.isfinite(points).all():
        raise broken(path, "NaN or infinite coordinates", "finite ones")
    flat = points.shape[1] == 3 and np.ptp(points[:, 2]) <= 1e-12 * np.abs(points).max()
    if flat and DIMENSION[kind] == 2:
        points = np.ascontiguousarray(points[:, :2])
    groups.setdefault("boundary", boundary_nodes(cells, kind))
    return Mesh(points, cells, kind, groups, "; ".join(note))


def only_used(points: np.ndarray, cells: np.ndarray, groups: dict) -> tuple[np.ndarray, np.ndarray, dict]:
    """Return the points that belong to cells, with cells and groups renumbered."""
    used = np.zeros(len(points), dtype=bool)
    used[cells.ravel()] = True
    number = np.cumsum(used) - 1
    groups = {name: number[nodes[used[nodes]]] for name, nodes in groups.items()}
    return points[used], number[cells], {name: nodes for name, nodes in groups.items() if len(nodes)}
