"""FRUGAL: Adam in a subspace, and a step without memory for all the rest of the gradient.

Source: Zmushko et al., "FRUGAL: memory-efficient optimization by reducing state overhead for scalable
training", ICML 2025 (arXiv 2411.07837). GaLore is it with a subspace from an SVD and no second step.
"""

from __future__ import annotations

from dataclasses import dataclass

from neuralsolve.errors import OptionError, check_known
from neuralsolve.lowrank.optim.complements import Complement, Descent, Factored, Scaled, Sign
from neuralsolve.lowrank.optim.groups import Method
from neuralsolve.lowrank.optim.plan import Plan
from neuralsolve.lowrank.optim.projectors import Projector, RandomProjector, SVDProjector
from neuralsolve.lowrank.optim.selections import BasisSelect, BlockSelect

SPACES: dict[str, Projector] = {
    "exact": SVDProjector("exact"),
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
    """State as of GaLore, of blocks or columns 2 rank m n numbers; every weight moves at every step.

    The defaults are those that did best on neural operators, see docs/lowrank_optimizers.md. The paper's are
    `Frugal(gap=200, space="blocks", rate=1.0, transport="reset")`.

    Parameters
    ----------
    rank : as of `Method`; of blocks, the part of all entries that they hold
    gap, scale, side, seed : as of `Method`
    space : "warm", "exact" or "random" directions; "columns", unit vectors; "blocks", whole parameters
    rest : "sign", "sgd", "scaled" (Fira's) or "factored" (a second moment of rank one)
    rate : of the second step over that of the first
    transport : of moments, "rotate", "keep" or "reset"; blocks know only the last

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Linear(64, 32, bias=False)
    >>> optimizer = Frugal(rank=0.25, space="columns", transport="reset").optimizer(net)
    >>> net(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.state_elements()  # 2 * 8 * 64 + 8
    1032
    """

    space: str = "warm"
    rest: str = "sign"
    rate: float = 0.2
    transport: str = "rotate"

    def plan(self) -> Plan:
        for name, known in (("space", SPACES), ("rest", REST)):
            check_known(f"{name} =", getattr(self, name), known)
        if self.space == "blocks" and self.transport != "reset":
            msg = f"transport = {self.transport!r} of blocks, whose moments end with their turn: 'reset'"
            raise OptionError(msg)
        return Plan(
            projector=SPACES[self.space],
            complement=REST[self.rest](self.rate),
            transport=self.transport,
            seed=self.seed,
        )
