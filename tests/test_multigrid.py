"""Multigrid on grids: M is symmetric positive definite, and iterations do not grow with the grid."""

from __future__ import annotations

import numpy as np
import pytest
import recipe_laws as laws
import torch
from grids import random_faces, stencils
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralsolve as ns
from neuralsolve import Status
from neuralsolve.pde.scenes import free_surface, inclusions

RANDOM = settings(max_examples=25, deadline=None, derandomize=True)
SMOOTHERS = ["chebyshev", "jacobi", "red-black"]


def white(A, *shape, seed=9103):
    return np.random.default_rng(seed).standard_normal((A.shape[0], *shape))


def iterations(A, rtol=1e-6, M=None, method=None, **options) -> int:
    """Return the steps of a solve that must converge, checked against the matrix."""
    b = white(A)
    result = ns.solve(A, b, method or ns.CG(), M=M or ns.Multigrid(), rtol=rtol, **options)
    given_to = torch.from_numpy(b.copy())
    if A.active is not None:
        given_to[~A.active] = 0
    if A.null_space is not None:
        A.null_space.project(given_to)
    left = given_to.numpy() - A.matvec(torch.from_numpy(result.x)).numpy()
    assert np.linalg.norm(left) <= 1.001 * rtol * np.linalg.norm(b)
    return result.iterations


def spectrum(M: torch.Tensor, A) -> np.ndarray:
    """Return the eigenvalues of M A outside the null space, through the symmetric A^(1/2) M A^(1/2)."""
    values, vectors = np.linalg.eigh(A.to_scipy().toarray())
    good = values > 1e-10 * values.max()
    root = vectors[:, good] * np.sqrt(values[good])
    return np.linalg.eigvalsh(root.T @ ((M + M.T) / 2).numpy() @ root)


def varied(shape, seed=9109, **walls):
    """Return a stencil of inclusions a hundred times as conductive."""
    grid = ns.Grid(shape, **walls)
    return ns.PoissonStencil(
        grid, ns.face_coefficients(inclusions(shape, np.random.default_rng(seed), 100.0), grid)
    )


# M


@RANDOM
@given(
    stencils(max_side=7),
    st.sampled_from(["V", "W"]),
    st.sampled_from(SMOOTHERS),
    st.integers(1, 6),
    st.integers(1, 3),
)
def test_m_is_symmetric_positive_definite_on_any_grid(A, cycle, smoother, coarsest, sweeps):
    rows = laws.active(A)
    M = ns.Multigrid(cycle, smoother, sweeps, coarsest=coarsest).build(A)
    assert M.symmetric
    whole = laws.dense(M, A.shape[0])
    size = float(whole.abs().max())
    torch.testing.assert_close(whole, whole.T, rtol=0.0, atol=1e-5 * size)
    assert not whole[~rows].any()
    assert not whole[:, ~rows].any()
    if rows.any():
        assert laws.smallest_energy((whole + whole.T) / 2, A) > 0


@RANDOM
@given(stencils(max_side=8), st.integers(1, 6))
def test_the_default_contracts(A, coarsest):
    """0 < lambda(M A) < 2: the cycle is a solver of its own."""
    M = ns.Multigrid(coarsest=coarsest).build(A)
    if "instead of W" in M.describe() or not laws.active(A).any():
        return
    values = spectrum(laws.dense(M, A.shape[0]), A)
    assert values.min() > 0
    assert values.max() < 2


@pytest.mark.parametrize("scene", [laws.masked_2d, laws.masked_3d])
def test_what_lies_outside_the_fluid_is_ignored(scene, generator):
    A = scene()
    M = ns.Multigrid(coarsest=4).build(A)
    r = torch.randn(A.shape[0], dtype=torch.float64, generator=generator)
    inside = torch.where(A.active, r, 0.0)
    for other in (r, torch.where(A.active, r, 1e3)):
        z = M.apply(other)
        torch.testing.assert_close(z, M.apply(inside), rtol=0.0, atol=1e-6 * float(z.abs().max()))
        assert not z[~A.active].any()


@pytest.mark.parametrize("recipe", [ns.Multigrid(coarsest=4), ns.Multigrid("full", coarsest=4)])
@pytest.mark.parametrize("scene", [laws.masked_2d, laws.masked_3d, laws.box_2d])
def test_m_is_linear_over_all_sizes_of_numbers(scene, recipe, generator):
    A = scene()
    M = recipe.build(A)
    r = torch.randn((A.shape[0], 3), dtype=torch.float64, generator=generator)
    z = M.apply(r)
    for power in (-1000, -660, 40, 660, 1000):
        assert torch.equal(M.apply(r * 2.0**power), z * 2.0**power)
    for scale in (1e-200, 1e200):
        torch.testing.assert_close(M.apply(r * scale) / scale, z, rtol=0.0, atol=1e-5 * float(z.abs().max()))
    for j in range(3):
        assert torch.equal(M.apply(r[:, j].contiguous()), z[:, j])
    mixed = r * torch.tensor([1.0, 2.0**500, 2.0**-500], dtype=torch.float64)  # columns keep to themselves
    assert torch.equal(M.apply(mixed)[:, 0], z[:, 0])
    assert not M.apply(torch.zeros_like(r)).any()


@pytest.mark.parametrize("faint", [0.0, 1e-30, 1e-60, 1e-200])
def test_one_source_among_faint_numbers(faint, generator):
    """The size of r is told by samples: a source between them must not overflow float32."""
    A = ns.PoissonStencil(ns.Grid((96, 96), walls="dirichlet"))
    M = ns.Multigrid().build(A)
    source = torch.zeros(A.shape[0], dtype=torch.float64)
    source[96 * 50 + 41] = 1.0
    b = source + faint * torch.randn(A.shape[0], dtype=torch.float64, generator=generator) * (source == 0)
    torch.testing.assert_close(M.apply(b), M.apply(source), rtol=0.0, atol=1e-6)
    assert ns.solve(A, b, ns.CG(), M=ns.Multigrid()).iterations <= 9


# updates


def storage(M) -> list[int]:
    h = M._hierarchy
    tensors = [t for level in h.levels for t in (level.inverse, level.faces, level.weights)]
    return [t.data_ptr() for t in [h.vectors, h.matrices, h.bytes, *h.spare, *tensors]]


@pytest.mark.parametrize("smoother", SMOOTHERS)
@pytest.mark.parametrize("shape", [(17, 12), (7, 6, 9)])
def test_an_update_is_a_fresh_build_in_the_room_that_is_there(shape, smoother):
    """New masks, walls of the same periodicity, and coefficients; one after the other."""
    rng = np.random.default_rng(9127)
    recipe = ns.Multigrid(smoother=smoother, coarsest=6)

    def masked():
        cells = (rng.random(shape) < 0.25).astype(np.uint8) * rng.integers(1, 3, shape).astype(np.uint8)
        walls = [("neumann", ["neumann", "dirichlet"][rng.integers(2)])] * len(shape)
        return ns.PoissonStencil(ns.Grid(cells, spacing=float(rng.uniform(0.1, 9)), walls=walls))

    def split():
        grid = ns.Grid(shape)
        return ns.PoissonStencil(grid, random_faces(grid, rng, closed=0.3))

    for make in (masked, split):
        M = recipe.build(make())
        room = storage(M)
        for _ in range(3):
            A = make()
            M.update(A)
            assert storage(M) == room
            fresh = recipe.build(A)
            r = torch.from_numpy(white(A, 3))
            assert torch.equal(M.apply(r), fresh.apply(r))
            assert M.describe() == fresh.describe()
            assert M.symmetric == fresh.symmetric


def test_an_update_to_another_shape_or_kind_is_a_fresh_build():
    A = laws.masked_2d()
    M = ns.Multigrid(coarsest=4).build(A)
    for other in (varied((9, 8)), laws.masked_3d(), laws.odd_periodic_2d(), A):
        M.update(other)
        fresh = ns.Multigrid(coarsest=4).build(other)
        assert torch.equal(laws.dense(M, other.shape[0]), laws.dense(fresh, other.shape[0]))


def test_prepared_systems_follow_their_coefficients():
    grid = ns.Grid((40, 40), walls="dirichlet")
    solver = ns.prepare(varied((40, 40), walls="dirichlet"), ns.CG(), M=ns.Multigrid())
    for seed in (9133, 9137):
        values = np.random.default_rng(seed).uniform(1, 10, grid.shape)
        A = ns.PoissonStencil(grid, ns.face_coefficients(values, grid))
        solver.update(A)
        b = white(A)
        result = solver.solve(b)
        assert result.iterations <= 10
        assert np.linalg.norm(b - A.to_scipy() @ result.x) <= 1.001e-8 * np.linalg.norm(b)


# iterations


BY_SIZE = {(64, 64): 8, (128, 128): 8, (256, 256): 8, (32, 32, 32): 9, (48, 48, 48): 9}
LARGE = {(512, 512): 8, (64, 64, 64): 9, (96, 96, 96): 9}


@pytest.mark.parametrize(
    ("shape", "most"),
    [*BY_SIZE.items(), *(pytest.param(*case, marks=pytest.mark.slow) for case in LARGE.items())],
)
def test_iterations_are_bounded_whatever_the_grid(shape, most):
    for seed in (9151, 9157):
        A = ns.PoissonStencil(free_surface(shape, np.random.default_rng(seed)))
        assert iterations(A) <= most


@pytest.mark.slow
@pytest.mark.parametrize("shapes", [[(64, 64), (1024, 1024)], [(24,) * 3, (96,) * 3]])
def test_iterations_do_not_grow(shapes):
    few, many = (
        iterations(ns.PoissonStencil(free_surface(shape, np.random.default_rng(9161))), 1e-8)
        for shape in shapes
    )
    assert many <= few + 2


@pytest.mark.parametrize("walls", ["dirichlet", "neumann", "periodic"])
@pytest.mark.parametrize("spacing", [(1.0, 100.0), (100.0, 1.0), (1.0, 10.0)])
def test_stretched_cells_take_no_more_iterations(spacing, walls):
    A = ns.PoissonStencil(ns.Grid((96, 72), spacing, walls=walls))
    assert iterations(A, 1e-8) <= 12


def test_stretched_cells_in_three_dimensions():
    for spacing in ((1.0, 100.0, 1.0), (100.0, 1.0, 100.0), (1.0, 10.0, 100.0)):
        assert iterations(ns.PoissonStencil(ns.Grid((20, 24, 16), spacing)), 1e-8) <= 12


def test_stretched_cells_around_obstacles():
    cells = free_surface((128, 128), np.random.default_rng(9173)).cells
    assert iterations(ns.PoissonStencil(ns.Grid(cells, (1.0, 100.0))), 1e-8) <= 20
    assert iterations(ns.PoissonStencil(ns.Grid(cells, (100.0, 1.0))), 1e-8) <= 20


@pytest.mark.parametrize("contrast", [1e-6, 1e-4, 1e4, 1e6])
@pytest.mark.parametrize("shape", [(96, 80), (24, 20, 22)])
def test_jumping_coefficients(shape, contrast):
    for seed in (9181, 9187):
        grid = ns.Grid(shape, walls="dirichlet")
        values = inclusions(shape, np.random.default_rng(seed), contrast)
        assert iterations(ns.PoissonStencil(grid, ns.face_coefficients(values, grid)), 1e-8) <= 13


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 7), (2, 300), (300, 2), (1, 20, 31), (31, 1, 20), (20, 31, 1), (3, 127)]
)
@pytest.mark.parametrize("walls", ["neumann", "periodic", "dirichlet"])
def test_flat_and_thin_grids(shape, walls):
    assert iterations(ns.PoissonStencil(ns.Grid(shape, walls=walls)), 1e-8) <= 12


@pytest.mark.parametrize("shape", [(97, 89), (61, 2), (13, 17, 19), (127, 127)])
@pytest.mark.parametrize("walls", ["neumann", "periodic", ("periodic", "dirichlet", "neumann")])
def test_prime_sides(shape, walls):
    walls = walls if isinstance(walls, str) else walls[: len(shape)]
    assert iterations(ns.PoissonStencil(ns.Grid(shape, walls=walls)), 1e-8) <= 12


# geometry


def maze(n: int) -> np.ndarray:
    """Return one channel, a cell wide, that winds through a square."""
    cells = np.full((n, n), ns.FLUID, np.uint8)
    cells[1::2] = ns.SOLID
    cells[1::4, -1] = cells[3::4, 0] = ns.FLUID
    return cells


def pockets() -> np.ndarray:
    cells = np.full((40, 60), ns.FLUID, np.uint8)
    cells[13], cells[:, 29], cells[27, :29] = ns.SOLID, ns.SOLID, ns.SOLID
    cells[14:27, 30:][:, ::7] = ns.SOLID
    cells[5, 5:9], cells[3:7, 7] = ns.SOLID, ns.SOLID
    return cells


def plates() -> np.ndarray:
    cells = np.full((64, 64), ns.FLUID, np.uint8)
    cells[20, :50], cells[31, 9:], cells[5:60, 33] = ns.SOLID, ns.SOLID, ns.SOLID
    return cells


def dust() -> np.ndarray:
    """Return cells of which two in five are solid: dead ends, cells apart, pockets of a few."""
    return (np.random.default_rng(9199).random((50, 50)) < 0.4).astype(np.uint8)


@pytest.mark.parametrize(
    ("cells", "most"),
    [(pockets(), 15), (plates(), 15), (maze(21), 40), (dust(), 60)],
    ids=["pockets", "plates", "maze", "dust"],
)
@pytest.mark.parametrize("walls", ["neumann", "periodic", ("neumann", ("dirichlet", "neumann"))])
def test_hard_geometry_is_solved(cells, most, walls):
    assert iterations(ns.PoissonStencil(ns.Grid(cells, walls=walls)), 1e-8) <= most


@pytest.mark.parametrize("walls", ["neumann", ("neumann", "dirichlet")])
@pytest.mark.parametrize("place", [1, 2, 7, 32, 33, 48, 59, 61, 62, 63])
def test_a_plate_of_closed_faces_costs_nothing(place, walls):
    grid = ns.Grid((64, 64), walls=walls)
    faces = list(ns.face_coefficients(np.ones((64, 64)), grid))
    faces[0][place] = 0.0
    assert iterations(ns.PoissonStencil(grid, faces), 1e-8) <= 12


def test_tight_tolerances_are_met():
    for shape in ((33, 40), (10, 12, 14)):
        A = ns.PoissonStencil(ns.Grid(shape, walls="dirichlet"))
        assert iterations(A, 1e-12) <= 14


# alone, and with methods that ask less of M


@pytest.mark.parametrize("cycle", ["V", "W", "F", "full"])
def test_a_cycle_alone_contracts(cycle):
    grids = [ns.Grid((65, 47), walls="dirichlet"), free_surface((64, 64), np.random.default_rng(9203))]
    for grid in grids:
        A = ns.PoissonStencil(grid)
        assert iterations(A, 1e-8, ns.Multigrid(cycle), ns.Richardson()) <= 30
        for method in (ns.FlexibleCG(), ns.GMRES()):
            assert iterations(A, 1e-8, ns.Multigrid(cycle), method) <= 10


def test_unequal_sweeps_and_other_cycles_are_not_symmetric():
    A = laws.masked_2d()
    for recipe in (
        ns.Multigrid(sweeps=(1, 2)),
        ns.Multigrid("F"),
        ns.Multigrid("full"),
        ns.Multigrid(sweeps=(0, 2)),
    ):
        assert not recipe.build(A).symmetric
        with pytest.raises(ns.StructureError, match=r"symmetric positive definite M; multigrid"):
            ns.solve(A, white(A), ns.CG(), M=recipe)
        assert ns.solve(A, white(A), ns.FlexibleCG(), M=recipe).converged


@pytest.mark.parametrize("cycle", ["V", "W"])
@pytest.mark.parametrize("correction", [0.3, 1.8, 2.5, 6.0])
def test_no_correction_is_told_to_converge_where_it_does_not(cycle, correction):
    """CG takes any factor, as M stays definite; alone a cycle may diverge, and then says so."""
    A = ns.PoissonStencil(free_surface((64, 64), np.random.default_rng(9209)))
    S, b = A.to_scipy(), np.where(A.active.numpy(), white(A), 0.0)
    recipe = ns.Multigrid(cycle, correction=correction)
    result = ns.solve(A, b, ns.CG(), M=recipe)
    assert np.linalg.norm(b - S @ result.x) <= 1.001e-8 * np.linalg.norm(b)
    assert ("instead of W, which would not contract" in result.explanation) == (
        cycle == "W" and correction > 2
    )
    alone = ns.solve(A, b, ns.Richardson(), M=recipe, throw=False, maxiter=500)
    met = np.linalg.norm(b - S @ alone.x) <= 1.001e-8 * np.linalg.norm(b)
    assert alone.converged == met
    if correction > 2:
        assert alone.status is Status.DIVERGED


@pytest.mark.parametrize("seed", [9029, 9033, 9038, 9039])
def test_a_level_deep_down_that_would_not_contract_is_found(seed):
    """A second correction on any level wants lambda(M A) < 2 there; the finest one alone looks well."""
    grid = ns.Grid((3, 5, 2), (30.0, 30.0, 1.0), ("periodic", "neumann", ("neumann", "dirichlet")))
    A = ns.PoissonStencil(grid, random_faces(grid, np.random.default_rng(seed), closed=0.4))
    M = ns.Multigrid(coarsest=2).build(A)
    assert "V(2,2)" in M.describe()
    assert "instead of W, which would not contract" in M.describe()
    assert laws.smallest_energy(laws.dense(M, A.shape[0]), A) > 0


# refusals


def test_a_matrix_is_refused_and_told_of_its_grid():
    A = ns.PoissonStencil(ns.Grid((12, 12), walls="dirichlet"))
    with pytest.raises(ns.StructureError, match=r"PoissonStencil, given CSROperator.*grid=cells"):
        ns.solve(A.to_scipy(), white(A), ns.CG(), M=ns.Multigrid())
    solved = ns.solve(A.to_scipy(), white(A), ns.CG(), M=ns.Multigrid(), grid=np.zeros((12, 12), np.uint8))
    assert solved.converged


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cycle": "w"}, r"cycle='w'\) is unknown; known: F, V, W, full"),
        ({"cycle": "FMG"}, r"cycle='FMG'\) is unknown"),
        ({"smoother": "redblack"}, r"smoother='redblack'\) is unknown.*red-black"),
        ({"sweeps": 0}, "sweeps"),
        ({"sweeps": (0, 0)}, r"sweeps=\(0, 0\)"),
        ({"sweeps": (1, 2, 3)}, r"sweeps is \(1, 2, 3\)"),
        ({"sweeps": 1.5}, "sweeps"),
        ({"smoother": "jacobi", "omega": 2.0}, "omega=2.0"),
        ({"smoother": "jacobi", "omega": float("nan")}, "omega=nan"),
        ({"omega": 0.8}, "chebyshev.*omega"),
        ({"band": 1.0}, "band=1.0"),
        ({"correction": 0.0}, "correction=0.0"),
        ({"correction": float("inf")}, "correction=inf"),
        ({"strong": 1.5}, "strong=1.5"),
        ({"coarsest": 0}, "coarsest"),
        ({"max_levels": 0}, "max_levels"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ns.OptionError, match=message):
        ns.Multigrid(**options)


@pytest.mark.parametrize("cells", [np.full((6, 7), ns.SOLID, np.uint8), np.full((4, 5, 6), ns.AIR, np.uint8)])
def test_without_fluid_x_is_zero(cells):
    A = ns.PoissonStencil(ns.Grid(cells))
    assert not ns.Multigrid(coarsest=2).build(A).apply(torch.ones(A.shape[0], dtype=torch.float64)).any()
    result = ns.solve(A, np.ones(A.shape[0]), ns.CG(), M=ns.Multigrid())
    assert result.converged
    assert not result.x.any()


def test_nan_is_refused_before_it_spreads():
    A = laws.masked_2d()
    b = white(A)
    b[3] = np.nan
    solver = ns.prepare(A, ns.CG(), M=ns.Multigrid())
    with pytest.raises(ns.NonFiniteError, match="b has 1"):
        solver.solve(b)
    b[3] = 1.0
    assert solver.solve(b).converged  # nothing is left of it
