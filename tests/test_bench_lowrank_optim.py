"""The operator that low-rank methods are tried on, and the measurements of optimizers at toy sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuralsolve.bench.bars import Settings
from neuralsolve.bench.lowrank_operator import family, fit, network, relative_error, tridiagonal_solve
from neuralsolve.bench.lowrank_optim import ENTRIES, optim
from neuralsolve.errors import OptionError


def test_many_tridiagonal_systems_are_solved():
    random = np.random.default_rng(811)
    lower, upper, b = random.standard_normal((3, 5, 12))
    diagonal = np.abs(lower) + np.abs(upper) + 1
    x = tridiagonal_solve(lower, diagonal, upper, b)
    for k in range(5):
        A = np.diag(diagonal[k]) + np.diag(lower[k, 1:], -1) + np.diag(upper[k, :-1], 1)
        assert np.abs(A @ x[k] - b[k]).max() < 1e-13


@pytest.mark.parametrize("name", ["A", "B"])
def test_samples_obey_the_equation(name):
    # the outflow through both walls is the load within: a u' at the ends, from second differences, to O(h)
    data = family(name, 50, seed=31, nodes=96)
    a, f, u = (x.double() for x in (data.inputs[:, 0].exp(), data.inputs[:, 1], data.outputs[:, 0] / 10))
    h = 1 / 96
    outflow = (a[:, 0] * u[:, 0] + a[:, -1] * u[:, -1]) / (h / 2)
    assert ((outflow - f.mean(1)).abs() <= 8 * h * (1 + f.abs().amax(1))).all()
    assert torch.equal(family(name, 50, seed=31, nodes=96).outputs, data.outputs)
    assert not torch.equal(family(name, 50, seed=32, nodes=96).outputs, data.outputs)


def test_a_family_that_is_not_known_is_refused():
    with pytest.raises(OptionError, match="known: A, B"):
        family("C", 1, seed=7)


def test_training_is_reproducible_and_lowers_the_error(one_thread):
    data, errors = family("A", 60, seed=3), []
    for _ in range(2):
        model = network(17)
        first = relative_error(model, data)
        fit(model, data, lambda model: torch.optim.Adam(model.parameters(), 1e-2), steps=8, batch=20, seed=17)
        errors.append(relative_error(model, data))
    assert errors[0] == errors[1] < first


def test_all_of_it_runs_and_says_what_it_measured():
    rows = list(optim(Settings(repeats=1, quick=True)))
    assert {f"family A, {name}" for name in ENTRIES} <= {row.problem for row in rows}
    assert all(row.measured for row in rows)
