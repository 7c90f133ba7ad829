"""Kernels of state-space models: both rooms agree with sums written out, and adjoints are adjoint."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from kernel_laws import assert_close, normal
from torch import Tensor

from neuralsolve.kernels import use

EPS = torch.finfo(torch.float64).eps
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
LENGTHS = (0, 1, 2, 7, 64, 257)
DIRECTIONS = pytest.mark.parametrize("reverse", [False, True], ids=["forth", "back"])


@pytest.fixture
def scan_sizes(request: pytest.FixtureRequest) -> list[tuple[int, int, int]]:
    """L, B and P; few where programs are interpreted: full chunks and blocks of states, and others."""
    if request.node.callspec.params["every_room"] == "gpu":
        return [(0, 1, 1), (3, 1, 17), (140, 1, 3)]
    return [(length, *rest) for length, rest in product(LENGTHS, ((1, 1), (3, 5), (2, 70)))]


def complex_normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.view_as_complex(normal(generator, *shape, 2))


def exponents(generator: torch.Generator, *shape: int) -> Tensor:
    """Stable exponents, with phases up to several turns in a step."""
    return torch.complex(-normal(generator, *shape).abs() / 50, 4 * normal(generator, *shape))


def scanned(a: Tensor, v: Tensor, initial: Tensor, reverse: bool) -> Tensor:
    """All states of the recurrence, one after the other; autograd can follow it."""
    length, x, states = v.shape[1], initial, []
    for i in range(length):
        k = length - 1 - i if reverse else i
        x = (a if a.ndim == 1 else a[:, k]) * x + v[:, k]
        states.append(x)
    order = states[::-1] if reverse else states
    return torch.stack(order, 1) if states else v


def run_scan(kernels, a: Tensor, v: Tensor, initial: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    out, last = torch.empty_like(v), torch.empty_like(initial)
    kernels.diagonal_scan(a, v, initial, out, last, reverse)
    return out, last


def scan_case(generator, batch: int, length: int, P: int, varying: bool) -> tuple[Tensor, Tensor, Tensor]:
    a = torch.exp(exponents(generator, *((batch, length, P) if varying else (P,))))
    return a, complex_normal(generator, batch, length, P), complex_normal(generator, batch, P)


@DIRECTIONS
@pytest.mark.parametrize("varying", [False, True], ids=["constant", "varying"])
def test_the_scan_is_the_recurrence(every_room, scan_sizes, generator, varying, reverse):
    for length, batch, P in scan_sizes:
        a, v, initial = scan_case(generator, batch, length, P, varying)
        expected = scanned(a, v, initial, reverse)
        out, last = run_scan(every_room, a, v, initial, reverse)
        assert_close(out, expected, 100 * EPS)
        end = initial if length == 0 else expected[:, 0 if reverse else -1]
        assert_close(last, end, 100 * EPS)


@pytest.mark.parametrize("varying", [False, True], ids=["constant", "varying"])
def test_a_scan_in_place_and_its_halves_give_the_same(every_room, generator, varying):
    a, v, initial = scan_case(generator, 2, 21, 6, varying)
    whole, last = run_scan(every_room, a, v, initial, False)
    first, second = v[:, :12].contiguous(), v[:, 12:].contiguous()
    parts = (a[:, :12].contiguous(), a[:, 12:].contiguous()) if varying else (a, a)
    state = initial.clone()
    for decay, part in zip(parts, (first, second), strict=True):
        every_room.diagonal_scan(decay, part, state, part, state)
    assert_close(torch.cat([first, second], 1), whole, 100 * EPS)
    assert_close(state, last, 100 * EPS)


@DIRECTIONS
@pytest.mark.parametrize("varying", [False, True], ids=["constant", "varying"])
def test_the_adjoint_of_the_scan_is_its_gradient(every_room, scan_sizes, generator, varying, reverse):
    for length, batch, P in scan_sizes:
        a, v, initial = scan_case(generator, batch, length, P, varying)
        of_x, of_last = complex_normal(generator, *v.shape), complex_normal(generator, *initial.shape)
        leaves = [t.clone().requires_grad_() for t in (a, v, initial)]
        x = scanned(*leaves, reverse)
        end = leaves[2] if length == 0 else x[:, 0 if reverse else -1]
        loss = torch.vdot(of_x.flatten(), x.flatten()) + torch.vdot(of_last.flatten(), end.flatten())
        expected = torch.autograd.grad(loss.real, leaves, allow_unused=True)
        grad, carry, a_grad = of_x.clone(), of_last.clone(), torch.zeros_like(a)
        every_room.diagonal_scan_backward(a, x.detach(), initial, grad, carry, a_grad, reverse)
        for got, truth, like in zip((a_grad, grad, carry), expected, (a, v, initial), strict=True):
            assert_close(got, torch.zeros_like(like) if truth is None else truth, 1000 * EPS)


def test_gradients_of_constant_factors_are_added(every_room, generator):
    a, v, initial = scan_case(generator, 2, 9, 4, False)
    x, _ = run_scan(every_room, a, v, initial, False)
    found = []
    for start in (0.0, 3.0):
        total = torch.full_like(a, start)
        every_room.diagonal_scan_backward(a, x, initial, v.clone(), initial.clone(), total)
        found.append(total)
    assert_close(found[1], found[0] + 3.0, 100 * EPS)


def test_states_in_single_precision_have_lost_no_phase(kernels, generator):
    """The state is carried in double precision: after 20 000 steps on a circle only v and x are rounded."""
    length = 20_000
    a = torch.exp(1j * torch.tensor([1e-3, 0.7, 3.0], dtype=torch.float64))
    v = torch.zeros(1, length, 3, dtype=torch.complex64)
    out, _ = run_scan(kernels, a, v, torch.ones(1, 3, dtype=torch.complex128), False)
    steps = torch.arange(1, length + 1, dtype=torch.float64)[:, None]
    exact = torch.exp(1j * steps * a.angle())
    assert (out[0] - exact).abs().max() <= 2 * torch.finfo(torch.float32).eps


def table(z: Tensor, length: int) -> Tensor:
    return torch.exp(z[..., None] * torch.arange(length, dtype=torch.float64))  # (H, N, L)


@DTYPES
@pytest.mark.parametrize(("H", "M", "N"), [(1, 1, 1), (3, 2, 5), (2, 4, 33)])
def test_vandermonde_sums_equal_the_table(every_room, generator, H, M, N, dtype):
    for length in LENGTHS:
        w, z = complex_normal(generator, H, M, N), exponents(generator, H, N)
        out = torch.full((H, M, length), torch.nan, dtype=dtype)
        every_room.vandermonde(w, z, out)
        terms = w[..., None] * table(z, length)[:, None]
        allowed = (
            4 * torch.finfo(dtype).eps + 40 * (length + 1) * EPS
        )  # two factors, one sum; phases of l |z|
        assert ((out - terms.real.sum(2)).abs() <= allowed * math.sqrt(N) * terms.abs().sum(2)).all()


@DTYPES
@pytest.mark.parametrize(("H", "M", "N"), [(1, 1, 1), (3, 2, 5), (2, 4, 33)])
def test_adjoint_vandermonde_sums_equal_the_table(every_room, generator, H, M, N, dtype):
    for length in LENGTHS:
        k, z = normal(generator, H, M, length, dtype=dtype), exponents(generator, H, N)
        sums, moments, alone = (torch.full((H, M, N), torch.nan, dtype=torch.complex128) for _ in range(3))
        every_room.vandermonde_adjoint(k, z, sums, moments)
        every_room.vandermonde_adjoint(k, z, alone, None)
        E, steps = table(z, length), torch.arange(length, dtype=torch.float64)
        weight = torch.einsum("hml,hnl->hmnl", k.double(), E.abs())
        allowed = 4 * math.sqrt(length + 1) * torch.finfo(dtype).eps + 40 * (length + 1) * EPS
        for got, weights in (
            (sums, torch.ones_like(steps)),
            (alone, torch.ones_like(steps)),
            (moments, steps),
        ):
            exact = torch.einsum("hml,hnl->hmn", (k.double() * weights).to(torch.complex128), E)
            assert ((got - exact).abs() <= allowed * (weight.abs() * weights).sum(3) + 1e-300).all()


def pair_sum(v: Tensor, s: Tensor, g: Tensor) -> Tensor:
    one = (v[..., None] / (g - s[:, None, :, None])).sum(2)
    return one + (v.conj()[..., None] / (g - s.conj()[:, None, :, None])).sum(2)


@pytest.mark.parametrize(
    ("H", "M", "N", "points"), [(1, 1, 1, 1), (3, 2, 5, 7), (2, 4, 9, 130), (2, 1, 3, 0)]
)
def test_cauchy_sums_and_their_adjoint(every_room, generator, H, M, N, points):
    v, s = complex_normal(generator, H, M, N), complex_normal(generator, H, N) - 3
    g, k = 5j * normal(generator, points) + 0.1, complex_normal(generator, H, M, points)
    out, sums, squares = torch.empty_like(k), torch.empty_like(v), torch.empty_like(v)
    every_room.cauchy(v, s, g, out)
    assert_close(out, pair_sum(v, s, g), 200 * EPS)
    every_room.cauchy_adjoint(k, s, g, sums, squares)
    leaves = v.clone().requires_grad_(), s.clone().requires_grad_()
    loss = (pair_sum(*leaves, g) * k.conj()).sum().real
    of_v, of_s = torch.autograd.grad(loss, leaves)
    assert_close(sums, of_v, 200 * EPS)
    assert_close((v.conj() * squares).sum(1), of_s, 200 * EPS)


def test_sequences_with_a_nan_leave_the_others_alone(kernels, generator):
    a, v, initial = scan_case(generator, 3, 50, 4, False)
    clean, _ = run_scan(kernels, a, v, initial, False)
    v[1, 20, 2] = torch.nan
    out, last = run_scan(kernels, a, v, initial, False)
    assert out[1, 20:, 2].isnan().all()
    assert last[1, 2].isnan()
    out[1, 20:, 2] = clean[1, 20:, 2] = 0
    assert_close(out, clean, 10 * EPS)


@DTYPES
@pytest.mark.parametrize(("rows", "n"), [(0, 3), (1, 1), (50, 17)])
def test_products_of_columns(every_room, generator, rows, n, dtype):
    x, y, d = (normal(generator, *shape, dtype=dtype) for shape in ((rows, n), (rows, n), (n,)))
    out, total = y.clone(), torch.ones(n, dtype=torch.float64)
    every_room.columns_axpy(d, x, out)
    assert torch.allclose(out, y + d * x, rtol=0, atol=20 * torch.finfo(dtype).eps)
    every_room.columns_dot(x, y, total)
    exact = 1 + (x.double() * y.double()).sum(0)
    assert torch.allclose(total, exact, rtol=0, atol=4 * (rows + 1) * torch.finfo(dtype).eps)


def test_any_number_of_threads_gives_the_same_numbers(generator, monkeypatch):
    a, v, initial = scan_case(generator, 6, 300, 96, False)
    w, z, k = (complex_normal(generator, 9, 1, 64), exponents(generator, 9, 64), normal(generator, 9, 1, 900))
    found = []
    with use("cpu") as cpu:
        for threads in (1, 2, 5):
            monkeypatch.setattr("torch.get_num_threads", lambda threads=threads: threads)
            x, last = run_scan(cpu, a, v, initial, False)
            grad, carry, a_grad = v.clone(), initial.clone(), torch.zeros_like(a)
            cpu.diagonal_scan_backward(a, x, initial, grad, carry, a_grad)
            out, sums = torch.empty_like(k), torch.empty_like(w)
            cpu.vandermonde(w, z, out)
            cpu.vandermonde_adjoint(k, z, sums, None)
            found.append([t.clone().numpy() for t in (x, last, grad, carry, a_grad, out, sums)])
    for other in found[1:]:
        assert all(np.array_equal(one, two) for one, two in zip(found[0], other, strict=True))
