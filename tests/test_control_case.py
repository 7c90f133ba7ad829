"""Optimal control as a case, and ``neuralsolve minimize``."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import neuralsolve as ns
from neuralsolve import plot
from neuralsolve.cases import list_cases, load_case, open_problem
from neuralsolve.cases.control import ControlCase, MinimizeOptions
from neuralsolve.cli import app
from neuralsolve.errors import OptionError
from neuralsolve.pde.control import PoissonControl

CASE = """
kind = "control"
title = "t"
n = 7
alpha = 0.01
[minimize]
tol = 1e-9
maxiter = 30
"""


def run(*arguments):
    return CliRunner().invoke(app, ["minimize", *map(str, arguments)])


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


def test_a_case_is_the_problem_and_the_method_that_it_names(case):
    table = "[minimize]\ninner = 'srht'\nblock = 5\neta2 = 0.2\ninner_cap = 400"
    loaded = load_case(
        case(("alpha = 0.01", "alpha = 2\npreconditioner = 'transform'"), ("[minimize]", table))
    )
    assert loaded.control() == PoissonControl(7, 2.0, "transform")
    assert loaded.method() == ns.SketchedNewton(inner="srht", block=5, eta2=0.2, inner_cap=400, seed=1905)
    other = loaded.changed(n=4, inner=None, tol=1e-3)
    assert other.control() == PoissonControl(4, 2.0, "transform")
    assert other.method() == loaded.method()
    assert (other.minimize.tol, other.minimize.maxiter) == (1e-3, 30)
    assert loaded.n == 7


def test_the_packaged_case_takes_about_as_many_iterations_at_any_size():
    assert isinstance(load_case("control_poisson"), ControlCase)
    for n in (3, 16, 63):
        loaded = load_case("control_poisson").changed(n=n)
        result = ns.minimize(loaded.control().problem(), method=loaded.method(), tol=loaded.minimize.tol)
        assert result.success
        assert result.inner_iterations <= 100


def test_a_run_tells_its_steps_and_writes_picture_history_and_solution(case, tmp_path):
    out = tmp_path / "out"
    told = run(case(), "--out-dir", out)
    assert told.exit_code == 0
    assert "converged (CONVERGED)" in told.stdout
    assert "7 x 7 nodes, alpha = 0.01; 98 unknowns, 49 constraints" in told.stdout
    facts = json.loads((out / "case.json").read_text())
    steps = [line for line in told.stdout.splitlines() if re.match(r"\s+\d+\s", line)]
    rows = list(csv.DictReader((out / "case.csv").read_text().splitlines()))
    assert len(steps) == len(rows) == len(facts["history"]) == facts["steps"] + 1
    assert float(rows[-1]["kkt_residual"]) == pytest.approx(facts["kkt_residual"], rel=1e-6)
    assert sum(int(row["inner"]) for row in rows) == facts["inner_iterations"]
    assert [f"wrote {file}" in told.stdout for file in facts["files"]] == [True] * 4
    assert (out / "case.png").read_bytes().startswith(b"\x89PNG")
    control, arrays = PoissonControl(7, 0.01), np.load(out / "case.npz")
    w, z, lam = (arrays[name].ravel() for name in ("w", "z", "multipliers"))
    # the conditions of first order, which are the whole KKT residual
    K = -control.jacobian()[:, :49]
    gradient = np.concatenate([w - arrays["target"].ravel() - K @ lam, 0.01 * z + lam, z - K @ w])
    assert np.linalg.norm(gradient) <= 1e-9
    assert facts["kkt_residual"] == pytest.approx(np.linalg.norm(gradient), rel=0.1, abs=1e-13)


def test_json_is_one_object_and_the_same_as_the_file(case, tmp_path):
    result = run(case(), "--n", 5, "--alpha", 0.5, "--json", "--out-dir", tmp_path / "out")
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert facts == json.loads((tmp_path / "out" / "case.json").read_text())
    assert (facts["n"], facts["alpha"], facts["unknowns"], facts["converged"]) == (5, 0.5, 50, True)
    assert all(Path(file).exists() for file in facts["files"])


def test_what_has_not_converged_is_kept_and_said_and_ends_with_code_one(case, tmp_path):
    result = run(case(), "--maxiter", 1, "--out-dir", tmp_path / "out")
    assert result.exit_code == 1
    assert "NOT converged (MAX_ITER)" in result.stdout
    assert "status: maxiter or maxfun reached" in result.stdout
    assert (tmp_path / "out" / "case.png").exists()
    few = [("[minimize]", "[minimize]\ninner_cap = 1"), ("n = 7", "n = 3")]
    result = run(case(*few), "--inner", "kaczmarz", "--json", "--out-dir", tmp_path / "none")
    facts = json.loads(result.stdout)
    assert (result.exit_code, facts["status"], len(facts["history"])) == (1, "INNER_CAP", 1)
    assert (tmp_path / "none" / "case.csv").read_text().count("\n") == 2


def test_steps_are_found_by_other_means_too(case, tmp_path):
    facts = {}
    for name, options in {"minres": [], "direct": ["--inner", "direct"], "published": ["--faithful"]}.items():
        path = case(("n = 7", "n = 2"), ("[minimize]", "[minimize]\ninner_cap = 1_000_000"))
        result = run(path, *options, "--alpha", 0.1, "--tol", 1e-6, "--json", "--out-dir", tmp_path / name)
        assert result.exit_code == 0
        facts[name] = json.loads(result.stdout)
    assert len({row["explanation"] for row in facts.values()}) == 3
    values = [row["fun"] for row in facts.values()]
    assert np.ptp(values) <= 1e-5 * abs(values[0])


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ([("n = 7\n", "")], [], "n is missing; docs/cases.md"),
        ([("alpha", "alfa")], [], "did you mean 'alpha'"),
        ([("tol =", "toll =")], [], "unknown key 'minimize.toll'; did you mean 'tol'"),
        ([("n = 7", "n = 1")], [], "n = 1"),
        ([("n = 7", "n = 7.5")], [], "n = 7.5"),
        ([("alpha = 0.01", "alpha = inf")], [], "alpha = inf"),
        ([("alpha = 0.01", 'preconditioner = "amg"')], [], "preconditioner = 'amg'"),
        ([("maxiter = 30", "maxiter = 0")], [], "minimize.maxiter = 0"),
        ([("maxiter = 30", "beta = 0.7")], [], "beta in (0, 1/2)"),
        ([("[minimize]", "[solve]\nrtol = 1e-3\n[minimize]")], [], "write what it says under [minimize]"),
        ([("control", "contol")], [], "did you mean 'control'"),
        ([], ["--inner", "minre"], "did you mean 'minres'"),
        ([], ["--tol", "nan"], "minimize.tol = nan"),
        ([], ["--alpha", "-1"], "alpha = -1"),
        ([], ["--n", 100_000], "n = 100000"),
        ([], ["--n", 33, "--faithful"], "take n <= 32"),
        ([], ["--inner", "direct", "--faithful"], "one of the sketches"),
    ],
)
def test_wrong_input_is_one_line_and_code_two(case, tmp_path, changes, arguments, message):
    result = run(case(*changes), *arguments, "--out-dir", tmp_path / "out")
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_nothing_is_replaced_without_force(case, tmp_path):
    kept = tmp_path / "case.npz"
    kept.write_text("precious")
    result = run(case(), "--out-dir", tmp_path)
    assert (result.exit_code, "--out-dir" in result.stderr, "--force" in result.stderr) == (2, True, True)
    assert kept.read_text() == "precious"
    assert run(case(), "--out-dir", tmp_path, "--force").exit_code == 0
    assert np.load(kept)["w"].shape == (7, 7)


def test_other_commands_send_a_minimisation_here_and_this_one_others_there(case, tmp_path):
    with pytest.raises(OptionError, match="a constrained minimisation; run it with: neuralsolve minimize"):
        open_problem(case())
    for name, command in (("poisson_box_2d", "solve"), ("smoke_bunny", "simulate"), ("sor_high", "tune")):
        result = run(name, "--out-dir", tmp_path / "out")
        assert (result.exit_code, f"neuralsolve {command}" in result.stderr) == (2, True)
    for command in ("simulate", "tune"):
        result = CliRunner().invoke(app, [command, "control_poisson"])
        assert (result.exit_code, "neuralsolve minimize" in result.stderr) == (2, True)
    listed = json.loads(CliRunner().invoke(app, ["cases", "--json"]).stdout)
    assert listed["control_poisson"]["command"] == "minimize"
    assert "control_poisson" in list_cases()


@pytest.mark.parametrize("model", [ControlCase, MinimizeOptions])
def test_the_page_describes_every_key(model):
    page = (Path(__file__).parents[1] / "docs" / "cases.md").read_text(encoding="utf-8")
    section = page.split('## kind = "control"')[1].split("\n## ")[0]
    for key in set(model.model_fields) - {"path", "title"}:
        assert f"`{key}`" in section or f"[{key}]" in section, key


def test_the_picture_shows_the_fields_on_their_nodes_and_the_history():
    control = PoissonControl(4, 1e-3)
    result = ns.minimize(control.problem())
    figure = plot.control_figure(control, result, "title", tol=1e-8)
    target, state, source, steps = figure.axes[:4]
    w, z = result.x.reshape(2, 4, 4)
    for axes, values in ((target, control.target()), (state, w), (source, z)):
        assert np.array_equal(axes.images[0].get_array(), values)
        x0, x1, y0, y1 = axes.images[0].get_extent()
        # four pixels whose centres are the nodes -1 + h, -1 + 2h, ..., h = 2/5
        assert np.allclose([x0 + 0.2, x1 - 0.2, y0 + 0.2, y1 - 0.2], [-0.6, 0.6, -0.6, 0.6])
    assert target.images[0].norm is state.images[0].norm
    residual, violation, tolerance = steps.lines
    assert np.allclose(residual.get_ydata(), [row["kkt_residual"] for row in result.history])
    assert list(residual.get_xdata()) == list(range(result.nit + 1))
    assert len(violation.get_ydata()) <= result.nit + 1
    assert tolerance.get_ydata()[0] == 1e-8
    assert steps.get_yscale() == "log"
    assert "4 × 4 nodes" in figure.get_suptitle()
    assert "converged" in figure.get_suptitle()
