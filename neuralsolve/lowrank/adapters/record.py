"""What `attach` has done to a model, kept on it: copies of a model have their own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.adapters.delta import Delta
from neuralsolve.lowrank.adapters.options import Adapter

RECORD = "lowrank_adapters"


@dataclass(frozen=True)
class Record:
    """By paths alone, so that a copy of the model is told by a copy of this.

    Attributes
    ----------
    adapter : the options
    places : by the path of a weight, the (module path, key) that it hangs in
    order : by the path of a module, its parameters in their first order
    required : which parameters wanted gradients, by path
    also : what the parameters were that are trained as they are, by path
    buffers : what the buffers were: training moves the statistics of batch normalisation
    """

    adapter: Adapter
    places: dict[str, tuple[tuple[str, str], ...]]
    order: dict[str, tuple[str, ...]]
    required: dict[str, bool]
    also: dict[str, Tensor]
    buffers: dict[str, Tensor]


def refuse_attached(model: nn.Module) -> None:
    """Raise OptionError where an adapter is on a model, or on a part of it."""
    if any(RECORD in module.__dict__ for module in model.modules()):
        msg = "an adapter is attached to this model already; merge(model) or detach(model) first"
        raise OptionError(msg)


def record_of(model: nn.Module) -> Record:
    """Return what is attached to a model.

    Raises
    ------
    OptionError
        Nothing.
    """
    record = model.__dict__.get(RECORD)
    if record is None:
        msg = "no adapter is attached to this model itself; model = attach(model, LoRA(rank=4)) puts one on"
        raise OptionError(msg)
    return record


def deltas_of(model: nn.Module) -> dict[str, Delta]:
    """Return the changes of the adapted weights, by path; of shared weights once."""
    record = record_of(model)
    found = {}
    for name, places in record.places.items():
        path, key = places[0]
        found[name] = model.get_submodule(path).parametrizations[key][0]  # type: ignore[index]
    return found


def base_of(model: nn.Module, name: str) -> nn.Parameter:
    """Return an adapted weight as it was."""
    path, key = record_of(model).places[name][0]
    return model.get_submodule(path).parametrizations[key].original  # type: ignore[index, union-attr]
