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
    assert_kernel_law,
    dense_stencil,
    exactly,
    neighbours,
    normal,
    random_cells,
    random_faces,
)

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
def test_stencil_is_its_matrix(all_kernels, generator, shape, walls, columns):
    cells = random_cells(generator, shape)
    A = dense_stencil(cells, walls, SCALE)
    outside = cells.reshape(-1) != 0
    x = normal(generator, len(A), *columns)
    x[outside] = 0
    expected, (AD, X) = A @ x, exactly(A, x)
    x[outside] = torch.nan  # never used
    out = torch.full_like(x, torch.nan)
    xy = all_kernels.stencil_matvec_dot(code_of(all_kernels, cells, walls), SCALE, shape, x, out)
    # A row has at most seven entries, its diagonal being a sum itself: 8 roundings each.
    size = np.abs(AD) @ np.abs(X)
    assert_kernel_law(out, expected, AD @ X, 8 * EPS * size)
    assert (out[outside] == 0).all()
    bound = (8 + len(A)) * EPS * (np.abs(X) * size).sum(0)
    assert_kernel_law(xy, (torch.from_numpy(X.astype(float)) * expected).sum(0), (X * (AD @ X)).sum(0), bound)


@GRIDS
@COLUMNS
def test_faces_are_their_matrix(all_kernels, generator, shape, walls, columns):
    cells = random_cells(generator, shape)
    diagonal, lower, A = random_faces(generator, cells, walls)
    outside = cells.reshape(-1) != 0
    x = normal(generator, len(A), *columns)
    x[outside] = 0
    expected, (AD, X) = A @ x, exactly(A, x)
    x[outside] = torch.nan
    out = torch.full_like(x, torch.nan)
    xy = all_kernels.faces_matvec_dot(diagonal, lower, shape, x, out)
    size = np.abs(AD) @ np.abs(X)
    assert_kernel_law(out, expected, AD @ X, 8 * EPS * size)
    assert (out[outside] == 0).all()
    bound = (8 + len(A)) * EPS * (np.abs(X) * size).sum(0)
    assert_kernel_law(xy, (torch.from_numpy(X.astype(float)) * expected).sum(0), (X * (AD @ X)).sum(0), bound)
    again = torch.full_like(x, torch.nan)
    all_kernels.faces_matvec(diagonal, lower, shape, x, again)
    assert torch.equal(out, again)


@ROUND
def test_float32_obeys_the_kernel_law(all_kernels, generator, walls):
    shape = (3, 4, 5)
    cells = random_cells(generator, shape)
    A = dense_stencil(cells, walls, SCALE)
    eps = torch.finfo(torch.float32).eps
    x = normal(generator, 60, dtype=torch.float32) * (cells.reshape(-1) == 0)
    out = torch.full_like(x, torch.nan)
    all_kernels.stencil_matvec(code_of(all_kernels, cells, walls), SCALE, shape, x, out)
    AD, X = exactly(A, x)
    assert_kernel_law(out, A.float() @ x, AD @ X, 10 * eps * (np.abs(AD) @ np.abs(X)))
    diagonal, lower, A = random_faces(generator, cells, walls)
    all_kernels.faces_matvec(diagonal.float(), lower.float(), shape, x, out)
    (AD,) = exactly(A)  # the couplings were rounded as well
    assert_kernel_law(out, A.float() @ x, AD @ X, 10 * eps * (np.abs(AD) @ np.abs(X)))


@COLUMNS
def test_nan_inside_reaches_its_neighbours_and_no_other(all_kernels, generator, columns):
    shape, walls = (4, 5, 6), (2, 2, 0, 1, 2, 2)
    cells = random_cells(generator, shape)
    middle = int(torch.nonzero(cells.reshape(-1) == 0)[3])
    diagonal, lower, A = random_faces(generator, cells, walls)
    x = normal(generator, 120, *columns)
    x[middle] = torch.nan
    code, out = code_of(all_kernels, cells, walls), torch.empty_like(x)
    coupled = A[:, middle] != 0
    assert all_kernels.faces_matvec_dot(diagonal, lower, shape, x, out).isnan().all()
    assert torch.equal(out.isnan().reshape(120, -1).all(1), coupled)
    assert all_kernels.stencil_matvec_dot(code, SCALE, shape, x, out).isnan().all()
    assert torch.equal(out.isnan().reshape(120, -1).all(1), coupled)


@pytest.mark.parametrize("shape", [(1, 90, 100), (64, 64, 64)], ids=str)
def test_sines_and_cosines_are_eigenvectors(all_kernels, shape):
    """Dirichlet along z and y, periodic along x (Strang 1999, sec. 2); one large enough for threads."""
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
    xy = all_kernels.stencil_matvec_dot(code_of(all_kernels, cells, walls), SCALE, shape, u, out)
    # Rounding of the products and of u itself, which |A| enlarges: |A| <= 4 (sum of the scales).
    bound = 2 * 10 * EPS * 4 * sum(SCALE)
    assert (out - eigenvalue * u).abs().max() <= bound
    assert abs(float(xy) - eigenvalue * float(u @ u)) <= bound * len(u)


@ROUND
def test_couplings_of_one_are_the_constant_stencil(kernels, generator, walls):
    shape = (3, 4, 5)
    cells = random_cells(generator, shape)
    A = dense_stencil(cells, walls, (1.0, 1.0, 1.0))
    bits = code_of(kernels, cells, walls).to(torch.int32)
    lower = torch.stack([(bits >> 2 * axis) & 1 for axis in range(3)]).double()
    x = normal(generator, 60)
    out = torch.empty(2, 60, dtype=torch.float64)
    kernels.faces_matvec(A.diagonal().contiguous(), lower, shape, x, out[0])
    kernels.stencil_matvec(code_of(kernels, cells, walls), (1.0, 1.0, 1.0), shape, x, out[1])
    size = A.abs() @ (x * (cells.reshape(-1) == 0)).abs()
    assert ((out[0] - out[1]).abs() <= 16 * EPS * size).all()


@pytest.mark.parametrize("walls", [(0,) * 6, (2,) * 6])
def test_closed_boxes_have_constants_in_the_null_space(all_kernels, generator, walls):
    shape = (4, 5, 6)
    cells = torch.rand(shape, generator=generator).lt(0.3).to(torch.uint8)  # FLUID and SOLID
    out = torch.empty(120, dtype=torch.float64)
    code = code_of(all_kernels, cells, walls)
    # Integers: exact, whatever the order of the sums.
    all_kernels.stencil_matvec(code, (1.0, 2.0, 4.0), shape, torch.full_like(out, 3.0), out)
    assert (out == 0).all()


def test_a_periodic_side_of_two_meets_its_neighbour_twice(kernels):
    code = code_of(kernels, torch.zeros((1, 2, 2), dtype=torch.uint8), (0, 0, 2, 2, 2, 2))
    assert code.tolist() == [1 << 12 | 2 << 10 | 2 << 8 | 0b111100] * 4
