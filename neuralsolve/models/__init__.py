"""Torch modules: those that propose directions to a solver, models of fields and sequences; losses, training.

What is named here is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuralsolve.models.evaluation import evaluated as evaluated
    from neuralsolve.models.field_options import FieldTraining as FieldTraining
    from neuralsolve.models.fitting import train as train
    from neuralsolve.models.fno import FNO as FNO
    from neuralsolve.models.lsm import LatentSpectral as LatentSpectral
    from neuralsolve.models.memory_operator import MemoryOperator as MemoryOperator
    from neuralsolve.models.networks import make_network as make_network
    from neuralsolve.models.s4 import S4 as S4
    from neuralsolve.models.s4d import S4D as S4D
    from neuralsolve.models.s5 import S5 as S5
    from neuralsolve.models.sequence_model import SequenceModel as SequenceModel
    from neuralsolve.models.state_space import parameter_groups as parameter_groups
    from neuralsolve.models.surrogate import Surrogate as Surrogate
    from neuralsolve.models.transolver import Transolver as Transolver
    from neuralsolve.models.unet import UNet as UNet

_PLACES = {
    "FNO": "fno",
    "FieldTraining": "field_options",
    "LatentSpectral": "lsm",
    "MemoryOperator": "memory_operator",
    "S4": "s4",
    "S4D": "s4d",
    "S5": "s5",
    "SequenceModel": "sequence_model",
    "Surrogate": "surrogate",
    "Transolver": "transolver",
    "UNet": "unet",
    "evaluated": "evaluation",
    "make_network": "networks",
    "parameter_groups": "state_space",
    "train": "fitting",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
