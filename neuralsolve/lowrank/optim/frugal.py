"""FRUGAL: Adam in a subspace, and a step without memory for all the rest of the gradient.

Source: Zmushko et al., "FRUGAL: memory-efficient optimization by reducing state overhead for scalable
training", ICML 2025 (arXiv 2411.07837). GaLore is it with a subspace from an SVD and no second step.
"""

from __future__ import annotations

from dataclasses import dataclass

from neuralsolve.errors import OptionError, nearest
from neuralsolve.lowrank.optim.complements import Complement, Descent, Factored, Scaled, Sign
from neuralsolve.lowrank.optim.groups import Method
from neuralsolve.lowrank.optim.plan import Plan
from neuralsolve.lowrank.optim.projectors import Projector, RandomProjector, SVDProjector
from neuralsolve.lowrank.optim.selections import BasisSelect, BlockSelect

SPACES: dict[str, Projector] = {
    "svd": SVDProjector("exact"),
    "warm": SVDProjector("warm"),
    "random": RandomProjector(),
    "columns": BasisSelect("identity", choice="random"),
    "blocks": BlockSelect(),
}
REST: dict[str, type[Complement]] = {
    "sign": Sign,
    "sgd": Descent,
    "scaled": Scaled,
    "factored": Factored,
}


@dataclass(frozen=True)
class Frugal(Method):
    """State of 2 rank m n numbers of blocks or columns; every weight moves at every step.

    Parameters
    ----------
    rank : the density: a part of the shorter side; of blocks, of all entries
    gap, scale, side, seed : as of `Method`
    space : "blocks", whole parameters; "columns", unit vectors; "random", "svd" or "warm" directions
    rest : "sign", "sgd", "scaled" (Fira's) or "factored" (a second moment of rank one)
    rate : of the second step over that of the first
    transport : "reset" as in the source; blocks know no other

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Linear(64, 32, bias=False)
    >>> optimizer = Frugal(rank=0.25, space="columns").optimizer(net)
    >>> net(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.state_elements()  # 2 * 8 * 64 + 8
    1032
    """

    space: str = "blocks"
    rest: str = "sign"
    rate: float = 1.0
    transport: str = "reset"

    def plan(self) -> Plan:
        for name, known in (("space", SPACES), ("rest", REST)):
            if getattr(self, name) not in known:
                msg = f"{name} = {getattr(self, name)!r}{nearest(getattr(self, name), known)}"
                raise OptionError(msg)
        return Plan(
            projector=SPACES[self.space],
            complement=REST[self.rest](self.rate),
            transport=self.transport,
            seed=self.seed,
        )
