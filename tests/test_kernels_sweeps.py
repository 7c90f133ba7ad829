"""Laws of the relaxation sweeps, against dense algebra (Saad 2003, sec. 4.1)."""

from __future__ import annotations

import pytest
import torch
from kernel_laws import COLUMNS, GRIDS, csr, normal, random_cells, random_faces, spd

from neuralsolve.kernels import reference

OMEGAS = pytest.mark.parametrize("omega", [1.0, 1.6])
DIRECTIONS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


def sor(A, order, omega, b, x):
    """One sweep by its matrix form, rows visited in `order`: x + (D/omega - E)^-1 (b - A x)."""
    P = A[order[:, None], order]
    diagonal = P.diagonal()
    keep = diagonal != 0
    lower = torch.tril(P, -1) + torch.diag(torch.where(keep, diagonal / omega, 1.0))
    lower[~keep] = torch.eye(len(A), dtype=A.dtype)[~keep]  # such a row changes nothing
    residual = (b - A @ x)[order]
    residual[~keep] = 0
    columns = residual.reshape(len(A), -1)
    step = torch.linalg.solve_triangular(lower, columns, upper=False).reshape(b.shape)
    result = x.clone()
    result[order] += step
    return result


def rounding(A, omega, b, x):
    """What a sweep may err by in the 2-norm.

    Each row is a sum over its entries, and carried on through the rows after it: at most n times as much for
    a diagonally dominant A.
    """
    diagonal = A.diagonal().abs()
    diagonal = float(diagonal[diagonal != 0].min())
    size = float(A.abs().sum(1).max()) * float(x.norm()) + float(b.norm())
    return 4 * len(A) * omega * torch.finfo(A.dtype).eps * size / diagonal


def coloured(kernels, A, index):
    """Colours of A as color_ptr and color_rows, and the order in which they are visited."""
    colors = torch.empty(len(A), dtype=torch.int32)
    count = kernels.csr_coloring(*csr(A, index)[:2], colors)
    rows = torch.argsort(colors, stable=True)
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(colors, minlength=count).cumsum(0)])
    return ptr.to(index), rows.to(index), rows


@OMEGAS
@DIRECTIONS
@COLUMNS
@pytest.mark.parametrize("n", [1, 2, 41])
@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=["i32", "i64"])
def test_csr_sweep_is_its_formula(kernels, generator, omega, reverse, columns, n, index):
    A = spd(generator, n)
    b, x = normal(generator, n, *columns), normal(generator, n, *columns)
    order = torch.arange(n).flip(0) if reverse else torch.arange(n)
    expected, bound = sor(A, order, omega, b, x), rounding(A, omega, b, x)
    kernels.csr_sor_sweep(*csr(A, index), omega, b, x, reverse)
    assert (x - expected).norm() <= bound


@OMEGAS
@DIRECTIONS
@COLUMNS
@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=["i32", "i64"])
def test_color_sweep_is_the_sweep_in_the_order_of_the_colours(
    tiled, generator, omega, reverse, columns, index
):
    A = spd(generator, 41)
    ptr, rows, order = coloured(reference, A, index)
    b, x = normal(generator, 41, *columns), normal(generator, 41, *columns)
    expected = sor(A, order.flip(0) if reverse else order, omega, b, x)
    bound = rounding(A, omega, b, x)
    tiled.csr_color_sweep(*csr(A, index), omega, b, x, ptr, rows, reverse)
    assert (x - expected).norm() <= bound


@DIRECTIONS
def test_unsymmetric_matrices_and_rows_without_diagonal(kernels, generator, reverse):
    n = 41
    A = spd(generator, n) * (1 + torch.rand((n, n), generator=generator, dtype=torch.float64))
    A[7, 7] = A[20, 20] = 0
    A[8, 7] = A[6, 7] = A[21, 20] = A[19, 20] = 0.5  # read by the rows visited next
    b, x = normal(generator, n), normal(generator, n)
    kept = x[[7, 20]].clone()
    order = torch.arange(n).flip(0) if reverse else torch.arange(n)
    expected, bound = sor(A, order, 1.2, b, x), rounding(A, 1.2, b, x)
    kernels.csr_sor_sweep(*csr(A), 1.2, b, x, reverse)
    assert (x - expected).norm() <= bound
    assert torch.equal(x[[7, 20]], kept)


def order_of(shape, reverse, redblack):
    z, y, x = torch.meshgrid(*[torch.arange(side) for side in shape], indexing="ij")
    if not redblack:
        order = torch.arange(z.numel())
        return order.flip(0) if reverse else order
    black = ((z + y + x) % 2).reshape(-1)
    return torch.argsort(1 - black if reverse else black, stable=True)


def sweep_over_cells(sweep, redblack, generator, reverse, columns, shape, walls):
    omega = 1.6
    cells = random_cells(generator, shape)
    diagonal, lower, A = random_faces(generator, cells, walls)
    outside = cells.reshape(-1) != 0
    b, x = normal(generator, len(A), *columns), normal(generator, len(A), *columns)
    b[outside] = x[outside] = 0
    expected = sor(A, order_of(shape, reverse, redblack), omega, b, x)
    bound = 0.0 if outside.all() else rounding(A, omega, b, x)
    b[outside] = x[outside] = torch.nan  # never used, never changed
    sweep(diagonal, lower, shape, omega, b, x, reverse)
    assert x[outside].isnan().all()
    assert (x - expected)[~outside].norm() <= bound


@DIRECTIONS
@COLUMNS
@GRIDS
def test_sweep_over_cells_is_its_formula(all_kernels, generator, reverse, columns, shape, walls):
    sweep_over_cells(all_kernels.faces_sor_sweep, False, generator, reverse, columns, shape, walls)


@pytest.mark.parametrize(("reverse", "columns"), [(False, ()), (True, (3,))], ids=["n", "nk reverse"])
@GRIDS
def test_sweep_by_colours_is_its_formula(tiled, generator, reverse, columns, shape, walls):
    if any(walls[2 * a] == 2 and shape[a] % 2 and shape[a] > 1 for a in range(3)):
        return  # cells of one colour would be coupled
    sweep_over_cells(tiled.faces_redblack_sweep, True, generator, reverse, columns, shape, walls)


@DIRECTIONS
def test_the_solution_is_a_fixed_point(all_kernels, generator, reverse):
    """Integers: nothing is rounded, so nothing may move."""
    cells = random_cells(generator, (4, 6, 6))
    _, lower, _ = random_faces(generator, cells, (0, 1, 2, 2, 2, 2))
    lower = (lower > 0).double()
    inside = (cells.reshape(-1) == 0).double()
    solution = torch.randint(-9, 10, (144,), generator=generator) * inside
    b = torch.empty(144, dtype=torch.float64)
    all_kernels.faces_matvec(8 * inside, lower, (4, 6, 6), solution, b)
    for sweep in (all_kernels.faces_sor_sweep, all_kernels.faces_redblack_sweep):
        x = solution.clone()
        sweep(8 * inside, lower, (4, 6, 6), 1.5, b, x, reverse)
        assert torch.equal(x, solution)
    A = csr(torch.diag(torch.full((9,), 4.0).double()) - torch.diag(torch.ones(8).double(), 1))
    solution = torch.randint(-9, 10, (9,), generator=generator).double()
    all_kernels.csr_matvec(*A, solution, b[:9])
    x = solution.clone()
    all_kernels.csr_sor_sweep(*A, 1.5, b[:9], x, reverse)
    assert torch.equal(x, solution)


def test_reverse_is_the_adjoint(kernels, generator):
    """For symmetric A and x = 0 the sweep maps b to (D/omega - E)^-1 b; the reverse one is its transpose."""
    shape, walls = (3, 4, 4), (0, 1, 2, 2, 2, 2)
    diagonal, lower, A = random_faces(generator, random_cells(generator, shape), walls)
    ptr, rows, _ = coloured(kernels, A, torch.int32)
    n = len(A)
    for sweep, name in (
        (lambda b, x, reverse: kernels.csr_sor_sweep(*csr(A), 1.4, b, x, reverse), "csr"),
        (lambda b, x, reverse: kernels.csr_color_sweep(*csr(A), 1.4, b, x, ptr, rows, reverse), "csr"),
        (lambda b, x, reverse: kernels.faces_sor_sweep(diagonal, lower, shape, 1.4, b, x, reverse), "cells"),
        (
            lambda b, x, reverse: kernels.faces_redblack_sweep(diagonal, lower, shape, 1.4, b, x, reverse),
            shape,
        ),
    ):
        u, v = normal(generator, n), normal(generator, n)
        forward, backward = torch.zeros_like(u), torch.zeros_like(v)
        sweep(u, forward, False)
        sweep(v, backward, True)
        slack = rounding(A, 1.4, u, forward) * v.norm() + rounding(A, 1.4, v, backward) * u.norm()
        assert abs(float(v @ forward - backward @ u)) <= slack, name


@DIRECTIONS
def test_large_grids_are_cut_into_blocks(monkeypatch, generator, reverse):
    """The numba sweep in blocks, side by side, against that of one block."""
    from neuralsolve.kernels import table
    from neuralsolve.kernels.cpu.faces_sweeps import _sor

    shape = (40, 70, 80)
    monkeypatch.setattr("neuralsolve.kernels.cpu.threads.BLOCK", 10_000)
    n = 40 * 70 * 80
    lower = torch.rand((3, n), generator=generator, dtype=torch.float64)
    lower.view(3, *shape)[2, :, :, 0] = 0
    diagonal = 6 + torch.rand(n, generator=generator, dtype=torch.float64)
    b, x = normal(generator, n), normal(generator, n)
    serial = x.clone()
    block = (0, 40, 0, 70, 0, 80)
    _sor(diagonal.numpy(), lower.numpy(), shape, 1.3, b.numpy(), serial.numpy(), reverse, block)
    table().faces_sor_sweep(diagonal, lower, shape, 1.3, b, x, reverse)
    assert torch.equal(x, serial)
