"""Adapters as LoRA files of Hugging Face's `peft`, whatever the method: a change of rank R is two factors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.adapters.delta import Delta
from neuralsolve.lowrank.adapters.record import deltas_of, record_of
from neuralsolve.lowrank.svd import svd

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
LOST = 1e-6  # of the change: less is no rank of its own


def export_to_peft_lora(model: nn.Module, folder: Path | str) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors`` for `peft.PeftModel.from_pretrained`.

    Every change is cut where its singular values fall below `LOST`; its rank stands in the configuration.
    Statistics of batch normalisation that training has moved are not in it.

    Parameters
    ----------
    model : with an adapter on linear maps and convolutions alone, and nothing trained beside it
    folder : made if it is not there

    Raises
    ------
    OptionError
        Weights that peft does not know: complex ones, Fourier modes, convolutions in groups, weights that
        layers share, the weight of the model itself; parameters that are trained as they are.
    """
    from safetensors.torch import save_file

    record = record_of(model)
    if record.also:
        msg = (
            f"{next(iter(record.also))} is trained as it is, which no LoRA tells; save_adapter(...), or merge"
        )
        raise OptionError(msg)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for name, delta in deltas_of(model).items():
        path = name.rpartition(".")[0]
        _check_known(model, name, delta, len(record.places[name]))
        with torch.no_grad():
            B, A = svd(delta.matrix(), tol=LOST).balanced()
        ranks[path] = A.shape[0]
        taps = delta.shape[2:]
        A, B = A.reshape(-1, *delta.shape[1:]), B.reshape(*B.shape, *(1 for _ in taps))
        for side, factor in {"A": A, "B": B}.items():
            tensors[f"base_model.model.{path}.lora_{side}.weight"] = factor.contiguous().clone()
    highest = max(ranks.values())
    # A key of these patterns is meant by all paths that end in it, and the first one that fits counts.
    patterns = dict(sorted(ranks.items(), key=lambda pair: -len(pair[0])))
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": None,
        "task_type": None,
        "inference_mode": True,
        "target_modules": "|".join(
            map(re.escape, sorted(ranks))
        ),  # an expression: those, and none that end so
        "r": highest,
        "lora_alpha": highest,
        "lora_dropout": 0.0,
        "bias": "none",
        "rank_pattern": patterns,
        "alpha_pattern": patterns,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def _check_known(model: nn.Module, name: str, delta: Delta, places: int) -> None:
    """Raise OptionError of a weight that peft cannot adapt."""
    path, _, key = name.rpartition(".")
    module = model.get_submodule(path)
    reasons = {
        "a weight of a kind that peft does not know": key != "weight"
        or not isinstance(module, KINDS)
        or delta.matrix().ndim != 2,
        "a convolution in groups, of which peft's factors are others": getattr(module, "groups", 1) > 1,
        "shared by several layers, of which peft would adapt one": places > 1,
        "the model's own, and peft adapts layers inside: nn.Sequential(model) before attach": not path,
    }
    for reason, holds in reasons.items():
        if holds:
            msg = f"{name} is {reason}; leave it out by targets, or save_adapter(...)"
            raise OptionError(msg)
