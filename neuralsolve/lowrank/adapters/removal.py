"""Adapters taken off a model: without a trace, or folded into its weights."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize

from neuralsolve.lowrank.adapters.record import RECORD, Record, record_of
from neuralsolve.lowrank.adapters.targets import take_back

M = TypeVar("M", bound=nn.Module)


def detach(model: M) -> M:
    """Take the adapter off; return the model, bit for bit what it was before `attach`.

    Examples
    --------
    >>> from neuralsolve.lowrank.adapters import SVFit, attach
    >>> net = nn.Linear(4, 4)
    >>> before = net.weight.clone()
    >>> torch.equal(detach(attach(net, SVFit())).weight, before)
    True
    """
    record = record_of(model)
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for name, value in (record.also | record.buffers).items():
            named[name].copy_(value)
    return take_off(model, record)


def merge(model: M) -> M:
    """Fold the adapter into the weights and take it off; return the model, plain again.

    Examples
    --------
    >>> from neuralsolve.lowrank.adapters import LoRA, attach, trainable_parameters
    >>> net = attach(nn.Linear(4, 4), LoRA(rank=2))
    >>> with torch.no_grad():
    ...     trainable_parameters(net)[0].fill_(0.5)
    Parameter containing: ...
    >>> adapted = net.weight.clone()
    >>> torch.equal(merge(net).weight, adapted)
    True
    """
    record = record_of(model)
    with torch.no_grad():
        merged = {}
        for name, places in record.places.items():
            path, key = places[0]
            merged[name] = getattr(model.get_submodule(path), key).detach().clone()
        take_off(model, record)
        named = dict(model.named_parameters())
        for name, weight in merged.items():
            named[name].copy_(weight)
    return model


def merged_copy(model: M) -> M:
    """Return a copy with the adapter folded in."""
    record_of(model)
    return merge(copy.deepcopy(model))


def without_adapter(model: M) -> M:
    """Return a copy with the adapter folded in; where there is none, the model itself."""
    return merged_copy(model) if RECORD in model.__dict__ else model


def take_off(model: M, record: Record) -> M:
    """Take off as much as `attach` has put on; return the model."""
    for places in record.places.values():
        for path, key in places:
            module = model.get_submodule(path)
            if not parametrize.is_parametrized(module, key):  # attach did not come that far
                continue
            _own_class(module)
            parametrize.remove_parametrizations(module, key, leave_parametrized=False)
    for path, keys in record.order.items():
        held = model.get_submodule(path)._parameters
        for key in keys:  # an optimiser counts parameters in their order
            held[key] = held.pop(key)
    take_back(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(record.required.get(name, True))
    del model.__dict__[RECORD]
    return model


def _own_class(module: nn.Module) -> None:
    """Give a parametrised module a class of its own: copies share one, and torch takes properties off it."""
    shared = type(module)
    kept = {k: v for k, v in vars(shared).items() if k not in ("__dict__", "__weakref__")}
    own: Any = type(shared.__name__, shared.__bases__, kept)
    module.__class__ = own
