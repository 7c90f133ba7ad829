"""Laws of Kaczmarz's row projections, against dense algebra (Strohmer & Vershynin 2009)."""

from __future__ import annotations

import pytest
import torch
from kernel_laws import csr, normal, sparse_pattern

from neuralsolve.kernels import use

SHAPES = pytest.mark.parametrize(("m", "n"), [(1, 1), (12, 12), (15, 9), (9, 15)])


def system(generator, m, n, dtype=torch.float64):
    """A sparse A (m, n) with rows of zeros, a solution d* and a start d."""
    A = normal(generator, m, n, dtype=dtype) * sparse_pattern(generator, m, n, 0.5)
    return A, normal(generator, n, dtype=dtype), normal(generator, n, dtype=dtype)


def arrays(A, index=torch.int32):
    return *csr(A, index), *csr(A @ A.T, index)


def drawn(generator, m, steps):
    return torch.randint(m, (steps,), generator=generator)


def project(A, b, rows, d):
    """The iterates d_0, d_1, ..., r formed anew for every step."""
    path = [d.clone()]
    for i in rows.tolist():
        square = A[i].dot(A[i])
        path.append(path[-1] - (A[i].dot(path[-1]) - b[i]) / square * A[i] if square > 0 else path[-1])
    return torch.stack(path)


def shortest(A):
    """The smallest ||A_i|| that is not zero."""
    lengths = A.norm(dim=1)
    return lengths[lengths > 0].min() if lengths.any() else 1.0


def drift(A, path):
    """What r may differ from A d - b by: each step rounds d, t A_i and t (A A^T)_i, sums of n products."""
    steps, n = path.shape
    return 4 * steps * n * torch.finfo(A.dtype).eps * A.norm() * path.norm(dim=1).max()


@SHAPES
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=["i32", "i64"])
def test_steps_are_projections_and_r_follows(kernels, generator, m, n, dtype, index):
    A, solution, d = system(generator, m, n, dtype)
    b, rows = A @ solution, drawn(generator, m, 40)
    path = project(A, b, rows, d)
    r = A @ d - b
    kernels.csr_kaczmarz(*arrays(A, index), rows, d, r)
    bound = drift(A, path)
    assert (r - (A @ d - b)).norm() <= bound
    # a wrong r_i moves d by r_i/||A_i||, a projection carries that on without growth
    assert (d - path[-1]).norm() <= len(rows) * bound / shortest(A)


def test_both_tables_take_the_same_steps(generator):
    A, solution, start = system(generator, 30, 30)
    b, rows = A @ solution, drawn(generator, 30, 300)
    ends = []
    for name in ("reference", "cpu"):
        d, r = start.clone(), A @ start - b
        with use(name) as kernels:
            kernels.csr_kaczmarz(*arrays(A), rows, d, r)
        ends.append(torch.cat([d, r]))
    bound = drift(A, project(A, b, rows, start)) * (1 + len(rows) / shortest(A))
    assert (ends[0] - ends[1]).norm() <= bound


@SHAPES
def test_each_step_solves_its_equation_and_the_error_never_grows(kernels, generator, m, n):
    A, solution, d = system(generator, m, n)
    b, rows = A @ solution, drawn(generator, m, 40)
    bound = drift(A, project(A, b, rows, d))
    r, error = A @ d - b, (d - solution).norm()
    for q, i in enumerate(rows.tolist()):
        kernels.csr_kaczmarz(*arrays(A), rows[q : q + 1], d, r)
        assert abs(A[i].dot(d) - b[i]) <= bound
        last, error = error, (d - solution).norm()
        assert error <= last + bound / shortest(A)  # what is wrong in r_i moves d


def test_a_uniform_row_takes_its_share_of_the_error(kernels, generator):
    # mean over i of ||d_i - d*||^2 = ||e||^2 - ||D^-1 A e||^2/m, D = diag(||A_i||), rows of zeros left out
    m, n = 12, 9
    A, solution, d = system(generator, m, n)
    b, e, lengths = A @ solution, d - solution, A.norm(dim=1)
    squares = []
    for i in range(m):
        moved, r = d.clone(), A @ d - b
        kernels.csr_kaczmarz(*arrays(A), torch.tensor([i]), moved, r)
        squares.append((moved - solution).norm() ** 2)
    along = (A @ e)[lengths > 0] / lengths[lengths > 0]
    expected = e.norm() ** 2 - along.norm() ** 2 / m
    assert abs(sum(squares) / m - expected) <= 100 * torch.finfo(d.dtype).eps * e.norm() ** 2


def test_rows_of_zeros_are_passed_over(kernels):
    A = torch.tensor([[1.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    d, r = torch.tensor([3.0, 4.0], dtype=torch.float64), torch.tensor([11.0, 7.0], dtype=torch.float64)
    indptr, indices, values = csr(A)
    stored = torch.tensor([0, 2, 3]), torch.tensor([0, 1, 1]), torch.tensor([1.0, 2.0, 0.0]).double()
    gram = torch.tensor([0, 1, 2]), torch.tensor([0, 1]), torch.tensor([5.0, 0.0]).double()
    for rows, squares in (((indptr, indices, values), csr(A @ A.T)), (stored, gram)):
        kernels.csr_kaczmarz(*rows, *squares, torch.tensor([1, 1]), d, r)
        assert d.tolist() == [3.0, 4.0]
        assert r.tolist() == [11.0, 7.0]


def test_no_rows_change_nothing(kernels, generator):
    A, _, d = system(generator, 12, 12)
    before, r = d.clone(), A @ d
    kernels.csr_kaczmarz(*arrays(A), torch.empty(0, dtype=torch.int64), d, r)
    assert torch.equal(d, before)
    assert torch.equal(r, A @ d)


def test_nan_is_not_hidden(kernels, generator):
    A = normal(generator, 4, 4)
    d, r = normal(generator, 4), normal(generator, 4)
    r[2] = torch.nan
    kernels.csr_kaczmarz(*arrays(A), torch.tensor([2]), d, r)
    assert d.isnan().all()
    assert r.isnan().all()
