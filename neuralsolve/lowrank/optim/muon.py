"""Muon: the momentum of a matrix with all its singular values made about one. Nothing is projected.

Adam moves each entry by about as much; a momentum of a few large singular values then moves a matrix in their
directions alone. Here all directions move alike, which takes fewer steps: of use where these are few, as in a
fine-tune of a compressed model. A step costs five products of m m n more, m the shorter side.

Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; the scale by the
longer side, after which Adam's rates serve: Liu et al., "Muon is scalable for LLM training", 2025 (arXiv
2502.16982). Differences: matrices are those that modules name, kernels of convolutions and complex spectral
weights among them, the first and last layers too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from neuralsolve.lowrank.optim.groups import Method
from neuralsolve.lowrank.optim.plan import Plan
from neuralsolve.lowrank.optim.projectors import Identity, Rank
from neuralsolve.lowrank.optim.refresh import Once
from neuralsolve.lowrank.optim.rules import Orthogonal


@dataclass(frozen=True)
class Muon(Method):
    """State of m n numbers for a matrix, half of Adam's; AdamW for all else.

    Parameters
    ----------
    momentum : share of the gradients before
    rank, gap, side, seed : of no effect
    scale : of the step

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Linear(64, 32)
    >>> optimizer = Muon().optimizer(net, lr=1e-3)
    >>> net(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.state_elements()  # 64 * 32 + 2 * 32
    2112
    """

    rank: Rank = 1.0
    momentum: float = 0.95
    shortest: ClassVar[int] = 2  # no state is saved by size: factors of low rank are matrices too

    def plan(self) -> Plan:
        rule = Orthogonal(self.momentum)
        return Plan(projector=Identity(matrices=True), rule=rule, refresh=Once(), seed=self.seed)
