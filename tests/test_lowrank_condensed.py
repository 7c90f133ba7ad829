"""Laws of the SVD from a row sketch: nearly optimal on whatever matrix, or noticed and mended."""

from __future__ import annotations

import pytest
import torch
from lowrank_laws import assert_svd, decaying, eps, matrix

from neuralsolve.errors import NonFiniteError
from neuralsolve.lowrank import condensed
from neuralsolve.lowrank.condensed import Condensed
from neuralsolve.lowrank.products import Dense
from neuralsolve.lowrank.svd import svd

M, N, RANK = 640, 480, 5
pytestmark = pytest.mark.usefixtures("one_thread", "small")


@pytest.fixture
def small(monkeypatch):
    """Call small matrices large."""
    monkeypatch.setattr(condensed, "LARGE", 1)


@pytest.fixture
def judged(monkeypatch):
    """What was found from sketches, and whether it was trusted."""
    seen, trusted = [], Condensed.trusted

    def look(self, found, tail):
        seen.append(trusted(self, found, tail))
        return seen[-1]

    monkeypatch.setattr(Condensed, "trusted", look)
    return seen


def spread(generator, s):
    """Entries s in places of their own: singular vectors are unit vectors."""
    A = torch.zeros((M, N), dtype=torch.float64)
    rows, columns = torch.randperm(M, generator=generator)[:N], torch.randperm(N, generator=generator)
    A[rows, columns] = s
    return A


def leading(tail):
    s = torch.full((N,), tail, dtype=torch.float64)
    s[:RANK] = 1
    return s


def noise(generator, *shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def neighbours(generator):
    x = torch.linspace(0, 1, M, dtype=torch.float64)
    return torch.exp(-8 * (x[:, None] - x[:N]).abs())


MATRICES = {
    "slow decay": lambda g: matrix(g, M, N, decaying(N, 0.5)),
    "decay": lambda g: matrix(g, M, N, decaying(N)),
    "fast decay": lambda g: matrix(g, M, N, decaying(N, 3.0)),
    "repeated values": lambda g: matrix(g, M, N, leading(0.02)),
    "equal entries": lambda g: spread(g, leading(1e-2)),
    "decaying entries": lambda g: spread(g, decaying(N)),
    "identity": lambda g: torch.eye(M, N, dtype=torch.float64),
    "a block of the identity": lambda g: spread(g, leading(0.0)),
    "noise": lambda g: noise(g, M, N),
    "heavy rows": lambda g: noise(g, M, N) / torch.rand((M, 1), generator=g, dtype=torch.float64),
    "rows that repeat": lambda g: noise(g, 4, N).repeat(M // 4, 1) + 0.3 * noise(g, M, N),
    "rows and columns like their neighbours": neighbours,
    "one entry": lambda g: spread(g, decaying(N, 99.0)),
    "nothing but low rank": lambda g: noise(g, M, 3) @ noise(g, 3, N),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", MATRICES)
def test_it_is_nearly_optimal_whatever_the_matrix(name, dtype, judged, generator):
    A = MATRICES[name](generator).to(dtype)
    optimal = torch.linalg.svdvals(A.double())[RANK:].norm()
    found = svd(A, RANK, method="randomized")
    assert judged  # the sketch was tried
    assert_svd(found, A)
    true = torch.linalg.matrix_norm(A.double() - found.U.double() * found.s.double() @ found.Vh.double())
    assert true <= 1.1 * optimal + 4 * (M + N) * eps(dtype) * A.norm()


@pytest.mark.parametrize("name", ["slow decay", "repeated values", "noise", "equal entries"])
def test_the_sketch_is_trusted_where_it_serves(name, judged, generator):
    svd(MATRICES[name](generator), RANK, method="randomized")
    assert judged == [True]


@pytest.mark.parametrize("name", ["decay", "equal entries"])
def test_a_sketch_that_misses_directions_is_noticed(name, judged, monkeypatch, generator):
    basis = Condensed.basis

    def blind(self, rank, width, random):
        """A basis at right angles to the leading singular vector."""
        Z, tail = basis(self, rank, width, random)
        v = torch.linalg.svd(self.matrix.A)[2][0]
        return torch.linalg.qr(Z - torch.outer(v, v @ Z)).Q, tail

    monkeypatch.setattr(Condensed, "basis", blind)
    A = MATRICES[name](generator)
    found = svd(A, RANK, method="randomized")
    assert judged == [False]
    assert_svd(found, A)
    assert found.error <= 1.1 * torch.linalg.svdvals(A)[RANK:].norm()


def test_every_layout_and_side(judged, generator):
    n = M - 16
    A = matrix(generator, M, n, decaying(n, 0.5))
    optimal = decaying(n, 0.5)[RANK:].norm()
    for X in (A, A.mT, A.mT.contiguous(), A.mT.contiguous().mT, A[:, :619], A[:619].mT):
        found = svd(X, RANK, method="randomized")
        assert_svd(found, X)
        assert found.error <= 1.1 * optimal
    assert len(judged) == 6  # rows of A[:, :619] do not lie one after the other, and were copied


def test_the_same_numbers_for_the_same_generator(judged, generator):
    A = matrix(generator, M, N, decaying(N, 0.5))
    first, again = svd(A, RANK, method="randomized"), svd(A.clone(), RANK, method="randomized")
    assert torch.equal(first.U, again.U)
    assert torch.equal(first.Vh, again.Vh)
    other = svd(A, RANK, method="randomized", generator=torch.Generator().manual_seed(77))
    assert not torch.equal(first.U, other.U)
    assert judged == [True] * 3


@pytest.mark.parametrize("scale", [1e-250, 1e-30, 1e30, 1e250, 0.0])
def test_scales_that_single_precision_does_not_hold(scale, generator):
    A = matrix(generator, M, N, decaying(N))
    found = svd(scale * A, RANK, method="randomized")
    assert torch.allclose(found.s, scale * decaying(N)[:RANK], rtol=0.05, atol=0)


def test_options_of_the_iteration_leave_the_sketch_out(judged, generator):
    A = matrix(generator, M, N, decaying(N))
    svd(A, RANK, method="randomized", iterations=2)
    svd(A, RANK, method="randomized", warm=torch.eye(N, RANK, dtype=torch.float64))
    svd(A, RANK, method="randomized", precision=torch.float32)
    svd(A.to(torch.complex128), RANK, method="randomized")
    svd(A.expand(2, M, N), RANK, method="randomized")
    svd(A, 60, method="randomized")  # as many mixtures as that needs would be no fewer than the rows
    assert not judged


def test_its_norm_is_that_of_the_matrix_and_what_is_not_finite_is_refused(generator):
    A = matrix(generator, M, N, decaying(N))
    P = Dense(A)
    assert condensed.condensed(P, 8, generator) is not None
    assert abs(P.squares - A.square().sum()) <= 1e-14 * P.squares
    for bad in (torch.nan, torch.inf):
        A[M - 1, 7] = bad
        with pytest.raises(NonFiniteError, match=rf"1 NaN.*first at \({M - 1}, 7\)"):
            svd(A, RANK, method="randomized")
        with pytest.raises(NonFiniteError, match=rf"1 NaN.*first at \(7, {M - 1}\)"):
            svd(A.mT, RANK, method="randomized")
