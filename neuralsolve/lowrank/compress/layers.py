"""Which layers of a model can be factored, each seen as a matrix or as a batch of them.

Linear layers, convolutions of one group on one to three axes, layers factored before, and the weights of
spectral layers: of a module that declares a view of pairs with a batch of matrices, or of a layer whose
`weight` is a module that holds one complex tensor (in, out, *modes), as neuraloperator has it. A module that
takes its linear layers for their weights, and never calls them, names in `linear_on_input` those that it
applies to its own input (batch, channels, *shape). What shares its weights with another stays as it is,
and so do linear layers and convolutions of complex weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.compress.factored import (
    CONVOLUTIONS,
    Factored,
    FactoredConv,
    FactoredLinear,
    conv_view,
)
from neuralsolve.lowrank.compress.spectral import FactoredSpectral
from neuralsolve.lowrank.views import EXCLUDED, MatrixView, real_numbers


@dataclass(frozen=True)
class Target:
    """A layer that can be factored.

    Attributes
    ----------
    path : of the module that will be replaced
    kind : "linear", "conv" or "modes"
    module : it
    caller : the module whose calls tell what goes in and out
    view : of the weight
    """

    path: str
    kind: str
    module: Any
    caller: Any
    view: MatrixView

    @property
    def weight(self) -> Tensor:
        """The dense weight."""
        if self.kind != "modes":
            return self.module.weight.detach()
        return self.module.pairs.detach() if self.view.pairs else self.module.tensor.detach()

    def matrices(self) -> Tensor:
        """Return the matrices (batch, out, in), in double precision."""
        matrix = self.view.to_matrix(self.weight)
        wide = torch.complex128 if matrix.is_complex() else torch.float64
        return matrix.reshape(-1, *matrix.shape[-2:]).to(wide)

    @property
    def bias(self) -> Tensor | None:
        """The bias (out,), in double precision; of spectral layers it is none of the weights' concern."""
        bias = None if self.kind == "modes" else self.module.bias
        return None if bias is None else bias.detach().double()

    @property
    def parameters(self) -> int:
        """Real numbers that the weight takes now."""
        parts = self.module.factors() if isinstance(self.module, Factored) else [self.weight]
        return sum(map(real_numbers, parts))


def targets(
    model: nn.Module, include: Iterable[str] = (), exclude: Iterable[str] = (), scheme: str = "channel"
) -> tuple[list[Target], dict[str, str]]:
    """Return the layers that can be factored, and why others with a weight of two axes cannot, by path.

    Parameters
    ----------
    include, exclude : words; a layer is taken whose path has one of the first, if there are any, and none of
        the second
    scheme : of convolutions

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Conv1d(8, 8, 3, groups=8))
    >>> found, left = targets(net)
    >>> [each.path for each in found], left
    (['0'], {'2': 'groups of channels'})
    """
    included, excluded = tuple(include), (*EXCLUDED, *exclude)
    uses, callers = _uses(model), _callers(model)
    found: list[Target] = []
    left: dict[str, str] = {}
    inside: set[int] = set()
    for path, module in model.named_modules():
        if id(module) in inside:
            continue
        if isinstance(module, Factored | FactoredSpectral):
            inside |= {id(part) for part in module.modules()}
        target, why = _seen(path, module, callers.get(id(module), module), scheme)
        if target is None:
            if why:
                left[path] = why
            continue
        if isinstance(target.module, nn.Module):
            inside |= {id(part) for part in target.module.modules()}
        if any(word in target.path for word in excluded) or (
            included and not any(word in target.path for word in included)
        ):
            left[target.path] = "excluded"
        elif any(uses[id(each)] > 1 for each in target.module.parameters(recurse=False)):
            left[target.path] = "weights shared with another layer"
        else:
            found.append(target)
    return found, left


def _uses(model: nn.Module) -> Counter[int]:
    """Return how many modules hold each parameter."""
    return Counter(id(each) for module in model.modules() for each in module.parameters(recurse=False))


def _callers(model: nn.Module) -> dict[int, nn.Module]:
    """Return the modules that apply linear layers to their own input, by the layers."""
    return {
        id(getattr(module, name)): module
        for module in model.modules()
        for name in getattr(module, "linear_on_input", ())
    }


def _seen(path: str, module: Any, caller: Any, scheme: str) -> tuple[Target | None, str]:
    """Return a target, or why a module that might be one is none; "" for modules of no concern."""
    if type(module) in (nn.Linear, *CONVOLUTIONS) and module.weight.is_complex():
        return None, "complex weights"
    if type(module) is nn.Linear or isinstance(module, FactoredLinear):
        return Target(path, "linear", module, caller, MatrixView((0,), (1,))), ""
    if type(module) in CONVOLUTIONS or isinstance(module, FactoredConv):
        if isinstance(module, FactoredConv) and module.scheme != "channel":
            return None, "factored in space before"
        if not isinstance(module, FactoredConv) and module.groups != 1:
            return None, "groups of channels"
        dim = len(module.first.kernel_size if isinstance(module, Factored) else module.kernel_size)
        return Target(path, "conv", module, module, conv_view(dim, scheme if dim == 2 else "channel")), ""
    if isinstance(module, FactoredSpectral):
        return None, "factored before"
    if parametrize.is_parametrized(module):
        return None, "parametrised; merge its adapter first"
    views = getattr(module, "matrix_views", {})
    declared = views.get("pairs") if "pairs" in module._parameters else None
    if declared is not None and declared.pairs:
        modes = _batch_of_modes(declared, module.pairs.ndim)
        return (Target(path, "modes", module, module, modes), "") if modes else (None, "")
    weight: Any = module._modules.get("weight")
    tensor = None if weight is None else weight._parameters.get("tensor")
    if (
        tensor is not None
        and tensor.is_complex()
        and tensor.ndim >= 3
        and not getattr(module, "separable", False)
    ):
        return Target(
            f"{path}.weight" if path else "weight", "modes", weight, module, MatrixView((1,), (0,))
        ), ""
    return None, ""


def _batch_of_modes(view: MatrixView, ndim: int) -> MatrixView | None:
    """Return the view of a matrix for each mode, of one that has the modes among the columns."""
    if len(view.rows) != 1 or len(view.columns) < 1 or ndim < 4:
        return None
    return MatrixView(view.rows, view.columns[:1], pairs=True)


def replace(model: nn.Module, old: Any, new: nn.Module) -> None:
    """Put a module in the place of another, wherever a model holds it.

    Raises
    ------
    OptionError
        The model is that module itself.
    """
    if old is model:
        msg = f"the model is one {type(old).__name__}, which cannot be replaced; pass nn.Sequential(layer)"
        raise OptionError(msg)
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is old:
                module._modules[name] = new
