"""Kernels of multigrid: the levels both make, P and its transpose, and what coarse operators keep of A."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from grids import random_faces, stencils
from hypothesis import HealthCheck, given, settings
from recipe_laws import masked_3d, odd_periodic_2d

import neuralsolve as ns
from neuralsolve.kernels import cpu, reference, use
from neuralsolve.kernels.reference.padded import inside
from neuralsolve.preconditioners.levels import Hierarchy, Level, build

EPS = torch.finfo(torch.float32).eps
ONE = 252  # a weight of P in bytes
RANDOM = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def padded(level: Level, values: torch.Tensor, periodic=(False, False, False)) -> torch.Tensor:
    """Return a vector of a level with zeros, or the other side, around the box."""
    v = torch.zeros(level.plan.size, dtype=torch.float32)
    inside(v, level.plan.shape).copy_(values.reshape(level.plan.shape))
    reference.level_wrap(v, level.plan.shape, periodic)
    return v


def cells(level: Level, v: torch.Tensor) -> torch.Tensor:
    return inside(v, level.plan.shape).reshape(-1).double()


def count(level: Level) -> int:
    return math.prod(level.plan.shape)


def units(level: Level, periodic) -> list[torch.Tensor]:
    return [padded(level, e, periodic) for e in torch.eye(count(level))]


def prolongation(K, h: Hierarchy, depth: int) -> torch.Tensor:
    """Return P of a level as a dense matrix, column by column."""
    fine, coarse = h.levels[depth : depth + 2]
    columns = []
    for e in units(coarse, h.periodic):
        x = torch.zeros(fine.plan.size, dtype=torch.float32)
        K.level_prolong(e, fine.weights, fine.plan.shape, fine.plan.factors, coarse.plan.shape, x)
        columns.append(cells(fine, x))
    return torch.stack(columns, 1)


def restriction(K, h: Hierarchy, depth: int) -> torch.Tensor:
    fine, coarse = h.levels[depth : depth + 2]
    columns = []
    for r in units(fine, h.periodic):
        out = torch.zeros(coarse.plan.size, dtype=torch.float32)
        K.level_restrict(r, fine.weights, fine.plan.shape, fine.plan.factors, coarse.plan.shape, 1.0, out)
        columns.append(cells(coarse, out))
    return torch.stack(columns, 1)


def matrix(K, h: Hierarchy, depth: int) -> torch.Tensor:
    """Return A of a level as a dense matrix: minus the residuals of unit vectors, b = 0."""
    level = h.levels[depth]
    zero, columns = torch.zeros(level.plan.size, dtype=torch.float32), []
    for e in units(level, h.periodic):
        e = torch.where(padded(level, cells(level, level.inverse), h.periodic) != 0, e, 0.0)
        r = zero.clone()
        K.level_residual(zero, level.inverse, h.scale, level.faces, level.plan.shape, e, r)
        columns.append(-cells(level, r))
    return torch.stack(columns, 1)


def split_box(shape, closed=0.4, walls="neumann", seed=8161) -> ns.PoissonStencil:
    grid = ns.Grid(shape, walls=walls)
    return ns.PoissonStencil(grid, random_faces(grid, np.random.default_rng(seed), closed))


def split() -> ns.PoissonStencil:
    return split_box((9, 7))


# both implementations


def assert_same_levels(A, **options):
    with use("reference"):
        slow = build(A, **options)
    fast = build(A, **options)
    assert [level.plan for level in slow.levels] == [level.plan for level in fast.levels]
    for s, f in zip(slow.levels, fast.levels, strict=True):
        for name in ("inverse", "faces"):
            if getattr(s, name).numel():
                ours, theirs = (inside(getattr(level, name), s.plan.shape).double() for level in (f, s))
                assert float((ours - theirs).abs().max()) <= 16 * EPS * float(theirs.abs().max())
        weights = [inside(level.weights, s.plan.shape).int() for level in (s, f)]
        assert int((weights[0] - weights[1]).abs().max()) <= 1
    assert slow.periodic == fast.periodic
    assert (slow.unit, slow.scale) == (fast.unit, fast.scale)


@RANDOM
@given(stencils(max_side=7))
def test_both_implementations_make_the_same_levels(A):
    assert_same_levels(A, coarsest=3)


@pytest.mark.parametrize("walls", ["neumann", "periodic", "dirichlet"])
@pytest.mark.parametrize("shape", [(1, 13), (9, 2), (7, 7), (2, 5, 6), (5, 5, 5)])
def test_cells_that_are_cut_off_are_attached_alike(shape, walls):
    A = split_box(shape, 0.5, walls)
    assert_same_levels(A, coarsest=2)
    assert_same_levels(A, coarsest=2, strong=0.0, limit=3)


CYCLES = [
    ns.Multigrid(coarsest=2),
    ns.Multigrid("F", "red-black", sweeps=(1, 3), coarsest=3),
    ns.Multigrid("V", sweeps=3, coarsest=2, correction=1.2),
]
SCENES = [masked_3d, odd_periodic_2d, split]


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("recipe", CYCLES, ids=lambda recipe: recipe.cycle)
def test_one_compiled_cycle_is_the_definition(scene, recipe, generator):
    A = scene()
    r = torch.randn(A.shape[0], dtype=torch.float64, generator=generator)
    fast = recipe.build(A).apply(r)
    with use("reference"):
        slow = recipe.build(A).apply(r)
    assert float((fast - slow).abs().max()) <= 2e-5 * float(slow.abs().max())


def flat_periodic():
    """Return a stencil whose tiles are parts of planes, more than one along z, with a seam along y and z."""
    return ns.PoissonStencil(
        ns.Grid((21, 20, 6), spacing=(1.0, 3.0, 1.0), walls=["periodic"] * 2 + ["neumann"])
    )


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("scene", [*SCENES, lambda: split_box((33, 22)), flat_periodic])
@pytest.mark.parametrize(
    "recipe", [*CYCLES, ns.Multigrid("full", sweeps=(0, 2))], ids=lambda recipe: recipe.cycle
)
def test_levels_in_tiles_are_the_same_cycle(scene, recipe, threads, monkeypatch, generator):
    """Levels of up to TILED cells are done vector by vector, larger ones in tiles that threads share."""
    A = scene()
    r = torch.randn(A.shape[0], 3, dtype=torch.float64, generator=generator)
    M = recipe.build(A)
    whole = M.apply(r)
    monkeypatch.setattr("neuralsolve.kernels.cpu.cycle.TILED", 0)
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    for _ in range(2):
        tiled = M.apply(r)
        assert float((tiled - whole).abs().max()) <= 1e-5 * float(whole.abs().max())


# interpolation


@RANDOM
@given(stencils(max_side=6))
def test_restriction_is_the_transpose_of_prolongation(A):
    h = build(A, coarsest=3)
    for K in (cpu, reference):
        for depth in range(len(h.levels) - 1):
            P, R = prolongation(K, h, depth), restriction(K, h, depth)
            torch.testing.assert_close(R, P.T, rtol=0.0, atol=2 * EPS)


@RANDOM
@given(stencils(max_side=6))
def test_constants_are_kept_where_nothing_leaks(A):
    """Rows of P sum to one where A's do to zero, to less at outlets, to zero where no cell is."""
    h = build(A, coarsest=3)
    for depth, level in enumerate(h.levels[:-1]):
        total = prolongation(cpu, h, depth).sum(1)
        with_cell = cells(level, level.inverse) > 0
        leak = matrix(cpu, h, depth).sum(1).abs() if depth == 0 else cells(level, level.faces[3])
        tight = with_cell & (leak <= 16 * EPS * matrix(cpu, h, depth).diagonal())
        assert float((total[tight] - 1).abs().max() if tight.any() else 0.0) <= 4 * EPS
        assert not total[~with_cell].any()
        assert bool(((total > -EPS) & (total < 1 + 4 * EPS)).all())


@pytest.mark.parametrize("constant", [True, False], ids=["code", "faces"])
@pytest.mark.parametrize("shape", [(8, 12), (6, 8, 10)])
def test_linear_functions_are_interpolated_exactly_inside(shape, constant):
    grid = ns.Grid(shape)
    ones = None if constant else ns.face_coefficients(np.ones(shape), grid)
    h = build(ns.PoissonStencil(grid, ones), coarsest=4)
    fine, coarse = h.levels[:2]

    def linear(level, width):
        z, y, x = torch.meshgrid(
            *((width * (torch.arange(n) + 0.5)) for n in level.plan.shape), indexing="ij"
        )
        return (0.3 * z * (level.plan.shape[0] > 1) - 0.7 * y + 0.2 * x).reshape(-1).double()

    P = prolongation(cpu, h, 0)
    deep = torch.zeros(fine.plan.shape, dtype=torch.bool)
    deep[(slice(None) if len(shape) == 2 else slice(1, -1), slice(1, -1), slice(1, -1))] = True
    error = (P @ linear(coarse, 2.0) - linear(fine, 1.0))[deep.reshape(-1)]
    assert float(error.abs().max()) <= 1e-5


# the operators


@RANDOM
@given(stencils(max_side=6))
def test_the_residual_is_that_of_the_stencil(A):
    h = build(A, coarsest=3)
    S = torch.from_numpy(A.to_scipy().toarray()) / h.unit
    for K in (cpu, reference):
        torch.testing.assert_close(matrix(K, h, 0), S, rtol=0.0, atol=16 * EPS * float(S.abs().max()))
        b = torch.randn(len(S), generator=torch.Generator().manual_seed(8167))
        level, out = h.levels[0], torch.zeros(h.levels[0].plan.size, dtype=torch.float32)
        x = padded(level, torch.zeros(len(S)))
        K.level_residual(padded(level, b), level.inverse, h.scale, level.faces, level.plan.shape, x, out)
        assert torch.equal(cells(level, out), torch.where(S.diagonal() != 0, b.double(), 0.0))


@RANDOM
@given(stencils(max_side=6))
def test_coarse_operators_are_symmetric_with_row_sums_of_outlets(A):
    """A of every level is a weakly dominant M-matrix, whose excess is the couplings to fixed values."""
    h = build(A, coarsest=3)
    for depth, level in enumerate(h.levels[1:], 1):
        for K in (cpu, reference):
            whole = matrix(K, h, depth)
            size = 64 * EPS * max(float(whole.abs().max()), 1e-30)
            torch.testing.assert_close(whole, whole.T, rtol=0.0, atol=size)
            torch.testing.assert_close(whole.sum(1), cells(level, level.faces[3]), rtol=0.0, atol=size)
            assert float((whole - whole.diagonal().diag()).max()) <= 0
            assembled = torch.zeros_like(whole)
            K.coarsest_matrix(level.faces, level.plan.shape, h.periodic, assembled)
            torch.testing.assert_close(assembled, whole, rtol=0.0, atol=size)
        assert bool((cells(level, level.faces[3]) >= 0).all())


@pytest.mark.parametrize("constant", [True, False], ids=["code", "faces"])
@pytest.mark.parametrize("dim", [2, 3])
def test_a_uniform_grid_is_discretised_anew(dim, constant):
    """Cells twice as wide: couplings 2^(d-2), outlets 2^(d-1) over the 3/2 to the air beyond the wall."""
    grid = ns.Grid((8,) * dim, walls="dirichlet")
    ones = None if constant else ns.face_coefficients(np.ones((8,) * dim), grid)
    level = build(ns.PoissonStencil(grid, ones), coarsest=1).levels[1]
    faces = inside(level.faces, level.plan.shape)
    assert torch.equal(faces[2, ..., 1:], torch.full_like(faces[2, ..., 1:], 2.0 ** (dim - 2)))
    assert not faces[2, ..., 0].any()  # the wall is an outlet, no coupling
    middle = (0 if dim == 2 else 1, 1)
    assert float(faces[3][*middle, 0]) == pytest.approx(2 ** (dim - 1) / 1.5, rel=1e-6)
    assert float(faces[3][*middle, 1]) == 0.0


@pytest.mark.parametrize("kind", ["closed faces", "solid"])
@pytest.mark.parametrize("shape", [(16, 6), (13, 5), (12, 4, 5)])
@pytest.mark.parametrize("across", ["neumann", "periodic"])
def test_chambers_apart_stay_apart_on_all_levels(shape, across, kind):
    """A full-width plate of faces, or one cell thick: no coarse cell has a part on both sides of it."""
    for place in range(1, shape[0] - (kind == "solid"), 2 if len(shape) == 3 else 1):
        grid = ns.Grid(shape, walls=["neumann"] + [across] * (len(shape) - 1))
        side = torch.arange(shape[0]).view([-1] + [1] * (len(shape) - 1)).expand(shape)
        if kind == "solid":
            solid = np.zeros(shape, np.uint8)
            solid[place] = ns.SOLID
            A = ns.PoissonStencil(ns.Grid(solid, walls=grid.walls))
            lower, upper = side < place, side > place
        else:
            faces = random_faces(grid, np.random.default_rng(8171))
            faces[0][place] = 0.0
            A = ns.PoissonStencil(grid, faces)
            lower, upper = side < place, side >= place
        h = build(A, coarsest=4)
        parts = [lower.reshape(-1).double(), upper.reshape(-1).double()]
        for depth, (_, coarse) in enumerate(pairwise(h.levels)):
            if coarse.plan.shape[3 - len(shape)] < 2:
                break  # one cell has no room for two
            P = prolongation(cpu, h, depth)
            parts = [((P.T @ part) > 0).double() for part in parts]
            whole = matrix(cpu, h, depth + 1)
            assert not (parts[0] * parts[1]).any()
            assert not whole[parts[0] > 0][:, parts[1] > 0].any()
            assert parts[0].any()
            assert parts[1].any()


# smoothing


@RANDOM
@given(stencils(max_side=6))
def test_a_start_is_two_steps_from_zero(A):
    h = build(A, coarsest=3)
    if any(h.periodic):
        return
    generator = torch.Generator().manual_seed(8179)
    for level in h.levels:
        shape, d = level.plan.shape, level.inverse
        b = padded(level, torch.randn(count(level), generator=generator))
        given_to = b, d, h.scale, level.faces, shape
        for K in (cpu, reference):
            x, y, z = (torch.zeros_like(b) for _ in range(3))
            K.level_relax(*given_to, (0.7, 0.0), x, y)
            K.level_relax(*given_to, (0.9, 0.3), y, x)  # x holds the iterate before: zero
            K.level_start(*given_to, 0.7, (0.9, 0.3), z)
            torch.testing.assert_close(z, x, rtol=0.0, atol=32 * EPS * float(x.abs().max()))


@RANDOM
@given(stencils(max_side=6))
def test_a_step_is_damped_jacobi_with_momentum(A):
    h = build(A, coarsest=3)
    generator = torch.Generator().manual_seed(8191)
    for depth, level in enumerate(h.levels):
        n = count(level)
        S, D = matrix(reference, h, depth), cells(level, level.inverse)
        b, x, past = (torch.randn(n, generator=generator).double() for _ in range(3))
        expected = x + 0.3 * (x - past) + 0.9 * D * (b - S @ x)
        for K in (cpu, reference):
            out = padded(level, past.float())
            v = padded(level, torch.where(D != 0, x, 0.0).float(), h.periodic)
            K.level_relax(
                padded(level, b.float()),
                level.inverse,
                h.scale,
                level.faces,
                level.plan.shape,
                (0.9, 0.3),
                v,
                out,
            )
            got, size = cells(level, out), float(expected.abs().max())
            assert float((got - expected)[D != 0].abs().max() if (D != 0).any() else 0.0) <= 64 * EPS * size


def test_loading_scales_and_tells_what_is_too_large(every_room):
    K = every_room
    with use("cpu"):
        plan = build(split_box((3, 4, 5))).levels[0].plan
    v = torch.randn(60, dtype=torch.float64, generator=torch.Generator().manual_seed(8209))
    out, back = torch.zeros(plan.size, dtype=torch.float32), torch.empty(60, dtype=torch.float64)
    assert not K.level_load(v * 1e200, 1e-200, plan.shape, out)
    K.level_store(out, 1e200, plan.shape, back)
    torch.testing.assert_close(back, v * 1e200, rtol=2 * EPS, atol=0.0)
    assert torch.count_nonzero(out) == 60
    v[17] = 1e30  # float32 holds it
    assert K.level_load(v, 1.0, plan.shape, out)
