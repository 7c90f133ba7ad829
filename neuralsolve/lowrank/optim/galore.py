"""GaLore: Adam in the leading singular directions of the gradient.

Source: Zhao et al., "GaLore: memory-efficient LLM training by gradient low-rank projection", ICML 2024
(arXiv 2403.03507). The paper's is `GaLore(gap=200, scale=0.25, space="exact", transport="keep")`; here, the
defaults follow the subspace by one step of subspace iteration, and rotate the moments along.
"""

from __future__ import annotations

from dataclasses import dataclass

from neuralsolve.lowrank.optim.groups import Method
from neuralsolve.lowrank.optim.plan import Plan
from neuralsolve.lowrank.optim.projectors import RandomProjector, SVDProjector


@dataclass(frozen=True)
class GaLore(Method):
    """State of m r + 2 r n numbers for a matrix m x n, m <= n, instead of 2 m n.

    Parameters
    ----------
    rank, gap, scale, side, seed : as of `Method`
    space : "warm", "exact" or "randomized"; "random": directions drawn at random, to compare with
    transport : of moments to a new basis, "rotate", "keep" or "reset"

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Linear(64, 32)
    >>> optimizer = GaLore(rank=8).optimizer(net, lr=1e-3)
    >>> [group.get("rank") for group in optimizer.param_groups]
    [8, None]
    """

    space: str = "warm"
    transport: str = "rotate"

    def plan(self) -> Plan:
        projector = RandomProjector() if self.space == "random" else SVDProjector(self.space)
        return Plan(projector=projector, transport=self.transport, seed=self.seed)
