"""Solutions to files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from neuralsolve.errors import FormatError, ShapeError
from neuralsolve.io.files import check_target, replacing
from neuralsolve.io.mesh import Mesh

SOLUTION_SUFFIXES = (".npy", ".npz", ".mtx", ".txt", ".vtu")


def check_solution_target(path: str | os.PathLike[str], overwrite: bool, mesh: Mesh | None) -> None:
    """Refuse an output file that `write_solution` could not write, before the solve that it is meant for."""
    path = Path(path)
    if path.suffix.lower() not in SOLUTION_SUFFIXES:
        msg = f"{path}: a solution is written as one of {', '.join(SOLUTION_SUFFIXES)}, not {path.suffix!r}"
        raise FormatError(msg)
    if path.suffix.lower() == ".vtu" and mesh is None:
        msg = f"{path}: .vtu needs a mesh or a grid; a matrix has neither, write .npy, .npz, .mtx or .txt"
        raise FormatError(msg)
    check_target(path, overwrite)


def write_solution(
    path: str | os.PathLike[str], x: np.ndarray, *, mesh: Mesh | None = None, overwrite: bool = False
) -> None:
    """Write x ``(n,)`` or ``(n, k)``; an interrupted write leaves no file and harms none.

    Parameters
    ----------
    path : ``.npy``, ``.npz`` (array "x"), ``.mtx`` (dense), ``.txt`` (17 digits), ``.vtu`` (field "x" on
        `mesh`)
    x : values; for ``.vtu`` one per point of `mesh`, or one per cell
    mesh : needed for ``.vtu``
    overwrite : whether an existing file may be replaced

    Raises
    ------
    FileExistsError
        `path` exists and `overwrite` is False.
    FormatError
        An unknown suffix, or ``.vtu`` without a mesh.
    ShapeError
        x fits neither the points nor the cells of the mesh.
    """
    path, x = Path(path), np.asarray(x)
    check_solution_target(path, overwrite, mesh)
    suffix = path.suffix.lower()
    with replacing(path, overwrite) as temporary:
        if suffix == ".npy":
            np.save(temporary, x, allow_pickle=False)
        elif suffix == ".npz":
            np.savez(temporary, x=x)
        elif suffix == ".mtx":
            import scipy.io

            scipy.io.mmwrite(temporary, x if x.ndim == 2 else x[:, None], precision=17)
        elif suffix == ".txt":
            np.savetxt(temporary, x, fmt="%.17g")
        elif mesh is not None:
            _write_vtu(temporary, x, mesh)


def _write_vtu(path: Path, x: np.ndarray, mesh: Mesh) -> None:
    import meshio

    points = mesh.points
    if points.shape[1] == 2:  # VTU knows points in space only
        points = np.concatenate([points, np.zeros((len(points), 1))], axis=1)
    at_points: dict[str, Any] = {"x": x} if len(x) == len(mesh.points) else {}
    at_cells: dict[str, list[Any]] = {"x": [x]} if not at_points and len(x) == len(mesh.cells) else {}
    if not at_points and not at_cells:
        msg = f"x has {len(x)} rows; the mesh has {len(mesh.points)} points and {len(mesh.cells)} cells"
        raise ShapeError(msg)
    meshio.Mesh(points, [(mesh.kind, mesh.cells)], point_data=at_points, cell_data=at_cells).write(path)
