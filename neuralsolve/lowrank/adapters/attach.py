"""Adapters put on a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from neuralsolve.errors import NonFiniteError, OptionError, check_kind
from neuralsolve.lowrank.adapters.options import Adapter, matches
from neuralsolve.lowrank.adapters.record import RECORD, Record, refuse_attached
from neuralsolve.lowrank.adapters.removal import take_off
from neuralsolve.lowrank.adapters.targets import LISTED, Target, sites, stand_in, targets

M = TypeVar("M", bound=nn.Module)


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
        No model or no adapter; an adapter is attached already; no weight to adapt; a name, rank or share that
        fits none; a loss that is missing, of another shape, or that depends on none of the weights.
    NonFiniteError
        NaN or infinity in weights or in the gradient.

    Examples
    --------
    >>> from neuralsolve.lowrank.adapters import LoRA, trainable_parameters
    >>> net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16))
    >>> before = net(torch.ones(1, 16))
    >>> net = attach(net, LoRA(rank=2))
    >>> torch.equal(net(torch.ones(1, 16)), before)
    True
    >>> sum(p.numel() for p in trainable_parameters(net))
    192
    """
    check_kind(model, nn.Module, "a torch.nn.Module is needed: attach(model, LoRA(rank=4))")
    needed = "an adapter is needed: attach(model, LoRA(rank=4)), or make_adapter('lora')"
    check_kind(adapter, Adapter, needed)
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
    made = sites(found, adapter, {} if loss is None else _gradients(model, adapter, found, loss))
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
        for target in found:
            for path, key in target.places:
                module = model.get_submodule(path)
                if key not in module._parameters and not parametrize.is_parametrized(module, key):
                    module.register_parameter(key, target.parameter)  # torch took it off and then failed
        take_off(model, record)
        raise
    return model


def _also(model: nn.Module, adapter: Adapter, taken: set[str]) -> dict[str, nn.Parameter]:
    named = dict(model.named_parameters())
    found = {name: p for name, p in named.items() if name not in taken and matches(name, tuple(adapter.also))}
    for part in adapter.also:
        if not any(matches(name, [part]) for name in found):
            msg = f"also names {part!r}, which leads to no parameter; the model has {', '.join(named)}"
            raise OptionError(msg)
    return found


def _gradients(
    model: nn.Module, adapter: Adapter, found: list[Target], loss: Callable[[], Tensor]
) -> dict[str, list[Tensor]]:
    """Return the gradients of the weights, one for each loss."""
    modes = {module: module.training for module in model.modules()}
    wanted = [target.parameter for target in found]
    required = [parameter.requires_grad for parameter in wanted]
    try:
        model.eval()
        for parameter in wanted:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            losses = loss()
            _check_losses(losses, adapter)
            each = [
                torch.autograd.grad(one, wanted, retain_graph=True, allow_unused=True)
                for one in losses.reshape(-1)
            ]
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, needed in zip(wanted, required, strict=True):
            parameter.requires_grad_(needed)
    if all(gradient is None for gradients in each for gradient in gradients):
        names = ", ".join(target.name for target in found[:LISTED])
        msg = f"the loss depends on none of {names}; one of model(x) is needed"
        raise OptionError(msg)
    full = [
        [
            torch.zeros_like(p) if gradient is None else gradient
            for p, gradient in zip(wanted, one, strict=True)
        ]
        for one in each
    ]
    named = {target.name: list(parts) for target, *parts in zip(found, *full, strict=True)}
    for name, gradients in named.items():
        if not all(bool(torch.isfinite(gradient.abs()).all()) for gradient in gradients):
            msg = f"the gradient of {name} holds NaN or infinity; give a loss of samples that are finite"
            raise NonFiniteError(msg)
    return named


def _check_losses(losses: object, adapter: Adapter) -> None:
    if not isinstance(losses, Tensor) or not losses.requires_grad:
        msg = f"the loss is {type(losses).__name__} without a graph; a tensor made of model(x) is needed"
        raise OptionError(msg)
    if adapter.wants_losses and losses.ndim != 1:
        msg = (
            f"{type(adapter).__name__} wants a loss for each sample, a vector, and got the shape "
            f"{tuple(losses.shape)}: loss=lambda: (model(x) - y).square().flatten(1).sum(1)"
        )
        raise OptionError(msg)
