"""The suite of multigrid: what its rows say, who counts in a race, what a kernel moves."""

import math

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import neuralsolve as ns
from neuralsolve.bench import bars_markdown, csv_text, multigrid_costs, take_suite
from neuralsolve.bench.bars import Bars, race_row, row
from neuralsolve.bench.multigrid import GROUPS
from neuralsolve.bench.page import page
from neuralsolve.bench.rivals import OURS, PETSC, Trial, petsc, petsc_missing, race, stencil_system
from neuralsolve.bench.scenes import two_phase
from neuralsolve.bench.traffic import copying, recorded
from neuralsolve.cli import app
from neuralsolve.errors import OptionError
from neuralsolve.kernels import table
from neuralsolve.pde.scenes import inclusions
from neuralsolve.plot import bars_figure


@pytest.mark.slow
def test_the_suite_of_multigrid_runs_at_toy_sizes_and_says_what_it_left_out(monkeypatch, tmp_path):
    monkeypatch.delenv("NEURALSOLVE_PETSC_PYTHON", raising=False)
    monkeypatch.setattr(multigrid_costs, "vectors_of_a_solve", lambda *_, **__: 5.0)
    told = []
    rows = take_suite("multigrid", 1, quick=True, progress=told.append)
    assert "the rest of the group" not in {each.quantity for each in rows}
    assert {each.group for each in rows} == set(GROUPS) <= set(told)
    for each in rows:
        if each.residual is not None:
            assert each.residual <= (1.01e-6 if "1e-06" in each.quantity + each.note else 1.01e-8)
        assert each.measured or each.note.startswith("not measured: ")
    assert next(each for each in rows if each.group == "memory").median == 4.0
    absent = [each for each in rows if not each.measured]
    assert {each.quantity for each in absent} >= {f"{name}, 2 ranks / ours" for name in PETSC}
    (tmp_path / "multigrid.csv").write_text(csv_text(rows))
    text = page(tmp_path)  # the rows survive being text
    assert bars_markdown(rows) in text
    assert all(each.problem in text for each in rows)
    with pytest.raises(OptionError, match="masked_2d"):
        take_suite("multigrid", 1, only=["masked2d"])


@pytest.mark.parametrize(
    ("sense", "values", "words"),
    [
        ("<=", (0.9, 1.0), "aim met"),
        ("<=", (1.0, 1.5), "aim met, worst case met"),
        ("<=", (1.9, 2.1), "met, worst case **short**"),
        (">=", (2.1, 1.9), "aim met, worst case met"),
        (">=", (0.9, 0.9), "**short**"),
    ],
)
def test_a_verdict_names_the_median_and_the_worst_case(sense, values, words):
    bars = Bars(2.0, 1.0) if sense == "<=" else Bars(1.0, 2.0, at_least=True)
    record = row("g", "p", "q", "x", bars, [values[0], values[0], values[1]])
    assert (record.median, record.worst) == values
    assert record.verdict() == words


def trial(seconds, residual=1e-9):
    return Trial(seconds / 2, seconds / 2, 7, residual)


def test_a_race_counts_only_where_both_reached_the_tolerance():
    bars = Bars(3.0, 8.0, at_least=True)
    good = {OURS: trial(1.0), "a": trial(4.0), "b": trial(6.0)}
    cheat = {OURS: trial(1.0), "a": trial(0.1, residual=1e-3), "b": trial(6.0)}
    lost = {OURS: trial(0.1, residual=1e-3), "a": trial(4.0), "b": trial(6.0)}
    record = race_row("g", "p", "q", bars, [good, cheat, lost], ("a", "b"), 1e-8)
    assert (record.median, record.worst) == (5.0, 4.0)
    assert "a missed 1e-08 in 1 of 3" in record.note
    assert f"{OURS} missed 1e-08 in 1 of 3" in record.note
    assert not race_row("g", "p", "q", bars, [lost], "a", 1e-8).measured
    assert race_row("g", "p", "q", Bars(25.0), [good], "a", 1e-8).median == 0.25


def test_what_never_converged_is_short_and_stays_in_the_picture():
    rows = [
        row("g", "p", "q", "its", Bars(20, 12), [9, math.inf, math.inf]),
        row("g", "p", "r", "its", Bars(5), [4]),
    ]
    assert [each.verdict() for each in rows] == ["**short**", "met"]
    assert "| inf its | inf |" in bars_markdown(rows)
    figure = bars_figure([each.as_dict() for each in rows])
    assert len(figure.axes[0].patches) == len(rows)
    assert np.isfinite(figure.axes[0].get_xlim()).all()


@pytest.mark.parametrize("at_least", [False, True])
def test_what_is_zero_is_drawn_at_the_edge(at_least):
    values = [[0.0, 0.0], [1.0, 2.0], [0.0, math.inf]]
    rows = [row("g", "p", "q", "its", Bars(1, 0, at_least), each) for each in values]
    figure = bars_figure([each.as_dict() for each in rows])
    low, high = figure.axes[0].get_xlim()
    assert 0 < low < 0.5 < 2 < high < math.inf


def test_what_is_below_zero_where_more_is_needed_is_drawn_as_short():
    rows = [row("g", "p", "q", "points", Bars(10.0, at_least=True), [value]) for value in (-1.65, 20.0)]
    short, met = bars_figure([each.as_dict() for each in rows]).axes[0].patches
    assert short.get_width() > 1 > met.get_width()
    assert short.get_facecolor() != met.get_facecolor()


def test_parts_of_the_suite_belong_to_the_suite():
    for words in (["--quick"], ["--only", "darcy"], ["--suite", "kernels", "--quick"]):
        result = CliRunner().invoke(app, ["bench", *words])
        assert result.exit_code == 2
        assert "--suite multigrid" in result.stderr
    table = CliRunner().invoke(app, ["bench", "--suite", "multigrid", "--quick", "--only", "anisotropy"])
    assert table.stdout.count("| aim met |") >= 2


def test_a_slow_rival_runs_once_and_ours_before_each_rival():
    order = []

    def run(name, seconds):
        return lambda: order.append(name) or trial(seconds)

    results = race(run("o", 0.1), {"slow": run("s", 9.0), "fast": run("f", 0.2)}, repeats=3)
    assert "".join(order) == "o" + "os" + "of" * 3  # the first one fills caches
    assert (results["slow"].runs, results["fast"].runs, results[OURS].runs) == (1, 3, 4)
    assert race(run("o", 0.1), {"slow": run("s", 9.0)}, repeats=4)[OURS].runs == 4


@pytest.mark.parametrize("shape", [(40, 48), (20, 22, 24)])
def test_random_coefficients_take_their_two_values(shape):
    values = inclusions(shape, np.random.default_rng(77), 1e4)
    assert values.shape == shape
    assert set(np.unique(values)) == {1.0, 1e4}
    assert 0.001 < (values > 1).mean() < 0.6
    phases = np.concatenate([two_phase(shape, np.random.default_rng(seed)).ravel() for seed in range(70, 90)])
    assert set(np.unique(phases)) == {3.0, 12.0}
    assert 0.3 < (phases == 12).mean() < 0.7


def test_kernels_are_recorded_and_left_as_they_were():
    kernels = table()
    plain = kernels.axpy
    x, y = torch.ones(10, dtype=torch.float64), torch.zeros(10, dtype=torch.float64)
    with recorded() as calls:
        kernels.axpy(torch.tensor(2.0, dtype=torch.float64), x, y)
    assert kernels.axpy is plain
    assert [(call.name, call.bytes, call.size) for call in calls] == [("axpy", 8 + 3 * 80, 10)]
    assert copying(1000)() > 0


@pytest.mark.skipif(petsc_missing() != "", reason=petsc_missing())
def test_petsc_meets_the_tolerance_on_two_ranks():
    A = ns.PoissonStencil(ns.Grid((12, 14), walls="dirichlet"))
    system = stencil_system("box", A, np.random.default_rng(6608).standard_normal(A.shape[0]))
    for options in PETSC.values():
        result = petsc(options, system, 1e-8)()
        assert result.residual <= 1.01e-8
        assert result.total_s > 0
