"""Algebraic multigrid: the cycle is PyAMG's, contracts, does not feel the grid, copes where PyAMG fails."""

from __future__ import annotations

import numpy as np
import pyamg
import pytest
import recipe_laws as laws
import scipy.sparse as sp
import torch
from scipy.io import loadmat, mmread

import neuralsolve as ns

RECIPES = [
    ns.AMG(max_coarse=4),
    ns.AMG(max_coarse=4, cycle="W", interpolation="direct"),
    ns.AMG("sa", max_coarse=4),
    ns.AMG("sa", max_coarse=4, sweeps=2, strength=("symmetric", {"theta": 0.08})),
    ns.AMG(),
]


def poisson(*sides: int) -> sp.csr_array:
    return sp.csr_array(pyamg.gallery.poisson(sides, format="csr"))


def spd(A) -> ns.CSROperator:
    return ns.as_operator(A, props={"spd"})


def spectrum(recipe: ns.AMG, A) -> np.ndarray:
    """Return the eigenvalues of M A for SPD A and M."""
    root = np.linalg.cholesky(A.to_scipy().toarray())
    M = laws.dense(recipe.build(A), A.shape[0]).numpy()
    return np.linalg.eigvalsh(root.T @ M @ root)


# laws


@pytest.mark.parametrize("recipe", RECIPES, ids=repr)
@pytest.mark.parametrize("scene", [*laws.SCENES, laws.odd_periodic_2d])
def test_recipes_obey_the_laws(recipe, scene, generator):
    A = scene()
    laws.check_laws(recipe, A, generator)
    assert recipe.build(A).symmetric == A.symmetric


@pytest.mark.parametrize("recipe", RECIPES[:3], ids=repr)
def test_update_follows_the_values(recipe):
    A = laws.graph()
    scale = sp.diags_array(np.linspace(1, 2, A.shape[0]))
    laws.check_update(recipe, A, spd(scale @ A.to_scipy() @ scale))


@pytest.mark.parametrize("recipe", RECIPES, ids=repr)
@pytest.mark.parametrize("scene", [laws.box_2d, laws.masked_2d, laws.masked_3d, laws.pockets_2d])
def test_a_grid_and_its_matrix_give_the_same_map(recipe, scene):
    A = scene()
    rows = spd(A.to_scipy())
    rows.null_space = A.null_space
    on_grid, on_rows = (laws.dense(recipe.build(operator), A.shape[0]) for operator in (A, rows))
    torch.testing.assert_close(on_grid, on_rows, rtol=0.0, atol=1e-13 * float(on_rows.abs().max()))


# the cycle


@pytest.mark.parametrize("cycle", ["V", "W"])
def test_the_cycle_is_pyamgs_own(cycle, generator):
    A = poisson(30, 31)
    theirs = pyamg.ruge_stuben_solver(A, max_coarse=10).aspreconditioner(cycle=cycle)
    r = torch.randn(A.shape[0], dtype=torch.float64, generator=generator)
    z = ns.AMG(max_coarse=10, cycle=cycle).build(spd(A)).apply(r)
    np.testing.assert_allclose(z.numpy(), theirs @ r.numpy(), rtol=0, atol=1e-12 * float(z.abs().max()))


@pytest.mark.parametrize("recipe", RECIPES, ids=repr)
@pytest.mark.parametrize("scene", [laws.graph, laws.box_2d])
def test_a_cycle_contracts_in_the_energy_norm(recipe, scene):
    """0 < lambda(M A) <= 1: symmetric sweeps, Galerkin coarse matrices (Trottenberg et al. 2001, app. A)."""
    values = spectrum(recipe, scene())
    assert values.min() > 0
    assert values.max() <= 1 + 1e-12


@pytest.mark.parametrize("kind", ["rs", "sa"])
def test_iterations_hardly_grow_with_the_grid(kind, generator):
    counts = []
    for n in (32, 128):
        A = poisson(n, n) + 1e-4 * sp.eye_array(n * n)
        b = torch.randn(n * n, dtype=torch.float64, generator=generator)
        counts.append(ns.solve(A, b, ns.CG(), M=ns.AMG(kind)).iterations)
    assert counts[1] <= counts[0] + 3
    assert counts[1] <= 12


def test_a_w_cycle_is_at_least_as_good_as_a_v_cycle():
    A = laws.box_2d()
    V, W = (spectrum(ns.AMG("sa", max_coarse=2, cycle=cycle), A) for cycle in "VW")
    assert V.min() - 1e-12 <= W.min() <= 1


def test_a_hierarchy_depends_on_a_alone_and_leaves_the_random_state(generator):
    A = spd(poisson(40, 40))
    r = torch.randn(1600, dtype=torch.float64, generator=generator)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - PyAMG draws from it
    first = ns.AMG("sa").build(A).apply(r)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    np.random.random(7)  # noqa: NPY002
    assert torch.equal(first, ns.AMG("sa").build(A).apply(r))


# singular systems


@pytest.mark.parametrize("kind", ["rs", "sa"])
@pytest.mark.parametrize("walls", ["neumann", "periodic"])
def test_singular_systems_take_as_few_iterations_as_regular_ones(kind, walls, generator):
    A = ns.PoissonStencil(ns.Grid((64, 64), walls=walls))
    b = torch.randn(4096, dtype=torch.float64, generator=generator)
    result = ns.solve(A, b - b.mean(), ns.CG(), M=ns.AMG(kind))
    assert result.converged
    assert result.iterations <= 12
    assert abs(float(result.x.mean())) <= 1e-12 * float(result.x.abs().max())


def test_many_pockets_are_one_system(generator):
    """Two hundred regions without a way out, some of one cell: coarse matrices are zero but for rounding."""
    cells = np.full((61, 61), ns.SOLID, np.uint8)
    for k in range(1, 15):
        cells[1:60, k * k // 4 + k : k * k // 4 + k + 1 + k // 4] = ns.FLUID
    cells[::4] = ns.SOLID
    A = ns.PoissonStencil(ns.Grid(cells))
    assert A.null_space.dimension > 100
    b = torch.randn(A.shape[0], dtype=torch.float64, generator=generator) * A.active
    A.null_space.project(b)
    for kind in ("rs", "sa"):
        result = ns.solve(A, b, ns.CG(), M=ns.AMG(kind, max_coarse=4), rtol=1e-10)
        assert result.converged
        assert result.iterations <= 15


# near null spaces


def test_rigid_body_modes_cut_the_iterations_of_elasticity(data, generator):
    bar = loadmat(data / "matrices" / "pyamg_bar.mat")
    A, B = sp.csr_array(bar["A"]), bar["B"]
    b = torch.randn(A.shape[0], dtype=torch.float64, generator=generator)
    constants, modes = (
        ns.solve(A, b, ns.CG(), M=ns.AMG("sa", near_null_space=near, max_coarse=10)).iterations
        for near in (None, B)
    )
    assert modes <= 20
    assert modes <= constants / 2
    as_torch = ns.AMG("sa", near_null_space=torch.from_numpy(np.ascontiguousarray(B)), max_coarse=10)
    assert ns.solve(A, b, ns.CG(), M=as_torch).iterations == modes


def test_a_declared_null_space_stands_in_for_the_near_one():
    """D L D has the null vector D^-1 1: aggregation that knows it keeps its iterations, constants do not."""
    n = 40
    L = ns.PoissonStencil(ns.Grid((n, n))).to_scipy()
    size = 10 ** np.sin(np.arange(n * n) * 0.7)
    D = sp.diags_array(size)
    A = sp.csr_array(D @ L @ D)
    b = A @ np.cos(np.arange(n * n) * 0.3)
    result = ns.solve(A, b, ns.CG(), M=ns.AMG("sa"), null_space=1 / size, rtol=1e-8)
    assert result.converged
    assert result.iterations <= 15


# where PyAMG alone fails


def test_positive_couplings_get_direct_interpolation(data, generator, capfd):
    A = sp.csr_array(
        mmread(data / "matrices" / "bcsstk13.mtx")
    )  # default Ruge-Stueben needs over 3000 iterations
    b = torch.randn(A.shape[0], dtype=torch.float64, generator=generator)
    result = ns.solve(A, b, ns.CG(), M=ns.AMG("rs"), maxiter=600)
    assert result.converged
    assert "direct interpolation because of positive couplings" in result.explanation
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["rs", "sa"])
def test_real_matrices_converge(kind, data, generator, capfd):
    for name, most in (("bcsstk16", 60), ("gr_30_30", 8), ("lap2D_5pt_n100", 10), ("lap3D_7pt_n20", 9)):
        A = sp.csr_array(mmread(data / "matrices" / f"{name}.mtx"))
        b = torch.randn(A.shape[0], dtype=torch.float64, generator=generator)
        assert ns.solve(A, b, ns.CG(), M=ns.AMG(kind)).iterations <= most
    assert capfd.readouterr() == ("", "")


def test_coarsening_that_stops_early_is_relaxed_and_told(generator):
    """This strength leaves 3200 rows, whose dense inverse would take minutes."""
    A = poisson(80, 80)
    recipe = ns.AMG(strength=("symmetric", {"theta": 0.25}))
    M = recipe.build(spd(A))
    assert "coarsening stopped at" in M.describe()
    b = torch.randn(6400, dtype=torch.float64, generator=generator)
    assert ns.solve(A, b, ns.CG(), M=recipe).converged
    assert (
        not laws.check_laws(
            ns.AMG(strength=("symmetric", {"theta": 0.25}), max_levels=2), spd(poisson(9, 9)), generator
        )
        .isnan()
        .any()
    )


def test_a_diagonal_matrix_is_inverted():
    A = spd(sp.diags_array(np.arange(1.0, 3001)))
    z = ns.AMG().build(A).apply(torch.ones(3000, dtype=torch.float64))
    torch.testing.assert_close(z, 1 / torch.arange(1.0, 3001, dtype=torch.float64), rtol=1e-12, atol=0.0)


def test_convection_converges_in_gmres(data):
    A = sp.csr_array(loadmat(data / "matrices" / "pyamg_recirc_flow.mat")["A"])
    b = A @ np.ones(A.shape[0])
    plain, better = (
        ns.solve(A, b, ns.GMRES(), M=M, maxiter=400, throw=False) for M in (None, ns.AMG("rs", max_coarse=20))
    )
    assert better.converged
    assert better.iterations < plain.iterations


def test_a_hierarchy_of_nans_is_refused(data):
    A = ns.as_operator(sp.csr_array(mmread(data / "matrices" / "olm1000.mtx")))
    with pytest.raises(ns.StructureError, match=r"no hierarchy.*too far from elliptic.*IncompleteLU"):
        ns.AMG("sa").build(A)


# refusals


def test_describe_tells_the_size_of_the_hierarchy():
    words = ns.AMG().build(spd(poisson(40, 40))).describe()
    assert "levels" in words
    assert 1.5 < float(words.split("complexity ")[1].split(",")[0]) < 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "rsa"}, "did you mean"),
        ({"kind": "smoothed"}, "known: aggregation, rs, sa"),
        ({"cycle": "F"}, "known: V, W"),
        ({"strength": "symetric"}, "did you mean 'symmetric'"),
        ({"strength": ("clasical", {"theta": 0.5})}, "did you mean 'classical'"),
        ({"interpolation": "clasical"}, "did you mean 'classical'"),
        ({"sweeps": 0}, "integer of at least 1"),
        ({"max_coarse": 2.5}, "integer of at least 1"),
        ({"max_levels": 1}, "integer of at least 2"),
        ({"near_null_space": np.ones(4)}, r"kind='rs'.*no near_null_space.*kind='sa'"),
        ({"kind": "sa", "interpolation": "direct"}, r"no interpolation.*kind='rs'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ns.OptionError, match=message):
        ns.AMG(**options)


def test_wrong_near_null_spaces_are_named():
    A = spd(poisson(5, 5))
    with pytest.raises(ns.ShapeError, match=r"\(24, 1\).*25 rows.*\(25, m\)"):
        ns.AMG("sa", near_null_space=np.ones(24)).build(A)
    with pytest.raises(ns.NonFiniteError, match="NaN"):
        ns.AMG("sa", near_null_space=np.full(25, np.nan)).build(A)


def test_functions_and_zero_diagonals_are_refused():
    with pytest.raises(ns.StructureError, match="zero"):
        ns.AMG().build(spd(np.array([[0.0, 1], [1, 2]])))
    with pytest.raises(ns.StructureError, match=r"needs the entries|diagonal is not known"):
        ns.AMG().build(ns.CallableOperator(lambda x: x, (3, 3), props={"spd"}))


@pytest.mark.parametrize("kind", ["rs", "sa"])
def test_a_matrix_of_zeros_is_refused(kind):
    A = ns.PoissonStencil(ns.Grid(np.full((6, 6), ns.SOLID)))
    with pytest.raises(ns.StructureError, match="zeros alone"):
        ns.solve(A, np.ones(36), ns.CG(), M=ns.AMG(kind))
