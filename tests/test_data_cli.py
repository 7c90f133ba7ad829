"""``neuralsolve data``: what it prints and writes, and its exit codes."""

import json
import re
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from test_data_making import Breaking, Invented
from typer.testing import CliRunner

from neuralsolve.cli import app
from neuralsolve.cli.data import equation_from
from neuralsolve.cli.fields_app import EQUATIONS
from neuralsolve.data import read_data, read_samples
from neuralsolve.errors import OptionError
from neuralsolve.pde.equation import equations


def run(*arguments):
    return CliRunner().invoke(app, ["data", *(str(argument) for argument in arguments)])


def answer(*arguments):
    """Run with --json; standard output must be one JSON object and nothing else."""
    result = run(*arguments, "--json")
    return json.loads(result.stdout), result


@dataclass(frozen=True)
class Typed(Invented):
    """Has a parameter of every kind."""

    name: ClassVar[str] = "typed"
    grid: int = 9
    fine: bool = False
    box: tuple[float, ...] = (1.0, 2.0)
    rule: Literal["mean", "sum"] = "mean"
    limit: float | None = 3.0


@pytest.fixture(autouse=True)
def _invented(monkeypatch):
    known = {"invented": Invented, "breaking": Breaking, "typed": Typed}
    monkeypatch.setattr("neuralsolve.cli.data.equations", lambda: known)


def make(tmp_path, *more, name="invented"):
    return "make", name, "--n", 11, "--out", tmp_path / "d.h5", *more


def test_samples_are_made_and_told(tmp_path):
    result = run(*make(tmp_path, "--seed", 58, "--first", 2, "--set", "size=12", "--chunk", 4))
    assert result.exit_code == 0
    assert re.search(
        r"11 samples of invented, .* each\nlargest residual 4\.00e-09\nwrote .*d\.h5, ", result.stdout
    )
    assert np.array_equal(
        read_samples(tmp_path / "d.h5").inputs, Invented(12).samples(range(2, 13), 58).inputs
    )


def test_the_answer_as_json(tmp_path):
    facts, result = answer(*make(tmp_path))
    assert result.exit_code == 0
    assert result.stderr == ""
    assert facts["count"] == 11
    assert facts["bytes"] == (tmp_path / "d.h5").stat().st_size
    assert facts["seed"] == 1905
    assert facts["largest_residual"] == pytest.approx(11e-9)


def test_an_equation_of_the_package_is_made(tmp_path, monkeypatch):
    from neuralsolve.pde.equation import equations

    monkeypatch.setattr("neuralsolve.cli.data.equations", equations)
    facts, result = answer(
        "make", "darcy", "--n", 2, "--grid", 17, "--stride", 2, "--set", "high=6", "--out", tmp_path / "d.h5"
    )
    assert result.exit_code == 0
    assert facts["largest_residual"] <= 1e-8
    data = read_samples(tmp_path / "d.h5")
    assert data.shape == (9, 9)
    assert set(np.unique(data.inputs)) <= {3, 6}
    again = data.layout.origin["command"].split()[2:]
    assert run(*again[:-1], tmp_path / "again.h5").exit_code == 0  # the command that the file tells
    assert read_samples(tmp_path / "again.h5").outputs.tobytes() == data.outputs.tobytes()


def test_interrupted_the_same_command_goes_on(tmp_path):
    Breaking.at[:] = [9]
    facts, result = answer(*make(tmp_path, "--chunk", 4, name="breaking"))
    assert result.exit_code == 130
    assert "the same command goes on" in facts["error"]
    result = run(*make(tmp_path, "--chunk", 4, name="breaking"))
    assert result.exit_code == 0
    assert len(read_samples(tmp_path / "d.h5")) == 11


def test_other_parameters_of_an_interrupted_run_need_restart(tmp_path):
    Breaking.at[:] = [9]
    run(*make(tmp_path, "--chunk", 4, name="breaking"))
    result = run(*make(tmp_path, "--seed", 7, name="breaking"))
    assert result.exit_code == 2
    assert "seed was 1905 and is 7" in result.stderr
    assert "--restart" in result.stderr
    assert run(*make(tmp_path, "--seed", 7, "--restart", name="breaking")).exit_code == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--grid", 9], "--grid: invented has no such parameter; it has size, factor"),
        (["--set", "sise=4"], "did you mean 'size'"),
        (["--set", "size"], "write size=value"),
        (["--set", "size=4", "--set", "size=5"], "size = 4 is given already"),
        (["--out", "."], "--out . is a folder; a file is needed: --out invented.h5"),
        (["--set", "size=big"], "a whole number is needed"),
        (["--set", "factor=big"], "a number is needed"),
        (["--out", "d.npz"], "HDF5"),
        (["--out", "nowhere/d.h5"], "--out: no folder nowhere"),
    ],
)
def test_wrong_options_are_told_in_one_line(tmp_path, more, words):
    result = run(*make(tmp_path, *more))
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_help_names_every_equation():
    assert set(EQUATIONS.replace(" or ", ", ").split(", ")) == set(equations())


def test_samples_that_miss_their_equation_are_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr("neuralsolve.cli.data.LARGE", 0.0)
    monkeypatch.setattr("neuralsolve.cli.data.equations", equations)
    result = run("make", "darcy", "--n", 2, "--grid", 9, "--out", tmp_path / "d.h5")
    assert result.exit_code == 0
    assert "\nwarning: largest residual" in result.stderr
    result = run("make", "darcy", "--n", 2, "--grid", 9, "--stride", 2, "--set", "stride=4", "--out", "d.h5")
    assert "stride = 2 is given already" in result.stderr


def test_an_unknown_equation_is_told(tmp_path):
    result = run(*make(tmp_path, name="inventd"))
    assert result.exit_code == 2
    assert "did you mean 'invented'" in result.stderr


def test_an_existing_file_needs_force(tmp_path):
    assert run(*make(tmp_path)).exit_code == 0
    result = run(*make(tmp_path))
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert run(*make(tmp_path, "--force")).exit_code == 0


def test_parameters_take_the_type_of_their_field():
    settings = ["fine=yes", "box=3,4.5", "rule=sum", "limit=none", "size=4"]
    found = equation_from("typed", {"grid": 33, "stride": None}, settings)
    assert found == Typed(size=4, grid=33, fine=True, box=(3.0, 4.5), rule="sum", limit=None)
    assert equation_from("typed", {}, ["limit=4"]).limit == 4.0
    with pytest.raises(OptionError, match="true or false"):
        equation_from("typed", {}, ["fine=maybe"])


def test_info_tells_channels_axes_equation_and_origin(tmp_path):
    run(*make(tmp_path))
    facts, result = answer("info", tmp_path / "d.h5")
    data = read_samples(tmp_path / "d.h5")
    assert result.exit_code == 0
    assert facts["inputs"] == [
        {"name": "a", "unit": None, "min": data.inputs.min(), "max": data.inputs.max()}
    ]
    assert facts["axes"] == [{"nodes": 8, "from": 0.0, "to": 7 / 8, "boundary": ""}]
    assert facts["equation"] == {"name": "invented", "size": 8, "factor": 2.0}
    assert facts["largest_residual"] == pytest.approx(11e-9)
    text = run("info", tmp_path / "d.h5").stdout
    for words in (
        "11 samples on 8",
        "input: a, float64",
        "output: u",
        "axis 0: 8 nodes",
        "factor = 2.0",
        "seed = 1905",
    ):
        assert words in text


def test_info_in_pieces_is_that_of_the_whole(tmp_path, monkeypatch):
    run(*make(tmp_path))
    whole, _ = answer("info", tmp_path / "d.h5")
    monkeypatch.setattr("neuralsolve.cli.data.PIECE", 300)
    assert answer("info", tmp_path / "d.h5")[0] == whole


def test_info_of_another_format_names_convert(tmp_path):
    torch.save({"x": torch.ones(2, 8), "y": torch.ones(2, 8)}, tmp_path / "d.pt")
    result = run("info", tmp_path / "d.pt")
    assert result.exit_code == 2
    assert "data convert" in result.stderr
    assert run("info", tmp_path / "no.h5").exit_code == 2


def test_a_file_of_others_is_converted(tmp_path):
    y = np.random.default_rng(83).standard_normal((5, 9, 8)).astype(np.float32)
    y[3, 2, 2] = np.nan
    torch.save({"start": torch.from_numpy(y[:, 0]), "all": torch.from_numpy(y)}, tmp_path / "d.pt")
    keys = ["--input", "start", "--output", "all", "--frames", "4,5", "--out", tmp_path / "d.h5"]
    result = run("convert", tmp_path / "d.pt", *keys)
    assert result.exit_code == 2
    assert "--drop-bad" in result.stderr
    facts, result = answer("convert", tmp_path / "d.pt", *keys, "--drop-bad")
    assert result.exit_code == 0
    assert facts["count"] == 4
    assert facts["origin"]["left_out"]["count"] == 1
    assert facts["origin"]["converted_from"] == ["d.pt"]
    assert np.array_equal(read_samples(tmp_path / "d.h5").outputs, y[[0, 1, 2, 4], 4:])
    assert "--force" in run("convert", tmp_path / "d.pt", *keys).stderr
    text = run("convert", tmp_path / "d.pt", *keys, "--drop-bad", "--force").stdout
    assert "output: all[4]" in text
    assert "wrote" in text


@pytest.mark.parametrize("frames", ["4", "a,b", "1,2,3", "9,9"])
def test_wrong_frames_are_told(tmp_path, frames):
    torch.save({"x": torch.ones(2, 8), "y": torch.ones(2, 3, 8)}, tmp_path / "d.pt")
    result = run("convert", tmp_path / "d.pt", "--frames", frames, "--out", tmp_path / "d.h5")
    assert result.exit_code == 2
    assert "frames" in result.stderr


def test_several_files_are_one_data_set(tmp_path):
    for name in "XYQ":
        np.save(tmp_path / f"Pipe_{name}.npy", np.ones((3, 5, 4)))
    files = [tmp_path / f"Pipe_{name}.npy" for name in "QXY"]
    facts, _ = answer("convert", *files, "--out", tmp_path / "d.h5")
    assert [channel["name"] for channel in facts["inputs"]] == ["x", "y"]


def test_a_real_file_is_converted(data, tmp_path):
    source = data / "burgers_1d_small" / "burgers_test_16.pt"
    facts, _ = answer("convert", source, "--frames", "1,16", "--out", tmp_path / "d.h5")
    assert facts["count"] == 400
    assert len(facts["outputs"]) == 16
    assert np.array_equal(read_samples(tmp_path / "d.h5").outputs, read_data(source, frames=(1, 16)).outputs)
