"""Grids and face coefficients: what they take, what they refuse."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import neuralsolve as ns

GRID = ns.Grid((2, 3))
FACES = [torch.ones(3, 3), torch.ones(2, 4)]


def faces(axis, value, grid=GRID):
    changed = [f.clone() for f in FACES]
    changed[axis].view(-1)[0] = value
    return lambda: ns.PoissonStencil(grid, changed)


REFUSED = {
    "bool cells": (
        lambda: ns.Grid(np.zeros((3, 3), bool)),
        ns.StructureError,
        "np.where(solid, ns.SOLID, ns.FLUID)",
    ),
    "float cells": (lambda: ns.Grid(np.zeros((3, 3))), ns.StructureError, "cells must be integers"),
    "cells of objects": (lambda: ns.Grid(np.full((3, 3), None)), ns.StructureError, "cells must be integers"),
    "cells of strings": (
        lambda: ns.Grid(np.full((3, 3), "fluid")),
        ns.StructureError,
        "cells must be integers",
    ),
    "unknown cells": (lambda: ns.Grid(np.full((3, 3), 3)), ns.StructureError, "only FLUID 0, SOLID 1, AIR 2"),
    "negative cells": (lambda: ns.Grid(np.full((3, 3), -1)), ns.StructureError, "from -1 to -1"),
    "large unsigned cells": (
        lambda: ns.Grid(np.full((3, 3), 2**63, np.uint64)),
        ns.StructureError,
        "only FLUID",
    ),
    "ragged cells": (lambda: ns.Grid([[0, 0], [0]]), ns.InputError, "cells"),
    "cells in one axis": (lambda: ns.Grid(np.zeros(5, int)), ns.ShapeError, "(ny, nx) or (nz, ny, nx)"),
    "no cells": (lambda: ns.Grid(np.zeros((0, 3), int)), ns.ShapeError, "not empty"),
    "a side of 0": (lambda: ns.Grid((4, 0)), ns.ShapeError, "positive integers"),
    "four sides": (lambda: ns.Grid((4, 4, 4, 4)), ns.ShapeError, "grid shape"),
    "spacing 0": (lambda: ns.Grid((4, 4), 0.0), ns.NonFiniteError, "spacing must be positive"),
    "spacing NaN": (lambda: ns.Grid((4, 4), (1.0, np.nan)), ns.NonFiniteError, "positive and finite"),
    "three spacings for two axes": (
        lambda: ns.Grid((4, 4), (1, 1, 1)),
        ns.ShapeError,
        "one number, or one per axis",
    ),
    "unknown wall": (lambda: ns.Grid((4, 4), walls="neuman"), ns.OptionError, "did you mean 'neumann'?"),
    "wall that is no word": (
        lambda: ns.Grid((4, 4), walls=(None, "neumann")),
        ns.OptionError,
        "unknown wall None",
    ),
    "no walls": (lambda: ns.Grid((4, 4), walls=None), ns.OptionError, "unknown wall None"),
    "walls for three axes": (
        lambda: ns.Grid((4, 4), walls=["neumann"] * 3),
        ns.ShapeError,
        "3 entries for a grid of 2",
    ),
    "three walls on an axis": (
        lambda: ns.Grid((4, 4), walls=("neumann", ["neumann"] * 3)),
        ns.ShapeError,
        "pair (low, high)",
    ),
    "half periodic": (
        lambda: ns.Grid((4, 4), walls=("neumann", ("periodic", "neumann"))),
        ns.StructureError,
        "periodic on both sides",
    ),
    "cell values as faces": (
        lambda: ns.PoissonStencil(GRID, [torch.ones(2, 3)] * 2),
        ns.ShapeError,
        "ns.face_coefficients",
    ),
    "one axis of faces": (
        lambda: ns.PoissonStencil(GRID, FACES[:1]),
        ns.ShapeError,
        "needs [(3, 3), (2, 4)]",
    ),
    "negative coefficient": (faces(1, -2.0), ns.StructureError, "along axis 1 fall to -2"),
    "NaN coefficient": (faces(0, np.nan), ns.NonFiniteError, "axis 0 hold NaN"),
    "seam of two values": (
        faces(1, 2.0, ns.Grid((2, 3), walls="periodic")),
        ns.StructureError,
        "axis 1 is periodic",
    ),
    "cell coefficients of another grid": (
        lambda: ns.face_coefficients(torch.ones(3, 3), GRID),
        ns.ShapeError,
        "the grid is (2, 3)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_refused_with_the_remedy(name):
    make, kind, words = REFUSED[name]
    with pytest.raises(kind, match=re.escape(words)) as caught:
        make()
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint16", "uint32", "int64", "uint64"])
def test_cells_of_any_integer_type(dtype):
    cells = np.array([[0, 1], [2, 0]], dtype)
    cells.setflags(write=False)
    grid = ns.Grid(cells, np.array([0.5, 2.0]))
    assert (grid.cells.tolist(), grid.spacing) == ([[0, 1], [2, 0]], (0.5, 2.0))
    assert ns.Grid(cells.tolist()).cells.tolist() == ns.Grid(torch.tensor([[0, 1], [2, 0]])).cells.tolist()


def test_a_grid_keeps_its_own_cells():
    cells = np.zeros((3, 3), np.uint8)
    grid = ns.Grid(cells)
    cells[1, 1] = ns.SOLID
    assert grid.is_box
    assert "shape=(3, 3)" in repr(grid)


def test_coefficients_of_several_kinds_of_number():
    reference = ns.PoissonStencil(GRID, [2 * f.double() for f in FACES]).to_scipy().toarray()
    as_numpy = [np.full(f.shape, 2) for f in FACES]
    as_numpy[0].setflags(write=False)
    as_lists, mixed = [f.tolist() for f in as_numpy], [2 * FACES[0], 2 * FACES[1].double()]
    for coefficients in (as_numpy, as_lists, mixed):
        A = ns.PoissonStencil(GRID, coefficients)
        np.testing.assert_array_equal(A.to_scipy().toarray(), reference)
    single = ns.PoissonStencil(GRID, [2 * f.double() for f in FACES], dtype=torch.float32)
    assert single.faces()[0].dtype == single.faces()[1].dtype == torch.float32
