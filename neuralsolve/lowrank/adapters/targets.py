"""Which weights of a model an adapter changes, and where they hang."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from neuralsolve.errors import NonFiniteError, OptionError, nearest
from neuralsolve.lowrank.adapters.delta import working
from neuralsolve.lowrank.adapters.options import ALL, Adapter, Site, matches
from neuralsolve.lowrank.views import MatrixParameter, MatrixView, matrices

LISTED = 8  # paths that a message names


@dataclass(frozen=True)
class Target:
    """A weight and every place that it hangs in: of shared ones there are several.

    Attributes
    ----------
    name, parameter, view : path of the first place, the weight, how it is seen
    places : (path of the module, key) of each
    """

    name: str
    parameter: nn.Parameter
    view: MatrixView
    places: tuple[tuple[str, str], ...]


class PlainTensor(nn.Module):
    """Stands where a dense tensor of tensorly-torch stood, whose class takes no parametrisation.

    What hangs on it are `tensor`, `shape`, `to_tensor` and slices: all that neuraloperator asks for.
    """

    tensor: Tensor

    def __init__(self, replaced: nn.Module):
        super().__init__()
        self.replaced = (replaced,)  # in a tuple: not a part of the model
        self.register_parameter("tensor", replaced._parameters["tensor"])

    @property
    def shape(self) -> torch.Size:
        """Of the tensor."""
        return self.tensor.shape

    def to_tensor(self) -> Tensor:
        """Return the tensor."""
        return self.tensor

    def __getitem__(self, which: Any) -> Tensor:
        return self.tensor[which]


def targets(model: nn.Module, adapter: Adapter) -> list[Target]:
    """Return the weights that an adapter is to change.

    Raises
    ------
    OptionError
        None, or a name that leads to none.
    """
    known = [found for found in matrices(model, 1, ()) if _takes(found.module)]
    if adapter.targets == ALL:
        chosen = [
            found
            for found in known
            if min(found.shape) >= adapter.min_dim
            and not any(word in found.name for word in adapter.exclude)
            and not matches(found.name, adapter.also)
        ]
    else:
        chosen = [found for found in known if matches(found.name, adapter.targets)]
    _complain(adapter, known, chosen)
    places = _places(model)
    return [
        Target(
            found.name,
            found.parameter,
            _arranged(found.view, found.parameter.ndim, adapter.modes),
            tuple(places[id(found.parameter)]),
        )
        for found in chosen
    ]


def _complain(adapter: Adapter, known: list[MatrixParameter], chosen: list[MatrixParameter]) -> None:
    names = [found.name for found in known]
    if not chosen:
        there = ", ".join(f"{f.name} {f.shape}" for f in known[:LISTED]) or "no matrix at all"
        more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
        msg = (
            f"no weight to adapt with targets={adapter.targets!r}, min_dim={adapter.min_dim}, "
            f"exclude={list(adapter.exclude)}; the model has {there}{more}"
        )
        raise OptionError(msg)
    if not isinstance(adapter.targets, str):
        for part in adapter.targets:
            if not any(matches(name, [part]) for name in names):
                msg = f"targets names {part!r}, which leads to no matrix{nearest(part, names)}"
                raise OptionError(msg)


def sites(found: list[Target], adapter: Adapter, gradients: dict[str, list[Tensor]]) -> list[Site]:
    """Return the weights as matrices, with gradients where there are any.

    Raises
    ------
    NonFiniteError
        NaN or infinity in a weight.
    """
    generator = torch.Generator().manual_seed(adapter.seed)
    made = []
    for target in found:
        matrix = working(target.view.to_matrix(target.parameter.detach()))
        if not bool(torch.isfinite(torch.view_as_real(matrix) if matrix.is_complex() else matrix).all()):
            msg = f"{target.name} holds NaN or infinity; load good weights before attach"
            raise NonFiniteError(msg)
        each = [working(target.view.to_matrix(gradient)) for gradient in gradients.get(target.name, ())]
        stacked = torch.stack(each or [torch.zeros_like(matrix)])
        shape = target.parameter.shape
        made.append(Site(target.name, target.view, shape, matrix, stacked, generator))
    return made


def stand_in(model: nn.Module, path: str) -> None:
    """Put a `PlainTensor` wherever the module at a path hangs, if it needs one."""
    module = model.get_submodule(path)
    if not _is_dense_tensor(module):
        return
    plain = PlainTensor(module)
    for parent, key in _parents(model, module):
        parent._modules[key] = plain


def take_back(model: nn.Module) -> None:
    """Put the modules back that `stand_in` replaced."""
    for plain in [module for module in model.modules() if isinstance(module, PlainTensor)]:
        original = plain.replaced[0]
        original._parameters["tensor"] = plain._parameters["tensor"]
        for parent, key in _parents(model, plain):
            parent._modules[key] = original


def _parents(model: nn.Module, module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if child is module:
                yield parent, key


def _is_dense_tensor(module: nn.Module) -> bool:
    library = sys.modules.get("tltorch")
    return library is not None and isinstance(module, library.DenseTensor)


def _takes(module: nn.Module) -> bool:
    """Return whether a parametrisation can be hung on a module, and would act.

    Not on another parametrisation, on factored tensors, whose classes refuse it, nor on recurrent layers,
    which keep their weights in a list of their own.
    """
    library = sys.modules.get("tltorch")
    if library is not None and isinstance(module, library.FactorizedTensor):
        return _is_dense_tensor(module)
    return not isinstance(module, parametrize.ParametrizationList | nn.RNNBase)


def _places(model: nn.Module) -> dict[int, list[tuple[str, str]]]:
    found: dict[int, list[tuple[str, str]]] = {}
    for path, module in model.named_modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                found.setdefault(id(parameter), []).append((path, key))
    return found


def _arranged(view: MatrixView, ndim: int, modes: str) -> MatrixView:
    """Return the view with the batch among the columns, or with all but outputs and inputs as batch."""
    if modes == "unfold":
        used = {*view.rows, *view.columns}
        rest = [axis for axis in range(ndim - view.pairs) if axis not in used]
        return MatrixView(view.rows, (*view.columns, *rest), view.pairs)
    if modes == "batch":
        return MatrixView(view.rows[:1], view.columns[:1], view.pairs)
    return view
