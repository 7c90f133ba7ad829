"""The command line: what it prints, what it writes, and its exit codes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import neuralsolve as ns
from neuralsolve.cli import app
from neuralsolve.cli.names import known, method_from, recipe_from
from neuralsolve.errors import OptionError
from neuralsolve.io import read_mesh, read_vector
from neuralsolve.pde.smoke_case import SmokeCase
from neuralsolve.preconditioners.base import Recipe
from neuralsolve.solvers.method import Method

CASE = 'kind = "poisson"\nshape = [12, 16]\nsolution = "random"\n'
rng = np.random.default_rng(5120)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(*arguments):
    """Run with --json; standard output must be one JSON object and nothing else."""
    result = run(*arguments, "--json")
    return json.loads(result.stdout), result


@pytest.fixture
def matrix(tmp_path):
    """A diagonally dominant nonsymmetric matrix as Matrix Market."""
    A = sp.random_array((40, 40), density=0.1, rng=rng) + 8 * sp.eye_array(40)
    scipy.io.mmwrite(tmp_path / "A.mtx", A, precision=17)
    return tmp_path / "A.mtx"


@pytest.fixture
def case(tmp_path):
    (tmp_path / "case.toml").write_text(CASE)
    return tmp_path / "case.toml"


def test_a_matrix_is_solved_and_written(matrix, tmp_path):
    out = tmp_path / "x.npy"
    facts, result = answer("solve", matrix, "--rhs", "random", "--out", out, "--rtol", "1e-11")
    assert result.exit_code == 0
    A, b = scipy.io.mmread(matrix), np.random.default_rng(1905).standard_normal(40)
    residual = np.linalg.norm(b - A @ read_vector(out)) / np.linalg.norm(b)
    assert residual <= 1e-11
    assert facts["converged"]
    assert facts["n"] == 40
    assert facts["out"] == str(out)


def test_a_case_reports_the_error_against_its_known_solution(case):
    facts, result = answer("solve", case, "--rtol", "1e-12")
    assert result.exit_code == 0
    # ||x - x_k|| <= cond(A) ||b - A x_k|| / ||b||; the 12 x 16 Dirichlet box has cond < 110
    assert facts["relative_error"] <= 110 * 1e-12
    assert "FastPoisson" in facts["explanation"]


def test_the_text_answer_names_method_residual_and_reason(case):
    brief, full = run("solve", case), run("solve", case, "--explain")
    for result in (brief, full):
        assert result.exit_code == 0
        assert "converged" in result.stdout
        assert "||b - Ax||" in result.stdout
    assert "--explain says why" in brief.stdout
    assert "constant-coefficient box" in full.stdout


def test_too_few_iterations_end_with_code_one_and_advice(case, tmp_path):
    facts, result = answer("solve", case, "--method", "cg", "--maxiter", "2", "--out", tmp_path / "x.txt")
    assert result.exit_code == 1
    assert facts["status"] == "MAXITER"
    assert not facts["converged"]
    assert facts["relative_residual"] > 1e-8
    assert (tmp_path / "x.txt").exists()  # what was reached is kept, and said to be short
    assert "NOT converged" in run("solve", case, "--method", "cg", "--maxiter", "2").stdout


def test_options_of_the_case_hold_unless_the_command_line_differs(case):
    case.write_text(CASE + '[solve]\nmethod = "cg"\nM = "ssor(omega=1.4)"\nrtol = 1e-3\n')
    of_case, _ = answer("solve", case)
    other, _ = answer("solve", case, "--method", "minres", "--rtol", "1e-9")
    assert "SSOR" in of_case["explanation"]
    assert of_case["relative_residual"] > 1e-9
    assert "MINRES" in other["explanation"]
    assert "SSOR" not in other["explanation"]
    assert other["relative_residual"] <= 1e-9


def test_a_mesh_is_solved_and_written_as_vtu(tmp_path, data):
    out, picture = tmp_path / "u.vtu", tmp_path / "u.png"
    result = run("solve", data / "meshes" / "skfem_box.msh", "--out", out, "--plot", picture)
    assert result.exit_code == 0
    assert len(read_mesh(out).points) == 358
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "name", ["bcsstk13.mtx", "bcsstk16.mtx", "pyamg_bar.mat", "bunny35k_cotan_laplacian.npz"]
)
def test_hard_real_matrices_are_solved_by_the_default_choice(name, data):
    rhs = ["--rhs", "dipole"] if "bunny" in name else []
    facts, result = answer("solve", data / "matrices" / name, *rhs)
    assert result.exit_code == 0
    assert facts["relative_residual"] <= 1e-8


def test_smoothed_aggregation_gets_the_rigid_body_modes_of_the_file(data):
    bar = data / "matrices" / "pyamg_bar.mat"
    facts, result = answer("solve", bar, "--method", "cg", "--M", "amg(kind=sa)")
    assert result.exit_code == 0
    plain = ns.solve(scipy.io.loadmat(bar)["A"], np.ones(600), ns.CG(), M=ns.AMG(kind="sa"))
    assert facts["iterations"] < plain.iterations


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nofile.mtx"], "no file"),
        (["poisson_box_2"], "did you mean 'poisson_box_2d'"),
        (["smoke_bunny"], "neuralsolve simulate"),
        (["CASE", "--method", "gmrs"], "did you mean 'gmres'"),
        (["CASE", "--method", "gmres(restat=9)"], "did you mean 'restart'"),
        (["CASE", "--M", "cg"], "is a method, not a preconditioner"),
        (["CASE", "--method", "__import__('os')"], "names no method"),
        (["CASE", "--method", "cg("], "cannot read"),
        (["CASE", "--M", "ssor(omega=1.5+1)"], "no number, word or string"),
        (["CASE", "--M", "ssor(omega=5)"], "omega"),
        (["CASE", "--rhs", "tan"], "no right side 'tan'"),
        (["CASE", "--rtol", "-1"], "rtol"),
        (["CASE", "--out", "x.docx"], ".docx"),
        (["CASE", "--plot", "x.pdf"], ".png"),
        (["CASE", "--out", "no/such/folder/x.npy"], "no folder"),
        (["MATRIX", "--out", "x.vtu"], "needs a mesh"),
        (["MATRIX", "--method", "cg"], "symmetric"),
    ],
)
def test_wrong_input_is_one_line_and_code_two(arguments, message, case, matrix):
    arguments = [{"CASE": case, "MATRIX": matrix}.get(each, each) for each in arguments]
    result = run("solve", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    facts, again = answer("solve", *arguments)
    assert again.exit_code == 2
    assert message in facts["error"]


def test_nothing_is_replaced_without_force(case, tmp_path):
    out = tmp_path / "x.npy"
    out.write_text("precious")
    refused = run("solve", case, "--out", out)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert out.read_text() == "precious"
    assert run("solve", case, "--out", out, "--force").exit_code == 0
    assert read_vector(out).shape == (192,)


# --- names of methods


def test_every_public_method_and_recipe_can_be_named():
    for name, found in known((Method, Recipe)).items():
        if issubclass(found, Method):
            assert isinstance(method_from(name), found)
        else:
            assert isinstance(recipe_from(name.upper()), found)
    assert {"cg", "minres", "gmres", "bicgstab", "richardson", "sparselu", "fastpoisson"} <= set(
        known((Method, Recipe))
    )


def test_options_are_numbers_words_and_strings():
    assert method_from("gmres(restart=17)") == ns.GMRES(restart=17)
    assert recipe_from("ssor(omega=1.25, order='multicolor')") == ns.SSOR(omega=1.25, order="multicolor")
    assert recipe_from("amg(kind=sa)").kind == "sa"
    assert recipe_from("ic(modified=0.97)") == ns.IncompleteCholesky(modified=0.97)
    assert method_from("auto") is None
    assert recipe_from("none") is None


@given(st.text(max_size=60))
def test_any_text_names_a_method_or_is_refused(text):
    try:
        assert method_from(text) is None or isinstance(method_from(text), Method | Recipe)
    except OptionError:
        assert text.strip().lower() not in known((Method, Recipe))


# --- simulate


def test_a_simulation_writes_its_picture_and_table(tmp_path):
    folder = tmp_path / "plume"
    facts, result = answer("simulate", "smoke_bunny", "--size", 24, "--steps", 3, "--out-dir", folder)
    assert result.exit_code == 0
    assert facts["shape"] == [24, 24]
    assert facts["steps"] == 3
    assert facts["largest_relative_divergence"] <= facts["rtol"]
    assert {row["solver"] for row in facts["pressure_solvers"]} == {
        "neuralsolve",
        "SciPy CG",
        "PyAMG RS + CG",
    }
    assert (folder / "smoke_bunny.png").read_bytes().startswith(b"\x89PNG")
    lines = (folder / "smoke_bunny.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 3
    again = run("simulate", "smoke_bunny", "--size", 24, "--steps", 3, "--out-dir", folder)
    assert again.exit_code == 2
    assert "--force" in again.stderr


def test_three_dimensions_and_text_answer(tmp_path):
    options = ["--dim", 3, "--size", 12, "--steps", 2, "--no-compare", "--out-dir", tmp_path / "cube"]
    result = run("simulate", "smoke_bunny", *options)
    assert result.exit_code == 0
    assert "12 x 12 x 12" in result.stdout
    assert "divergence after every projection" in result.stdout


def test_a_linear_case_is_sent_to_solve(case, tmp_path):
    result = run("simulate", case, "--out-dir", tmp_path / "out")
    assert result.exit_code == 2
    assert "neuralsolve solve" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("shape", "dim", "size", "changed_to"),
    [
        ((256, 128), None, 64, (128, 64)),
        ((256, 256), 3, None, (64, 64, 64)),
        ((64, 32, 32), 2, 16, (16, 16)),
        ((40, 60, 20), None, 10, (20, 30, 10)),
    ],
)
def test_dimensions_and_size_keep_the_proportions(shape, dim, size, changed_to):
    from neuralsolve.cli.simulate import changed

    assert changed(SmokeCase(shape=shape), 7, dim, size).shape == changed_to
    assert changed(SmokeCase(shape=shape), 7, dim, size).steps == 7


# --- the program itself


def environment():
    return os.environ | {"PYTHONPATH": str(Path(ns.__file__).parents[1])}


def test_python_m_from_any_folder_and_clean_standard_output(tmp_path):
    command = [sys.executable, "-m", "neuralsolve", "solve", "poisson_box_2d", "--json", "--rtol", "1e-6"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["problem"] == "poisson_box_2d"
    assert done.stderr == ""


def test_help_lists_the_commands_and_needs_no_solver():
    code = (
        "import sys; from neuralsolve.cli import app\n"
        "from typer.testing import CliRunner; print(CliRunner().invoke(app, ['--help']).stdout)\n"
        "print(sorted({'numba', 'pyamg', 'matplotlib', 'pydantic', 'meshio'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    for command in ("solve", "simulate", "tune", "minimize", "bench", "doctor", "cases"):
        assert command in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_unknown_commands_and_options_end_with_code_two():
    assert run("slove", "A.mtx").exit_code == 2
    assert run("solve", "A.mtx", "--rtoll", "1").exit_code == 2
    assert run("--version").stdout.startswith("neuralsolve ")


def test_cases_are_listed():
    facts, result = answer("cases")
    assert result.exit_code == 0
    assert facts["smoke_bunny"]["command"] == "simulate"
    assert "poisson_masked" in run("cases").stdout


def test_doctor_finds_this_installation_sound():
    facts, result = answer("doctor")
    assert result.exit_code == 0, facts["broken"]
    assert facts["broken"] == []
    assert all(check["passed"] for check in facts["checks"])
    assert set(facts["kernels"].values()) == {"numba"}


def test_doctor_reports_what_is_broken(monkeypatch):
    from neuralsolve import doctor

    def broken():
        return doctor._solved(2 * np.eye(3), np.eye(3), np.ones(3))  # a product that is not A's

    monkeypatch.setattr(doctor, "TESTS", {"products": broken})
    result = run("doctor")
    assert result.exit_code == 1
    assert "BROKEN: products" in result.stdout
    assert "true residual 5.0e-01" in result.stdout


@pytest.mark.parametrize("command", ["solve", "simulate", "tune", "minimize", "bench", "doctor", "cases"])
def test_the_page_describes_every_command_and_option(command):
    page = (Path(__file__).parents[1] / "docs" / "command_line.md").read_text(encoding="utf-8")
    assert f"neuralsolve {command}" in page
    options = re.findall(r"--[\w-]+", run(command, "--help").stdout)
    assert "--help" in options
    for option in set(options) - {"--compare", "--force", "--json", "--rhs", "--rtol"}:
        assert option in page, option


def test_a_source_that_is_no_file_of_a_known_kind_is_named_for_what_it_is(tmp_path):
    bare, pipe = tmp_path / "bare", tmp_path / "pipe.mtx"
    bare.write_text("1")
    os.mkfifo(pipe)
    for source, found in ((bare, "a name without suffix"), (tmp_path, "a folder"), (pipe, "a pipe")):
        result = run("solve", source)
        assert result.exit_code == 2
        assert found in result.stderr
        assert ".mtx" in result.stderr
        assert ".toml" in result.stderr


def test_an_output_that_cannot_be_written_is_told_with_its_option(tmp_path):
    file = tmp_path / "file.npy"
    file.write_text("kept")
    for target, told in ((file, "--force"), (tmp_path / "none" / "x.npy", "make it first")):
        result = run("solve", "poisson_masked", "--out", target)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: --out: ")
        assert told in result.stderr
    assert file.read_text() == "kept"


@pytest.mark.parametrize("option", ["--size", "--steps"])
def test_a_number_out_of_range_names_the_option_and_the_range(option):
    result = run("simulate", "smoke_bunny", option, 0)
    assert result.exit_code == 2
    assert option in result.stderr
    assert "greater than or equal to" in result.stderr
