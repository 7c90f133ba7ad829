"""DCT-AdamW: Adam in the cosines that hold most of the gradient, chosen anew at every step without an SVD.

Source: Modoranu et al., "FFT-based dynamic subspace selection for low-rank adaptive optimization of large
language models", 2025 (arXiv 2505.17967). Differences: lengths in the 2-norm, which is optimal; tensors of
any number of axes are seen as matrices, where the released code leaves those of three and more untrained; an
axis that its module declares to be ordered is the one that cosines are taken along.
"""

from __future__ import annotations

from dataclasses import dataclass

from neuralsolve.lowrank.optim.groups import Method
from neuralsolve.lowrank.optim.plan import Plan
from neuralsolve.lowrank.optim.selections import BasisSelect


@dataclass(frozen=True)
class DCTAdamW(Method):
    """State of 2 r n numbers and r indices for a matrix m x n, m <= n; m n more with feedback.

    Parameters
    ----------
    rank, gap, scale, side, seed : as of `Method`
    feedback : whether what no step was taken for is added to the next gradient
    transport : of moments; "rotate" matches indices
    norm : of the lengths that are compared

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Linear(64, 32, bias=False)
    >>> optimizer = DCTAdamW(rank=8).optimizer(net)
    >>> net(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.state_elements()  # 2 * 8 * 64 + 8
    1032
    """

    gap: int = 1
    feedback: bool = False
    transport: str = "rotate"
    norm: float = 2.0

    def plan(self) -> Plan:
        return Plan(
            projector=BasisSelect("dct", norm=self.norm),
            transport=self.transport,
            feedback=self.feedback,
            seed=self.seed,
        )
