"""What has changed on a grid, told in spans: both implementations alike, and an update is a fresh build."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from grids import random_faces

import neuralsolve as ns
from neuralsolve.kernels import cpu, reference
from neuralsolve.preconditioners import levels as rooms
from neuralsolve.preconditioners.levels import Hierarchy, build

SHAPES = [(1, 13), (9, 8), (2, 5, 6), (7, 6, 9), (5, 5, 1)]
FACTORS = [(2, 2, 2), (1, 2, 2), (2, 1, 1), (2, 2, 1)]


def three(shape) -> tuple[int, ...]:
    return (1,) * (3 - len(shape)) + tuple(shape)


def random_spans(rng, rows, side) -> torch.Tensor:
    """Return spans of about half of the rows; others are empty."""
    ends = np.sort(rng.integers(0, side + 1, (rows, 2)), 1) * (rng.random((rows, 1)) < 0.5)
    return torch.from_numpy(ends.astype(np.int32))


def both(name, *given):
    """Return what both implementations make of copies of the arguments."""
    found = []
    for K in (cpu, reference):
        copies = [v.clone() if isinstance(v, torch.Tensor) else v for v in given]
        back = getattr(K, name)(*copies)
        found.append([v for v in [*copies, back] if isinstance(v, torch.Tensor)])
    return found


def assert_same(name, *given):
    for fast, slow in zip(*both(name, *given), strict=True):
        assert torch.equal(fast, slow)


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("shape", SHAPES)
def test_spans_are_the_definition(shape, factors):
    rng, sides = np.random.default_rng(9173), three(shape)
    factors = tuple(f if n > 1 else 1 for f, n in zip(factors, sides, strict=True))
    blocks = tuple(-(-n // f) for n, f in zip(sides, factors, strict=True))
    for _ in range(5):
        changed, spans = random_spans(rng, sides[0] * sides[1], sides[2]), torch.zeros(1)
        spans, others = (random_spans(rng, blocks[0] * blocks[1], blocks[2]) for _ in range(2))
        assert_same("spans_below", changed, sides, factors, spans)
        assert_same("spans_around", spans, blocks, others)
        assert_same("spans_join", others, spans)
        code = torch.from_numpy(rng.integers(0, 2, math.prod(sides)).astype(np.uint16))
        other = torch.from_numpy((code.numpy() ^ (rng.random(len(code)) < 0.1)).astype(np.uint16))
        assert_same("code_changes", code, other, sides, changed)


def random_walls(rng, shape, periodic):
    words = [("neumann", "neumann"), ("dirichlet", "neumann"), ("dirichlet", "dirichlet")]
    words += [("periodic", "periodic")] * periodic
    return [words[rng.integers(len(words))] for _ in shape]


def some_cells(rng, shape):
    return ((rng.random(shape) < 0.25) * rng.integers(1, 3, shape)).astype(np.uint8)


def piece(rng, shape):
    """Return a random box in a grid, the whole of it once in five times."""
    if rng.random() < 0.2:
        return ...
    return tuple(slice(low, low + int(rng.integers(1, 5))) for low in (int(rng.integers(n)) for n in shape))


def sequence(rng, shape, constant, periodic, closed):
    """Yield operators on the same box, of which the next differs in a piece, or all over."""
    walls = random_walls(rng, shape, periodic)
    cells, values, seed = some_cells(rng, shape), rng.choice([1.0, 1.0, 100.0, 0.01], shape), rng.integers(99)
    for _ in range(4):
        where = piece(rng, shape)
        cells, values = cells.copy(), values.copy()
        cells[where] = some_cells(rng, cells[where].shape)
        values[where] = rng.choice([1.0, 2.0, 100.0, 1e-3], values[where].shape)
        grid = ns.Grid(cells, walls=walls)
        faces = None
        if not constant:
            shut = random_faces(grid, np.random.default_rng(seed), closed=closed)
            means = ns.face_coefficients(values, grid)
            faces = [torch.as_tensor(s != 0) * m for s, m in zip(shut, means, strict=True)]
        yield ns.PoissonStencil(grid, faces)


def contents(h: Hierarchy):
    """Yield name and value of what a cycle uses, in the unit of A: units are powers of two."""
    for k, level in enumerate(h.levels):
        yield f"inverse {k}", level.inverse.double() / h.unit
        yield f"faces {k}", level.faces.double() * h.unit
        yield f"weights {k}", level.weights
        yield f"attached {k}", h.parts[k][1]
    yield "coarsest", (h.inverse / h.unit).float()  # its factorisation takes roots of the unit


@pytest.mark.parametrize("closed", [0.0, 0.3])
@pytest.mark.parametrize("constant", [True, False], ids=["code", "faces"])
@pytest.mark.parametrize("periodic", [False, True], ids=["walls", "seams"])
@pytest.mark.parametrize("shape", [(1, 13), (9, 8), (29, 23), (2, 5, 6), (7, 6, 9), (13, 12, 11)])
def test_an_update_fills_the_levels_as_a_fresh_build(shape, periodic, constant, closed, monkeypatch):
    rng = np.random.default_rng(9181)
    for _ in range(3):
        h = None
        for A in sequence(rng, shape, constant, periodic, closed):
            h, fresh = build(A, coarsest=3, before=h), build(A, coarsest=3)
            if constant:
                assert h.unit == fresh.unit
            for (name, ours), (_, theirs) in zip(contents(h), contents(fresh), strict=True):
                assert torch.equal(ours, theirs), name


def test_an_update_after_a_failure_is_a_fresh_build(monkeypatch):
    rng = np.random.default_rng(9187)
    for constant in (True, False):
        first, second, third, _ = sequence(rng, (13, 12, 11), constant, False, 0.0)
        h = build(first, coarsest=3)
        with monkeypatch.context() as patch:
            patch.setattr(cpu, "coarse_couplings", None)
            with pytest.raises(TypeError):
                build(second, coarsest=3, before=h)
        for A in (third, second):
            h = build(A, coarsest=3, before=h)
            for (name, ours), (_, theirs) in zip(contents(h), contents(build(A, coarsest=3)), strict=True):
                assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("shape", SHAPES)
def test_couplings_of_the_finest_level_are_those_of_the_stencil(shape):
    rng, sides = np.random.default_rng(9199), three(shape)
    padded = rooms.Plan(sides, (1, 1, 1), (1.0,) * 3, (1.0,) * 3).size  # type: ignore[arg-type]
    room = [torch.zeros((k, padded), dtype=torch.float32) for k in (4, 3)]
    leaks = torch.zeros((3, sides[0] * sides[1]), dtype=torch.uint8)
    changed = torch.zeros((sides[0] * sides[1], 2), dtype=torch.int32)
    for A in sequence(rng, shape, False, True, 0.2):
        fast, slow = both("level_faces", *A.face_data(), 4.0, *room, leaks, changed)
        *_, faces, outlets, leaks, changed, sums = fast
        room = [faces, outlets]
        for ours, theirs in zip((faces, outlets, changed), slow[-5:-3] + slow[-2:-1], strict=True):
            assert torch.equal(ours, theirs)
        assert bool((leaks >= slow[-3]).all())
        torch.testing.assert_close(sums, slow[-1])


def test_what_is_attached_adds_within_its_spans():
    rng = np.random.default_rng(9203)
    for shape in ((7, 6, 9), (12, 13)):
        for A in sequence(rng, shape, False, False, 0.5):
            h = build(A, coarsest=3)
            for k, (fine, coarse) in enumerate(zip(h.levels, h.levels[1:], strict=False)):
                attached = h.parts[k][1]
                plan, spans = fine.plan, torch.zeros((math.prod(coarse.plan.shape[:2]), 2), dtype=torch.int32)
                given = plan.shape, plan.factors, coarse.plan.shape
                assert_same("spans_attached", attached, *given, spans)
                cpu.spans_attached(attached, *given, spans)
                added = torch.zeros_like(coarse.faces), torch.zeros_like(h.spare[k + 1])
                way = plan.shape, plan.factors, plan.shares, coarse.plan.shape
                cpu.coarse_attached(fine.faces, h.spare[k], attached, *way, h.periodic, *added)
                there = reference.spans.spanned(spans, coarse.plan.shape, (1, 1, 1))
                for part in added:
                    for row in part:
                        assert not reference.padded.inside(row, coarse.plan.shape)[~there].any()
