"""What a low-rank optimizer is put together from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from neuralsolve.errors import OptionError, check_known
from neuralsolve.lowrank.optim.codecs import Codec, Full, Int8Weights
from neuralsolve.lowrank.optim.complements import Complement
from neuralsolve.lowrank.optim.projectors import Projector, SVDProjector
from neuralsolve.lowrank.optim.refresh import Every, Refresh
from neuralsolve.lowrank.optim.rules import Adam, Rule

TRANSPORTS = ("keep", "reset", "rotate")
Constraint = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """The plugs of `ProjectedOptimizer`; each has a default, that of GaLore with a warm basis.

    Parameters
    ----------
    projector : where gradients are projected to
    rule : the step that is taken there
    complement : the step for what the projection leaves; None: none
    refresh : when the basis is chosen anew
    transport : of moments to a new basis: "keep" their numbers, "reset" them, or "rotate" them along
    moments, bases : how they are kept
    feedback : whether what no step was taken for is kept and added to the next gradient
    weights : a grid that they are rounded to at random; None: they stay as they are
    constraint : (parameter, matrix) -> matrix, applied to each gradient before all else, such as the
        projection on the complement of directions to be protected; None: none
    seed : of all that is drawn at random

    Raises
    ------
    OptionError
    """

    projector: Projector = field(default_factory=SVDProjector)
    rule: Rule = field(default_factory=Adam)
    complement: Complement | None = None
    refresh: Refresh = field(default_factory=Every)
    transport: str = "rotate"
    moments: Codec = field(default_factory=Full)
    bases: Codec = field(default_factory=Full)
    feedback: bool = False
    weights: Int8Weights | None = None
    constraint: Constraint | None = None
    seed: int = 1905

    def __post_init__(self) -> None:
        check_known("transport =", self.transport, TRANSPORTS)
        if self.feedback and self.complement is not None:
            msg = "feedback keeps what no step is taken for, a complement takes one: one of both is needed"
            raise OptionError(msg)
