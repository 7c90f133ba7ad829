"""OSF: all of a weight but its leading singular subspaces is fine-tuned, for tasks one after the other.

    W = U_k diag(s) V_k^H, frozen,  + what is outside its subspaces, trained: (p - k) (m + n + 1) numbers

It protects what the model knows, and saves nothing: at half of the subspaces kept, about as many numbers are
trained as the weight has. After a task, `merge`, and attach anew for the next.

Source: Nayak et al., Sculpting subspaces (arXiv 2504.07097), where gradients are projected; why that is not
enough, see `subspace`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neuralsolve.errors import OptionError, nearest
from neuralsolve.lowrank.adapters.delta import Delta
from neuralsolve.lowrank.adapters.options import Adapter, Site, leading, share
from neuralsolve.lowrank.adapters.subspace import SubspaceDelta


@dataclass(frozen=True)
class OSF(Adapter):
    """Orthogonal subspace fine-tuning.

    Parameters
    ----------
    keep : k / p, the share of leading singular subspaces that stay
    keeps : of single weights, by their path

    Examples
    --------
    >>> import torch
    >>> from neuralsolve.lowrank.adapters import attach, summary
    >>> summary(attach(torch.nn.Linear(100, 50), OSF(keep=0.9))).trained
    755
    """

    keep: float = 0.5
    keeps: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, number in {"keep": self.keep, **(self.keeps or {})}.items():
            share(name, number)

    def fits(self, sites: Sequence[Site]) -> None:
        names = [site.name for site in sites]
        for name in self.keeps or {}:
            if name not in names:
                msg = f"keeps names {name!r}, which is not adapted{nearest(name, names)}"
                raise OptionError(msg)

    def delta(self, site: Site) -> Delta:
        return SubspaceDelta(site, leading(site, (self.keeps or {}).get(site.name, self.keep)), hard=True)
