"""Whole solves of multigrid, set-up included, in races with PyAMG and PETSc."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, missing, named, race_row
from neuralsolve.bench.rivals import (
    PETSC,
    Run,
    Trial,
    ours,
    petsc,
    petsc_missing,
    product,
    pyamg,
    race,
    stencil_system,
)
from neuralsolve.bench.scenes import two_phase
from neuralsolve.bench.system import System
from neuralsolve.errors import OptionError
from neuralsolve.operators.coefficients import face_coefficients
from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.pde.scenes import free_surface
from neuralsolve.preconditioners.amg import AMG
from neuralsolve.preconditioners.multigrid import Multigrid

RTOL = 1e-8
RS, SA, PRODUCT = "PyAMG RS + cg", "PyAMG SA + cg", "SciPy CSR product"
MESH_NODES = 448  # along a side: 200 704 in all


def masked_3d(settings: Settings) -> Iterator[BarRow]:
    """Race obstacles and a free surface in 128^3 with PyAMG, PETSc on two ranks, and SciPy's product."""
    shape, seeds = settings.cells(128, 128, 128), settings.seeds(3)
    absent = petsc_missing()
    races = []
    for seed in seeds:
        make, system, b = masked(shape, seed)
        rivals = {PRODUCT: product(system), RS: pyamg("rs", system, RTOL), SA: pyamg("sa", system, RTOL)}
        rivals |= {} if absent else {name: petsc(words, system, RTOL) for name, words in PETSC.items()}
        races.append(race(ours(make, Multigrid(), system, b, RTOL), rivals, settings.repeats))
    problem = f"masked {named(shape)}"
    for name in (RS, SA):
        yield _gain("masked_3d", problem, name, Bars(30, 60, at_least=True), races, seeds)
    yield race_row(
        "masked_3d",
        problem,
        "our set-up and solve in products of SciPy",
        Bars(25, 12),
        races,
        PRODUCT,
        RTOL,
        unit="products",
        seeds=listed(seeds),
    )
    for name in PETSC:
        bars = Bars(8, 20, at_least=True)
        if absent:
            yield missing("masked_3d", problem, f"{name}, 2 ranks / ours", "x", bars, absent)
        else:
            yield _gain("masked_3d", problem, name, bars, races, seeds, ", 2 ranks")


def masked_2d(settings: Settings) -> Iterator[BarRow]:
    """Race obstacles and a free surface in 1024^2 with PyAMG."""
    shape, seeds = settings.cells(1024, 1024), settings.seeds(3)
    races = []
    for seed in seeds:
        make, system, b = masked(shape, seed)
        rivals = {RS: pyamg("rs", system, RTOL)}
        races.append(race(ours(make, Multigrid(), system, b, RTOL), rivals, settings.repeats))
    yield _gain("masked_2d", f"masked {named(shape)}", RS, Bars(15, 30, at_least=True), races, seeds)


def darcy(settings: Settings) -> Iterator[BarRow]:
    """Race Darcy flow in two phases, 421^2, source 1: new coefficients and a new set-up for every sample."""
    shape, seeds = settings.cells(421, 421), settings.seeds(5)
    grid, b = Grid(shape, walls="dirichlet"), np.ones(shape[0] * shape[1])
    races = []
    for seed in seeds:
        values = two_phase(shape, np.random.default_rng(seed))

        def make(values: np.ndarray = values) -> PoissonStencil:
            return PoissonStencil(grid, face_coefficients(values, grid))

        system = stencil_system("Darcy", make(), b)
        rivals = {RS: pyamg("rs", system, RTOL)}
        races.append(race(ours(make, Multigrid(), system, b, RTOL), rivals, settings.repeats))
    yield _gain("darcy", f"Darcy 12:3, {named(shape)}", RS, Bars(5, 15, at_least=True), races, seeds)


def aggregation(settings: Settings) -> Iterator[BarRow]:
    """Race our own algebraic multigrid on matrices with the faster of PyAMG's two."""
    bars, quantity = Bars(3, 8, at_least=True), f"faster of {RS} and {SA} / ours"
    seeds = settings.seeds(1)
    for problem, matrix in _matrices(settings):
        try:
            M = AMG(kind="aggregation")
            system = _matrix_system(problem, matrix(seeds[0]), seeds[0])
        except (OptionError, FileNotFoundError, ImportError) as error:
            yield missing("aggregation", problem, quantity, "x", bars, str(error))
            continue
        rivals: dict[str, Run] = {RS: pyamg("rs", system, RTOL), SA: pyamg("sa", system, RTOL)}
        run = ours(lambda system=system: system.problem.A, M, system, system.problem.b, RTOL)
        races = [race(run, rivals, settings.repeats)]
        more: dict[str, Any] = {"seeds": listed(seeds)}
        yield race_row("aggregation", problem, quantity, bars, races, (RS, SA), RTOL, **more)


def masked(
    shape: tuple[int, ...], seed: int, **spacing: Any
) -> tuple[Callable[[], PoissonStencil], System, np.ndarray]:
    """Return how to make A from cells, the system of its fluid cells, and white noise on all cells."""
    generator = np.random.default_rng(seed)
    cells = free_surface(shape, generator).cells.numpy()
    b = generator.standard_normal(cells.size)

    def make() -> PoissonStencil:
        return PoissonStencil(Grid(cells, walls="neumann", **spacing))

    return make, stencil_system(f"masked {named(shape)}", make(), b), b


def _gain(
    group: str,
    problem: str,
    rival: str,
    bars: Bars,
    races: list[dict[str, Trial]],
    seeds: list[int],
    where: str = "",
) -> BarRow:
    quantity = f"{rival}{where} / ours"
    return race_row(group, problem, quantity, bars, races, rival, RTOL, seeds=listed(seeds))


def _matrices(settings: Settings) -> Iterator[tuple[str, Callable[[int], Any]]]:
    shape = settings.cells(96, 96, 96)
    side = settings.cells(MESH_NODES)[0]
    yield "bunny35k, cotangent Laplacian", lambda seed: _bunny()
    yield (
        f"7-point {named(shape)}, CSR",
        lambda seed: _box(shape),
    )
    yield f"P1 mesh, {side**2} nodes", lambda seed: _triangles(side, np.random.default_rng(seed))


def _matrix_system(name: str, matrix: Any, seed: int) -> System:
    return stencil_system(name, matrix, np.random.default_rng(seed).standard_normal(matrix.shape[0]))


def _box(shape: tuple[int, ...]) -> Any:
    return PoissonStencil(Grid(shape, walls="dirichlet")).to_scipy()


def _bunny() -> Any:
    from neuralsolve.io import read_matrix

    folder = os.environ.get("NEURALSOLVE_DATA")
    if not folder:
        msg = "$NEURALSOLVE_DATA is not set"
        raise FileNotFoundError(msg)
    return read_matrix(Path(folder) / "matrices" / "bunny35k_cotan_laplacian.npz").A


def _triangles(side: int, generator: np.random.Generator) -> Any:
    """Return the stiffness matrix of a unit square, its inner nodes moved by up to a quarter of a cell."""
    import scipy.sparse as sp
    from skfem import Basis, ElementTriP1, MeshTri, condense
    from skfem.models.poisson import laplace

    mesh = MeshTri.init_tensor(np.linspace(0, 1, side), np.linspace(0, 1, side))
    points = np.array(mesh.p)
    inside = mesh.interior_nodes()
    points[:, inside] += generator.uniform(-0.25, 0.25, (2, len(inside))) / (side - 1)
    basis = Basis(MeshTri(points, mesh.t), ElementTriP1())
    stiffness = condense(laplace.assemble(basis), D=basis.get_dofs(), expand=False)
    return sp.csr_array(stiffness)
