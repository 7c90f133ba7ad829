"""The adapters by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from neuralsolve.errors import check_known
from neuralsolve.lowrank.adapters.effort import Effort
from neuralsolve.lowrank.adapters.gpm import GPM
from neuralsolve.lowrank.adapters.loldu import LoLDU
from neuralsolve.lowrank.adapters.lora import LoRA
from neuralsolve.lowrank.adapters.lora_sb import LoRASB
from neuralsolve.lowrank.adapters.lora_xs import LoRAXS
from neuralsolve.lowrank.adapters.options import Adapter
from neuralsolve.lowrank.adapters.osf import OSF
from neuralsolve.lowrank.adapters.salt import SALT
from neuralsolve.lowrank.adapters.svfit import SVFit
from neuralsolve.lowrank.adapters.tensor_lora import TensorLoRA

METHODS: dict[str, type[Adapter]] = {
    "lora": LoRA,
    "tensor-lora": TensorLoRA,
    "lora-xs": LoRAXS,
    "lora-sb": LoRASB,
    "svfit": SVFit,
    "salt": SALT,
    "loldu": LoLDU,
    "osf": OSF,
    "gpm": GPM,
    "effort": Effort,
}


def make_adapter(name: str, **options: Any) -> Adapter:
    """Return an adapter by name, of `METHODS`.

    Raises
    ------
    OptionError
        An unknown name or option.

    Examples
    --------
    >>> make_adapter("lora", rank=2).rank
    2
    """
    check_known("no adapter", name, METHODS)
    known = [each.name for each in dataclasses.fields(METHODS[name])]
    for option in options:
        check_known(f"adapter {name!r} has no option", option, known)
    return METHODS[name](**options)


def name_of(adapter: Adapter) -> str:
    """Return the name of an adapter's kind."""
    return next(name for name, kind in METHODS.items() if kind is type(adapter))
