"""Inputs of the kernels that work on the levels of a grid, for the law on rounding errors."""

from __future__ import annotations

import math

import numpy as np
import torch
from grids import random_faces
from kernel_laws import normal

import neuralsolve as ns
from neuralsolve.kernels import reference, use
from neuralsolve.kernels.reference.padded import inside
from neuralsolve.preconditioners.filling import NO_CODE, NONE_ATTACHED
from neuralsolve.preconditioners.levels import Hierarchy, build

F32 = torch.float32


def stencil(split: bool) -> ns.PoissonStencil:
    """Return a stencil of three dimensions, odd and even sides; some faces closed, if `split`."""
    grid = ns.Grid((5, 6, 7), walls=("neumann", ("neumann", "dirichlet"), "dirichlet"))
    faces = random_faces(grid, np.random.default_rng(8147), closed=0.4)
    return ns.PoissonStencil(grid, faces if split else None)


def levels(split: bool = True) -> Hierarchy:
    with use("reference"):
        return build(stencil(split), coarsest=4)


def layered(g, hierarchy, depth=0):
    """Return a random vector of a level, zeros around the box."""
    plan = hierarchy.levels[depth].plan
    v = torch.zeros(plan.size, dtype=F32)
    reference.level_load(normal(g, math.prod(plan.shape)), 1.0, plan.shape, v)
    return v


def level_matrix(split=True):
    h = levels(split)
    level = h.levels[0]
    return level.inverse, h.scale, level.faces, level.plan.shape


def relaxed(g, t):
    h = levels()
    return layered(g, h), *level_matrix(), (0.7, 0.2), layered(g, h), layered(g, h)


def transfer(h):
    fine, coarse = h.levels[:2]
    return fine.weights, fine.plan.shape, fine.plan.factors, coarse.plan.shape


def fine_outlets(h, g):
    plan = h.levels[0].plan
    out = torch.stack([layered(g, h).abs() for _ in range(3)])
    return out, plan


def blocks(h, part=False):
    """Return spans of all rows of blocks of the finest level, or of parts of them."""
    nz, ny, nx = h.levels[1].plan.shape
    rows = torch.arange(nz * ny, dtype=torch.int32)
    first = rows % 3 - 1 if part else 0 * rows
    return torch.stack([first.clamp(0, nx), nx - rows % 2 * part - first.lt(0) * nx], 1).clamp(0).contiguous()


def flagged(h):
    """Return which cells of the finest level are attached to the next block."""
    fine, coarse = h.levels[:2]
    flags = torch.zeros(fine.plan.size, dtype=torch.uint8)
    shapes = fine.plan.shape, fine.plan.factors, coarse.plan.shape
    spans, main = blocks(h), torch.zeros_like(flags)
    assert reference.level_attach(
        fine.faces, fine.inverse, *shapes, h.periodic, spans, spans.clone(), main, flags
    )
    return flags


def gathered(g, attached):
    """Return the inputs that make the couplings of the second level."""
    h = levels()
    (outlets, plan), coarse = fine_outlets(h, g), h.levels[1].plan
    given = outlets, flagged(h) if attached else NONE_ATTACHED, plan.shape, plan.factors, plan.shares
    room = torch.zeros((4, coarse.size), dtype=F32), torch.zeros((3, coarse.size), dtype=F32)
    if attached:
        return h.levels[0].faces, *given, coarse.shape, h.periodic, *room
    return NO_CODE, h.scale, h.levels[0].faces, *given, coarse.shape, blocks(h, True), *room


def coded(g, t):
    h = levels(split=False)
    plan = h.levels[0].plan
    room = torch.zeros(plan.size, dtype=F32), torch.zeros((4, plan.size), dtype=torch.uint8)
    return stencil(split=False).code, h.scale, plan.shape, plan.factors, blocks(h, True), *room


def weighted(g, t):
    h = levels()
    (outlets, plan), fine = fine_outlets(h, g), h.levels[0]
    fine.faces[3] = outlets.sum(0)
    given = fine.faces, outlets, fine.inverse, flagged(h), plan.nominal, plan.shape, plan.factors
    return *given, blocks(h, True), torch.zeros((4, plan.size), dtype=torch.uint8)


def attaching(g, t):
    h = levels()
    fine, coarse = h.levels[:2]
    given = fine.faces, fine.inverse, fine.plan.shape, fine.plan.factors, coarse.plan.shape, h.periodic
    room = torch.zeros((2, fine.plan.size), dtype=torch.uint8)
    return *given, blocks(h), blocks(h), *room


def diagonals(g, t):
    h = levels()
    outlets, plan = fine_outlets(h, g)
    given = h.levels[0].faces, outlets, plan.shape, plan.factors, blocks(h, True)
    return *given, torch.zeros(plan.size, dtype=F32)


def coarsest(g, t):
    h = levels()
    shape = h.levels[-1].plan.shape
    n = math.prod(shape)
    return h.levels[-1].faces, shape, h.periodic, torch.zeros((n, n), dtype=F32)


def conducting(g, t):
    """Two conductors, coupled to each other, to a third cell and to a fixed value."""
    h = levels()
    plan = h.levels[0].plan
    place = inside(torch.arange(plan.size, dtype=torch.int32), plan.shape)
    first, other = place[1, 2, 1:4].tolist(), place[3, 1].tolist()
    runs = torch.tensor([[0, 1], [first[0], other[0]], [first[-1] + 1, other[-1] + 1]], dtype=torch.int32)
    beyond = int(place[1, 3, 1])
    edges = torch.tensor(
        [[0, 0, 1], [first[0], first[2], other[0]], [beyond, other[0], -1]], dtype=torch.int32
    )
    numbers = normal(g, 3, dtype=F32), normal(g, 2, 2, dtype=F32)
    return layered(g, h), runs, edges, *numbers, layered(g, h)


def wrapped(g, t):
    h = levels()
    return layered(g, h), h.levels[0].plan.shape, (True, False, True)


def loaded(g, t):
    h = levels()
    return normal(g, 5 * 6 * 7), 0.3, h.levels[0].plan.shape, layered(g, h)


def loaded_scaled(g, t):
    h = levels()
    return (
        1e30 * normal(g, 5 * 6 * 7),
        h.levels[0].plan.shape,
        layered(g, h),
        torch.ones((), dtype=torch.float64),
    )


def stored_scaled(g, t):
    h = levels()
    size = torch.tensor(2.0**70, dtype=torch.float64)
    return layered(g, h), size, 0.3, h.levels[0].plan.shape, normal(g, 5 * 6 * 7)


def stored(g, t):
    h = levels()
    return layered(g, h), 0.3, h.levels[0].plan.shape, normal(g, 5 * 6 * 7)


def coupled(g):
    """Return the second level of a masked grid, periodic along one axis, and its volume."""
    cells = torch.zeros((8, 9, 12), dtype=torch.uint8)
    cells[2:5, 3:6, 4:9], cells[7, 2:] = ns.SOLID, ns.AIR
    with use("reference"):
        h = build(ns.PoissonStencil(ns.Grid(cells, walls=("neumann", "dirichlet", "periodic"))), coarsest=4)
        fine, level = h.levels[:2]
        volume = torch.zeros(level.plan.size, dtype=F32)
        reference.level_volume(
            fine.inverse, True, fine.plan.shape, fine.plan.factors, level.plan.shape, volume
        )
        for v in (volume, level.faces[3]):
            reference.level_wrap(v, level.plan.shape, h.periodic)
    return level, volume


def adapting(g, t):
    level, volume = coupled(g)
    nets = [normal(g, rows, 6, dtype=F32) / 3 for rows in (16, 17)]
    room = torch.zeros_like(level.faces), torch.zeros_like(volume)
    return level.faces, volume, level.plan.nominal, level.plan.shape, *nets, *room


def inverting(g, t):
    level, volume = coupled(g)
    factor = torch.exp(normal(g, len(volume), dtype=F32))
    return level.faces, factor, 2.2, level.plan.shape, torch.zeros_like(volume)


def measuring(marks):
    def arguments(g, t):
        level, volume = coupled(g)
        shape = level.plan.shape
        below = [-(-n // f) for n, f in zip(shape, (2, 2, 1), strict=True)]
        out = torch.zeros(math.prod(n + 2 for n in below), dtype=F32)
        return volume, marks, shape, (2, 2, 1), below, out

    return arguments


# Levels of multigrid: float32 alone, and bytes, in which rounding may show by one of 252.
LEVEL_KERNELS = {
    "code_level": coded,
    "conductor_correct": conducting,
    "coarse_attached": lambda g, t: gathered(g, True),
    "coarse_couplings": lambda g, t: gathered(g, False),
    "coarsest_matrix": coarsest,
    "level_adapt": adapting,
    "level_attach": attaching,
    "level_diagonal": diagonals,
    "level_inverse": inverting,
    "level_load": loaded,
    "level_load_scaled": loaded_scaled,
    "level_prolong": lambda g, t: (layered(g, h := levels(), 1), *transfer(h), layered(g, h)),
    "level_relax": relaxed,
    "level_residual": lambda g, t: (
        layered(g, h := levels(), 0),
        *level_matrix(),
        layered(g, h),
        layered(g, h),
    ),
    "level_restrict": lambda g, t: (layered(g, h := levels()), *transfer(h), 1.3, layered(g, h, 1)),
    "level_start": lambda g, t: (layered(g, h := levels()), *level_matrix(), 0.7, (0.6, 0.2), layered(g, h)),
    "level_store": stored,
    "level_store_scaled": stored_scaled,
    "level_volume": measuring(False),
    "level_weights": weighted,
    "level_wrap": wrapped,
}
