"""Laws of sketch and project on KKT systems (Gower & Richtarik 2015)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError, StructureError
from neuralsolve.lowrank.sketch import SRHT, CountSketch, Gaussian
from neuralsolve.optimize.sketch_and_project import BATCH, BlockSketch, GaussianVector, RandomizedKaczmarz

SEED = 7703
EPS = np.finfo(float).eps


def block(kind, rows=8):
    return lambda Gamma, rhs, generator: BlockSketch(Gamma, rhs, generator, kind=kind, rows=rows)


SOLVERS = {
    "kaczmarz": RandomizedKaczmarz,
    "gaussian vector": GaussianVector,
    "gaussian": block("gaussian"),
    "countsketch": block("countsketch"),
    "srht": block("srht"),
}
ALL = pytest.mark.parametrize("make", SOLVERS.values(), ids=SOLVERS)
FORMATS = pytest.mark.parametrize("form", [np.asarray, sp.csr_array, sp.csc_matrix])


def seeded(seed=SEED):
    return torch.Generator().manual_seed(seed)


def kkt(seed, n=14, m=6, rank=None):
    """[[H, G^T], [G, 0]]: the spectrum of H in 1..2, the singular values of G 1, and 0 beyond `rank`."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    H = Q * np.linspace(1, 2, n) @ Q.T
    s = np.arange(m) < (m if rank is None else rank)
    rotation = np.linalg.qr(rng.standard_normal((m, m)))[0]
    G = rotation * s @ np.linalg.qr(rng.standard_normal((n, m)))[0].T
    return np.block([[H, G.T], [G, np.zeros((m, m))]])


def system(seed, **options):
    """Gamma, rhs and the shortest solution."""
    Gamma = kkt(seed, **options)
    rhs = Gamma @ np.random.default_rng(seed + 1).standard_normal(len(Gamma))
    return Gamma, rhs, np.linalg.pinv(Gamma, rcond=1e-12) @ rhs


def smallest(A):
    s = np.linalg.svd(A, compute_uv=False)
    return float(s[s > 1e-12 * s[0]][-1])


def kaczmarz_factor(Gamma):
    lengths = np.linalg.norm(Gamma, axis=1)
    unit = Gamma[lengths > 0] / lengths[lengths > 0, None]
    return 1 - smallest(unit) ** 2 / len(Gamma)


def gaussian_factor(Gamma):
    return 1 - 2 / math.pi * smallest(Gamma) ** 2 / np.linalg.norm(Gamma) ** 2


def advance(solver, Gamma, accuracy):
    """Go on until ||d - d*|| <= accuracy ||d*|| is sure, for as long as the rates allow at most.

    d - d* lies in the row space, so sigma ||d - d*|| <= ||r|| <= ||Gamma|| ||d - d*||, and the same for rhs
    and d*: ||r|| <= (accuracy/cond) ||rhs|| is enough, and met where ||d - d*|| <= (accuracy/cond^2) ||d*||.
    A tenth of that on average leaves one chance in a hundred, by Markov, that it is not met after `most`
    iterations. A Gaussian block holds a Gaussian vector, and projects on more.
    """
    cond = np.linalg.norm(Gamma, 2) / smallest(Gamma)
    factor = max(kaczmarz_factor(Gamma), gaussian_factor(Gamma))
    target = accuracy / cond * np.linalg.norm(solver.rhs)
    most = 2 * math.log(accuracy / cond**2 / 10) / math.log(factor)
    while solver.residual > target and solver.iterations < most:
        solver.advance(50)


@ALL
@FORMATS
def test_kkt_systems_are_solved(make, form):
    Gamma, rhs, solution = system(31)
    solver = make(form(Gamma), rhs, seeded())
    advance(solver, Gamma, 1e-6)
    assert np.linalg.norm(solver.d - solution) <= 1e-6 * np.linalg.norm(solution)
    assert solver.true_residual() == np.linalg.norm(form(Gamma) @ solver.d - rhs)


@ALL
@FORMATS
def test_singular_systems_end_in_the_shortest_solution(make, form):
    Gamma, rhs, solution = system(57, rank=4)  # two constraints follow from the others
    assert np.linalg.matrix_rank(Gamma) == len(Gamma) - 2
    solver = make(form(Gamma), rhs, seeded())
    advance(solver, Gamma, 1e-6)
    assert np.linalg.norm(solver.d - solution) <= 1e-6 * np.linalg.norm(solution)


@ALL
@pytest.mark.parametrize("shape", [(24, 15), (15, 24)])
def test_rows_of_zeros_and_rectangles(make, shape):
    rng = np.random.default_rng(83)
    Gamma = rng.standard_normal(shape)
    Gamma[[2, 7, 8]] = 0
    rhs = Gamma @ rng.standard_normal(shape[1])
    solution = np.linalg.lstsq(Gamma, rhs, rcond=None)[0]
    solver = make(Gamma, rhs, seeded())
    advance(solver, Gamma, 1e-4)
    assert np.linalg.norm(solver.d - solution) <= 1e-4 * np.linalg.norm(solution)


@ALL
def test_a_matrix_of_zeros_leaves_d_at_zero(make):
    solver = make(np.zeros((9, 9)), np.zeros(9), seeded())
    solver.advance(40)
    assert not solver.d.any()
    assert solver.residual == solver.true_residual() == 0


@ALL
def test_the_error_never_grows_and_r_follows(make):
    Gamma, rhs, solution = system(41)
    solver = make(Gamma, rhs, seeded())
    size, error = np.linalg.norm(Gamma) * np.linalg.norm(solution), np.linalg.norm(solution)
    for k in range(1, 201):
        solver.advance(1)
        last, error = error, np.linalg.norm(solver.d - solution)
        assert error <= last + 20 * len(rhs) * EPS * np.linalg.norm(solution)
        drift = 4 * k * len(rhs) * EPS * size
        assert np.linalg.norm(solver.r - (Gamma @ solver.d - rhs)) <= drift
        assert abs(solver.residual - solver.true_residual()) <= drift


@ALL
def test_same_seed_same_digits(make):
    Gamma, rhs, _ = system(43)
    ends = []
    for seed in (SEED, SEED, SEED + 1):
        solver = make(Gamma, rhs, seeded(seed))
        solver.advance(30)
        solver.advance(7)
        ends.append(solver.d)
    np.testing.assert_array_equal(ends[0], ends[1])
    assert (ends[0] != ends[2]).any()


def test_kaczmarz_goes_on_as_if_it_had_not_stopped(monkeypatch):
    Gamma, rhs, _ = system(47)
    once, often = (RandomizedKaczmarz(Gamma, rhs, seeded()) for _ in range(2))
    once.advance(1000)
    monkeypatch.setattr("neuralsolve.optimize.sketch_and_project.CHUNK", 64)
    for part in (1, 0, 300, 699):
        often.advance(part)
    np.testing.assert_array_equal(once.d, often.d)
    assert once.iterations == often.iterations == 1000


def test_batched_gaussian_vectors_are_steps_one_by_one():
    Gamma, rhs, solution = system(53)
    solver = GaussianVector(Gamma, rhs, seeded())
    solver.advance(BATCH)
    S = torch.randn((BATCH, len(rhs)), generator=seeded(), dtype=torch.float64).numpy()
    d = np.zeros(len(rhs))
    for s in S:
        w = Gamma.T @ s
        d -= s @ (Gamma @ d - rhs) / (w @ w) * w
    # each of the steps passes the rounding errors of those before on without growth
    assert np.linalg.norm(solver.d - d) <= 4 * BATCH * len(rhs) * EPS * np.linalg.norm(solution) * 10


@pytest.mark.parametrize("kind", [Gaussian(), CountSketch(), SRHT()], ids=repr)
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_a_block_step_is_its_formula(kind, form):
    Gamma, rhs, _ = system(59)
    solver = BlockSketch(form(Gamma), rhs, seeded(), kind=type(kind).__name__.lower(), rows=5)
    solver.advance(1)
    S = kind.draw(5, len(rhs), seeded()).to_dense().numpy()
    W = S @ Gamma
    step = W.T @ np.linalg.pinv(W @ W.T, rcond=1e-10) @ (S @ rhs)
    cond = np.linalg.cond(W @ W.T) if np.linalg.matrix_rank(W) == 5 else 1e3
    assert np.linalg.norm(solver.d - step) <= 100 * cond * EPS * np.linalg.norm(step)


@pytest.mark.parametrize("kind", ["gaussian", "srht"])
def test_as_many_combinations_as_equations_solve_at_once(kind):
    Gamma, rhs, solution = system(61, n=10, m=6)  # 16 equations: SRHT takes all of its rows
    solver = BlockSketch(Gamma, rhs, seeded(), kind=kind, rows=len(rhs))
    solver.advance(1)
    S = {"gaussian": Gaussian(), "srht": SRHT()}[kind].draw(len(rhs), len(rhs), seeded()).to_dense().numpy()
    bound = 100 * len(rhs) * EPS * np.linalg.cond(S @ Gamma)
    assert np.linalg.norm(solver.d - solution) <= bound * np.linalg.norm(solution)


def errors(make, Gamma, rhs, solution, iterations, runs):
    found = []
    for seed in range(runs):
        solver = make(Gamma, rhs, seeded(SEED + seed))
        solver.advance(iterations)
        found.append(solver.d - solution)
    return np.array(found)


@pytest.mark.parametrize(
    ("make", "factor"), [(RandomizedKaczmarz, kaczmarz_factor), (GaussianVector, gaussian_factor)]
)
def test_expected_contraction(make, factor):
    # E ||d_k - d*||^2 <= factor^k ||d_0 - d*||^2; the start is in the direction that shrinks most slowly
    iterations, runs = 30, 200
    Gamma = kkt(67, n=7, m=3)
    lengths = np.linalg.norm(Gamma, axis=1)
    slow = np.linalg.svd(Gamma / lengths[:, None] if make is RandomizedKaczmarz else Gamma)[2][-1]
    found = errors(make, Gamma, Gamma @ slow, slow, iterations, runs)
    squares = (found**2).sum(1)
    spread = squares.std() / math.sqrt(runs)
    assert squares.mean() <= factor(Gamma) ** iterations + 3 * spread


def test_kaczmarz_draws_its_rows_uniformly():
    # E (d_k - d*) = (I - U^T U/m)^k (d_0 - d*), U the rows scaled to length one. The mean of `runs` errs in
    # the squared norm by E ||d_k - d*||^2 / runs at most, expected; four times that is exceeded by one mean
    # in four at most, by Markov. Rows drawn by ||Gamma_i||^2 would be off by more: their lengths differ.
    iterations, runs = 8, 600
    Gamma = np.diag([1.0, 8.0, 1.0, 1.0, 1.0]) @ kkt(71, n=3, m=2)
    solution = np.random.default_rng(73).standard_normal(5)
    U = Gamma / np.linalg.norm(Gamma, axis=1)[:, None]
    expected = np.linalg.matrix_power(np.eye(5) - U.T @ U / 5, iterations) @ -solution
    found = errors(RandomizedKaczmarz, Gamma, Gamma @ solution, solution, iterations, runs)
    bound = 2 * math.sqrt((found**2).sum(1).mean() / runs)
    assert np.linalg.norm(found.mean(0) - expected) <= bound
    weights = np.linalg.norm(Gamma, axis=1) ** 2 / np.linalg.norm(Gamma) ** 2
    weighted = np.linalg.matrix_power(np.eye(5) - U.T * weights @ U, iterations) @ -solution
    assert np.linalg.norm(weighted - expected) > 2 * bound


def test_the_input_stays_as_it_is():
    Gamma, rhs, _ = system(79)
    sparse = sp.csr_array(Gamma)
    copies = Gamma.copy(), rhs.copy(), sparse.copy()
    for form in (Gamma, sparse):
        solver = RandomizedKaczmarz(form, rhs, seeded())
        solver.advance(50)
    np.testing.assert_array_equal(Gamma, copies[0])
    np.testing.assert_array_equal(rhs, copies[1])
    np.testing.assert_array_equal(sparse.data, copies[2].data)


def test_bad_input_is_told():
    Gamma, rhs, _ = system(89)
    for wrong, b in ((Gamma[:-1], rhs), (Gamma, rhs[:, None]), (rhs, rhs), (np.zeros((0, 0)), np.zeros(0))):
        with pytest.raises(ShapeError, match=r"\(m, n\) and \(m,\) are needed"):
            RandomizedKaczmarz(wrong, b, seeded())
    with pytest.raises(StructureError, match="complex"):
        GaussianVector(Gamma * 1j, rhs, seeded())
    for form in (np.asarray, sp.csr_array):
        with pytest.raises(NonFiniteError):
            GaussianVector(form(np.where(Gamma == Gamma[0, 0], np.nan, Gamma)), rhs, seeded())
    with pytest.raises(OptionError, match="did you mean 'countsketch'"):
        BlockSketch(Gamma, rhs, seeded(), kind="countsketsh")
    for rows in (0, len(rhs) + 1):
        with pytest.raises(OptionError, match="1 <= rows <= 20"):
            BlockSketch(Gamma, rhs, seeded(), rows=rows)
    with pytest.raises(OptionError, match="no way back"):
        RandomizedKaczmarz(Gamma, rhs, seeded()).advance(-1)
