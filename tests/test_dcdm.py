"""DCDM: any map as a network is safe, a good one is used, a fixed SPD one makes PCG of it."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralsolve as ns
from neuralsolve import Status
from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.preconditioners.base import Preconditioner
from neuralsolve.preconditioners.relaxation import SOR, SSOR, Jacobi
from neuralsolve.solvers.bounds import largest_eigenvalue
from neuralsolve.solvers.dcdm import DCDM
from neuralsolve.solvers.flexible import FlexibleCG
from neuralsolve.solvers.krylov import CG
from neuralsolve.solvers.loop import iterate
from neuralsolve.solvers.products import Products


class Network(Preconditioner):
    """A function r -> d, of which nothing is known."""

    def __init__(self, function):
        self.function = function

    def apply(self, r, out=None):
        z = self.function(r)
        return z if out is None else out.copy_(z)

    def update(self, A_next):
        raise AssertionError

    def describe(self):
        return "a network"


def run(method, A, b, M=None, rtol=1e-6, maxiter=3000, callback=None):
    return iterate(method, A, M, b, None, rtol * torch.linalg.vector_norm(b), maxiter, callback)


def iterates(method, A, b, M, steps):
    xs = []
    run(method, A, b, M, 0.0, steps, lambda i, size, x: xs.append(x.clone()))
    return xs[:steps]


def normal(generator, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def box(n=24):
    return ns.PoissonStencil(ns.Grid((n, n), walls="dirichlet"))


def masked(n=24):
    """A free surface above, a solid disc inside, closed walls: the geometry of the method's paper, in 2D."""
    y, x = np.mgrid[:n, :n] / n
    cells = np.full((n, n), ns.FLUID, np.uint8)
    cells[y > 0.8 + 0.1 * np.sin(7 * x)] = ns.AIR
    cells[(y - 0.35) ** 2 + (x - 0.6) ** 2 < 0.02] = ns.SOLID
    return ns.PoissonStencil(ns.Grid(cells, walls="neumann"))


def closed(n=24):
    return ns.PoissonStencil(ns.Grid((n, n), walls="neumann"))


def right_side(A, generator):
    """Return a b in the range of A, and an x that it comes from."""
    x = normal(generator, A.shape[0])
    if A.active is not None:
        x = torch.where(A.active, x, 0.0)
    if A.null_space is not None:
        A.null_space.project(x)
    return A @ x, x


class Untrained(torch.nn.Module):
    """Three convolutions with random weights, in float32: nonlinear, nonsymmetric."""

    def __init__(self, side, generator):
        super().__init__()
        self.side = side
        self.layers = torch.nn.ModuleList(
            torch.nn.Conv2d(i, o, 3, padding=1) for i, o in ((1, 8), (8, 8), (8, 1))
        )
        with torch.no_grad():
            for p in self.parameters():
                p.normal_(0.0, 0.3, generator=generator)

    def forward(self, r):
        v = r.float().reshape(1, 1, self.side, self.side)
        for layer in self.layers[:-1]:
            v = torch.relu(layer(v))
        return self.layers[-1](v).reshape(r.shape)


BAD = {
    "random": lambda g: lambda r: normal(g, *r.shape),
    "zero": lambda g: torch.zeros_like,
    "constant": lambda g: torch.ones_like,
    "negated": lambda g: torch.neg,
    "nan": lambda g: lambda r: torch.full_like(r, float("nan")),
    "one nan": lambda g: lambda r: torch.where(torch.arange(len(r)) == 17, float("nan"), r),
    "infinite": lambda g: lambda r: torch.full_like(r, float("inf")),
    "absolute": lambda g: torch.abs,
    "rectified": lambda g: torch.relu,
    "cube": lambda g: lambda r: r**3,
    "sign": lambda g: torch.sign,
    "one entry": lambda g: lambda r: (torch.arange(len(r)) == len(r) // 2).double(),
    "untrained": lambda g: Untrained(24, g),
    "shuffle": lambda g: lambda r: r.flip(0),
    "random matrix": lambda g: (lambda W: lambda r: W @ r)(normal(g, 576, 576)),
}


# bar S1 of the method card: any network is safe


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("geometry", [box, masked, closed])
@pytest.mark.parametrize("method", [DCDM(), DCDM(minimise_span=True)], ids=["plain", "span"])
def test_a_bad_network_costs_at_most_five_steps(kind, geometry, method, generator):
    A = geometry()
    b, x = right_side(A, generator)
    fallback = run(CG(), A, b, Jacobi().build(A))
    energies = [float(x @ (A @ x))]
    outcome = run(
        method, A, b, Network(BAD[kind](generator)),
        callback=lambda i, size, y: energies.append(float((x - y) @ (A @ (x - y)))),
    )  # fmt: skip
    assert outcome.status is Status.CONVERGED
    assert float((b - A @ outcome.x).norm()) <= 1e-6 * float(b.norm())
    assert outcome.iterations <= fallback.iterations + 5
    assert all(math.sqrt(after) <= math.sqrt(before) * (1 + 1e-10) for before, after in pairwise(energies))
    if kind != "negated":  # a fixed SPD map but for its sign, and as good as any
        assert "3 of" in outcome.note
        assert "so CG with Jacobi took over" in outcome.note


PIECES = {
    "noise": lambda r, g: normal(g, *r.shape),
    "same": lambda r, g: r.clone(),
    "negated": lambda r, g: -r,
    "zero": lambda r, g: torch.zeros_like(r),
    "ones": lambda r, g: torch.ones_like(r),
    "huge": lambda r, g: 1e250 * r,
    "tiny": lambda r, g: 1e-250 * r,
    "single": lambda r, g: (r * 3).float(),
    "nan": lambda r, g: torch.where(r > 0.1, float("nan"), r),
    "infinite": lambda r, g: r / (r > 0),
    "square": lambda r, g: r * r,
    "smooth": lambda r, g: r + r.roll(1) + r.roll(-1) + r.roll(8) + r.roll(-8),
    "shift": lambda r, g: r.roll(3),
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sequence=st.lists(st.sampled_from(sorted(PIECES)), min_size=1, max_size=6),
    history=st.integers(0, 4),
    span=st.booleans(),
    patience=st.sampled_from([1, 3, 1000]),
    shift=st.sampled_from([0.0, 3.0, 1e4]),
    seed=st.integers(2, 10_000),
)
def test_the_energy_of_the_error_never_grows(sequence, history, span, patience, shift, seed):
    g = torch.Generator().manual_seed(seed)
    added = shift * torch.rand(64, dtype=torch.float64, generator=g).numpy()
    A = ns.as_operator(sp.csr_array(box(8).to_scipy() + sp.diags_array(added)), {"spd"})
    x = normal(g, 64)
    calls = [0]

    def network(r):
        calls[0] += 1
        return PIECES[sequence[calls[0] % len(sequence)]](r, g)

    energies = [float(x @ (A @ x))]
    outcome = run(
        DCDM(history=history, minimise_span=span, patience=patience, refresh=7),
        A, A @ x, Network(network), 1e-9, 30,
        callback=lambda i, size, y: energies.append(float((x - y) @ (A @ (x - y)))),
    )  # fmt: skip
    assert outcome.status in (Status.CONVERGED, Status.MAXITER)
    # the error's energy is known to rounding of x itself
    floor = 1e-14 * energies[0] ** 0.5
    assert all(b**0.5 <= a**0.5 * (1 + 1e-10) + floor for a, b in pairwise(energies))


def test_span_is_never_worse_than_the_fallback_alone(generator):
    A = masked()
    b, x = right_side(A, generator)
    F = SSOR().build(A)
    for _ in range(10):
        guess = torch.where(A.active, normal(generator, A.shape[0]), 0.0)
        error = x - guess
        r = A @ error
        z = F.apply(r)
        best = float(error @ r) - float(z @ r) ** 2 / float(z @ (A @ z))
        method = DCDM(minimise_span=True, fallback=F)
        state = method.init(A, None, b, guess.clone(), r.clone())
        state = method.step(A, Network(BAD["untrained"](generator)), b, state)
        after = x - state.x
        assert float(after @ (A @ after)) <= best * (1 + 1e-12)


# bar S2: with a fixed SPD map it is PCG


@pytest.mark.parametrize("geometry", [box, masked, closed])
@pytest.mark.parametrize("recipe", [None, Jacobi(), SSOR(1.4), "random diagonal"], ids=str)
@pytest.mark.parametrize("history", [1, 2, 5])
def test_a_fixed_spd_map_makes_it_pcg(geometry, recipe, history, generator):
    A = geometry()
    b, _ = right_side(A, generator)
    if recipe == "random diagonal":  # a poor one: still PCG, the safeguard does not meddle
        d = torch.rand(A.shape[0], dtype=torch.float64, generator=generator) + 0.05
        M = Network(lambda r: d * r)
        M.symmetric = True
    else:
        M = None if recipe is None else recipe.build(A)
    for x, y in zip(iterates(DCDM(history=history), A, b, M, 20), iterates(CG(), A, b, M, 20), strict=True):
        if A.null_space is not None:
            A.null_space.project(x)
            A.null_space.project(y)
        torch.testing.assert_close(x, y, rtol=0, atol=1e-8 * float(y.norm()))


@pytest.mark.parametrize("scale", [-1.0, 1e200, -1e-200])
def test_sign_and_scale_of_the_network_do_not_matter(scale, generator):
    A = box()
    b, _ = right_side(A, generator)
    M = SSOR().build(A)
    plain = iterates(DCDM(), A, b, M, 15)
    scaled = iterates(DCDM(), A, b, Network(lambda r: scale * M.apply(r)), 15)
    for x, y in zip(plain, scaled, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12 * float(x.norm()))


def test_single_precision_of_the_map_is_no_reason_to_reject(generator):
    A = box()
    b, _ = right_side(A, generator)
    M = SSOR(1.5).build(A)
    rounded = run(DCDM(), A, b, Network(lambda r: M.apply(r).float()))
    assert rounded.note == ""
    assert rounded.iterations <= run(CG(), A, b, M).iterations + 1


def test_without_history_it_is_steepest_descent(generator):
    A = box(8)
    b, _ = right_side(A, generator)
    x = torch.zeros_like(b)
    for y in iterates(DCDM(history=0), A, b, None, 12):
        r = b - A @ x
        x = x + (r @ r) / (r @ (A @ r)) * r
        torch.testing.assert_close(y, x, rtol=0, atol=1e-12 * float(x.norm()))


# a good network is used


@pytest.mark.parametrize("span", [False, True])
def test_a_good_nonlinear_network_is_kept_and_needs_few_steps(span, generator):
    A = box()
    b, _ = right_side(A, generator)
    inverse = torch.linalg.inv(torch.as_tensor(A.to_scipy().toarray()))

    def network(r):  # off by a tenth, in a way that depends on r
        z = inverse @ r
        return z + 0.1 * float(z.norm()) * torch.tanh(z / z.abs().max()) / math.sqrt(len(z))

    outcome = run(DCDM(minimise_span=span), A, b, Network(network))
    assert outcome.status is Status.CONVERGED
    assert outcome.note == ""
    assert outcome.iterations <= 12  # each step leaves at most about a tenth of the error, and then some
    assert run(CG(), A, b).iterations >= 4 * outcome.iterations


def test_a_network_that_fails_later_is_dropped_later(generator):
    A = box()
    b, _ = right_side(A, generator)
    M = SSOR(1.6).build(A)
    calls = [0]

    def tired(r):
        calls[0] += 1
        return M.apply(r) if calls[0] <= 10 else normal(generator, len(r))

    outcome = run(DCDM(), A, b, Network(tired))
    assert outcome.status is Status.CONVERGED
    assert "3 of the network's first 13 directions" in outcome.note
    assert calls[0] == 13


# cost


def test_one_product_per_step_with_a_fixed_map(generator):
    A = box()
    b, _ = right_side(A, generator)
    products = Products(A)
    outcome = run(DCDM(refresh=10), products.A, b, SSOR().build(A))
    assert outcome.iterations >= 20
    assert (
        products.count == outcome.iterations + outcome.iterations // 10 + 1
    )  # the last one: the true residual


def test_the_residual_norm_is_the_true_one(generator):
    A = masked()
    b, _ = right_side(A, generator)
    true = []
    outcome = run(
        DCDM(refresh=5), A, b, Network(BAD["untrained"](generator)),
        callback=lambda i, size, x: true.append((size, float((b - A @ x).norm()))),
    )  # fmt: skip
    claimed, formed = np.array(true).T
    np.testing.assert_allclose(claimed, formed, rtol=1e-7)
    assert outcome.status is Status.CONVERGED


# what a network may do


@pytest.mark.parametrize("shape", [(24, 24), (575,), (576, 1), ()])
def test_a_wrong_shape_is_a_clear_error(shape, generator):
    A = box()
    b, _ = right_side(A, generator)
    with pytest.raises(ShapeError, match=r"\(576,\).*reshape"):
        run(DCDM(), A, b, Network(lambda r: torch.zeros(shape, dtype=torch.float64)))


def test_an_exception_of_the_network_passes_through(generator):
    A = box()
    b, _ = right_side(A, generator)
    with pytest.raises(ZeroDivisionError):
        run(DCDM(), A, b, Network(lambda r: r / (1 // 0)))


def test_the_network_is_asked_for_a_unit_residual_it_may_spoil_and_no_gradient_is_kept(generator):
    A = box()
    b, _ = right_side(A, generator)
    net, norms = Untrained(24, generator), []

    def greedy(r):
        norms.append(float(r.norm()))
        z = net(r)
        assert not z.requires_grad
        r.zero_()
        return z

    outcome = run(DCDM(), A, b, Network(greedy))
    assert outcome.status is Status.CONVERGED
    np.testing.assert_allclose(norms, 1.0, rtol=1e-13)


# the fallback


@pytest.mark.parametrize("given", ["recipe", "built"])
def test_the_fallback_can_be_chosen(given, generator):
    A = masked()
    b, _ = right_side(A, generator)
    F = SSOR(1.5)
    method = DCDM(fallback=F if given == "recipe" else F.build(A))
    outcome = run(method, A, b, Network(torch.zeros_like))
    assert outcome.status is Status.CONVERGED
    assert "SSOR" in outcome.note
    assert outcome.iterations <= run(CG(), A, b, F.build(A)).iterations + 5


def test_a_nonsymmetric_fallback_is_run_flexibly(generator):
    A = box()
    b, _ = right_side(A, generator)
    outcome = run(DCDM(fallback=SOR(1.0)), A, b, Network(torch.zeros_like))
    assert outcome.status is Status.CONVERGED
    assert "took over after step 3" in outcome.note


def test_a_fallback_that_fails_leaves_the_residual_itself(generator):
    A = box()
    b, _ = right_side(A, generator)
    for bad in (torch.zeros_like, lambda r: r * float("nan")):
        outcome = run(DCDM(fallback=Network(bad)), A, b, Network(bad))
        assert outcome.status is Status.CONVERGED
        assert outcome.iterations <= run(CG(), A, b).iterations + 5


def test_a_function_without_a_diagonal_falls_back_on_plain_cg(generator):
    stencil = box()
    A = ns.CallableOperator(stencil.matvec, stencil.shape, props={"spd"})
    b, _ = right_side(stencil, generator)
    outcome = run(DCDM(), A, b, Network(torch.zeros_like))
    assert outcome.status is Status.CONVERGED
    assert "so CG took over" in outcome.note


@pytest.mark.parametrize(("patience", "steps"), [(1, 1), (5, 5)])
def test_patience(patience, steps, generator):
    A = box()
    b, _ = right_side(A, generator)
    outcome = run(DCDM(patience=patience), A, b, Network(torch.zeros_like))
    assert f"{patience} of the network's first {steps} directions" in outcome.note


@pytest.mark.parametrize(
    "options", [{"history": -1}, {"patience": 0}, {"refresh": 0}, {"eta": 1.0}, {"history": 1.5}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(OptionError, match="history >= 0"):
        DCDM(**options)


# flexible CG, which has no safeguard, is safe in the same sense


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    sequence=st.lists(st.sampled_from(["noise", "same", "negated", "square", "smooth", "shift"]), min_size=1),
    seed=st.integers(2, 999),
)
def test_flexible_cg_never_lets_the_energy_grow(sequence, seed):
    g = torch.Generator().manual_seed(seed)
    A, x, calls = box(8), normal(g, 64), [0]

    def network(r):
        calls[0] += 1
        return PIECES[sequence[calls[0] % len(sequence)]](r, g)

    energies = [float(x @ (A @ x))]
    run(
        FlexibleCG(), A, A @ x, Network(network), 1e-9, 30,
        callback=lambda i, size, y: energies.append(float((x - y) @ (A @ (x - y)))),
    )  # fmt: skip
    floor = 1e-14 * energies[0] ** 0.5
    assert all(b**0.5 <= a**0.5 * (1 + 1e-10) + floor for a, b in pairwise(energies))


# the size of A


def test_the_largest_eigenvalue_is_bounded_or_estimated(generator):
    stencils = [box(9), masked(12), closed(7)]
    faces = [
        torch.rand(8, 7, dtype=torch.float64, generator=generator),
        torch.rand(7, 8, dtype=torch.float64, generator=generator),
    ]
    stencils.append(ns.PoissonStencil(ns.Grid((7, 7), walls="dirichlet"), faces))
    for stencil in stencils:
        true = float(torch.linalg.eigvalsh(torch.as_tensor(stencil.to_scipy().toarray()))[-1])
        dense = ns.DenseOperator(torch.as_tensor(stencil.to_scipy().toarray()))
        for A in (stencil, ns.as_operator(stencil.to_scipy()), dense):
            assert true <= largest_eigenvalue(A) * (1 + 1e-12)
            assert largest_eigenvalue(A) <= 7 * true  # at most seven entries to a row
        function = ns.CallableOperator(stencil.matvec, stencil.shape)
        assert true / 3 <= largest_eigenvalue(function) <= true * (1 + 1e-12)
