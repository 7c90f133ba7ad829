"""`neuralsolve.linalg` beside SciPy: signatures, shapes, dtypes, counts, info, what differs."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as scipy_linalg
import torch

import neuralsolve as ns
from neuralsolve import linalg
from neuralsolve.errors import InputError, NonFiniteError, OptionError, ShapeError, StructureError
from neuralsolve.preconditioners.relaxation import SSOR

NAMES = ["cg", "minres", "gmres", "bicgstab"]


@pytest.fixture
def rng():
    return np.random.default_rng(31_415)


def pair(name):
    return getattr(linalg, name), getattr(scipy_linalg, name)


def spd(n=12):
    """The 5-point Laplacian with a varying diagonal added; its eigenvalues lie between 0.1 and 9."""
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    eye = sp.eye_array(n)
    return sp.csr_array(sp.kron(eye, line) + sp.kron(line, eye) + sp.diags_array(np.linspace(0, 1, n * n)))


def nonsymmetric(n=12):
    along = sp.diags_array([-0.4, 0.4], offsets=[-1, 1], shape=(n, n))
    return sp.csr_array(spd(n) + sp.kron(sp.eye_array(n), along))


def matrix_for(name):
    return nonsymmetric() if name in ("gmres", "bicgstab") else spd()


def relative(A, b, x):
    return np.linalg.norm(b.ravel() - A @ x) / np.linalg.norm(b)


# the same as SciPy


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_scipys(name):
    ours, theirs = (inspect.signature(f).parameters for f in pair(name))
    assert list(ours) == list(theirs)
    for key in ours:
        assert ours[key].kind is theirs[key].kind
        assert ours[key].default == theirs[key].default


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["csr", "coo", "matrix", "dense", "LinearOperator", "ours"])
def test_agrees_with_scipy(name, kind, rng):
    A, b = matrix_for(name), rng.standard_normal(144)
    given = {
        "csr": A, "coo": A.tocoo(), "matrix": sp.csc_matrix(A), "dense": A.toarray(),
        "LinearOperator": scipy_linalg.aslinearoperator(A), "ours": ns.as_operator(A),
    }[kind]  # fmt: skip
    ours, theirs = pair(name)
    x, info = ours(given, b, rtol=1e-10)
    y, _ = theirs(A, b, rtol=1e-12)
    assert info == 0
    assert relative(A, b, x) <= 1e-10
    assert np.linalg.norm(x - y) <= 2e-10 * np.linalg.norm(b) / 0.1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(144,), (144, 1)])
@pytest.mark.parametrize("A_dtype", ["f4", "f8", "i8"])
@pytest.mark.parametrize("b_dtype", ["f4", "f8", "i4"])
def test_shapes_and_dtypes_are_scipys(name, shape, A_dtype, b_dtype, rng):
    A = matrix_for(name)
    A = (10 * A).astype(A_dtype) if A_dtype == "i8" else A.astype(A_dtype)
    b = (10 * rng.standard_normal(shape)).astype(b_dtype)
    ours, theirs = pair(name)
    x, info = ours(A, b, x0=np.zeros(shape))
    y, _ = theirs(A, b, x0=np.zeros(shape))
    assert isinstance(x, np.ndarray)
    assert (x.shape, x.dtype) == (y.shape, y.dtype)
    assert info == 0
    assert relative(A.astype(float), b.astype(float), x.astype(float)) <= 1e-5


@pytest.mark.parametrize("name", ["cg", "bicgstab"])
def test_takes_as_many_steps_as_scipy(name, rng):
    A, b = matrix_for(name), rng.standard_normal(144)
    counts = []
    for solve in pair(name):
        seen = []
        solve(
            A,
            b,
            rtol=1e-8,
            M=sp.diags_array(1 / A.diagonal()),
            callback=lambda x, seen=seen: seen.append(x.copy()),
        )
        counts.append(len(seen))
        assert all(x.shape == (144,) for x in seen)
    assert abs(counts[0] - counts[1]) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_info_counts_the_steps_where_maxiter_is_reached(name, rng):
    A, b = matrix_for(name), rng.standard_normal(144)
    results = [
        solve(A, b, rtol=1e-12, maxiter=3, **({"restart": 4} if name == "gmres" else {}))
        for solve in pair(name)
    ]
    assert [info for _, info in results] == [3, 3]
    if name == "cg":
        np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_zero_right_side_gives_zero_whatever_x0_is(name):
    for solve in pair(name):
        x, info = solve(matrix_for(name), np.zeros((144, 1)), x0=np.ones(144))
        assert info == 0
        assert x.ravel().tolist() == [0.0] * 144


@pytest.mark.parametrize("name", NAMES)
def test_an_exact_x0_is_returned(name, rng):
    A, x0 = matrix_for(name), rng.standard_normal((144, 1))
    x, info = getattr(linalg, name)(A, A @ x0, x0)
    assert info == 0
    np.testing.assert_array_equal(x, x0.ravel())


@pytest.mark.parametrize("name", NAMES)
def test_x0_may_be_m_times_b(name, rng):
    A, b = matrix_for(name), rng.standard_normal(144)
    M = sp.diags_array(1 / A.diagonal())
    for solve in pair(name):
        x, _ = solve(A, b, x0="Mb", M=M, maxiter=1, rtol=1e-12)
        again, _ = solve(A, b, x0=M @ b, M=M, maxiter=1, rtol=1e-12)
        np.testing.assert_array_equal(x, again)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "kind", ["matrix", "dense", "LinearOperator", "float32", "function", "recipe", "built"]
)
def test_preconditioners(name, kind, rng):
    A, b = matrix_for(name), rng.standard_normal((144, 1))
    d = 1 / A.diagonal()
    M = {
        "matrix": sp.diags_array(d), "dense": np.diag(d), "float32": sp.diags_array(d.astype("f4")),
        "LinearOperator": scipy_linalg.LinearOperator(A.shape, matvec=lambda r: d * r, dtype=float),
        "function": lambda r: d * r, "recipe": SSOR(), "built": SSOR().build(ns.as_operator(A)),
    }[kind]  # fmt: skip
    x, info = getattr(linalg, name)(A, b, M=M, rtol=1e-9)
    assert info == 0
    assert relative(A, b, x) <= 1e-9


@pytest.mark.parametrize("shift", [0.0, 3.3, -1.0])
def test_minres_shifts(shift, rng):
    A, b = spd(), rng.standard_normal(144)
    x, info = linalg.minres(A, b, shift=shift, rtol=1e-9)
    assert info == 0
    assert relative(A - shift * sp.eye_array(144), b, x) <= 1e-9
    y, _ = scipy_linalg.minres(A, b, shift=shift, rtol=1e-13)
    least = np.abs(np.linalg.eigvalsh(A.toarray()) - shift).min()
    assert np.linalg.norm(x - y) <= 1e-8 * np.linalg.norm(b) / least


def test_minres_checks_symmetry_on_request(rng):
    b = rng.standard_normal(144)
    lopsided = sp.diags_array(np.ones(143), offsets=1, shape=(144, 144)) + sp.eye_array(144)
    for solve in pair("minres"):
        with pytest.raises(ValueError, match="non-symmetric matrix"):
            solve(nonsymmetric() + lopsided, b, check=True)
        with pytest.raises(ValueError, match="non-symmetric preconditioner"):
            solve(spd(), b, M=lopsided, check=True)
        assert solve(spd(), b, M=sp.diags_array(np.linspace(1, 2, 144)), check=True)[1] == 0


def test_minres_refuses_an_indefinite_preconditioner_as_scipy_does(rng):
    for solve in pair("minres"):
        with pytest.raises(ValueError, match="indefinite preconditioner"):
            solve(spd(), rng.standard_normal(144), M=-sp.eye_array(144))


def test_minres_shows_its_steps(capsys, rng):
    seen = []
    linalg.minres(spd(), rng.standard_normal(144), show=True, callback=seen.append)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(seen)
    assert float(lines[-1].split()[-1]) <= 1e-5


# gmres: restarts and callbacks


def test_gmres_is_scipys_without_a_preconditioner(rng):
    A, b = nonsymmetric(), rng.standard_normal(144)
    for cycles in (1, 2, 3):
        x, _ = linalg.gmres(A, b, restart=5, maxiter=cycles, rtol=1e-14)
        y, _ = scipy_linalg.gmres(A, b, restart=5, maxiter=cycles, rtol=1e-14)
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-12 * np.linalg.norm(y))


@pytest.mark.parametrize("maxiter", [3, 7, None])
@pytest.mark.parametrize("kind", ["x", "pr_norm", "legacy", None])
def test_gmres_calls_back_as_scipy_does(kind, maxiter, rng):
    A, b = nonsymmetric(), rng.standard_normal(144)
    calls, infos = [], []
    for solve in pair("gmres"):
        seen = []
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # SciPy warns that its default type will change
            _, info = solve(
                A, b, restart=5, maxiter=maxiter, rtol=1e-7, callback_type=kind,
                callback=lambda seen_now, seen=seen: seen.append(np.copy(seen_now)),
            )  # fmt: skip
        calls.append(seen)
        infos.append(info)
    assert infos[0] == infos[1]
    # SciPy tightens its inner tolerance near the end, which may cost a step
    assert abs(len(calls[0]) - len(calls[1])) <= 1
    shared = min(map(len, calls)) - (maxiter is None)
    # ||b - A x|| / ||b|| is known to eps ||A|| ||x|| / ||b|| at best, however small it is
    rounding = 0 if kind == "x" else 100 * np.finfo(float).eps
    for ours, theirs in zip(calls[0][:shared], calls[1][:shared], strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * np.linalg.norm(theirs) + rounding)


# where they differ


@pytest.mark.parametrize("name", NAMES)
def test_what_a_callback_returns_is_ignored(name, rng):
    A, b = matrix_for(name), rng.standard_normal(144)
    extra = {"callback_type": "pr_norm"} if name == "gmres" else {}
    assert getattr(linalg, name)(A, b, callback=lambda x: True, **extra)[1] == 0


@pytest.mark.parametrize("name", NAMES)
def test_inputs_stay_as_they_are(name, rng):
    A, b, x0 = matrix_for(name), rng.standard_normal(144), rng.standard_normal(144)
    before = A.copy(), b.copy(), x0.copy()
    b.flags.writeable = x0.flags.writeable = False
    getattr(linalg, name)(A, b, x0)
    assert (before[0] != A).nnz == 0
    np.testing.assert_array_equal(b, before[1])
    np.testing.assert_array_equal(x0, before[2])


def test_float32_is_checked_after_rounding(rng):
    A, b = spd().astype("f4"), rng.standard_normal(144).astype("f4")
    x, info = linalg.cg(A, b, rtol=1e-12)  # no float32 vector has so small a residual
    assert x.dtype == np.float32
    assert info > 0
    assert linalg.cg(A, b, rtol=1e-5)[1] == 0


def test_an_indefinite_matrix_is_a_breakdown_of_cg_and_no_trouble_for_minres(rng):
    A, b = spd() - 4.03 * sp.eye_array(144), rng.standard_normal(144)
    info = linalg.cg(A, b)[1]
    assert info == linalg.INFO[ns.Status.NOT_POSITIVE_DEFINITE]
    assert info < 0
    x, info = linalg.minres(A, b, rtol=1e-8)
    assert info == 0
    assert relative(A, b, x) <= 1e-8


def test_a_negative_definite_matrix_is_not_flipped(rng):
    assert linalg.cg(-spd(), rng.standard_normal(144))[1] < 0


def test_an_inconsistent_system_does_not_count_as_solved(rng):
    path = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(30, 30)).tolil()
    path[0, 0] = path[29, 29] = 1.0  # constants are the null space
    A, b = sp.csr_array(path), rng.standard_normal(30)
    assert scipy_linalg.minres(A, b)[1] == 0
    x, info = linalg.minres(A, b)
    assert info > 0
    b -= b.mean()
    x, info = linalg.minres(A, b)
    assert info == 0
    assert relative(A, b, x) <= 1e-5


@pytest.mark.parametrize("name", ["gmres", "bicgstab"])
def test_a_breakdown_is_negative(name):
    A = np.array([[0.0, 1.0], [0.0, 0.0]]) if name == "gmres" else np.array([[0.0, 1.0], [-1.0, 0.0]])
    assert getattr(linalg, name)(A, np.array([1.0, 0.0]))[1] == -10


@pytest.mark.parametrize("name", NAMES)
def test_no_steps_and_no_convergence_is_not_success(name, rng):
    x, info = getattr(linalg, name)(matrix_for(name), rng.standard_normal(144), maxiter=0)
    assert info > 0
    assert not x.any()


@pytest.mark.parametrize("name", NAMES)
def test_wrong_input_is_a_value_error(name, rng):
    solve, A, b = getattr(linalg, name), matrix_for(name), rng.standard_normal(144)
    bad = np.where(np.arange(144) == 3, np.nan, b)
    for error, arguments, options in [
        (ShapeError, (A, b[:-1]), {}),
        (ShapeError, (A, np.stack([b, b], 1)), {}),
        (ShapeError, (A[:, :-1], b), {}),
        (ShapeError, (A, b, b[:-1]), {}),
        (ShapeError, (A, b), {"M": sp.eye_array(143)}),
        (NonFiniteError, (A, bad), {}),
        (NonFiniteError, (A, b, bad), {}),
        (StructureError, (A, 1j * b), {}),
        (OptionError, (A, b, "bM"), {}),
        (OptionError, (A, b), {"rtol": -1.0}),
        (OptionError, (A, b), {"rtol": float("nan")}),
        (OptionError, (A, b), {"maxiter": 2.5}),
        *([] if name == "minres" else [(OptionError, (A, b), {"atol": -1.0})]),
        *([(OptionError, (A, b), {"callback_type": "y"})] if name == "gmres" else []),
    ]:
        with pytest.raises(error) as caught:
            solve(*arguments, **options)
        assert isinstance(caught.value, InputError)
        assert isinstance(caught.value, ValueError)


def test_torch_vectors_are_taken(rng):
    b = torch.as_tensor(rng.standard_normal(144))
    x, info = linalg.cg(spd(), b)
    assert info == 0
    assert isinstance(x, np.ndarray)
