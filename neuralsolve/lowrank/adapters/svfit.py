"""SVFit: the leading singular values of the weight are trained, its singular vectors stay.

    Delta = U_r diag(sigma - sigma_0) V_r^H: r numbers

A rank costs one number, so ranks are large: all that hold 99 % of the energy. Learning rates want to be about
ten times those of LoRA. It cannot turn a feature into another: expect less than of LoRA-XS, its sibling.

Source: Sun et al., SVFit (arXiv 2409.05926).
"""

from __future__ import annotations

from dataclasses import dataclass

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.adapters.delta import Delta, LowRankDelta
from neuralsolve.lowrank.adapters.options import Adapter, Site, positive
from neuralsolve.lowrank.svd import rank_for_energy, svd


@dataclass(frozen=True)
class SVFit(Adapter):
    """Trained singular values.

    Parameters
    ----------
    energy : part of ||W||_F^2 that the trained ones hold at first, more than 0, at most 1
    rank : at most so many; None: as many as that takes

    Examples
    --------
    >>> import torch
    >>> from neuralsolve.lowrank.adapters import attach, summary
    >>> summary(attach(torch.nn.Linear(100, 50), SVFit(energy=1.0))).trained
    50
    """

    energy: float = 0.99
    rank: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.energy <= 1:
            msg = f"got energy={self.energy!r}; a part of the energy in (0, 1] is needed: energy=0.99"
            raise OptionError(msg)
        if self.rank is not None:
            positive("rank", self.rank)

    def delta(self, site: Site) -> Delta:
        found = svd(site.matrix)
        s = found.s.reshape(-1, found.s.shape[-1])
        r = max(1, *(rank_for_energy(each, self.energy) for each in s)) if self.energy < 1 else s.shape[-1]
        r = min(r, self.rank or r)
        U, values, Vh = found.U[..., :r], found.s[..., :r], found.Vh[..., :r, :]
        return LowRankDelta(site.view, site.shape, U, Vh, values, start=values)
