"""Laws of the random sketches: isometric on average, adjoint, near isometric on a subspace."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
import torch

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.lowrank.sketch import SRHT, CountSketch, Gaussian, SparseSign, walsh_hadamard

KINDS = pytest.mark.parametrize("kind", [Gaussian(), CountSketch(), SRHT(), SparseSign(3)], ids=repr)
SPARSE = pytest.mark.parametrize("kind", [Gaussian(), CountSketch(), SparseSign(3)], ids=repr)
EPS = torch.finfo(torch.float64).eps


def normal(generator, *shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@KINDS
@pytest.mark.parametrize(("rows", "n"), [(3, 1), (12, 21), (12, 32), (40, 33)])
def test_products_are_those_of_one_matrix(kind, rows, n, generator):
    if isinstance(kind, SRHT):
        rows = min(rows, n)
    S = kind.draw(rows, n, generator)
    A, Y = normal(generator, n, 4), normal(generator, rows, 4)
    dense = S.to_dense()
    assert dense.shape == S.shape == S.T.shape[::-1] == (rows, n)
    bound = 4 * max(rows, n) * EPS * dense.norm()
    assert (S @ A - dense @ A).norm() <= bound * A.norm()
    assert (S.T @ Y - dense.T @ Y).norm() <= bound * Y.norm()
    assert torch.equal(S @ A[:, 0], (S @ A[:, :1])[:, 0])
    assert S.T.T is S


@KINDS
def test_adjoint(kind, generator):  # <S x, y> = <x, S^T y>
    S = kind.draw(12, 21, generator)
    x, y = normal(generator, 21), normal(generator, 12)
    bound = 4 * 21 * EPS * S.to_dense().norm() * x.norm() * y.norm()
    assert abs((S @ x).dot(y) - x.dot(S.T @ y)) <= bound


@KINDS
def test_isometric_on_average(kind, generator):
    # An entry of S^T S has at most the variance 2/rows on the diagonal, 1/rows off it: the mean of `draws` is
    # off by n (n + 1)/(rows draws) in the squared Frobenius norm, expected; a sum of 441 terms, so near that.
    rows, n, draws = 12, 21, 500
    mean = torch.zeros((n, n), dtype=torch.float64)
    for _ in range(draws):
        S = kind.draw(rows, n, generator).to_dense()
        mean += S.T @ S / draws
    deviation = (mean - torch.eye(n)).norm() ** 2
    assert deviation <= 2 * n * (n + 1) / (rows * draws)


@KINDS
def test_a_small_subspace_is_embedded(kind, generator):
    # q_i.(S^T S) q_j has at most the variance 2/rows for orthonormal q, so E ||(S Q)^T S Q - I||_F^2 is at
    # most 2 k^2/rows; four times as much is exceeded by one draw in four at most, by Markov, and rarely in
    # fact. Two of the directions lie in one entry each, where sampling without mixing would miss them.
    rows, n, k = 800, 5000, 5
    directions = normal(generator, n, k)
    directions[:, :2] = 0
    directions[17, 0] = directions[4017, 1] = 1
    Q = torch.linalg.qr(directions).Q
    SQ = kind.draw(rows, n, generator) @ Q
    eps = math.sqrt(4 * 2 * k**2 / rows)  # 1/2
    squares = torch.linalg.svdvals(SQ) ** 2
    assert squares.min() >= 1 - eps
    assert squares.max() <= 1 + eps


@pytest.mark.parametrize("N", [1, 2, 16, 64])
def test_walsh_hadamard_is_its_matrix(N, generator):
    H = torch.from_numpy(scipy.linalg.hadamard(N).astype(float))
    A = normal(generator, N, 3)
    got = walsh_hadamard(A)
    assert (got - H @ A).norm() <= N * EPS * math.sqrt(N) * A.norm()
    assert (walsh_hadamard(got) / N - A).norm() <= 4 * N * EPS * A.norm()


@pytest.mark.parametrize("n", [1, 13, 16])
def test_srht_of_all_rows_is_an_isometry(n, generator):
    S = SRHT().draw(1 << (n - 1).bit_length(), n, generator)
    x = normal(generator, n, 2)
    assert (S.T @ (S @ x) - x).norm() <= 16 * EPS * x.norm()


@pytest.mark.parametrize("per_column", [1, 4, 9])
def test_sparse_sign_has_its_nonzeros_in_rows_drawn_uniformly(per_column, generator):
    rows, n = 9, 20_000
    S = SparseSign(per_column).draw(rows, n, generator).to_dense()
    assert ((S != 0).sum(0) == per_column).all()
    assert torch.allclose(S[S != 0].abs(), torch.tensor(per_column**-0.5, dtype=S.dtype))
    share = per_column / rows
    spread = math.sqrt(share * (1 - share) / n)  # of a row's share of nonzeros: binomial
    assert ((S != 0).double().mean(1) - share).abs().max() <= 5 * spread
    assert (S > 0).sum() - per_column * n / 2 <= 5 * math.sqrt(per_column * n) / 2


@SPARSE
def test_sparse_matrices_are_sketched_as_dense_ones(kind, generator):
    A = sp.csr_array((normal(generator, 50, 7) * (torch.rand((50, 7), generator=generator) < 0.2)).numpy())
    S = kind.draw(12, 50, generator)
    got = S @ A
    assert sp.issparse(got) == (kind != Gaussian())
    got = got.toarray() if sp.issparse(got) else got
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, S @ A.toarray(), rtol=0, atol=50 * EPS * float(S.to_dense().norm()))


def test_srht_tells_what_to_do_with_a_sparse_matrix(generator):
    with pytest.raises(OptionError, match=r"A\.toarray\(\)"):
        SRHT().draw(4, 9, generator) @ sp.eye_array(9, format="csr")


@KINDS
def test_numpy_in_numpy_out(kind, generator):
    S = kind.draw(5, 9, generator)
    A = np.random.default_rng(4).standard_normal((9, 2))
    A.flags.writeable = False
    got = S @ A
    assert isinstance(got, np.ndarray)
    np.testing.assert_array_equal(got, (S @ torch.tensor(A)).numpy())
    assert isinstance(S.T @ got[:, 0], np.ndarray)


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_generator_decides(kind, dtype):
    first, again, other = (
        kind.draw(12, 21, torch.Generator().manual_seed(seed), dtype).to_dense() for seed in (61, 61, 62)
    )
    assert first.dtype == dtype
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@KINDS
def test_what_does_not_fit_is_told(kind, generator):
    S = kind.draw(5, 9, generator)
    with pytest.raises(ShapeError, match=r"\(5, 9\) got a matrix of shape \(5,\); \(9,\) or \(9, k\)"):
        S @ torch.ones(5, dtype=torch.float64)
    with pytest.raises(ShapeError, match=r"S\^T of shape \(9, 5\)"):
        S.T @ torch.ones(9, dtype=torch.float64)
    with pytest.raises(OptionError, match=r"draw\(dtype=torch.float32\)"):
        S @ torch.ones(9)
    with pytest.raises(OptionError, match="rows >= 1"):
        kind.draw(0, 9, generator)
    with pytest.raises(OptionError, match=r"dtype=torch\.float64"):
        kind.draw(5, 9, generator, torch.int64)
    if kind == SRHT():
        with pytest.raises(OptionError, match="rows <= 16"):
            kind.draw(17, 9, generator)
    if kind == SparseSign(3):
        with pytest.raises(OptionError, match=r"SparseSign\(2\)"):
            kind.draw(2, 9, generator)
        with pytest.raises(OptionError, match="per_column=0"):
            SparseSign(0)
