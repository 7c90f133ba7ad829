"""Laws of the matrix-free stencils."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from kernel_laws import (
    COLUMNS,
    GRIDS,
    WALLS,
    assert_close,
    assert_kernel_law,
    dense_stencil,
    exactly,
    neighbours,
    normal,
    random_cells,
    random_faces,
)

from neuralsolve.kernels import reference

EPS = torch.finfo(torch.float64).eps
SCALE = (0.7, 1.5, 2.25)
ROUND = pytest.mark.parametrize("walls", WALLS, ids=str)


def code_of(kernels, cells, walls):
    out = torch.empty(cells.numel(), dtype=torch.uint16)
    kernels.stencil_code(cells, torch.tensor(walls, dtype=torch.int8), out)
    return out


@GRIDS
def test_code_says_what_is_around_a_cell(kernels, generator, shape, walls):
    cells = random_cells(generator, shape)
    code = code_of(kernels, cells, walls).to(torch.int32).reshape(shape)
    for index in product(*map(range, shape)):
        expected = 0
        if cells[index] == 0:
            expected = 1 << 12
            for axis, up, there in neighbours(shape, walls, index):
                kind = (2 if there == "open" else 1) if isinstance(there, str) else int(cells[there])
                expected |= (kind == 0) << (2 * axis + up)
                expected += (kind != 1) << (6 + 2 * axis)
        assert int(code[index]) == expected


@GRIDS
@COLUMNS
def test_stencil_is_its_matrix(tiled, generator, shape, walls, columns):
    cells = random_cells(generator, shape)
    A = dense_stencil(cells, walls, SCALE)
    outside = cells.reshape(-1) != 0
    x = normal(generator, len(A), *columns)
    x[outside] = 0
    expected, (AD, X) = A @ x, exactly(A, x)
    x[outside] = torch.nan  # never used
    out = torch.full_like(x, torch.nan)
    xy = tiled.stencil_matvec_dot(code_of(reference, cells, walls), SCALE, shape, x, out)
    # A row has at most seven entries, its diagonal being a sum itself: 8 roundings each.
    size = np.abs(AD) @ np.abs(X)
    assert_kernel_law(out, expected, AD @ X, 8 * EPS * size)
    assert (out[outside] == 0).all()
    bound = (8 + len(A)) * EPS * (np.abs(X) * size).sum(0)
    assert_kernel_law(xy, (torch.from_numpy(X.astype(float)) * expected).sum(0), (X * (AD @ X)).sum(0), bound)


@GRIDS
@COLUMNS
def test_faces_are_their_matrix(tiled, generator, shape, walls, columns):
    cells = random_cells(generator, shape)
    diagonal, lower, A = random_faces(generator, cells, walls)
    outside = cells.reshape(-1) != 0
    x = normal(generator, len(A), *columns)
    x[outside] = 0
    expected, (AD, X) = A @ x, exactly(A, x)
    x[outside] = torch.nan
    out = torch.full_like(x, torch.nan)
    xy = tiled.faces_matvec_dot(diagonal, lower, shape, x, out)
    size = np.abs(AD) @ np.abs(X)
    assert_kernel_law(out, expected, AD @ X, 8 * EPS * size)
    assert (out[outside] == 0).all()
    bound = (8 + len(A)) * EPS * (np.abs(X) * size).sum(0)
    assert_kernel_law(xy, (torch.from_numpy(X.astype(float)) * expected).sum(0), (X * (AD @ X)).sum(0), bound)
    again = torch.full_like(x, torch.nan)
    tiled.faces_matvec(diagonal, lower, shape, x, again)
    assert torch.equal(out, again)


@ROUND
@pytest.mark.parametrize(("shape", "columns"), [((3, 4, 5), (3,)), ((1, 7, 9), ()), ((2, 1, 1), ())], ids=str)
def test_a_direction_is_an_update_and_a_product(tiled, generator, shape, walls, columns):
    cells = random_cells(generator, shape)
    code, n = code_of(reference, cells, walls), cells.numel()
    diagonal, lower, _ = random_faces(generator, cells, walls)
    z, p = normal(generator, n, *columns), normal(generator, n, *columns)
    beta = normal(generator, *columns)
    z[cells.reshape(-1) != 0] = torch.nan  # never used
    before, expected = p.clone(), z + beta * p
    for name, matrix in (("stencil", (code, SCALE, shape)), ("faces", (diagonal, lower, shape))):
        new_p, Ap, again = (torch.full_like(p, torch.inf) for _ in range(3))
        curvature = getattr(tiled, f"{name}_direction_dot")(*matrix, z, beta, p, new_p, Ap)
        assert_close(new_p, expected, 2 * EPS)
        assert torch.equal(p, before)
        product = getattr(reference, f"{name}_matvec_dot")(*matrix, new_p, again)
        size = float(again.norm() + new_p.nan_to_num().norm()) * 20
        assert float((Ap - again).norm()) <= 16 * EPS * size
        assert ((curvature - product).abs() <= 16 * n * EPS * size * new_p.nan_to_num().norm()).all()


@ROUND
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 2, 9)], ids=str)
def test_every_column_may_be_a_system_of_its_own(tiled, generator, shape, walls):
    """What a call with three codes does, three calls with one each do."""
    cells = [random_cells(generator, shape) for _ in range(3)]
    code = torch.stack([code_of(reference, one, walls).int() for one in cells], 1).to(torch.uint16)
    x = normal(generator, len(code), 3)
    out = torch.full_like(x, torch.nan)
    xy = tiled.stencil_matvec_dot(code, SCALE, shape, x, out)
    for j, one in enumerate(cells):
        alone = torch.full_like(x[:, j], torch.nan).contiguous()
        X = x[:, j].contiguous()
        expected = reference.stencil_matvec_dot(code_of(reference, one, walls), SCALE, shape, X, alone)
        size = float(sum(SCALE)) * 4 * float(x.norm())
        assert float((out[:, j] - alone).norm()) <= 16 * EPS * size
        assert abs(float(xy[j] - expected)) <= 16 * len(code) * EPS * size * float(x.norm())


@ROUND
def test_float32_obeys_the_kernel_law(tiled, generator, walls):
    shape = (3, 4, 5)
    cells = random_cells(generator, shape)
    A = dense_stencil(cells, walls, SCALE)
    eps = torch.finfo(torch.float32).eps
    x = normal(generator, 60, dtype=torch.float32) * (cells.reshape(-1) == 0)
    out = torch.full_like(x, torch.nan)
    tiled.stencil_matvec(code_of(reference, cells, walls), SCALE, shape, x, out)
    AD, X = exactly(A, x)
    assert_kernel_law(out, A.float() @ x, AD @ X, 10 * eps * (np.abs(AD) @ np.abs(X)))
    diagonal, lower, A = random_faces(generator, cells, walls)
    tiled.faces_matvec(diagonal.float(), lower.float(), shape, x, out)
    (AD,) = exactly(A)  # the couplings were rounded as well
    assert_kernel_law(out, A.float() @ x, AD @ X, 10 * eps * (np.abs(AD) @ np.abs(X)))


@COLUMNS
def test_nan_inside_reaches_its_neighbours_and_no_other(tiled, generator, columns):
    shape, walls = (4, 5, 6), (2, 2, 0, 1, 2, 2)
    cells = random_cells(generator, shape)
    middle = int(torch.nonzero(cells.reshape(-1) == 0)[3])
    diagonal, lower, A = random_faces(generator, cells, walls)
    x = normal(generator, 120, *columns)
    x[middle] = torch.nan
    code, out = code_of(reference, cells, walls), torch.empty_like(x)
    coupled = A[:, middle] != 0
    assert tiled.faces_matvec_dot(diagonal, lower, shape, x, out).isnan().all()
    assert torch.equal(out.isnan().reshape(120, -1).all(1), coupled)
    assert tiled.stencil_matvec_dot(code, SCALE, shape, x, out).isnan().all()
    assert torch.equal(out.isnan().reshape(120, -1).all(1), coupled)


@pytest.mark.parametrize("shape", [(1, 25, 100), (5, 6, 70)], ids=str)
def test_sines_and_cosines_are_eigenvectors(tiled, shape):
    waves(tiled, shape)


def test_eigenvectors_of_a_grid_for_threads(all_kernels):
    waves(all_kernels, (64, 64, 64))


def waves(kernels, shape):
    """Dirichlet along z and y, periodic along x (Strang 1999, sec. 2)."""
    nz, ny, nx = shape
    walls = (0, 0, 1, 1, 2, 2) if nz == 1 else (1, 1, 1, 1, 2, 2)
    z, y, x = torch.meshgrid(*[torch.arange(s, dtype=torch.float64) for s in shape], indexing="ij")
    u = torch.sin(math.pi * 3 * (y + 1) / (ny + 1)) * torch.cos(2 * math.pi * 2 * x / nx)
    eigenvalue = SCALE[1] * 4 * math.sin(math.pi * 3 / (2 * (ny + 1))) ** 2
    eigenvalue += SCALE[2] * 4 * math.sin(math.pi * 2 / nx) ** 2
    if nz > 1:
        u = u * torch.sin(math.pi * (z + 1) / (nz + 1))
        eigenvalue += SCALE[0] * 4 * math.sin(math.pi / (2 * (nz + 1))) ** 2
    u = u.reshape(-1)
    cells = torch.zeros(shape, dtype=torch.uint8)
    out = torch.empty_like(u)
    xy = kernels.stencil_matvec_dot(code_of(reference, cells, walls), SCALE, shape, u, out)
    # Rounding of the products and of u itself, which |A| enlarges: |A| <= 4 (sum of the scales).
    bound = 2 * 10 * EPS * 4 * sum(SCALE)
    assert (out - eigenvalue * u).abs().max() <= bound
    assert abs(float(xy) - eigenvalue * float(u @ u)) <= bound * len(u)


@ROUND
def test_couplings_of_one_are_the_constant_stencil(tiled, generator, walls):
    shape = (3, 4, 5)
    cells = random_cells(generator, shape)
    A = dense_stencil(cells, walls, (1.0, 1.0, 1.0))
    bits = code_of(reference, cells, walls).to(torch.int32)
    lower = torch.stack([(bits >> 2 * axis) & 1 for axis in range(3)]).double()
    x = normal(generator, 60)
    out = torch.empty(2, 60, dtype=torch.float64)
    tiled.faces_matvec(A.diagonal().contiguous(), lower, shape, x, out[0])
    tiled.stencil_matvec(code_of(reference, cells, walls), (1.0, 1.0, 1.0), shape, x, out[1])
    size = A.abs() @ (x * (cells.reshape(-1) == 0)).abs()
    assert ((out[0] - out[1]).abs() <= 16 * EPS * size).all()


@pytest.mark.parametrize("walls", [(0,) * 6, (2,) * 6])
def test_closed_boxes_have_constants_in_the_null_space(tiled, generator, walls):
    shape = (4, 5, 6)
    cells = torch.rand(shape, generator=generator).lt(0.3).to(torch.uint8)  # FLUID and SOLID
    out = torch.empty(120, dtype=torch.float64)
    code = code_of(reference, cells, walls)
    # Integers: exact, whatever the order of the sums.
    tiled.stencil_matvec(code, (1.0, 2.0, 4.0), shape, torch.full_like(out, 3.0), out)
    assert (out == 0).all()


def test_a_periodic_side_of_two_meets_its_neighbour_twice(kernels):
    code = code_of(kernels, torch.zeros((1, 2, 2), dtype=torch.uint8), (0, 0, 2, 2, 2, 2))
    assert code.tolist() == [1 << 12 | 2 << 10 | 2 << 8 | 0b111100] * 4
