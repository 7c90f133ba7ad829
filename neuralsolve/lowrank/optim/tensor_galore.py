"""Tensor-GaLore: Adam in the core of a Tucker decomposition of the gradient.

Source: George et al., "Tensor-GaLore: memory-efficient training via gradient tensor decomposition", 2025
(arXiv 2501.02379). Differences: the factors are refreshed every `gap` steps, started from those before, where
the released code computes them once; moments are rotated along; second moments are real.
"""

from __future__ import annotations

from dataclasses import dataclass

from neuralsolve.lowrank.optim.groups import Method
from neuralsolve.lowrank.optim.plan import Plan
from neuralsolve.lowrank.optim.refresh import Every, Once
from neuralsolve.lowrank.optim.tucker import TuckerProjector


@dataclass(frozen=True)
class TensorGaLore(Method):
    """State of sum n_k r_k + 2 prod r_k numbers for a tensor n_1 x ... x n_d.

    Parameters
    ----------
    rank : a part of all entries, shared alike by the axes; a whole number for each axis; or one for each
    gap, scale, seed : as of `Method`
    refreshed : False: the factors of the first gradient stay, as in the released code
    transport : of moments to new factors

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Conv2d(32, 32, 5)
    >>> optimizer = TensorGaLore(rank=0.2).optimizer(net)
    >>> [name for group in optimizer.param_groups for name in group["param_names"]]
    ['weight', 'bias']
    """

    gap: int = 50
    refreshed: bool = True
    transport: str = "rotate"

    def plan(self) -> Plan:
        refresh = Every() if self.refreshed else Once()
        return Plan(projector=TuckerProjector(), refresh=refresh, transport=self.transport, seed=self.seed)
