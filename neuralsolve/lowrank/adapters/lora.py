"""LoRA: a product of two thin factors is added to every weight.

    Delta = (alpha / r) B A,   B (m, r) = 0 at first,  A (r, n) uniform: r (m + n) numbers

Source: Hu et al., LoRA, ICLR 2022 (arXiv 2106.09685). The start of A is that of `torch.nn.Linear`, as in the
authors' code and in `peft`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from neuralsolve.lowrank.adapters.delta import Delta, LowRankDelta
from neuralsolve.lowrank.adapters.options import Scaled, Site


@dataclass(frozen=True)
class LoRA(Scaled):
    """Low-rank adaptation.

    Parameters
    ----------
    rank : r
    alpha : the change is scaled by alpha / r; None: r, no scaling

    Examples
    --------
    >>> import torch
    >>> from neuralsolve.lowrank.adapters import attach, summary
    >>> summary(attach(torch.nn.Linear(100, 50), LoRA(rank=4, alpha=8))).trained
    600
    """

    def delta(self, site: Site) -> Delta:
        *batch, m, n = site.matrix.shape
        r = self.rank_of(site)
        B, A = site.matrix.new_zeros(*batch, m, r), site.random(*batch, r, n) / math.sqrt(n)
        return LowRankDelta(site.view, site.shape, B, A, scale=self.scale_of(r), trained=("left", "right"))
