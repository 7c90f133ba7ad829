"""Adapters as files of peft: the same factors, the same weights, the same model."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.adapters import (
    OSF,
    LoRA,
    LoRAXS,
    SVFit,
    attach,
    deltas_of,
    export_to_peft_lora,
    merge,
    trainable_parameters,
)
from neuralsolve.models.fourier_layer import FourierLayer


class Net(nn.Module):
    """A path that ends as another, ranks that differ, every kind of layer that peft takes."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(6, 5)
        self.inner = nn.ModuleDict({"last": nn.Linear(6, 6), "0": nn.Conv1d(4, 6, 3, padding=1)})
        self.plane, self.space = nn.Conv2d(5, 4, (3, 1)), nn.Conv3d(4, 3, (3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.last(self.inner["last"](self.inner["0"](x).mT).tanh())
        return self.space(self.plane(h.mT[..., None])[..., None])


def trained(adapter) -> tuple[nn.Module, nn.Module]:
    """Return a model with an adapter that has learned something, and what it was before."""
    with torch.random.fork_rng():
        torch.manual_seed(6)
        model = Net()
    base = copy.deepcopy(model)
    attach(model, adapter)
    with torch.no_grad():
        for p in trainable_parameters(model):
            p.add_(0.1 * torch.arange(p.numel()).view(p.shape).cos())
    return model, base


@pytest.mark.parametrize(
    "adapter",
    [
        LoRA(rank=2, alpha=3, ranks={"last.weight": 4, "inner.last.weight": 1}),
        LoRA(rank=2, targets=r"(last|plane)\.weight"),
        LoRAXS(rank=2),
        SVFit(rank=3),
        OSF(keep=0.7),
    ],
    ids=["lora", "some", "lora-xs", "svfit", "osf"],
)
def test_peft_takes_what_is_exported(adapter, tmp_path):
    model, base = trained(adapter)
    export_to_peft_lora(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    for name in deltas_of(model):
        path = name.removesuffix(".weight")
        A, B = (tensors[f"base_model.model.{path}.lora_{side}.weight"] for side in "AB")
        assert A.shape[0] == B.shape[1] == config["rank_pattern"][path]
        assert config["alpha_pattern"][path] == A.shape[0]  # scale 1
        change = model.get_submodule(path).weight - base.get_submodule(path).weight
        assert torch.allclose((B.flatten(1) @ A.flatten(1)).view_as(change), change, atol=1e-5)
    peft = pytest.importorskip("peft")
    x = torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(3))
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    adapted = {name.split(".lora_A")[0] for name, _ in theirs.named_modules() if name.endswith(".lora_A")}
    assert {name.removeprefix("base_model.model.") + ".weight" for name in adapted} == set(deltas_of(model))
    assert torch.allclose(theirs(x), model(x), atol=1e-5)
    theirs, merged = theirs.merge_and_unload().state_dict(), merge(model).state_dict()
    assert theirs.keys() == merged.keys()
    assert all(torch.allclose(theirs[name], merged[name], atol=1e-5) for name in merged)


@pytest.mark.parametrize("alpha", [None, 3.0])
def test_lora_is_that_of_peft_by_the_same_factors(alpha):
    peft = pytest.importorskip("peft")
    model, base = trained(LoRA(rank=2, alpha=alpha))
    names = [name.removesuffix(".weight") for name in deltas_of(model)]
    config = peft.LoraConfig(r=2, lora_alpha=2 if alpha is None else alpha, target_modules=names)
    theirs = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, delta in deltas_of(model).items():
            layer = theirs.base_model.model.get_submodule(name.removesuffix(".weight"))
            for ours, factor in ((delta.right, layer.lora_A), (delta.left, layer.lora_B)):
                weight = factor["default"].weight
                weight.copy_(ours.view_as(weight))
    x = torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(theirs(x), model(x), atol=1e-5)
    theirs, merged = theirs.merge_and_unload().state_dict(), merge(model).state_dict()
    assert all(torch.allclose(theirs[name], merged[name], atol=1e-6) for name in merged)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (FourierLayer(1, 6, 3), {}, r"weights\.pairs is a weight of a kind that peft does not know"),
        (nn.Sequential(nn.ConvTranspose2d(4, 6, 2)), {}, "of a kind that peft does not know"),
        (nn.Sequential(nn.Conv2d(4, 6, 3, groups=2)), {}, "in groups"),
        (tied(), {}, "shared by several layers"),
        (nn.Linear(4, 6), {}, "the model's own"),
        (nn.Sequential(nn.Linear(4, 6)), {"also": ["bias"]}, r"0\.bias is trained as it is"),
    ],
    ids=["fourier", "transposed", "groups", "shared", "alone", "also"],
)
def test_export_tells_what_peft_does_not_know(model, options, words, tmp_path):
    with pytest.raises(OptionError, match=words):
        export_to_peft_lora(attach(model, LoRA(rank=2, **options)), tmp_path)
    assert not list(tmp_path.iterdir())
