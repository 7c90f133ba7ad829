"""Case files: what they build, and what they say to wrong ones."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import neuralsolve as ns
from neuralsolve.cases import find_case, list_cases, load_case, open_problem, right_side
from neuralsolve.cases.schema import KINDS, Ball, Box, Bunny, FreeSurface, Mask, SolveOptions
from neuralsolve.errors import FormatError, InputError, OptionError, ShapeError
from neuralsolve.io import write_solution
from neuralsolve.pde.smoke_case import SmokeCase

POISSON = 'kind = "poisson"\nshape = [8, 12]\n'


@pytest.fixture
def case(tmp_path):
    """Write a case and return its path."""

    def write(text, name="case.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_every_packaged_case_loads_and_says_what_it_is():
    assert {"smoke_bunny", "poisson_box_2d", "poisson_masked", "step_channel"} <= set(list_cases())
    for name in list_cases():
        loaded = load_case(name)
        assert isinstance(loaded, SmokeCase) or loaded.title


def test_packaged_cases_on_real_files_are_singular_or_definite_as_they_say(data):
    bunny, step, dam = (open_problem(name) for name in ("bunny_surface", "step_channel", "dam_stiffness"))
    ones = np.ones(bunny.A.shape[0])
    assert abs(bunny.A @ ones).max() <= 1e-10 * abs(bunny.A).max()
    assert abs(bunny.b.sum()) <= 1e-12 * abs(bunny.b).sum()
    assert "less its mean" in bunny.note
    u = step.field(np.zeros(step.A.shape[0]))
    assert set(np.unique(u)) == {0.0, 1.0}
    assert np.array_equal(dam.A @ dam.reference, dam.b)


@pytest.mark.parametrize("solution", ["sine", "random", "ones"])
def test_a_named_solution_is_the_solution(case, solution):
    text = (
        POISSON
        + f'solution = "{solution}"\n[[obstacles]]\nshape = "ball"\ncenter = [0.3, 0.5]\nradius = 0.2\n'
    )
    problem = open_problem(case(text))
    A = problem.A.to_scipy()
    assert abs(A @ problem.reference - problem.b).max() <= 1e-12 * abs(problem.b).max()
    assert not problem.reference[~problem.grid.fluid.numpy().ravel()].any()
    x = ns.solve(problem.A, problem.b, rtol=1e-12).x
    assert abs(x - problem.reference).max() <= 1e-10 * abs(problem.reference).max()


def test_shapes_surface_and_walls_land_where_they_should(case):
    text = (
        'kind = "poisson"\nshape = [10, 20]\nwalls = ["neumann", "periodic"]\n'
        "[surface]\nheight = 0.35\n"
        '[[obstacles]]\nshape = "box"\nlow = [0.0, 0.5]\nhigh = [0.1, 0.6]\n'
        '[[obstacles]]\nshape = "ball"\ncenter = [0.25, 0.25]\nradius = 0.05\n'
    )
    grid = open_problem(case(text)).grid
    cells = grid.cells.numpy()
    assert grid.walls == (("neumann", "neumann"), ("periodic", "periodic"))
    assert grid.spacing == (0.05, 0.05)
    assert (cells[7:] == ns.AIR).all()  # cell centres above 0.35
    assert (cells[:2, 10:12] == ns.SOLID).all()
    # four centres at distance 0.035 from (0.25, 0.25), a corner of cells
    assert (cells[4:6, 4:6] == ns.SOLID).all()
    assert (cells == ns.SOLID).sum() == 8


def test_inclusions_set_the_face_coefficients(case):
    text = POISSON + '[[inclusions]]\nshape = "box"\nlow = [0, 0]\nhigh = [9, 9]\ncoefficient = 7.0\n'
    plain, scaled = open_problem(case(POISSON)), open_problem(case(text))
    assert torch.allclose(7 * plain.A.diagonal(), scaled.A.diagonal(), rtol=1e-14)


def test_masks_are_resampled_and_unpacked(case, tmp_path):
    solid = np.zeros((4, 6), dtype=np.uint8)
    solid[1, 2] = 1
    np.savez(tmp_path / "masks.npz", plain=solid, packed=np.packbits(solid))
    table = '[[obstacles]]\nshape = "mask"\nfile = "masks.npz"\nkey = "{}"\n'
    for name, more in (("plain", ""), ("packed", "packed = [4, 6]\n")):
        cells = open_problem(case(POISSON + table.format(name) + more)).grid.cells.numpy()
        assert np.array_equal(np.argwhere(cells == ns.SOLID), [[2, 4], [2, 5], [3, 4], [3, 5]])
    with pytest.raises(FormatError, match="2 axes"):
        open_problem(case(POISSON + table.format("packed")))


def test_the_bunny_of_the_smoke_cases_is_an_obstacle(case):
    bunny = '[[obstacles]]\nshape = "bunny"\ncenter = [0.5, 0.5]\nheight = 0.6\norigin = "analytic"\n'
    cells = open_problem(case('kind = "poisson"\nshape = [32, 32]\n' + bunny)).grid.cells.numpy()
    rows = np.flatnonzero((cells == ns.SOLID).any(axis=1))
    assert abs(len(rows) - 0.6 * 32) <= 2


def test_files_and_right_sides(case, tmp_path):
    b = np.arange(1.0, 97.0)
    write_solution(tmp_path / "b.npy", b)
    assert np.array_equal(open_problem(case(POISSON + 'source = "b.npy"\n')).b, b)
    path = case(POISSON + 'solution = "sine"\n')
    replaced = open_problem(path, rhs=str(tmp_path / "b.npy"))
    assert np.array_equal(replaced.b, b)
    assert replaced.reference is None
    assert np.array_equal(open_problem(path, rhs="dipole").b.nonzero()[0], [1 * 12 + 5, 5 * 12 + 5])
    write_solution(tmp_path / "short.npy", b[:5])
    with pytest.raises(ShapeError, match="5 rows, the system has 96"):
        open_problem(path, rhs=str(tmp_path / "short.npy"))
    with pytest.raises(OptionError, match="did you mean 'random'"):
        open_problem(path, rhs="randon")


@given(n=st.integers(2, 40))
def test_a_dipole_is_consistent_with_constants_and_random_is_repeatable(n):
    assert right_side("dipole", n).sum() == 0.0
    assert np.array_equal(right_side("random", n), right_side("random", n))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shape = [8, 8]\n", "kind is None"),
        ('kind = "poison"\n', "did you mean 'poisson'"),
        ('kind = "poisson"\n', "shape is missing"),
        (POISSON + "spacings = 1.0\n", r"unknown key 'spacings'; did you mean 'spacing'"),
        (
            POISSON + '[[obstacles]]\nshape = "ball"\ncentre = [0.1, 0.1]\nradius = 0.1\n',
            "did you mean 'center'",
        ),
        (POISSON + '[[obstacles]]\nshape = "bal"\n', "obstacles.0"),
        (POISSON + '[[obstacles]]\nshape = "ball"\ncenter = [0.1]\nradius = 0.1\n', "grid of 2 axes"),
        (POISSON + "[solve]\nmethods = 'cg'\n", "did you mean 'method'"),
        (POISSON + "[solve]\nrtol = -1.0\n", "solve.rtol = -1.0"),
        (POISSON + "spacing = nan\n", "spacing = nan"),
        (POISSON + 'walls = "brick"\n', "walls"),
        ('kind = "poisson"\nshape = [100000, 100000, 100000]\n', "more than 536870912"),
        ('kind = "poisson"\nshape = [8]\n', "shape"),
        ('kind = "matrix"\nfiel = "A.mtx"\n', "did you mean 'file'"),
        ('kind = "smoke"\nstep = 4\n', "did you mean 'steps'"),
        ('kind = "smoke"\nsteps = "many"\n', "steps = 'many'"),
        ('kind = "smoke"\nwalls = "oben"\n', "did you mean 'open'"),
    ],
)
def test_wrong_cases_are_answered_in_one_line(case, text, message):
    path = case(text)
    with pytest.raises(OptionError, match=message) as caught:
        load_case(path)
    assert "case.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["kind = ", "[" * 10000, "kind = 'poisson'\nkind = 'mesh'\n", "a = 1\n" * 200_000, "\x00", " "]
)
def test_broken_toml_is_refused(case, text):
    with pytest.raises((FormatError, OptionError), match=r"case\.toml"):
        load_case(case(text))


def test_files_that_a_case_names_are_looked_for_in_the_data_folder_only_there(case, monkeypatch):
    path = case('kind = "matrix"\nfile = "$NEURALSOLVE_DATA/A.mtx"\n')
    monkeypatch.delenv("NEURALSOLVE_DATA", raising=False)
    with pytest.raises(FormatError, match="set NEURALSOLVE_DATA"):
        open_problem(path)
    monkeypatch.setenv("NEURALSOLVE_DATA", str(path.parent))
    (path.parent / "A.mtx").write_text("%%MatrixMarket matrix coordinate real general\n1 1 1\n1 1 2.0\n")
    assert open_problem(path).A.shape == (1, 1)
    with pytest.raises(FormatError, match="names a variable"):
        open_problem(case('kind = "matrix"\nfile = "$HOME/A.mtx"\n'))


def test_names_and_paths(case, tmp_path, monkeypatch):
    path = case(POISSON)
    assert find_case(path) == path
    assert find_case("smoke_bunny") == find_case("smoke_bunny.toml")
    monkeypatch.chdir(tmp_path)
    assert find_case("case.toml").samefile(path)
    with pytest.raises(OptionError, match="did you mean 'smoke_bunny'"):
        find_case("smoke_buny")
    with pytest.raises(FileNotFoundError, match="no file"):
        find_case("folder/case.toml")
    with pytest.raises(OptionError, match="neuralsolve simulate"):
        open_problem("smoke_bunny")


KEYS = st.sampled_from(["shape", "spacing", "walls", "seed", "source", "solution", "title", "oops"])
VALUES = st.one_of(
    st.integers(-3, 30).map(str),
    st.floats(allow_nan=True, allow_infinity=True).map(lambda v: str(v).replace("+", "")),
    st.sampled_from(
        ['"sine"', '"neumann"', '"periodic"', "[4, 5]", "[[]]", "{a = 1}", "true", '["neumann"]']
    ),
)


@given(lines=st.dictionaries(KEYS, VALUES, max_size=4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_poisson_table_gives_a_system_or_a_clear_refusal(case, lines):
    text = 'kind = "poisson"\n' + "".join(f"{key} = {value}\n" for key, value in lines.items())
    try:
        problem = open_problem(case(text))
    except InputError:
        return
    assert problem.b.shape == (problem.A.shape[0],)
    assert np.isfinite(problem.b).all()


PAGE = (Path(__file__).parents[1] / "docs" / "cases.md").read_text(encoding="utf-8")


def test_the_example_of_the_page_is_a_case(case):
    text = PAGE.split("```toml\n")[1].split("```")[0]
    problem = open_problem(case(text))
    assert problem.options == {"method": "cg", "M": "ic(modified=0.97)"}
    assert ns.AIR in problem.grid.cells


@pytest.mark.parametrize("model", [*KINDS.values(), SolveOptions, Ball, Box, Bunny, Mask, FreeSurface])
def test_the_page_describes_every_key(model):
    for key in set(model.model_fields) - {"path", "shape"}:
        assert re.search(rf"\b{key}\b", PAGE), key
