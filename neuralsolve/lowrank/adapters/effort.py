"""Effort: the principal part of a weight is frozen, its last singular triplets are trained.

    Delta = the change of the last t triplets of W0: t (m + n + 1) numbers

`hard` keeps them outside the subspaces of the others, exactly; otherwise `penalty(model)`, added to the loss,
draws them there, as published. In the authors' code the penalties are commented out.

Source: Yan et al., Effort, ICML 2025 (arXiv 2411.15633).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.adapters.delta import Delta
from neuralsolve.lowrank.adapters.options import Adapter, Site, positive
from neuralsolve.lowrank.adapters.subspace import SubspaceDelta


@dataclass(frozen=True)
class Effort(Adapter):
    """Trained last triplets.

    Parameters
    ----------
    tail : t, less than min(m, n)
    hard : whether they stay outside the subspaces of the others

    Examples
    --------
    >>> import torch
    >>> from neuralsolve.lowrank.adapters import attach, summary
    >>> summary(attach(torch.nn.Linear(100, 50), Effort(tail=1))).trained
    151
    """

    tail: int = 1
    hard: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("tail", self.tail)

    def fits(self, sites: Sequence[Site]) -> None:
        for site in sites:
            if self.tail >= site.smaller:
                msg = (
                    f"got tail={self.tail} for {site.name}, whose smaller side is {site.smaller}; fewer are "
                    "needed, or leave small ones out: min_dim"
                )
                raise OptionError(msg)

    def delta(self, site: Site) -> Delta:
        return SubspaceDelta(site, site.smaller - self.tail, self.hard)
