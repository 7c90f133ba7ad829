"""Laws of the CSR kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_laws import COLUMNS, assert_kernel_law, csr, exactly, normal, sparse_pattern, spd

# Every dtype with every kind of index once; six columns are a block of four and two more.
TYPES = pytest.mark.parametrize(
    ("dtype", "index"),
    [(torch.float64, torch.int32), (torch.float64, torch.int64), (torch.float32, torch.int32)],
    ids=["f64-i32", "f64-i64", "f32-i32"],
)
WIDTHS = pytest.mark.parametrize("columns", [(), (3,), (6,), (21,)], ids=["n", "n3", "n6", "n21"])


def random_csr(generator, m, n, dtype, index):
    A = normal(generator, m, n, dtype=dtype) * sparse_pattern(generator, m, n, 0.3)
    return A, csr(A, index)


@TYPES
@WIDTHS
@pytest.mark.parametrize(("m", "n"), [(1, 1), (5, 31), (31, 5), (23, 23)])
def test_product_obeys_the_kernel_law(tiled, generator, dtype, index, columns, m, n):
    dense, A = random_csr(generator, m, n, dtype, index)
    x = normal(generator, n, *columns, dtype=dtype)
    got = torch.full((m, *columns), torch.nan, dtype=dtype)
    tiled.csr_matvec(*A, x, got)
    exact, X = exactly(dense, x)
    bound = (n + 1) * torch.finfo(dtype).eps * (np.abs(exact) @ np.abs(X))
    assert_kernel_law(got, dense @ x, exact @ X, bound)


@TYPES
@pytest.mark.parametrize("columns", [1, 6, 21])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (5, 31), (31, 5)])
def test_product_with_the_gram_matrix(tiled, generator, dtype, index, columns, m, n):
    dense, A = random_csr(generator, m, n, dtype, index)
    x = normal(generator, n, columns, dtype=dtype)
    got = torch.full((n, columns), torch.nan, dtype=dtype)
    tiled.csr_gram(*A, x, got)
    exact, X = exactly(dense, x)
    size = np.abs(exact)
    bound = (m + n + 2) * torch.finfo(dtype).eps * (size.T @ (size @ np.abs(X)))
    assert_kernel_law(got, dense.T @ (dense @ x), exact.T @ (exact @ X), bound)


@TYPES
@WIDTHS
def test_product_and_inner_product_in_one(tiled, generator, dtype, index, columns):
    n = 23
    dense, A = random_csr(generator, n, n, dtype, index)
    x = normal(generator, n, *columns, dtype=dtype)
    out = torch.full((n, *columns), torch.nan, dtype=dtype)
    got = tiled.csr_matvec_dot(*A, x, out)
    assert got.dtype == dtype
    (AD, X), eps = exactly(dense, x), torch.finfo(dtype).eps
    bound = (2 * n + 1) * eps * (np.abs(X) * (np.abs(AD) @ np.abs(X))).sum(0)
    assert_kernel_law(got, (x * (dense @ x)).sum(0), (X * (AD @ X)).sum(0), bound)


@pytest.mark.parametrize("columns", [(), (2,)])
def test_a_large_matrix_is_cut_into_rows_of_equal_work(all_kernels, generator, columns):
    n = 40_001  # tridiagonal, then empty rows, then one dense row
    full = torch.arange(n - 1000)
    rows = torch.cat([full, full[1:], full[:-1], torch.full((n,), n - 1)])
    cols = torch.cat([full, full[1:] - 1, full[:-1] + 1, torch.arange(n)])
    values = normal(generator, len(rows))
    places = torch.stack([rows, cols])
    A = torch.sparse_coo_tensor(places, values, (n, n), check_invariants=False).coalesce()
    indptr = torch.cat(
        [torch.zeros(1, dtype=torch.int64), torch.bincount(A.indices()[0], minlength=n).cumsum(0)]
    )
    x = normal(generator, n, *columns)
    out = torch.full((n, *columns), torch.nan, dtype=torch.float64)
    all_kernels.csr_matvec(indptr.int(), A.indices()[1].int(), A.values(), x, out)
    B = A.abs() @ x.abs().reshape(n, -1)
    error = (out.reshape(n, -1) - A @ x.reshape(n, -1)).abs()
    assert (error[:-1] <= 2 * 4 * torch.finfo(torch.float64).eps * B[:-1]).all()
    assert (error[-1] <= 2 * n * torch.finfo(torch.float64).eps * B[-1]).all()


@TYPES
@COLUMNS
def test_a_row_much_longer_than_the_others(tiled, generator, dtype, index, columns):
    """The GPU cuts such a matrix into shares of its entries: rows begin, end and go on at their borders."""
    n = 230
    pattern = torch.rand((n, n), generator=generator) < 0.005
    pattern[3] = pattern[60, :90] = True
    pattern[torch.arange(4, 20), torch.arange(4, 20)] = True
    dense = normal(generator, n, n, dtype=dtype) * pattern
    x = normal(generator, n, *columns, dtype=dtype)
    got = torch.full((n, *columns), torch.nan, dtype=dtype)
    inner = tiled.csr_matvec_dot(*csr(dense, index), x, got)
    (exact, X), eps = exactly(dense, x), torch.finfo(dtype).eps
    size = np.abs(exact) @ np.abs(X)
    assert_kernel_law(got, dense @ x, exact @ X, (n + 1) * eps * size)
    bound = (2 * n + 1) * eps * (np.abs(X) * size).sum(0)
    assert_kernel_law(inner, (x * (dense @ x)).sum(0), (X * (exact @ X)).sum(0), bound)


def test_nothing_but_empty_rows(tiled):
    indptr, none = torch.zeros(5, dtype=torch.int32), torch.zeros(0, dtype=torch.int32)
    out = torch.full((4,), torch.nan, dtype=torch.float64)
    values = torch.zeros(0, dtype=torch.float64)
    tiled.csr_matvec(indptr, none, values, torch.ones(4, dtype=torch.float64), out)
    assert out.tolist() == [0, 0, 0, 0]


def test_nan_reaches_the_rows_that_use_it_and_no_other(tiled, generator):
    dense, A = random_csr(generator, 57, 57, torch.float64, torch.int32)
    x = normal(generator, 57)
    x[23] = torch.nan
    out = torch.empty(57, dtype=torch.float64)
    assert tiled.csr_matvec_dot(*A, x, out).isnan()
    assert torch.equal(out.isnan(), dense[:, 23] != 0)


@TYPES
@pytest.mark.parametrize(("m", "n"), [(1, 1), (23, 23), (31, 5)])
def test_diagonal(tiled, generator, dtype, index, m, n):
    dense, A = random_csr(generator, m, n, dtype, index)
    out = torch.full((min(m, n),), torch.nan, dtype=dtype)
    tiled.csr_diagonal(*A, out)
    assert torch.equal(out, dense.diagonal())


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("n", [1, 40])
def test_coloring_is_proper_and_greedy(kernels, generator, index, n):
    A = spd(generator, n)
    colors = torch.full((n,), -7, dtype=torch.int32)
    count = kernels.csr_coloring(*csr(A, index)[:2], colors)
    coupled = (A != 0) & ~torch.eye(n, dtype=torch.bool)
    assert not (coupled & (colors[:, None] == colors[None, :])).any()
    assert sorted(set(colors.tolist())) == list(range(count))
    assert count <= 1 + int(coupled.sum(1).max())


def test_a_bipartite_path_needs_two_colours(kernels):
    A = torch.diag(torch.full((9,), 2.0)) - torch.diag(torch.ones(8), 1) - torch.diag(torch.ones(8), -1)
    colors = torch.empty(9, dtype=torch.int32)
    assert kernels.csr_coloring(*csr(A)[:2], colors) == 2
    assert colors.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]


def test_rows_are_regular_where_lanes_have_work(generator):
    patterns = pytest.importorskip("neuralsolve.kernels.gpu.patterns")
    lengths = torch.randint(5, 8, (1000,), generator=generator)
    for long, regular in ((9, True), (2000, False)):
        lengths[500] = long
        indptr = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        assert patterns.lanes_of(indptr, int(indptr[-1])) in (8, 16)
        assert patterns.is_regular(indptr, 128, 8) == regular
    assert patterns.is_regular(torch.zeros(1, dtype=torch.int32), 128, 8)


def test_what_is_known_of_a_pattern_is_forgotten_when_it_changes():
    patterns = pytest.importorskip("neuralsolve.kernels.gpu.patterns")
    starts = torch.tensor([0, 2, 5])
    assert patterns.numbers_of(starts) is patterns.numbers_of(starts)
    starts[2] = 4
    assert patterns.numbers_of(starts) == [0, 2, 4]
