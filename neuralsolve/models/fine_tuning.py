"""Training that begins with a trained model: of all its weights, or of an adapter on them."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.data.samples import Samples
from neuralsolve.errors import OptionError
from neuralsolve.lowrank.adapters import attach
from neuralsolve.lowrank.adapters.options import Adapter
from neuralsolve.models.field_losses import l2
from neuralsolve.models.surrogate import Surrogate, mesh_of

SEEN = 64  # samples of the gradient that an adapter begins with


def begun(path: Path, network: dict[str, Any]) -> Surrogate:
    """Return the model of a file, to be trained on.

    Parameters
    ----------
    network : {"name": ..., option: ...} that it must have

    Raises
    ------
    OptionError
        A model of another network.
    FileNotFoundError, FormatError
        No file of a model.
    """
    model = Surrogate.load(path)
    _same(path, model.network, network)
    return model


def check_fits(path: Path | str, model: Surrogate, prior: int, samples: Samples) -> None:
    """Raise OptionError where a model of a file is of another grid than samples, or of other inputs.

    prior : cheap solutions among the inputs of the samples
    """
    _same(path, {"prior": model.prior}, {"prior": prior})
    if samples.points is None and model.layout.shape != samples.layout.shape:
        msg = (
            f"{path} was trained on {model.layout.shape} nodes, the samples have {samples.layout.shape}; "
            "samples on the same grid are needed: stride, or another data set"
        )
        raise OptionError(msg)


def _same(path: Path | str, held: dict[str, Any], wanted: dict[str, Any]) -> None:
    other = [f"{key} = {held.get(key)!r}" for key, value in wanted.items() if held.get(key) != value]
    if other:
        msg = (
            f"{path} is a model with {', '.join(other)}, the case asks for another; options that the case "
            "does not name are those of the model"
        )
        raise OptionError(msg)


def adapt(model: Surrogate, adapter: Adapter, samples: Samples) -> Surrogate:
    """Put an adapter on a model; a first gradient, where it takes one, is that of the first samples."""

    def loss() -> Tensor:
        few = samples.take(slice(0, SEEN))
        device = model.before.mean.device
        x, y = (
            torch.from_numpy(np.ascontiguousarray(v, np.float32)).to(device)
            for v in (few.inputs, few.outputs)
        )
        mesh = () if few.points is None else mesh_of(few, np.arange(len(few)), device)
        made = model(x, *mesh)
        return l2(made, y[:, : made.shape[1]], [1.0] * (made.ndim - 2)).mean()

    return attach(model, adapter, loss if adapter.wants_loss() else None)


def mark(*tensors: Any) -> int:
    """Return a sum of the bytes of tensors, which tells one model from another."""
    total = 0
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            plain = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            total = zlib.crc32(plain.numpy().tobytes(), total)
    return total
