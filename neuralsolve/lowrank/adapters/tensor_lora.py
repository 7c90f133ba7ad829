"""LoRA for weights of several axes: thin factors for every axis, instead of one for all columns together.

    Delta[o, i, k, ...] = (alpha / r) sum_c B[o, c] A_1[i, c] A_2[k, c] ...,   B = 0 at first

with an A for every axis of inputs, taps and modes: r times the sum of the sides. A spectral weight of 32 by
32 channels and 12 modes takes 76 r complex numbers, by LoRA 416 r. A weight of two axes is that of `LoRA`.

Source: Hitchcock's canonical decomposition (J. Math. Phys. 6 (1927) 164-189) in the place of LoRA's factors,
as Bershatsky et al., LoTR (arXiv 2402.01376), do for weights stacked over layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from neuralsolve.lowrank.adapters.delta import Delta
from neuralsolve.lowrank.adapters.options import Scaled, Site


@dataclass(frozen=True)
class TensorLoRA(Scaled):
    """Low-rank adaptation axis by axis.

    Parameters
    ----------
    rank : r
    alpha : the change is scaled by alpha / r; None: r, no scaling

    Examples
    --------
    >>> from neuralsolve.lowrank.adapters import attach, summary
    >>> summary(attach(nn.Conv2d(16, 32, 3), TensorLoRA(rank=2))).trained
    108
    """

    rank: int = 4

    def delta(self, site: Site) -> Delta:
        r = self.rank_of(site)
        return TensorDelta(site, r, self.scale_of(r))


class TensorDelta(Delta):
    """The change of a weight by TensorLoRA: `left` (m, r), and `factors`, an A (side, r) for every axis."""

    left: Tensor

    def __init__(self, site: Site, r: int, scale: float):
        super().__init__(site.view, site.shape)
        self.scale, self.batch = scale, site.matrix.ndim - 2
        columns = [site.shape[axis] for axis in site.view.columns]
        inputs = columns[0]
        self.hold("left", site.matrix.new_zeros(site.matrix.shape[-2], r), trained=True)
        drawn = [site.random(side, r) for side in (*site.matrix.shape[:-2], *columns)]
        drawn[self.batch] = drawn[self.batch] / math.sqrt(inputs)
        self.factors = nn.ParameterList([nn.Parameter(each) for each in drawn])

    def matrix(self) -> Tensor:
        batch, columns = list(self.factors)[: self.batch], list(self.factors)[self.batch :]
        right = columns[0]
        for each in columns[1:]:  # the last axis is the fastest
            right = (right[:, None] * each).flatten(0, 1)
        left = self.scale * self.left
        for each in reversed(batch):
            left = each.reshape(len(each), *(1,) * (left.ndim - 1), -1) * left
        return left @ right.mT
