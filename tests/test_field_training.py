"""The training of fields: what a step is, and that a run cut off anywhere is the run that never was."""

import errno
import json
import math
import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

from neuralsolve.data import Layout, Samples
from neuralsolve.errors import FormatError, OptionError, ShapeError
from neuralsolve.models import FieldTraining, Surrogate
from neuralsolve.models import train as fit
from neuralsolve.models.field_training import FieldTrainer
from neuralsolve.models.normaliser import Normaliser
from neuralsolve.models.training_loop import CHECKPOINT, LOG, read_log, train
from neuralsolve.preconditioners.weights import read_tensors

NET = {"name": "unet", "width": 8, "levels": 1}
EVERYTHING = {
    "epochs": 6,
    "batch": 4,
    "ema": 0.9,
    "symmetry": "square",
    "patience": 50,
    "clip": 1.0,
    "loss": {"l2": 1.0, "h1": 0.5},
    "learning_rate": 3e-3,
}


def samples(count=12, side=8, seed=411, outputs=1):
    a = np.random.default_rng(seed).standard_normal((count, 1, side, side)).astype(np.float32)
    axis = np.linspace(0, 1, side)
    u = np.stack([np.cumsum(a[:, 0], 1 + k % 2) / side for k in range(outputs)], 1)
    return Samples(a, u, Layout((axis, axis), ("a",), (), boundary=("dirichlet",) * 2))


def trainer(net=NET, data=None, normaliser="channel", **options):
    data = samples() if data is None else data
    plan = FieldTraining(**({"epochs": 4, "batch": 4, "seed": 77} | options))
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        model = Surrogate.of(net, data, normaliser, 1 if plan.rollout else None)
    return FieldTrainer(model, data, data.take(slice(0, 4)), plan)


def run(folder, one, **options):
    folder.mkdir(exist_ok=True)
    return train(one, folder, **options)


def same(whole, parts):
    a, b = (read_tensors(folder / CHECKPOINT) for folder in (whole, parts))
    assert a[0].keys() == b[0].keys()
    assert all(torch.equal(value, b[0][name]) for name, value in a[0].items())
    states = [json.loads(each[1]["state"]) | {"seconds": 0} for each in (a, b)]
    assert states[0] == states[1]
    rows = [[row | {"seconds": 0} for row in read_log(folder / LOG)] for folder in (whole, parts)]
    assert rows[0] == rows[1]


def cut_off(folder, one, pressed):
    """Train until Ctrl-C is pressed within a step."""
    advance = one.advance

    def pressing():
        row = advance()
        if one.step == pressed:
            os.kill(os.getpid(), signal.SIGINT)
        return row

    one.advance = pressing
    with pytest.raises(KeyboardInterrupt):
        run(folder, one)


# resume


@pytest.mark.parametrize(
    ("net", "options"),
    [
        (NET, EVERYTHING),
        (NET | {"norm": "instance"}, {"epochs": 6, "schedule": "cosine", "optimizer": "adam"}),
        ({"name": "lsm", "width": 8, "levels": 1}, {"epochs": 6, "schedule": "step", "period": 2}),
        ({"name": "fno", "width": 4, "modes": 4, "layers": 1}, {"epochs": 6, "ema": 0.5}),
    ],
    ids=["everything", "instance", "lsm", "fno"],
)
def test_a_run_cut_off_at_any_step_is_the_whole_one_bit_for_bit(net, options, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, trainer(net, **options))
    for pressed in (5, 9, 13) if options is EVERYTHING else (7,):  # within epochs of 3 steps, at an end
        cut_off(parts, trainer(net, **options), pressed)
        state = json.loads(read_tensors(parts / CHECKPOINT)[1]["state"])
        assert state["step"] == pressed
        assert len(state["gathered"]) == pressed % 3
    one = trainer(net, **options)
    run(parts, one)
    assert one.step == 18
    same(whole, parts)


def test_an_interrupt_from_what_is_told_is_saved_too(tmp_path):
    def stop(done, note):
        if done == 6:
            raise KeyboardInterrupt

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, trainer(**EVERYTHING))
    with pytest.raises(KeyboardInterrupt):
        run(parts, trainer(**EVERYTHING), tell=stop)
    assert [row["step"] for row in read_log(parts / LOG)] == [3, 6]
    run(parts, trainer(**EVERYTHING))
    same(whole, parts)


def test_an_interrupt_within_a_step_leaves_the_checkpoint_before_it(tmp_path, monkeypatch):
    def torn(self):
        raise KeyboardInterrupt

    run(tmp_path, trainer(), stop_at=6)
    before = (tmp_path / CHECKPOINT).read_bytes()
    monkeypatch.setattr(FieldTrainer, "_follow", torn)  # Adam has stepped, the step is not counted
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, trainer())
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_rows_beyond_the_checkpoint_are_left_out(tmp_path):
    run(tmp_path / "whole", trainer())
    run(tmp_path / "parts", trainer(), stop_at=6)
    log = tmp_path / "parts" / LOG
    log.write_text(log.read_text() + log.read_text().splitlines()[-1].replace("6,", "9,", 1) + "\n")
    run(tmp_path / "parts", trainer())
    same(tmp_path / "whole", tmp_path / "parts")


def test_best_models_are_those_of_the_best_epoch(tmp_path):
    one = trainer(**EVERYTHING)
    rows = run(tmp_path, one)
    errors = [row["validation"] for row in rows]
    assert one.best == min(errors)
    assert one.best_epoch == 1 + int(np.argmin(errors))
    again = trainer(**EVERYTHING)
    run(tmp_path, again)  # nothing left to do
    x = samples().inputs
    assert np.array_equal(one.best_model().predict(x), again.best_model().predict(x))


# what a step is


def linear(value=0.5, inputs=1):
    """A model with one number as its only weight: outputs are that times the last input."""

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(value))

        def forward(self, x):
            return self.weight * x[:, -1:]

    one = Normaliser(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    network = {"name": "scale", "inputs": inputs, "outputs": 1}
    return Surrogate(network, Scale(), one, one, samples().layout)


def test_one_step_of_adam_is_its_formula():
    data = samples(4)
    double = Samples(data.inputs, 2 * data.inputs, data.layout)
    plan = FieldTraining(epochs=10, batch=4, schedule="constant", learning_rate=1e-2, weight_decay=0.1)
    one = FieldTrainer(linear(), double, double, plan)
    row = one.advance()
    # ||w a - 2 a|| / ||2 a|| = (2 - w) / 2; Adam's first step has the size of the rate, decay comes before it
    assert row["loss"] == pytest.approx(0.75)
    assert row["gradient_norm"] == pytest.approx(0.5)
    assert one.model.net.weight.item() == pytest.approx(0.5 * (1 - 1e-2 * 0.1) + 1e-2, rel=1e-6)
    plan = FieldTraining(epochs=10, batch=4, schedule="constant", optimizer="adam", weight_decay=0.0, ema=0.9)
    one = FieldTrainer(linear(), double, double, plan)
    one.advance()
    assert one.model.net.weight.item() == pytest.approx(0.5 + 1e-3, rel=1e-6)
    assert one.average.net.weight.item() == pytest.approx(0.5 + 0.9e-3, rel=1e-6)  # (1 + step) / (10 + step)


def frames(count=6, inputs=2, steps=5, factor=0.9):
    first = np.random.default_rng(97).standard_normal((count, 1, 8, 8))
    series = np.concatenate([first * factor**k for k in range(inputs + steps)], 1).astype(np.float32)
    layout = samples().layout
    return Samples(series[:, :inputs], series[:, inputs:], Layout(layout.axes))


def test_the_loss_of_a_roll_out_is_zero_for_the_exact_model_and_flows_through_all_steps():
    data = frames()
    exact = FieldTrainer(linear(0.9, 2), data, data, FieldTraining(rollout=5, batch=6))
    assert exact.advance()["loss"] == pytest.approx(0, abs=1e-6)
    w = 0.7
    off = FieldTrainer(linear(w, 2), data, data, FieldTraining(rollout=5, batch=6, weight_decay=0.0))
    loss = off._loss(torch.arange(6))
    loss.backward()
    # mean over k of 1 - (w / 0.9)^k; its slope has a term from every step
    assert loss.item() == pytest.approx(np.mean([1 - (w / 0.9) ** k for k in range(1, 6)]), rel=1e-5)
    slope = -np.mean([k * w ** (k - 1) / 0.9**k for k in range(1, 6)])
    assert float(off.model.net.weight.grad) == pytest.approx(slope, rel=1e-5)


def test_the_residual_of_the_equation_is_a_loss():
    data = samples(4)
    plan = FieldTraining(loss={"residual": 2.0}, batch=4)
    seen = []

    def residual(x, made):
        seen.append(x.shape)
        return (made - 3 * x).flatten(1).norm(dim=1)

    one = FieldTrainer(linear(3.0), data, data, plan, residual=residual)
    assert one.advance()["loss"] == pytest.approx(0, abs=1e-6)
    assert seen == [(4, 1, 8, 8)]


def test_every_sample_is_seen_once_an_epoch():
    one = trainer()
    for epoch in range(3):
        seen = torch.cat([one._batch(epoch, place) for place in range(one.per_epoch)])
        assert sorted(seen.tolist()) == list(range(12))
    assert not torch.equal(one._batch(0, 0), one._batch(1, 0))


# ends


def test_patience_ends_a_run_and_a_run_that_ended_stays_so(tmp_path):
    one = trainer(epochs=50, patience=2, learning_rate=0.3, schedule="constant")
    rows = run(tmp_path, one)
    assert len(rows) == one.best_epoch + 2 < 50
    again = trainer(epochs=50, patience=2, learning_rate=0.3, schedule="constant")
    run(tmp_path, again)
    assert again.step == one.step


@pytest.mark.parametrize("count", [1, 3])
def test_less_samples_than_a_batch_are_one(count, tmp_path):
    one = trainer(NET | {"norm": "instance"}, samples(count), batch=20, epochs=3)
    assert [row["step"] for row in run(tmp_path, one)] == [1, 2, 3]


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoint(tmp_path):
    run(tmp_path, trainer(), stop_at=6)
    before = (tmp_path / CHECKPOINT).read_bytes()
    one = trainer()
    one.outputs[:] = math.nan
    with pytest.raises(OptionError, match="it diverged; lower the rates"):
        run(tmp_path, one)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_full_disk_keeps_the_checkpoint_and_says_so(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    run(tmp_path, trainer(), stop_at=6)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match=r"cannot be written \(No space left on device\); the file"):
        run(tmp_path, trainer())
    assert (tmp_path / CHECKPOINT).read_bytes() == before[CHECKPOINT]
    assert {path.name for path in tmp_path.iterdir()} == set(before)  # nothing half written is left
    monkeypatch.undo()
    run(tmp_path, trainer())
    run(tmp_path / "whole", trainer())
    same(tmp_path / "whole", tmp_path)


# refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net": NET | {"width": 16}}, "network.width = 8 there, 16 asked for;"),
        ({"learning_rate": 0.1}, "learning_rate = 0.001 there, 0.1 asked for;"),
        ({"data": samples(seed=412)}, "data is not the same;"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(change, message, tmp_path):
    run(tmp_path, trainer(), stop_at=3)
    with pytest.raises(OptionError, match=message):
        run(tmp_path, trainer(**change))


def test_a_damaged_log_is_refused(tmp_path):
    run(tmp_path, trainer(), stop_at=3)
    (tmp_path / LOG).write_text("step,loss\n3,nothing\n")
    with pytest.raises(FormatError, match=r"--restart begins anew"):
        run(tmp_path, trainer())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs = 0; at least 1"),
        ({"patience": 0}, "patience = 0; at least 1"),
        ({"ema": 1.0}, "ema = 1.0; from 0 to less than 1"),
        ({"loss": {"l3": 1.0}}, "did you mean 'l2'"),
        ({"loss": {"l2": 0.0}}, "no weight below 0, and one above"),
        ({"loss": {}}, "loss"),
        ({"schedule": "onecicle"}, "did you mean 'onecycle'"),
        ({"precision": "float16"}, "did you mean"),
        ({"learning_rate": math.nan}, "learning_rate = nan"),
        ({"loss": {"residual": 1.0}}, "needs data whose equation is known"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        trainer(**options)


def test_data_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="same channels and nodes"):
        FieldTrainer(linear(), samples(), samples(side=9), FieldTraining())
    with pytest.raises(ShapeError, match="2 of outputs; the model has 1 and 1"):
        FieldTrainer(linear(), samples(outputs=2), samples(outputs=2), FieldTraining())
    with pytest.raises(ShapeError, match="by a roll-out of 9 steps"):
        FieldTrainer(linear(0.5, 2), frames(), frames(), FieldTraining(rollout=9))
    mesh = Samples(*np.ones((2, 3, 1, 5)), points=np.random.default_rng(5).random((5, 2)))
    with pytest.raises(OptionError, match="h1, rollout on a mesh"):
        FieldTrainer(linear(), mesh, mesh, FieldTraining(loss={"h1": 1.0}, rollout=1))


# the rest


def test_bfloat16_trains_and_leaves_transforms_as_they_are(tmp_path):
    lsm, fno = {"name": "lsm", "width": 8, "levels": 1}, {"name": "fno", "width": 4, "modes": 4, "layers": 1}
    half, whole = {"precision": "bfloat16", "epochs": 12, "learning_rate": 5e-3}, {"epochs": 2}
    rows = run(tmp_path / "lsm", trainer(lsm, **half))
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    tensors, _ = read_tensors(tmp_path / "lsm" / CHECKPOINT)
    assert {value.dtype for value in tensors.values()} <= {torch.float32, torch.int64}
    losses = [
        [row["loss"] for row in run(tmp_path / name, trainer(fno, precision=name, **whole))]
        for name in ("float32", "bfloat16")
    ]
    assert losses[0] == losses[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard's own imports
def test_events_for_tensorboard_hold_the_log(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    rows = run(tmp_path, trainer(), tensorboard=True)
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"loss", "validation", "learning_rate"} <= set(events.Tags()["scalars"])
    found = [(event.step, event.value) for event in events.Scalars("validation")]
    assert found == [(row["step"], pytest.approx(row["validation"], rel=1e-6)) for row in rows]


def test_training_from_python(tmp_path):
    data, told = samples(20), []
    small = FieldTraining(epochs=3, batch=6)
    model = fit(
        data, network=NET, options=small, folder=tmp_path / "run", tell=lambda *note: told.append(note)
    )
    assert [step for step, _ in told] == [3, 6, 9]  # 18 are trained on, 2 held back
    assert {path.name for path in (tmp_path / "run").iterdir()} == {CHECKPOINT, LOG, "best.safetensors"}
    loaded = Surrogate.load(tmp_path / "run" / "best.safetensors")
    x = data.inputs
    assert np.array_equal(loaded.predict(x), model.predict(x))
    again = fit(data, network=NET, options=small)  # the same without a folder
    assert np.array_equal(again.predict(x), model.predict(x))
    with pytest.raises(OptionError, match="give validation="):
        fit(samples(1), network=NET, options=small)
    with pytest.raises(OptionError, match="did you mean 'unet'"):
        fit(data, network={"name": "unett"}, options=small)
    with pytest.raises(OptionError, match="has no name"):
        fit(data, network={"width": 8}, options=small)
    with pytest.raises(OptionError, match=r"residual=equation_of\(samples.layout\).residual_of"):
        fit(data, network=NET, options=FieldTraining(loss={"residual": 1.0}))
    assert fit(data, network="unet", options=FieldTraining(epochs=1, batch=18)).network["name"] == "unet"
    rolled = fit(frames(), network=NET, options=FieldTraining(epochs=1, batch=2, rollout=5))
    assert rolled.predict(frames().inputs, steps=5).shape == (6, 5, 8, 8)
