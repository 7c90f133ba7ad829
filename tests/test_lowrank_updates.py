"""Laws of what is built on the SVD core: updates, sketches of streams, weights, Tucker, the nuclear norm."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from lowrank_laws import TYPES, assert_svd, decaying, eps, identity_error, matrix, orthonormal

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError, StructureError
from neuralsolve.lowrank.frequent_directions import FrequentDirections
from neuralsolve.lowrank.nuclear import nuclear_norm
from neuralsolve.lowrank.orthonormal import (
    complement_project,
    newton_schulz,
    orthonormalize,
    polar,
    principal_angles,
)
from neuralsolve.lowrank.svd import svd
from neuralsolve.lowrank.tucker import Tucker, hooi
from neuralsolve.lowrank.updates import add_rank_one, append_columns, append_rows, recompress, remove_columns
from neuralsolve.lowrank.weighted import joint_svd, psd_eigh, weighted_svd

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(90, 7), (9, 9), (2, 40, 3), (5, 1)])
@pytest.mark.parametrize("condition", [1.0, 1e3, 1e20])
def test_orthonormal_columns_of_the_same_span(dtype, shape, condition, generator):
    k = shape[-1]
    s = condition ** -torch.linspace(0, 1, k, dtype=torch.float64)
    X = matrix(generator, shape[-2], k, s, dtype, shape[:-2])
    Q = orthonormalize(X)
    assert identity_error(Q) <= 20 * k * eps(dtype)
    assert torch.linalg.matrix_norm(X - Q @ (Q.mH @ X)).max() <= 50 * k * eps(dtype)
    repeated = torch.cat([X, X], -1)[..., : min(shape[-2], 2 * k)]
    assert identity_error(orthonormalize(repeated)) <= 40 * k * eps(dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_projection_on_the_complement_and_angles(dtype, generator):
    Q = orthonormal(generator, 60, 5, dtype=dtype)
    short = Q @ torch.randn((5, 3), generator=generator, dtype=dtype)
    X = short + 1e-3 * torch.randn((60, 3), generator=generator, dtype=dtype)
    rest = complement_project(X, Q)
    assert (Q.mH @ rest).norm() <= 20 * eps(dtype) * rest.norm()
    P = orthonormal(generator, 60, 4, dtype=dtype)
    cosines = principal_angles(P, Q)
    assert cosines.shape == (4,)
    assert abs(cosines.square().sum() - (P.mH @ Q).norm() ** 2) <= 50 * eps(dtype)
    turned = Q @ orthonormal(generator, 5, 5, dtype=dtype)
    assert (principal_angles(Q, turned) - 1).abs().max() <= 50 * eps(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("m", "n"), [(12, 7), (7, 12)])
def test_polar_is_the_nearest_and_newton_schulz_is_near(dtype, m, n, generator):
    s = torch.linspace(1, 0.2, 7, dtype=torch.float64)
    X = matrix(generator, m, n, s, dtype)
    W = polar(X)
    assert identity_error(W if m > n else W.mH) <= 100 * eps(dtype)
    assert abs((X - W).norm() - (1 - s).norm()) <= 100 * eps(dtype)  # sum (s_j - 1)^2, Higham thm. 8.4
    spread = torch.linalg.svdvals(newton_schulz(X))
    assert spread.min() >= 0.6
    assert spread.max() <= 1.25
    assert newton_schulz(torch.zeros(3, 2)).norm() == 0


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(40, 30), (3, 30), (40, 3), (2, 20, 9)])
def test_a_product_is_recompressed_as_if_formed(dtype, shape, generator):
    *batch, m, n = shape
    L = torch.randn((*batch, m, 5), generator=generator, dtype=dtype)
    R = torch.randn((*batch, 5, n), generator=generator, dtype=dtype)
    A = L @ R
    found = recompress(L, R)
    assert found.rank == min(m, n, 5)
    assert_svd(found, A)
    exact = torch.linalg.svdvals(A)
    assert (found.s - exact[..., : found.rank]).abs().max() <= 50 * eps(dtype) * exact.max()
    cut = recompress(L, R, 2)
    assert torch.allclose(cut.error, exact[..., 2:].norm(dim=-1), rtol=1e-3)
    assert recompress(L, R, energy=0.5).rank <= 5


def test_updates_are_recomputations(generator):
    for dtype in (torch.float64, torch.complex128):
        A = matrix(generator, 20, 14, decaying(14), dtype)
        C = torch.randn((20, 3), generator=generator, dtype=dtype)
        D = torch.randn((2, 14), generator=generator, dtype=dtype)
        a = torch.randn(20, generator=generator, dtype=dtype)
        b = torch.randn(14, generator=generator, dtype=dtype)
        before = svd(A)
        for found, changed in (
            (append_columns(before, C), torch.cat([A, C], 1)),
            (append_rows(before, D), torch.cat([A, D])),
            (remove_columns(before, [0, -2]), A[:, [1, *range(2, 12), 13]]),
            (add_rank_one(before, a, b), A + torch.outer(a, b.conj())),
            (add_rank_one(before, C, D.mH[:, [0, 1, 0]]), A + C @ D[[0, 1, 0]]),
        ):
            assert_svd(found.truncate(min(changed.shape)), changed)
            exact = torch.linalg.svdvals(changed)
            assert (found.s[: len(exact)] - exact).abs().max() <= 1e-13 * exact.max()


def test_errors_of_updates_are_bounds(generator):
    A = matrix(generator, 30, 20, decaying(20))
    before = svd(A, 6)
    C = torch.randn((30, 2), generator=generator, dtype=A.dtype)
    for found, changed in (
        (append_columns(before, C, rank=6), torch.cat([A, C], 1)),
        (remove_columns(before, 3), A[:, [i for i in range(20) if i != 3]]),
        (add_rank_one(before, C[:, 0], torch.ones(20, dtype=A.dtype), rank=6), A + C[:, :1]),
    ):
        assert (changed - found.to_dense()).norm() <= found.error * (1 + 1e-12)
    arrays = svd(A.numpy(), 6)
    assert isinstance(append_rows(arrays, np.ones((1, 20))).Vh, np.ndarray)
    for wrong in (lambda: append_columns(before, C[:5]), lambda: add_rank_one(before, C, C)):
        with pytest.raises(ShapeError, match="'k'"):
            wrong()
    with pytest.raises(OptionError, match="from -20 to 19"):
        remove_columns(before, [20])
    with pytest.raises(OptionError, match="must stay"):
        remove_columns(before, range(20))
    with pytest.raises(NonFiniteError):
        append_columns(before, C * torch.nan)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("power", [0.5, 2.0])
@pytest.mark.parametrize("step", [1, 7, 100])
def test_frequent_directions_keep_their_bound(dtype, power, step, generator):
    size, s = 12, decaying(30, power)
    A = matrix(generator, 200, 30, s, dtype)
    seen = FrequentDirections(30, size, dtype)
    for rows in A.split(step):
        seen.update(rows)
    S = seen.sketch
    assert S.shape == (size, 30)
    assert seen.rows == 200
    gap = torch.linalg.eigvalsh(A.mH @ A - S.mH @ S)
    rounding = 1e-13
    assert gap.min() >= -rounding  # S^H S never exceeds A^H A
    assert gap.max() <= seen.error_bound + rounding
    for k in range(size):  # Ghashami et al. 2016, thm. 1.1
        assert seen.error_bound <= s[k:].square().sum() / (size + 1 - k) + rounding
    basis = seen.basis(rank=4)
    assert identity_error(basis) <= 1e-13
    # projecting on it loses at most ||A - A_k||^2 size/(size - k): ibid., thm. 1.1
    assert (A - A @ basis @ basis.mH).norm() ** 2 <= s[4:].square().sum() * size / (size - 4)
    assert seen.basis(energy=0.5).shape[1] <= seen.basis(energy=0.9).shape[1]


def test_a_sketch_of_few_rows_is_exact_and_resumes(generator):
    A = matrix(generator, 40, 9, decaying(9))
    seen = FrequentDirections(9, 6)
    seen.update(A[0])
    assert (seen.sketch.mH @ seen.sketch - torch.outer(A[0], A[0])).norm() <= 1e-15
    seen.update(A[1:17])
    other = FrequentDirections(9, 6)
    other.load_state_dict(seen.state_dict())
    for each in (seen, other):
        each.update(A[17:])
    assert torch.equal(seen.sketch, other.sketch)
    assert seen.error_bound == other.error_bound
    before = seen.sketch
    for bad in (torch.full((2, 9), torch.nan), torch.ones(2, 8), torch.ones((2, 9), dtype=torch.int32)):
        with pytest.raises((NonFiniteError, ShapeError, OptionError)):
            seen.update(bad)
    assert torch.equal(before, seen.sketch)
    with pytest.raises(OptionError, match="size=10"):
        FrequentDirections(9, 10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_powers_of_covariances_also_of_few_samples(dtype, generator):
    X = torch.randn((5, 12), generator=generator, dtype=dtype)  # N < n: 7 eigenvalues are zero
    C = X.mH @ X
    found = psd_eigh(C, floor=1e-8)
    assert (found.values >= 0.999e-8 * found.values[0]).all()
    root, inverse = found.sqrt(), found.inverse_sqrt()
    assert (root @ root - C).norm() <= 1.01e-8 * 12**0.5 * found.values[0]
    assert (root @ inverse - torch.eye(12)).norm() <= 1e-8
    assert torch.equal(psd_eigh(torch.zeros(3, 3)).inverse_sqrt(), torch.zeros(3, 3))
    with pytest.raises(StructureError, match="Hermitian"):
        psd_eigh(torch.triu(torch.ones(3, 3)))
    with pytest.raises(StructureError, match="eigenvalue -2"):
        psd_eigh(torch.diag(torch.tensor([1.0, -2.0])))
    with pytest.raises(ShapeError, match="square"):
        psd_eigh(X)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_weighted_error_is_the_tail_of_the_weighted_matrix(dtype, generator):
    A = torch.randn((9, 7), generator=generator, dtype=dtype)
    X = torch.randn((100, 7), generator=generator, dtype=dtype) * decaying(7).to(dtype)
    Y = torch.randn((100, 9), generator=generator, dtype=dtype)
    left, right = Y.mH @ Y, X.mH @ X
    found = weighted_svd(A, 3, left, right)
    wl, wr = psd_eigh(left).sqrt(), psd_eigh(right).sqrt()
    tail = torch.linalg.svdvals(wl @ A @ wr)[3:].norm()
    assert found.rank == 3
    assert abs((wl @ (A - found.to_dense()) @ wr).norm() - tail) <= 1e-12 * tail
    assert abs(found.error - tail) <= 1e-12 * tail
    by_samples = weighted_svd(
        A.conj(), 3, right=right.conj()
    )  # ||X (A - B)^T|| is what is wrong with outputs
    outputs = (X @ (A.conj() - by_samples.to_dense()).mH).norm()
    assert abs(outputs - by_samples.error) <= 1e-11 * outputs or dtype.is_complex
    plain = weighted_svd(A, 3, 2 * torch.eye(9, dtype=dtype), 5 * torch.eye(7, dtype=dtype))
    assert (plain.to_dense() - svd(A, 3).to_dense()).norm() <= 1e-13 * A.norm()
    with pytest.raises(ShapeError, match="right is of size 9"):
        weighted_svd(A, 3, right=left)


def test_joint_svd_is_that_of_all_side_by_side(generator):
    parts = [torch.randn((8, n), generator=generator, dtype=torch.float64) for n in (3, 5, 1)]
    whole = torch.cat(parts, 1)
    found, factors = joint_svd(parts, 8)
    for part, Vh in zip(parts, factors, strict=True):
        assert ((found.U * found.s) @ Vh - part).norm() <= 1e-13
    cut, _ = joint_svd(parts, 2)
    assert abs(cut.error - torch.linalg.svdvals(whole)[2:].norm()) <= 1e-13
    rows, below = joint_svd([part.mT for part in parts], 8, axis="rows")
    assert ((below[1] * rows.s) @ rows.Vh - parts[1].mT).norm() <= 1e-13
    with pytest.raises(ShapeError, match="as many rows"):
        joint_svd([parts[0], parts[1].mT], 2)
    with pytest.raises(OptionError, match="'rows'"):
        joint_svd(parts, 2, axis="both")


@pytest.mark.parametrize("dtype", TYPES)
def test_tucker_is_near_the_best_and_exact_where_it_can_be(dtype, generator):
    core = torch.randn((2, 3, 2), generator=generator, dtype=dtype)
    factors = tuple(
        orthonormal(generator, n, r, dtype=dtype) for n, r in zip((7, 9, 8), (2, 3, 2), strict=True)
    )
    T = Tucker(core, factors, core.new_zeros(())).to_dense()
    found = hooi(T, (2, 3, 2))
    assert found.error <= 100 * eps(dtype) * T.norm()
    T = T + 0.3 * torch.randn((7, 9, 8), generator=generator, dtype=dtype) / 504**0.5
    start, found = hooi(T, (2, 3, 2), iterations=0), hooi(T, (2, 3, 2))
    for each in (start, found):
        assert abs((T - each.to_dense()).norm() - each.error) <= 10 * eps(dtype) * T.norm()
        assert all(identity_error(U) <= 50 * eps(dtype) for U in each.factors)
    tails = [
        torch.linalg.svdvals(T.movedim(axis, 0).flatten(1))[r:].norm() for axis, r in enumerate((2, 3, 2))
    ]
    lower = max(tails)  # no form of these ranks is nearer than any one unfolding allows
    assert lower * (1 - 1e-3) <= found.error <= start.error * (1 + 1e-5)
    assert start.error <= math.sqrt(sum(float(t) ** 2 for t in tails)) * (1 + 1e-5)  # <= sqrt(d) best
    warm = hooi(T, (2, 3, 2), warm=found, iterations=1)
    assert warm.error <= found.error * (1 + 1e-5)


def test_tucker_of_all_ranks_and_of_few_axes(generator):
    T = torch.randn((3, 4, 5), generator=generator, dtype=torch.float64)
    assert hooi(T, (3, 4, 5)).error <= 1e-13
    A = matrix(generator, 12, 9, decaying(9))
    assert abs(hooi(A, (4, 4)).error - svd(A, 4).error) <= 1e-13  # two axes: the SVD
    assert hooi(T[0, 0], (1,)).error <= 1e-14 * T.norm() + 1e-13
    for ranks, match in (
        ((3, 4), "3 axes and got 2"),
        ((3, 4, 6), r"ranks\[2\]=6"),
        ((1, 4, 1), r"ranks\[1\]"),
    ):
        with pytest.raises(OptionError, match=match):
            hooi(T, ranks)
    with pytest.raises(NonFiniteError):
        hooi(T * torch.nan, (1, 1, 1))
    with pytest.raises(ShapeError, match="warm"):
        hooi(T, (2, 2, 2), warm=hooi(T, (1, 1, 1)))


@pytest.mark.parametrize("dtype", TYPES)
def test_the_subgradient_of_the_nuclear_norm(dtype, generator):
    # ||A + D||_* >= ||A||_* + Re <G, D>, also where singular values repeat or vanish
    for s in ([3.0, 1.0, 0.5], [2.0, 2.0, 0.0], [0.0, 0.0, 0.0]):
        A = matrix(generator, 6, 4, s, dtype, (2,)).requires_grad_()
        norm = nuclear_norm(A)
        assert torch.allclose(norm.double(), torch.tensor(sum(s)).double(), atol=100 * eps(dtype))
        (G,) = torch.autograd.grad(norm.sum(), A)
        assert torch.linalg.matrix_norm(G, 2).max() <= 1 + 100 * eps(dtype)
        for size in (1e-2, 1.0):
            D = size * torch.randn((2, 6, 4), generator=generator, dtype=dtype)
            slope = (G.conj() * D).sum((-2, -1)).real
            assert (nuclear_norm(A.detach() + D) >= norm + slope - 200 * eps(dtype) * (1 + size)).all()
    plain = matrix(generator, 5, 3, [3.0, 2.0, 1.0], torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(nuclear_norm, plain)
    with pytest.raises(ShapeError, match="m >= 1"):
        nuclear_norm(torch.ones(3))
