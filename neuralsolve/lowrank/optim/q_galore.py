"""Q-GaLore: GaLore with bases in 4 bits, moments in 8, weights on a grid of 8, refreshed ever more rarely.

Source: Zhang et al., "Q-GaLore: quantized GaLore with INT4 projection and layer-adaptive low-rank gradients",
2024 (arXiv 2407.08296). Differences: see `codecs` and `refresh.Lazy`.
"""

from __future__ import annotations

from dataclasses import dataclass

from neuralsolve.lowrank.optim.codecs import Full, Int4, Int8, Int8Weights
from neuralsolve.lowrank.optim.groups import Method
from neuralsolve.lowrank.optim.plan import Plan
from neuralsolve.lowrank.optim.projectors import SVDProjector
from neuralsolve.lowrank.optim.refresh import Lazy

BASIS_BLOCK = 128  # of 256, the columns of a basis of m/4 may be off from orthonormal by more than 0.15


@dataclass(frozen=True)
class QGaLore(Method):
    """State of m r / 2 + 2 r n bytes for a matrix m x n, m r / 16 + r n / 32 more for blocks.

    Parameters
    ----------
    rank, gap, scale, side, seed : as of `Method`; the gap is the first one
    threshold, window : as of `Lazy`
    weights : whether weights are rounded to a grid that needs a byte each
    moments, bases : whether these are kept in 8 and in 4 bits
    space, transport : as of `GaLore`

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Linear(256, 32, bias=False)
    >>> optimizer = QGaLore(rank=8).optimizer(net)
    >>> net(torch.ones(256)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.state_elements()  # 8 (32 + 2 * 256)
    4352
    """

    threshold: float = 0.4
    window: int = 2
    weights: bool = True
    moments: bool = True
    bases: bool = True
    space: str = "warm"
    transport: str = "rotate"

    def plan(self) -> Plan:
        return Plan(
            projector=SVDProjector(self.space),
            refresh=Lazy(self.threshold, self.window),
            transport=self.transport,
            moments=Int8() if self.moments else Full(),
            bases=Int4(BASIS_BLOCK) if self.bases else Full(),
            weights=Int8Weights() if self.weights else None,
            seed=self.seed,
        )
