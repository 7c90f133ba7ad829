"""Initial values of state-space layers: one of each pair, and the systems they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuralsolve.errors import OptionError
from neuralsolve.ssm import hippo
from neuralsolve.ssm.ptd_legs import ptd_legs
from neuralsolve.ssm.starts import Start, start
from neuralsolve.ssm.transfer import dense_transfer, diagonal_transfer

rng = np.random.default_rng(1217)


def arrays(name, n, **options):
    """The start as NumPy arrays."""
    made = vars(start(name, n, **options))
    assert all(x is None or (x.dtype in (torch.complex128, torch.float64)) for x in made.values())
    return Start(**{key: None if x is None else x.numpy() for key, x in made.items()})


@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("name", ["legs", "hippo", "s4d-lin", "s4d-inv", "lru"])
def test_starts_keep_one_of_each_pair(name, n):
    one = arrays(name, n)
    N = len(one.eigenvalues)
    assert one.weights.shape == one.B.shape == (N,)
    assert one.V.shape == (n, N)
    assert one.weights.sum() == n
    assert set(one.weights) <= {1, 2}
    assert (one.eigenvalues.real < 0).all()
    assert (one.eigenvalues.imag >= 0).all()
    real = one.weights == 1
    assert not one.eigenvalues[real].imag.any()
    assert (one.P is None) == (name != "hippo")
    # a real read-out of unit variance gives each mode one of about that size
    if name not in ("legs", "hippo"):
        assert np.allclose((np.abs(one.V) ** 2).sum(0), 1)


@pytest.mark.parametrize("n", [5, 8])
def test_starts_of_hippo_are_its_systems(n):
    A, B = hippo.legs(n)
    C, t = rng.standard_normal(n), np.array([0.0, 1.0, 17.0])
    half = arrays("legs", n)
    G = diagonal_transfer(half.eigenvalues, half.B, C @ half.V, t, half.weights)
    assert np.allclose(G, dense_transfer(hippo.legs_normal(n)[0], B / 2, C, t), rtol=1e-10)
    exact = arrays("hippo", n)
    # A = Re sum_m weight_m v_m l_m v_m^* - P P^T in the original coordinates
    whole = ((exact.V * (exact.weights * exact.eigenvalues)) @ exact.V.conj().T).real
    P = (exact.V @ (exact.weights * exact.P)).real
    assert np.allclose(whole - np.outer(P, P), A, atol=1e-12 * n * n)
    assert np.allclose((exact.V @ (exact.weights * exact.B)).real, B)


@pytest.mark.parametrize("n", [1, 8, 32])
def test_the_ptd_start_keeps_one_of_each_pair(n):
    one, near = arrays("ptd", n), ptd_legs(n)
    assert one.weights.sum() == n
    assert (one.eigenvalues.imag[one.weights == 1] == 0).all()
    assert (one.eigenvalues.imag[one.weights == 2] > 0).all()
    whole = np.sort_complex(near.eigenvalues)
    both = np.concatenate([one.eigenvalues, one.eigenvalues[one.weights == 2].conj()])
    assert np.array_equal(np.sort_complex(both), whole)


def test_the_ptd_start_is_the_shipped_system():
    one, near = arrays("ptd", 16), ptd_legs(16)
    C, t = rng.standard_normal(16), np.array([0.0, 3.0, 80.0])
    G = diagonal_transfer(one.eigenvalues, one.B, C @ one.V, t, one.weights)
    assert np.allclose(G, dense_transfer(hippo.legs(16)[0] + near.E, hippo.legs(16)[1], C, t), rtol=1e-9)


def test_the_starts_of_the_literature():
    assert np.allclose(arrays("s4d-lin", 6).eigenvalues, -0.5 + 1j * np.pi * np.arange(3))
    inverse = arrays("s4d-inv", 8).eigenvalues
    assert np.allclose(inverse, -0.5 + 1j * 8 / np.pi * (8 / (2 * np.arange(4) + 1) - 1))
    one = arrays("lru", 400, ring=(0.5, 0.9), phase=1.0, seed=6)
    poles = np.exp(one.eigenvalues)
    assert 0.5 <= np.abs(poles).min() < 0.55
    assert 0.85 < np.abs(poles).max() <= 0.9
    assert np.angle(poles).max() <= 1
    # white noise in, unit variance in each mode, for ZOH at step one
    gain = np.abs((poles - 1) / one.eigenvalues * one.B) ** 2 / (1 - np.abs(poles) ** 2)
    assert np.allclose(gain, 1)


def test_what_does_not_fit_is_told():
    with pytest.raises(OptionError, match="did you mean 's4d-lin'"):
        start("s4d-line", 4)
    with pytest.raises(OptionError, match="r_min < r_max"):
        start("lru", 4, ring=(0.9, 1.2))
    with pytest.raises(OptionError, match="state size"):
        start("ptd", 0)
