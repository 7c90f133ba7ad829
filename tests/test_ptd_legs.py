"""The neighbours of HiPPO-LegS that ship: their bars, their provenance, and how they are made."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ssm_laws import check, check_pairs

from neuralsolve.errors import OptionError
from neuralsolve.preconditioners import weights
from neuralsolve.preconditioners.weights import SHIPPED
from neuralsolve.ssm import hippo
from neuralsolve.ssm.ptd import ptd
from neuralsolve.ssm.ptd_legs import ptd_init, ptd_legs, read, shipped
from neuralsolve.ssm.resonances import legs_error, worst_gain
from neuralsolve.ssm.ship import BARS, ship


@pytest.mark.parametrize("n", sorted(BARS))
def test_the_shipped_matrices_meet_their_bars(n):
    near, (condition, error) = ptd_legs(n), BARS[n]
    A, B = hippo.legs(n)
    where, measured = legs_error(near.eigenvalues, near.V, near.B)
    assert near.condition <= condition
    assert measured <= error
    assert near.transfer_error == pytest.approx(measured, rel=1e-3)
    assert near.abscissa <= -0.4
    if n == 16:
        assert near.relative_size <= 0.1 * (1 + 1e-12)
    check(near, A)
    check_pairs(near)
    assert near.E.dtype == float
    assert np.allclose(near.V @ near.B, B, atol=1e-10)
    # the gain nowhere exceeds that of HiPPO, 1/n, by more than the error allows
    gain = worst_gain(near.eigenvalues, near.B, near.V, length=n, points=2000)[1]
    assert gain <= (1 + error) / n
    if n == 32:
        assert gain <= 0.04
    assert where <= 10 * n * n


@pytest.mark.parametrize("n", sorted(BARS))
def test_a_shipped_file_says_how_it_was_made(n):
    _, _, metadata = read(shipped(n))
    assert metadata["command"] == f"python -m neuralsolve.ssm.ship {n}"
    assert {"seed", "package", "date", "recipe", "wall_seconds", "architecture"} <= set(metadata)
    results = json.loads(metadata["results"])
    assert results["condition"] == pytest.approx(ptd_legs(n).condition, rel=1e-9)
    assert shipped(n).stat().st_size < 150_000


def test_a_shipped_matrix_is_no_network():
    assert shipped(8).parent == SHIPPED
    assert not {path for path in weights.shipped().values() if path.stem.startswith("ptd")}
    with pytest.raises(OptionError, match="no weights 'ptd_legs_8'"):
        weights.weights_file("ptd_legs_8", "NeuralDirection")


def test_it_beats_the_best_of_random_ones_in_both_numbers():
    for n in (8, 16, 32):
        near = ptd_legs(n)
        random = ptd(*hippo.legs(n), size=near.relative_size, objective="random", draws=8)
        assert near.condition < random.condition
        assert near.transfer_error < random.transfer_error


def test_a_size_that_does_not_ship_is_computed():
    for n in (1, 2, 5):
        near = ptd_init(n, steps=150) if n == 5 else ptd_legs(n)
        check(near, hippo.legs(n)[0])
        assert near.condition <= 5
        assert near.abscissa < -0.4


def test_a_matrix_is_shipped_only_if_it_meets_its_bars(tmp_path, monkeypatch):
    from neuralsolve.ssm import ship as module

    monkeypatch.setitem(module.RECIPES, 8, module.Recipe(0.2, 4.5, 103, 300))
    found = ship(8, tmp_path)
    eigenvalues, V, _ = read(tmp_path / "ptd_legs_8.safetensors")
    assert np.linalg.cond(V) == pytest.approx(found["condition"])
    assert np.allclose((V * eigenvalues @ np.linalg.inv(V)).imag, 0, atol=1e-10)
    monkeypatch.setitem(module.BARS, 8, (1.5, 0.1))
    with pytest.raises(RuntimeError, match=r"kappa <= 1\.5"):
        ship(8, tmp_path)
