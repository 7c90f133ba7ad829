"""The room of state-space systems: discretisation, recurrences by blocks, gradients of the functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import Tensor

from neuralsolve.errors import OptionError
from neuralsolve.kernels import use
from neuralsolve.ssm.cauchy import cauchy
from neuralsolve.ssm.convolve import convolve, convolve_states, fast_length
from neuralsolve.ssm.discretise import discretise, phi1
from neuralsolve.ssm.mapped_scan import mapped_scan
from neuralsolve.ssm.scan import diagonal_scan
from neuralsolve.ssm.vandermonde import vandermonde, vandermonde_adjoint

EPS = torch.finfo(torch.float64).eps
DIRECTIONS = pytest.mark.parametrize("reverse", [False, True], ids=["forth", "back"])


def real(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def made(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.view_as_complex(real(generator, *shape, 2))


def factors(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.exp(torch.complex(-0.3 * real(generator, *shape).abs(), 2 * real(generator, *shape)))


def test_phi1_does_not_cancel():
    """Against (exp(x) - 1) / x in extended precision, from arguments next to zero to large ones."""
    sizes = np.logspace(-18, 2, 161)
    angles = np.linspace(np.pi / 2, 3 * np.pi / 2, 13)
    x = (sizes[:, None] * np.exp(1j * angles)).ravel()
    wide = x.astype(np.clongdouble)
    # exp(x) - 1 = 2 exp(x / 2) sinh(x / 2), which loses nothing
    exact = np.exp(wide / 2) * np.sinh(wide / 2) / (wide / 2)
    got = phi1(torch.from_numpy(x)).numpy()
    # where |x| is large, sin and cos of rounded parts of x are all that counts
    assert (
        np.abs(got - exact) <= 8 * EPS * np.maximum(np.abs(exact), 1 / np.maximum(sizes, 1).repeat(13))
    ).all()
    assert phi1(torch.zeros(1, dtype=torch.complex128)).item() == 1


@pytest.mark.parametrize("s", [-0.5 + 3j, -1e-7 + 1e-6j, -40.0 + 0j, -0.2 - 300j])
def test_a_step_holds_the_input(s):
    """Zero-order hold is the matrix exponential of [[s, 1], [0, 0]]; both ways are stable."""
    for step in (1e-3, 0.1, 1.0):
        whole = expm(np.array([[s, 1.0], [0.0, 0.0]]) * step)
        length = torch.tensor(step, dtype=torch.float64)
        got = discretise(torch.tensor(s, dtype=torch.complex128), length)
        scale = 1e3 * EPS * (1 + abs(s))
        assert abs(got.factors.item() - whole[0, 0]) <= scale
        assert abs(got.gain.item() - whole[0, 1]) <= scale * step
        for method in ("zoh", "bilinear"):
            made = discretise(torch.tensor(s, dtype=torch.complex128), length, method)
            assert abs(made.factors.item()) < 1
            assert abs(torch.exp(made.exponents) - made.factors) <= 10 * EPS


def test_the_bilinear_transform_errs_by_the_third_power_of_the_step():
    s = torch.tensor(-0.5 + 2j, dtype=torch.complex128)
    errors = []
    for step in (0.1, 0.05):
        made = discretise(s, torch.tensor(step, dtype=torch.float64), "bilinear")
        errors.append(float((made.factors - torch.exp(s * step)).abs()))
    assert abs(np.log2(errors[0] / errors[1]) - 3) < 0.1


def test_a_factor_of_zero_has_an_exponent():
    """A real eigenvalue at -2 / Delta is forgotten in one step of the bilinear transform."""
    made = discretise(torch.tensor(-4.0 + 0j), torch.tensor(0.5), "bilinear")
    assert made.factors.item() == 0
    assert torch.isfinite(torch.view_as_real(made.exponents)).all()
    w = torch.ones(1, 1, 1, dtype=torch.complex128)
    assert torch.equal(
        vandermonde(w, made.exponents.view(1, 1), 3).flatten() > 1e-300, torch.tensor([1, 0, 0]) > 0
    )


def test_an_unknown_discretisation_is_named():
    with pytest.raises(OptionError, match="bilinear"):
        discretise(torch.tensor(-1 + 0j), torch.tensor(0.1), "bilinaer")


@pytest.mark.parametrize("n", [1, 2, 5, 31, 1000, 4097, 131071])
def test_lengths_of_transforms(n):
    assert n <= fast_length(n) <= 1.25 * n + 1


def plain(a: Tensor, B: Tensor, C: Tensor, u: Tensor, initial: Tensor, D: Tensor, reverse: bool) -> Tensor:
    """The recurrence written out."""
    x, found = initial, []
    order = range(u.shape[1])
    for k in reversed(order) if reverse else order:
        x = a * x + u[:, k].to(B.dtype) @ B.T
        found.append((x @ C.T).real + D * u[:, k])
    return torch.stack(found[::-1] if reverse else found, 1), x


@DIRECTIONS
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 50), (5, 23), (9, 3)])
@pytest.mark.parametrize("room", ["cpu", "reference"])
def test_blocks_and_threads_give_the_recurrence(generator, monkeypatch, batch, length, reverse, room):
    """Blocks of 16 rows, groups of sequences on two threads: outputs, last state and all gradients."""
    monkeypatch.setattr("neuralsolve.ssm.mapped_scan.BLOCK", 1)
    monkeypatch.setattr("neuralsolve.ssm.mapped_scan.ALONE", 0)
    a, B, C = factors(generator, 4), made(generator, 4, 3), made(generator, 3, 4)
    u, initial, D = real(generator, batch, length, 3), made(generator, batch, 4), real(generator, 3)
    weight, of_last = real(generator, batch, length, 3), made(generator, batch, 4)
    found = []
    for act in (mapped_scan, plain):
        given = [t.clone().requires_grad_() for t in (a, B, C, u, initial, D)]
        with use(room):
            y, last = act(*given, reverse)
            loss = (y * weight).sum() + (last * of_last.conj()).sum().real
            found.append((y, last, *torch.autograd.grad(loss, given)))
    for got, expected in zip(*found, strict=True):
        assert (got - expected).norm() <= 1e3 * EPS * expected.norm()


def test_any_number_of_threads_gives_the_same_numbers(generator):
    a, B, C = factors(generator, 64), made(generator, 64, 8), made(generator, 8, 64)
    u = real(generator, 6, 400, 8).float()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            given = [t.clone().requires_grad_() for t in (a, B, C, u)]
            y, _ = mapped_scan(*given)
            found.append([y, *torch.autograd.grad(y.square().sum(), given)])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_a_mapped_scan_in_inference_mode(generator):
    a, B, C = factors(generator, 64), made(generator, 64, 8), made(generator, 8, 64)
    u = real(generator, 6, 800, 8)
    expected, _ = mapped_scan(a, B, C, u)
    with torch.inference_mode():
        assert torch.equal(mapped_scan(a, B, C, u)[0], expected)


def test_gradients_of_the_functions(generator):
    """By differences, in float64; complex numbers by both parts."""
    z = torch.log(factors(generator, 2, 3)).requires_grad_()
    w, k = made(generator, 2, 2, 3).requires_grad_(), real(generator, 2, 2, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda w, z: vandermonde(w, z, 7), (w, z))
    assert torch.autograd.gradcheck(vandermonde_adjoint, (k, z))
    poles, points = (made(generator, 2, 3) - 3).requires_grad_(), 2j * real(generator, 5).to(torch.complex128)
    assert torch.autograd.gradcheck(lambda v, s: cauchy(v, s, points), (w, poles))
    v, initial = made(generator, 2, 5, 3).requires_grad_(), made(generator, 2, 3).requires_grad_()
    for a in (factors(generator, 3), factors(generator, 2, 5, 3)):
        assert torch.autograd.gradcheck(diagonal_scan, (a.requires_grad_(), v, initial))
    u, K = real(generator, 2, 5, 3).requires_grad_(), real(generator, 2, 3, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda u, K: convolve(u, *K), (u, K))
    s = (made(generator, 3) - 3).requires_grad_()
    step = (0.01 + 0.1 * torch.rand(3, generator=generator, dtype=torch.float64)).requires_grad_()
    for method in ("zoh", "bilinear"):
        assert torch.autograd.gradcheck(lambda s, step, m=method: tuple(discretise(s, step, m)), (s, step))


def test_convolutions_are_sums(generator):
    u, K, later = real(generator, 2, 9, 3), real(generator, 3, 9), real(generator, 3, 9)
    expected = torch.zeros_like(u)
    for k in range(9):
        for j in range(9):
            if j <= k:
                expected[:, k] += K[:, k - j] * u[:, j]
            if j >= k:
                expected[:, k] += later[:, j - k] * u[:, j]
    assert (convolve(u, K, later) - expected).abs().max() <= 200 * EPS


def test_states_by_convolution_are_those_of_the_scan(generator):
    a, v, initial = factors(generator, 3), made(generator, 2, 11, 3), made(generator, 2, 3)
    x, _ = diagonal_scan(a, v, initial)
    assert (convolve_states(v, torch.log(a), initial) - x).abs().max() <= 200 * EPS
