"""Adapters on a model: on, off, folded into the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from neuralsolve.errors import NonFiniteError, OptionError
from neuralsolve.lowrank.adapters.delta import Delta, Penalised
from neuralsolve.lowrank.adapters.options import Adapter, matches
from neuralsolve.lowrank.adapters.targets import Target, sites, stand_in, take_back, targets

RECORD = "lowrank_adapters"
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Record:
    """What `attach` has done to a model; kept on it, by paths, so that copies of the model have their own.

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


def attach(model: M, adapter: Adapter, loss: Callable[[], Tensor] | None = None) -> M:
    """Freeze a model and put an adapter on its weights; return the model.

    Weights become parametrised (`torch.nn.utils.parametrize`) and are formed anew at every use: where a
    forward uses one several times, put it into ``with parametrize.cached():``. Parameters that are trained
    are those of `trainable_parameters`; make the optimiser after this call. Whatever fails, the model is left
    untouched.

    Parameters
    ----------
    model : changed in place
    adapter : what is put on which weights, and what else is trained (`also`)
    loss : of kinds that begin with gradients: returns losses with their graph, a scalar (LoRASB: of new
        samples) or a vector (GPM: of samples of the older task); called once, in evaluation mode

    Raises
    ------
    OptionError
        An adapter is attached already; no weight to adapt; a name, rank or share that fits none; a loss that
        is missing.
    NonFiniteError
        NaN or infinity in weights or in the gradient.

    Examples
    --------
    >>> from neuralsolve.lowrank.adapters import LoRA
    >>> net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16))
    >>> before = net(torch.ones(1, 16))
    >>> net = attach(net, LoRA(rank=2))
    >>> torch.equal(net(torch.ones(1, 16)), before)
    True
    >>> sum(p.numel() for p in trainable_parameters(net))
    192
    """
    if adapter.wants_loss() and loss is None:
        name = type(adapter).__name__
        msg = f"{name} begins with gradients: attach(model, {name}(...), loss=lambda: loss of some samples)"
        raise OptionError(msg)
    return put_on(model, adapter, loss if adapter.wants_loss() else None)


def put_on(model: M, adapter: Adapter, loss: Callable[[], Tensor] | None) -> M:
    """Attach an adapter; where there is no loss, kinds that want a gradient begin with zero."""
    refuse_attached(model)
    found = targets(model, adapter)
    also = _also(model, adapter, {target.name for target in found})
    made = sites(found, adapter, {} if loss is None else _gradients(model, found, loss))
    adapter.fits(made)
    deltas = [adapter.delta(site) for site in made]
    record = Record(
        adapter,
        {target.name: target.places for target in found},
        {path: tuple(model.get_submodule(path)._parameters) for t in found for path, _ in t.places},
        {name: p.requires_grad for name, p in model.named_parameters()},
        {name: p.detach().clone() for name, p in also.items()},
        {name: b.detach().clone() for name, b in model.named_buffers()},
    )
    model.__dict__[RECORD] = record
    try:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in also)
        for target, delta in zip(found, deltas, strict=True):
            for path, key in target.places:
                stand_in(model, path)
                parametrize.register_parametrization(model.get_submodule(path), key, delta)
    except BaseException:
        _off(model, record)
        raise
    return model


def refuse_attached(model: nn.Module) -> None:
    """Raise OptionError where an adapter is on a model, or on a part of it."""
    if any(RECORD in module.__dict__ for module in model.modules()):
        msg = "an adapter is attached to this model already; merge(model) or detach(model) first"
        raise OptionError(msg)


def _also(model: nn.Module, adapter: Adapter, taken: set[str]) -> dict[str, nn.Parameter]:
    named = dict(model.named_parameters())
    found = {name: p for name, p in named.items() if name not in taken and matches(name, tuple(adapter.also))}
    for part in adapter.also:
        if not any(matches(name, [part]) for name in found):
            msg = f"also names {part!r}, which leads to no parameter; the model has {', '.join(named)}"
            raise OptionError(msg)
    return found


def _gradients(model: nn.Module, found: list[Target], loss: Callable[[], Tensor]) -> dict[str, list[Tensor]]:
    """Return the gradients of the weights, one for each loss."""
    modes = {module: module.training for module in model.modules()}
    wanted = [target.parameter for target in found]
    required = [parameter.requires_grad for parameter in wanted]
    try:
        model.eval()
        for parameter in wanted:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            losses = loss().reshape(-1)
            each = [
                torch.autograd.grad(one, wanted, retain_graph=True, materialize_grads=True) for one in losses
            ]
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, needed in zip(wanted, required, strict=True):
            parameter.requires_grad_(needed)
    named = {target.name: list(parts) for target, *parts in zip(found, *each, strict=True)}
    for name, gradients in named.items():
        if not all(bool(torch.isfinite(gradient.abs()).all()) for gradient in gradients):
            msg = f"the gradient of {name} holds NaN or infinity; give a loss of samples that are finite"
            raise NonFiniteError(msg)
    return named


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


def detach(model: M) -> M:
    """Take the adapter off; return the model, bit for bit what it was before `attach`.

    Examples
    --------
    >>> from neuralsolve.lowrank.adapters import SVFit
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
    return _off(model, record)


def merge(model: M) -> M:
    """Fold the adapter into the weights and take it off; return the model, plain again.

    Examples
    --------
    >>> from neuralsolve.lowrank.adapters import LoRA
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
        _off(model, record)
        named = dict(model.named_parameters())
        for name, weight in merged.items():
            named[name].copy_(weight)
    return model


def merged_copy(model: M) -> M:
    """Return a copy with the adapter folded in; where there is none, the model itself."""
    return merge(copy.deepcopy(model)) if RECORD in model.__dict__ else model


def _off(model: M, record: Record) -> M:
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


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Let the weights be what they were before `attach` for a while, but for those of `also`.

    Examples
    --------
    >>> from neuralsolve.lowrank.adapters import LoRA
    >>> net = attach(nn.Linear(4, 4), LoRA(rank=2))
    >>> with disabled(net):
    ...     y = net(torch.ones(4))
    """
    deltas = deltas_of(model).values()
    before = [delta.enabled for delta in deltas]
    try:
        for delta in deltas:
            delta.enabled = False
        yield
    finally:
        for delta, enabled in zip(deltas, before, strict=True):
            delta.enabled = enabled


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return what is trained: for the optimiser."""
    return [p for p in model.parameters() if p.requires_grad]


@dataclass(frozen=True)
class Summary:
    """How much is trained, in real numbers: a complex one counts twice.

    Attributes
    ----------
    trained, total : of the adapter and what is trained as it is, and of the model without adapter
    layers : by the path of a weight, the trained numbers of its adapter
    """

    trained: int
    total: int
    layers: dict[str, int]

    @property
    def share(self) -> float:
        """Of the trained numbers in those of the model."""
        return self.trained / self.total

    def __str__(self) -> str:
        return f"{self.trained} of {self.total} numbers are trained: {100 * self.share:.2f} %"


def summary(model: nn.Module) -> Summary:
    """Return how much of an adapted model is trained.

    Examples
    --------
    >>> from neuralsolve.lowrank.adapters import LoRA
    >>> print(summary(attach(nn.Linear(8, 8), LoRA(rank=1))))
    16 of 72 numbers are trained: 22.22 %
    """
    layers = {name: sum(map(_numbers, d.trained().values())) for name, d in deltas_of(model).items()}
    adapters = {id(t) for delta in deltas_of(model).values() for t in delta.parameters()}
    total = sum(_numbers(p) for p in model.parameters() if id(p) not in adapters)
    return Summary(sum(map(_numbers, trainable_parameters(model))), total, layers)


def _numbers(tensor: Tensor) -> int:
    return tensor.numel() * (2 if tensor.is_complex() else 1)


def penalty(model: nn.Module) -> Tensor:
    """Return the mean penalty of the adapted weights, to be added to the loss times a weight.

    Raises
    ------
    OptionError
        A method without one.
    """
    each = [delta.penalty() for delta in deltas_of(model).values() if isinstance(delta, Penalised)]
    if not each:
        msg = f"{type(record_of(model).adapter).__name__} has no penalty; SALT, OSF and Effort have one"
        raise OptionError(msg)
    return torch.stack(each).mean()
