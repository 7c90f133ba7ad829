"""The benchmark harness: honest residuals, ratios within one run, rows in every form."""

import csv
import io
import json

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.ndimage import label
from typer.testing import CliRunner

import neuralsolve as ns
from neuralsolve.bench import Contender, Measure, compare, comparison_markdown, csv_text, measures_markdown
from neuralsolve.bench.baselines import baselines
from neuralsolve.bench.clock import interleaved
from neuralsolve.bench.footprint import held_vectors
from neuralsolve.bench.measures import take_measures
from neuralsolve.bench.system import assembled
from neuralsolve.cases import Problem, open_problem
from neuralsolve.cli import app
from neuralsolve.errors import ShapeError
from neuralsolve.pde.scenes import free_surface

rng = np.random.default_rng(6607)


def problem(A, b=None, **more):
    n = A.shape[0]
    return Problem("small", A, rng.standard_normal(n) if b is None else b, **more)


def masked(walls="neumann"):
    cells = np.zeros((12, 14), dtype=np.uint8)
    cells[3:6, 4:8] = ns.SOLID
    return ns.PoissonStencil(ns.Grid(cells, walls=walls))


def test_every_row_states_the_residual_that_a_stranger_would_find():
    A = masked("dirichlet")
    rows = compare(problem(A), rtol=1e-9, repeats=1)
    matrix = A.to_scipy()
    assert {row.method for row in rows} >= {"neuralsolve auto", "SciPy cg", "PyAMG RS + cg", "SciPy splu"}
    assert all(row.converged and row.residual <= 1.01e-9 for row in rows)
    assert rows[0].n == int(A.grid.fluid.sum())
    system = assembled(problem(A))
    x = rng.standard_normal(A.shape[0]) * A.grid.fluid.numpy().ravel()
    alone = np.linalg.norm((matrix @ x - system.problem.b)[system.active]) / np.linalg.norm(system.rhs)
    assert abs(system.residual(x) - alone) <= 1e-12 * alone
    assert system.residual(x[system.active]) == system.residual(x)


def test_singular_and_negative_systems_reach_the_baselines_consistent_and_positive():
    A = masked("neumann")
    system = assembled(problem(A))
    ones = np.ones(len(system.rhs))
    assert system.singular
    assert abs(system.rhs.sum()) <= 1e-12 * abs(system.rhs).sum()
    assert abs(system.matrix @ ones).max() <= 1e-12
    negative = assembled(
        problem(sp.csr_array(-masked("dirichlet").to_scipy()[:20][:, :20] - sp.eye_array(20)))
    )
    assert (negative.matrix.diagonal() > 0).all()
    for row in compare(problem(A), rtol=1e-8, repeats=1):
        assert row.converged, row


def test_ratios_are_to_the_fastest_baseline_that_converged():
    rows = compare(problem(masked("dirichlet")), [Contender("cg", ns.CG())], repeats=3)
    totals = {row.method: row.setup_s + row.solve_s for row in rows if not row.ours and row.converged}
    best = min(totals, key=totals.get)
    for row in rows:
        assert row.baseline == best
        assert row.ratio == pytest.approx((row.setup_s + row.solve_s) / totals[best], rel=1e-12)
    keys = [(not row.converged, row.setup_s + row.solve_s) for row in rows]
    assert keys == sorted(keys)


def test_what_fails_or_misses_says_so_and_is_not_the_baseline():
    n = 60
    A = sp.csr_array(sp.diags_array(np.where(np.arange(n) % 2, 1.0, -1.0) * np.linspace(1, 9, n)))
    A += sp.diags_array([0.3, 0.3], offsets=[1, -1], shape=(n, n))
    contenders = [Contender("cg", ns.CG()), Contender("minres", ns.MINRES())]
    rows = {row.method: row for row in compare(problem(sp.csr_array(A)), contenders, repeats=1)}
    assert not rows["cg"].converged
    assert "indefinite" in rows["cg"].note
    assert rows["minres"].converged
    assert "SciPy minres" in rows
    assert "failed" in comparison_markdown([rows["cg"]])
    slow = compare(
        problem(masked("dirichlet")), [Contender("short", ns.Richardson(), ns.Jacobi(0.1))], rtol=1e-13
    )
    assert "**missed**" in comparison_markdown(slow)


def test_baselines_follow_the_structure_of_the_matrix():
    convection = sp.csr_array(sp.diags_array([-1.5, 2.0, -0.5], offsets=[-1, 0, 1], shape=(50, 50)))
    assert set(baselines(assembled(problem(convection)))) == {"SciPy gmres + spilu", "SciPy splu"}
    assert all(row.converged for row in compare(problem(convection), repeats=1))
    assert "SciPy splu" not in baselines(assembled(problem(masked("neumann"))))
    with pytest.raises(ShapeError, match="one right side"):
        assembled(problem(convection, b=np.ones((50, 2))))


def test_interleaving_runs_every_call_once_a_round():
    order = []
    medians = interleaved({name: lambda name=name: order.append(name) for name in "abc"}, repeats=2)
    assert "".join(order) == "abc" * 3  # one round to warm up
    assert set(medians) == set("abc")
    assert min(medians.values()) >= 0


@pytest.mark.parametrize("shape", [(40, 48), (20, 22, 24)])
def test_scenes_have_one_body_of_fluid_under_air(shape):
    grid = free_surface(shape, np.random.default_rng(31))
    cells = grid.cells.numpy()
    _, bodies = label(cells == ns.FLUID)
    assert bodies == 1
    assert (cells[-1] != ns.FLUID).all()  # 0.75 + 0.08 + 0.05 < 1
    assert (cells == ns.AIR).mean() > 0.05
    assert (cells == ns.SOLID).any()
    again = free_surface(shape, np.random.default_rng(31)).cells.numpy()
    assert np.array_equal(cells, again)


@pytest.mark.parametrize(("shape", "ic", "mic"), [((64, 64), 82, 49), ((32, 32, 32), 60, 32)])
def test_incomplete_cholesky_needs_the_published_iterations(shape, ic, mic):
    """Counts of a table of one random scene per size; the mean of five scenes lies within a tenth."""
    counts = []
    for seed in range(2111, 2116):
        generator = np.random.default_rng(seed)
        A = ns.PoissonStencil(free_surface(shape, generator))
        b = generator.standard_normal(A.shape[0])
        recipes = ns.IncompleteCholesky(), ns.IncompleteCholesky(modified=0.97)
        counts.append([ns.solve(A, b, ns.CG(), M=M, rtol=1e-6).iterations for M in recipes])
    assert abs(np.mean(counts, axis=0) / [ic, mic] - 1).max() <= 0.1


def test_a_stencil_solve_holds_at_most_twelve_vectors():
    # CG cannot do with fewer than x, r, p and A p
    assert 4 <= held_vectors(32, False, ns.CG(), None) <= 12
    assert 4 <= held_vectors(32, True, ns.CG(), ns.IncompleteCholesky(modified=0.97)) <= 12


def test_measures_cover_every_bar_at_any_size(monkeypatch):
    from neuralsolve.bench import measures

    monkeypatch.setattr(measures, "import_seconds", lambda repeats: (1.4, 1.2))
    monkeypatch.setattr(measures, "compile_seconds", lambda: (20.0, 2.0))
    monkeypatch.setattr(measures, "vectors_of_a_solve", lambda *_: 5.0)
    told = []
    rows = take_measures(repeats=1, scale=0.07, progress=told.append)
    assert all(np.isfinite(row.value) for row in rows)
    # a time per iteration is a difference of two, which on so small a grid may come out negative
    assert all(row.value > 0 for row in rows if "per iteration" not in row.measure)
    names = " ".join(row.measure for row in rows)
    for word in (
        "stencil product",
        "CSR product",
        "per iteration",
        "FastPoisson",
        "MIC(0)",
        "import",
        "vectors",
    ):
        assert word in names
    assert next(row for row in rows if "import" in row.measure).value == pytest.approx(0.2)
    assert len(told) == 9
    text = measures_markdown([*rows, Measure("slow", 3.0, 2.0, "x", 3.0, 1.0, "made up")])
    assert text.count("\n") == len(rows) + 3
    assert "**short**" in text


def test_rows_go_to_csv_with_machine_and_versions():
    rows = compare(problem(masked("dirichlet")), [Contender("cg", ns.CG())], repeats=1)
    table = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert len(table) == len(rows)
    for line, row in zip(table, rows, strict=True):
        assert line["method"] == row.method
        assert float(line["solve_s"]) == pytest.approx(row.solve_s, rel=1e-5)
        assert "scipy" in line["versions"]
        assert line["machine"]


def test_the_command_writes_rows_and_picture_and_keeps_files(tmp_path):
    (tmp_path / "case.toml").write_text(
        'kind = "poisson"\nshape = [12, 16]\nwalls = "neumann"\nsource = "dipole"\n'
    )
    command = ["bench", str(tmp_path / "case.toml"), "--repeats", "1", "--csv", str(tmp_path / "b.csv")]
    command += ["--plot", str(tmp_path / "b.png"), "--method", "auto", "--method", "cg+ssor(omega=1.3)"]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    ours = [row for row in content["rows"] if row["ours"]]
    assert [row["method"] for row in sorted(ours, key=lambda row: row["method"])] == [
        "auto",
        "cg+ssor(omega=1.3)",
    ]
    assert all(row["residual"] <= 1.01e-8 for row in content["rows"] if row["converged"])
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "b.csv").read_text().splitlines()) == 1 + len(content["rows"])
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "--force" in again.stderr
    table = CliRunner().invoke(app, [*command, "--force"])
    assert "| auto |" in table.stdout
    assert "Baseline: " in table.stdout


def test_the_command_ends_with_one_where_our_method_missed(tmp_path):
    command = ["bench", "poisson_box_2d", "--repeats", "1", "--method", "richardson", "--rtol", "1e-300"]
    assert CliRunner().invoke(app, ["bench", "poisson_box_2d", "--suite", "kernels"]).exit_code == 2
    assert CliRunner().invoke(app, ["bench", "--suite", "kernel"]).exit_code == 2
    (tmp_path / "c.toml").write_text('kind = "poisson"\nshape = [6, 6]\n')
    command[1] = str(tmp_path / "c.toml")
    assert CliRunner().invoke(app, command).exit_code == 1


def test_packaged_cases_can_be_compared():
    assert assembled(open_problem("poisson_masked")).structure.maybe_spd
