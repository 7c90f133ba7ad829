"""Poisson control: Taylor, adjoints, spectra of the preconditioned KKT matrix, steps, and a direct solve."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
import torch

import neuralsolve as ns
from neuralsolve.errors import OptionError, ShapeError, StructureError
from neuralsolve.pde.control import PoissonControl

EPS = np.finfo(np.float64).eps
SINGLE = float(np.finfo(np.float32).eps)  # multigrid runs in float32
ALPHAS = [1e-1, 1e-4]
INNER = ["multigrid", "transform"]
BLOCKS = ["norms", "schur"]
SEED = 9311
GOLDEN = (1 + math.sqrt(5)) / 2


def dense(apply, n):
    """The matrix of a linear map."""
    return np.stack([np.array(apply(e)) for e in np.eye(n)], 1)


def spectrum(control, M, H=None):
    """Eigenvalues of M KKT for a symmetric positive definite M."""
    H, G = control.hessian() if H is None else H, control.jacobian()
    kkt = sp.block_array([[H, G.T], [G, None]]).toarray()
    root = np.linalg.cholesky((M + M.T) / 2)
    return np.linalg.eigvalsh(root.T @ kkt @ root)


def inside(values, *intervals, slack=1e-10):
    """Whether every value lies in one of the intervals."""
    return bool(np.all(np.any([(values >= a - slack) & (values <= b + slack) for a, b in intervals], 0)))


def schur_intervals(low=0.5, high=1.0):
    """Eigenvalues of M KKT where those of S_hat^-1 S lie in [low, high]."""
    ends = [math.sqrt(1 + 4 * s) for s in (low, high)]
    return (1, 1), ((1 - ends[1]) / 2, (1 - ends[0]) / 2), ((1 + ends[0]) / 2, (1 + ends[1]) / 2)


def norms_intervals(low=1.0, high=1.0):
    """Eigenvalues of M KKT where those of C (K + c) lie in [low, high] around 1 (Ostrowski)."""
    return (-high, -low / math.sqrt(5)), (low / math.sqrt(5), high)


def reduced(control):
    """(w, z, lam) of the problem without z: (I + alpha K^2) w = w_d, z = K w, lam = -alpha z; by sines."""
    n, h = control.n, control.spacing
    modes = np.arange(1, n + 1)
    sines = np.sin(np.pi * np.outer(modes, modes) / (n + 1)) * math.sqrt(2 / (n + 1))
    one = 4 / h**2 * np.sin(np.pi * modes / (2 * (n + 1))) ** 2
    K = one[:, None] + one
    w = sines @ control.target() @ sines / (1 + control.alpha * K**2)
    z = K * w
    return np.concatenate([(sines @ v @ sines).ravel() for v in (w, z, -control.alpha * z)])


def test_the_source_has_nine_constraints_on_eighteen_unknowns():
    control = PoissonControl(n=3)
    G, target = control.jacobian(), control.target()
    assert G.shape == (9, 18)
    assert control.spacing == 0.5
    assert (control.problem().x0 == 1).all()
    assert target[1, 1] == math.sin(4) + math.cos(3)
    assert target[0, 2] == pytest.approx(
        math.sin(4 - 0.1 / math.sqrt(15)) + math.cos(3 + 0.1 / math.sqrt(15))
    )
    assert G[[4]].toarray()[0, :9].tolist() == [0, 4, 0, 4, -16, 4, 0, 4, 0]  # Lap in units of 1 / h^2 = 4
    assert (G[:, 9:].toarray() == np.eye(9)).all()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_taylor_is_exact_for_a_quadratic(alpha):
    problem, rng = PoissonControl(n=7, alpha=alpha).problem(), np.random.default_rng(SEED)
    x, d = rng.standard_normal((2, problem.n))
    H = problem.hess(x)
    size = abs(problem.fun(x)) + abs(problem.fun(x + d))
    expansion = problem.fun(x) + problem.jac(x) @ d + d @ (H @ d) / 2
    assert abs(problem.fun(x + d) - expansion) <= problem.n * EPS * size
    assert np.allclose(problem.jac(x + d) - problem.jac(x), H @ d, rtol=0, atol=20 * EPS)


def test_the_jacobian_has_its_adjoint_and_is_the_derivative():
    problem, rng = PoissonControl(n=7).problem(), np.random.default_rng(SEED)
    assert problem.constraint is not None
    assert problem.constraint_jac is not None
    x, d = rng.standard_normal((2, problem.n))
    G = problem.constraint_jac(x)
    v = rng.standard_normal(G.shape[0])
    size = np.linalg.norm(abs(G) @ abs(d)) * np.linalg.norm(v)
    assert abs(v @ (G @ d) - (G.T @ v) @ d) <= 10 * EPS * size
    difference = problem.constraint(x + d) - problem.constraint(x)
    assert np.linalg.norm(difference - G @ d) <= 100 * EPS * np.linalg.norm(abs(G) @ (abs(x) + abs(d)))


def test_its_matrices_are_sparse():
    problem = PoissonControl(n=300).problem()  # dense ones would take 260 and 65 GB
    assert problem.constraint_jac is not None
    assert sp.issparse(problem.hess(problem.x0))
    assert problem.hess(problem.x0).nnz == problem.n
    assert problem.constraint_jac(problem.x0).nnz <= 6 * 300**2


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_kkt_operator_is_its_matrix_and_symmetric(alpha):
    control, rng = PoissonControl(n=6, alpha=alpha), np.random.default_rng(SEED)
    kkt, H, G = control.kkt(), control.hessian(), control.jacobian()
    matrix = sp.block_array([[H, G.T], [G, None]]).toarray()
    assert (kkt.to_scipy().toarray() == matrix).all()
    assert (matrix == matrix.T).all()
    x = torch.from_numpy(rng.standard_normal(len(matrix)))
    assert np.allclose(kkt @ x, matrix @ x.numpy(), rtol=1e-12, atol=1e-12)
    assert np.allclose(kkt.rmatvec(x), kkt @ x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [5, 9])  # one level of multigrid, and several
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("blocks", BLOCKS)
def test_the_preconditioner_is_symmetric_positive_definite(n, alpha, inner, blocks):
    control = PoissonControl(n=n, alpha=alpha, inner=inner, blocks=blocks)
    M = dense(control.preconditioner(), 3 * n**2)
    off = abs(M - M.T).max() / abs(M).max()
    assert off <= (10 * SINGLE if inner == "multigrid" else 100 * EPS)
    scale = 1 / np.sqrt(M.diagonal())
    assert np.linalg.eigvalsh(scale[:, None] * (M + M.T) / 2 * scale).min() > 0
    for i in range(3):  # block-diagonal
        rows = M[i * n**2 : (i + 1) * n**2].copy()
        rows[:, i * n**2 : (i + 1) * n**2] = 0
        assert not rows.any()


@pytest.mark.parametrize("n", [3, 8])
@pytest.mark.parametrize("alpha", [*ALPHAS, 1e-8])
@pytest.mark.parametrize("shift", [0.0, 0.3])
@pytest.mark.parametrize("blocks", BLOCKS)
def test_eigenvalues_lie_in_two_intervals(n, alpha, shift, blocks):
    control = PoissonControl(n=n, alpha=alpha, inner="transform", blocks=blocks)
    H = sp.csr_array(control.hessian() + shift * sp.eye_array(2 * n**2))  # as an optimiser regularises it
    M = dense(control.preconditioner(H, control.jacobian()), 3 * n**2)
    values = spectrum(control, M, H)
    assert inside(values, *(schur_intervals() if blocks == "schur" else norms_intervals()), slack=1e-8)
    assert (values < 0).sum() == n**2  # as many as constraints
    assert (abs(values - 1) < 1e-8).sum() == n**2


@pytest.mark.parametrize("n", [9, 10])
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("blocks", BLOCKS)
def test_a_cycle_widens_the_intervals_by_its_own_bounds(n, alpha, blocks):
    control = PoissonControl(n=n, alpha=alpha, blocks=blocks)
    A = control.shifted(alpha**-0.5)
    dense_A, cycle = A.to_scipy().toarray(), ns.Multigrid(cycle="V").build(A)
    C = cycle.aslinearoperator(n**2) @ np.eye(n**2)
    found = spectrum(control, dense(control.preconditioner(), 3 * n**2))
    if blocks == "schur":
        s = scipy.linalg.svdvals(dense_A @ C)
        intervals = schur_intervals(s[-1] ** 2 / 2, s[0] ** 2)
    else:
        s = scipy.linalg.eigvalsh(C, np.linalg.inv(dense_A))[::-1]
        assert 0.8 <= s[-1] <= s[0] <= 1.25  # coarse couplings are no Galerkin products: above 1 too
        intervals = norms_intervals(s[-1], max(s[0], 1.0))
    assert inside(found, *intervals, slack=100 * SINGLE)


@pytest.mark.parametrize("alpha", [1.0, 1e-3, 1e-9])
def test_one_layer_of_cells_is_the_shift(alpha):
    control = PoissonControl(n=9, alpha=alpha)
    c = alpha**-0.5
    K = -control.jacobian()[:, :81].toarray()
    assert np.allclose(control.shifted(c).to_scipy().toarray(), K + c * np.eye(81), rtol=8 * EPS)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("blocks", BLOCKS)
def test_the_solution_is_that_of_a_dense_solve(alpha, inner, blocks):
    control = PoissonControl(n=8, alpha=alpha, inner=inner, blocks=blocks)
    kkt, b = control.kkt(), control.right_side()
    exact = np.linalg.solve(kkt.to_scipy().toarray(), b)
    found = ns.solve(kkt, b, ns.MINRES(), M=control.preconditioner(), rtol=1e-11).x
    assert np.linalg.norm(found - exact) <= 1e-8 * np.linalg.norm(exact)
    assert np.linalg.norm(reduced(control) - exact) <= 1e-10 * np.linalg.norm(exact)
    problem = control.problem()
    assert problem.constraint is not None
    x, lam = found[:128], found[128:]
    assert np.linalg.norm(problem.jac(x) + control.jacobian().T @ lam) <= 1e-8
    assert np.linalg.norm(problem.constraint(x)) <= 1e-8


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(
    ("inner", "blocks", "most"),
    [("multigrid", "norms", 60), ("transform", "norms", 44), ("transform", "schur", 34)],
)
def test_steps_are_bounded_as_the_grid_is_refined(alpha, inner, blocks, most):
    for n in (8, 16, 32, 64, 127):
        control = PoissonControl(n=n, alpha=alpha, inner=inner, blocks=blocks)
        b = control.right_side()
        result = ns.solve(control.kkt(), b, ns.MINRES(), M=control.preconditioner(), rtol=1e-8)
        assert result.iterations <= most
        exact = reduced(control)
        assert np.linalg.norm(result.x - exact) <= 1e-5 * np.linalg.norm(exact)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("k", [5, 9, 15])
@pytest.mark.parametrize("blocks", BLOCKS)
def test_minres_obeys_the_bound_of_two_intervals(alpha, k, blocks):
    """||r_k||_M <= 2 rho^(k/2) ||r_0||_M; "schur" spends a step, and a factor, on its eigenvalue 1 first."""
    control = PoissonControl(n=24, alpha=alpha, inner="transform", blocks=blocks)
    kkt, M = control.kkt(), control.preconditioner()
    b = np.random.default_rng(SEED).standard_normal(3 * control.size)
    x = ns.solve(kkt, b, ns.MINRES(), M=M, rtol=0.0, maxiter=k, throw=False).x
    r = b - kkt.to_scipy() @ x
    (low, inner), (outer, high) = schur_intervals()[1:] if blocks == "schur" else norms_intervals()
    far, near = math.sqrt(-low * high), math.sqrt(-inner * outer)
    rho = (far - near) / (far + near)  # Greenbaum 1997, sec. 3.1: intervals of equal length
    first, factor = (1, GOLDEN) if blocks == "schur" else (0, 1.0)
    assert math.sqrt(r @ M(r)) <= 2 * factor * rho ** ((k - first) // 2) * math.sqrt(b @ M(b))


@pytest.mark.parametrize("blocks", BLOCKS)
def test_any_positive_diagonal_gives_a_positive_definite_preconditioner(blocks):
    control, rng = PoissonControl(n=5, blocks=blocks), np.random.default_rng(SEED)
    H = np.diag(rng.uniform(0.01, 3, 50))
    M = dense(control.preconditioner(H), 75)
    assert abs(M - M.T).max() <= 10 * SINGLE * abs(M).max()
    assert np.linalg.eigvalsh((M + M.T) / 2).min() > 0
    assert np.allclose(M.diagonal()[25:50], 1 / H.diagonal()[25:] / (1 if blocks == "schur" else 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 1}, "n = 1; a number of inner nodes"),
        ({"n": 8.0}, "n = 8.0"),
        ({"n": True}, "n = True"),
        ({"alpha": 0.0}, "alpha = 0.0; the price"),
        ({"alpha": math.nan}, "alpha = nan"),
        ({"alpha": math.inf}, "alpha = inf"),
        ({"alpha": "much"}, "alpha = 'much'"),
        ({"inner": "multgrid"}, "did you mean 'multigrid'"),
        ({"blocks": "shur"}, "did you mean 'schur'"),
    ],
)
def test_options_that_make_no_problem_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        PoissonControl(**options)


def test_matrices_of_another_problem_are_refused():
    control, other = PoissonControl(n=4), PoissonControl(n=5)
    with pytest.raises(ShapeError, match=r"H has the shape \(50, 50\); \(32, 32\)"):
        control.preconditioner(other.hessian())
    with pytest.raises(ShapeError, match=r"G has the shape \(25, 50\)"):
        control.preconditioner(control.hessian(), other.jacobian())
    with pytest.raises(ShapeError, match=r"r has the shape \(75,\); \(48,\)"):
        control.preconditioner()(np.ones(75))
    with pytest.raises(StructureError, match=r"reaches down to -0\.9; add a multiple"):
        control.preconditioner(control.hessian() - sp.eye_array(32))
