"""LoRA-XS: a small square matrix between the leading singular vectors of the weight.

    Delta = U_r C V_r^H,   C (r, r) = 0 at first: r^2 numbers

Source: Balazy et al., LoRA-XS (arXiv 2405.17604). There B = U_r Sigma_r; here the factors are orthonormal, so
that all entries of C see steps of one size.
"""

from __future__ import annotations

from dataclasses import dataclass

from neuralsolve.lowrank.adapters.delta import Delta, LowRankDelta
from neuralsolve.lowrank.adapters.options import Ranked, Site
from neuralsolve.lowrank.svd import svd


@dataclass(frozen=True)
class LoRAXS(Ranked):
    """A trained core in the leading singular vectors of a weight.

    Examples
    --------
    >>> import torch
    >>> from neuralsolve.lowrank.adapters import attach, summary
    >>> summary(attach(torch.nn.Linear(100, 50), LoRAXS(rank=8))).trained
    64
    """

    def delta(self, site: Site) -> Delta:
        r = self.rank_of(site)
        found = svd(site.matrix, rank=r)
        core = site.matrix.new_zeros(*site.matrix.shape[:-2], r, r)
        return LowRankDelta(site.view, site.shape, found.U, found.Vh, core)
