"""Transfer functions: three ways to the same values, spikes where the theory has them, pseudospectra."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError
from neuralsolve.ssm import hippo
from neuralsolve.ssm.certificate import certify, gain_bound, numerical_range_margin
from neuralsolve.ssm.pseudospectrum import pseudospectrum
from neuralsolve.ssm.resonances import frequency_grid, largest, legs_error, spikes, worst_gain
from neuralsolve.ssm.starts import start
from neuralsolve.ssm.transfer import dense_transfer, diagonal_transfer, hippo_transfer, magnitude

rng = np.random.default_rng(311)


def random_system(n, p=None, q=None, complex_=False):
    def normal(*shape):
        real = rng.standard_normal(shape)
        return real + 1j * rng.standard_normal(shape) if complex_ else real

    A = normal(n, n) - 2 * np.sqrt(n) * np.eye(n)
    return A, normal(n) if p is None else normal(n, p), normal(n) if q is None else normal(q, n)


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize(
    ("n", "p", "q"), [(1, None, None), (6, None, None), (5, 3, None), (5, None, 2), (7, 2, 3)]
)
def test_dense_and_diagonal_agree_with_a_solve(n, p, q, complex_):
    A, B, C = random_system(n, p, q, complex_)
    t = np.array([-3.0, 0.0, 0.4, 100.0])
    want = np.stack([C @ np.linalg.solve(1j * w * np.eye(n) - A, B.astype(complex)) for w in t])
    G = dense_transfer(A, B, C, t)
    assert G.shape == want.shape == (4, *([q] if q else []), *([p] if p else []))
    assert np.allclose(G, want, rtol=1e-11, atol=0)
    eigenvalues, V = np.linalg.eig(A)
    G = diagonal_transfer(eigenvalues, np.linalg.solve(V, B.astype(complex)), C @ V, t)
    assert np.allclose(G, want, rtol=1e-9, atol=1e-12)
    assert np.allclose(
        dense_transfer(A, B, None, t)[:, 0],
        np.stack([np.linalg.solve(1j * w * np.eye(n) - A, B.astype(complex))[0] for w in t]),
    )


@pytest.mark.parametrize("n", [5, 8])
def test_half_the_pairs_with_weights_are_the_whole(n):
    half = start("legs", n)
    eigenvalues, weights, b, V = (x.numpy() for x in (half.eigenvalues, half.weights, half.B, half.V))
    N, _ = hippo.legs_normal(n)
    C, t = rng.standard_normal(n), np.array([-2.0, 0.0, 1.0, 30.0])
    G = diagonal_transfer(eigenvalues, b, C @ V, t, weights)
    assert np.allclose(G, dense_transfer(N, hippo.legs(n)[1] / 2, C, t), rtol=1e-11)
    assert np.allclose(G[0], diagonal_transfer(eigenvalues, b, C @ V, [2.0], weights).conj())


def test_hippo_has_one_transfer_function():
    n, t = 24, np.array([0.0, 0.7, 40.0, 900.0])
    A, B = hippo.legs(n)
    C = rng.standard_normal((3, n))
    assert np.allclose(hippo_transfer(n, C, t), dense_transfer(A, B, C, t), rtol=1e-10)
    assert np.allclose(hippo_transfer(n, C[0], t), dense_transfer(A, B, C[0], t), rtol=1e-10)
    assert magnitude(hippo_transfer(n, None, t)) == pytest.approx(hippo.resolvent_norm(n, t), rel=1e-12)


def test_many_frequencies_are_answered_in_blocks(monkeypatch):
    A, B, C = random_system(4, 2, 2)
    t = np.linspace(-5, 5, 37)
    whole = dense_transfer(A, B, C, t)
    monkeypatch.setattr("neuralsolve.ssm.transfer.CHUNK", 30)
    assert np.allclose(dense_transfer(A, B, C, t), whole, rtol=1e-13)
    assert dense_transfer(A, B, C, []).shape == (0, 2, 2)


# n, worst error of S4D, its frequency, worst gain of S4D
SPIKES = [(16, 10.0246, 80.966, 10.2184), (32, 20.2903, 325.426, 20.3882), (64, 40.7028, 1303.274, 40.7518)]


@pytest.mark.parametrize(("n", "error", "where", "gain"), SPIKES)
def test_s4d_has_the_spikes_of_the_table(n, error, where, gain):
    eigenvalues, V = hippo.normal_eigenvectors(n)
    b = V.conj().T @ hippo.legs(n)[1] / 2
    found = legs_error(eigenvalues, V, b, points=2000)
    assert abs(found[0]) == pytest.approx(where, abs=2e-3)
    assert found[1] == pytest.approx(error, rel=1e-3)
    peaks = [spike for spike in spikes(eigenvalues, b) if spike.frequency > 0]
    assert peaks[0].height == pytest.approx(gain, rel=1e-3)
    w = hippo.normal_frequencies(n)[:4]
    assert [spike.frequency for spike in peaks[:4]] == pytest.approx(w, rel=2e-3)
    assert peaks[0].height == pytest.approx(2 * w[0] / n, rel=0.02)  # hence near 2n/pi
    assert 2 * w[0] / n == pytest.approx(2 * n / np.pi, rel=0.01)
    assert worst_gain(eigenvalues, b, length=n, points=2000)[1] == pytest.approx(gain / n, rel=1e-3)


def test_at_low_frequencies_s4d_is_off_by_one_over_n():
    for n, known in ((16, 0.0616), (32, 0.0322), (64, 0.0157), (128, 0.0078)):
        off = hippo.normal_resolvent(n, 1j) - hippo.resolvent(n, 1j)
        assert np.linalg.norm(off) == pytest.approx(known, abs=6e-5)


def test_a_spike_is_refined_and_one_of_equal_ones_is_kept():
    eigenvalues = np.array([-1e-3 + 5j, -1e-3 + 5j, -2.0 + 1j])
    (top, *_) = found = spikes(eigenvalues, np.array([1.0, 2.0, 1.0]), np.ones(3))
    assert top.frequency == pytest.approx(5, abs=1e-4)
    assert top.height == pytest.approx(3000, rel=1e-3)
    assert sum(abs(spike.frequency - 5) < 0.1 for spike in found) == 1


def test_the_maximum_is_found_between_grid_points():
    where, value = largest(lambda t: 1 / (1 + 1e4 * (t - 0.123456) ** 2), np.linspace(0, 1, 101))
    assert where == pytest.approx(0.123456, abs=1e-5)
    assert value == pytest.approx(1, abs=1e-6)
    grid = frequency_grid(0.1, 10, [-0.25 - 3j], 5)
    assert {0.0, 3.0, 2.75, 3.25, 0.1, 10.0} <= set(grid)
    assert (np.diff(grid) > 0).all()


@pytest.mark.parametrize("n", [4, 16, 48])
def test_the_numerical_range_certifies_hippo(n):
    A, B = hippo.legs(n)
    assert numerical_range_margin(A) == pytest.approx(0.5, rel=1e-9)
    assert gain_bound(A, B[:, None]) == pytest.approx(1, rel=1e-9)
    assert gain_bound(A, B[:, None]) >= 1
    proved = certify(A, B[:, None], 0.2)
    assert proved.stable is True
    assert proved.error_bound == pytest.approx(2 * 0.2 / (1 - 2 * 0.2), rel=1e-9)
    assert certify(A, B[:, None], 0.5) == (proved.margin, None, None)


def test_gain_bounds_hold_and_the_dissipative_one_can_be_the_sharper():
    for _ in range(20):
        A, B, _ = random_system(6, 2)
        A = A - (1 - numerical_range_margin(A)) * np.eye(6)  # margin 1
        gains = np.linalg.norm(dense_transfer(A, B, None, np.linspace(-20, 20, 401)), 2, axis=(1, 2))
        assert gains.max() <= gain_bound(A, B) <= np.linalg.norm(B, 2) * (1 + 1e-9)


def test_a_thousand_perturbations_never_violate_the_bound():
    # ||E|| < 1/2: A + E is stable and no transfer moves by more than 2||E||/(1 - 2||E||)
    n = 9
    A, B = hippo.legs(n)
    t = np.concatenate([[0.0], np.geomspace(0.1, 200, 8), hippo.normal_frequencies(n)[:2]])
    systems = 1j * t[:, None, None] * np.eye(n) - A
    first = hippo.resolvent(n, 1j * t)
    for k in range(1000):
        E = rng.standard_normal((n, n))
        if k % 4 == 1:
            E = np.outer(*rng.standard_normal((2, n)))
        elif k % 4 == 2:
            E = hippo.legs(n)[0].T * rng.random((n, n))
        elif k % 4 == 3:
            E = E + 1j * rng.standard_normal((n, n))
        E *= rng.uniform(0.01, 0.49) / np.linalg.norm(E, 2)
        proved = certify(A, B[:, None], float(np.linalg.norm(E, 2)))
        assert proved.stable is True
        assert np.linalg.eigvals(A + E).real.max() < 0
        moved = np.linalg.solve(systems - E, np.broadcast_to(B[:, None], (len(t), n, 1)))
        error = np.linalg.norm(moved[:, :, 0] - first, axis=1).max()
        assert error <= proved.error_bound


def test_pseudospectra():
    # of a normal matrix the distance to the spectrum; at an eigenvalue zero; invariant under unitary change
    eigenvalues = np.array([-1.0, 2.0, 3.0 + 1j])
    Q = np.linalg.qr(rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3)))[0]
    x, y = np.linspace(-2, 4, 5), np.linspace(-1, 1, 3)
    distance = np.abs(x[None, :, None] + 1j * y[:, None, None] - eigenvalues).min(2)
    assert np.allclose(pseudospectrum((Q * eigenvalues) @ Q.conj().T, x, y), distance, atol=1e-13)
    A = random_system(7)[0]
    assert pseudospectrum(A, [0.3], [0.0, 2.0]).ravel() == pytest.approx(
        [1 / np.linalg.norm(np.linalg.inv((0.3 + 1j * v) * np.eye(7) - A), 2) for v in (0.0, 2.0)], rel=1e-10
    )
    # HiPPO: far inside the left half plane a tiny perturbation moves eigenvalues anywhere
    assert pseudospectrum(hippo.legs(32)[0], [-16.5], [3.0])[0, 0] < 1e-8


def test_what_does_not_fit_is_told():
    with pytest.raises(ShapeError, match=r"A of shape \(2, 3\)"):
        dense_transfer(np.ones((2, 3)), np.ones(2))
    with pytest.raises(ShapeError, match="B of shape"):
        dense_transfer(np.eye(3), np.ones(2))
    with pytest.raises(ShapeError, match="C of shape"):
        dense_transfer(np.eye(3), np.ones(3), np.ones(2))
    with pytest.raises(NonFiniteError, match="frequencies"):
        dense_transfer(np.eye(3), np.ones(3), None, [np.inf])
    with pytest.raises(ShapeError, match="eigenvalues of shape"):
        diagonal_transfer([], [])
    with pytest.raises(ShapeError, match="weights of shape"):
        diagonal_transfer([-1.0], [1.0], [1.0], [0.0], [1.0, 2.0])
    with pytest.raises(OptionError, match="no C"):
        diagonal_transfer([-1.0], [1.0], None, [0.0], [1.0])
    with pytest.raises(ShapeError, match="toarray"):
        dense_transfer(sp.eye_array(3), np.ones(3))
    with pytest.raises(ShapeError, match="no array of numbers"):
        dense_transfer([[1.0, 2.0], [3.0]], np.ones(2))
