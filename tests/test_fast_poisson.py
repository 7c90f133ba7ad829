"""FastPoisson is the inverse of every box, to rounding, and refuses what is none."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
import torch
from grids import box, boxes
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_gpu import CUDA, Device, gpu

import neuralsolve as ns
from neuralsolve.kernels import reference, use
from neuralsolve.solvers import fft_transforms
from neuralsolve.solvers.transforms import Axis, transform

EPS = torch.finfo(torch.float64).eps
__all__ = ["gpu"]  # a fixture
CPU = torch.device("cpu")
KINDS = ["periodic", *((low, high) for low in (0, 1, 2) for high in (0, 1, 2))]


def random(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def along(values, a):
    return values.reshape([-1 if axis == a else 1 for axis in range(4)])


def second_difference(n, kind):
    """T of one axis, written out."""
    T = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    if kind == "periodic":
        T[0, -1] -= 1
        T[-1, 0] -= 1
        return T if n > 1 else np.zeros((1, 1))
    T[0, 0] += kind[0] - 1
    T[-1, -1] += kind[1] - 1
    return T


# the parts: transforms and line solves


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("n", [2, 3, 5, 8, 13])
@pytest.mark.parametrize("where", ["scipy", "torch.fft"])
def test_transforms_diagonalise_their_axis(kind, n, where):
    axis = Axis(n, 0.5, None if kind == "periodic" else kind)
    for a in range(3):
        change = transform(axis, a, 1) if where == "scipy" else fft_transforms.transform(axis, a, CPU)
        shape = [2, 3, 4, 2]
        shape[a] = n
        v = random(61, *shape)
        T = torch.from_numpy(0.5 * second_difference(n, kind))
        Tv = torch.tensordot(T, v, ([1], [a])).movedim(0, a).contiguous()
        spectrum = along(torch.from_numpy(change.eigenvalues), a) * change.forward(v.clone())
        torch.testing.assert_close(change.forward(Tv), spectrum, rtol=0, atol=100 * n * EPS)
        back = change.gain * change.backward(change.forward(v.clone()))
        torch.testing.assert_close(back, v, rtol=0, atol=100 * EPS)
        assert change.eigenvalues.min() >= 0
        assert (change.eigenvalues == 0).sum() == (kind in ("periodic", (0, 0)))  # exactly zero, where it is


@pytest.mark.parametrize("kind", KINDS[1:], ids=str)
def test_transforms_of_torch_are_those_of_scipy(kind):
    for n in (2, 17, 64):
        ours, theirs = (
            fft_transforms.transform(Axis(n, 1.0, kind), 1, CPU),
            transform(Axis(n, 1.0, kind), 1, 1),
        )
        v = random(62, 2, n, 3, 1)
        for name in ("forward", "backward"):
            expected = getattr(theirs, name)(v.clone())
            close = {"rtol": 0, "atol": 1e-14 * math.sqrt(n) * float(expected.abs().max())}
            torch.testing.assert_close(getattr(ours, name)(v), expected, **close)


@pytest.mark.parametrize("walls", [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (2, 2)])
@pytest.mark.parametrize(
    ("outer", "n", "inner", "w"), [(1, 2, 7, 1), (3, 9, 1, 1), (2, 5, 4, 3), (4, 3, 5, 2)]
)
def test_tridiagonal_kernels_solve_their_systems(every_room, walls, outer, n, inner, w):
    shift = random(71, outer, inner).abs()
    shift[0, 0] = 1e-9
    v = random(72, outer, n, inner, w)
    pivots, y = torch.empty(outer, n, inner, dtype=torch.float64), v.clone()
    reference.tridiagonal_factor(shift, 1.0 + walls[0], 1.0 + walls[1], pivots)
    every_room.tridiagonal_solve(pivots, -3.0, y)
    for o in range(outer):
        for m in range(inner):
            T = second_difference(n, walls) + float(shift[o, m]) * np.eye(n)
            residual = T @ y[o, :, m].numpy() + 3 * v[o, :, m].numpy()
            assert abs(residual).max() <= 32 * n * EPS * (4 * abs(y[o, :, m]).max() + 3 * abs(v).max())


def test_pivots_are_those_of_the_definition(all_kernels):
    shift, expected = random(77, 3, 5).abs(), torch.empty(3, 6, 5, dtype=torch.float64)
    pivots = torch.empty_like(expected)
    reference.tridiagonal_factor(shift, 2.0, 3.0, expected)
    all_kernels.tridiagonal_factor(shift, 2.0, 3.0, pivots)
    torch.testing.assert_close(pivots, expected, rtol=4 * EPS, atol=0)


def test_the_last_pivot_of_a_singular_system_is_left_out(all_kernels):
    pivots = torch.empty(1, 6, 1, dtype=torch.float64)
    all_kernels.tridiagonal_factor(torch.zeros(1, 1, dtype=torch.float64), 1.0, 1.0, pivots)
    assert pivots.flatten().tolist() == [1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize(("outer", "n", "inner"), [(1, 2, 7), (3, 9, 2), (2, 5, 1030), (1, 40, 3)])
def test_cyclic_kernel_solves_its_systems(every_room, request, outer, n, inner):
    if request.node.callspec.params["every_room"] == "gpu":
        inner = min(inner, 40)  # blocks are smaller there, and programs interpreted
    shift = torch.logspace(-7, 3, outer * inner, dtype=torch.float64).reshape(outer, inner)
    rate = 2 * torch.asinh(shift.sqrt() / 2)
    v = random(73, outer, n, inner)
    y = v.clone()
    every_room.cyclic_solve(torch.exp(-rate), -1 / torch.expm1(-n * rate), 0.5, y)
    Ty = (2 + shift[:, None]) * y - y.roll(1, 1) - y.roll(-1, 1)
    size = (4 + shift) * y.abs().amax(1) + v.abs().amax(1)
    assert bool(((Ty - 0.5 * v).abs().amax(1) <= 16 * n * EPS * size).all())


@pytest.mark.parametrize("name", ["tridiagonal_solve", "cyclic_solve"])
def test_single_precision_kernels_err_as_plain_torch_does(name, every_room):
    decay, v = random(74, 2, 6).abs().clamp(0.1, 0.9), random(75, 2, 11, 6)
    pivots = random(76, 2, 11, 6).abs().clamp(0.1, 0.9)

    def run(room, dtype, given):
        out = v.to(given).to(dtype)
        if name == "cyclic_solve":
            room.cyclic_solve(decay.to(given).to(dtype), (1 / (1 - decay**11)).to(given).to(dtype), 1.0, out)
            return out.double()
        room.tridiagonal_solve(pivots.to(given).to(dtype), 1.0, out[..., None])
        return out.double()

    exact, plain = run(reference, torch.float64, torch.float32), run(reference, torch.float32, torch.float32)
    ours = run(every_room, torch.float32, torch.float32)
    rounding = torch.finfo(torch.float32).eps * float(exact.norm())
    assert float((ours - exact).norm()) <= 2 * float((plain - exact).norm()) + rounding


# the inverse


@given(boxes(), st.sampled_from(["reference", "cpu"]))
@settings(max_examples=40, deadline=None)
def test_it_is_the_moore_penrose_inverse(A, room):
    n = A.shape[0]
    S = torch.from_numpy(A.to_scipy().toarray())
    with use(room):
        P = ns.FastPoisson().build(A).apply(torch.eye(n, dtype=torch.float64))
    condition = float(torch.linalg.matrix_norm(S, 2) * torch.linalg.matrix_norm(P, 2))
    accuracy = 200 * n * EPS * max(condition, 1.0)
    for actual, expected, scale in [
        (S @ P @ S, S, S.abs().max()),
        (P @ S @ P, P, P.abs().max()),
        (S @ P, (S @ P).T, 1.0),
        (P @ S, (P @ S).T, 1.0),
    ]:
        torch.testing.assert_close(actual, expected, rtol=0, atol=accuracy * float(scale))


@given(boxes(), st.integers(1, 3), st.integers(7, 2**32))
@settings(max_examples=30, deadline=None)
def test_columns_are_independent_and_nothing_else_is_written(A, k, seed):
    M, r = ns.FastPoisson().build(A), random(seed, A.shape[0], k)
    before, out = r.clone(), torch.full_like(r, math.nan)
    assert M.apply(r, out) is out
    assert torch.equal(r, before)
    assert torch.equal(M.apply(r), out)
    assert torch.equal(M.apply_transpose(r), out)
    for j in range(k):
        scale = float(out.abs().max())
        torch.testing.assert_close(M.apply(r[:, j].contiguous()), out[:, j], rtol=0, atol=1e3 * EPS * scale)
    aliased = r.clone()
    assert torch.equal(M.apply(aliased, aliased), out)


@pytest.mark.parametrize(
    "kinds", [("periodic", (0, 0)), ((1, 1), "periodic"), ((0, 1), (1, 0)), ((2, 1), (0, 2))], ids=str
)
@pytest.mark.parametrize("shape", [(211, 163), (1, 30011), (173, 1), (2, 31, 401)])
def test_the_residual_is_a_few_roundings_on_large_and_awkward_sides(shape, kinds):
    A = box(shape, (*kinds, "periodic")[: len(shape)], couplings=(1.0, 3.0, 0.2))  # threads, primes
    b = A @ random(81, A.shape[0])
    x = ns.FastPoisson().build(A).apply(b)
    bound = 32 * math.log2(A.shape[0]) * EPS * 4 * 4.2 * float(x.norm())
    assert float((A @ x - b).norm()) <= bound


@pytest.mark.parametrize("walls", ["neumann", "periodic"])
def test_what_no_x_can_reach_is_left_out(walls):
    A = ns.PoissonStencil(ns.Grid((12, 7, 5), walls=walls))
    M, b = ns.FastPoisson().build(A), random(82, 420)
    x = M.apply(b)
    assert abs(float(x.sum())) <= 420 * EPS * float(x.abs().sum())
    torch.testing.assert_close(A @ x, b - b.mean(), rtol=0, atol=1e3 * EPS * float(x.abs().max()))
    torch.testing.assert_close(M.apply(b + 5), x, rtol=0, atol=1e4 * EPS * float(x.abs().max()))


def test_closed_faces_split_the_box_into_planes():
    A = box((4, 5), [(0, 0), (0, 0)], couplings=(1.0, 0.0))
    assert A.null_space.dimension == 5
    b = A @ random(83, 20)
    torch.testing.assert_close(A @ ns.FastPoisson().build(A).apply(b), b, rtol=0, atol=1e3 * EPS)
    for kinds in ([(1, 1), (0, 2)], [(0, 0), (0, 0)]):  # no cell couples to any other
        A = box((1, 3), kinds, couplings=(2.0, 0.0))
        x = ns.FastPoisson().build(A).apply(A @ torch.ones(3, dtype=torch.float64))
        assert x.tolist() == (A.diagonal() > 0).double().tolist()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_on_a_gpu_it_is_the_same_inverse(gpu: Device, kind):
    for shape, kinds, w in [((5, 6), [(0, 0), kind], ()), ((3, 4, 7), [kind, "periodic", kind], (2,))]:
        M = ns.FastPoisson().build(box(shape, kinds, (1.0, 3.0, 0.2)))
        moved, r = M.to(CUDA), random(88, math.prod(shape), *w)
        assert moved.stays
        there = r.to(CUDA)
        gpu.reads = 0
        x = moved.apply(there)
        assert gpu.reads == 0
        expected = M.apply(r)
        torch.testing.assert_close(x.cpu(), expected, rtol=0, atol=1e-13 * float(expected.abs().max()))
        assert moved.to(CPU).describe() == M.describe() == moved.describe()


@pytest.mark.parametrize("method", [ns.FastPoisson(), ns.CG()], ids=lambda m: type(m).__name__)
def test_on_a_gpu_it_solves_in_one_step(gpu: Device, method):
    A = ns.PoissonStencil(ns.Grid((6, 5, 7), walls=("neumann", "periodic", "dirichlet")))
    b = A @ random(90, 210)
    M = None if isinstance(method, ns.FastPoisson) else ns.FastPoisson()
    result = ns.solve(A.to(CUDA), b.to(CUDA), method, M=M, rtol=1e-11)
    assert (result.converged, result.iterations) == (True, 1)
    assert "copied" not in result.explanation
    assert float((A @ result.x.cpu() - b).norm()) <= 1e-11 * float(b.norm())


def test_the_slowest_axis_is_the_one_that_is_not_transformed():
    def phrase(shape, kinds):
        return ns.FastPoisson().build(box(shape, kinds)).describe()

    assert phrase((8, 8), [(1, 1), (0, 0)]) == "exact inverse of a box: DCT-II, tridiagonal along y"
    assert phrase((8, 8), [(1, 1), (0, 1)]) == "exact inverse of a box: DST-I, tridiagonal along x"
    assert (
        phrase((8, 8, 8), ["periodic"] * 3)
        == "exact inverse of a box: real FFT, real FFT, tridiagonal along z"
    )
    assert phrase((1, 8), [(0, 0), (2, 2)]) == "exact inverse of a box: tridiagonal along x"
    assert phrase((1, 1), [(1, 1), (2, 2)]) == "exact inverse of a box: diagonal"


def test_it_follows_to_another_box():
    M = ns.FastPoisson().build(box((6, 5), [(1, 1), (0, 0)]))
    A_next = box((6, 5), ["periodic", (2, 2)], (2.0, 3.0))
    M.update(A_next)
    x = random(84, 30)
    torch.testing.assert_close(M.apply(A_next @ x), x, rtol=0, atol=1e3 * EPS * float(x.abs().max()))


# as a method


@pytest.mark.parametrize("multiple", [1.0, -2.5, 1e-6])
@pytest.mark.parametrize("walls", ["dirichlet", "neumann", "periodic"])
def test_it_solves_in_one_step(walls, multiple):
    S = multiple * ns.PoissonStencil(ns.Grid((9, 14), walls=walls)).to_scipy()
    b = S @ random(85, 126).numpy()
    result = ns.solve(S, b, ns.FastPoisson(), rtol=1e-12)
    assert (result.converged, result.iterations) == (True, 1)
    assert np.linalg.norm(S @ result.x - b) <= 1e-12 * np.linalg.norm(b)


def test_it_preconditions_cg_to_one_step():
    A = ns.PoissonStencil(ns.Grid((17, 12, 9), walls="dirichlet"))
    assert ns.solve(A, random(86, A.shape[0]), ns.CG(), M=ns.FastPoisson(), rtol=1e-10).iterations == 1
    assert ns.FastPoisson().build(A).symmetric
    assert not ns.FastPoisson().build(ns.as_operator(-A.to_scipy())).symmetric


def test_single_precision_right_sides_come_back_so():
    M, r = ns.FastPoisson().build(box((6, 5), ["periodic", "periodic"])), random(89, 30)
    torch.testing.assert_close(M.apply(r.float()), M.apply(r.float().double()).float(), rtol=1e-6, atol=1e-7)
    A = ns.PoissonStencil(ns.Grid((16, 16), walls="dirichlet"))
    x = ns.solve(A, torch.ones(256), ns.FastPoisson()).x
    assert x.dtype == torch.float32
    direct = scipy.linalg.solve(A.to_scipy().toarray(), np.ones(256), assume_a="pos")
    np.testing.assert_allclose(x.numpy(), direct, rtol=2e-5)


MASKED = np.zeros((4, 4), int)
MASKED[1, 1] = ns.SOLID
VARIED = [torch.ones(5, 4, dtype=torch.float64), torch.ones(4, 5, dtype=torch.float64)]
VARIED[1][2, 2] = 3.0
THICK = [torch.ones(5, 4, dtype=torch.float64), torch.ones(4, 5, dtype=torch.float64)]
THICK[0][0] = 1.5


@pytest.mark.parametrize(
    ("A", "words"),
    [
        (ns.PoissonStencil(ns.Grid(MASKED)), "1 of the 16 cells are SOLID or AIR"),
        (ns.PoissonStencil(ns.Grid((4, 4)), VARIED), "those of axis 1 run from 1 to 3"),
        (
            ns.PoissonStencil(ns.Grid((4, 4), walls="dirichlet"), THICK),
            "axis 0 have 1.5 times the coefficient",
        ),
        (ns.as_operator(sp.eye_array(5) * 2), "A is a CSROperator of shape (5, 5) that is none"),
        (ns.as_operator(np.eye(3)), "A is a DenseOperator"),
    ],
)
def test_what_is_no_box_is_refused_with_the_call_that_works(A, words):
    with pytest.raises(ns.StructureError, match=re.escape(words)) as caught:
        ns.FastPoisson().build(A)
    assert "ns.CG() with M=ns.IncompleteCholesky(0.97)" in str(caught.value)


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2"])
def test_workers_are_a_number_of_threads(workers):
    with pytest.raises(ns.OptionError, match=re.escape("ns.FastPoisson(workers=2)")):
        ns.FastPoisson(workers)


@pytest.mark.parametrize(
    "A",
    [
        box((5, 9), [(1, 1), (0, 2)], (2.0, 3.0)),
        -0.3 * ns.PoissonStencil(ns.Grid((60, 60), walls="neumann")).to_scipy(),
        4e3 * ns.PoissonStencil(ns.Grid((16, 15, 14), walls="periodic")).to_scipy(),
    ],
)
def test_it_is_chosen_for_every_box(A):
    result = ns.solve(A, random(87, A.shape[0]).numpy() - 1, rtol=1e-11)
    assert result.converged
    assert result.explanation.startswith("FastPoisson: constant-coefficient box")
