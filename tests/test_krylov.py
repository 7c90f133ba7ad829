"""Krylov methods: optimality, finite termination, bounds, restarts, honest endings."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import neuralsolve as ns
from neuralsolve import Status
from neuralsolve.errors import OptionError
from neuralsolve.kernels import use
from neuralsolve.preconditioners.base import Preconditioner
from neuralsolve.solvers.bicgstab import BiCGStab
from neuralsolve.solvers.dcdm import DCDM
from neuralsolve.solvers.flexible import FlexibleCG
from neuralsolve.solvers.gmres import GMRES
from neuralsolve.solvers.krylov import CG
from neuralsolve.solvers.loop import iterate
from neuralsolve.solvers.minres import MINRES

SPD_METHODS = [CG(), FlexibleCG(), DCDM(), MINRES(), GMRES(restart=200), BiCGStab()]
EPS = np.finfo(float).eps


class Map(Preconditioner):
    """A function r -> z as M."""

    def __init__(self, function, symmetric=True):
        self.function, self.symmetric = function, symmetric

    def apply(self, r, out=None):
        z = self.function(r)
        return z if out is None else out.copy_(z)

    def update(self, A_next):
        raise AssertionError

    def describe(self):
        return "a function"


def diagonal_map(d):
    return Map(lambda r: d * r if r.ndim == 1 else d[:, None] * r)


def run(method, A, b, M=None, rtol=1e-10, maxiter=2000, x0=None, callback=None):
    tolerance = rtol * torch.linalg.vector_norm(b, dim=0)
    return iterate(method, A, M, b, x0, tolerance, maxiter, callback)


def iterates(method, A, b, M=None, steps=20):
    """Return x_1, x_2, ... and the residual norms that the method claims."""
    xs = []
    outcome = run(method, A, b, M, 0.0, steps, callback=lambda i, size, x: xs.append(x.clone()))
    return xs[:steps], outcome.residual_norms[1 : len(xs) + 1]


def poisson(n=24):
    return ns.PoissonStencil(ns.Grid((n, n), walls="dirichlet"))


def convection(n=20, speed=2.0):
    """-u_xx - u_yy + speed u_x, centred, unit spacing: the cell Peclet number is speed / 2."""
    along = sp.diags_array([-1.0, 1.0], offsets=[-1, 1], shape=(n, n)) * (speed / 2)
    return ns.as_operator(sp.csr_array(poisson(n).to_scipy() + sp.kron(sp.eye_array(n), along)))


def symmetric(eigenvalues, generator):
    """Return a dense symmetric matrix of these eigenvalues and its eigenvectors."""
    n = len(eigenvalues)
    Q, _ = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator))
    values = (Q * torch.as_tensor(eigenvalues, dtype=torch.float64)) @ Q.T
    return ns.DenseOperator((values + values.T) / 2, {"symmetric"}), Q


def normal(generator, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def least_residuals(A, b, M, steps, weight=None):
    """Return min ||b - A x|| over x in span{Mb, (MA)Mb, ...}, by dense least squares; 1..steps dimensions.

    `weight` W measures the residual as ||W r||.
    """
    basis = [M @ b]
    sizes = []
    for _ in range(steps):
        Z, _ = torch.linalg.qr(torch.stack(basis, 1))
        image, right = A @ Z, b
        if weight is not None:
            image, right = weight @ image, weight @ b
        y = torch.linalg.lstsq(image, right[:, None]).solution
        sizes.append(float(torch.linalg.vector_norm(right - (image @ y)[:, 0])))
        basis.append(M @ (A @ Z[:, -1]))
    return sizes


# theorems


@pytest.mark.parametrize("k", [5, 10, 20, 40])
@pytest.mark.parametrize("method", [CG(), FlexibleCG(), DCDM()])
def test_energy_norm_bound(method, k, generator):
    m = 32
    A = poisson(m)
    root_condition = 1 / math.tan(math.pi / (2 * (m + 1)))  # exact for this stencil
    rho = (root_condition - 1) / (root_condition + 1)
    x = normal(generator, m * m)
    error = iterates(method, A, A @ x, steps=k)[0][-1] - x
    assert math.sqrt(error @ (A @ error)) <= 2 * rho**k * math.sqrt(x @ (A @ x))


@pytest.mark.parametrize("method", SPD_METHODS, ids=lambda m: type(m).__name__)
def test_one_step_per_distinct_eigenvalue(method, generator):
    # rounding spoils exactness by a factor near the condition number, here 20
    A, _ = symmetric([1.0, 2.0, 5.0, 11.0, 20.0] * 12, generator)
    outcome = run(method, A, normal(generator, 60), rtol=1e-11)
    assert outcome.status is Status.CONVERGED
    assert outcome.iterations <= 5


@pytest.mark.parametrize("method", [MINRES(), GMRES()])
def test_one_step_per_distinct_eigenvalue_of_either_sign(method, generator):
    A, _ = symmetric([-7.0, -2.0, 1.0, 3.0] * 10, generator)
    outcome = run(method, A, normal(generator, 40), rtol=1e-11)
    assert outcome.status is Status.CONVERGED
    assert outcome.iterations == 4


def test_minres_is_optimal_and_monotone(generator):
    A, _ = symmetric(torch.cat([torch.linspace(-5, -1, 20), torch.linspace(0.5, 9, 40)]), generator)
    b = normal(generator, 60)
    xs, claimed = iterates(MINRES(), A, b, steps=25)
    true = [float(torch.linalg.vector_norm(b - A @ x)) for x in xs]
    best = least_residuals(A.values, b, torch.eye(60, dtype=torch.float64), 25)
    np.testing.assert_allclose(true, best, rtol=1e-9)  # Lanczos vectors lose orthogonality slowly here
    np.testing.assert_allclose(claimed, true, rtol=1e-9)
    assert all(after <= before for before, after in pairwise(claimed))


def test_preconditioned_minres_is_optimal_in_the_norm_of_m_and_claims_the_true_norm(generator):
    n = 50
    A, _ = symmetric(torch.cat([torch.linspace(-4, -1, 15), torch.linspace(1, 8, 35)]), generator)
    d = torch.rand(n, dtype=torch.float64, generator=generator) + 0.5
    b = normal(generator, n)
    xs, claimed = iterates(MINRES(), A, b, diagonal_map(d), steps=20)
    residuals = [b - A @ x for x in xs]
    best = least_residuals(A.values, b, torch.diag(d), 20, weight=torch.diag(d.sqrt()))
    np.testing.assert_allclose([float((r * d * r).sum().sqrt()) for r in residuals], best, rtol=1e-9)
    np.testing.assert_allclose(claimed, [float(r.norm()) for r in residuals], rtol=1e-9)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_gmres_is_optimal(preconditioned, generator):
    n = 50
    A = ns.DenseOperator(3 * torch.eye(n, dtype=torch.float64) + normal(generator, n, n) / 4)
    B = torch.eye(n, dtype=torch.float64)
    if preconditioned:
        B = B + 0.1 * normal(generator, n, n) / math.sqrt(n)
    b = normal(generator, n)
    M = Map(lambda r: B @ r) if preconditioned else None
    xs, claimed = iterates(GMRES(restart=n), A, b, M, steps=15)
    true = [float(torch.linalg.vector_norm(b - A @ x)) for x in xs]
    np.testing.assert_allclose(true, least_residuals(A.values, b, B, 15), rtol=1e-10)
    np.testing.assert_allclose(claimed, true, rtol=1e-10)


def test_gmres_equals_minres_on_symmetric_systems(generator):
    A, _ = symmetric(torch.cat([torch.linspace(-3, -1, 10), torch.linspace(1, 6, 30)]), generator)
    b = normal(generator, 40)
    for x, y in zip(iterates(MINRES(), A, b)[0], iterates(GMRES(), A, b)[0], strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-9 * float(x.norm()))


def test_restarted_gmres_is_a_chain_of_runs(generator):
    A, b = convection(), normal(generator, 400)
    first = iterates(GMRES(restart=7), A, b, steps=7)[0][-1]
    second = run(GMRES(restart=7), A, b, rtol=0.0, maxiter=7, x0=first).x
    whole = run(GMRES(restart=7), A, b, rtol=0.0, maxiter=14)
    torch.testing.assert_close(whole.x, second, rtol=0, atol=1e-12 * float(second.norm()))
    assert all(
        after <= before * (1 + 1e-12)
        for before, after in zip(whole.residual_norms, whole.residual_norms[1:], strict=False)
    )


def test_gmres_stays_orthogonal_where_gram_schmidt_cancels():
    # a Krylov basis of a matrix with eigenvalues over 12 decades: the product nearly lies in the space
    A = ns.DenseOperator(torch.diag(torch.logspace(-12, 0, 40, dtype=torch.float64)))
    b = torch.ones(40, dtype=torch.float64)
    method = GMRES(restart=30)
    state = method.init(A, None, b, torch.zeros_like(b), b.clone())
    for _ in range(25):
        state = method.step(A, None, b, state)
    V = state.V[:26]
    assert float((V @ V.T - torch.eye(26, dtype=torch.float64)).abs().max()) <= 40 * EPS


def test_a_callback_does_not_disturb_gmres(generator):
    A, b = convection(), normal(generator, 400)
    quiet, watched = (run(GMRES(restart=9), A, b, callback=c) for c in (None, lambda i, size, x: x.zero_()))
    assert quiet.residual_norms[1:9] == watched.residual_norms[1:9]


@pytest.mark.parametrize("method", [GMRES(), MINRES(), CG(), BiCGStab()], ids=str)
def test_an_invariant_space_holds_the_exact_solution(method):
    # tridiagonal, cut between rows 3 and 4: the Krylov space of e_1 has dimension 3
    T = sp.diags_array([-1.0, 3.0, -1.0], offsets=[-1, 0, 1], shape=(40, 40)).tolil()
    T[3, 2] = T[2, 3] = 0.0
    b = torch.zeros(40, dtype=torch.float64)
    b[0] = 1.0
    outcome = run(method, ns.as_operator(T.tocsr(), {"symmetric"}), b, rtol=1e-14)
    assert outcome.status is Status.CONVERGED
    assert outcome.iterations == 3


@pytest.mark.parametrize("changing", [False, True])
def test_flexible_methods_take_an_m_that_changes(changing, generator):
    A, x = poisson(), normal(generator, 576)
    scales = [torch.rand(576, dtype=torch.float64, generator=generator) + 0.5 for _ in range(40)]
    calls = [0]

    def product(r):
        calls[0] += changing
        return scales[calls[0] % 40] * r

    for method in (GMRES(restart=80), FlexibleCG()):
        xs, claimed = iterates(method, A, A @ x, Map(product), steps=60)
        true = [float(torch.linalg.vector_norm(A @ (x - y))) for y in xs]
        np.testing.assert_allclose(claimed, true, rtol=1e-8)
        assert true[-1] < 0.05 * float((A @ x).norm())


def test_flexible_cg_is_cg_for_a_fixed_m(generator):
    A, b = poisson(), normal(generator, 576, 3)
    M = diagonal_map(torch.rand(576, dtype=torch.float64, generator=generator) + 0.2)
    for x, y in zip(iterates(CG(), A, b, M)[0], iterates(FlexibleCG(), A, b, M)[0], strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-11 * float(x.norm()))


# nonsymmetric systems


@pytest.mark.parametrize("method", [GMRES(restart=30), BiCGStab()])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_convection_diffusion_agrees_with_a_direct_solution(method, preconditioned, generator):
    A, b = convection(), normal(generator, 400)
    dense = torch.as_tensor(A.to_scipy().toarray())
    M = Map(lambda r: torch.linalg.solve(dense.tril(), r)) if preconditioned else None
    outcome = run(method, A, b, M, rtol=1e-10)
    assert outcome.status is Status.CONVERGED
    error = outcome.x - torch.linalg.solve(dense, b)
    assert float(error.norm()) <= 1.01e-10 * float(b.norm()) / float(torch.linalg.svdvals(dense)[-1])


def test_bicgstab_claims_the_true_residual(generator):
    A, b = convection(), normal(generator, 400)
    xs, claimed = iterates(
        BiCGStab(), A, b, diagonal_map(torch.full((400,), 0.25, dtype=torch.float64)), steps=25
    )
    np.testing.assert_allclose(claimed, [float((b - A @ x).norm()) for x in xs], rtol=1e-8)


def test_bicgstab_recovers_once_from_a_breakdown():
    swap = ns.DenseOperator(torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64))
    b = torch.tensor([1.0, 0.0], dtype=torch.float64)  # r.Ar = 0 with the first shadow residual
    outcome = run(BiCGStab(), swap, b)
    assert outcome.status is Status.CONVERGED
    rotation = ns.DenseOperator(torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64))
    assert run(BiCGStab(), rotation, b).status is Status.BREAKDOWN  # t.s = 0 at every step


def test_gmres_reports_a_singular_matrix():
    nilpotent = ns.DenseOperator(torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64))
    outcome = run(GMRES(), nilpotent, torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert outcome.status is Status.BREAKDOWN
    assert not bool(outcome.x.any())


# singular symmetric systems


def neumann(n=16):
    """A matrix with the constant in its null space, which nobody declares."""
    return ns.as_operator(ns.PoissonStencil(ns.Grid((n, n), walls="neumann")).to_scipy(), {"symmetric"})


@pytest.mark.parametrize("preconditioned", [False, True])
def test_minres_solves_singular_consistent_systems(preconditioned, generator):
    A = neumann()
    b = A @ normal(generator, 256)
    M = diagonal_map(1 / A.diagonal()) if preconditioned else None
    assert run(MINRES(), A, b, M, rtol=1e-11).status is Status.CONVERGED


def test_minres_comes_to_least_squares_where_b_is_inconsistent(generator):
    A, b = neumann(), normal(generator, 256, 3)
    b[:, 1] -= b[:, 1].mean()  # one column that can be solved
    outcome = run(MINRES(), A, b, rtol=1e-9)
    assert outcome.status is Status.STAGNATED
    torch.testing.assert_close(outcome.true_norm[[0, 2]], 16 * b.mean(0).abs()[[0, 2]], rtol=1e-9, atol=0)
    assert float(outcome.true_norm[1]) <= 1e-9 * float(b[:, 1].norm())
    x = torch.linalg.pinv(torch.as_tensor(A.to_scipy().toarray())) @ b
    # ||A r|| <= sqrt(eps) is where rounding takes over; the smallest nonzero eigenvalue is about (pi/16)^2
    torch.testing.assert_close(outcome.x - outcome.x.mean(0), x, rtol=0, atol=1e-5 * float(x.norm()))


# honest endings


@pytest.mark.parametrize("method", SPD_METHODS, ids=lambda m: type(m).__name__)
def test_one_step_is_reported_as_it_is(method, generator):
    A, b = poisson(), normal(generator, 576)
    outcome = run(method, A, b, maxiter=1)
    assert outcome.status is Status.MAXITER
    assert outcome.iterations == 1
    assert float(outcome.true_norm) == pytest.approx(float((b - A @ outcome.x).norm()), rel=1e-12)


@pytest.mark.parametrize("method", SPD_METHODS, ids=lambda m: type(m).__name__)
def test_nothing_to_do_takes_no_step(method, generator):
    A, x = poisson(), normal(generator, 576)
    zero = run(method, A, torch.zeros(576, dtype=torch.float64))
    exact = run(method, A, A @ x, x0=x)
    assert (zero.status, zero.iterations) == (Status.CONVERGED, 0)
    assert not bool(zero.x.any())
    assert (exact.status, exact.iterations) == (Status.CONVERGED, 0)
    assert torch.equal(exact.x, x)


@pytest.mark.parametrize("method", SPD_METHODS, ids=lambda m: type(m).__name__)
def test_several_right_sides_are_solved_as_one_by_one_and_inputs_stay(method, generator):
    A = poisson(16)
    M = diagonal_map(torch.rand(256, dtype=torch.float64, generator=generator) + 0.5)
    b = normal(generator, 256, 3) * torch.tensor([1.0, 1e-5, 0.0], dtype=torch.float64)
    x0 = normal(generator, 256, 3) * torch.tensor([1.0, 1e-5, 0.0], dtype=torch.float64)
    before = b.clone(), x0.clone()
    together = run(method, A, b, M, x0=x0)
    assert together.status is Status.CONVERGED
    assert torch.equal(b, before[0])
    assert torch.equal(x0, before[1])
    for j in range(3):
        one = run(method, A, b[:, j].contiguous(), M, x0=x0[:, j].contiguous()).x
        as_matrix = run(method, A, b[:, j : j + 1].contiguous(), M, x0=x0[:, j : j + 1].contiguous()).x
        allowed = (
            2e-10 * float(b[:, j].norm()) / 0.06
        )  # both meet the tolerance; the least eigenvalue is 0.068
        torch.testing.assert_close(as_matrix[:, 0], one, rtol=0, atol=allowed)
        torch.testing.assert_close(together.x[:, j], one, rtol=0, atol=allowed)
    assert not bool(together.x[:, 2].any())


@pytest.mark.parametrize("method", [CG(), FlexibleCG(), DCDM(), DCDM(minimise_span=True)], ids=str)
def test_an_indefinite_matrix_is_reported(method, generator):
    A, _ = symmetric(torch.linspace(-3, 5, 40), generator)
    outcome = run(method, A, normal(generator, 40))
    assert outcome.status is Status.NOT_POSITIVE_DEFINITE


@pytest.mark.parametrize("method", [CG(), MINRES(), FlexibleCG(), GMRES(), BiCGStab()], ids=str)
@pytest.mark.parametrize("columns", [1, 2])
def test_nan_from_m_is_reported(method, columns, generator):
    A, b = poisson(8), normal(generator, 64, columns)
    outcome = run(method, A, b, Map(lambda r: r * float("nan")))
    assert outcome.status is Status.NON_FINITE
    assert not bool(outcome.x.any())


@pytest.mark.parametrize("method", [CG(), MINRES()], ids=str)
def test_an_indefinite_preconditioner_is_reported(method, generator):
    d = torch.linspace(-1, 1, 64, dtype=torch.float64)
    d[:40] -= 2
    outcome = run(method, poisson(8), normal(generator, 64), diagonal_map(d))
    assert outcome.status is Status.INDEFINITE_PRECONDITIONER


@pytest.mark.parametrize("method", [FlexibleCG(), GMRES(), BiCGStab()], ids=str)
def test_an_m_that_returns_nothing_is_reported(method, generator):
    outcome = run(method, poisson(8), normal(generator, 64), Map(torch.zeros_like))
    assert outcome.status is Status.BREAKDOWN
    assert not bool(outcome.x.any())


@pytest.mark.parametrize("method", SPD_METHODS, ids=lambda m: type(m).__name__)
def test_reference_kernels_give_the_same_iterates(method, generator):
    A, b = poisson(8), normal(generator, 64)
    fast = iterates(method, A, b, steps=8)[0]
    with use("reference"):
        plain = iterates(method, A, b, steps=8)[0]
    for x, y in zip(fast, plain, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-11 * float(y.norm()))


def test_restart_must_be_positive():
    with pytest.raises(OptionError, match="restart is 0"):
        GMRES(restart=0)
