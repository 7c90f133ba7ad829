"""Compression of the package's own models: budgets, files that rebuild them, further training."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from neuralsolve.data import Layout, Samples
from neuralsolve.errors import FormatError, OptionError
from neuralsolve.lowrank.compress import FactoredSpectral, Plan, compress, moments_of, refit, structure_of
from neuralsolve.models import FieldTraining, Surrogate, train
from neuralsolve.models.compression import calls, tuned
from neuralsolve.models.field_training import FieldTrainer
from neuralsolve.preconditioners.weights import read_tensors, write_tensors

NETS = [
    {"name": "unet", "width": 8, "levels": 1},
    {"name": "lsm", "width": 16, "levels": 1},
    {"name": "fno", "width": 8, "modes": 6, "layers": 2},
    {"name": "transolver", "width": 16, "layers": 1, "heads": 2, "slices": 4},
]
ONLY = pytest.mark.parametrize("net", NETS, ids=lambda net: net["name"])


def data(count=24, side=12):
    rng, axis = np.random.default_rng(311), np.linspace(0, 1, side)
    waves = np.sin(np.pi * np.arange(1, 5)[:, None] * axis)
    a = np.einsum("nij,ix,jy->nxy", rng.standard_normal((count, 4, 4)), waves, waves)[:, None]
    return Samples(a, np.tanh(a), Layout((axis, axis), ("a",), boundary=("dirichlet",) * 2))


def model(net, samples):
    with torch.random.fork_rng():
        torch.manual_seed(8181)
        return Surrogate.of(net, samples).eval()


@ONLY
def test_a_compressed_model_is_written_and_read(net, tmp_path):
    samples = data()
    dense = model(net, samples)
    made = compress(dense, calls(dense, samples), Plan(kept=0.7))
    assert made.report.kept <= 0.7
    small: Surrogate = made.model
    small.save(tmp_path / "m.safetensors")
    other = Surrogate.load(tmp_path / "m.safetensors")
    assert structure_of(other) == structure_of(small) != {}
    assert np.array_equal(other.predict(samples), small.predict(samples))
    assert "factored" not in json.loads(dense.metadata()["surrogate"])
    tensors, metadata = read_tensors(tmp_path / "m.safetensors")
    for change in ({"net": {"kind": "linear", "rank": 1, "bias": True}}, {"gone": {}}, [], {"net": 3}):
        facts = json.loads(metadata["surrogate"]) | {"factored": change}
        write_tensors(tmp_path / "bad.safetensors", tensors, {"surrogate": json.dumps(facts)})
        with pytest.raises(FormatError, match="do not fit"):
            Surrogate.load(tmp_path / "bad.safetensors")


@ONLY
def test_little_is_lost_where_much_is_kept(net):
    samples = data()
    dense = model(net, samples)
    moments = moments_of(dense, calls(dense, samples))
    truth = dense.predict(samples)
    lost = [
        np.linalg.norm(compress(dense, moments, Plan(kept=part)).model.predict(samples) - truth)
        for part in (0.98, 0.6)
    ]
    assert lost[0] < lost[1]
    assert lost[0] < 0.05 * np.linalg.norm(truth)


def test_modes_of_a_spectral_layer_lose_the_tails_that_are_told(generator):
    samples = data()
    dense = model(NETS[2], samples)
    made = compress(dense, calls(dense, samples), Plan(kept=0.7, include=("convs.0",)))
    spectral = next(each for each in made.model.modules() if isinstance(each, FactoredSpectral))
    conv = next(each for name, each in dense.named_modules() if name.endswith("convs.0"))
    seen, contract = [], conv._contract
    conv._contract = lambda x, weight, separable: seen.append(x) or contract(x, weight, separable)
    dense.predict(samples)
    x = torch.cat(seen).to(torch.complex128).flatten(2).movedim(2, 0)  # (modes, samples, in)
    W, made_W = conv.weight.tensor.flatten(2).permute(2, 1, 0), spectral.matrices()
    y, made_y = (x @ each.detach().to(x.dtype).mT for each in (W, made_W))
    row = next(each for each in made.report.layers if each.path.endswith("convs.0.weight"))
    assert 0 < row.rank < row.full_rank
    assert spectral.rank == pytest.approx(row.rank)
    assert float((made_y - y).norm() / y.norm()) == pytest.approx(row.error, abs=1e-5)  # W is in float32


def test_compressed_models_are_trained_as_all_others(tmp_path):
    samples = data()
    given, held = samples.split(20, 4)
    dense = model(NETS[0], samples)
    small = compress(dense, calls(dense, given), Plan(kept=0.6)).model
    before = copy.deepcopy(small.state_dict())
    options = FieldTraining(epochs=2, batch=5)
    better = tuned(small, given, held)
    assert structure_of(better) == structure_of(small)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), small.state_dict().values(), strict=True))
    moved = [name for name, p in better.named_parameters() if not torch.equal(p, before[name])]
    assert {name for name in moved if ".first.weight" in name or ".last.weight" in name}
    one = train(given, held, options=options, model=small, folder=tmp_path)
    again = train(given, held, options=options, model=small, folder=tmp_path)  # finished: read, not trained
    assert np.array_equal(one.predict(held), again.predict(held))
    with pytest.raises(OptionError, match="other options"):
        train(given, held, options=options, model=better, folder=tmp_path)


@ONLY
def test_refits_of_own_models_are_nearer_to_the_dense_one(net):
    samples = data()
    dense = model(net, samples)
    seen = calls(dense, samples)
    small = compress(dense, seen, Plan(kept=0.7)).model
    truth = dense.predict(samples)
    errors = [np.linalg.norm(each.predict(samples) - truth) for each in (refit(dense, small, seen), small)]
    assert errors[0] <= errors[1]


def test_a_teacher_that_makes_the_outputs_teaches_nothing_else():
    samples = data()
    dense = model(NETS[0], samples)
    made = Samples(samples.inputs, dense.predict(samples), samples.layout)
    small = compress(dense, calls(dense, samples), Plan(kept=0.6)).model
    options = FieldTraining(batch=5)
    losses = [
        FieldTrainer(copy.deepcopy(small), each, each, options, teacher=teacher).advance()["loss"]
        for each, teacher in ((made, None), (made, dense), (samples, None), (samples, dense))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[3] == pytest.approx((losses[0] + losses[2]) / 2, rel=1e-5)
