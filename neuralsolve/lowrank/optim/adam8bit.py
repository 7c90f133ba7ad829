"""Adam with its moments in 8 bits, blockwise: no projection, a quarter of the memory.

Source: Dettmers et al., "8-bit optimizers via block-wise quantization", ICLR 2022 (arXiv 2110.02861).
"""

from __future__ import annotations

from dataclasses import dataclass

from neuralsolve.lowrank.optim.codecs import BLOCK, Int8
from neuralsolve.lowrank.optim.groups import Method
from neuralsolve.lowrank.optim.plan import Plan
from neuralsolve.lowrank.optim.projectors import Identity, Rank
from neuralsolve.lowrank.optim.refresh import Once


@dataclass(frozen=True)
class Adam8bit(Method):
    """State of 2 bytes an entry, and of 1/32 byte for the scales.

    Parameters
    ----------
    entries : parameters of fewer take AdamW
    block : entries that share a scale
    rank, gap, scale, side, seed : of no effect, but for the scale

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Linear(64, 64, bias=False)
    >>> optimizer = Adam8bit().optimizer(net)
    >>> net(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> sum(value.nbytes for value in optimizer.state[net.weight].values() if value.ndim)  # 2 (4096 + 4 * 16)
    8320
    """

    rank: Rank = 1.0
    entries: int = 4096
    block: int = BLOCK

    def smallest(self) -> int:
        return self.entries

    def plan(self) -> Plan:
        return Plan(projector=Identity(), refresh=Once(), moments=Int8(self.block), seed=self.seed)
