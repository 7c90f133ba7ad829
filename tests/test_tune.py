"""Sequences of systems, as cases and by ``neuralsolve tune``."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from neuralsolve.cases import list_cases, load_case, open_problem
from neuralsolve.cases.sequence import SequenceCase
from neuralsolve.cli import app, tune
from neuralsolve.cli.report import INTERRUPTED
from neuralsolve.errors import OptionError
from neuralsolve.pde.sequences import HeatEquation, ShiftedLaplacian, laplacian
from neuralsolve.tuning.tuned import Tuned

CASE = """
kind = "sequence"
title = "t"
systems = "shifted"
cells = 5
steps = 12
[solve]
method = "cg"
M = "ssor"
[tune]
parameter = "M.omega"
low = 1.0
high = 1.9
arms = 4
"""


def run(*arguments):
    return CliRunner().invoke(app, ["tune", *map(str, arguments)])


@pytest.fixture
def case(tmp_path):
    def write(*changes):
        text = CASE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "case.toml").write_text(text)
        return tmp_path / "case.toml"

    return write


def test_packaged_sequences_build_their_solvers():
    found = [case for name in list_cases() if isinstance(case := load_case(name), SequenceCase)]
    assert {case.path.stem for case in found} == {"sor_high", "sor_low", "heat_sequence"}
    for case in found:
        _, M = tune.tuned_options(case)
        assert isinstance(M.omega, Tuned)
        assert case.sequence().system(0, None).A.shape == (case.sequence().size,) * 2


def test_shifted_systems_are_what_the_paper_draws():
    short, long = (ShiftedLaplacian(cells=4, steps=n, seed=33) for n in (5, 400))
    assert np.array_equal(short.contexts, long.contexts[:5])
    assert np.array_equal(short.sides, long.sides[:5])
    assert (np.linalg.norm(long.sides, axis=1) <= 4).all()
    assert long.contexts.min() >= -0.15
    assert abs(long.contexts.mean() - (-0.15 + 0.6 * 0.25)) < 0.03
    step = long.system(7, None)
    assert abs(step.A - laplacian(4) - step.context * np.eye(16)).max() < 1e-15


def test_crank_nicolson_is_of_second_order():
    """Halving dt divides the error by four; a dt of a sixteenth is the truth."""

    def end(steps):
        heat = HeatEquation(cells=8, dt=0.1 / steps, steps=steps)
        u = None
        for t in range(steps):
            step = heat.system(t, u)
            assert step.x0 is (heat.initial if u is None else u)
            if t < 3:
                assert abs(step.A.to_scipy() - heat.matrix(step.context)).max() <= 1e-14 * (
                    1 + heat.scale(10)
                )
            u = np.linalg.solve(heat.matrix(step.context).toarray(), step.b)
        return u

    truth = end(1600)
    coarse, fine = (np.linalg.norm(end(n) - truth) for n in (100, 200))
    assert 3 < coarse / fine < 5


def test_a_run_writes_history_picture_and_state_and_goes_on(case, tmp_path):
    path, out = case(), tmp_path / "out"
    once = json.loads(run(path, "--json", "--out-dir", tmp_path / "once").stdout)
    first = run(path, "--steps", 5, "--out-dir", out)
    assert first.exit_code == 0
    assert "5 systems of n = 25" in first.stdout
    second = json.loads(run(path, "--out-dir", out, "--json").stdout)
    assert second["tuned"] == once["tuned"]
    assert second["tuned"][0]["solves"] == second["steps"] == 12
    rows = list(csv.DictReader((out / "case.csv").read_text().splitlines()))
    assert len(rows) == 12
    assert sum(float(row["cost"]) for row in rows) == second["tuned"][0]["cost"]
    assert (out / "case.png").stat().st_size > 1000
    third = run(path, "--out-dir", out)
    assert (third.exit_code, "more --steps" in third.stderr) == (2, True)
    other = run(path, "--learner", "tsallisinf", "--steps", 20, "--out-dir", out)
    assert (other.exit_code, "other options" in other.stderr) == (2, True)
    assert run(path, "--learner", "tsallisinf", "--out-dir", out, "--force").exit_code == 0
    (out / "case.json").write_text("{}")
    assert "no state" in run(path, "--out-dir", out).stderr
    (out / "case.json").unlink()
    assert run(path, "--out-dir", out).exit_code == 2  # its picture is not replaced


def test_an_interrupted_run_goes_on(case, tmp_path, monkeypatch):
    whole = json.loads(run(case(), "--json", "--out-dir", tmp_path / "whole").stdout)
    plain = ShiftedLaplacian.system

    def interrupted(self, t, x):
        if t == 6:
            raise KeyboardInterrupt
        return plain(self, t, x)

    monkeypatch.setattr(ShiftedLaplacian, "system", interrupted)
    stopped = run(case(), "--out-dir", tmp_path / "out")
    assert (stopped.exit_code, "goes on" in stopped.stderr) == (INTERRUPTED, True)
    monkeypatch.setattr(ShiftedLaplacian, "system", plain)
    again = json.loads(run(case(), "--json", "--out-dir", tmp_path / "out").stdout)
    assert again["tuned"] == whole["tuned"]


def test_heat_goes_on_from_its_last_solution(case, tmp_path):
    path = case(('systems = "shifted"', 'systems = "heat"'), ("steps = 12", "steps = 6\ndt = 0.05"))
    whole = json.loads(run(path, "--json", "--out-dir", tmp_path / "a").stdout)
    assert run(path, "--steps", 2, "--out-dir", tmp_path / "b").exit_code == 0
    parts = json.loads(run(path, "--json", "--out-dir", tmp_path / "b").stdout)
    assert parts["tuned"] == whole["tuned"]
    states = [json.loads((tmp_path / k / "case.json").read_text())["x"] for k in "ab"]
    assert states[0] == states[1]


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ([("M.omega", "M.omga")], [], "did you mean 'omega'"),
        ([("M.omega", "N.omega")], [], "known: M, method"),
        ([('M = "ssor"\n', "")], [], "no M under [solve]"),
        ([('"shifted"', '"shiftd"')], [], "systems"),
        ([("high = 1.9\n", "")], [], "low and high, or choices"),
        ([("steps = 12", "steps = 12\ndt = 0.1")], [], "leave it out"),
        ([("arms = 4", "arm = 4")], [], "did you mean 'arms'"),
        ([("high = 1.9", "high = 2.9")], [], "(0, 2)"),
        ([], ["--learner", "scalarft"], "did you mean 'scalarfit'"),
        ([], ["--learner", "chebcb(degree=x)"], "degree"),
        ([("arms = 4", "arms = 1")], [], "tune.arms"),
    ],
)
def test_wrong_input_is_one_line_and_code_two(case, tmp_path, changes, arguments, message):
    result = run(case(*changes), *arguments, "--out-dir", tmp_path / "out")
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_methods_and_choices_are_tuned_too(case, tmp_path):
    whole = (
        'parameter = "M.omega"\nlow = 1.0\nhigh = 1.9\narms = 4',
        'parameter = "M"\nchoices = ["ssor(omega=1.4)", "ic", "jacobi"]',
    )
    facts = json.loads(run(case(whole), "--json", "--out-dir", tmp_path / "a").stdout)
    assert set(facts["tuned"][0]["pulls"]) <= {"SSOR(omega=1.4)", "IncompleteCholesky()", "Jacobi()"}
    method = (
        'parameter = "M.omega"\nlow = 1.0\nhigh = 1.9\narms = 4',
        'parameter = "method"\nchoices = ["cg", "minres"]\ncontext = false',
    )
    facts = json.loads(run(case(method), "--json", "--out-dir", tmp_path / "b").stdout)
    assert set(facts["tuned"][0]["pulls"]) <= {"CG()", "MINRES()"}
    assert "Tsallis" in facts["tuned"][0]["learner"]


def test_other_commands_send_a_sequence_here_and_this_one_others_there(case, tmp_path):
    with pytest.raises(OptionError, match="neuralsolve tune"):
        open_problem(case())
    for name, command in (("poisson_box_2d", "solve"), ("smoke_bunny", "simulate"), ("train_cycle", "train")):
        result = run(name, "--out-dir", tmp_path / "out")
        assert (result.exit_code, f"neuralsolve {command}" in result.stderr) == (2, True)
    result = CliRunner().invoke(app, ["simulate", "sor_high"])
    assert (result.exit_code, "neuralsolve tune" in result.stderr) == (2, True)
