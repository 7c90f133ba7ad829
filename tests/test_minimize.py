"""Minimisation under equality constraints: the merit function, KKT points, refusals, endings."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sp
import torch

import neuralsolve as ns
from neuralsolve.optimize.merit import ExactLagrangian
from neuralsolve.optimize.problem import EqualityProblem, Evaluations
from neuralsolve.optimize.result import MinimizeStatus

TORCH64 = torch.float64


def curved(n: int, m: int, seed: int) -> EqualityProblem:
    """A smooth function with full Hessian under quadratic and cubic constraints that x0 does not meet."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n))
    Q = A @ A.T + np.eye(n)
    C = rng.standard_normal((m, n, n))
    C = C + C.transpose(0, 2, 1)
    L = rng.standard_normal((m, n))
    aim = rng.standard_normal(n)
    target = 0.5 * np.einsum("ijk,j,k->i", C, aim, aim) + L @ aim + (aim**3).sum()

    def value(x):
        return 0.5 * np.einsum("ijk,j,k->i", C, x, x) + L @ x + (x**3).sum() - target

    return EqualityProblem(
        aim + 0.3 * rng.standard_normal(n),
        lambda x: float(0.5 * x @ Q @ x + np.cos(x).sum()),
        lambda x: Q @ x - np.sin(x),
        lambda x: Q - np.diag(np.cos(x)),
        value,
        lambda x: C @ x + L + 3 * x**2,
        lambda x, v: np.einsum("i,ijk->jk", v, C) + 6 * v.sum() * np.diag(x),
    )


def least_residual(problem: EqualityProblem, x: np.ndarray) -> float:
    """The KKT residual with the multipliers of least squares, from nothing but x."""
    g, c, G = problem.jac(x), problem.constraint(x), problem.constraint_jac(x)
    lam = np.linalg.lstsq(G.T, -g, rcond=None)[0]
    return math.hypot(np.linalg.norm(g + G.T @ lam), np.linalg.norm(c))


def sphere(n: int) -> dict:
    return {"constraints": {"type": "eq", "fun": lambda x: x @ x - 1, "jac": lambda x: 2 * x}}


@pytest.mark.parametrize("seed", range(401, 421))
def test_the_gradient_of_the_merit_function_is_its_derivative(seed):
    problem = curved(6, 3, seed)
    rng = np.random.default_rng(seed)
    x, lam = rng.standard_normal(6), rng.standard_normal(3)
    merit = ExactLagrangian(2.0, 0.3)
    ask = Evaluations(problem, 10_000)
    in_x, in_lam = merit.gradient(ask.point(x), lam, ask.hessian(x, lam))
    dx, dlam, h = rng.standard_normal(6), rng.standard_normal(3), 1e-5
    up, down = (merit.value(ask.point(x + s * h * dx), lam + s * h * dlam) for s in (1, -1))
    slope = in_x @ dx + in_lam @ dlam
    assert abs((up - down) / (2 * h) - slope) <= 1e-6 * max(abs(slope), np.abs(in_x).max())


@pytest.mark.parametrize(
    "inner", ["direct", "minres", "kaczmarz", "gaussian-vector", "gaussian", "countsketch", "srht"]
)
def test_every_inner_solver_comes_to_a_kkt_point(inner):
    problem = curved(5, 2, 431)
    result = ns.minimize(problem, method=ns.SketchedNewton(inner=inner, inner_cap=1_000_000), tol=1e-6)
    assert result.success, result
    assert least_residual(problem, result.x) <= 1e-6
    assert result.kkt_residual <= 1e-6


@pytest.mark.parametrize(("n", "m"), [(1, 0), (1, 1), (4, 0), (4, 1), (6, 3), (5, 5), (20, 7)])
def test_sizes_up_to_square(n, m):
    problem = curved(n, m, 440 + n + m)
    result = ns.minimize(problem)
    assert result.success, result
    assert least_residual(problem, result.x) <= 1e-8


def test_a_quadratic_under_linear_constraints_takes_one_step():
    rng = np.random.default_rng(451)
    A, B = rng.standard_normal((8, 8)), rng.standard_normal((3, 8))
    Q, p, target = A @ A.T + np.eye(8), rng.standard_normal(8), rng.standard_normal(3)
    constraint = scipy.optimize.LinearConstraint(B, target, target)
    result = ns.minimize(
        lambda x: 0.5 * x @ Q @ x + p @ x,
        np.zeros(8),
        jac=lambda x: Q @ x + p,
        hess=lambda x: Q,
        constraints=constraint,
    )
    K = np.block([[Q, B.T], [B, np.zeros((3, 3))]])
    assert (result.nit, result.nfev, result.nhev) == (1, 2, 2)  # the last Hessian tells that it is a minimum
    assert result.minimum
    np.testing.assert_allclose(result.x, np.linalg.solve(K, np.concatenate([-p, target]))[:8], rtol=1e-8)


def test_full_steps_near_a_solution_converge_quadratically_without_the_maratos_effect():
    problem = EqualityProblem(  # Maratos: every full step raises f and |c| alike
        np.array([1.1, 0.1]),
        lambda x: 2 * (x @ x - 1) - x[0],
        lambda x: 4 * x - np.array([1.0, 0.0]),
        lambda x: 4 * np.eye(2),
        lambda x: np.array([x @ x - 1]),
        lambda x: 2 * x[None],
        lambda x, v: 2 * v[0] * np.eye(2),
    )
    result = ns.minimize(problem, tol=1e-12)
    residuals = [row["kkt_residual"] for row in result.history]
    assert result.success
    assert all(row["step_length"] == 1 for row in result.history[1:])
    assert all(b <= 10 * a**2 for a, b in itertools.pairwise(residuals[2:]) if a < 0.1 and b > 1e-12)


def test_indefinite_hessians_lead_to_a_minimum_not_a_saddle():
    eigenvalues = np.array([-3.0, -1.0, 2.0, 5.0])
    result = ns.minimize(  # of a Rayleigh quotient: the least eigenvector
        lambda x: 0.5 * x @ (eigenvalues * x),
        np.array([0.1, 0.5, 0.5, 0.7]),
        jac=lambda x: eigenvalues * x,
        hess=lambda x: np.diag(eigenvalues),
        **sphere(4),
    )
    assert result.success
    np.testing.assert_allclose(result.fun, -1.5, rtol=1e-10)


def test_sparse_and_dense_matrices_give_the_same_steps():
    problem = curved(12, 4, 461)
    sparse = EqualityProblem(
        problem.x0,
        problem.fun,
        problem.jac,
        lambda x: sp.csr_array(problem.hess(x)),
        problem.constraint,
        lambda x: sp.csr_array(problem.constraint_jac(x)),
        lambda x, v: sp.csr_array(problem.constraint_hess(x, v)),
        multipliers0=np.zeros(4),
    )
    dense = ns.minimize(EqualityProblem(**{**vars(problem), "multipliers0": np.zeros(4)}))
    found = ns.minimize(sparse)
    assert dense.success
    assert found.success
    np.testing.assert_allclose(found.x, dense.x, atol=1e-7)


@pytest.mark.parametrize("inner", ["direct", "minres"])
def test_a_large_sparse_function_without_constraints_stays_sparse(inner):
    n = 30_000  # a dense Hessian would take 7 GB
    K = sp.diags_array([-1.0, 2.5, -1.0], offsets=[-1, 0, 1], shape=(n, n)).tocsr()
    problem = EqualityProblem(
        np.zeros(n), lambda x: 0.5 * x @ (K @ x) - x.sum(), lambda x: K @ x - 1, lambda x: K
    )
    result = ns.minimize(problem, method=ns.SketchedNewton(inner=inner))
    assert result.success
    assert np.linalg.norm(K @ result.x - 1) <= 1e-8
    assert result.minimum is None


def test_set_ups_are_kept_for_the_same_matrices_alone():
    n = 12
    kept = sp.csr_array(sp.eye_array(n))

    def hess(x):  # one matrix, written anew at every point
        kept.data[:] = 2 + 12 * x**2
        return kept

    def problem(hess):
        return EqualityProblem(
            np.linspace(0, 2, n),
            lambda x: float(x @ x + (x**4).sum()),
            lambda x: 2 * x + 4 * x**3,
            hess,
            lambda x: np.array([x.sum() - 3]),
            lambda x: sp.csr_array(np.ones((1, n))),
        )

    method = ns.SketchedNewton(inner="minres")
    found = ns.minimize(problem(hess), method=method)
    fresh = ns.minimize(problem(lambda x: sp.csr_array(sp.diags_array(2 + 12 * x**2))), method=method)
    assert found.success
    assert found.nit == fresh.nit > 2
    np.testing.assert_allclose(found.x, 0.25, atol=1e-8)


def test_torch_functions_are_differentiated():
    def fun(x):
        return (x**4).sum() + x[0] * x[1]

    def circle(x):
        return (x @ x - 1).reshape(1)

    x0 = torch.tensor([0.3, 0.8, 0.1], dtype=TORCH64)
    result = ns.minimize(fun, x0, constraints=circle)
    assert isinstance(result.x, torch.Tensor)
    assert result.x.dtype == TORCH64
    x = result.x.clone().requires_grad_()
    (fun(x) + result.multipliers @ circle(x)).backward()
    assert x.grad.norm() <= 1e-8
    assert circle(result.x).abs().max() <= 1e-8
    by_hand = ns.minimize(
        lambda x: float((x**4).sum() + x[0] * x[1]), x0.numpy(), constraints=lambda x: x @ x - 1, tol=1e-6
    )
    np.testing.assert_allclose(by_hand.x, result.x.numpy(), atol=1e-5)


def test_the_words_of_scipy():
    rosen, gradient, hessian = (
        scipy.optimize.rosen,
        scipy.optimize.rosen_der,
        scipy.optimize.rosen_hess,
    )
    line = scipy.optimize.LinearConstraint(np.ones((1, 4)), 3.0, 3.0)
    arc = scipy.optimize.NonlinearConstraint(lambda x: x @ x, 4.0, 4.0, jac=lambda x: 2 * x[None])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its factorisations
        theirs = scipy.optimize.minimize(
            rosen,
            np.full(4, 0.8),
            jac=gradient,
            hess=hessian,
            constraints=[line, arc],
            method="trust-constr",
            options={"gtol": 1e-9},
        )
    ours = ns.minimize(rosen, np.full(4, 0.8), jac=gradient, hess=hessian, constraints=[line, arc], tol=1e-7)
    assert ours.success
    np.testing.assert_allclose(ours.fun, theirs.fun, rtol=1e-6)
    both = ns.minimize(
        lambda x, a: (a * x @ x, 2 * a * x),
        np.ones(2),
        (3.0,),
        jac=True,
        constraints=lambda x: x[0] - 1,
        tol=1e-6,
    )
    np.testing.assert_allclose(both.x, [1.0, 0.0], atol=1e-6)


# endings


def test_constraints_that_contradict_each_other_are_told():
    result = ns.minimize(
        lambda x: x @ x,
        np.array([0.7, 0.3, 0.1]),
        jac=lambda x: 2 * x,
        hess=lambda x: 2 * np.eye(3),
        constraints=scipy.optimize.LinearConstraint(np.array([[1.0, 0, 0], [1, 0, 0]]), [0, 1], [0, 1]),
    )
    assert result.status is MinimizeStatus.INFEASIBLE_STATIONARY
    assert not result.success
    np.testing.assert_allclose(result.x[0], 0.5, atol=1e-5)  # the least ||c||


def test_dependent_constraints_that_agree_are_no_obstacle():
    A = np.array([[1.0, 1, 0], [2, 2, 0]])
    result = ns.minimize(
        lambda x: (x - 1) @ (x - 1),
        np.zeros(3),
        jac=lambda x: 2 * (x - 1),
        hess=lambda x: 2 * np.eye(3),
        constraints=scipy.optimize.LinearConstraint(A, [1, 2], [1, 2]),
    )
    assert result.success, result
    np.testing.assert_allclose(result.x, [0.5, 0.5, 1], atol=1e-7)
    published = ns.minimize(
        lambda x: (x - 1) @ (x - 1),
        np.zeros(3),
        jac=lambda x: 2 * (x - 1),
        hess=lambda x: 2 * np.eye(3),
        constraints=scipy.optimize.LinearConstraint(A, [1, 2], [1, 2]),
        method=ns.SketchedNewton(faithful=True),
    )
    assert published.status is MinimizeStatus.SINGULAR_JACOBIAN


def test_a_trial_point_without_a_value_halves_the_step():
    result = ns.minimize(  # the first full step leaves the domain of the logarithm
        lambda x: float(x @ x - 4 * np.log(x[0])) if x[0] > 0 else math.nan,
        np.array([0.02, 3.0]),
        jac=lambda x: 2 * x - np.array([4 / x[0], 0]),
        hess=lambda x: np.diag([2 + 4 / x[0] ** 2, 2.0]),
        constraints=lambda x: x[0] + x[1] - 4,
    )
    assert result.success, result
    np.testing.assert_allclose(result.x.sum(), 4, atol=1e-8)


def test_derivatives_of_another_function_end_in_words():
    result = ns.minimize(
        lambda x: x @ x, np.array([1.0, 2.0]), jac=lambda x: -2 * x - 1, hess=lambda x: 2 * np.eye(2)
    )
    assert not result.success
    assert result.status in (MinimizeStatus.LINE_SEARCH_FAILED, MinimizeStatus.MAX_ITER)
    assert np.isfinite(result.kkt_residual)


@pytest.mark.parametrize(("option", "most"), [("maxiter", 2), ("maxfun", 3)])
def test_caps_are_kept_and_told(option, most):
    result = ns.minimize(curved(6, 3, 471), **{option: most})
    assert result.status is MinimizeStatus.MAX_ITER
    assert (result.nit if option == "maxiter" else result.nfev) <= most
    assert result.kkt_residual == pytest.approx(
        Evaluations(curved(6, 3, 471), 10).point(result.x).residual(result.multipliers)
    )


def test_inner_iterations_that_run_out_are_told():
    method = ns.SketchedNewton(faithful=True, inner_cap=10)
    assert ns.minimize(curved(6, 3, 472), method=method).status is MinimizeStatus.INNER_CAP
    method = ns.SketchedNewton(inner="kaczmarz", inner_cap=10)
    assert ns.minimize(curved(6, 3, 472), method=method).status is MinimizeStatus.INNER_CAP


def test_a_callback_sees_every_step_stops_and_raises():
    seen = []
    result = ns.minimize(curved(6, 3, 473), callback=lambda x: seen.append(x))
    assert len(seen) == result.nit > 1
    np.testing.assert_array_equal(seen[-1], result.x)
    kept = []
    ns.minimize(curved(6, 3, 473), callback=lambda intermediate_result: kept.append(intermediate_result.fun))
    assert kept == [row["fun"] for row in result.history[1:]]

    def enough(x):
        raise StopIteration

    stopped = ns.minimize(curved(6, 3, 473), callback=enough)
    assert (stopped.status, stopped.nit) == (MinimizeStatus.STOPPED, 1)

    def broken(x):
        raise KeyError(len(x))

    with pytest.raises(KeyError, match="6"):
        ns.minimize(curved(6, 3, 473), callback=broken)


@pytest.mark.parametrize("inner", ["kaczmarz", "gaussian-vector", "gaussian"])
@pytest.mark.parametrize("faithful", [False, True])
def test_a_seed_gives_one_result(inner, faithful):
    problem = curved(4, 2, 474)
    method = ns.SketchedNewton(inner=inner, faithful=faithful, seed=77)
    a, b = (ns.minimize(problem, method=method, tol=1e-4) for _ in range(2))
    np.testing.assert_array_equal(a.x, b.x)
    assert a.inner_iterations == b.inner_iterations > 0
    assert a.success
    assert least_residual(problem, a.x) <= 1e-4


def test_what_is_no_minimum_is_said():
    def flat(x):
        return x[0] ** 2 - x[1] ** 2 + x[1] ** 4

    saddle = ns.minimize(flat, torch.zeros(2, dtype=TORCH64))
    assert saddle.success
    assert saddle.minimum is False
    assert "no minimum to second order" in saddle.explanation
    assert ns.minimize(flat, torch.tensor([0.1, 0.1], dtype=TORCH64)).minimum


def test_a_tolerance_beyond_rounding_ends_soon():
    result = ns.minimize(curved(6, 3, 475), tol=1e-30)
    assert result.status is MinimizeStatus.LINE_SEARCH_FAILED
    assert result.kkt_residual <= 1e-10
    assert result.nit <= 60


def test_a_function_without_a_minimum_is_told():
    result = ns.minimize(lambda x: x[0] + x[1] ** 2, torch.tensor([0.0, 1.0], dtype=TORCH64))
    assert result.status is MinimizeStatus.UNBOUNDED


def test_a_hessian_that_is_lost_on_the_way_is_told():
    result = ns.minimize(
        lambda x: float(x @ x),
        np.array([4.0, 1.0]),
        jac=lambda x: 2 * x,
        hess=lambda x: 2 * np.eye(2) if x[0] == 4 else np.full((2, 2), np.nan),
        constraints=lambda x: np.sin(x[:1]) - 0.5,
    )
    assert result.status is MinimizeStatus.NON_FINITE


def test_functions_may_fill_one_buffer_return_one_entry_and_spoil_their_argument():
    buffer = np.zeros(3)

    def jac(x):
        buffer[:] = 2 * (x - np.arange(3))
        return buffer

    def fun(x):
        value = np.array([((x - np.arange(3)) ** 2).sum()])
        x[:] = 0
        return value

    result = ns.minimize(fun, np.array([0.1, 0.2, 0.3]), jac=jac, **sphere(3), tol=1e-6)
    assert result.success
    np.testing.assert_allclose(result.x, np.arange(3) / math.sqrt(5), atol=1e-6)
    alone = ns.minimize(lambda x: (x - 3) ** 2, np.array([1.0]), tol=1e-6)
    np.testing.assert_allclose(alone.x, 3, atol=1e-5)
    in_torch = ns.minimize(lambda x: (x - 3) ** 2, torch.tensor([1]), constraints=lambda x: [x[0] - 2])
    assert in_torch["x"].tolist() == pytest.approx([2.0])


def test_a_callback_of_trust_constr_gets_its_state():
    seen = []
    ns.minimize(curved(6, 3, 473), callback=lambda xk, state: seen.append((xk[0], state.nit, state.status)))
    assert [nit for _, nit, _ in seen] == list(range(1, len(seen) + 1))
    assert {status for *_, status in seen} == {MinimizeStatus.RUNNING}


# refusals


@pytest.mark.parametrize("more", [{"constraints": lambda x: x}, {"jac": lambda x: x}, {"args": (1,)}])
def test_nothing_beside_a_whole_problem_is_dropped(more):
    with pytest.raises(ns.OptionError, match="beside an EqualityProblem"):
        ns.minimize(curved(4, 1, 476), **more)


def test_a_whole_problem_needs_functions():
    with pytest.raises(ns.OptionError, match="hess = None"):
        EqualityProblem(np.ones(2), lambda x: x @ x, lambda x: 2 * x, None)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"bounds": [(0, None), (None, None)]}, ns.OptionError, "finite ends"),
        ({"constraints": {"type": "ineq", "fun": lambda x: x[0]}}, ns.OptionError, "equalities alone"),
        ({"constraints": {"type": "eq"}}, ns.OptionError, "equalities alone"),
        ({"constraints": scipy.optimize.LinearConstraint(np.ones((1, 2)), 0, 1)}, ns.OptionError, "lb = ub"),
        ({"constraints": scipy.optimize.LinearConstraint(np.ones((1, 3)), 1, 1)}, ns.ShapeError, "3 columns"),
        ({"constraints": lambda x: np.ones(3)}, ns.ShapeError, "3 constraints on 2 unknowns"),
        ({"constraints": 3}, ns.OptionError, "int"),
        ({"constraints": "x[0] = 1"}, ns.OptionError, "str"),
        ({"tol": np.inf}, ns.OptionError, "tol = inf"),
        ({"maxiter": "x"}, ns.OptionError, "maxiter = x"),
        ({"jac": "nonsense"}, ns.OptionError, "jac = 'nonsense'"),
        ({"hess": np.eye(2)}, ns.OptionError, "hess = array"),
        ({"jac": True}, ns.ShapeError, "the value and the gradient"),
        ({"fun": lambda x: None}, ns.ShapeError, "fun returned"),
        ({"hess": lambda x: np.full((2, 2), np.nan)}, ns.NonFiniteError, "in a Hessian"),
        ({"hess": lambda x: np.array([[2.0, 1], [0, 2]])}, ns.StructureError, "not symmetric"),
        ({"method": "SLSQP"}, ns.OptionError, "SketchedNewton"),
        ({"tol": 0.0}, ns.OptionError, "tol > 0"),
        ({"maxiter": 0}, ns.OptionError, "maxiter = 0"),
        ({"options": {"maxitr": 3}}, ns.OptionError, "did you mean 'maxiter'"),
        ({"x0": np.array([np.nan, 1.0])}, ns.NonFiniteError, "x0 holds NaN"),
        ({"x0": np.ones((2, 2))}, ns.ShapeError, r"\(2, 2\)"),
        ({"x0": np.array([])}, ns.ShapeError, r"\(0,\)"),
        ({"x0": np.array([1j, 0])}, ns.OptionError, "real numbers"),
        ({"x0": None}, ns.OptionError, "fun, x0"),
        ({"fun": lambda x: math.nan}, ns.NonFiniteError, "at x0 in fun"),
        ({"constraints": lambda x: np.array([np.inf])}, ns.NonFiniteError, "the constraints"),
        ({"fun": lambda x: x}, ns.ShapeError, "one real number"),
        ({"jac": lambda x: np.ones(3)}, ns.ShapeError, "jac"),
        ({"hess": lambda x: np.ones((3, 3))}, ns.ShapeError, "hess"),
    ],
)
def test_what_cannot_be_minimised_is_refused(change, error, match):
    given = {
        "fun": lambda x: float(x @ x),
        "x0": np.ones(2),
        "jac": lambda x: 2 * x,
        "hess": lambda x: 2 * np.eye(2),
    }
    with pytest.raises(error, match=match):
        ns.minimize(**given | change)


@pytest.mark.parametrize(
    "options",
    [
        {"inner": "lu"},
        {"eta1": 0.0},
        {"beta": 0.7},
        {"block": 0},
        {"inner_cap": 0},
        {"faithful": True, "inner": "direct"},
    ],
)
def test_options_that_cannot_be_are_refused(options):
    with pytest.raises(ns.OptionError):
        ns.SketchedNewton(**options)
