"""Random grids and stencils for hypothesis, and the stencil written out cell by cell: the definition."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from hypothesis import strategies as st

import neuralsolve as ns

WALLS = ["periodic", *product(("neumann", "dirichlet"), repeat=2)]


@st.composite
def grids(draw, max_side=4, full=False):
    """Draw a grid of two or three axes, any walls, sides from 1; cells at random unless `full`."""
    shape = tuple(draw(st.lists(st.integers(1, max_side), min_size=2, max_size=3)))
    walls = [draw(st.sampled_from(WALLS)) for _ in shape]
    spacing = [draw(st.sampled_from([1.0, 0.5, 3.0])) for _ in shape]
    cells = np.zeros(shape, np.uint8)
    if not full:
        kinds = st.sampled_from([ns.FLUID, ns.FLUID, ns.FLUID, ns.SOLID, ns.AIR])
        cells.ravel()[:] = draw(st.lists(kinds, min_size=cells.size, max_size=cells.size))
    return ns.Grid(cells, spacing, walls)


@st.composite
def stencils(draw, max_side=4):
    """Draw a stencil on a random grid, half of them with face coefficients, some faces closed."""
    grid = draw(grids(max_side))
    if draw(st.booleans()):
        return ns.PoissonStencil(grid)
    rng = np.random.default_rng(draw(st.integers(7, 2**32)))
    return ns.PoissonStencil(grid, random_faces(grid, rng, closed=draw(st.sampled_from([0.0, 0.4]))))


def random_faces(grid, rng, closed=0.0):
    """Return face coefficients in [0.1, 3), some of them zero, the end faces of periodic axes alike."""
    faces = []
    for axis in range(len(grid.shape)):
        shape = [n + (a == axis) for a, n in enumerate(grid.shape)]
        c = rng.uniform(0.1, 3, shape) * (rng.uniform(size=shape) >= closed)
        if grid.periodic[axis]:
            c[(slice(None),) * axis + (-1,)] = c[(slice(None),) * axis + (0,)]
        faces.append(torch.from_numpy(c))
    return faces


def written_out(grid, coefficients=None):
    """Return -div(c grad) as a dense matrix, assembled face by face from what the words of a grid mean."""
    cells, h = grid.cells.numpy(), grid.spacing
    number = np.arange(cells.size).reshape(cells.shape)
    A = np.zeros((cells.size, cells.size))
    for cell in product(*(range(n) for n in grid.shape)):
        if cells[cell] != ns.FLUID:
            continue
        for axis, upper in product(range(len(grid.shape)), (0, 1)):
            neighbour, kind = list(cell), None
            neighbour[axis] += 2 * upper - 1
            c = 1.0
            if coefficients is not None:
                face = list(cell)
                face[axis] += upper
                c = float(coefficients[axis][tuple(face)])
            if grid.periodic[axis]:
                neighbour[axis] %= grid.shape[axis]
            elif not 0 <= neighbour[axis] < grid.shape[axis]:
                kind = ns.AIR if grid.walls[axis][upper] == "dirichlet" else ns.SOLID
            kind = cells[tuple(neighbour)] if kind is None else kind
            if kind == ns.SOLID:
                continue
            i = number[cell]
            A[i, i] += c / h[axis] ** 2
            if kind == ns.FLUID:
                A[i, number[tuple(neighbour)]] -= c / h[axis] ** 2
    return A


@st.composite
def boxes(draw, max_side=5, min_side=1):
    """Draw a full box with one coefficient per axis and any walls."""
    shape = tuple(draw(st.lists(st.integers(min_side, max_side), min_size=2, max_size=3)))
    kinds = [draw(st.sampled_from(["periodic", *product((0, 1, 2), repeat=2)])) for _ in shape]
    couplings = [draw(st.sampled_from([1.0, 0.25, 7.0, 1e-3])) for _ in shape]
    return box(shape, kinds, couplings)


def box(shape, kinds, couplings=(1.0, 1.0, 1.0)):
    """Return a box; kinds per axis: "periodic", or what the walls add to the diagonal: 0, 1, 2 couplings."""
    words = {0: "neumann", 1: "dirichlet", 2: "dirichlet"}
    walls = ["periodic" if kind == "periodic" else [words[w] for w in kind] for kind in kinds]
    faces = []
    for axis, (kind, c) in enumerate(zip(kinds, couplings, strict=False)):
        layers = torch.full((shape[axis] + 1,), c, dtype=torch.float64)
        if kind != "periodic":
            layers[0], layers[-1] = (c * max(w, 1) for w in kind)
        along = [-1 if a == axis else 1 for a in range(len(shape))]
        faces.append(layers.reshape(along).expand([n + (a == axis) for a, n in enumerate(shape)]))
    return ns.PoissonStencil(ns.Grid(shape, walls=walls), faces)
