"""Laws of the SVD at full size: as near as A allows where no sketch is taken, and an error that is true."""

from __future__ import annotations

import pytest
import torch
from lowrank_laws import matrix

from neuralsolve.lowrank import condensed
from neuralsolve.lowrank.condensed import Condensed
from neuralsolve.lowrank.products import CACHED, squares_of_each
from neuralsolve.lowrank.svd import svd

RANK = 8
PATHS = {
    "condensed": {"method": "randomized"},
    "plain": {"method": "randomized", "iterations": 2},
    "block-krylov": {"method": "block-krylov"},
    "gram": {"method": "gram"},
}
pytestmark = pytest.mark.usefixtures("one_thread")


def true_error(A, found):
    factors = found.U.double() * found.s.double()
    return torch.linalg.matrix_norm(A.double() - factors @ found.Vh.double())


def harmonic(m, n):
    """Directions of strength 1/k, k <= 60, and noise a thousandth as strong."""
    generator = torch.Generator().manual_seed(7207)
    U = torch.randn((m, 60), generator=generator, dtype=torch.float64) / torch.arange(1, 61)
    V = torch.randn((60, n), generator=generator, dtype=torch.float64)
    A = U @ V + 1e-3 * torch.randn((m, n), generator=generator, dtype=torch.float64)
    short = A @ A.T if m < n else A.T @ A
    return A, torch.linalg.eigvalsh(short).flip(0).clamp_min(0)


@pytest.mark.parametrize(("m", "n"), [(1500, 3000), (600, 8000)])
def test_ranks_too_large_for_a_sketch_are_nearly_optimal(m, n):
    A, squares = harmonic(m, n)
    strided = torch.empty((2 * m, n), dtype=torch.float64)[::2].copy_(A)
    sparse_columns = torch.empty((m, 2 * n), dtype=torch.float64)[:, ::2].copy_(A)
    for form in (A, A.float(), strided, strided.float().mT, sparse_columns):
        for rank in (40, 48, 55):
            found = svd(form, rank)
            best = squares[rank:].sum().sqrt()
            assert true_error(form, found) <= 1.1 * best
            assert abs(found.error - best) <= 0.1 * best


def noisy(generator, kind, noise, dtype):
    """A matrix of RANK strong directions, in few rows or in all, and noise: ||A|| = 1, nearly."""
    m, n = 900, 640
    if kind == "few rows":
        strong = torch.zeros((m, n), dtype=torch.float64)
        strong[:RANK, :RANK] = torch.randn((RANK, RANK), generator=generator, dtype=torch.float64)
    else:
        strong = matrix(generator, m, n, torch.linspace(1, 0.7, RANK, dtype=torch.float64))
    weak = torch.randn((m, n), generator=generator, dtype=torch.float64)
    return (strong / strong.norm() + noise * weak / weak.norm()).to(dtype)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["few rows", "all rows"])
@pytest.mark.parametrize(
    ("dtype", "noises"),
    [(torch.float64, (1e-3, 1e-5, 2e-7, 1e-9)), (torch.float32, (1e-1, 2e-2, 4e-3, 1e-5))],
)
def test_the_error_is_true_within_a_hundredth(path, kind, dtype, noises, monkeypatch, generator):
    tried, trusted = [], Condensed.trusted
    monkeypatch.setattr(condensed, "LARGE", 1)
    monkeypatch.setattr(Condensed, "trusted", lambda *given: tried.append(given) or trusted(*given))
    for noise in noises:
        A = noisy(generator, kind, noise, dtype)
        found = svd(A, RANK, **PATHS[path])
        true = true_error(A, found)
        assert abs(found.error - true) <= 0.01 * true
    assert len(tried) == (len(noises) if path == "condensed" else 0)


@pytest.mark.parametrize("method", ["auto", "randomized", "block-krylov", "gram"])
@pytest.mark.parametrize(("dtype", "noise"), [(torch.float64, 1e-6), (torch.float32, 1e-2)])
def test_a_tolerance_beside_the_noise_is_met_by_the_rank_that_was_made(method, dtype, noise, generator):
    for kind in ("few rows", "all rows"):
        A = noisy(generator, kind, noise, dtype)
        found = svd(A, tol=1.02 * noise, method=method)
        assert true_error(A, found) <= 1.02 * noise * A.double().norm()
        assert found.rank == RANK


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_squares_are_summed_in_double_precision_whatever_the_layout(dtype, generator):
    A = torch.randn((2, 900, 300), generator=generator, dtype=dtype)
    assert A[0].numel() > 2 * CACHED  # several blocks
    exact = torch.view_as_real(A.to(torch.complex128)).square().flatten(1).sum(1)
    for form in (A, A.mH, A.mT.contiguous().mT, A.conj(), A.repeat_interleave(2, -1)[..., ::2]):
        assert torch.allclose(squares_of_each(form), exact, rtol=1e-13, atol=0)


def test_small_entries_are_not_lost_beside_large_ones(generator):
    A = 1e-8 * torch.randn((2200, 2200), generator=generator, dtype=torch.float64)
    small = A[20:].square().sum()
    A[:20, :20] += torch.randn((20, 20), generator=generator, dtype=torch.float64)
    A[:20, 20:] = 0
    rest = squares_of_each(A) - A[:20].square().sum()
    assert abs(rest - small) <= 1e-2 * small
