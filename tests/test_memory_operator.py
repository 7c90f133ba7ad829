"""A Fourier operator with a memory: causality, steps and sequences, what it equals without, and roll-outs."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from neuralsolve.data import Layout, Samples
from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.models import FieldTraining, Surrogate, evaluated
from neuralsolve.models.evaluation import steps_for
from neuralsolve.models.fitting import train
from neuralsolve.models.fourier_layer import FourierLayer
from neuralsolve.models.frames import own_frames
from neuralsolve.models.memory_operator import NONE, STARTS, MemoryOperator
from neuralsolve.models.networks import parameters_of

SEED = 6337
SMALL: dict[str, Any] = {"width": 8, "modes": 3, "before": 1, "after": 1, "state": 8}


def made(dim=1, frames=6, **options):
    torch.manual_seed(SEED)
    return MemoryOperator(dim, frames, frames, **(SMALL | options))


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(SEED))


def waves(count=6, frames=5, side=16):
    """Waves that travel at a speed of their own, which no single frame shows."""
    generator = np.random.default_rng(SEED)
    speed, phase = generator.uniform(-1.5, 1.5, (2, count, 1, 1))
    x, t = np.arange(side) / side, np.arange(frames + 1)[:, None] / 8
    u = 3.0 + np.sin(2 * np.pi * (x - speed * t + phase))
    names = tuple(f"u{k}" for k in range(frames + 1))
    layout = Layout((x,), names[:1], names[1:], boundary=("periodic",))
    return Samples(u[:, :1].astype(np.float32), u[:, 1:].astype(np.float32), layout)


@pytest.mark.parametrize("dim", [1, 2])
def test_a_fourier_layer_is_a_convolution_and_knows_waves_by_their_modes(dim):
    torch.manual_seed(SEED)
    layer = FourierLayer(dim, 3, 2)
    shape = (8, 10)[:dim]
    z = noise(2, *shape, 3)
    axes = tuple(range(1, 1 + dim))
    moved = layer(z.roll((3,) * dim, axes))
    assert torch.allclose(moved, layer(z).roll((3,) * dim, axes), atol=1e-5)
    high = torch.cos(2 * torch.pi * 3 * torch.arange(shape[0]) / shape[0])  # beyond the modes
    high = high.reshape(-1, *[1] * (dim - 1), 1).expand(*shape, 3)[None]
    assert torch.allclose(layer(z + high), layer(z) + high, atol=1e-5)


def test_the_modes_of_a_fourier_layer_do_not_depend_on_the_grid():
    torch.manual_seed(SEED)
    layer = FourierLayer(2, 2, 3)
    z = noise(1, 8, 8, 2)
    spectrum = torch.fft.rfft2(z, dim=(1, 2), norm="forward")
    spectrum[:, 4], spectrum[:, :, 4] = 0, 0  # the last wave of an even grid is two on a finer one
    fine = torch.zeros(1, 16, 9, 2, dtype=spectrum.dtype)
    fine[:, :4, :5], fine[:, -4:, :5] = spectrum[:, :4], spectrum[:, -4:]
    z = torch.fft.irfft2(spectrum, s=(8, 8), dim=(1, 2), norm="forward")
    z_fine = torch.fft.irfft2(fine, s=(16, 16), dim=(1, 2), norm="forward")
    assert torch.allclose(layer(z_fine)[:, ::2, ::2], layer(z), atol=1e-5)


@pytest.mark.parametrize(("side", "modes"), [(32, 16), (33, 16), (12, 1)])
def test_transforms_by_products_are_those_by_fft(side, modes):
    torch.manual_seed(SEED)
    layer, z = FourierLayer(1, 4, modes), noise(3, side, 4)
    assert torch.allclose(layer._by_products(z), layer._by_fft(z, (1,)), atol=1e-5)


@pytest.mark.parametrize("memory", [*STARTS, NONE])
@pytest.mark.parametrize("dim", [1, 2])
def test_steps_give_what_the_whole_sequence_does(memory, dim):
    net = made(dim, memory=memory)
    x = noise(2, 6, *(8, 10)[:dim])
    with torch.no_grad():
        whole = net(x)
        state, found = None, []
        for k in range(6):
            frame, state = net.step(x[:, k : k + 1], state)
            found.append(frame)
        first, carried = net(x[:, :4], return_state=True)
        rest = net(x[:, 4:], carried)
    assert torch.allclose(torch.cat(found, 1), whole, atol=2e-5)
    assert torch.allclose(torch.cat([first, rest], 1), whole, atol=2e-5)


@pytest.mark.parametrize("memory", ["ptd", NONE])
def test_what_comes_later_changes_nothing_before(memory):
    net, x = made(memory=memory, fields=2, frames=12), noise(2, 12, 8)
    other = x.clone()
    other[:, 6:8] += 1.0  # frame 3 of 6
    change = (net(other) - net(x)).abs().reshape(2, 6, -1).amax((0, 2))
    assert change[:3].max() <= 1e-5
    assert change[3] > 0.1
    assert (change[4:] > 1e-4).all() if memory == "ptd" else change[4:].max() <= 1e-5


def test_fields_of_a_frame_stay_together():
    """A frame of two fields, seen alone, gives what the sequence gives where it is the first."""
    net, x = made(2, frames=6, fields=2), noise(3, 6, 8, 8)
    assert torch.allclose(net(x)[:, :2], net(x[:, :2]), atol=1e-5)
    with pytest.raises(ShapeError, match="one frame of 2"):
        net.step(x, None)
    with pytest.raises(ShapeError, match=r"need .*frames"):
        net(x[:, :5])


@pytest.mark.parametrize(("width", "state"), [(8, 8), (24, 16), (32, 32), (48, 64)])
def test_without_a_memory_there_are_as_many_parameters(width, state):
    count = {
        memory: parameters_of(made(width=width, state=state, memory=memory, before=2, after=2))
        for memory in ("ptd", "legs", NONE)
    }
    assert abs(count[NONE] / count["ptd"] - 1) <= 0.02
    assert abs(count[NONE] / count["legs"] - 1) <= 0.02


def test_places_of_a_periodic_axis_are_angles_and_may_be_left_out():
    x = noise(1, 3, 8)
    for coordinates in (True, False):
        net = made(frames=3, coordinates=coordinates)
        moved = torch.allclose(net(x.roll(2, -1)), net(x).roll(2, -1), atol=1e-5)
        assert moved != coordinates
    lines = made(frames=3, closed=True)._placed(x[..., None])[0, 0, :, 1]
    assert torch.equal(lines, torch.arange(8) / 7)


def test_trajectories_become_histories_once():
    data = waves()
    seen = data.history()
    assert np.array_equal(seen.inputs[:, 1:], data.outputs[:, :-1])
    assert np.array_equal(seen.outputs, data.outputs)
    assert seen.layout.inputs == ("u0", "u1", "u2", "u3", "u4")
    assert seen.history() is seen
    with pytest.raises(ShapeError, match="whole frames of 2"):
        data.history(2)


def test_one_normaliser_is_for_all_frames():
    data = waves()
    rising = replace(data, outputs=data.outputs + np.arange(5, dtype=np.float32)[:, None])
    model = Surrogate.of({"name": "fno-memory"} | SMALL, rising)
    every = np.concatenate([rising.inputs, rising.outputs], 1)
    assert model.before.mean.shape == (1, 1)
    assert abs(float(model.before.mean[0, 0]) - every.mean()) < 1e-5
    assert torch.equal(model.before.deviation, model.after.deviation)


def test_a_roll_out_is_the_model_applied_to_its_own_frames(tmp_path):
    torch.manual_seed(SEED)
    data = waves()
    model = Surrogate.of({"name": "fno-memory"} | SMALL, data).eval()
    for given in (1, 3):
        x = np.concatenate([data.inputs, data.outputs], 1)[:, :given]
        found = model.predict(x, steps=4)
        assert found.shape == (6, 4, 16)
        for _ in range(4):  # all frames so far, seen from the beginning
            x = np.concatenate([x, model.predict(x)[:, -1:]], 1)
        assert np.allclose(found, x[:, given:], atol=2e-4)
    model.save(tmp_path / "m.safetensors")
    again = Surrogate.load(tmp_path / "m.safetensors")
    assert np.array_equal(again.predict(data, steps=5), model.predict(data, steps=5))
    assert steps_for(model, data) == 5
    assert steps_for(model, data.history()) is None
    with pytest.raises(ShapeError, match="whole frames"):
        Surrogate.of({"name": "fno-memory", "fields": 2} | SMALL, waves(frames=7).history(1).history(1))


def test_memory_learns_a_speed_that_no_frame_shows():
    """The next frame is known from two frames, and from no single one."""
    options = FieldTraining(epochs=30, batch=8, learning_rate=1e-2, symmetry="shifts", loss={"frames": 1.0})
    data, fresh = waves(64, frames=4, side=8), waves(96, frames=4, side=8)
    found = {}
    for memory in ("ptd", NONE):
        network = {"name": "fno-memory"} | SMALL | {"memory": memory, "step_range": [0.1, 1.0], "modes": 2}
        network["coordinates"] = False
        model = train(data.take(slice(0, 56)), data.take(slice(56, 64)), network, options)
        missed = model.predict(fresh.history())[64:, 2:] - fresh.outputs[64:, 2:]
        found[memory] = np.sqrt(2 * (missed**2).mean())  # of the size of the waves
    assert found["ptd"] < 0.5 * found[NONE]
    row = evaluated(model, data, steps=4)
    assert row["l2"] > 0


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"memory": "leg"}, "did you mean 'legs'"),
        ({"width": 0}, "width = 0"),
        ({"frames": 5, "fields": 2}, "whole fields"),
        ({"modes": 0}, "modes = 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, needed):
    with pytest.raises(OptionError, match=needed):
        made(**options)


def test_what_a_network_of_frames_is_not_trained_by_is_refused():
    network = {"name": "fno-memory"} | SMALL
    with pytest.raises(OptionError, match="leave rollout and prior out"):
        train(waves(), network=network, options=FieldTraining(epochs=1, rollout=2))
    with pytest.raises(ShapeError, match="modes <= 4"):
        made(modes=5)(noise(1, 6, 8))


def test_passes_put_frames_of_roll_outs_in_place_of_true_ones():
    torch.manual_seed(SEED)
    data = waves().history()
    model = Surrogate.of({"name": "fno-memory"} | SMALL, data).eval()
    x = torch.from_numpy(data.inputs)
    assert own_frames(model, x, 0) is x
    every = own_frames(model, x, 4)  # as many as there are frames after the first
    rolled = model.predict(data.inputs[:, :1], steps=4)
    assert np.allclose(every[:, 1:], rolled, atol=2e-4)
    once = own_frames(model, x, 1)
    assert np.allclose(once[:, 3], model.predict(data.inputs[:, :3])[:, -1], atol=1e-5)
    with pytest.raises(OptionError, match="takes no frames"):
        train(data, network={"name": "unet", "width": 8, "levels": 1}, options=FieldTraining(passes=1))
