"""What a compressed model is made of, as JSON holds it: files tell it, and models are rebuilt by it."""

from __future__ import annotations

from typing import Any

from torch import nn

from neuralsolve.errors import StructureError
from neuralsolve.lowrank.compress.compensated import Compensated
from neuralsolve.lowrank.compress.factored import Factored, FactoredConv, FactoredLinear
from neuralsolve.lowrank.compress.layers import replace, targets
from neuralsolve.lowrank.compress.spectral import FactoredSpectral
from neuralsolve.lowrank.views import real_numbers

Structure = dict[str, dict[str, Any]]


def structure_of(model: nn.Module) -> Structure:
    """Return the factored layers of a model by path; empty where there are none.

    Examples
    --------
    >>> net = nn.Sequential(FactoredLinear(6, 4, rank=2), nn.Tanh())
    >>> structure_of(net)
    {'0': {'kind': 'linear', 'rank': 2, 'bias': True}}
    """
    found: Structure = {}
    inside: set[int] = set()
    for path, module in model.named_modules():
        if id(module) in inside:
            continue
        told = _told(module)
        if told is not None:
            found[path] = told
            inside |= {id(part) for part in module.modules()}
    return found


def _told(module: nn.Module) -> dict[str, Any] | None:
    if isinstance(module, Compensated):
        inner = _told(module.base)
        return {"kind": "compensated", "rank": module.residual.rank} | ({"base": inner} if inner else {})
    if isinstance(module, FactoredSpectral):
        return {"kind": "modes", "ranks": module.ranks}
    if isinstance(module, Factored):
        told = {"kind": "linear", "rank": module.rank, "bias": module.bias is not None}
        return told | ({"kind": "conv", "scheme": module.scheme} if isinstance(module, FactoredConv) else {})
    return None


def restructure(model: nn.Module, structure: Structure) -> nn.Module:
    """Put factored layers of drawn numbers in the places that a structure names; return the model, changed.

    Raises
    ------
    StructureError
        A structure of another model.

    Examples
    --------
    >>> net = restructure(nn.Sequential(nn.Linear(6, 4)), {"0": {"kind": "linear", "rank": 2, "bias": True}})
    >>> net[0].rank
    2
    """
    known = {target.path: target for target in targets(model, exclude=())[0]}
    modules = dict(model.named_modules())
    for path, told in structure.items():
        try:
            if told["kind"] == "modes":
                view, weight = known[path].view, known[path].weight
                made: nn.Module = FactoredSpectral(
                    view, weight.shape, told["ranks"], weight.dtype, weight.device
                )
            else:
                made = _made(modules[path], told)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            msg = f"{path!r} cannot be {told}: {error}; the structure of this very model is needed"
            raise StructureError(msg) from None
        replace(model, modules[path], made.train(model.training))
    return model


def _made(layer: Any, told: dict[str, Any]) -> nn.Module:
    if told["kind"] == "compensated":
        base = _made(layer, told["base"]) if "base" in told else layer
        return Compensated.like(base, int(told["rank"]))
    rank, bias = int(told["rank"]), bool(told["bias"])
    if told["kind"] == "linear":
        return FactoredLinear.like(layer, rank, bias)
    return FactoredConv.like(layer, rank, str(told["scheme"]), bias)


def real_parameters(model: nn.Module) -> int:
    """Return how many real numbers the parameters are; a complex one is two.

    >>> real_parameters(nn.Linear(3, 2))
    8
    """
    return sum(map(real_numbers, model.parameters()))
