"""LoRA-SB: a small square core in the singular vectors of the first step of full fine-tuning.

    D = -step sign(G),   D ~ U_r S V_r^H,   Delta = U_r C V_r^H,   C (r, r) = S at first: r^2 numbers

G is the gradient of the weight on some samples, and D about what Adam's first step would be. The weight does
not begin as it was: it begins one step ahead, cut to rank r. With orthonormal factors the gradient of C is
the best that there is in these subspaces, so no scale is to be tuned.

The sign flattens the spectrum of G; `signed=False` takes the singular vectors of G itself and C = 0, which
begins as the weight was.

Source: Ponkshe et al., LoRA-SB (arXiv 2411.19557).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.adapters.delta import Delta, LowRankDelta
from neuralsolve.lowrank.adapters.options import Ranked, Site
from neuralsolve.lowrank.svd import svd


@dataclass(frozen=True)
class LoRASB(Ranked):
    """A core in the subspaces of the first step; `attach` wants a loss.

    Parameters
    ----------
    step : of the first step; about the learning rate of full fine-tuning
    signed : whether the step is that of Adam; otherwise the gradient's own subspaces are taken, and C = 0

    Examples
    --------
    >>> from neuralsolve.lowrank.adapters import attach, summary
    >>> net, x = torch.nn.Linear(100, 50), torch.ones(3, 100)
    >>> summary(attach(net, LoRASB(rank=8), loss=lambda: net(x).square().mean())).trained
    64
    """

    saved: ClassVar[tuple[str, ...]] = ("left", "right")

    step: float = 1e-3
    signed: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.step < float("inf"):
            msg = f"got step={self.step!r}; a positive number is needed: step=1e-3"
            raise OptionError(msg)

    def wants_loss(self) -> bool:
        return True

    def delta(self, site: Site) -> Delta:
        r, G = self.rank_of(site), site.gradients.sum(0)
        found = svd(-self.step * _sign(G) if self.signed else -G, rank=r)
        core = torch.diag_embed(found.s).to(site.matrix.dtype)
        core = core if self.signed else torch.zeros_like(core)
        return LowRankDelta(site.view, site.shape, found.U, found.Vh, core)


def _sign(G: Tensor) -> Tensor:
    """Return the signs, of complex numbers those of both parts, which is how Adam sees them."""
    return torch.complex(G.real.sign(), G.imag.sign()) if G.is_complex() else G.sign()
