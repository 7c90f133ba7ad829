"""`solve` and `prepare`: choice, singular systems, signs, foreign types, honest endings, bad input."""

from __future__ import annotations

import copy

import numpy as np
import pyamg
import pytest
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import LinearOperator as SciPyOperator

import neuralsolve as ns
from neuralsolve import Status

RNG_SEED = 90210


@pytest.fixture
def rng():
    return np.random.default_rng(RNG_SEED)


def laplacian(n: int, m: int | None = None) -> sp.csr_array:
    return sp.csr_array(pyamg.gallery.poisson((n, m or n), format="csr"))


def convection(n: int, speed: float = 20.0) -> sp.csr_array:
    """Convection-diffusion on n^2 interior points, upwind: a nonsymmetric M-matrix."""
    along = sp.diags_array([-1.0, 1.0], offsets=[-1, 0], shape=(n, n)) * speed / n
    eye = sp.eye_array(n)
    return sp.csr_array(laplacian(n) + sp.kron(eye, along) + sp.kron(along, eye))


def relative_residual(A, b, x) -> float:
    return float(np.max(np.linalg.norm(b - A @ x, axis=0) / np.linalg.norm(b, axis=0)))


# the choice


@pytest.mark.parametrize(
    ("A", "chosen"),
    [
        (laplacian(40), "FastPoisson"),
        (3.5 * laplacian(17, 60), "FastPoisson"),
        (laplacian(60) + sp.diags_array(np.linspace(0, 1, 3600)), "CG with AMG"),
        (
            sp.csr_array(pyamg.gallery.poisson((20, 20, 20))) + sp.diags_array(np.linspace(0, 1, 8000)),
            "CG with AMG",
        ),
        (laplacian(60) - 0.3 * sp.eye_array(3600) + sp.diags_array(np.linspace(0, 0.1, 3600)), ""),
        (convection(60), "GMRES"),
        (laplacian(60) - sp.diags_array(np.where(np.arange(3600) % 7, 0.0, 4.5)), "MINRES"),
        (convection(12), "SparseLU"),
        (np.diag(np.arange(1.0, 30)) + 0.1, "dense LU"),
    ],
)
def test_auto_solves_and_says_what_it_chose(A, chosen, rng):
    b = rng.standard_normal(A.shape[0])
    result = ns.solve(A, b)
    assert relative_residual(A, b, result.x) <= 1e-8
    assert result.converged
    assert chosen in result.explanation
    assert str(A.shape[0]) in result.explanation


def test_a_failed_guess_is_followed_by_the_next_plan_and_told(rng):
    A = (
        laplacian(60) - 0.3 * sp.eye_array(3600) + sp.diags_array(np.linspace(0, 0.1, 3600))
    )  # indefinite, diagonal > 0
    b = rng.standard_normal(3600)
    result = ns.solve(A, b)
    assert "given up" in result.explanation
    assert relative_residual(A, b, result.x) <= 1e-8


def test_the_callers_own_limit_is_no_reason_to_give_a_plan_up(rng):
    A = laplacian(60) + sp.diags_array(np.linspace(0, 1, 3600))
    prepared = ns.prepare(A)
    b = rng.standard_normal(3600)
    before = prepared.explanation
    assert prepared.solve(b, maxiter=1, throw=False).status is Status.MAXITER
    assert prepared.explanation == before


def test_a_given_recipe_gets_a_fitting_method(rng):
    b = rng.standard_normal(3600)
    assert "CG" in ns.solve(laplacian(60), b, M=ns.SSOR()).explanation
    assert "GMRES" in ns.solve(convection(60), b, M=ns.IncompleteLU()).explanation


# singular systems


@pytest.mark.parametrize("method", [None, ns.CG(), ns.MINRES(), ns.GMRES(), ns.SparseLU(), ns.FastPoisson()])
def test_pure_neumann_system_gives_the_mean_free_least_squares_solution(method, rng):
    A = ns.PoissonStencil(ns.Grid((18, 22)))
    b = rng.standard_normal(A.shape[0])
    result = ns.solve(A, b, method, rtol=1e-10)
    truth = np.linalg.pinv(A.to_scipy().toarray()) @ b
    assert np.allclose(result.x, truth, atol=1e-7 * np.abs(truth).max())
    assert abs(result.x.mean()) <= 1e-12
    assert result.status is Status.PROJECTED
    assert result.removed == pytest.approx(abs(b.mean()) * np.sqrt(len(b)))


def test_consistent_right_side_is_plainly_converged(rng):
    A = ns.PoissonStencil(ns.Grid((18, 22)))
    b = rng.standard_normal(A.shape[0])
    result = ns.solve(A, b - b.mean())
    assert result.status is Status.CONVERGED
    assert result.removed <= 1e-12


def test_several_fluid_pockets_each_have_zero_mean(rng):
    cells = np.zeros((40, 40), int)
    cells[:, 13] = ns.SOLID
    cells[20, 14:] = ns.SOLID
    cells[0, 0:5] = ns.AIR  # one pocket of the three has a free surface
    A = ns.PoissonStencil(ns.Grid(cells))
    b = rng.standard_normal(A.shape[0])
    result = ns.solve(A, b)
    x = result.x.reshape(cells.shape)
    assert A.null_space.dimension == 2
    assert abs(x[:20, 14:].mean()) <= 1e-10
    assert abs(x[21:, 14:].mean()) <= 1e-10
    assert (x[cells != ns.FLUID] == 0).all()
    assert result.converged


def test_all_cells_isolated():
    cells = np.indices((9, 9)).sum(0) % 2  # a chess board of FLUID and SOLID: A = 0
    result = ns.solve(ns.PoissonStencil(ns.Grid(cells)), np.ones(81))
    assert not result.x.any()
    assert result.status is Status.PROJECTED


def test_phiflow_like_system(rng):
    """Obstacle cells as isolated rows with +1, fluid rows negative and a singular block, badly scaled."""
    n, h = 64, 1 / 64
    y, x = np.indices((n, n))
    solid = (y - 30) ** 2 + (x - 33) ** 2 < 9**2
    fluid = ns.PoissonStencil(ns.Grid(np.where(solid, ns.SOLID, ns.FLUID), spacing=h))
    A = sp.csr_array(-fluid.to_scipy() + sp.diags_array(solid.ravel().astype(float)))
    assert A.diagonal().max() == 1
    assert A.diagonal().min() < -1e4
    truth = rng.standard_normal(n * n)
    truth.reshape(n, n)[~solid] -= truth.reshape(n, n)[~solid].mean()
    for method, M in [(None, None), (ns.CG(), ns.AMG()), (ns.CG(), ns.Jacobi()), (ns.SparseLU(), None)]:
        result = ns.solve(A, A @ truth, method, M=M, rtol=1e-10)
        assert result.status is Status.CONVERGED
        assert np.allclose(result.x, truth, atol=1e-5)
        assert "flipped" in result.explanation
        assert "null space" in result.explanation


def test_declared_null_space(rng):
    A = laplacian(12) * 1.0
    w, V = np.linalg.eigh(A.toarray())
    S = A.toarray() - w[0] * np.outer(V[:, 0], V[:, 0])  # null vector V0, not a constant
    b = rng.standard_normal(144)
    for method in (None, ns.CG(), ns.MINRES(), ns.SparseLU()):
        result = ns.solve(sp.csr_array(S), b, method, null_space=V[:, 0])
        assert abs(V[:, 0] @ result.x) <= 1e-10
        assert np.allclose(S @ result.x, b - V[:, 0] * (V[:, 0] @ b), atol=1e-6)
    with pytest.raises(ns.StructureError, match="does not annihilate"):
        ns.solve(sp.csr_array(S), b, null_space=V[:, 5])


def test_negative_definite_system_is_flipped_and_said(rng):
    A = -(laplacian(30) + sp.diags_array(np.linspace(0, 1, 900)))
    b = rng.standard_normal(900)
    for method in (None, ns.CG()):
        result = ns.solve(A, b, method)
        assert relative_residual(A, b, result.x) <= 1e-8
        assert "flipped" in result.explanation
    operator = SciPyOperator((900, 900), matvec=lambda v: A @ v, dtype=float)
    assert relative_residual(A, b, ns.solve(operator, b, ns.CG()).x) <= 1e-8


def test_structured_operators_solve(rng):
    d, U = torch.from_numpy(rng.uniform(1, 2, 4000)), torch.from_numpy(rng.standard_normal((4000, 3)))
    W = ns.DiagonalPlusLowRank(d, U)
    b = torch.from_numpy(rng.standard_normal(4000))
    result = ns.solve(W, b)
    assert float((W @ result.x - b).norm() / b.norm()) <= 1e-8
    assert "Woodbury" in result.explanation
    A, B = ns.as_operator(laplacian(20)), rng.standard_normal((7, 400))
    kkt = ns.Block(
        [[A, ns.as_operator(np.ascontiguousarray(B.T))], [ns.as_operator(B), None]], props={"symmetric"}
    )
    b = rng.standard_normal(407)
    for method in (None, ns.MINRES(), ns.GMRES(restart=200)):
        assert relative_residual(kkt.to_scipy(), b, ns.solve(kkt, b, method).x) <= 1e-8


# many right sides, reuse, foreign types


@pytest.mark.parametrize("A", [laplacian(30), convection(30), laplacian(60) + sp.eye_array(3600)])
def test_columns_are_solved_as_if_alone(A, rng):
    b = rng.standard_normal((A.shape[0], 3))
    together = ns.solve(A, b, rtol=1e-10).x
    alone = np.stack([ns.solve(A, b[:, j], rtol=1e-10).x for j in range(3)], 1)
    assert relative_residual(A, b, together) <= 1e-10
    assert np.allclose(together, alone, atol=1e-6 * np.abs(alone).max())


def test_prepared_solves_again_and_follows_updates(rng):
    A = laplacian(40) + sp.diags_array(np.linspace(0, 1, 1600))
    prepared = ns.prepare(A, ns.CG(), M=ns.AMG(), rtol=1e-9)
    b = rng.standard_normal(1600)
    first = prepared.solve(b)
    assert prepared.solve(b, x0=first.x).iterations == 0
    assert prepared.solve(b, rtol=1e-3).iterations < first.iterations
    A_next = A + sp.diags_array(np.linspace(2, 0, 1600))
    assert relative_residual(A_next, b, prepared.update(A_next).solve(b).x) <= 1e-9
    flipped = prepared.update(-A_next).solve(b)  # another sign: the plan is made anew
    assert relative_residual(-A_next, b, flipped.x) <= 1e-9
    with pytest.raises(ns.ShapeError, match="prepare"):
        prepared.update(laplacian(41))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize(
    "kind", ["numpy", "matrix", "coo", "csc", "torch", "torch_csr", "torch_coo", "operator"]
)
def test_every_kind_of_matrix_gives_the_same_answer(kind, rng):
    S = laplacian(12) + sp.diags_array(np.linspace(0, 1, 144))
    T = torch.from_numpy(S.toarray())
    A = {
        "numpy": S.toarray(),
        "matrix": sp.csr_matrix(S),
        "coo": S.tocoo(),
        "csc": S.tocsc(),
        "torch": T,
        "torch_csr": T.to_sparse_csr(),
        "torch_coo": T.to_sparse_coo(),
        "operator": SciPyOperator(S.shape, matvec=lambda v: S @ v, dtype=np.float64),
    }[kind]
    truth = rng.standard_normal(144)
    for b in (S @ truth, torch.from_numpy(S @ truth)):
        x = ns.solve(A, b, rtol=1e-12).x
        assert type(x) is type(b)
        assert x.dtype == b.dtype
        assert np.allclose(np.asarray(x), truth, atol=1e-8)


def test_float32_in_float32_out_and_the_verdict_is_on_what_is_returned(rng):
    A = laplacian(24)
    b = (A @ rng.standard_normal(576)).astype(np.float32)
    result = ns.solve(A.astype(np.float32), b)
    assert result.x.dtype == np.float32
    assert relative_residual(A, b.astype(float), result.x.astype(float)) <= 1e-5
    smooth = ns.solve(A, np.ones(576, np.float32))  # ||x|| / ||b|| is large: rounding x costs more than 1e-5
    assert smooth.status in (Status.CONVERGED, Status.ROUNDED)
    left = np.linalg.norm(1 - A @ smooth.x.astype(float))
    assert smooth.residual_norms[-1] == pytest.approx(left, rel=1e-6)
    assert left <= np.finfo(np.float32).eps * 8 * np.linalg.norm(smooth.x) + 1e-5 * 24
    strict = ns.solve(A, b, rtol=1e-12, throw=False)
    assert strict.status is Status.PRECISION
    assert not strict.converged


def test_integers_become_float64(rng):
    A = sp.csr_array((laplacian(10) * 1).astype(int))
    x = ns.solve(A, np.arange(100)).x
    assert x.dtype == np.float64
    assert np.allclose(A @ x, np.arange(100))


def test_inputs_are_never_changed(rng):
    A = ns.PoissonStencil(ns.Grid((10, 10)))
    S = laplacian(60) + sp.eye_array(3600)
    for matrix, method in [(A, None), (A, ns.CG()), (S, None), (-S, ns.CG()), (S, ns.GMRES())]:
        data = matrix.data.copy() if sp.issparse(matrix) else None
        b, x0 = rng.standard_normal(matrix.shape[0]), rng.standard_normal(matrix.shape[0])
        b_before, x0_before = b.copy(), x0.copy()
        ns.solve(matrix, b, method, x0=x0)
        assert (b == b_before).all()
        assert (x0 == x0_before).all()
        assert data is None or (matrix.data == data).all()


def test_unsorted_and_duplicate_entries_are_summed_in_a_copy():
    A = sp.csr_matrix(
        (np.array([1.0, 1.0, 2.0, 3.0]), np.array([1, 0, 0, 1]), np.array([0, 3, 4])), shape=(2, 2)
    )
    A.has_sorted_indices = A.has_canonical_format = True  # SciPy's flags may lie
    x = ns.solve(A, np.array([4.0, 3.0])).x
    assert np.allclose(x, [1.0, 1.0])
    assert A.indices.tolist() == [1, 0, 0, 1]


def test_any_function_may_stand_as_M(rng):
    A = laplacian(30) + sp.diags_array(np.linspace(0, 1, 900))
    b = rng.standard_normal(900)
    d = A.diagonal()
    for M in (
        lambda r: r / d,
        sp.diags_array(1 / d),
        SciPyOperator(A.shape, matvec=lambda r: r / d),
        ns.Jacobi(),
    ):
        assert ns.solve(A, b, ns.CG(), M=M).converged
    t = torch.from_numpy(b)
    assert ns.solve(A, t, ns.CG(), M=lambda r: r / torch.from_numpy(d)).converged


# honest endings


def test_maxiter_one_is_told(rng):
    A, b = laplacian(30), rng.standard_normal(900)
    for method in (
        ns.CG(),
        ns.MINRES(),
        ns.GMRES(),
        ns.BiCGStab(),
        ns.Richardson(omega=0.1),
        ns.DCDM(),
        ns.FlexibleCG(),
    ):
        result = ns.solve(A, b, method, maxiter=1, throw=False)
        assert result.status is Status.MAXITER
        assert not result.converged
        assert result.residual_norms[-1] == pytest.approx(np.linalg.norm(b - A @ result.x))
        with pytest.raises(ns.SolveError, match="maxiter") as caught:
            ns.solve(A, b, method, maxiter=1)
        assert caught.value.result.status is Status.MAXITER


def test_zero_right_side_gives_zero():
    for method in (None, ns.CG(), ns.GMRES(), ns.SparseLU()):
        result = ns.solve(laplacian(20), np.zeros(400), method)
        assert result.converged
        assert not result.x.any()
        assert result.iterations == 0


def test_out_of_reach_tolerance_ends_in_stagnation_not_in_a_lie(rng):
    A = laplacian(30) + sp.diags_array(10.0 ** np.linspace(-6, 6, 900))
    b = rng.standard_normal(900)
    result = ns.solve(A, b, ns.CG(), M=ns.Jacobi(), rtol=1e-17, throw=False)
    assert not result.converged
    assert result.residual_norms[-1] == pytest.approx(np.linalg.norm(b - A @ result.x), rel=1e-6)


def test_extreme_scales_do_not_overflow(rng):
    A, b = laplacian(20) + sp.diags_array(np.linspace(0, 1, 400)), rng.standard_normal(400)
    reference = ns.solve(A, b, ns.CG()).x
    for scale in (1e200, 1e-200):
        x = ns.solve(A, b * scale, ns.CG()).x
        assert np.allclose(x / scale, reference, rtol=1e-6)


def test_callback_sees_iterations_and_may_stop(rng):
    A, b = laplacian(30), rng.standard_normal(900)
    seen = []
    result = ns.solve(A, b, ns.CG(), callback=lambda k, r, x: seen.append((k, r, np.linalg.norm(b - A @ x))))
    assert [k for k, _, _ in seen] == list(range(1, result.iterations + 1))
    assert all(r == pytest.approx(true, rel=1e-4, abs=1e-9) for _, r, true in seen)
    stopped = ns.solve(A, b, ns.CG(), callback=lambda k, r, x: k == 3, throw=False)
    assert stopped.iterations == 3
    assert stopped.status is Status.STOPPED


def path(weights, ground: float = 0.0) -> sp.csr_array:
    """Return the Laplacian of a weighted path, plus a multiple of the identity."""
    n = len(weights) + 1
    B = sp.diags_array([-np.ones(n - 1), np.ones(n - 1)], offsets=[0, 1], shape=(n - 1, n))
    return sp.csr_array(B.T @ sp.diags_array(weights) @ B + ground * sp.eye_array(n))


def test_null_space_of_a_float32_matrix_is_found(rng):
    A = path(1 + rng.random(199)).astype(np.float32)  # row sums vanish to 1e-7 only
    b = rng.standard_normal(200).astype(np.float32)
    result = ns.solve(A, b - b.mean())
    assert result.converged
    assert "null space" in result.explanation
    assert abs(result.x.mean()) <= 1e-5 * np.abs(result.x).max()


def test_rounding_that_spoils_the_answer_is_a_failure_even_at_the_default_tolerance(rng):
    A = path(np.ones(2999), 1e-7)
    b = np.ones(3000, np.float32) * (1 + 0.5 * rng.random(3000, np.float32))
    result = ns.solve(A, b, throw=False)
    left = np.linalg.norm(b - A @ result.x.astype(float))
    assert result.converged == (left <= 1e-3 * np.linalg.norm(b))


@pytest.mark.parametrize("method", [None, ns.CG(), ns.GMRES()])
def test_columns_of_very_different_size(method):
    A = path(np.ones(4), 1.0)
    for sizes in ([1.0, 1e-170], [1e200, 1e-200], [0.0, 1e-300]):
        b = np.ones((5, 2)) * sizes
        x = ns.solve(A, b, method).x
        assert np.allclose(x[:, 0] / (sizes[0] or 1), 1.0 if sizes[0] else 0.0)
        assert np.allclose(x[:, 1] / sizes[1], 1.0)


def test_an_answer_that_overflows_is_told():
    result = ns.solve(np.eye(3) * 1e-200, np.ones(3) * 1e200, throw=False)
    assert result.status is Status.NON_FINITE
    assert not result.converged


def test_projected_is_told_where_the_whole_residual_misses_the_tolerance(rng):
    A = path(np.ones(99))
    b = A @ rng.standard_normal(100)
    b /= np.linalg.norm(b)
    b += 0.99e-2 * np.ones(100) / 10
    result = ns.solve(A, b, ns.CG(), rtol=1e-2)
    missed = np.linalg.norm(b - A @ result.x) > 1e-2 * np.linalg.norm(b)
    assert (result.status is Status.PROJECTED) == missed


def test_one_failing_column_is_a_failure(rng):
    A = laplacian(30) + sp.diags_array(np.linspace(0, 1, 900))
    hard = rng.standard_normal(900)
    b = np.stack([A @ np.ones(900) * 0, hard], 1)
    for method in (ns.CG(), ns.GMRES(), ns.BiCGStab(), ns.MINRES()):
        result = ns.solve(A, b, method, maxiter=3, throw=False)
        assert result.status is Status.MAXITER
        assert not result.converged


def test_converged_columns_stand_still(rng):
    A = laplacian(30) + sp.diags_array(np.linspace(0, 1, 900))
    seen = []
    easy = A @ np.ones(900)
    b = np.stack([easy, rng.standard_normal(900)], 1)
    x0 = np.stack([np.ones(900) + 1e-9, np.zeros(900)], 1)
    ns.solve(A, b, ns.CG(), x0=x0, rtol=1e-7, callback=lambda k, r, x: seen.append(x[:, 0].copy()))
    assert all((x == seen[0]).all() for x in seen)


def test_a_numpy_bool_stops_and_stops_all_columns(rng):
    A, b = laplacian(30) + sp.eye_array(900), rng.standard_normal((900, 3))
    calls = []
    for method in (ns.CG(), ns.GMRES()):
        calls.clear()
        result = ns.solve(
            A, b, method, callback=lambda k, r, x: calls.append(k) or np.bool_(True), throw=False
        )
        assert result.status is Status.STOPPED
        assert calls == [1]


# update


def test_update_from_a_box_to_anything_else_makes_a_new_plan(rng):
    grid = ns.Grid((20, 20), walls="dirichlet")
    prepared = ns.prepare(ns.PoissonStencil(grid))
    cells = np.ones((20, 20))
    cells[5:9, 5:9] = 3
    A = ns.PoissonStencil(grid, ns.face_coefficients(cells, grid))
    b = rng.standard_normal(400)
    assert relative_residual(A.to_scipy(), b, prepared.update(A).solve(b).x) <= 1e-8
    prepared = ns.prepare(laplacian(20))
    other = laplacian(20) + sp.diags_array(np.linspace(0, 1, 400))
    assert relative_residual(other, b, prepared.update(other).solve(b).x) <= 1e-8


def test_a_refused_update_leaves_the_old_system(rng):
    A = laplacian(20) + sp.diags_array(np.linspace(0, 1, 400))
    b = rng.standard_normal(400)
    prepared = ns.prepare(A, ns.CG(), M=ns.IncompleteCholesky())
    for bad in (convection(20), A - 100 * sp.diags_array(np.arange(400) % 2.0), sp.csr_array(A * np.nan)):
        with pytest.raises(ns.InputError):
            prepared.update(bad)
        result = prepared.solve(b)
        assert result.converged
        assert relative_residual(A, b, result.x) <= 1e-8


def test_no_plan_left_gives_the_best_result_not_an_exception():
    A = sp.csr_array(sp.diags_array([np.ones(20999)], offsets=[1], shape=(21000, 21000)))
    result = ns.solve(A, np.ones(21000), throw=False)
    assert not result.converged
    assert np.linalg.norm(1 - A @ result.x) == pytest.approx(result.residual_norms[-1], rel=1e-6)


def test_two_threads_may_share_a_prepared(rng):
    from concurrent.futures import ThreadPoolExecutor

    A = ns.PoissonStencil(ns.Grid((48, 48), walls="dirichlet"))
    prepared = ns.prepare(A, ns.CG(), M=ns.AMG(), rtol=1e-9)
    sides = [rng.standard_normal(A.shape[0]) for _ in range(8)]
    alone = [prepared.solve(b).x for b in sides]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda b: prepared.solve(b).x, sides))
    assert all((a == t).all() for a, t in zip(alone, together, strict=True))


# what the caller passes


def test_null_vectors_of_a_masked_grid_may_hold_anything_outside_the_fluid(rng):
    cells = np.zeros((6, 6), int)
    cells[2:4, 2:4] = ns.SOLID
    A = ns.PoissonStencil(ns.Grid(cells))
    b = rng.standard_normal(36)
    assert ns.solve(A, b, ns.CG(), null_space=np.ones(36)).converged


def test_functions_that_write_to_their_argument_do_no_harm(rng):
    A = laplacian(20) + sp.diags_array(np.linspace(0, 1, 400))
    b = rng.standard_normal(400)
    before = b.copy()
    for method in (ns.CG(), ns.GMRES(), ns.Richardson(omega=0.2)):
        result = ns.solve(A, b, method, M=lambda r: r.__imul__(0.5), maxiter=5000)
        assert result.converged
        assert (b == before).all()


def test_a_nonsymmetric_matrix_given_as_M_is_refused_by_cg(rng):
    A = laplacian(20)
    for M in (np.triu(A.toarray()), ns.SOR(1.3).build(ns.as_operator(A))):
        with pytest.raises(ns.StructureError, match="symmetric"):
            ns.solve(A, np.ones(400), ns.CG(), M=M)


def test_an_error_survives_the_way_to_another_process():
    import pickle

    with pytest.raises(ns.SolveError) as caught:
        ns.solve(laplacian(20), np.arange(400.0), ns.CG(), maxiter=2)
    back = pickle.loads(pickle.dumps(caught.value))
    assert back.result.status is Status.MAXITER
    assert str(back) == str(caught.value)


# bad input


def test_indefinite_and_nonsymmetric_matrices_are_refused_by_cg(rng):
    b = rng.standard_normal(900)
    with pytest.raises(ns.StructureError, match="GMRES"):
        ns.solve(convection(30), b, ns.CG())
    with pytest.raises(ns.StructureError, match="MINRES"):
        ns.solve(laplacian(30) - 5 * sp.diags_array(np.arange(900) % 2.0), b, ns.CG())
    hidden = (
        laplacian(30) - 1.0 * sp.eye_array(900) + sp.diags_array(np.linspace(0, 0.1, 900))
    )  # diagonal > 0
    result = ns.solve(hidden, b, ns.CG(), throw=False)
    assert result.status is Status.NOT_POSITIVE_DEFINITE
    with pytest.raises(ns.StructureError, match="SSOR"):
        ns.solve(laplacian(30), b, ns.CG(), M=ns.SOR())


@pytest.mark.parametrize(
    ("A", "b", "error", "word"),
    [
        (np.eye(3), np.ones(4), ns.ShapeError, "3"),
        (np.eye(3)[:2], np.ones(2), ns.ShapeError, "square"),
        (np.zeros((0, 0)), np.zeros(0), ns.ShapeError, "empty"),
        (np.eye(3), np.array([1, np.nan, 0]), ns.NonFiniteError, "1 NaN"),
        (np.diag([1, np.inf, 1]), np.ones(3), ns.NonFiniteError, "infinite"),
        (sp.csr_array(np.diag([1, np.nan])), np.ones(2), ns.NonFiniteError, "NaN"),
        (np.eye(3, dtype=complex), np.ones(3), ns.StructureError, "complex"),
        (np.eye(3), np.ones(3) * 1j, ns.StructureError, "complex"),
        (np.eye(3, dtype=np.float16), np.ones(3), ns.StructureError, "float16"),
        (np.eye(3), np.ones(3, np.float16), ns.StructureError, "float16"),
        ([[1, 2], [3]], np.ones(2), ns.ShapeError, "matrix"),
        ("matrix.mtx", np.ones(2), ns.StructureError, "str"),
        (None, np.ones(2), ns.StructureError, "NoneType"),
        (np.eye(3), ["a", "b", "c"], ns.StructureError, "numbers"),
        (np.eye(3), np.ones((3, 2, 2)), ns.ShapeError, "k"),
        (lambda x: x, np.ones(3), ns.StructureError, "CallableOperator"),
    ],
)
def test_bad_input_is_a_clear_value_error(A, b, error, word):
    with pytest.raises(error, match=word):
        ns.solve(A, b)


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"rtol": -1.0}, ns.OptionError, "rtol"),
        ({"rtol": float("nan")}, ns.OptionError, "rtol"),
        ({"maxiter": 0}, ns.OptionError, "maxiter"),
        ({"maxiter": 2.5}, ns.OptionError, "maxiter"),
        ({"method": "cg"}, ns.OptionError, "ns.CG()"),
        ({"method": ns.CG}, ns.OptionError, "object"),
        ({"M": ns.Jacobi}, ns.OptionError, "Jacobi()"),
        ({"M": np.eye(4)}, ns.ShapeError, "M is"),
        ({"x0": np.ones(4)}, ns.ShapeError, "x0"),
        ({"x0": np.full(3, np.nan)}, ns.NonFiniteError, "x0"),
        ({"callback": 3}, ns.OptionError, "callback"),
        ({"maxiter": np.inf}, ns.OptionError, "maxiter"),
        ({"rtol": "x"}, ns.OptionError, "rtol"),
        ({"M": "jacobi"}, ns.OptionError, "ns.Jacobi"),
        ({"null_space": "constnt"}, ns.OptionError, "constant"),
        ({"null_space": np.ones(4)}, ns.ShapeError, "null_space"),
        ({"method": ns.SparseLU(), "M": ns.Jacobi()}, ns.OptionError, "takes no M"),
    ],
)
def test_bad_options_are_a_clear_value_error(options, error, word):
    with pytest.raises(error, match=word):
        ns.solve(np.eye(3), np.ones(3), **options)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: ns.Grid((6, 6), spacing="x"), "spacing"),
        (lambda: ns.Grid((6, 6), spacing=1e-200), "spacing"),
        (lambda: ns.Grid((4.5, 4)), "4.5"),
        (lambda: ns.PoissonStencil(ns.Grid((6, 6)), 3.0), "one array per axis"),
        (lambda: ns.CallableOperator(lambda x: x, shape=5), "pair"),
        (lambda: ns.face_coefficients(np.where(np.eye(6) > 0, -2.0, 1.0), ns.Grid((6, 6))), r"\(0, 0\)"),
    ],
)
def test_bad_parts_of_an_operator_are_named(make, word):
    with pytest.raises(ns.InputError, match=word):
        make()


def test_one_by_one():
    for method in (None, ns.CG(), ns.GMRES(), ns.MINRES(), ns.BiCGStab(), ns.SparseLU()):
        assert ns.solve(np.array([[4.0]]), np.array([2.0]), method).x == pytest.approx([0.5])
    assert ns.solve(np.array([[-4.0]]), np.array([2.0])).x == pytest.approx([-0.5])
    result = ns.solve(np.array([[0.0]]), np.array([2.0]), throw=False)
    assert result.status is Status.PROJECTED


def test_singular_nonsymmetric_matrix_ends_in_an_error_that_says_so(rng):
    A = sp.csr_array(np.array([[1.0, 2.0], [2.0, 4.0]]) @ np.array([[1.0, 1.0], [0.0, 0.0]]))
    with pytest.raises((ns.SolveError, ns.StructureError), match=r"singular|STAGNATED|BREAKDOWN|reach"):
        ns.solve(A, np.array([1.0, 0.0]))


def test_operators_and_prepared_systems_travel_to_other_processes(rng):
    import pickle

    cells = np.zeros((9, 9), int)
    cells[3:5, 3:6] = ns.SOLID
    A = ns.PoissonStencil(ns.Grid(cells))
    b = rng.standard_normal(81)
    for thing in (ns.prepare(A), ns.prepare(laplacian(9), ns.SparseLU()), ns.prepare(laplacian(9))):
        copied = pickle.loads(pickle.dumps(thing))
        assert np.allclose(copied.solve(b).x, thing.solve(b).x, rtol=0, atol=1e-9)
    assert (pickle.loads(pickle.dumps(A)).to_scipy() != A.to_scipy()).nnz == 0
    assert copy.copy(A).faces() is A.faces()  # a copy in the same process shares what was made


def test_no_fluid_is_said():
    assert (
        "no fluid cell" in ns.solve(ns.PoissonStencil(ns.Grid(np.ones((4, 4), int))), np.ones(16)).explanation
    )
