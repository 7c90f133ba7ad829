"""Adapters as LoRA files of Hugging Face's `peft`, whatever the method: a change of rank R is two factors."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.adapters.record import deltas_of
from neuralsolve.lowrank.svd import svd

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
LOST = 1e-6  # of the change: less is no rank of its own


def export_to_peft_lora(model: nn.Module, folder: Path | str) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors`` for `peft.PeftModel.from_pretrained`.

    Every change is cut where its singular values fall below `LOST`; its rank stands in the configuration.

    Parameters
    ----------
    model : with an adapter on linear maps and convolutions alone, and nothing trained beside it
    folder : made if it is not there

    Raises
    ------
    OptionError
        Weights that peft does not know: complex ones, Fourier modes, parameters outside of layers.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for name, delta in deltas_of(model).items():
        path, _, key = name.rpartition(".")
        module = model.get_submodule(path)
        if key != "weight" or not isinstance(module, KINDS) or delta.matrix().ndim != 2:
            msg = f"{name} is a weight that peft cannot adapt; leave it out by targets, or save_adapter(...)"
            raise OptionError(msg)
        with torch.no_grad():
            B, A = svd(delta.matrix(), tol=LOST).balanced()
        ranks[path] = A.shape[0]
        taps = delta.shape[2:]
        A, B = A.reshape(-1, *delta.shape[1:]), B.reshape(*B.shape, *(1 for _ in taps))
        for side, factor in {"A": A, "B": B}.items():
            tensors[f"base_model.model.{path}.lora_{side}.weight"] = factor.contiguous().clone()
    highest = max(ranks.values())
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": None,
        "task_type": None,
        "inference_mode": True,
        "target_modules": sorted(ranks),
        "r": highest,
        "lora_alpha": highest,
        "lora_dropout": 0.0,
        "bias": "none",
        "rank_pattern": ranks,
        "alpha_pattern": ranks,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
