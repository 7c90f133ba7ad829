"""AMG by our own smoothed aggregation: symmetric, contracting, blind to the grid, exact where it must be."""

from __future__ import annotations

import numpy as np
import pytest
import recipe_laws as laws
import scipy.sparse as sp
import torch
from scipy.io import mmread

import neuralsolve as ns

AGGREGATION = ns.AMG("aggregation", max_coarse=4)


def poisson(*sides: int) -> sp.csr_array:
    """Minus the Laplacian with zero Dirichlet walls."""
    return sp.csr_array(ns.PoissonStencil(ns.Grid(sides, walls="dirichlet")).to_scipy())


def spd(A) -> ns.CSROperator:
    return ns.as_operator(A, props={"spd"})


def positive_couplings(n: int = 90) -> ns.CSROperator:
    """B^T B of a random sparse B: couplings of both signs, no dominance, condition 1e4."""
    rng = np.random.default_rng(6151)
    B = sp.random_array((n, n), density=0.04, rng=rng, data_sampler=rng.standard_normal)
    return spd(sp.csr_array(B.T @ B + 3e-3 * sp.eye_array(n)))


@pytest.fixture
def many_blocks(monkeypatch):
    """Cut the small matrices of tests into blocks too."""
    monkeypatch.setattr("neuralsolve.preconditioners.aggregation.SMALL", 0)


def spectrum(A, recipe: ns.AMG = AGGREGATION) -> np.ndarray:
    """Return the eigenvalues of M A on the rows of A that are not zero."""
    rows = np.flatnonzero(A.to_scipy().diagonal())
    root = np.linalg.cholesky(A.to_scipy().toarray()[np.ix_(rows, rows)])
    M = laws.dense(recipe.build(A), A.shape[0]).numpy()[np.ix_(rows, rows)]
    return np.linalg.eigvalsh(root.T @ ((M + M.T) / 2) @ root)


# laws


@pytest.mark.parametrize("scene", [*laws.SYMMETRIC, laws.odd_periodic_2d, positive_couplings])
@pytest.mark.parametrize("recipe", [AGGREGATION, ns.AMG("aggregation")], ids=["deep", "default"])
def test_laws(recipe, scene, generator, many_blocks):
    laws.check_laws(recipe, scene(), generator)


@pytest.mark.parametrize("scene", [laws.graph, laws.box_2d, laws.masked_3d, positive_couplings])
def test_a_cycle_contracts_in_the_energy_norm(scene, many_blocks):
    """0 < lambda(M A) <= 1 for SPD A, whatever the couplings; to the rounding of float32."""
    values = spectrum(scene())
    assert values.min() > 0
    assert values.max() <= 1 + 1e-5


@pytest.mark.parametrize("scene", [laws.box_2d, laws.masked_2d, laws.masked_3d, laws.pockets_2d])
def test_a_grid_and_its_matrix_give_the_same_map(scene):
    A = scene()
    rows = spd(A.to_scipy())
    rows.null_space = A.null_space
    on_grid, on_rows = (laws.dense(AGGREGATION.build(operator), A.shape[0]) for operator in (A, rows))
    assert torch.equal(on_grid, on_rows)


def test_the_map_does_not_depend_on_the_number_of_threads(generator):
    A = spd(poisson(260, 260))  # 8 blocks
    r = torch.randn((A.shape[0], 2), dtype=torch.float64, generator=generator)
    before, made = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        made.append(AGGREGATION.build(A).apply(r))
    torch.set_num_threads(before)
    assert torch.equal(*made)


@pytest.mark.parametrize("power", [-120, 100])
def test_powers_of_two_go_through_exactly(power, generator):
    """M(s r) = s M r and M of s A is M / s: float32 inside is scaled, so it neither over- nor underflows."""
    A, s = poisson(20, 20), 2.0**power
    r = torch.randn(400, dtype=torch.float64, generator=generator)
    z = AGGREGATION.build(spd(A)).apply(r)
    assert torch.equal(AGGREGATION.build(spd(A)).apply(s * r), s * z)
    assert torch.equal(AGGREGATION.build(spd(s * A)).apply(r), z / s)
    columns = torch.stack([r, s * r], 1)
    assert torch.equal(
        AGGREGATION.build(spd(A)).apply(columns)[:, 1], s * AGGREGATION.build(spd(A)).apply(columns)[:, 0]
    )


# convergence


@pytest.mark.parametrize("dimension", [2, 3])
def test_iterations_hardly_grow_with_the_grid(dimension, generator):
    counts = []
    for n in (32, 128) if dimension == 2 else (10, 30):
        A = poisson(*[n] * dimension) + 1e-5 * sp.eye_array(n**dimension)
        b = torch.randn(n**dimension, dtype=torch.float64, generator=generator)
        counts.append(ns.solve(A, b, ns.CG(), M=ns.AMG("aggregation")).iterations)
    assert counts[1] <= counts[0] + 3
    assert counts[1] <= 14


def test_a_mesh_without_structure_converges(generator):
    """The graph Laplacian of a triangulation of random points, plus a little mass."""
    from scipy.spatial import Delaunay

    triangles = Delaunay(np.random.default_rng(6067).random((6000, 2))).simplices
    rows, cols = (np.concatenate([triangles[:, k] for k in order]) for order in ((0, 1, 2), (1, 2, 0)))
    W = sp.csr_array((np.ones(len(rows)), (rows, cols)), shape=(6000, 6000))
    W = W + W.T
    A = sp.csr_array(sp.diags_array(W.sum(1)) - W + 1e-4 * sp.eye_array(6000))
    b = torch.randn(6000, dtype=torch.float64, generator=generator)
    assert ns.solve(A, b, ns.CG(), M=ns.AMG("aggregation")).iterations <= 18


@pytest.mark.parametrize("where", [0, -1], ids=["first", "last"])
def test_a_row_coupled_to_all_others_does_not_fill_the_hierarchy(where, generator):
    """A reservoir that every cell leaks into: smoothed, it would couple all aggregates."""
    n = 3600
    A = sp.lil_array((n + 1, n + 1))
    hub, cells = (0, slice(1, n + 1)) if where == 0 else (n, slice(0, n))
    A[cells, cells] = poisson(60, 60) + sp.eye_array(n)
    A[hub, cells] = A[cells, hub] = -1.0
    A[hub, hub] = 2.0 * n
    M = ns.AMG("aggregation").build(spd(sp.csr_array(A)))
    assert sum(M.sizes) <= 2 * M.sizes[0]
    b = torch.randn(n + 1, dtype=torch.float64, generator=generator)
    assert ns.solve(sp.csr_array(A), b, ns.CG(), M=ns.AMG("aggregation")).iterations <= 20


@pytest.mark.parametrize("walls", ["neumann", "periodic"])
def test_singular_systems_take_as_few_iterations_as_regular_ones(walls, generator):
    A = ns.PoissonStencil(ns.Grid((64, 64), walls=walls))
    b = torch.randn(4096, dtype=torch.float64, generator=generator)
    result = ns.solve(A, b - b.mean(), ns.CG(), M=ns.AMG("aggregation"))
    assert result.iterations <= 13
    assert abs(float(result.x.mean())) <= 1e-12 * float(result.x.abs().max())


def test_many_pockets_are_one_system(generator):
    """A hundred regions without a way out, some of one cell: coarse matrices are zero but for rounding."""
    cells = np.full((61, 61), ns.SOLID, np.uint8)
    for k in range(1, 15):
        cells[1:60, k * k // 4 + k : k * k // 4 + k + 1 + k // 4] = ns.FLUID
    cells[::4] = ns.SOLID
    A = ns.PoissonStencil(ns.Grid(cells))
    b = torch.randn(A.shape[0], dtype=torch.float64, generator=generator) * A.active
    A.null_space.project(b)
    for recipe in (AGGREGATION, ns.AMG("aggregation")):
        assert ns.solve(A, b, ns.CG(), M=recipe, rtol=1e-10).iterations <= 20


def test_a_nearly_singular_system_converges(generator):
    """A shift of 1e-9 of the diagonal is one small eigenvalue, which the coarsest level inverts."""
    A = ns.PoissonStencil(ns.Grid((64, 64))).to_scipy() + 4e-9 * sp.eye_array(4096)
    b = torch.randn(4096, dtype=torch.float64, generator=generator)
    assert ns.solve(spd(A), b, ns.CG(), M=ns.AMG("aggregation")).iterations <= 15


def test_real_matrices_converge(data, generator):
    for name, most in (("bcsstk16", 70), ("gr_30_30", 10), ("lap2D_5pt_n100", 12), ("lap3D_7pt_n20", 12)):
        A = sp.csr_array(mmread(data / "matrices" / f"{name}.mtx"))
        b = torch.randn(A.shape[0], dtype=torch.float64, generator=generator)
        assert ns.solve(A, b, ns.CG(), M=ns.AMG("aggregation")).iterations <= most


def test_a_cotangent_laplacian_with_positive_couplings_converges(data, generator):
    A = sp.load_npz(data / "matrices" / "bunny35k_cotan_laplacian.npz")
    b = torch.randn(A.shape[0], dtype=torch.float64, generator=generator)
    assert ns.solve(A, b - b.mean(), ns.CG(), M=ns.AMG("aggregation")).iterations <= 18


def test_a_diagonal_matrix_is_inverted():
    for n in (50, 3000):
        A = spd(sp.diags_array(np.arange(1.0, n + 1)))
        z = ns.AMG("aggregation").build(A).apply(torch.ones(n, dtype=torch.float64))
        torch.testing.assert_close(z, 1 / torch.arange(1.0, n + 1, dtype=torch.float64), rtol=1e-6, atol=0.0)


def test_isolated_rows_are_solved_by_themselves(generator):
    A = sp.block_diag([poisson(15, 15), sp.diags_array(np.linspace(1, 9, 40))], format="csr")
    r = torch.randn(265, dtype=torch.float64, generator=generator)
    z = AGGREGATION.build(spd(A)).apply(r)
    torch.testing.assert_close(
        z[225:], r[225:] / torch.linspace(1, 9, 40, dtype=torch.float64), rtol=1e-6, atol=0.0
    )
    assert ns.solve(A, r, ns.CG(), M=AGGREGATION).iterations <= 12


# near null space and range


def test_a_near_null_vector_stands_in_for_the_constant():
    """D L D has the near-null vector D^-1 1: its iterations are those of L."""
    n, size = 40, 10 ** np.sin(np.arange(1600) * 0.7)
    D = sp.diags_array(size)
    A = sp.csr_array(D @ poisson(n, n) @ D)
    b = A @ np.cos(np.arange(n * n) * 0.3)
    plain, better = (
        ns.solve(A, b, ns.CG(), M=ns.AMG("aggregation", near_null_space=near)).iterations
        for near in (None, 1 / size)
    )
    assert better <= 13
    assert better < plain
    singular = sp.csr_array(D @ ns.PoissonStencil(ns.Grid((n, n))).to_scipy() @ D)
    result = ns.solve(singular, singular @ b, ns.CG(), M=ns.AMG("aggregation"), null_space=1 / size)
    assert result.iterations <= 13


def test_diagonals_too_wide_for_float32_are_cycled_over_in_float64(generator):
    D = sp.diags_array(10 ** np.linspace(-12, 12, 400))
    A = spd(sp.csr_array(D @ poisson(20, 20) @ D))
    M = AGGREGATION.build(A)
    assert "float64 because" in M.describe()
    assert torch.isfinite(M.apply(torch.randn(400, dtype=torch.float64, generator=generator))).all()


# update


def test_update_follows_the_values_and_is_a_fresh_build():
    A = laws.graph()
    scale = sp.diags_array(np.linspace(1, 1.01, A.shape[0]))
    laws.check_update(AGGREGATION, A, spd(3.0 * scale @ A.to_scipy() @ scale))


def test_update_to_another_pattern_is_a_fresh_build():
    laws.check_update(AGGREGATION, laws.graph(), laws.graph(seed=8111))
    laws.check_update(AGGREGATION, spd(poisson(6, 12)), spd(poisson(8, 9)))


def test_update_keeps_the_aggregates_of_a_pattern(generator):
    """Another material on the same mesh: the map changes, the aggregates do not, and CG converges."""
    grid = ns.Grid((50, 50), walls="dirichlet")
    weights = [10 ** torch.rand((50, 50), dtype=torch.float64, generator=generator).numpy() for _ in range(2)]
    first, second = (
        spd(ns.PoissonStencil(grid, ns.face_coefficients(values, grid)).to_scipy()) for values in weights
    )
    M = AGGREGATION.build(first)
    labels = [level.clone() for level, _ in M.labels]
    M.update(second)
    assert all(torch.equal(old, new) for old, (new, _) in zip(labels, M.labels, strict=True))
    b = torch.randn(2500, dtype=torch.float64, generator=generator)
    assert ns.solve(second, b, ns.CG(), M=M.aslinearoperator(2500)).iterations <= 20


# refusals


def test_describe_tells_the_size_of_the_hierarchy():
    words = ns.AMG("aggregation").build(spd(poisson(40, 40))).describe()
    assert "AMG (aggregation): 3 levels" in words
    assert 1 < float(words.split("complexity ")[1].split(",")[0]) < 1.6
    short = ns.AMG("aggregation", max_levels=2).build(spd(poisson(120, 120)))
    assert "coarsening stopped at" in short.describe()
    assert short.apply(torch.ones(14400, dtype=torch.float64)).min() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cycle": "W"}, r"takes no cycle.*AMG\(kind='sa', cycle='W'\)"),
        ({"sweeps": 2}, r"takes no sweeps.*kind='sa'"),
        ({"strength": "symmetric"}, r"takes no strength.*kind='sa'"),
        ({"interpolation": "direct"}, r"takes no interpolation.*kind='rs'"),
    ],
)
def test_options_of_other_kinds_are_refused(options, message):
    with pytest.raises(ns.OptionError, match=message):
        ns.AMG("aggregation", **options)


@pytest.mark.parametrize(
    ("A", "message"),
    [
        (ns.as_operator(sp.csr_array([[2.0, 1], [0, 2]])), r"symmetric A.*props=\{'spd'\}.*AMG\('rs'\)"),
        (spd(np.array([[0.0, 1], [1, 2]])), "zero"),
        (spd(np.array([[-1.0, 0], [0, 2]])), r"positive diagonal, and 1 entries.*-A"),
        (ns.CallableOperator(lambda x: x, (3, 3), props={"spd"}), r"needs the entries"),
    ],
    ids=["nonsymmetric", "zero", "negative", "function"],
)
def test_matrices_it_is_not_made_for_are_refused(A, message):
    with pytest.raises(ns.StructureError, match=message):
        ns.AMG("aggregation").build(A)


def test_near_null_spaces_it_cannot_take_are_refused():
    A = spd(poisson(5, 5))
    for near in (np.ones((25, 2)), np.arange(25.0)):
        with pytest.raises(ns.StructureError, match=r"one near-null-space vector without zeros.*AMG\('sa'"):
            ns.AMG("aggregation", near_null_space=near).build(A)
