"""The networks that fields are learned with, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from neuralsolve.errors import OptionError, check_known
from neuralsolve.lowrank.views import real_numbers
from neuralsolve.models.fno import FNO
from neuralsolve.models.lsm import LatentSpectral
from neuralsolve.models.memory_operator import MemoryOperator
from neuralsolve.models.points import LatentSpectralPoints
from neuralsolve.models.transolver import Transolver
from neuralsolve.models.unet import UNet

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "lsm": LatentSpectral,
    "lsm-points": LatentSpectralPoints,
    "unet": UNet,
    "transolver": Transolver,
    "fno": FNO,
    "fno-memory": MemoryOperator,
}
ON_POINTS = ("lsm-points",)  # take points and codes beside the fields
ON_FRAMES = ("fno-memory",)  # take any number of frames, each to the next, and carry a state


def make_network(name: str, **options: Any) -> nn.Module:
    """Return a network by name, of `NETWORKS`; weights are drawn from torch's global generator.

    Raises
    ------
    OptionError
        An unknown name or option.

    Examples
    --------
    >>> type(make_network("unet", dim=1, inputs=1, outputs=1, width=8)).__name__
    'UNet'
    """
    check_known("no network", name, NETWORKS)
    parameters = inspect.signature(NETWORKS[name]).parameters
    open_ = any(each.kind is each.VAR_KEYWORD for each in parameters.values())  # those of another library
    known = [key for key, each in parameters.items() if each.kind is not each.VAR_KEYWORD]
    for key in () if open_ else options:
        check_known(f"network {name!r}: unknown option", key, known)
    try:
        return NETWORKS[name](**options)
    except TypeError as error:
        msg = f"network {name!r}: {error}"
        raise OptionError(msg) from None


def parameters_of(module: nn.Module) -> int:
    """Return the number of real parameters; a complex one counts twice.

    >>> parameters_of(nn.Linear(3, 2))
    8
    """
    return sum(real_numbers(p) for p in module.parameters() if p.requires_grad)
