"""LoRA: a product of two thin factors is added to every weight.

    Delta = (alpha / r) B A,   B (m, r) = 0 at first,  A (r, n) uniform: r (m + n) numbers

Source: Hu et al., LoRA, ICLR 2022 (arXiv 2106.09685). The start of A is that of `torch.nn.Linear`, as in the
authors' code and in `peft`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.adapters.delta import Delta, LowRankDelta
from neuralsolve.lowrank.adapters.options import Ranked, Site


@dataclass(frozen=True)
class LoRA(Ranked):
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

    alpha: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha is not None and not (math.isfinite(self.alpha) and self.alpha > 0):
            msg = f"got alpha={self.alpha!r}; a positive number is needed, or None for the rank"
            raise OptionError(msg)

    def delta(self, site: Site) -> Delta:
        *batch, m, n = site.matrix.shape
        r = self.rank_of(site)
        B, A = site.matrix.new_zeros(*batch, m, r), site.random(*batch, r, n) / math.sqrt(n)
        scale = 1.0 if self.alpha is None else self.alpha / r
        return LowRankDelta(site.view, site.shape, B, A, scale=scale, trained=("left", "right"))
