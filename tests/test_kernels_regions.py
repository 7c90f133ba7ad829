"""Laws of the kernels that build a stencil: regions with no way out, and couplings from face coefficients."""

from __future__ import annotations

import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from grids import grids, random_faces, written_out
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

import neuralsolve as ns
from neuralsolve.kernels import cpu, reference, table, use
from neuralsolve.operators.stencil import PoissonStencil

EPS = torch.finfo(torch.float64).eps
ROOMS = st.sampled_from(["reference", "cpu", "threads"])


@contextmanager
def kernels_of(room):
    """Use one implementation; "threads" is `cpu` with every loop, however short, cut into ranges."""
    with use("cpu" if room == "threads" else room), pytest.MonkeyPatch.context() as patch:
        if room == "threads":
            patch.setattr("neuralsolve.kernels.cpu.threads.SERIAL_BELOW", 0)
            patch.setattr("torch.get_num_threads", lambda: 2)
        yield


@st.composite
def scenes(draw, max_side=6):
    """Draw a grid and face coefficients of 1/2, 1 or 2, or 0 for some, or none: sums of them are exact."""
    grid = draw(grids(max_side))
    if draw(st.booleans()):
        return grid, None
    rng = np.random.default_rng(draw(st.integers(7, 2**32)))
    faces = random_faces(grid, rng, draw(st.sampled_from([0.0, 0.3, 0.7])))
    return grid, [torch.exp2(torch.ceil(f)) / 4 * (f > 0) for f in faces]


def regions(A, fluid):
    """Labels (-1: none) and sizes of the regions of zero row sums, from the assembled matrix."""
    S = csr_array(A)
    _, labels = connected_components(S, directed=False)
    leaks = np.bincount(labels, np.abs(S @ np.ones(len(labels)))) > 0
    kept = fluid & ~leaks[labels]
    _, first, number = np.unique(labels[kept], return_index=True, return_inverse=True)
    expected = np.full(len(labels), -1)
    expected[kept] = np.argsort(np.argsort(first))[number]  # in the order of their first cells
    return expected, np.bincount(expected[kept])


def same_regions(A, S):
    expected, sizes = regions(S, A.grid.fluid.numpy().ravel())
    if len(sizes) == 0:
        assert A.null_space is None
        return
    assert A.null_space.labels.dtype == torch.int32
    np.testing.assert_array_equal(A.null_space.labels.numpy(), expected)
    np.testing.assert_array_equal(A.null_space.counts.numpy(), sizes)


@given(scenes(), ROOMS)
@settings(max_examples=200, deadline=None)
def test_null_space_is_that_of_the_components_of_the_matrix(scene, room):
    grid, faces = scene
    with kernels_of(room):
        A = PoissonStencil(ns.Grid(grid.cells, 1.0, grid.walls), faces)
        same_regions(A, written_out(A.grid, faces))


@given(scenes(), ROOMS)
@settings(max_examples=100, deadline=None)
def test_couplings_are_those_of_the_matrix(scene, room):
    grid, faces = scene
    with kernels_of(room):
        A = PoissonStencil(grid, faces)
        diagonal, lower = A.faces()
        outlets = sum(A.outlets(axis) for axis in range(len(grid.shape)))
    S = written_out(grid, faces)
    close = {"rtol": 16 * EPS, "atol": 16 * EPS * max(np.abs(S).max(), 1e-300)}
    np.testing.assert_allclose(A.to_scipy().toarray(), S, **close)
    np.testing.assert_allclose(outlets.numpy(), S.sum(1), **close)
    assert (lower >= 0).all()
    assert bool((diagonal[~grid.fluid.reshape(-1)] == 0).all())


@given(scenes(), st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=60, deadline=None)
def test_rooms_agree_to_the_last_bit(scene, dtype):
    grid, faces = scene
    grid = ns.Grid(grid.cells, 0.5, grid.walls)
    made = []
    for room in ("reference", "cpu"):
        with kernels_of(room):
            A = PoissonStencil(grid, faces, dtype)
            made.append([*A.faces(), *(A.outlets(a) for a in range(len(grid.shape)))])
    assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize(
    "shape", [(70, 60, 61), (500, 517), (1, 251001), (130003, 2), (2, 2, 65001)], ids=str
)
@pytest.mark.parametrize("walls", ["neumann", "periodic"])
def test_threads_find_the_regions_that_one_finds(shape, share, walls):
    """Large enough for several ranges of lines; few ways out."""
    rng = np.random.default_rng(4711)
    cells = (rng.uniform(size=shape) > share).astype(np.uint8)
    cells[(cells == 0) & (rng.uniform(size=shape) < 1e-3)] = ns.AIR
    A = ns.PoissonStencil(ns.Grid(cells, walls=walls))
    same_regions(A, A.to_scipy())


def test_labels_are_written_for_singular_regions_only():
    cells = torch.tensor([[[0, 1, 0, 2, 0]]], dtype=torch.uint8)
    for K in (cpu, reference):
        code, labels = torch.empty(5, dtype=torch.uint16), torch.full((5,), 7, dtype=torch.int32)
        K.stencil_code(cells[..., 2:].contiguous(), torch.zeros(6, dtype=torch.int8), code[2:])
        assert K.stencil_regions(code[2:], (1, 1, 3), labels[2:]).tolist() == []
        assert labels.tolist() == [7] * 5
        K.stencil_code(cells, torch.zeros(6, dtype=torch.int8), code)
        assert K.stencil_regions(code, (1, 1, 5), labels).tolist() == [1.0]
        assert labels.tolist() == [0, -1, -1, -1, -1]


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ([], 0),
        ([1.0, 2.0], 0),
        ([1.0, -0.0], 4),
        ([1e-320, 0.0], 4),
        ([-1.0, 0.0], 6),
        ([math.nan, 1.0], 1),
        ([math.inf, 0.0], 5),
        ([-math.inf], 3),
    ],
)
def test_kinds_of_coefficients(values, kinds):
    for K in (cpu, reference):
        assert K.faces_kinds(torch.tensor(values, dtype=torch.float64)) == kinds


def test_one_bad_coefficient_among_many_is_seen():
    values = torch.ones(400_001, dtype=torch.float64)
    for at, value, kind in ((0, math.nan, 1), (400_000, 0.0, 4), (200_001, -1e-300, 2)):
        spoilt = values.clone()
        spoilt[at] = value
        assert table().faces_kinds(spoilt) == kind


def test_expanded_and_strided_coefficients_are_their_copies():
    grid = ns.Grid((4, 5, 6), walls=("periodic", "dirichlet", "neumann"))
    shapes = [(5, 5, 6), (4, 6, 6), (4, 5, 7)]
    line = torch.linspace(1, 2, 6, dtype=torch.float64)
    faces = [line.expand(shapes[0]), line[:, None].expand(shapes[1]), torch.ones(7, 5, 4).double().mT.mT]
    faces[2] = torch.linspace(1, 3, 140, dtype=torch.float64).reshape(7, 5, 4).permute(2, 1, 0)
    A, B = ns.PoissonStencil(grid, faces), ns.PoissonStencil(grid, [f.clone().contiguous() for f in faces])
    assert all(torch.equal(a, b) for a, b in zip(A.faces(), B.faces(), strict=True))
    bad = line.clone()
    bad[3] = -1.0
    with pytest.raises(ns.StructureError, match="axis 0 fall to -1"):
        ns.PoissonStencil(grid, [bad.expand(shapes[0]), *faces[1:]])
