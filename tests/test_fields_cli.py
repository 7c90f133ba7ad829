"""``train``, ``evaluate``, ``predict`` and ``compare`` of models of fields, from a case to a table."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from test_cli import answer, run

from neuralsolve.cases import load_case
from neuralsolve.data import Layout, Samples, read_samples, write_samples
from neuralsolve.errors import OptionError
from neuralsolve.models import Surrogate
from neuralsolve.models.training_loop import CHECKPOINT, LOG, read_log
from neuralsolve.preconditioners.weights import read_tensors

CASE = """
kind = "train"
title = "small"
network = "lsm"
[options]
width = 8
levels = 2
[data]
equation = "darcy"
parameters = { grid = 17 }
count = 20
train = 12
validation = 4
test = 4
[[tests]]
name = "finer"
equation = "darcy"
parameters = { grid = 33 }
count = 3
seed = 77
[schedule]
epochs = 2
batch = 4
symmetry = "square"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained model, its data, and another model beside it."""
    path = tmp_path_factory.mktemp("fields")
    for name, network in (("small", "lsm"), ("other", "unet")):
        case = path / f"train_{name}.toml"
        case.write_text(CASE.replace('"lsm"', f'"{network}"'))
        assert run("train", case, "--out-dir", path / name).exit_code == 0
    return path


def test_a_case_becomes_data_a_model_and_figures(folder):
    names = {"small.safetensors", "best.safetensors", "last.safetensors", "data.h5", "finer.h5"}
    names |= {"loss.png", "fields.png", CHECKPOINT, LOG}
    assert {path.name for path in (folder / "small").iterdir()} == names
    tensors, metadata = read_tensors(folder / "small" / "small.safetensors")
    assert metadata["command"] == "neuralsolve train train_small.toml"
    results = json.loads(metadata["results"])
    assert [(row["test"], row["samples"], row["shape"]) for row in results] == [
        ("test", 4, [17, 17]),
        ("finer", 3, [33, 33]),
    ]
    assert all(row["residual_truth"] < 1e-4 < row["residual"] for row in results)
    best, _ = read_tensors(folder / "small" / "best.safetensors")
    assert all(np.array_equal(value, best[name]) for name, value in tensors.items())
    assert len(read_log(folder / "small" / LOG)) == 2


def test_the_same_command_goes_on_and_other_data_are_refused(folder, tmp_path):
    case = tmp_path / "train_small.toml"
    case.write_text(CASE)
    facts, result = answer("train", case, "--out-dir", folder / "small")  # nothing left to do
    assert result.exit_code == 0
    assert facts["steps"] == 6
    case.write_text(CASE.replace("grid = 17", "grid = 9"))
    result = run("train", case, "--out-dir", folder / "small")
    assert result.exit_code == 2
    assert "holds samples made with {'grid': 17}" in result.stderr
    case.write_text(CASE.replace("batch = 4", "batch = 3"))
    assert "batch = 4 there, 3 asked for;" in run("train", case, "--out-dir", folder / "small").stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("epochs", "epoch"), "did you mean 'epochs'"),
        (("epochs = 2", "epochs = 0"), "schedule: epochs = 0; at least 1 is needed"),
        (("epochs = 2", 'epochs = "x"'), "schedule.epochs: 'x'"),
        (('"square"', '"sqare"'), "did you mean 'square'"),
        (("count = 20", "count = 19"), "20 samples together"),
        (("count = 20\n", ""), "data: file = FILE, or equation = NAME with count = N, is needed"),
        (("validation = ", "# "), "validation is missing; docs/fields.md has the schema"),
        (('"darcy"\nparameters = { grid = 17 }', '"darci"'), "did you mean 'darcy'"),
        (('name = "finer"', 'name = "data"'), "not 'data' or 'test'"),
        (('name = "finer"', 'name = "../finer"'), "tests.0.name"),
        (('"lsm"', '"lms"'), "did you mean 'lsm'"),
        (("width = 8", "widht = 8"), None),
    ],
)
def test_cases_that_cannot_be_trained_are_refused(change, message, tmp_path):
    assert change[0] in CASE
    path = tmp_path / "train_small.toml"
    path.write_text(CASE.replace(change[0], change[1], 1))
    if message is not None:
        with pytest.raises(OptionError, match=message):
            load_case(path)
        return
    result = run("train", path, "--out-dir", tmp_path / "out")
    assert result.exit_code == 2
    assert "widht" in result.stderr


def test_a_model_is_evaluated_at_the_resolution_of_the_data(folder, tmp_path):
    model, data = folder / "small" / "small.safetensors", folder / "small" / "finer.h5"
    picture, table = tmp_path / "e.png", tmp_path / "e.csv"
    facts, result = answer("evaluate", model, data, "--plot", picture, "--csv", table)
    assert result.exit_code == 0
    assert facts["shape"] == [33, 33]
    assert facts["trained_on"] == [17, 17]
    made = Surrogate.load(model).predict(read_samples(data))
    truth = read_samples(data).outputs
    error = np.linalg.norm((made - truth).reshape(3, -1), axis=1) / np.linalg.norm(
        truth.reshape(3, -1), axis=1
    )
    assert facts["metrics"]["l2"]["mean"] == pytest.approx(error.mean(), rel=1e-5)
    assert facts["metrics"]["l2"]["worst"] == pytest.approx(error.max(), rel=1e-5)
    assert {"h1", "max", "boundary", "vrmse", "low", "middle", "high", "residual"} <= set(facts["metrics"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    with table.open() as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    assert float(rows["l2"]["mean"]) == facts["metrics"]["l2"]["mean"]
    part, _ = answer("evaluate", model, data, "--first", 1, "--count", 1)
    assert part["samples"] == 1
    assert part["metrics"]["l2"]["mean"] == pytest.approx(error[1], rel=1e-5)
    text = run("evaluate", model, data).stdout
    assert "trained on 17 x 17; resampled" in text
    assert "residual_truth" in text
    again = run("evaluate", model, data, "--plot", picture)
    assert again.exit_code == 2
    assert "--force" in again.stderr


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_predictions_are_written_beside_their_inputs(folder, tmp_path, suffix):
    model, data = folder / "small" / "small.safetensors", folder / "small" / "data.h5"
    out = tmp_path / f"p{suffix}"
    facts, result = answer("predict", model, data, "--out", out, "--first", 16)
    assert result.exit_code == 0
    assert facts["shape"] == [4, 1, 17, 17]
    whole = read_samples(data).take(slice(16, None))
    made = Surrogate.load(model).predict(whole)
    if suffix == ".npz":
        with np.load(out) as found:
            assert np.array_equal(found["outputs"], made)
            assert np.array_equal(found["inputs"], whole.inputs)
            assert np.array_equal(found["axis0"], whole.layout.axes[0])
    else:
        found = read_samples(out)
        assert np.array_equal(found.outputs, made)
        assert found.layout.outputs == ("u",)
        assert found.layout.origin["predicted_by"] == str(model)
        assert found.residuals is None
    assert run("predict", model, data, "--out", out).exit_code == 2
    assert run("predict", model, data, "--out", out, "--force").exit_code == 0
    assert ".h5 or .npz" in run("predict", model, data, "--out", tmp_path / "p.csv").stderr


def test_models_are_compared_in_one_table(folder, tmp_path):
    models = [folder / name / f"{name}.safetensors" for name in ("small", "other")]
    data, picture, table = folder / "small" / "finer.h5", tmp_path / "c.png", tmp_path / "c.csv"
    facts, result = answer("compare", *models, data, "--plot", picture, "--csv", table)
    assert result.exit_code == 0
    rows = facts["models"]
    assert {row["network"] for row in rows} == {"lsm", "unet"}
    assert rows[0]["l2"] <= rows[1]["l2"]
    for row in rows:
        assert row["median"] <= row["worst"]
        assert row["parameters"] > 1000
        assert row["training_seconds"] is not None
        single, _ = answer("evaluate", row["model"], data)
        assert row["l2"] == pytest.approx(single["metrics"]["l2"]["mean"])
        assert row["residual"] == pytest.approx(single["metrics"]["residual"]["mean"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(table.read_text().splitlines()) == 3
    text = run("compare", *models, data).stdout
    assert text.splitlines()[1].startswith(("small", "other"))
    assert "models are needed" in run("compare", data).stderr


def test_what_cannot_be_measured_is_refused(folder, tmp_path):
    model, data = folder / "small" / "small.safetensors", folder / "small" / "data.h5"
    assert "20 samples" in run("evaluate", model, data, "--first", 20).stderr
    assert "20 samples" in run("evaluate", model, data, "--first", 18, "--count", 3).stderr
    checkpoint = run("evaluate", folder / "small" / CHECKPOINT, data)
    assert checkpoint.exit_code == 2
    assert "holds no model of fields" in checkpoint.stderr
    assert "3 channels were predicted" in run("evaluate", model, data, "--steps", 3).stderr
    foreign = tmp_path / "foreign.h5"
    samples = read_samples(data)
    write_samples(foreign, replace(samples, layout=replace(samples.layout, equation={"name": "unheard"})))
    facts, result = answer("evaluate", model, foreign)  # the equation is not known: the rest is told
    assert result.exit_code == 0
    assert "residual" not in facts["metrics"]


def test_a_roll_out_is_trained_and_measured_over_all_frames(tmp_path):
    first = np.random.default_rng(409).standard_normal((12, 1, 8, 8))
    series = np.concatenate([first * 0.9**k for k in range(5)], 1).astype(np.float32)
    axis = np.arange(8) / 8
    data = Samples(series[:, :2], series[:, 2:], Layout((axis, axis), boundary=("periodic",) * 2))
    write_samples(tmp_path / "series.h5", data)
    case = tmp_path / "train_rolled.toml"
    case.write_text(
        'kind = "train"\nnetwork = "unet"\n[options]\nwidth = 8\nlevels = 1\n[data]\nfile = "series.h5"\n'
        "train = 8\nvalidation = 2\ntest = 2\n"
        '[schedule]\nepochs = 2\nbatch = 4\nrollout = 3\nsymmetry = "shifts"\n'
    )
    facts, result = answer("train", case, "--out-dir", tmp_path)
    assert result.exit_code == 0
    model = tmp_path / "rolled.safetensors"
    whole, _ = answer("evaluate", model, tmp_path / "series.h5", "--first", 10, "--plot", tmp_path / "e.png")
    assert whole["metrics"]["l2"]["mean"] == pytest.approx(facts["results"][0]["l2"], abs=1e-5)
    one, _ = answer("evaluate", model, tmp_path / "series.h5", "--first", 10, "--steps", 1)
    made = Surrogate.load(model).predict(data.take(slice(10, None)), steps=1)
    truth = data.outputs[10:, :1]
    error = np.linalg.norm((made - truth).reshape(2, -1), axis=1) / np.linalg.norm(
        truth.reshape(2, -1), axis=1
    )
    assert one["metrics"]["l2"]["mean"] == pytest.approx(error.mean(), rel=1e-5)
    assert run("compare", model, tmp_path / "series.h5", "--plot", tmp_path / "c.png").exit_code == 0
    too_many = run("evaluate", model, tmp_path / "series.h5", "--steps", 4)
    assert "fewer steps" in too_many.stderr


def test_a_network_of_frames_is_trained_on_histories_and_measured_in_roll_outs(tmp_path):
    case = tmp_path / "train_waves.toml"
    case.write_text(
        'kind = "train"\nnetwork = "fno-memory"\n'
        "[options]\nwidth = 4\nmodes = 4\nbefore = 1\nafter = 1\nstate = 4\n"
        '[data]\nequation = "kuramoto-sivashinsky"\ncount = 12\ntrain = 8\nvalidation = 2\ntest = 2\n'
        "parameters = { burn_in = 0.0, final = 3.0, frames = 3 }\nstride = 8\n"
        '[schedule]\nepochs = 2\nbatch = 4\npasses = 2\nloss = { frames = 1.0 }\nsymmetry = "shifts"\n'
    )
    facts, result = answer("train", case, "--out-dir", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "residual" not in facts["results"][0]  # 32 nodes cannot tell
    model, data = Surrogate.load(tmp_path / "waves.safetensors"), read_samples(tmp_path / "data.h5").every(8)
    test = data.take(slice(10, None))
    made = model.predict(test, steps=3)
    error = np.linalg.norm((made - test.outputs).reshape(2, -1), axis=1)
    error /= np.linalg.norm(test.outputs.reshape(2, -1), axis=1)
    assert facts["results"][0]["l2"] == pytest.approx(error.mean(), abs=1e-5)
    write_samples(tmp_path / "test.h5", test)
    whole, _ = answer("evaluate", tmp_path / "waves.safetensors", tmp_path / "test.h5")
    assert whole["metrics"]["l2"]["mean"] == pytest.approx(error.mean(), abs=1e-5)
