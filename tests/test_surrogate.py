"""Trained models of fields: files that rebuild them, other grids than their own, roll-outs, refusals."""

import json

import numpy as np
import pytest
import torch

from neuralsolve import models
from neuralsolve.data import Layout, Samples
from neuralsolve.errors import FormatError, NonFiniteError, OptionError, ShapeError
from neuralsolve.models import Surrogate, evaluated
from neuralsolve.models.evaluation import measured, steps_for
from neuralsolve.preconditioners.weights import read_tensors, write_tensors

rng = np.random.default_rng(7741)
NET = {"name": "unet", "width": 8, "levels": 1, "norm": "instance"}


def data(side=12, count=6, outputs=1, boundary=("dirichlet",) * 2, closed=True):
    axis = np.linspace(0, 1, side) if closed else np.arange(side) / side
    wave = np.sin(np.pi * axis) if closed else np.sin(2 * np.pi * axis)
    a = rng.standard_normal((count, 1, 1, 1)) * np.outer(wave, wave)
    return Samples(a, np.repeat(2 * a, outputs, 1), Layout((axis,) * 2, ("a",), boundary=boundary))


def model(samples, net=NET, normaliser="channel", frames=None):
    with torch.random.fork_rng():
        torch.manual_seed(8181)
        return Surrogate.of(net, samples, normaliser, frames)


@pytest.mark.parametrize(
    "net", [NET, {"name": "lsm", "width": 8, "levels": 1}, {"name": "fno", "width": 4, "modes": 4}]
)
@pytest.mark.parametrize("normaliser", ["pointwise", "channel", "none"])
def test_a_file_rebuilds_the_model(net, normaliser, tmp_path):
    samples = data()
    one = model(samples, net, normaliser)
    one.save(tmp_path / "m.safetensors", {"note": "kept"})
    before = torch.get_rng_state()
    other = Surrogate.load(tmp_path / "m.safetensors")
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(one.predict(samples), other.predict(samples))
    assert other.network == one.network
    assert other.layout.boundary == samples.layout.boundary
    assert all(np.array_equal(a, b) for a, b in zip(other.layout.axes, samples.layout.axes, strict=True))
    assert read_tensors(tmp_path / "m.safetensors")[1]["note"] == "kept"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts | {"version": 2}, "of version 2"),
        (lambda facts: facts | {"network": facts["network"] | {"width": 16}}, "do not fit the network"),
        (lambda facts: facts | {"network": facts["network"] | {"name": "unett"}}, "did you mean 'unet'"),
        (lambda facts: facts | {"network": facts["network"] | {"widht": 9}}, "widht"),
        (lambda facts: facts | {"axes": ["here"]}, "do not fit"),
        (lambda facts: {key: value for key, value in facts.items() if key != "axes"}, "axes"),
        (lambda facts: [facts], "holds no model of fields"),
    ],
)
def test_files_of_something_else_are_refused(change, message, tmp_path):
    path = tmp_path / "m.safetensors"
    model(data()).save(path)
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, {"surrogate": json.dumps(change(json.loads(metadata["surrogate"])))})
    with pytest.raises(FormatError, match=message):
        Surrogate.load(path)


def test_no_file_no_model_and_no_safetensors_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="neuralsolve train"):
        Surrogate.load(tmp_path / "m.safetensors")
    (tmp_path / "m.safetensors").write_bytes(b"half")
    with pytest.raises(FormatError, match="no safetensors file"):
        Surrogate.load(tmp_path / "m.safetensors")
    write_tensors(tmp_path / "m.safetensors", {"a": torch.zeros(2)}, {})
    with pytest.raises(FormatError, match="holds no model of fields"):
        Surrogate.load(tmp_path / "m.safetensors")


def test_batches_make_no_difference_and_the_mode_stays():
    samples = data(count=7)
    one = model(samples, NET | {"norm": "batch"})
    one.train()
    whole = one.predict(samples)
    assert one.training
    for batch in (1, 3):
        assert np.allclose(one.predict(samples, batch=batch), whole, rtol=0, atol=1e-5 * np.abs(whole).max())
    with pytest.raises(ShapeError):
        one.predict(np.zeros((2, 5, 12, 12)))
    assert one.training


class Doubling(torch.nn.Module):
    def forward(self, x):
        return 2 * x


def doubling(samples):
    """A model whose error is that of resampling alone."""
    one = model(samples, normaliser="none")
    one.net = Doubling()
    return one


@pytest.mark.parametrize(
    ("boundary", "closed"), [("dirichlet", True), ("periodic", False), ("dirichlet", False)]
)
def test_fields_of_other_grids_are_resampled_there_and_back(boundary, closed):
    wave = 1 if boundary == "periodic" else 0.5

    def smooth(side):
        axis = np.linspace(0, 1, side) if closed else np.arange(side) / side
        a = np.sin(2 * np.pi * wave * axis)[:, None] * np.sin(2 * np.pi * wave * axis)
        return Samples(a[None, None], 2 * a[None, None], Layout((axis,) * 2, boundary=(boundary,) * 2))

    one = doubling(smooth(24))
    for side in (24, 37, 48):
        other = smooth(side)
        assert np.abs(one.predict(other) - other.outputs).max() < (2e-3 if side != 24 else 1e-6), side
        assert np.array_equal(one.predict(other), one.predict(other.inputs, other.layout.axes))


def test_arrays_need_their_axes_where_the_grid_is_another():
    one = model(data())
    with pytest.raises(ShapeError, match="pass their axes="):
        one.predict(np.zeros((2, 1, 9, 9)))
    with pytest.raises(ShapeError, match=r"axes of \(9, 8\) nodes for inputs on \(9, 9\)"):
        one.predict(np.zeros((2, 1, 9, 9)), [np.linspace(0, 1, 9), np.linspace(0, 1, 8)])
    with pytest.raises(ShapeError, match="trained on 2"):
        one.predict(np.zeros((2, 1, 9)), [np.linspace(0, 1, 9)])
    with pytest.raises(ShapeError, match="1 channels, nodes"):
        one.predict(np.zeros((2, 9, 9)))


def test_inputs_that_nothing_can_be_made_of_are_refused(tmp_path):
    one = model(data())
    far = [np.linspace(0, 1, 12), np.linspace(0, 100, 12)]
    with pytest.raises(OptionError, match="axis 1 runs from 0 to 100, and the model was trained on 0 to 1"):
        one.predict(np.ones((2, 1, 12, 12)), far)
    one.predict(np.ones((2, 1, 9, 9)), [np.arange(9) / 9] * 2)  # without the far wall
    model(data(closed=False)).predict(np.ones((2, 1, 9, 9)), [np.linspace(0, 1, 9)] * 2)
    holes = np.ones((4, 1, 12, 12))
    holes[2, 0, 3, 3], holes[3, 0, 1, 1] = np.nan, np.inf
    with pytest.raises(NonFiniteError, match="in 2 of 4 samples, the first is number 2"):
        one.predict(holes)
    with pytest.raises(ShapeError, match="one sample at least"):
        one.predict(holes[:0])
    one.save(str(tmp_path / "q.safetensors"))
    assert Surrogate.load(str(tmp_path / "q.safetensors")).predict(holes[:1]).shape == (1, 1, 12, 12)


def test_networks_say_what_they_cannot_do():
    with pytest.raises(ShapeError, match="20 modes on"):
        model(data(), {"name": "fno", "modes": 20, "width": 4}).predict(data())
    deep = model(data(5), NET | {"levels": 4})  # far fewer nodes than 2^levels: padded
    assert deep.predict(data(5)).shape == (6, 1, 5, 5)
    with pytest.raises(OptionError, match="network 'unet': unknown option 'widht'; did you mean 'width'"):
        model(data(), NET | {"widht": 8})
    with pytest.raises(OptionError, match="width = 12, heads = 8; a width that is a multiple of heads"):
        model(data(), {"name": "lsm", "width": 12})


def test_a_roll_out_is_made_of_its_steps():
    samples = data(outputs=3)
    one = model(samples, frames=1).eval()
    x = torch.from_numpy(samples.inputs).float()
    with torch.no_grad():
        first = one(x)
        assert torch.equal(one.rollout(x, 3), torch.cat([first, one(first), one(one(first))], 1))
    assert steps_for(one, samples) == 3
    assert steps_for(one, data()) is None
    assert one.predict(samples, steps=3).shape == samples.outputs.shape


def test_a_model_is_measured_on_any_grid():
    samples, finer = data(24), data(48)
    row = evaluated(doubling(samples), samples)
    assert row["l2"] < 1e-6
    assert row["worst"] >= row["l2"]
    assert evaluated(doubling(samples), finer)["l2"] < 2e-3
    missed = lambda a, u: np.abs(u - 2 * a).max((1, 2, 3))  # noqa: E731
    found = measured(samples, samples.outputs + 0.5, missed)
    assert np.allclose(found["residual"], 0.5)
    assert found["residual_truth"].max() == 0
    with pytest.raises(ShapeError, match="3 channels were predicted, the data have 1"):
        measured(samples, np.zeros((6, 3, 24, 24)))


def test_names_are_exported_and_others_are_not():
    assert set(models._PLACES) <= set(dir(models))
    for name in models._PLACES:
        assert getattr(models, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'LSM'"):
        models.LSM  # noqa: B018


@pytest.mark.parametrize("steps", [0, -1, 1.5, "2"])
def test_a_roll_out_of_no_steps_is_refused(steps):
    with pytest.raises(OptionError, match="at least 1"):
        model(data()).predict(data(), steps=steps)
