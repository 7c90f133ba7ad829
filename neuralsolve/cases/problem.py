"""A and b from a case, a matrix or a mesh, with all that is needed to show and store the answer."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralsolve.cases.files import find_case, load_case, referenced_file
from neuralsolve.errors import OptionError, ShapeError, nearest
from neuralsolve.fem import MeshSystem, poisson
from neuralsolve.io import (
    MATRIX_SUFFIXES,
    MESH_SUFFIXES,
    Mesh,
    grid_mesh,
    read_matrix,
    read_mesh,
    read_vector,
)
from neuralsolve.io.files import existing_file

if TYPE_CHECKING:
    from neuralsolve.cases.schema import MatrixCase, MeshCase
    from neuralsolve.operators.grid import Grid

SOURCES = ("ones", "random", "sine", "dipole")
SEED = 1905
WHAT = {
    "simulate": "a simulation",
    "train": "the training of a network",
    "tune": "a sequence of systems",
    "minimize": "a constrained minimisation",
}


@dataclass(frozen=True)
class Problem:
    """A linear system and where it came from.

    Attributes
    ----------
    name : str
    A : PoissonStencil, or scipy.sparse.csr_array
    b : ndarray (n,) or (n, k)
    reference : ndarray (n,) or None
        The solution that b was made from.
    near_null_space : ndarray (n, k) or None
        What AMG by smoothed aggregation may use.
    grid : Grid or None
    system : MeshSystem or None
    options : dict
        ``method``, ``M``, ``rtol``, ``atol``, ``maxiter`` as the case gives them; absent where it does not.
    note : str
        What was left out or changed on reading.
    """

    name: str
    A: Any
    b: np.ndarray
    reference: np.ndarray | None = None
    near_null_space: np.ndarray | None = None
    grid: Grid | None = None
    system: MeshSystem | None = None
    options: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def field(self, x: np.ndarray) -> np.ndarray:
        """Return x as it is stored: at all points of a mesh, on all cells of a grid."""
        return x if self.system is None else self.system.expand(x)

    def mesh(self) -> Mesh | None:
        """Return the mesh on which `field` lives: of a grid, all its cells; of a bare matrix, None."""
        if self.system is not None:
            return self.system.mesh
        if self.grid is None:
            return None
        return grid_mesh(self.grid.shape, self.grid.spacing, np.ones(self.grid.size, dtype=bool))


def open_problem(source: str | os.PathLike[str], rhs: str | None = None) -> Problem:
    """Return the linear system of a matrix file, a mesh file, or a case by path or name.

    Parameters
    ----------
    source : ``.mtx``, ``.npz``, ``.mat``; a mesh (held at 0 on its boundary, source 1); a case
    rhs : a file, or "ones", "random", "sine", "dipole"; None: the case's own, else "ones"

    Raises
    ------
    FileNotFoundError, FormatError, OptionError, ShapeError, StructureError

    Examples
    --------
    >>> open_problem("poisson_box_2d").A.shape
    (65536, 65536)
    """
    path = existing_file(find_case(source), {*MATRIX_SUFFIXES, *MESH_SUFFIXES, ".toml"})
    suffix = path.suffix.lower()
    if suffix in MATRIX_SUFFIXES:
        found = read_matrix(path)
        b = right_side("ones", len(found.A.indptr) - 1)
        problem = Problem(path.name, found.A, b, near_null_space=found.near_null_space)
    elif suffix in MESH_SUFFIXES:
        mesh = read_mesh(path)
        system = poisson(mesh, {"boundary": 0.0} if len(mesh.groups["boundary"]) else {})
        problem = Problem(path.name, system.A, system.b, system=system, note=mesh.note)
    else:
        case = load_case(path)
        if not hasattr(case, "problem"):
            command = getattr(case, "command", "simulate")
            msg = f"{path} is {WHAT[command]}; run it with: neuralsolve {command} {source}"
            raise OptionError(msg)
        problem = case.problem()
    return problem if rhs is None else _with_rhs(problem, rhs)


def right_side(source: str | float, n: int, seed: int = SEED, grid: Grid | None = None) -> np.ndarray:
    """Return a right side ``(n,)`` by name, the same in every run.

    "ones" or a number; "random": standard normal; "sine": one arch, along every axis of a grid; "dipole": +1
    and -1 at a quarter and three quarters of the unknowns, or of the first axis of a grid.

    Raises
    ------
    OptionError

    Examples
    --------
    >>> right_side("dipole", 4)
    array([ 0.,  1.,  0., -1.])
    """
    if isinstance(source, int | float) or source == "ones":
        return np.full(n, 1.0 if source == "ones" else float(source))
    if source == "random":
        return np.random.default_rng(seed).standard_normal(n)
    if source == "sine":
        axes = [np.sin(np.pi * (np.arange(side) + 0.5) / side) for side in (grid.shape if grid else (n,))]
        arch = axes[0]
        for axis in axes[1:]:
            arch = arch[..., None] * axis
        return arch.ravel()
    if source == "dipole":
        b = np.zeros(n)
        b[[n // 4, 3 * n // 4] if grid is None else _fluid_cells_at(grid, (0.25, 0.75))] = 1.0, -1.0
        return b
    msg = f"no right side {source!r}{nearest(str(source), SOURCES)} (or give a file)"
    raise OptionError(msg)


def _fluid_cells_at(grid: Grid, heights: tuple[float, ...]) -> list[int]:
    """Return the fluid cells closest to the given parts of the first axis, midway along the others."""
    cells = np.argwhere(grid.fluid.numpy()) + 0.5
    targets = [np.array([height, *[0.5] * (len(grid.shape) - 1)]) * grid.shape for height in heights]
    closest = [cells[((cells - target) ** 2).sum(axis=1).argmin()] for target in targets]
    return [int(np.ravel_multi_index(tuple(cell.astype(int)), grid.shape)) for cell in closest]


def matrix_problem(case: MatrixCase) -> Problem:
    """Return the system of a ``kind = "matrix"`` case."""
    found = read_matrix(referenced_file(case.path, case.file), case.key)
    b, reference = source_and_reference(case, found.A)
    return Problem(
        name=case.path.stem,
        A=found.A,
        b=b,
        reference=reference,
        near_null_space=found.near_null_space,
        options=case.solve.model_dump(exclude_defaults=True),
    )


def mesh_problem(case: MeshCase) -> Problem:
    """Return the system of a ``kind = "mesh"`` case."""
    mesh = read_mesh(referenced_file(case.path, case.file))
    dirichlet = case.dirichlet
    if dirichlet is None:
        dirichlet = {"boundary": 0.0} if len(mesh.groups["boundary"]) else {}
    source, note = _mesh_source(case, mesh), mesh.note
    if isinstance(source, np.ndarray) and not dirichlet and case.shift == 0:
        mass = poisson(mesh).mass  # without a held point only a source of mean zero has a solution
        source = source - mass @ source / mass.sum()
        note = "; ".join([*filter(None, [note]), "source taken less its mean, as nothing is held"])
    system = poisson(mesh, dirichlet, source, case.coefficient, case.shift)
    return Problem(
        name=case.path.stem,
        A=system.A,
        b=system.b,
        system=system,
        options=case.solve.model_dump(exclude_defaults=True),
        note=note,
    )


def source_and_reference(case: Any, A: Any, grid: Grid | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return b and, where the case names a solution x, that x; then b = A x."""
    n = A.shape[0]
    if case.solution is not None:
        x = _vector(case, case.solution, n, grid)
        if grid is not None:
            x = np.where(grid.fluid.numpy().ravel(), x, 0.0)
        b = A @ x if grid is None else _product(A, x)
        return b, x
    return _vector(case, case.source, n, grid), None


def _product(A: Any, x: np.ndarray) -> np.ndarray:
    import torch

    return A.matvec(torch.from_numpy(x)).numpy()


def _vector(case: Any, source: str | float, n: int, grid: Grid | None) -> np.ndarray:
    if isinstance(source, str) and source not in SOURCES and ("." in source or "/" in source):
        return _checked_vector(referenced_file(case.path, source), n)
    return right_side(source, n, case.seed, grid)


def _checked_vector(path: Path, n: int) -> np.ndarray:
    vector = read_vector(path)
    if vector.shape[0] != n:
        msg = f"{path} has {vector.shape[0]} rows, the system has {n} unknowns; give a vector of that length"
        raise ShapeError(msg)
    return vector


def _mesh_source(case: MeshCase, mesh: Mesh) -> float | np.ndarray:
    if not isinstance(case.source, str):
        return case.source
    if case.source in ("x", "y", "z")[: mesh.points.shape[1]]:
        return mesh.points[:, "xyz".index(case.source)]
    return _vector(case, case.source, len(mesh.points), None)


def _with_rhs(problem: Problem, rhs: str) -> Problem:
    from dataclasses import replace

    n = problem.A.shape[0]
    if rhs in SOURCES or not ("." in rhs or "/" in rhs):
        b = right_side(rhs, n, grid=problem.grid)
    else:
        b = _checked_vector(Path(rhs), n)
    return replace(problem, b=b, reference=None)
