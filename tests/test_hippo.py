"""HiPPO-LegS: the closed forms against dense algebra, the identities they rest on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg

from neuralsolve.errors import NonFiniteError, OptionError
from neuralsolve.ssm import hippo

SIZES = pytest.mark.parametrize("n", [1, 2, 7, 8, 16, 33, 64])
RTOL = 1e-10
rng = np.random.default_rng(907)


def distance(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def dense_resolvent(A, B, s):
    return np.stack([np.linalg.solve(z * np.eye(len(A)) - A, B.astype(complex)) for z in s])


def some_frequencies(n):
    return np.concatenate([[0.0], np.geomspace(0.1, 3.0 * n * n, 25), -np.geomspace(0.3, 50, 4)])


@SIZES
def test_entries_are_those_of_the_definition(n):
    A, B = hippo.legs(n)
    for i in range(n):
        assert B[i] == math.sqrt(2 * i + 1)
        for j in range(n):
            below = -math.sqrt(2 * i + 1) * math.sqrt(2 * j + 1)
            assert A[i, j] == pytest.approx(below if i > j else -(i + 1) if i == j else 0, rel=1e-15)
    assert np.linalg.norm(B) == pytest.approx(n)
    assert np.allclose(A + A.T, -np.eye(n) - np.outer(B, B), atol=1e-12 * n)


@SIZES
def test_normal_plus_rank_one(n):
    A, B = hippo.legs(n)
    N, P = hippo.legs_normal(n)
    assert np.allclose(np.outer(P, P), np.outer(B, B) / 2)
    assert distance(N - np.outer(P, P), A) <= 1e-14
    skew = N + np.eye(n) / 2
    assert np.array_equal(skew, -skew.T)
    assert np.linalg.norm(N @ N.T - N.T @ N) <= 1e-13 * np.linalg.norm(N) ** 2
    # N + P P^T = -I - A^T, whose eigenvalues are 0, ..., n-1
    assert np.allclose(N + np.outer(P, P), -np.eye(n) - A.T, atol=1e-12 * n)


@SIZES
def test_normal_part_has_unitary_eigenvectors(n):
    N, _ = hippo.legs_normal(n)
    eigenvalues, V = hippo.normal_eigenvectors(n)
    assert (eigenvalues.real == -0.5).all()
    assert np.linalg.norm(V.conj().T @ V - np.eye(n)) <= 1e-13 * n
    assert np.linalg.norm((V * eigenvalues) @ V.conj().T - N) <= 1e-13 * n * np.linalg.norm(N, 2)


@pytest.mark.parametrize("n", [2, 3, 7, 8, 16, 32, 64, 128])
def test_frequencies_solve_the_phase_equation(n):
    w = hippo.normal_frequencies(n)
    from_eigh = hippo.normal_eigenvectors(n)[0].imag
    from_eigh = np.sort(from_eigh)[::-1][: n // 2]
    assert len(w) == n // 2
    assert (np.diff(w) < 0).all()
    assert np.abs(w / from_eigh - 1).max() <= RTOL
    phase = np.arctan((np.arange(n) + 0.5) / w[:, None]).sum(1)
    assert np.abs(phase - (np.arange(n // 2) + 0.5) * np.pi).max() <= 1e-11


@pytest.mark.parametrize(
    ("n", "known"),
    [
        (16, [80.966081, 25.629226, 13.834342, 8.362105]),
        (32, [325.426316, 107.088707, 62.613857, 43.009530]),
        (64, [1303.273843, 433.030757, 258.152210, 182.620411]),
        (128, [5214.665613, 1736.826211, 1040.422544, 741.369129]),
    ],
)
def test_the_highest_frequencies_are_the_known_ones(n, known):
    assert np.abs(hippo.normal_frequencies(n)[:4] - known).max() <= 6e-7


@SIZES
def test_impulse_response_is_the_exponential(n):
    A, B = hippo.legs(n)
    t = np.array([[0.0, 1e-3, 0.02], [0.3, 1.0, 5.0]])
    got = hippo.impulse_response(n, t)
    assert got.shape == (2, 3, n)
    for place in np.ndindex(t.shape):
        assert distance(got[place], scipy.linalg.expm(t[place] * A) @ B) <= RTOL


@SIZES
def test_resolvent_is_the_dense_one(n):
    A, B = hippo.legs(n)
    t = some_frequencies(n)
    got = hippo.resolvent(n, 1j * t)
    for row, want in zip(got, dense_resolvent(A, B, 1j * t), strict=True):
        assert distance(row, want) <= RTOL
    s = 0.3 + 2j
    assert distance(hippo.resolvent(n, s), dense_resolvent(A, B, [s])[0]) <= RTOL


@SIZES
def test_resolvent_and_blaschke_have_their_sizes(n):
    t = some_frequencies(n)
    size = np.linalg.norm(hippo.resolvent(n, 1j * t), axis=1)
    assert np.abs(size / (n / np.hypot(t, n)) - 1).max() <= 1e-13 * n
    assert np.allclose(hippo.resolvent_norm(n, t), n / np.hypot(t, n), rtol=1e-15)
    assert np.allclose(np.abs(hippo.blaschke(n, 1j * t)), np.abs(t) / np.hypot(t, n), rtol=1e-13 * n)


@SIZES
def test_blaschke_follows_from_the_determinant_lemma(n):  # (1 - h)/(1 + h) = r, h = P^T (sI - N)^-1 P
    N, P = hippo.legs_normal(n)
    s = 1j * some_frequencies(n)
    h = dense_resolvent(N, P, s) @ P
    r = hippo.blaschke(n, s)
    # 1 + h = 2/(1 + r): near a resonance both sides are large, errors are relative to them
    assert (np.abs(r * (1 + h) - (1 - h)) / (1 + np.abs(h))).max() <= RTOL


@SIZES
def test_s4d_is_hippo_over_one_plus_r(n):
    N, _ = hippo.legs_normal(n)
    B = hippo.legs(n)[1]
    t = some_frequencies(n)
    got, want = hippo.normal_resolvent(n, 1j * t), dense_resolvent(N, B / 2, 1j * t)
    for row, other in zip(got, want, strict=True):
        assert distance(row, other) <= RTOL
    difference = (
        -hippo.resolvent(n, 1j * t) * (hippo.blaschke(n, 1j * t) / (1 + hippo.blaschke(n, 1j * t)))[:, None]
    )
    assert np.abs(got - hippo.resolvent(n, 1j * t) - difference).max() <= 1e-12 * np.abs(got).max()


@pytest.mark.parametrize("n", [1, 4, 16, 40])
def test_eigenvectors_are_exact(n):
    A, _ = hippo.legs(n)
    V, inverse = hippo.eigenvectors(n)
    assert np.allclose(np.linalg.norm(V, axis=0), 1, rtol=1e-14)
    # entry by entry: the sums of |A||V| are what rounding may be measured by
    assert (np.abs(A @ V + V * (np.arange(n) + 1)) <= 1e-14 * n * (np.abs(A) @ np.abs(V))).all()
    product = np.abs(inverse @ V - np.eye(n))
    assert (product <= 1e-14 * n * (np.abs(inverse) @ np.abs(V)) + 1e-300).all()


@pytest.mark.parametrize(
    ("n", "kappa"), [(4, 8.6112e1), (8, 7.7032e4), (16, 8.3199e10), (32, 1.2200e23), (64, 3.2004e47)]
)
def test_eigenvectors_have_the_condition_number_of_high_precision(n, kappa):
    assert hippo.eigenvector_condition(n) == pytest.approx(kappa, rel=1e-4)
    if n <= 8:  # further on, float64 cannot tell
        assert np.linalg.cond(np.linalg.eig(hippo.legs(n)[0])[1]) == pytest.approx(kappa, rel=1e-3)


@pytest.mark.parametrize(("n", "worst"), [(16, 1.732), (32, 1.784), (64, 1.822), (128, 1.850)])
def test_the_resolvent_stays_below_two(n, worst):
    A, _ = hippo.legs(n)
    norms = [
        1 / np.linalg.svd(1j * t * np.eye(n) - A, compute_uv=False)[-1] for t in (0, 0.2, 1, 7, n, n * n)
    ]
    assert max(norms) == norms[0] == pytest.approx(worst, abs=6e-4)


def test_what_does_not_fit_is_told():
    for n in (0, -3, 2.0, True, "8"):
        with pytest.raises(OptionError, match="state size"):
            hippo.legs(n)
    with pytest.raises(NonFiniteError, match="s holds NaN"):
        hippo.resolvent(4, [1j, np.nan])
    with pytest.raises(OptionError, match="0 or later"):
        hippo.impulse_response(4, -1.0)
    with pytest.raises(OptionError, match="n = 190"):
        hippo.eigenvectors(191)
