"""The model of sequences: steps give what whole sequences give, padding gives nothing, runs go on."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from neuralsolve.cases import load_case
from neuralsolve.data.sequences import Sequences, listops
from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.models.sequence_model import LAYERS, SequenceModel
from neuralsolve.models.sequence_training import SequenceTrainer, SequenceTraining, accuracy, by_length
from neuralsolve.models.training_loop import train

SMALL = {"channels": 6, "layers": 2, "state": 8}


def made(seed: int = 3, **options) -> SequenceModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SequenceModel(**({"inputs": 2, "outputs": 5} | SMALL | options)).double().eval()


def sequences(seed: int = 1, shape=(3, 17, 2)) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("layer", LAYERS)
def test_steps_give_what_the_whole_sequence_gives(layer, norm):
    model, x = made(layer=layer, norm=norm, pool="none"), sequences()
    model.train()(x)  # the means of batch normalisation are no longer those of rest
    model.eval()
    with torch.no_grad():
        whole, state, found = model(x), model.initial_state(3), []
        for sample in x.unbind(1):
            y, state = model.step(sample, state)
            found.append(y)
        last = made(layer=layer, norm=norm, pool="last")
        last.load_state_dict(model.state_dict())
        assert torch.allclose(last(x), whole[:, -1], atol=1e-12)
    assert torch.allclose(torch.stack(found, 1), whole, atol=1e-9)


@pytest.mark.parametrize("pool", ["mean", "last"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_gives_nothing(pool, bidirectional):
    model, x = made(pool=pool, norm="layer", bidirectional=bidirectional), sequences()
    lengths = torch.tensor([17, 5, 1])
    with torch.no_grad():
        found = model(x, lengths)
        other = x.clone()
        other[1, 5:], other[2, 1:] = 1e3, -1e3
        assert torch.equal(model(other, lengths), found)
        assert torch.allclose(model(x[1:2, :5]), found[1:2], atol=1e-9)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("training", [True, False])
def test_what_stands_in_the_padding_is_not_looked_at(norm, training):
    x, lengths = sequences(), torch.tensor([17, 5, 1])
    found = []
    for padding in (0.0, 100.0, torch.nan):
        given, model = x.clone(), made(norm=norm, pool="mean").train(training)
        given[1, 5:], given[2, 1:] = padding, padding
        y = model(given, lengths)
        y.square().sum().backward()
        found.append([y.detach(), *(p.grad for p in model.parameters()), *model.buffers()])
    for zero, *others in zip(*found, strict=True):
        assert all(torch.equal(zero, other) for other in others)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("pool", ["mean", "last"])
def test_what_stands_at_missing_samples_is_not_looked_at(layer, pool):
    model, x = made(layer=layer, pool=pool), sequences()
    mask = torch.rand(3, 17, generator=torch.Generator().manual_seed(2)) < 0.6
    other = torch.where(mask[..., None], x, torch.nan)
    with torch.no_grad():
        assert torch.equal(model(other, mask=mask), model(x, mask=mask))
        ends = torch.arange(17) < torch.tensor([17, 5, 1])[:, None]  # padding is missing samples at the end
        assert torch.allclose(model(x, mask=ends), model(x, torch.tensor([17, 5, 1])), atol=1e-12)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("lengths", [None, [17, 12, 9]])
def test_the_last_sample_is_the_last_that_is_there(layer, lengths):
    model, x = made(layer=layer, pool="last"), sequences()
    every = made(layer=layer, pool="none")
    every.load_state_dict(model.state_dict())
    mask = torch.ones(3, 17, dtype=torch.bool)
    mask[0, 15:], mask[1, 4:], mask[1, 7] = False, False, True
    with torch.no_grad():
        answers, found = every(x, lengths, mask=mask), model(x, lengths, mask=mask)
        for k, place in enumerate((14, 7, 16 if lengths is None else 8)):
            assert torch.allclose(found[k], answers[k, place], atol=1e-12)
        for pool in ("mean", "last"):  # where there is no sample at all, the answer is that of zero
            model = made(layer=layer, pool=pool)
            nothing = model.decoder(torch.zeros(6, dtype=torch.float64))
            assert torch.allclose(model(x, mask=torch.zeros_like(mask)), nothing.expand(3, -1), atol=1e-12)


def test_lengths_may_be_lists_and_arrays():
    model, x = made(pool="last"), sequences()
    with torch.no_grad():
        found = model(x, torch.tensor([17, 5, 1]))
        for lengths in ([17, 5, 1], (17, 5, 1), np.array([17, 5, 1], np.int32)):
            assert torch.equal(model(x, lengths), found)
    for lengths in ([17.0, 5.0, 1.0], "abc", [True] * 3, [[1], [2, 3]], 5j):
        with pytest.raises(OptionError, match="need whole numbers"):
            model(x, lengths)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_step_without_a_state_is_the_first(layer):
    model, x = made(layer=layer, pool="none"), sequences()
    with torch.no_grad():
        first, state = model.step(x[:, 0])
        again, expected = model.step(x[:, 0], model.initial_state(3))
        assert torch.equal(first, again)
        assert torch.equal(model.step(x[:, 0], None)[0], again)
        assert all(map(torch.equal, state, expected))
        one = model.each_block[0].layer
        u = torch.ones(3, one.channels)
        assert torch.equal(one.step(u)[0], one.step(u, one.initial_state(3))[0])


def test_steps_of_varying_length_reach_every_layer():
    model, x = made(layer="s5", norm="layer", pool="last"), sequences()
    twice = torch.full((3, 17), 2.0)
    with torch.no_grad():
        assert torch.allclose(model(x, steps=torch.ones(3, 17)), model(x), atol=1e-9)
        found = model(x, steps=twice)
        for block in model.each_block:
            block.layer.log_step += np.log(2.0)
        assert torch.allclose(found, model(x), atol=1e-9)
    with pytest.raises(OptionError, match="s5"):
        made(layer="s4d")(x, steps=twice)


def test_a_constant_that_a_norm_takes_away_is_not_learned():
    assert made(norm="batch").encoder.bias is None
    assert made(norm="batch", prenorm=False).encoder.bias is not None
    assert made(norm="layer").encoder.bias is not None


def test_batches_are_of_about_one_length_and_of_every_sequence_once():
    lengths = np.random.default_rng(4).integers(1, 100, 1003)
    order = by_length(np.random.default_rng(5).permutation(1003), lengths, 10, seed=6)
    assert sorted(order) == list(range(1003))
    batches = lengths[order[:1000]].reshape(100, 10)
    assert np.ptp(batches, axis=1).mean() < 10 < np.ptp(lengths) / 5
    assert abs(np.corrcoef(batches.mean(1), np.arange(100))[0, 1]) < 0.3  # short ones do not come first


def test_sequences_do_not_meet():
    model, x = made(), sequences()
    bad = x.clone()
    bad[1, 4] = torch.nan
    with torch.no_grad():
        found = model(bad)
        assert torch.equal(found[[0, 2]], model(x)[[0, 2]])
    assert bool(found[1].isnan().all())


def test_without_a_feedthrough_there_is_none_and_none_is_learned():
    model = made(feedthrough=False)
    assert all(
        not bool(block.layer.D.any()) and not block.layer.D.requires_grad for block in model.each_block
    )


def test_dropout_takes_whole_channels():
    block = made(dropout=0.5, norm="none").each_block[0].train()
    taken = block._dropped(torch.ones(4, 9, 6, dtype=torch.float64))
    assert torch.equal(taken, taken[:, :1].expand_as(taken))
    assert set(taken.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_every_parameter_is_learned(prenorm, residual):
    model = made(prenorm=prenorm, residual=residual)
    model(sequences()).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": "s6"}, "layer = 's6'"),
        ({"norm": "group"}, "norm"),
        ({"pool": "max"}, "pool"),
        ({"dropout": 1.0}, "dropout"),
        ({"layers": 0}, "layers = 0"),
        ({"inputs": None}, "inputs"),
        ({"vocabulary": 9}, "vocabulary"),
        ({"blocks": 3}, "blocks"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(OptionError, match=words):
        SequenceModel(**({"inputs": 2, "outputs": 5} | SMALL | options))


def test_sequences_that_do_not_fit_are_refused():
    model, words = made(), SequenceModel(None, 3, vocabulary=16, **SMALL)
    for given in (torch.zeros(3, 17), torch.zeros(3, 17, 3), torch.zeros(3, 0, 2)):
        with pytest.raises(ShapeError, match="need"):
            model(given.double())
    with pytest.raises(ShapeError, match="whole numbers"):
        words(torch.zeros(3, 17))
    for lengths in ([1, 2], [0, 1, 2], [1, 2, 18]):
        with pytest.raises(ShapeError, match="from 1 to 17"):
            model(sequences(), torch.tensor(lengths))
    with pytest.raises(OptionError, match="mean"):
        model.step(torch.zeros(3, 2), model.initial_state(3))


def test_half_precision_is_computed_in_that_of_the_weights_and_arrays_are_refused():
    model, x = made().float(), sequences().half()
    with torch.no_grad():
        assert torch.equal(model(x), model(x.float()))
    last = made(pool="last")
    for call in (model, lambda given: last.step(given, last.initial_state(3))):
        with pytest.raises(OptionError, match="as_tensor"):
            call(np.zeros((3, 17, 2)))


def trainer(epochs: int = 3, **options) -> SequenceTrainer:
    data = listops(60, seed=5, depth=2, length=24)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = SequenceModel(None, 10, vocabulary=16, dropout=0.2, **SMALL)
    return SequenceTrainer(model, *data.split(40, 20), SequenceTraining(epochs=epochs, batch=8, **options))


def test_a_run_that_goes_on_is_the_run_that_was_never_cut_off(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = trainer()
    rows = train(whole, tmp_path / "a")
    train(trainer(), tmp_path / "b", stop_at=10)
    again = trainer()
    later = train(again, tmp_path / "b")
    assert [row["loss"] for row in later] == [row["loss"] for row in rows]
    for name, value in whole.use_best().state_dict().items():
        assert torch.equal(value, again.use_best().state_dict()[name]), name


def test_the_slow_rate_is_that_of_eigenvalues_and_steps():
    one = trainer(learning_rate=1e-2, slow_rate=1e-3, schedule="constant")
    one.advance()
    fast, slow = one.adam.param_groups
    assert (fast["lr"], slow["lr"], slow["weight_decay"]) == (1e-2, 1e-3, 0.0)
    names = {id(p): name for name, p in one.model.named_parameters()}
    kinds = {names[id(p)].rsplit(".", 1)[1] for p in slow["params"]}
    assert kinds == {"log_decay", "frequency", "log_step", "B"}


def test_what_can_be_told_is_learned():
    """The class is the sign of the sum: the last sample's state must hold all of them."""
    rng = np.random.default_rng(11)
    values = rng.standard_normal((240, 20, 1)).astype(np.float32)
    data = Sequences(values, (values.sum((1, 2)) > 0).astype(np.int64), 2)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = SequenceModel(1, 2, pool="last", channels=8, layers=1, state=16, step_range=(0.05, 0.5))
    one = SequenceTrainer(model, *data.split(200, 40), SequenceTraining(epochs=12, batch=20, slow_rate=8e-3))
    while one.step < one.steps:
        one.advance()
    assert accuracy(model, data.split(200, 40)[1]) >= 0.9


def test_the_case_of_digits_trains(tmp_path):
    pytest.importorskip("sklearn")
    case = load_case("train_ssm_digits").with_steps(1)
    trained = case.train(tmp_path, lambda done, note: None)
    assert trained.results[0]["sequences"] == 397
    assert trained.steps == case.steps


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('source = "digits"', 'source = "mnist"'),
        ("repeat", "depth = 3"),
        ("epochs = 42", "epochs = 0"),
        ("layers = 2", 'layers = 2\npool = "none"'),
        ("layers = 2", "layers = 2\ninputs = 7"),
        ("channels = 32", "chanels = 32"),
        ("slow_rate", "slowrate"),
    ],
)
def test_cases_that_do_not_fit_are_refused(change, words, tmp_path):
    from neuralsolve.cases import find_case

    text = find_case("train_ssm_digits").read_text()
    text = (
        text.replace(change, words)
        if change != "repeat"
        else text.replace("train = 1200", f"{words}\ntrain = 1200")
    )
    (tmp_path / "case.toml").write_text(text)
    with pytest.raises(OptionError, match=r"case\.toml"):
        load_case(tmp_path / "case.toml")


def test_the_command_line_trains(tmp_path):
    pytest.importorskip("sklearn")
    command = [
        sys.executable,
        "-m",
        "neuralsolve",
        "train",
        "train_ssm_digits",
        "--steps",
        "24",
        "--out-dir",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    assert "397 sequences" in done.stdout
    assert (tmp_path / "ssm_digits.safetensors").exists()
