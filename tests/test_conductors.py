"""Conductors on the levels of multigrid: what they are, how their means are corrected, and what for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from grids import grids, random_faces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recipe_laws import dense
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

import neuralsolve as ns
from neuralsolve.kernels import cpu, reference, use
from neuralsolve.kernels.reference.conductors import APART
from neuralsolve.kernels.reference.padded import inside, level_wrap
from neuralsolve.pde.scenes import inclusions
from neuralsolve.preconditioners import conductors
from neuralsolve.preconditioners.levels import build

EPS = torch.finfo(torch.float32).eps
RANDOM = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def composites(draw, max_side=6):
    """Draw a stencil whose face coefficients jump by a thousand, some faces closed."""
    grid = draw(grids(max_side))
    rng = np.random.default_rng(draw(st.integers(7, 2**32)))
    high = draw(st.sampled_from([0.3, 0.6]))
    faces = random_faces(grid, rng, draw(st.sampled_from([0.0, 0.1])))
    for axis, face in enumerate(faces):
        face *= torch.from_numpy(np.where(rng.random(face.shape) < high, 1e3, 1.0))
        if grid.periodic[axis]:
            face.select(axis, -1).copy_(face.select(axis, 0))
    return ns.PoissonStencil(grid, faces)


def spheres(shape, contrast, seed=9241, **walls):
    grid = ns.Grid(shape, **walls)
    values = inclusions(shape, np.random.default_rng(seed), contrast)
    return ns.PoissonStencil(grid, ns.face_coefficients(values, grid))


def level_matrix(h, level):
    n = math.prod(level.plan.shape)
    out = torch.zeros((n, n), dtype=torch.float64)
    reference.coarsest_matrix(level.faces.double(), level.plan.shape, h.periodic, out)
    return out


def described(A):
    """Return the finest level and the arguments of `conductor_code`."""
    h = build(A, coarsest=1)
    level = h.levels[0]
    code = torch.zeros(A.shape[0], dtype=torch.uint16)
    return h, level, (level.faces, level.inverse, level.plan.nominal, level.plan.shape, h.periodic, code)


def indicators(level, c):
    """Return Z (n, k), written out."""
    Z = torch.zeros((level.plan.size, len(c.inverse)), dtype=torch.float64)
    for k, begin, end in c.runs.T.tolist():
        assert not Z[begin:end].any()
        Z[begin:end, k] = 1
    return torch.stack([inside(z, level.plan.shape).reshape(-1) for z in Z.T], 1)


@RANDOM
@given(composites())
def test_both_implementations_find_the_same_conductors(A):
    h, level, given_to = described(A)
    codes = [torch.zeros_like(given_to[-1]) for _ in range(2)]
    found = [K.conductor_code(*given_to[:-1], code) for K, code in zip((reference, cpu), codes, strict=True)]
    assert found[0] == found[1]
    assert torch.equal(codes[0].int(), codes[1].int())
    if not found[0]:
        return
    labels = torch.empty(A.shape[0], dtype=torch.int32)
    m = len(reference.stencil_regions(codes[0], level.plan.shape, labels))
    numbers = torch.arange(m, dtype=torch.int32) - 1  # the first one is left out
    if m:
        given_to = level.faces, labels, numbers, level.plan.shape, h.periodic
        for ours, theirs in zip(
            cpu.conductor_parts(*given_to), reference.conductor_parts(*given_to), strict=True
        ):
            assert torch.equal(ours, theirs)


@RANDOM
@given(composites())
def test_conductors_are_what_strong_couplings_connect_and_weak_ones_leave(A):
    """The definition once more, from the dense matrix; usual couplings of the axes are taken out before."""
    _, level, given_to = described(A)
    *_, code = given_to
    twice = any(p and n == 2 for p, n in zip(A.grid.periodic, A.grid.shape, strict=True))
    if twice or not reference.conductor_code(*given_to):  # two couplings are one entry of the matrix
        return
    scaled = level.faces.clone()
    for axis in range(3):
        scaled[axis] /= level.plan.nominal[axis]
    n, periodic = A.shape[0], (False,) * (3 - len(A.grid.shape)) + A.grid.periodic
    S = torch.zeros((n, n), dtype=torch.float64)
    reference.coarsest_matrix(scaled.double(), level.plan.shape, periodic, S)
    g = -(S - S.diagonal().diag())
    top = g.amax(1)
    bound = float(np.float32(APART)) * top
    held = (g > 0) & (g >= bound[:, None])
    both = held & held.T
    _, parts = connected_components(csr_array(both.numpy()), directed=False)
    fixed = inside(scaled[3], level.plan.shape).reshape(-1).double()
    fixed = fixed / min(k for k, side in zip(level.plan.nominal, A.shape3, strict=True) if side > 1)
    out = (held & ~both).any(1) | ((fixed > 0) & (fixed >= bound))
    leaves = np.bincount(parts, out.numpy()) > 0
    active = inside(level.inverse, level.plan.shape).reshape(-1).numpy() != 0
    expected = active & ~leaves[parts]
    labels = torch.full((n,), -1, dtype=torch.int32)
    reference.stencil_regions(code, level.plan.shape, labels)
    assert np.array_equal(labels.numpy() >= 0, expected)
    pairs = np.unique(np.stack([labels.numpy()[expected], parts[expected]]), axis=1)
    assert pairs.shape[1] == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))


@RANDOM
@given(composites(max_side=8))
def test_a_correction_is_a_projection_in_the_energy_norm(A):
    """x + Z (Z^T A Z)^+ Z^T (b - A x), on every level; afterwards Z^T (b - A x) = 0 where b allows it."""
    h = build(A, coarsest=1)
    generator = torch.Generator().manual_seed(9257)
    for level in h.levels[:-1]:
        c, shape = level.conductors, level.plan.shape
        if not len(c.inverse):
            continue
        Z, S = indicators(level, c), level_matrix(h, level)
        E = Z.T @ S @ Z
        size = float(E.diagonal().max())
        torch.testing.assert_close(E @ c.inverse.double() @ E, E, rtol=0.0, atol=1e-4 * size)
        x, f = (torch.randn(len(S), generator=generator).double() for _ in range(2))
        b = S @ f  # in the range
        expected = x + Z @ (c.inverse.double() @ (Z.T @ (b - S @ x)))
        for K in (reference, cpu):
            v, right = (torch.zeros(level.plan.size, dtype=torch.float32) for _ in range(2))
            inside(v, shape).copy_(x.view(shape))
            inside(right, shape).copy_(b.view(shape))
            level_wrap(v, shape, h.periodic)
            K.conductor_correct(right, c.runs, c.edges, c.couplings, c.inverse, v)
            got = inside(v, shape).reshape(-1).double()
            terms = float((Z.T @ (S.abs() @ x.abs() + b.abs())).max() * c.inverse.abs().sum(1).max())
            assert float((got - expected).abs().max()) <= 64 * EPS * max(terms, float(x.abs().max()))


def test_few_coefficients_make_no_conductors():
    """None where coefficients are constant, jump by less than twenty, or differ from axis to axis alone."""
    shape = (24, 20)
    plain = ns.PoissonStencil(ns.Grid(shape))
    mild = np.random.default_rng(9277).uniform(1, 19, shape)
    for spacing in (1.0, (1.0, 100.0), (1000.0, 1.0)):
        grid = ns.Grid(shape, spacing)
        for A in (plain, ns.PoissonStencil(grid, ns.face_coefficients(mild, grid))):
            assert not any(len(level.conductors.inverse) for level in build(A).levels)
    assert any(len(level.conductors.inverse) for level in build(spheres((40, 40), 100.0)).levels)


def test_the_largest_conductors_are_kept(monkeypatch):
    A = spheres((60, 60), 1e4)
    every = build(A).levels[0].conductors
    sizes = np.bincount(every.runs[0], every.runs[2] - every.runs[1])
    assert len(sizes) > 3
    monkeypatch.setattr(conductors, "MOST", 3)
    few = build(A).levels[0].conductors
    assert np.array_equal(np.bincount(few.runs[0], few.runs[2] - few.runs[1]), np.sort(sizes)[::-1][:3])


def test_conductors_coupled_to_each_other_alone():
    """Three in a row inside closed walls, nothing else: Z^T A Z is singular, and so is A."""
    grid = ns.Grid((6, 9))
    values = np.full(grid.shape, 1e4)
    faces = list(ns.face_coefficients(values, grid))
    faces[1][:, 3], faces[1][:, 6] = 1.0, 2.0
    A = ns.PoissonStencil(grid, faces)
    c = build(A, coarsest=4).levels[0].conductors
    assert c.inverse.shape == (3, 3)
    b = np.random.default_rng(9281).standard_normal(A.shape[0])
    assert ns.solve(A, b - b.mean(), ns.CG(), M=ns.Multigrid(coarsest=4)).iterations <= 9


@pytest.mark.parametrize("walls", ["dirichlet", "neumann", "periodic"])
@pytest.mark.parametrize("recipe", [ns.Multigrid(coarsest=4), ns.Multigrid("V", "red-black", coarsest=4)])
def test_eigenvalues_stay_within_bounds_where_conductors_meet(recipe, walls):
    """Two plates that share coarse cells: without the correction the smallest one is 1e-5."""
    grid = ns.Grid((14, 16), walls=walls)
    values = np.ones(grid.shape)
    values[4:6, 2:13], values[7:9, 2:13], values[10:12, 3:5] = 1e6, 1e6, 1e6
    A = ns.PoissonStencil(grid, ns.face_coefficients(values, grid))
    M = dense(recipe.build(A), A.shape[0])
    assert float((M - M.T).abs().max()) <= 1e-4 * float(M.abs().max())
    S = A.to_scipy().toarray()
    lowest, vectors = np.linalg.eigh(S)
    good = lowest > 1e-10 * lowest.max()
    root = vectors[:, good] * np.sqrt(lowest[good])
    found = np.linalg.eigvalsh(root.T @ ((M + M.T) / 2).numpy() @ root)
    assert found.min() >= 0.1
    assert found.max() <= 2


def test_an_update_finds_them_anew():
    """More conductors, none, others: the same M as a fresh build, also for a twin and on large levels."""
    shape = (20, 22)
    M = ns.Multigrid(coarsest=6).build(spheres(shape, 1.0))
    for seed, contrast in ((9283, 1e5), (9293, 1e3), (9311, 1.0), (9319, 1e6)):
        A = spheres(shape, contrast, seed)
        M.update(A)
        fresh = ns.Multigrid(coarsest=6).build(A)
        r = torch.randn(A.shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(M.apply(r), fresh.apply(r))
        assert torch.equal(M.twin().apply(r), fresh.apply(r))


@pytest.mark.parametrize("scene", [((17, 15), "periodic"), ((7, 8, 9), ("neumann", "dirichlet", "periodic"))])
@pytest.mark.parametrize("cycle", ["V", "W", "F"])
def test_all_ways_through_the_levels_are_the_same_cycle(scene, cycle, monkeypatch):
    shape, walls = scene
    A, recipe = spheres(shape, 1e3, walls=walls), ns.Multigrid(cycle, coarsest=4)
    assert any(len(level.conductors.inverse) for level in build(A, coarsest=4).levels)
    r = torch.randn(A.shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(9343))
    together = recipe.build(A).apply(r)
    close = {"rtol": 0.0, "atol": 4 * 1e3 * EPS * float(together.abs().max())}  # contrast * eps
    with use("reference"):
        torch.testing.assert_close(recipe.build(A).apply(r), together, **close)
    monkeypatch.setattr("neuralsolve.kernels.cpu.cycle.TILED", 0)
    torch.testing.assert_close(recipe.build(A).apply(r), together, **close)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    torch.testing.assert_close(recipe.build(A).apply(r), together, **close)


@pytest.mark.parametrize(("shape", "most"), [((96, 80), 12), ((24, 20, 22), 14)])
@pytest.mark.parametrize("walls", ["dirichlet", "neumann"])
def test_a_contrast_of_a_million_costs_few_iterations(shape, walls, most):
    for seed in (9323, 9337, 9341):
        A = spheres(shape, 1e6, seed, walls=walls)
        b = np.random.default_rng(seed).standard_normal(A.shape[0])
        b -= b.mean() * (walls == "neumann")
        assert ns.solve(A, b, ns.CG(), M=ns.Multigrid()).iterations <= most


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("recipe", [ns.Multigrid(), ns.NeuralMultigrid()])
def test_one_level_stays_definite_at_a_contrast_of_a_million(recipe, seed):
    """The inverse of the coarsest level is not rounded to float32, which would leave it indefinite."""
    rng, grid = np.random.default_rng(seed), ns.Grid((1, 40))
    values = np.where(rng.random((1, 40)) < 0.4, 1e6, 1.0)
    A = ns.PoissonStencil(grid, ns.face_coefficients(values, grid))
    assert ns.solve(A, rng.standard_normal(40), ns.CG(), M=recipe).iterations <= 15
