"""Training that begins with a trained model: from the command line to a model that needs no adapter."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from test_cli import answer, run
from test_fields_cli import CASE

from neuralsolve.cases.field_data import Data
from neuralsolve.lowrank.adapters import load_adapter
from neuralsolve.models import Surrogate
from neuralsolve.preconditioners.weights import read_tensors

OTHER = (
    CASE.replace("grid = 17", "grid = 17, high = 30.0").split("[[tests]]")[0]
    + "[schedule]\nepochs = 2\nbatch = 4\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained model, and a case with other data."""
    path = tmp_path_factory.mktemp("tuning")
    (path / "train_small.toml").write_text(CASE.split("[[tests]]")[0] + "[schedule]\nepochs = 2\nbatch = 4\n")
    assert run("train", path / "train_small.toml", "--out-dir", path / "small").exit_code == 0
    (path / "train_other.toml").write_text(OTHER)
    return path


@pytest.mark.parametrize("adapter", ["lora-sb", "tensor-lora"])
def test_an_adapter_is_trained_on_a_model(folder, tmp_path, adapter):
    start = folder / "small" / "small.safetensors"
    options = ("--start", start, "--adapter", adapter, "--rank", 2, "--out-dir", tmp_path / "out")
    facts, result = answer("train", folder / "train_other.toml", *options)
    assert result.exit_code == 0
    file = tmp_path / "out" / "adapter.safetensors"
    assert str(file) in facts["files"]
    base, made = Surrogate.load(start), Surrogate.load(tmp_path / "out" / "other.safetensors")
    x = torch.randn(2, 1, 17, 17, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        assert not torch.allclose(made(x), base(x))
        again = load_adapter(copy.deepcopy(base), file)
        assert torch.allclose(made(x), again(x), rtol=1e-5, atol=1e-6)
    _, metadata = read_tensors(tmp_path / "out" / "other.safetensors")
    assert json.loads(metadata["adapter"]) == {"name": adapter, "rank": 2}
    assert int(metadata["parameters"]) < 0.5 * sum(p.numel() for p in base.parameters())
    facts, result = answer("train", folder / "train_other.toml", *options)  # nothing left to do
    assert result.exit_code == 0
    other = run("train", folder / "train_other.toml", *options[:2], "--out-dir", tmp_path / "out")
    assert other.exit_code == 2
    assert "adapter" in other.stderr


def test_all_weights_are_trained_from_a_start(folder, tmp_path):
    start = folder / "small" / "small.safetensors"
    _, result = answer("train", folder / "train_other.toml", "--start", start, "--out-dir", tmp_path / "out")
    assert result.exit_code == 0
    assert not (tmp_path / "out" / "adapter.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (("", ""), ("--adapter", "lora"), "--start FILE"),
        (("", ""), ("--rank", 3), "which projects nothing"),
        (
            ("batch = 4", 'batch = 4\noptimizer = "galore"'),
            ("--start", "START", "--adapter", "lora"),
            "adamw",
        ),
        (("", ""), ("--start", "START", "--adapter", "lora", "--rank", 4096), "rank"),
        (("", ""), ("--start", "START", "--adapter", "lara"), "did you mean 'lora'"),
        (("", ""), ("--start", "START", "--adapter", "osf", "--rank", 3), "no option 'rank'"),
        (("", ""), ("--start", "START", "--adapter", "gpm"), "older task"),
        (("width = 8", "width = 16"), ("--start", "START"), "width = 8"),
        (('"lsm"', '"unet"'), ("--start", "START"), "name = 'lsm'"),
        (("grid = 17", "grid = 9"), ("--start", "START"), "the same grid"),
    ],
)
def test_what_does_not_fit_is_told(folder, tmp_path, change, options, message):
    case = tmp_path / "train_other.toml"
    case.write_text(OTHER.replace(*change) if change[0] else OTHER)
    given = [folder / "small" / "small.safetensors" if each == "START" else each for each in options]
    result = run("train", case, *given, "--out-dir", tmp_path / "out")
    assert result.exit_code == 2
    assert message in result.stderr


def test_sequences_take_no_adapter(tmp_path):
    result = run("train", "train_ssm_digits", "--adapter", "lora", "--out-dir", tmp_path / "out")
    assert result.exit_code == 2
    assert "no model of fields" in result.stderr


@pytest.mark.parametrize("options", [("--start", "no.safetensors"), ("--start", "START")])
def test_a_start_is_refused_before_data_are_made_and_no_folder_stays(folder, tmp_path, monkeypatch, options):
    case = tmp_path / "train_other.toml"
    case.write_text(OTHER.replace("width = 8", "width = 16"))
    monkeypatch.setattr(Data, "samples", lambda *_: pytest.fail("the data are made"))
    given = [folder / "small" / "small.safetensors" if each == "START" else each for each in options]
    result = run("train", case, *given, "--out-dir", tmp_path / "some" / "where")
    assert result.exit_code == 2
    assert [each.name for each in tmp_path.iterdir()] == [case.name]


def test_a_folder_that_was_there_stays(folder, tmp_path):
    given = ("--start", tmp_path / "no.safetensors", "--out-dir", tmp_path / "out")
    (tmp_path / "out").mkdir()
    assert run("train", folder / "train_other.toml", *given).exit_code == 2
    assert not list((tmp_path / "out").iterdir())
