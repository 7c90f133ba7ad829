"""Laws of the incomplete factorisations and the triangular solves."""

from __future__ import annotations

import pytest
import torch
from kernel_laws import COLUMNS, GRIDS, assert_close, csr, normal, random_cells, random_faces, spd

EPS = torch.finfo(torch.float64).eps
INDEX = pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=["i32", "i64"])
SIZES = pytest.mark.parametrize("n", [1, 2, 41])
SHARES = pytest.mark.parametrize("modified", [0.0, 0.7, 1.0])


def dense(indptr, indices, values):
    n = len(indptr) - 1
    A = torch.zeros((n, n), dtype=values.dtype)
    rows = torch.repeat_interleave(torch.arange(n), torch.diff(indptr).long())
    A[rows, indices.long()] = values
    return A


def condition(L):
    """Skeel's |L^-1||L|: what a triangular solve may lose (Higham 2002, sec. 8.2), in the 2-norm."""
    return float((torch.linalg.inv(L).abs() @ L.abs()).norm())


def ic0(kernels, A, index, modified):
    indptr, indices, values = csr(torch.tril(A), index)
    out = torch.full_like(values, torch.nan)
    assert kernels.csr_ic0_factor(indptr, indices, values, modified, out) == 0
    return indptr, indices, out


def ilu0(kernels, A, index):
    indptr, indices, values = csr(A, index)
    rows = torch.repeat_interleave(torch.arange(len(A)), torch.diff(indptr).long())
    diag_ptr = torch.nonzero(rows == indices)[:, 0].to(index)
    out = torch.full_like(values, torch.nan)
    assert kernels.csr_ilu0_factor(indptr, indices, values, diag_ptr, out) == 0
    return indptr, indices, out, diag_ptr


@INDEX
@SIZES
def test_ic0_matches_its_matrix_on_the_pattern(kernels, generator, index, n):
    A = spd(generator, n)
    L = dense(*ic0(kernels, A, index, 0.0))
    assert (L.diagonal() > 0).all()
    gap = (L @ L.T - A) * (A != 0)
    assert (gap.abs() <= 4 * n * EPS * (L.abs() @ L.abs().T)).all()


@SIZES
@SHARES
def test_modified_factors_keep_that_share_of_the_row_sums(kernels, generator, n, modified):
    """Dropped products R = L L^T - A off the pattern; their row sums are made up on the diagonal."""
    A = spd(generator, n)
    L = dense(*ic0(kernels, A, torch.int32, modified))
    M = L @ L.T
    off = ~torch.eye(n, dtype=torch.bool)
    bound = 4 * n * EPS * (L.abs() @ L.abs().T).sum(1)
    dropped = (M * (A == 0)).sum(1)
    assert (((M - A) * ((A != 0) & off)).abs().sum(1) <= bound).all()
    assert ((M.diagonal() - A.diagonal() + modified * dropped).abs() <= bound).all()
    assert ((M.sum(1) - A.sum(1) - (1 - modified) * dropped).abs() <= 2 * bound).all()


def test_no_fill_means_an_exact_factor(kernels, generator):
    """A tree loses nothing: IC(0) of a tridiagonal matrix is its Cholesky factor."""
    n = 30
    off = torch.rand(n - 1, generator=generator, dtype=torch.float64)
    A = torch.diag(torch.full((n,), 2.5, dtype=torch.float64)) - torch.diag(off, 1) - torch.diag(off, -1)
    L = dense(*ic0(kernels, A, torch.int32, 0.5))
    assert_close(L, torch.linalg.cholesky(A), 10 * EPS * float(torch.linalg.cond(A)))


@INDEX
@SIZES
@COLUMNS
def test_triangular_solves_invert_their_factor(kernels, generator, index, n, columns):
    factor = ic0(kernels, spd(generator, n), index, 0.0)
    L, x = dense(*factor), normal(generator, n, *columns)
    out = torch.full_like(x, torch.nan)
    kernels.csr_lower_solve(*factor, L @ x, out)
    assert_close(out, x, 4 * n * EPS * condition(L))
    kernels.csr_lower_transpose_solve(*factor, L.T @ x, out)
    assert_close(out, x, 4 * n * EPS * condition(L.T))


@INDEX
@SIZES
@COLUMNS
def test_ilu0_matches_its_matrix_and_its_solve_inverts_it(kernels, generator, index, n, columns):
    A = spd(generator, n) * (1 + 0.3 * torch.rand((n, n), generator=generator, dtype=torch.float64))
    factor = ilu0(kernels, A, index)
    both = dense(*factor[:3])
    L, U = torch.tril(both, -1) + torch.eye(n, dtype=torch.float64), torch.triu(both)
    gap = (L @ U - A) * (A != 0)
    assert (gap.abs() <= 4 * n * EPS * (L.abs() @ U.abs())).all()
    x = normal(generator, n, *columns)
    out = torch.full_like(x, torch.nan)
    kernels.csr_ilu0_solve(*factor, L @ (U @ x), out)
    assert_close(out, x, 8 * n * EPS * condition(L) * condition(U))


def test_pivots_that_fail_are_reported(kernels):
    A = torch.tensor([[4.0, 2, 0], [2, 1, 1], [0, 1, 9]], dtype=torch.float64)  # second pivot 1 - 2*2/4
    indptr, indices, values = csr(torch.tril(A))
    assert kernels.csr_ic0_factor(indptr, indices, values, 0.0, torch.empty_like(values)) == 2
    values[0] = torch.nan
    assert kernels.csr_ic0_factor(indptr, indices, values, 0.0, torch.empty_like(values)) == 1
    indptr, indices, values = csr(A)
    diag_ptr = torch.tensor([0, 3, 6], dtype=torch.int32)
    assert kernels.csr_ilu0_factor(indptr, indices, values, diag_ptr, torch.empty_like(values)) == 2
    diagonal = torch.tensor([0.0, 1, 1], dtype=torch.float64)  # cell 0 is outside
    lower = torch.zeros((3, 3), dtype=torch.float64)
    lower[2, 2] = 1.0  # pivot of the last cell: 1 - 1*1/1
    assert kernels.faces_ic0_factor(diagonal, lower, (1, 1, 3), 0.0, torch.empty(3).double()) == 3


def faces_factor(diagonal, lower, A, inverse):
    """M = (D + L) D^-1 (D + L)^T on the cells inside, L the strict lower triangle of A."""
    inside = torch.nonzero(diagonal)[:, 0]
    A, pivots = A[inside][:, inside], 1 / inverse[inside]
    half = torch.tril(A, -1) + torch.diag(pivots)
    return inside, A, half, half @ torch.diag(1 / pivots) @ half.T


@SHARES
@GRIDS
def test_factor_on_a_grid(kernels, generator, modified, shape, walls):
    """The diagonal of M is that of A, less the share of the dropped products; the pattern of A is matched."""
    cells = random_cells(generator, shape)
    diagonal, lower, A = random_faces(generator, cells, walls, wrap=False)
    inverse = torch.full_like(diagonal, torch.nan)
    assert kernels.faces_ic0_factor(diagonal, lower, shape, modified, inverse) == 0
    assert torch.equal(inverse != 0, diagonal != 0)
    _, A, half, M = faces_factor(diagonal, lower, A, inverse)
    bound = 20 * EPS * (half.abs() @ torch.diag(1 / half.diagonal()) @ half.abs().T).sum(1)
    dropped = (M * (A == 0)).sum(1)
    off = ~torch.eye(len(A), dtype=torch.bool)
    assert (((M - A) * ((A != 0) & off)).abs().sum(1) <= bound).all()
    assert ((M.diagonal() - A.diagonal() + modified * dropped).abs() <= bound).all()
    assert ((M.sum(1) - A.sum(1) - (1 - modified) * dropped).abs() <= 2 * bound).all()


def test_periodic_couplings_are_left_out(kernels, generator):
    shape, cells = (3, 4, 5), torch.zeros((3, 4, 5), dtype=torch.uint8)
    diagonal, lower, _ = random_faces(generator, cells, (2,) * 6)
    cut = lower.clone().view(3, *shape)
    cut[0, 0], cut[1, :, 0], cut[2, :, :, 0] = 0, 0, 0
    cut = cut.view(3, -1)
    pivots, b = torch.empty(2, 60, dtype=torch.float64), normal(generator, 60)
    out = torch.empty(2, 60, dtype=torch.float64)
    for couplings, inverse, z in ((lower, pivots[0], out[0]), (cut, pivots[1], out[1])):
        assert kernels.faces_ic0_factor(diagonal, couplings, shape, 0.9, inverse) == 0
        kernels.faces_ic0_solve(inverse, couplings, shape, b, z)
    assert torch.equal(pivots[0], pivots[1])
    assert torch.equal(out[0], out[1])


@COLUMNS
@GRIDS
def test_solve_on_a_grid_inverts_the_factor(all_kernels, generator, columns, shape, walls):
    cells = random_cells(generator, shape)
    diagonal, lower, A = random_faces(generator, cells, walls, wrap=False)
    inverse = torch.empty_like(diagonal)
    assert all_kernels.faces_ic0_factor(diagonal, lower, shape, 0.9, inverse) == 0
    inside, _, half, M = faces_factor(diagonal, lower, A, inverse)
    x = normal(generator, len(inside), *columns)
    b = torch.full((len(diagonal), *columns), torch.nan, dtype=torch.float64)  # NaN outside is never used
    b[inside] = M @ x
    out = torch.full_like(b, torch.nan)
    all_kernels.faces_ic0_solve(inverse, lower, shape, b, out)
    assert (out[diagonal == 0] == 0).all()
    if len(inside):
        assert_close(out[inside], x, 20 * EPS * condition(half) * condition(half.T))


def test_large_grids_are_cut_into_blocks(monkeypatch, generator):
    """The numba solve in blocks, side by side: M out = b, M written as matrix-vector products."""
    from neuralsolve.kernels import table

    K, shape = table(), (40, 70, 80)
    monkeypatch.setattr("neuralsolve.kernels.cpu.threads.BLOCK", 10_000)
    n = 40 * 70 * 80
    lower = torch.rand((3, n), generator=generator, dtype=torch.float64)
    faces = lower.view(3, *shape)
    faces[0, 0], faces[1, :, 0], faces[2, :, :, 0] = 0, 0, 0
    diagonal = torch.full((n,), 6.5, dtype=torch.float64)
    inverse, b, out = torch.empty(n).double(), normal(generator, n), torch.empty(n).double()
    assert K.faces_ic0_factor(diagonal, lower, shape, 0.0, inverse) == 0
    K.faces_ic0_solve(inverse, lower, shape, b, out)

    def below(u):  # (D + L) D^-1 u - u
        v = u.view(shape)
        w = torch.zeros_like(v)
        w[1:] -= faces[0, 1:] * v[:-1]
        w[:, 1:] -= faces[1, :, 1:] * v[:, :-1]
        w[:, :, 1:] -= faces[2, :, :, 1:] * v[:, :, :-1]
        return w.view(-1)

    def above(u):
        v = u.view(shape)
        w = torch.zeros_like(v)
        w[:-1] -= faces[0, 1:] * v[1:]
        w[:, :-1] -= faces[1, :, 1:] * v[:, 1:]
        w[:, :, :-1] -= faces[2, :, :, 1:] * v[:, :, 1:]
        return w.view(-1)

    t = out / inverse + above(out)
    residual = b - (t + below(inverse * t))
    # Pivots are at least 6.5 - 3/3.5 > 5 and couplings at most 1: |M| <= (D + 3)^2 / D <= 9.5^2 / 5.
    assert float(residual.abs().max()) <= 20 * EPS * 9.5**2 / 5 * float(out.abs().max())
