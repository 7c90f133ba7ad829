"""Trainings of low rank, of optimizers and of adapters: by name, from cases, cut off and gone on from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_cli import answer, run
from test_field_training import cut_off, same, samples, trainer
from test_field_training import run as fit
from test_fields_cli import CASE

from neuralsolve.data.sequences import Sequences
from neuralsolve.errors import OptionError
from neuralsolve.lowrank.adapters import GPM, attach, deltas_of, make_adapter
from neuralsolve.lowrank.adapters.methods import METHODS as ADAPTERS
from neuralsolve.lowrank.optim import METHODS, ProjectedOptimizer
from neuralsolve.models import FieldTraining, Surrogate
from neuralsolve.models.field_training import FieldTrainer
from neuralsolve.models.optimizers import LOW_RANK, Optimizing
from neuralsolve.models.sequence_model import SequenceModel
from neuralsolve.models.sequence_training import SequenceTrainer, SequenceTraining
from neuralsolve.models.training_loop import train

LSM = {"name": "lsm", "width": 16, "levels": 1}


def test_names_are_those_of_the_methods():
    assert tuple(METHODS) == LOW_RANK


@pytest.mark.parametrize("name", LOW_RANK)
def test_a_training_of_fields_goes_on_bit_for_bit(name, tmp_path):
    rank = {} if name in ("adam8bit", "tensor-galore", "muon") else {"rank": 4}
    refresh = {} if name == "muon" else {"refresh": 3}
    options = {"optimizer": name, "epochs": 3} | refresh | rank
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(whole, trainer(LSM, **options))
    for pressed in (4, 6):  # within an epoch, between two refreshes, and at an end of both
        cut_off(parts, trainer(LSM, **options), pressed)
    one = trainer(LSM, **options)
    assert isinstance(one.adam, ProjectedOptimizer)
    fit(parts, one)
    assert one.step == 9
    same(whole, parts)


def adapted(name: str, **options) -> FieldTrainer:
    """Return a trainer of an adapter on a model that was drawn at random."""
    data, plan = samples(), FieldTraining(**({"epochs": 3, "batch": 4, "seed": 77} | options))
    with torch.random.fork_rng():
        torch.manual_seed(91)
        model = Surrogate.of({"name": "unet", "width": 8, "levels": 1}, data)
    adapter = make_adapter(name, also=["bias"])
    x, y = (torch.from_numpy(np.ascontiguousarray(v[:4])) for v in (data.inputs, data.outputs))

    def loss():
        each = (model(x) - y).square().flatten(1).mean(1)
        return each if isinstance(adapter, GPM) else each.mean()

    attach(model, adapter, loss if adapter.wants_loss() else None)
    return FieldTrainer(model, data, data.take(slice(0, 4)), plan)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_training_of_an_adapter_goes_on_bit_for_bit(name, tmp_path):
    options = {"ema": 0.9, "symmetry": "square"}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(whole, adapted(name, **options))
    for pressed in (3, 5):  # at the end of an epoch, and within one
        cut_off(parts, adapted(name, **options), pressed)
    one = adapted(name, **options)
    fit(parts, one)
    assert one.step == 9
    same(whole, parts)
    before, after = (deltas_of(each.model) for each in (adapted(name, **options), one))
    moved = [not torch.equal(after[key].matrix(), before[key].matrix()) for key in before]
    assert all(moved)


def test_rates_of_a_schedule_reach_every_group():
    one = trainer(LSM, optimizer="galore", rank=4, learning_rate=2e-3, schedule="cosine")
    for _ in range(2):
        row = one.advance()
    assert {group["lr"] for group in one.adam.param_groups} == {row["learning_rate"]}
    assert {group["weight_decay"] for group in one.adam.param_groups} == {1e-5}


def test_a_training_of_sequences_goes_on_bit_for_bit(tmp_path):
    random = np.random.default_rng(617)
    data = Sequences(random.standard_normal((12, 9, 1)).astype(np.float32), random.integers(0, 3, 12), 3)

    def made():
        with torch.random.fork_rng():
            torch.manual_seed(5)
            model = SequenceModel(1, 3, channels=24, layers=1, state=8, layer="s5")
        options = SequenceTraining(epochs=3, batch=4, optimizer="galore", rank=4, refresh=2)
        return SequenceTrainer(model, data, data, options)

    for name, stops in (("whole", [None]), ("parts", [6, None])):
        (tmp_path / name).mkdir()
        for stop in stops:
            train(made(), tmp_path / name, stop_at=stop)
    same(tmp_path / "whole", tmp_path / "parts")
    groups = made().adam.param_groups  # B of state-space layers is trained slowly, and not projected
    assert [group["lr"] for group in groups if "rank" not in group] == [8e-3, 1e-3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "gallore"}, "did you mean 'galore'"),
        ({"rank": 4}, "rank = 4 with optimizer = 'adamw', which projects nothing"),
        ({"optimizer": "galore", "rank": 0}, "rank = 0; more than 0"),
        ({"optimizer": "galore", "rank": 1.5}, "rank = 1.5; more than 0 is needed"),
        ({"optimizer": "galore", "refresh": 0}, "refresh = 0"),
        ({"optimizer": "galore", "scale": -1.0}, "scale = -1.0"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    for kind in (Optimizing, FieldTraining, SequenceTraining):
        with pytest.raises(OptionError, match=message):
            kind(**options)


def test_a_network_without_matrices_for_it_is_refused():
    with pytest.raises(OptionError, match="are needed, or AdamW"):
        trainer({"name": "lsm", "width": 8, "levels": 1}, samples(), optimizer="galore", rank=64)


def test_the_command_line_overrides_the_case(tmp_path):
    case = tmp_path / "train_small.toml"
    case.write_text(CASE.replace("width = 8", "width = 16"))
    given = ("--steps", 2, "--out-dir", tmp_path / "out", "--optimizer", "galore", "--rank")
    facts, result = answer("train", case, *given, 8)
    assert result.exit_code == 0
    assert facts["steps"] == 3
    assert "rank = 8 there, 4 asked for" in run("train", case, *given, 4).stderr
    refused = run("train", case, *given, 0.0)
    assert refused.exit_code == 2
    assert "rank" in refused.stderr
    dcdm = run("train", "train_dcdm2d", "--optimizer", "galore", "--out-dir", tmp_path / "other")
    assert dcdm.exit_code == 2
    assert "no such option" in dcdm.stderr


@pytest.mark.parametrize("option", [{"rank": 4}, {"refresh": 20}])
def test_what_muon_does_not_have_is_refused(option):
    with pytest.raises(OptionError, match=r"muon.*leave it out"):
        Optimizing(optimizer="muon", **option)
