"""Adapters on the models of the package: on every kind of weight, shared ones, in copies and in files."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrize

from neuralsolve.errors import FormatError, NonFiniteError, OptionError, ShapeError
from neuralsolve.lowrank.adapters import (
    GPM,
    OSF,
    SALT,
    Effort,
    LoLDU,
    LoRA,
    LoRASB,
    LoRAXS,
    SVFit,
    TensorLoRA,
    attach,
    deltas_of,
    detach,
    disabled,
    load_adapter,
    merge,
    save_adapter,
    summary,
    trainable_parameters,
)
from neuralsolve.models.direction import DirectionNet
from neuralsolve.models.fourier_layer import FourierLayer
from neuralsolve.models.lsm import LatentSpectral
from neuralsolve.models.s4d import S4D
from neuralsolve.models.s5 import S5
from neuralsolve.models.sequence_model import SequenceModel
from neuralsolve.models.state_space import parameter_groups

ADAPTERS = {
    "lora": LoRA(rank=2),
    "tensor-lora": TensorLoRA(rank=2),
    "lora-xs": LoRAXS(rank=3),
    "lora-sb": LoRASB(rank=3),
    "svfit": SVFit(),
    "salt": SALT(rank=1),
    "loldu": LoLDU(rank=3),
    "osf": OSF(),
    "gpm": GPM(),
    "effort": Effort(tail=1),
}
EACH = pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
MODELS = {
    "lsm": (lambda: LatentSpectral(2, 1, 1, width=8, levels=2), (2, 1, 16, 16)),
    "dcdm": (lambda: DirectionNet(2, width=8), (2, 1, 8, 8)),
    "fourier": (lambda: FourierLayer(1, 6, 3), (2, 16, 6)),
    "fourier 2d": (lambda: FourierLayer(2, 6, 2), (2, 8, 8, 6)),
    "s4d": (lambda: S4D(4, state=6, init="legs"), (2, 9, 4)),
    "s5": (lambda: S5(4, state=8, init="legs", bidirectional=True), (2, 9, 4)),
    "sequences": (lambda: SequenceModel(3, 5, channels=8, layers=1, state=8, init="legs"), (2, 9, 3)),
}


def made(name: str, seed: int = 5) -> tuple[nn.Module, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        build, shape = MODELS[name]
        return build(), torch.randn(shape)


def put(model: nn.Module, adapter, x: torch.Tensor) -> nn.Module:
    def loss():
        each = model(x).abs().square().flatten(1).mean(1)
        return each if adapter.wants_losses else each.mean()

    return attach(model, adapter, loss if adapter.wants_loss() else None)


def few_steps(model: nn.Module, x: torch.Tensor, steps: int = 2) -> None:
    optimizer = torch.optim.AdamW(trainable_parameters(model), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        with parametrize.cached():
            model(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", MODELS)
@EACH
def test_every_model_takes_every_adapter(name, adapter):
    model, x = made(name)
    model.eval()
    before = {k: v.clone() for k, v in model.state_dict().items() if isinstance(v, torch.Tensor)}
    order = [k for k, _ in model.named_parameters()]
    y = model(x).detach()
    put(model, adapter, x)
    if isinstance(adapter, LoRASB):
        assert not torch.equal(model(x), y)
    else:
        assert torch.equal(model(x), y)
    few_steps(model, x)
    z = model(x).detach()
    assert not torch.equal(z, y)
    with disabled(model), torch.no_grad():
        for name in deltas_of(model):
            path, _, key = name.rpartition(".")
            assert torch.equal(getattr(model.get_submodule(path), key), before[name])
        assert torch.allclose(model(x), y, rtol=1e-5, atol=1e-6)  # products may be others without gradients
    with torch.no_grad():
        assert torch.allclose(model(x), z, rtol=1e-4, atol=1e-5)  # frozen steps of layers are made anew
    merged = merge(copy.deepcopy(model))
    assert [k for k, _ in merged.named_parameters()] == order
    assert torch.equal(merged(x), z)
    detach(model)
    after = model.state_dict()
    assert [k for k, _ in model.named_parameters()] == order
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert torch.equal(model(x), y)


@EACH
def test_weights_of_neuraloperator(adapter):
    pytest.importorskip("neuralop")
    from neuralsolve.models.fno import FNO

    with torch.random.fork_rng():
        torch.manual_seed(8)
        model, x = FNO(2, 1, 1, width=6, modes=4, layers=2), torch.randn(2, 1, 8, 8)
    kinds = [type(module) for module in model.modules()]
    keys = list(model.state_dict())
    y = model(x).detach()
    put(model, adapter, x)
    spectral = [name for name in deltas_of(model) if name.endswith("weight.tensor")]
    assert len(spectral) == 2
    few_steps(model, x)
    z = model(x).detach()
    assert not torch.equal(z, y)
    merged = merge(copy.deepcopy(model))
    assert torch.allclose(merged(x), z, rtol=1e-5, atol=1e-6)
    assert [type(module) for module in merged.modules()] == kinds
    detach(model)
    assert torch.equal(model(x), y)
    assert [type(module) for module in model.modules()] == kinds
    assert list(model.state_dict()) == keys


def test_lora_of_single_modes():
    model, x = made("fourier")
    attach(model, LoRA(rank=2, modes="batch", targets=["weights.pairs"]))
    assert summary(model).trained == 3 * 2 * 2 * (6 + 6)  # modes, rank, complex, both sides
    few_steps(model, x)


def test_tensor_lora_is_its_formula():
    model = attach(nn.Conv2d(5, 7, 3), TensorLoRA(rank=2))
    assert summary(model).trained == 2 * (7 + 5 + 3 + 3)
    delta = deltas_of(model)["weight"]
    with torch.no_grad():
        delta.left.normal_()
        formula = torch.einsum("oc,ic,kc,lc->oikl", delta.left, *delta.factors)
        assert torch.allclose(model.weight, formula + model.parametrizations.weight.original, atol=1e-6)


@pytest.mark.parametrize("adapter", [LoRA(rank=2), SVFit(), OSF()], ids=["lora", "svfit", "osf"])
def test_shared_weights_stay_shared(adapter):
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    x, W = torch.ones(3, 6), model[0].weight.detach().clone()
    attach(model, adapter)
    assert list(deltas_of(model)) == ["0.weight"]
    few_steps(model, x)
    assert torch.equal(model[0].weight, model[2].weight)
    assert not torch.equal(model[0].weight, W)
    y = model(x)
    other = detach(copy.deepcopy(model))
    assert other[0].weight is other[2].weight
    assert torch.equal(other[0].weight, W)
    merge(model)
    assert model[0].weight is model[2].weight
    assert torch.equal(model(x), y)


def test_what_is_also_trained_comes_back_too():
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 1))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    attach(model, LoRA(rank=2, also=["2", "bias"]))
    assert summary(model).trained == 2 * 14 + 8 + 8 + 9
    few_steps(model, torch.ones(3, 6))
    assert not torch.equal(model[2].weight, before["2.weight"])
    assert torch.equal(model[1].weight, before["1.weight"])
    kept = copy.deepcopy(model)
    detach(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not torch.equal(merge(kept)[2].weight, before["2.weight"])


def test_statistics_that_training_moves_belong_to_the_adapter(tmp_path):
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8))
    base = copy.deepcopy(model)
    attach(model, LoRA(rank=2))
    few_steps(model, torch.arange(18.0).view(3, 6).cos())
    model.eval()
    save_adapter(model, tmp_path / "a.safetensors")
    x = torch.ones(2, 6)
    assert torch.equal(load_adapter(base.eval(), tmp_path / "a.safetensors")(x), model(x))
    detach(model)
    assert not model[1].num_batches_tracked
    assert not model[1].running_mean.any()


def test_frozen_weights_stay_frozen_after():
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4))
    model[0].requires_grad_(False)
    detach(attach(model, LoRA(rank=2)))
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]


@EACH
def test_a_file_holds_the_adapter_alone(adapter, tmp_path):
    model, x = made("fourier")
    base = copy.deepcopy(model)
    put(model, adapter, x)
    few_steps(model, x)
    file = tmp_path / "adapter.safetensors"
    save_adapter(model, file)
    tensors = load_file(file)
    trained = {f"{k}.{name}" for k, d in deltas_of(model).items() for name, _ in d.named_parameters()}
    assert trained <= set(tensors)
    assert all(
        torch.equal(tensors[f"{k}.{n}"], p)
        for k, d in deltas_of(model).items()
        for n, p in d.named_parameters()
    )
    again = load_adapter(copy.deepcopy(base), file)
    assert torch.equal(again(x), model(x))
    save_adapter(model, file, bases=True)
    assert torch.equal(load_adapter(base, file)(x), model(x))


def test_files_that_do_not_fit_are_told_and_nothing_is_touched(tmp_path):
    model = attach(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)), SVFit(also=["bias"]))
    base = detach(copy.deepcopy(model))
    file = tmp_path / "a.safetensors"
    save_adapter(model, file)
    with pytest.raises(OptionError, match="detach"):
        load_adapter(model, file)
    other = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4))
    with pytest.raises(FormatError, match=r"0\.weight is not the weight that the adapter was trained on"):
        load_adapter(other, file)
    with pytest.raises(FormatError, match=r"0\.weight is missing"):
        load_adapter(nn.Linear(6, 8), file)
    with pytest.raises(FileNotFoundError):
        load_adapter(base, tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors here")
    with pytest.raises(FormatError, match="no file of an adapter"):
        load_adapter(base, tmp_path / "text.safetensors")
    keys = list(base.state_dict())
    _rewrite(
        file,
        tmp_path / "turned.safetensors",
        lambda facts: facts["weights"]["0.weight"]["marks"]["left"].reverse(),
    )
    with pytest.raises(FormatError, match="bases=True"):
        load_adapter(base, tmp_path / "turned.safetensors")
    _rewrite(file, tmp_path / "new.safetensors", lambda facts: facts.update(version=99))
    with pytest.raises(FormatError, match="version 99"):
        load_adapter(base, tmp_path / "new.safetensors")
    _rewrite(file, tmp_path / "odd.safetensors", lambda facts: facts.update(method="magic"))
    with pytest.raises(FormatError, match="magic"):
        load_adapter(base, tmp_path / "odd.safetensors")
    assert list(base.state_dict()) == keys
    load_adapter(base, file)


def _rewrite(file: Path, to: Path, change) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(str(file), "pt") as opened:
        facts = json.loads(opened.metadata()["adapter"])
    change(facts)
    save_file(load_file(file), to, {"adapter": json.dumps(facts)})


@pytest.mark.parametrize(
    ("adapter", "other"),
    [
        (LoRA(rank=2), LoRA(rank=3)),
        (TensorLoRA(rank=2), TensorLoRA(rank=3)),
        (LoRAXS(rank=2), LoRAXS(rank=3)),
        (SVFit(rank=2), SVFit(rank=3)),
        (LoLDU(rank=2), LoLDU(rank=3)),
        (Effort(tail=2), Effort(tail=3)),
    ],
    ids=lambda adapter: type(adapter).__name__,
)
def test_a_state_of_another_rank_is_refused(adapter, other):
    model, again = attach(nn.Linear(6, 8), adapter), attach(nn.Linear(6, 8), other)
    for strict in (True, False):
        with pytest.raises(
            ShapeError, match=r"of rank 2, here .* of rank 3; attach the adapter of that state"
        ):
            again.load_state_dict(model.state_dict(), strict=strict)


def test_a_state_of_another_model_is_told_by_torch():
    model, other = (attach(nn.Linear(*sides), LoRA(rank=2)) for sides in ((6, 8), (5, 7)))
    with pytest.raises(RuntimeError, match=r"size mismatch for parametrizations\.weight\.original"):
        other.load_state_dict(model.state_dict())


def test_a_failed_write_leaves_the_older_file(tmp_path):
    model = attach(nn.Linear(4, 4), LoRA(rank=1))
    with pytest.raises(OSError, match="none"):
        save_adapter(model, tmp_path / "none" / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_twice_is_refused_with_the_way_out():
    model = attach(nn.Linear(4, 4), LoRA(rank=2))
    with pytest.raises(OptionError, match=r"detach\(model\)"):
        attach(model, SVFit())
    with pytest.raises(OptionError, match=r"detach\(model\)"):
        attach(nn.Sequential(model), SVFit())
    for call in (merge, detach, summary, deltas_of):
        with pytest.raises(OptionError, match="no adapter is attached"):
            call(nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("model", "adapter", "words"),
    [
        (nn.Sequential(nn.LayerNorm(4), nn.Tanh()), LoRA(rank=2), "the model has no matrix at all"),
        (nn.Linear(6, 1), LoRA(rank=1), r"weight \(1, 6\)"),
        (nn.GRU(6, 4), LoRA(rank=1), "no matrix at all"),
        (nn.Linear(6, 4), LoRA(rank=5), r"rank 5 for weight \(4, 6\), which takes 4 at most"),
        (nn.Linear(6, 4), LoRA(rank=2, ranks={"weight": 9}), "rank 9 for weight"),
        (nn.Linear(6, 4), LoRA(rank=2, ranks={"wieght": 1}), "did you mean 'weight'"),
        (nn.Linear(6, 4), LoRA(rank=2, targets=["head"]), "no weight to adapt"),
        (nn.Sequential(nn.Linear(6, 4)), LoRA(rank=2, targets=["0", "head"]), "targets names 'head'"),
        (nn.Linear(6, 4), LoRA(rank=2, also=["head"]), "also names 'head'"),
        (nn.Linear(6, 4), Effort(tail=4), "tail=4 for weight"),
        (nn.Linear(6, 4), SALT(rank=3, keep=0.5), "takes 2 at most"),
        (nn.Linear(6, 4), OSF(keeps={"w": 0.5}), "keeps names 'w'"),
        (nn.Linear(6, 4), LoRASB(rank=2), "loss=lambda"),
    ],
)
def test_what_fits_nothing_is_told_and_nothing_is_touched(model, adapter, words):
    keys, wanted = list(model.state_dict()), [p.requires_grad for p in model.parameters()]
    with pytest.raises(OptionError, match=words):
        attach(model, adapter)
    assert list(model.state_dict()) == keys
    assert [p.requires_grad for p in model.parameters()] == wanted


@pytest.mark.parametrize(
    "call",
    [
        lambda: LoRA(rank=0),
        lambda: LoRA(rank=2.0),  # type: ignore[arg-type]
        lambda: LoRA(alpha=0),
        lambda: LoRA(modes="per"),
        lambda: LoRA(min_dim=0),
        lambda: LoRA(also="head"),
        lambda: TensorLoRA(alpha=float("nan")),
        lambda: SVFit(energy=0),
        lambda: SVFit(rank=0),
        lambda: SALT(keep=1.0),
        lambda: LoRASB(step=0),
        lambda: LoLDU(start="best"),
        lambda: LoLDU(pivot="full"),
        lambda: LoLDU(alpha=-1),
        lambda: OSF(keep=0),
        lambda: Effort(tail=0),
    ],
)
def test_options_are_checked_where_they_are_written(call):
    with pytest.raises(OptionError):
        call()


def test_a_module_that_refuses_leaves_the_model_as_it_was():
    class Stubborn(nn.Linear):
        def __init_subclass__(cls, **options: object) -> None:
            msg = "no subclass"
            raise TypeError(msg)

    model = nn.Sequential(nn.Linear(6, 4), Stubborn(4, 6))
    keys = list(model.state_dict())
    with pytest.raises(TypeError, match="no subclass"):
        attach(model, LoRA(rank=2))
    assert list(model.state_dict()) == keys
    assert type(model[0]) is nn.Linear
    assert all(p.requires_grad for p in model.parameters())
    attach(model, LoRA(rank=2, targets=["0"]))


def test_a_gradient_of_nan_is_told_and_nothing_is_touched():
    model = nn.Linear(6, 4)
    with pytest.raises(NonFiniteError, match="gradient of weight"):
        attach(model, LoRASB(rank=2), lambda: (model.weight * float("nan")).sum())
    assert list(model.state_dict()) == ["weight", "bias"]
    assert model.training


def test_the_loss_is_seen_in_evaluation_mode_and_leaves_no_gradients():
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    model[0].requires_grad_(False)
    seen = []

    def loss() -> torch.Tensor:
        seen.append(model.training or model[1].training)
        return model(torch.ones(3, 6)).square().sum()

    attach(model, LoRASB(rank=2), loss)
    assert seen == [False]
    assert model.training
    assert model[1].training
    assert not model[1].num_batches_tracked
    assert all(p.grad is None for p in model.parameters())


def test_state_space_groups_hold_what_is_trained():
    layer = attach(S4D(4, state=6, init="legs"), LoRA(rank=2, targets=["B", "C"]))
    groups = parameter_groups(layer, lr=1e-2)
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in layer.parameters())
    slow = {id(p) for p in groups[1]["params"]}
    assert {id(p) for p in deltas_of(layer)["B"].parameters()} <= slow
    assert not {id(p) for p in deltas_of(layer)["C"].parameters()} & slow
