"""IC(0), MIC(0) and ILU(0): what they match of A, what they do at bad pivots, the iterations they leave."""

from __future__ import annotations

import numpy as np
import pytest
import recipe_laws as laws
import scenes
import scipy.sparse as sp
import torch

import neuralsolve as ns
from neuralsolve.kernels import use

CHOLESKY = [
    ns.IncompleteCholesky(),
    ns.IncompleteCholesky(0.97),
    ns.IncompleteCholesky(0.5, shift=0.1, floor=0.0),
]
# Kershaw (1978): SPD, eigenvalues 3 +- 2 sqrt 2, and the last pivot of IC(0) is 3 - 27/5 - ... < 0
KERSHAW = np.array([[3.0, -2, 0, 2], [-2, 3, -2, 0], [0, -2, 3, -2], [2, 0, -2, 3]])


def factor_product(recipe, A) -> np.ndarray:
    """Return M^-1, which the factors multiply to."""
    return np.linalg.inv(laws.dense(recipe.build(A), A.shape[0]).numpy())


# laws


@pytest.mark.parametrize("recipe", CHOLESKY, ids=repr)
@pytest.mark.parametrize("scene", [*laws.SYMMETRIC, laws.odd_periodic_2d])
def test_incomplete_cholesky_obeys_the_laws(recipe, scene, generator):
    laws.check_laws(recipe, scene(), generator)
    assert recipe.build(scene()).symmetric


@pytest.mark.parametrize("scene", [*laws.SCENES, laws.odd_periodic_2d])
def test_incomplete_lu_obeys_the_laws(scene, generator):
    laws.check_laws(ns.IncompleteLU(), scene(), generator)


@pytest.mark.parametrize("recipe", [*CHOLESKY, ns.IncompleteLU()], ids=repr)
def test_update_follows_the_values(recipe):
    A = laws.graph()
    S = A.to_scipy()
    scale = sp.diags_array(np.linspace(1, 2, A.shape[0]))
    laws.check_update(recipe, A, ns.as_operator(scale @ S @ scale, props={"spd"}))
    flat, bent = (
        ns.PoissonStencil(grid := ns.Grid((6, 7), walls="dirichlet"), ns.face_coefficients(values, grid))
        for values in (torch.ones(6, 7), torch.linspace(1, 5, 42).reshape(6, 7))
    )
    laws.check_update(recipe, flat, bent)


@pytest.mark.parametrize("recipe", CHOLESKY, ids=repr)
@pytest.mark.parametrize("scene", [laws.box_2d, laws.masked_2d, laws.pockets_2d])
def test_a_grid_and_its_matrix_give_the_same_map(recipe, scene):
    A = scene()
    rows = ns.as_operator(A.to_scipy(), props={"spd"})
    rows.null_space = A.null_space
    on_grid, on_rows = (laws.dense(recipe.build(operator), A.shape[0]) for operator in (A, rows))
    torch.testing.assert_close(on_grid, on_rows, rtol=0.0, atol=1e-12 * float(on_rows.abs().max()))


@pytest.mark.parametrize("scene", [laws.masked_2d, laws.masked_3d])
def test_pivots_keep_their_share_of_the_diagonal(scene):
    """(D + L) D^-1 (D + L)^T: M^-1 has the diagonal of A where pivots are kept, and is never far below it."""
    A = scene()
    rows = laws.active(A).numpy()
    S = A.to_scipy().toarray()[np.ix_(rows, rows)]
    kept, raised = (
        np.linalg.inv(
            laws.dense(ns.IncompleteCholesky(1.0, floor=floor).build(A), len(rows)).numpy()[
                np.ix_(rows, rows)
            ]
        )
        for floor in (0.0, 0.5)
    )
    assert np.linalg.eigvalsh(raised - kept).min() > -1e-10 * abs(S).max()
    assert (np.diag(raised) > np.diag(kept) + 1e-3 * np.diag(S)).any()


@pytest.mark.parametrize("recipe", [*CHOLESKY, ns.IncompleteCholesky(1.0, floor=0.5)], ids=repr)
@pytest.mark.parametrize("scene", [laws.graph, laws.masked_3d])
def test_plain_python_defines_the_same_map(recipe, scene):
    A = scene()
    fast = laws.dense(recipe.build(A), A.shape[0])
    with use("reference"):
        slow = laws.dense(recipe.build(A), A.shape[0])
    torch.testing.assert_close(fast, slow, rtol=0.0, atol=1e-12 * float(slow.abs().max()))


# what the factors match


@pytest.mark.parametrize("scene", [laws.graph, laws.box_2d])
def test_ic0_matches_a_on_its_pattern(scene):
    A = scene()
    S = A.to_scipy().toarray()
    product = factor_product(ns.IncompleteCholesky(), A)
    np.testing.assert_allclose(product[S != 0], S[S != 0], rtol=0, atol=1e-12 * abs(S).max())
    assert abs(product - S).max() > 1e-3 * abs(S).max()  # there is fill, and it is dropped


@pytest.mark.parametrize("scene", [laws.graph, laws.box_2d])
@pytest.mark.parametrize("modified", [0.5, 1.0])
def test_mic0_takes_its_share_of_the_dropped_fill_from_the_diagonal(scene, modified):
    """(M^-1 - A) 1 = (1 - modified) (dropped fill) 1: modified = 1 keeps row sums (Gustafsson 1978)."""
    A = scene()
    S = A.to_scipy().toarray()
    excess = factor_product(ns.IncompleteCholesky(modified, floor=0.0), A) - S
    off = excess - np.diag(np.diag(excess))
    np.testing.assert_allclose(off[(S != 0) & (off != 0)], 0, atol=1e-12 * abs(S).max())
    np.testing.assert_allclose(-np.diag(excess), modified * off.sum(1), rtol=0, atol=1e-12 * abs(S).max())


def test_modification_lowers_the_order_of_the_condition_number():
    """Halving h multiplies cond(M A) by 4 for IC(0), by 2 for MIC(0) (Gustafsson 1978)."""

    def condition(n: int, modified: float) -> float:
        A = ns.PoissonStencil(ns.Grid((n, n), walls="dirichlet"))
        root = np.linalg.cholesky(laws.dense(ns.IncompleteCholesky(modified).build(A), n * n).numpy())
        values = np.linalg.eigvalsh(root.T @ A.to_scipy().toarray() @ root)
        return values.max() / values.min()

    plain, modified = (condition(23, m) / condition(11, m) for m in (0.0, 1.0))
    assert 3.3 < plain < 4.2
    assert 1.5 < modified < 2.3


def test_ilu0_matches_a_on_its_pattern():
    A = laws.convection()
    S = A.to_scipy().toarray()
    product = factor_product(ns.IncompleteLU(), A)
    np.testing.assert_allclose(product[S != 0], S[S != 0], rtol=0, atol=1e-12 * abs(S).max())


def test_without_fill_the_factors_are_exact(generator):
    b = torch.randn(300, dtype=torch.float64, generator=generator)
    S = sp.diags_array([-1.0, 2.5, -1.0], offsets=[-1, 0, 1], shape=(300, 300))
    assert ns.solve(S, b, ns.CG(), M=ns.IncompleteCholesky()).iterations == 1
    skew = sp.diags_array([-2.0, 2.5, -0.4], offsets=[-1, 0, 1], shape=(300, 300))
    assert ns.solve(skew, b, ns.GMRES(), M=ns.IncompleteLU()).iterations == 1


# bad pivots


def test_a_pivot_that_is_not_positive_shifts_the_diagonal():
    A = ns.as_operator(KERSHAW, props={"spd"})
    M = ns.IncompleteCholesky().build(A)
    assert "diagonal shifted by" in M.describe()
    assert "not positive" in M.describe()
    shift = float(M.describe().split("shifted by ")[1].split()[0])
    shifted = KERSHAW + shift * np.diag(np.diag(KERSHAW))
    product = np.linalg.inv(laws.dense(M, 4).numpy())
    # describe rounds to two digits
    np.testing.assert_allclose(product[KERSHAW != 0], shifted[KERSHAW != 0], rtol=0, atol=0.06 * 3 * shift)
    assert np.linalg.eigvalsh(product).min() > 0
    half = ns.IncompleteCholesky(shift=shift / 2.3).build(A)  # a smaller shift leaves a bad pivot
    assert "not positive" in half.describe()
    assert ns.solve(KERSHAW, np.ones(4), ns.CG(), M=ns.IncompleteCholesky()).converged


@pytest.mark.parametrize(("modified", "floor"), [(0.0, 0.0), (0.97, 0.25), (1.0, 0.25), (1.0, 0.0)])
def test_a_singular_system_whose_last_pivot_vanishes_is_solved(modified, floor, generator):
    """On a chain IC(0) is exact elimination, so the last pivot of a Neumann system is zero."""
    A = ns.PoissonStencil(ns.Grid((1, 40)))
    b = torch.randn(40, dtype=torch.float64, generator=generator)
    for operator in (A, A.to_scipy()):
        result = ns.solve(
            operator, b - b.mean(), ns.CG(), M=ns.IncompleteCholesky(modified, floor=floor), rtol=1e-10
        )
        assert result.converged
        assert result.iterations <= 6
        assert abs(float(result.x.mean())) < 1e-12 * float(result.x.abs().max())


def test_a_zero_pivot_of_lu_is_shifted_and_told():
    saddle = np.array([[0.0, 2, 0], [2, 0, 1], [0, 1, 3]])
    M = ns.IncompleteLU().build(ns.as_operator(sp.csr_array(saddle)))
    assert "zero pivot" in M.describe()
    result = ns.solve(sp.csr_array(saddle), np.array([1.0, 2, 3]), ns.GMRES(), M=ns.IncompleteLU())
    np.testing.assert_allclose(saddle @ result.x, [1, 2, 3], atol=1e-7)


def test_a_zero_diagonal_that_elimination_fills_needs_no_shift():
    kkt = np.array([[4.0, 1, 1], [1, 3, 0], [1, 0, 0]])
    M = ns.IncompleteLU().build(ns.as_operator(sp.csr_array(kkt)))
    assert M.describe() == "ILU(0)"
    z = M.apply(torch.tensor([1.0, 2, 3], dtype=torch.float64))
    assert bool(torch.isfinite(z).all())


# iterations


# iterations of CG with MIC(0), omega 0.97, white noise, relative residual 1e-6, on `free_surface`: one run
# per size of another implementation, on a domain of its own
MIC_TABLE = {(64, 64): 49, (128, 128): 79, (256, 256): 141, (32, 32, 32): 32, (48, 48, 48): 44}


@pytest.mark.parametrize("shape", MIC_TABLE)
def test_mic_needs_the_known_number_of_iterations(shape):
    counts = []
    for seed in (2203, 2204, 2205, 2206, 2207):
        rng = np.random.default_rng(seed)
        A = ns.PoissonStencil(scenes.free_surface(shape, rng))
        b = rng.standard_normal(A.shape[0])
        counts.append(ns.solve(A, b, ns.CG(), M=ns.IncompleteCholesky(0.97), rtol=1e-6).iterations)
    assert abs(np.median(counts) / MIC_TABLE[shape] - 1) <= 0.1


def test_ilu_cuts_the_iterations_of_gmres(data):
    from scipy.io import mmread

    A = sp.csr_array(mmread(data / "matrices" / "olm1000.mtx"))
    b = A @ np.ones(A.shape[0])
    plain = ns.solve(A, b, ns.GMRES(), maxiter=500, throw=False)
    better = ns.solve(A, b, ns.GMRES(), M=ns.IncompleteLU(), maxiter=500)
    assert better.iterations < 50
    assert plain.iterations > 5 * better.iterations


@pytest.mark.parametrize("name", ["bcsstk13", "bcsstk16"])
def test_stiffness_matrices_are_factorised(name, data, generator):
    from scipy.io import mmread

    A = sp.csr_array(mmread(data / "matrices" / f"{name}.mtx"))
    b = torch.randn(A.shape[0], dtype=torch.float64, generator=generator)
    ic, jacobi = (
        ns.solve(A, b, ns.CG(), M=M, maxiter=3000, throw=False)
        for M in (ns.IncompleteCholesky(), ns.Jacobi())
    )
    assert ic.converged
    assert ic.iterations < jacobi.iterations / 2


# refusals


def test_a_nonsymmetric_matrix_is_refused():
    with pytest.raises(ns.StructureError, match=r"needs a symmetric A.*IncompleteLU"):
        ns.IncompleteCholesky().build(laws.convection())


def test_an_indefinite_diagonal_is_refused():
    A = ns.as_operator(np.array([[2.0, 1.0], [1.0, -3.0]]), props={"symmetric"})
    with pytest.raises(ns.StructureError, match=r"positive diagonal.*1 entries.*MINRES"):
        ns.IncompleteCholesky().build(A)


def test_a_function_is_refused():
    A = ns.CallableOperator(lambda x: 2 * x, (5, 5), props={"spd"})
    for recipe in (ns.IncompleteCholesky(), ns.IncompleteLU()):
        with pytest.raises(ns.StructureError, match=r"needs the entries of A|diagonal is not known"):
            recipe.build(A)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modified": 1.01}, r"modified=1.01.*\[0, 1\]"),
        ({"modified": -0.1}, r"\[0, 1\]"),
        ({"modified": True}, "must be a number"),
        ({"shift": -1e-3}, r"\[0, inf\)"),
        ({"shift": float("inf")}, r"\[0, inf\)"),
        ({"floor": 1.0}, r"\[0, 1\)"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ns.OptionError, match=message):
        ns.IncompleteCholesky(**options)
