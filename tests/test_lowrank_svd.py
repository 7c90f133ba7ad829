"""Laws of the SVD core: orthonormal, nearly optimal, stable signs, the same for every form of a matrix."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg
import torch
from lowrank_laws import TYPES, assert_svd, decaying, eps, identity_error, matrix, orthonormal

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError
from neuralsolve.lowrank import decompositions
from neuralsolve.lowrank.products import Dense
from neuralsolve.lowrank.projection import _hidden, lowered
from neuralsolve.lowrank.range_finder import range_basis
from neuralsolve.lowrank.svd import (
    SVD,
    effective_rank,
    rank_for_energy,
    rank_for_tol,
    singular_values,
    svd,
)

FAST = ["randomized", "block-krylov", "gram"]
METHODS = ["exact", *FAST]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("m", "n"), [(150, 90), (90, 150)])
@pytest.mark.parametrize("power", [0.5, 2.0])
def test_every_method_is_a_nearly_optimal_svd(dtype, method, m, n, power, generator):
    s = decaying(90, power)
    A = matrix(generator, m, n, s, dtype)
    found = svd(A, 10, method=method)
    assert_svd(found, A)
    optimal = s[10:].norm()
    slack = 90 * eps(dtype) * s.norm() ** 2 / optimal  # the error is the root of a difference of squares
    assert found.error >= optimal - slack  # Eckart and Young: nothing of rank 10 is nearer
    factor = 1 if method in ("exact", "gram") else 1.2 if power == 0.5 else 1.01
    assert found.error <= factor * optimal + slack


@pytest.mark.parametrize("method", ["auto", "randomized", "block-krylov"])
def test_no_decay_at_all_is_within_half_more_than_optimal(method, generator):
    A = torch.randn((600, 500), generator=generator, dtype=torch.float64)
    optimal = torch.linalg.svdvals(A)[20:].norm()
    assert svd(A, 20, method=method).error <= 1.05 * optimal


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 7), (3, 12), (2, 3, 8, 5)])
def test_all_of_it_gives_the_matrix_back(dtype, shape, generator):
    A = torch.randn(shape, generator=generator, dtype=dtype)
    found = svd(A)
    assert found.rank == min(shape[-2:])
    assert_svd(found, A)
    assert (found.to_dense() - A).abs().max() <= 30 * eps(dtype) * A.abs().max() * max(shape)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_matrices_one_by_one(method, generator):
    A = matrix(generator, 60, 40, decaying(40), batch=(2, 3))
    together = svd(A, 5, method=method)
    assert_svd(together, A)
    alone = svd(A[1, 2], 5, method=method)
    bound = 1e4 * eps(A.dtype)  # rounding over gaps of s of about 0.05
    for name in ("U", "s", "Vh"):
        assert (getattr(together, name)[1, 2] - getattr(alone, name)).abs().max() <= bound
    permuted = svd(A[[1, 0]], 5, method=method)
    assert (permuted.U[0] - together.U[1]).abs().max() <= bound


@pytest.mark.parametrize("method", METHODS)
def test_signs_are_those_of_the_matrix(method, generator):
    A = matrix(generator, 60, 40, decaying(40))
    found, negative, again = (svd(X, 5, method=method) for X in (A, -A, A.clone()))
    bound = 1e4 * eps(A.dtype)
    assert torch.equal(found.U, again.U)
    assert (found.U - negative.U).abs().max() <= bound
    assert (found.Vh + negative.Vh).abs().max() <= bound


@pytest.mark.parametrize("method", FAST)
def test_exactly_low_rank_is_found_to_rounding(method, generator):
    A = matrix(generator, 120, 80, [3.0, 2.0, 2.0, 2.0, 1e-3])
    found = svd(A, 5, method=method)
    assert_svd(found, A)
    assert found.error <= 1e-13 * A.norm()
    assert (found.s - torch.tensor([3.0, 2.0, 2.0, 2.0, 1e-3])).abs().max() <= 1e-13
    assert svd(A, 9, method=method).s[5:].max() <= 1e-13


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [0.0, 1e-250, 1e250])
def test_zero_tiny_and_huge(method, scale, generator):
    A = scale * matrix(generator, 30, 20, decaying(20))
    found = svd(A, 3, method=method)
    assert identity_error(found.U) <= 1e-12
    assert torch.allclose(found.s, scale * decaying(20)[:3], rtol=0.05, atol=0)


def test_a_warm_start_is_as_good_as_a_cold_one(generator):
    A = matrix(generator, 300, 200, decaying(200))
    near = A + 1e-3 * matrix(generator, 300, 200, decaying(200))
    cold = svd(near, 10, method="randomized", iterations=3)
    warm = svd(near, 10, method="randomized", iterations=1, warm=svd(A, 10, method="exact").Vh.mH)
    optimal = torch.linalg.svdvals(near)[10:].norm()
    assert warm.error <= 1.001 * optimal
    assert cold.error <= 1.001 * optimal
    wide = svd(near.mT, 10, method="randomized", iterations=1, warm=svd(A.mT, 10, method="exact").Vh.mT)
    assert wide.error <= 1.001 * optimal


@pytest.mark.parametrize("method", ["auto", "exact", "randomized", "block-krylov", "gram"])
@pytest.mark.parametrize("tol", [0.5, 0.2, 0.05])
def test_the_smallest_rank_that_meets_a_tolerance(method, tol, generator):
    s = decaying(300, 1.5)
    A = matrix(generator, 400, 300, s)
    found = svd(A, tol=tol, method=method)
    assert found.error <= tol * A.norm()
    smallest = rank_for_tol(s, tol)
    assert smallest <= found.rank <= smallest + (method not in ("exact", "gram"))
    assert svd(A, energy=1 - tol**2, method=method).rank == found.rank
    assert svd(A, tol=0, method=method).rank == 300


def test_rank_rules():
    s = torch.tensor([2.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    assert [rank_for_energy(s, x) for x in (4 / 6, 5 / 6, 5.1 / 6, 1.0)] == [1, 2, 3, 3]
    assert [rank_for_tol(s, (x / 6) ** 0.5) for x in (2, 1, 0)] == [1, 2, 3]
    assert rank_for_tol(np.array([[1.0, 0.1], [1.0, 1.0]]), 0.5) == 2  # of a batch the largest
    assert rank_for_energy(torch.zeros(3), 0.9) == 1
    assert [effective_rank(torch.tensor(x)) for x in ([0.0, 0.0], [5.0, 5.0, 0.0], [1.0, 1e-12])] == [0, 2, 1]


def test_truncation_adds_what_it_drops(generator):
    A = matrix(generator, 60, 40, decaying(40))
    found = svd(A, 12, method="randomized")
    cut = found.truncate(rank=5)
    assert_svd(cut, A)
    assert found.truncate(tol=0.5).error <= 0.5 * A.norm()
    assert found.truncate(energy=0.75).rank == rank_for_energy(decaying(40), 0.75)
    L, R = found.balanced()
    assert (L @ R - found.to_dense()).abs().max() <= 1e-14
    assert abs(L.norm() - R.norm()) <= 1e-13
    with pytest.raises(OptionError, match="rank=13"):
        found.truncate(rank=13)
    with pytest.raises(OptionError, match="finds more"):
        found.truncate(tol=1e-6)
    with pytest.raises(OptionError, match="exactly one"):
        found.truncate(3, tol=0.1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_every_form_of_a_matrix_gives_the_same(dtype, generator):
    kind = torch.complex128 if dtype == np.complex128 else torch.float64
    A = matrix(generator, 300, 200, decaying(200), kind).numpy().astype(dtype)
    A[np.abs(A) < 3e-3] = 0
    dense = svd(A, 8, method="randomized")
    assert isinstance(dense.U, np.ndarray)
    assert dense.U.dtype == dtype
    forms = {
        "csr": sp.csr_array(A),
        "coo": sp.coo_matrix(A),
        "scipy operator": scipy.sparse.linalg.aslinearoperator(A),
        "rows": lambda: (A[i : i + 70] for i in range(0, 300, 70)),
        "not contiguous": np.asfortranarray(A),
        "backwards": np.ascontiguousarray(A[::-1])[::-1],
    }
    for name, form in forms.items():
        found = svd(form, 8, method="randomized")
        assert isinstance(found.U, np.ndarray), name
        close = 1e4 * np.finfo(dtype).eps
        assert np.abs(found.to_dense() - dense.to_dense()).max() <= close, name
        relative = abs(found.error / dense.error - 1)
        assert relative <= (0.5 if name == "scipy operator" else close), name  # an operator's is estimated
    full = svd(sp.csr_array(A))
    assert full.method == "exact"
    assert full.rank == 200


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_empty_rows_and_columns_take_no_part(dtype, generator):
    A = torch.zeros((500, 400), dtype=dtype)
    rows, columns = (
        torch.randperm(500, generator=generator)[:150],
        torch.randperm(400, generator=generator)[:100],
    )
    A[rows[:, None], columns] = matrix(generator, 150, 100, decaying(100), dtype)
    warm = torch.randn((400, 3), generator=generator, dtype=dtype)
    for X in (A, A.mT):
        for options in ({"rank": 5}, {"rank": 5, "method": "randomized"}, {"tol": 0.4}, {"rank": 120}):
            found = svd(sp.csr_array(X.numpy()), **options)
            whole = SVD(
                *(torch.from_numpy(np.asarray(x)) for x in (found.U, found.s, found.Vh, found.error)), ""
            )
            assert_svd(whole, X)
            assert whole.error <= 1.2 * decaying(100)[found.rank :].norm() + 1e-12
            assert options.get("rank") in (None, found.rank)
    started = svd(sp.csr_array(A.numpy()), 5, method="randomized", warm=warm)
    assert float(started.error) <= 1.2 * decaying(100)[5:].norm()
    with pytest.raises(ShapeError, match=r"\(400, k\)"):
        svd(sp.csr_array(A.numpy()), 5, method="randomized", warm=warm[1:])


def test_a_large_sparse_matrix_is_found_in_single_precision_and_no_less_accurate(generator):
    for tail in (1.0, 1e-9):  # below the rounding of float32 the range is found anew
        A = sp.random_array((3000, 900), density=0.06, rng=np.random.default_rng(5)).tocsr()
        A.data *= tail
        U, V = (orthonormal(generator, size, 6).numpy() for size in (3000, 900))
        U[100:], V[200:] = 0, 0
        A = sp.csr_array(A + sp.csr_array(1e3 * U @ V.T))
        found, full = svd(A, 6), singular_values(torch.from_numpy(A.toarray())).numpy()
        U, Vh = torch.from_numpy(found.U), torch.from_numpy(found.Vh)
        assert max(identity_error(U), identity_error(Vh.mH)) <= 400 * 6 * eps(torch.float64)
        best = np.linalg.norm(full[6:])
        true = np.linalg.norm(A.toarray() - found.to_dense())
        assert true <= 1.001 * best + 4 * 3900 * eps(torch.float64) * full[0]
        assert abs(found.error / true - 1) <= 0.5  # where squares drown in rounding it is estimated


def test_an_operator_of_the_package_gives_tensors(generator):
    import neuralsolve as ns

    A = sp.random_array((90, 60), density=0.2, rng=np.random.default_rng(8)).tocsr()
    found = svd(ns.as_operator(A), 5)
    assert isinstance(found.U, torch.Tensor)
    exact = np.linalg.svd(A.toarray(), compute_uv=False)
    assert np.allclose(found.s, exact[:5], rtol=1e-12)
    with pytest.raises(OptionError, match="no adjoint"):
        svd(type("Half", (), {"shape": (3, 3), "dtype": np.dtype(float), "__matmul__": lambda s, x: x})(), 1)


def test_a_stream_that_is_read_once(generator):
    s = decaying(80, 2.0)
    A = matrix(generator, 400, 80, s)
    found = svd(iter(A.split(90)), 10)
    assert_svd(found, A)
    assert found.error <= 1.5 * s[10:].norm()
    with pytest.raises(OptionError, match="name a rank"):
        svd(iter(A.split(90)), tol=0.1)
    with pytest.raises(ShapeError, match="no rows"):
        svd(iter([]), 2)
    with pytest.raises(ShapeError, match=r"\(rows, 80\)"):
        svd(iter([A, A[:, :3]]), 2)
    with pytest.raises(NonFiniteError, match="rows from 90 on"):
        svd(iter([A[:90], A[:1] * torch.nan]), 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype, generator):
    A = matrix(generator, 40, 30, decaying(30)).to(dtype)
    for method in METHODS:
        found, single = svd(A, 4, method=method), svd(A.float(), 4, method=method)
        assert (found.U.dtype, found.s.dtype, found.Vh.dtype) == (dtype, torch.float32, dtype)
        assert torch.equal(found.s, single.s)
        assert torch.equal(found.U, single.U.to(dtype))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_range_found_in_lower_precision_costs_no_accuracy(precision, generator):
    for power in (0.5, 4.0):  # of the second the tail lies below the rounding of bfloat16
        s = decaying(300, power)
        A = matrix(generator, 500, 300, s)
        found = svd(A, 15, method="randomized", precision=precision, iterations=2)
        assert_svd(found, A)
        assert found.error <= 1.03 * s[15:].norm()
    coarse = svd(A, 15, method="randomized", precision=torch.bfloat16, iterations=1)
    assert not _hidden(coarse, Dense(A), torch.bfloat16) or coarse.error <= 1.01 * s[15:].norm()
    with pytest.raises(OptionError, match="real dense A"):
        lowered(Dense(A.to(torch.complex128)), precision)


def projector(U):
    return U @ U.mH


def test_autograd_goes_through_the_exact_method(generator):
    A = matrix(generator, 6, 4, [4.0, 3.0, 2.0, 1.0]).requires_grad_()
    B = matrix(generator, 6, 4, [4.0, 3.0, 2.0, 1.0], torch.complex128).requires_grad_()
    for X in (A, B):
        assert torch.autograd.gradcheck(lambda M: svd(M).s, X)
        assert torch.autograd.gradcheck(lambda M: svd(M, 2).to_dense(), X)
        assert torch.autograd.gradcheck(lambda M: projector(svd(M, 2).U), X)
    assert svd(A, 2).method == "exact"
    with pytest.raises(OptionError, match="detach"):
        svd(A, 2, method="randomized")
    with torch.no_grad():
        assert svd(A, 2, method="randomized").rank == 2


def test_range_basis(generator):
    A = matrix(generator, 200, 150, decaying(150), torch.complex128)
    exact = svd(A, 6, method="exact")
    for side, vectors in (("left", exact.U), ("right", exact.Vh.mH)):
        cold = range_basis(A, 6, side=side, iterations=4)
        assert identity_error(cold) <= 1e-13
        # s_17/s_6 = 6/17 of a basis with 10 columns more, to the power of 2 * 4 + 1
        assert (cold - vectors @ (vectors.mH @ cold)).norm() <= 6 * 6**0.5 * (6 / 17) ** 9
        warm = range_basis(A, 6, side=side, warm=vectors)
        assert (warm - vectors @ (vectors.mH @ warm)).norm() <= 1e-13
        filled = range_basis(A, 6, side=side, warm=vectors[:, :2])
        assert filled.shape == vectors.shape
        assert identity_error(filled) <= 1e-13
    with pytest.raises(ShapeError, match=r"\(150, k\)"):
        range_basis(A, 6, side="right", warm=exact.U)
    with pytest.raises(OptionError, match="side='up'"):
        range_basis(A, 6, side="up")


@pytest.mark.parametrize("broken", [1, 2])
def test_a_driver_that_fails_is_followed_by_others(broken, monkeypatch, generator):
    A = matrix(generator, 9, 6, [5.0, 4.0, 4.0, 1.0, 0.0, 0.0], torch.complex128, batch=(2,))

    def fails(*args, **options):
        raise torch.linalg.LinAlgError

    monkeypatch.setattr(torch.linalg, "svd", fails)
    monkeypatch.setattr(torch.linalg, "svdvals", fails)
    if broken == 2:
        monkeypatch.setattr(decompositions, "_by_qr_iteration", fails)
    found = svd(A)
    assert_svd(found, A)
    assert (found.to_dense() - A).abs().max() <= 1e-13
    assert (singular_values(A) - found.s).abs().max() <= 1e-13


def test_what_cannot_be_decomposed_is_told(generator):
    A = matrix(generator, 30, 20, decaying(20))
    bad = A.clone()
    bad[3, 4] = torch.nan
    for method in ("auto", *METHODS):
        with pytest.raises(NonFiniteError, match=r"1 NaN.*first at \(3, 4\)"):
            svd(bad, 3, method=method)
    with pytest.raises(NonFiniteError):
        svd(sp.csr_array(bad.numpy()), 3)
    for rank in (0, 21, -1, 2.5, True):
        with pytest.raises(OptionError, match="1 to 20"):
            svd(A, rank)
    for shape in ((0, 3), (3, 0), (5,), (0, 3, 3)):
        with pytest.raises(ShapeError, match="m >= 1"):
            svd(torch.ones(shape))
    with pytest.raises(OptionError, match=r"A\.double\(\)"):
        svd(torch.ones(3, 3, dtype=torch.int64))
    with pytest.raises(OptionError, match=r"A\.astype"):
        svd(sp.eye_array(9, dtype=int))
    with pytest.raises(OptionError, match="'randomized'"):
        svd(A, 3, method="randomised")
    for wrong in ({"tol": 1.0}, {"tol": -0.1}, {"energy": 0.0}, {"rank": 3, "tol": 0.1}, {"oversample": -1}):
        with pytest.raises(OptionError):
            svd(A, **wrong)
    for wrong in ({"tol": "a"}, {"tol": [0.1]}, {"energy": "a"}, {"energy": np.ones(2)}):
        with pytest.raises(OptionError, match=r"is needed: (tol|energy)="):
            svd(A, **wrong)
    for wrong in (7, "seed", np.random.default_rng(7)):
        with pytest.raises(OptionError, match=r"torch\.Generator\(\)"):
            svd(A, 3, generator=wrong)
    with pytest.raises(OptionError, match="got str"):
        svd("A", 3)
    untouched = A.clone()
    svd(A, 3)
    assert torch.equal(A, untouched)


def test_masked_arrays_are_refused():
    A = np.ma.masked_invalid(np.array([[1.0, np.nan], [2.0, 3.0], [0.5, 1.0]]))
    for call in (
        svd,
        singular_values,
        lambda given: svd(lambda: iter([given]), 1),
        lambda x: svd(iter([x]), 1),
    ):
        with pytest.raises(OptionError, match=r"A\.filled"):
            call(A)
    assert svd(A.filled(0.0)).rank == 2


def test_numpy_arrays_that_are_read_only_are_read(generator):
    A = matrix(generator, 9, 6, decaying(6)).numpy()
    A.flags.writeable = False
    assert np.allclose(svd(A).to_dense(), A)
    assert isinstance(svd(A).truncate(2).balanced()[0], np.ndarray)
    assert isinstance(svd(A).error.item(), float)


def test_a_decomposition_is_a_value():
    found = svd(torch.eye(3))
    assert isinstance(found, SVD)
    with pytest.raises(AttributeError):
        found.s = None  # type: ignore[misc]


def test_operators_without_an_adjoint_and_sparse_tensors_are_refused():
    from scipy.sparse.linalg import LinearOperator

    A = LinearOperator((5, 4), matvec=lambda x: np.zeros(5), dtype=float)
    with pytest.raises(OptionError, match="no adjoint"):
        svd(A, rank=2)
    with pytest.raises(OptionError, match="to_dense"):
        svd(torch.eye(5).to_sparse(), rank=2)


def test_streams_that_change_are_refused():
    blocks = [torch.ones(3, 4), torch.ones(2, 4)]
    once = iter(blocks)
    with pytest.raises(ShapeError, match="fresh iterator"):
        svd(lambda: once, rank=1)
    with pytest.raises(OptionError, match="one dtype"):
        svd(lambda: iter([blocks[0], blocks[1].double()]), rank=1)


@pytest.mark.parametrize("method", ["exact", "gram", "randomized", "block-krylov"])
def test_a_tolerance_is_met_by_every_method_on_small_matrices(method, generator):
    A = torch.randn(40, 30, generator=generator, dtype=torch.float64)
    for tol in (0.9, 0.3, 0.01):
        found = svd(A, tol=tol, method=method)
        assert (A - found.to_dense()).norm() <= tol * A.norm()


def test_the_error_of_extreme_scales(generator):
    A = torch.randn(9, 7, generator=generator, dtype=torch.float64)
    for scale in (1e-170, 1e160):
        assert torch.isclose(svd(A * scale, rank=3).error / scale, svd(A, rank=3).error)


def test_an_iterator_tells_no_more_than_one_look_gives():
    A = np.random.default_rng(8).standard_normal((300, 50))
    with pytest.raises(OptionError, match="callable"):
        svd(iter([A]), rank=4, method="exact")
    assert svd(iter([A]), rank=10).rank == 10
