"""Perturb-then-diagonalise: a factorisation of a neighbour, its certificate, and the shipped ones' bars."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ssm_laws import check, check_pairs

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError, SolveError
from neuralsolve.ssm import hippo
from neuralsolve.ssm.diagonalised import Reference, normal_eigenpairs
from neuralsolve.ssm.ptd import ptd
from neuralsolve.ssm.ptd_faithful import loss
from neuralsolve.ssm.ptd_objective import Sharpness, Sized, Weighing
from neuralsolve.ssm.transfer import DenseResolvent, dense_transfer, diagonal_transfer

rng = np.random.default_rng(1213)
JORDAN = np.diag(np.ones(6), 1) - 0.5 * np.eye(7)


def far_from_normal(n, complex_=False):
    A = np.triu(rng.standard_normal((n, n)), 1) - np.diag(1 + rng.random(n))
    return A + 1j * np.triu(rng.standard_normal((n, n)), 1) if complex_ else A


@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("objective", ["error-aware", "random"])
@pytest.mark.parametrize("inputs", [None, 0, 2])
def test_a_real_neighbour_in_pairs(n, objective, inputs):
    A = far_from_normal(n)
    B = None if inputs is None else rng.standard_normal((n, inputs) if inputs else n)
    near = ptd(A, B, size=0.1, objective=objective, steps=60)
    check(near, A, 0.1)
    check_pairs(near)
    assert near.E.dtype == float
    assert near.line == 0
    if n > 1 and objective == "random":
        assert near.relative_size == pytest.approx(0.1)
    if B is None:
        assert near.B is None
    else:
        assert near.B.shape == B.shape
        assert np.allclose(near.V @ near.B, B, atol=1e-10 * near.condition)


@pytest.mark.parametrize("objective", ["error-aware", "random", "condition"])
def test_a_complex_neighbour(objective):
    A, B = far_from_normal(6, complex_=True), rng.standard_normal(6)
    near = ptd(A, B, objective=objective, steps=60)
    check(near, A)
    assert near.E.dtype == complex
    assert (near.pairs()[1] == 1).all()


def test_the_error_is_that_of_the_transfer_functions():
    A, B = far_from_normal(7), rng.standard_normal(7)
    near = ptd(A, B, size=0.05, steps=100)
    t = np.concatenate([np.linspace(-30, 30, 4001), [near.error_frequency]])
    G = np.einsum("ij,tj->ti", near.V, diagonal_transfer(near.eigenvalues, near.B, None, t))
    error = np.linalg.norm(G - dense_transfer(A, B, None, t), axis=1)
    assert error[:-1].max() <= near.transfer_error * (1 + 1e-9)
    assert error[-1] == pytest.approx(near.transfer_error, rel=1e-9)


@pytest.mark.parametrize("objective", ["error-aware", "random"])
def test_a_jordan_block_gets_a_basis(objective):
    near = ptd(JORDAN, np.ones(7), size=0.05, objective=objective, steps=150)
    check(near, JORDAN, 0.05)
    assert near.condition < 1e4  # of the block itself it is infinite


def test_where_a_is_not_stable_the_line_lies_right_of_its_spectrum():
    A = JORDAN + 2.5 * np.eye(7)  # all eigenvalues 2
    near = ptd(A, np.ones(7), size=0.02, steps=60)
    check(near, A, 0.02)
    assert near.line > 2
    s = near.line + 1j * near.error_frequency
    moved = [np.linalg.solve(s * np.eye(7) - M, np.ones(7)) for M in (A, A + near.E)]
    assert near.transfer_error == pytest.approx(np.linalg.norm(moved[0] - moved[1]), rel=1e-6)
    assert near.stable is None


@pytest.mark.parametrize("complex_", [False, True])
def test_a_normal_matrix_stays_as_it_is(complex_):
    Q = np.linalg.qr(rng.standard_normal((6, 6)) + (1j * rng.standard_normal((6, 6)) if complex_ else 0))[0]
    block = np.array([[-1.0, 2.0], [-2.0, -1.0]])
    D = np.zeros((6, 6))
    D[:2, :2] = D[2:4, 2:4] = block  # a repeated pair
    D[4, 4] = D[5, 5] = -3.0
    A = Q @ D @ Q.conj().T
    for given in (A, hippo.legs_normal(6)[0], np.zeros((4, 4)), np.eye(3), np.array([[-2.5]])):
        near = ptd(given, steps=5)
        assert not near.E.any()
        assert near.condition == pytest.approx(1, abs=1e-12)
        assert near.size == near.relative_size == 0
        check(near, given)
    assert np.allclose(sorted(normal_eigenpairs(A)[0].imag), [-2, -2, 0, 0, 2, 2], atol=1e-12)
    check_pairs(ptd(hippo.legs_normal(7)[0]))


def test_a_faster_system_has_a_faster_neighbour():  # c A: E and l by c, the error by 1/c
    A, B = far_from_normal(5), rng.standard_normal(5)
    one, other = ptd(A, B, steps=40), ptd(4 * A, B, steps=40)
    assert np.allclose(other.E, 4 * one.E, rtol=1e-4, atol=1e-6)
    assert other.condition == pytest.approx(one.condition, rel=1e-4)
    assert other.transfer_error == pytest.approx(one.transfer_error / 4, rel=1e-3)


def test_the_certificate_holds_for_small_sizes():
    n = 12
    A, B = hippo.legs(n)
    near = ptd(A, B, size=0.3 / np.linalg.norm(A, 2), steps=100)
    assert near.stable is True
    assert near.margin == pytest.approx(0.5)
    assert near.error_bound == pytest.approx(2 * near.size / (1 - 2 * near.size), rel=1e-6)
    check(near, A)
    assert ptd(A, B, size=0.1, steps=5).stable is None


def test_the_same_seed_gives_the_same():
    A, B = far_from_normal(6), rng.standard_normal(6)
    for objective in ("error-aware", "random", "condition"):
        one, again, other = (ptd(A, B, objective=objective, steps=25, seed=seed).E for seed in (7, 7, 8))
        assert np.array_equal(one, again)
        assert not np.array_equal(one, other)


@pytest.mark.slow
def test_a_bound_of_the_condition_number_is_met_with_little():
    A, B = hippo.legs(8)
    bounded = {k: ptd(A, B, bound_condition=k, steps=150) for k in (6, 60)}
    for k, near in bounded.items():
        assert near.condition <= k
        check(near, A)
    assert bounded[60].size < bounded[6].size
    smaller = ptd(A, B, bound_condition=60, size=bounded[60].relative_size / 3, steps=300)
    assert smaller.condition > 60  # a third of it does not do
    assert ptd(A, B, bound_condition=1e6).size == 0  # kappa of LegS itself is 7.7e4
    assert ptd(A, B, bound_condition=200, objective="random").condition <= 200
    with pytest.raises(SolveError, match="no size up to 4") as caught:
        ptd(A, B, bound_condition=1, objective="random", draws=1)
    assert caught.value.result.condition > 1


def test_torch_in_torch_out():
    A, B = far_from_normal(5), rng.standard_normal(5)
    got, want = ptd(torch.from_numpy(A), torch.from_numpy(B), steps=20), ptd(A, B, steps=20)
    assert torch.equal(got.E, torch.from_numpy(want.E))
    assert got.eigenvalues.dtype == torch.complex128
    assert torch.allclose(got.V @ got.B, torch.from_numpy(B).to(torch.complex128))
    G = dense_transfer(torch.from_numpy(A), B, None, [1.0])
    assert torch.equal(G, torch.from_numpy(dense_transfer(A, B, None, [1.0])))
    G = diagonal_transfer(got.eigenvalues, got.B, None, [1.0])
    assert torch.equal(G, torch.from_numpy(diagonal_transfer(want.eigenvalues, want.B, None, [1.0])))
    assert got.abscissa == want.abscissa
    assert [x.tolist() for x in got.pairs()] == [x.tolist() for x in want.pairs()]


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize(("inputs", "goal"), [(1, None), (3, 2.0)])
def test_the_gradient_is_that_of_the_function(complex_, inputs, goal):
    A = far_from_normal(6, complex_)
    reference = Reference(A, rng.standard_normal((6, inputs)))
    t = reference.grid(20)
    first, sized = reference(t), Sized(6, 0.4, 8.0, not complex_)
    weighing = Weighing(1.3, 0.7, goal, 5.0, 1.5 * reference.abscissa)

    def value(x):
        E, back = sized.E(x)
        J, G = weighing(reference.shifted + E, reference.B, t, first, Sharpness(8.0, 8.0))
        return J, back(G)

    x, v = rng.standard_normal((2, 36 * (1 + complex_)))
    h = 1e-6
    slope = (value(x + h * v)[0] - value(x - h * v)[0]) / (2 * h)
    assert value(x)[1] @ v == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_the_published_loss_and_its_gradient():
    A, (E, V) = far_from_normal(5), rng.standard_normal((2, 5, 5)) + 1j * rng.standard_normal((2, 5, 5))
    value, G = loss(A, E, 0.3)
    kappa = np.linalg.cond(np.linalg.eig(A + E)[1])
    assert value == pytest.approx(kappa**2 + 0.3 * np.linalg.norm(E))
    h = 1e-6
    slope = (loss(A, E + h * V, 0.3)[0] - loss(A, E - h * V, 0.3)[0]) / (2 * h)
    assert (G.conj() * V).sum().real == pytest.approx(slope, rel=1e-5)


def test_the_published_objective_trades_the_transfer_function_away():
    A, B = hippo.legs(8)
    published = ptd(A, B, objective="condition", steps=400)
    ours = ptd(A, B, size=min(0.2, published.relative_size), steps=200)
    assert published.condition < 10
    assert published.E.dtype == complex
    assert ours.transfer_error < published.transfer_error / 3


def test_without_a_weight_the_condition_number_alone_is_minimised():
    A, B = hippo.legs(8)
    both = ptd(A, B, size=0.1, steps=150)
    for bound in (None, 3.0):
        alone = ptd(A, B, size=0.1, steps=150, error_weight=0, bound_condition=bound)
        assert alone.condition < both.condition
        assert alone.transfer_error > both.transfer_error


def test_resolvents_by_the_schur_form_are_those_of_solves():
    A, B = far_from_normal(9), rng.standard_normal((9, 2))
    s = np.array([0.5j, 1 - 2j, 40j])
    got = DenseResolvent(A, B)(s)
    assert got.shape == (3, 9, 2)
    for k, z in enumerate(s):
        assert np.allclose(got[k], np.linalg.solve(z * np.eye(9) - A, B.astype(complex)), rtol=1e-10)


def test_what_does_not_fit_is_told():
    A = far_from_normal(4)
    with pytest.raises(ShapeError, match=r"A of shape \(4, 3\)"):
        ptd(A[:, :3])
    with pytest.raises(ShapeError, match=r"A of shape \(0, 0\)"):
        ptd(np.zeros((0, 0)))
    with pytest.raises(ShapeError, match=r"B of shape \(3,\)"):
        ptd(A, np.ones(3))
    with pytest.raises(NonFiniteError, match="A holds NaN"):
        ptd(np.full((2, 2), np.nan))
    with pytest.raises(NonFiniteError, match="B holds"):
        ptd(A, [1, np.inf, 0, 0])
    for size in (0, -0.1, 5, np.nan):
        with pytest.raises(OptionError, match=r"size=0\.05"):
            ptd(A, size=size)
    with pytest.raises(OptionError, match="did you mean 'random'"):
        ptd(A, objective="rando")
    with pytest.raises(OptionError, match="finds its size itself"):
        ptd(A, objective="condition", size=0.1)
    with pytest.raises(OptionError, match="1 at least"):
        ptd(A, bound_condition=0.5)
    with pytest.raises(OptionError, match="steps=0"):
        ptd(A, steps=0)
    with pytest.raises(OptionError, match="error_weight=-1"):
        ptd(A, error_weight=-1)
