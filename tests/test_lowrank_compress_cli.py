"""``neuralsolve compress``: a saved model in, a smaller one out, a table, a picture, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from test_cli import answer, run

from neuralsolve.data import Layout, Samples, write_samples
from neuralsolve.errors import OptionError
from neuralsolve.lowrank.compress import structure_of
from neuralsolve.models import FieldTraining, Surrogate, train
from neuralsolve.plot import compression_figure
from neuralsolve.preconditioners.weights import read_tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained model and its data."""
    path = tmp_path_factory.mktemp("compress")
    rng, axis = np.random.default_rng(907), np.linspace(0, 1, 12)
    waves = np.sin(np.pi * np.arange(1, 4)[:, None] * axis)
    a = np.einsum("nij,ix,jy->nxy", rng.standard_normal((30, 3, 3)), waves, waves)[:, None]
    samples = Samples(a, np.tanh(a), Layout((axis, axis), ("a",), boundary=("dirichlet",) * 2))
    write_samples(path / "data.h5", samples)
    net = {"name": "unet", "width": 8, "levels": 1}
    train(samples, network=net, options=FieldTraining(epochs=1)).save(path / "m.safetensors")
    return path


def test_a_model_becomes_smaller(folder, tmp_path):
    out, picture = tmp_path / "small.safetensors", tmp_path / "kept.png"
    given = [folder / "m.safetensors", "--data", folder / "data.h5", "--out", out]
    result = run("compress", *given, "--kept", 0.6, "--epochs", 1, "--plot", picture)
    assert result.exit_code == 0, result.output
    for words in (
        "body.up.0.first",
        "whole",
        "% kept",
        "relative L2 of 3 held samples",
        "refitted",
        "fine-tuned",
        "wrote",
    ):
        assert words in result.output
    small, dense = Surrogate.load(out), Surrogate.load(folder / "m.safetensors")
    assert structure_of(small)
    sizes = [sum(p.numel() for p in each.parameters()) for each in (small, dense)]
    assert sizes[0] <= 0.6 * sizes[1]
    assert read_tensors(out)[1]["compressed_from"] == str(folder / "m.safetensors")
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert run("evaluate", out, folder / "data.h5").exit_code == 0
    twice = tmp_path / "smaller.safetensors"
    again, _ = answer("compress", out, "--data", folder / "data.h5", "--out", twice, "--kept", 0.8)
    assert again["kept"] <= 0.8
    assert Surrogate.load(twice).predict(np.zeros((1, 1, 12, 12))).shape == (1, 1, 12, 12)


def test_the_plan_is_that_of_the_options(folder, tmp_path):
    given = [folder / "m.safetensors", "--data", folder / "data.h5", "--out", tmp_path / "s.safetensors"]
    options = ["--factoriser", "svd", "--allocator", "uniform", "--round-to", 2, "--exclude", "down"]
    found, _ = answer("compress", *given, *options, "--kept", 0.85, "--no-refit")
    ranks = [each["rank"] for each in found["layers"] if each["rank"] is not None]
    assert ranks
    assert all(rank % 2 == 0 for rank in ranks)
    assert "net.body.down.0.first" in found["left"]
    assert set(found["relative_l2"]) == {"dense", "compressed"}
    assert found["parameters"] <= 0.85 * found["parameters_before"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--kept", 0], "kept = 0.0"),
        (["--kept", 0.001], "keep more"),
        (["--factoriser", "amf"], "did you mean 'afm'"),
        (["--include", "nothing"], "no layer to compress"),
        (["--out", "m.npz"], ".safetensors"),
    ],
)
def test_refusals(options, told, folder, tmp_path):
    given = ["--data", folder / "data.h5", "--out", tmp_path / "s.safetensors"]
    result = run("compress", folder / "m.safetensors", *given, *options)
    assert result.exit_code == 2
    assert told in result.output
    assert not list(tmp_path.iterdir())


def test_the_picture_refuses_nothing_to_draw():
    with pytest.raises(OptionError, match="0 layers"):
        compression_figure({}, {"afm": {1.0: 0.1}})
    with pytest.raises(OptionError, match="5 curves"):
        compression_figure({"a": (2, 1)}, {str(k): {1.0: 0.1} for k in range(5)})
