"""GPM: whole weights are fine-tuned, but for the inputs by which they serve the samples of an older task.

    Delta = Z Q,   Q = I - V_k V_k^H,   Z (m, n) = 0 at first: m n numbers

V_k are the leading right singular vectors of all gradients of the weight on samples of the older task, one
below the other. Such a gradient is a sum of outer products, of what a map is told to change and its inputs. A
change that has no part in its rows leaves the loss of that sample alone, to first order, and the outputs for
inputs that V_k spans exactly.

Where the leading singular subspaces of the weight itself are protected (`OSF`), it is not known whether the
older task uses them.

Source: Saha, Garg, Roy, Gradient projection memory, ICLR 2021 (arXiv 2103.09762), there with inputs in the
place of gradients, and gradients projected, which leaks under Adam: see `subspace`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuralsolve.lowrank.adapters.delta import Delta
from neuralsolve.lowrank.adapters.options import Adapter, Site, share
from neuralsolve.lowrank.svd import svd
from neuralsolve.lowrank.views import real_numbers


@dataclass(frozen=True)
class GPM(Adapter):
    """Fine-tuning beside what an older task uses; `attach` wants losses of its samples, a vector of them.

    Parameters
    ----------
    keep : k / n, the share of the inputs of a weight that are protected, rounded up

    Examples
    --------
    >>> from neuralsolve.lowrank.adapters import attach
    >>> net, old = torch.nn.Linear(6, 4), torch.randn(50, 2) @ torch.randn(2, 6)
    >>> before = net(old)
    >>> net = attach(net, GPM(keep=0.5), loss=lambda: net(old).square().sum(1))
    >>> with torch.no_grad():
    ...     for parameter in net.parametrizations.weight[0].parameters():
    ...         parameter.normal_()
    Parameter containing: ...
    >>> torch.allclose(net(old), before, atol=1e-4)
    True
    """

    saved: ClassVar[tuple[str, ...]] = ("protected",)
    wants_losses: ClassVar[bool] = True

    keep: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        share("keep", self.keep)

    def wants_loss(self) -> bool:
        return True

    def delta(self, site: Site) -> Delta:
        m, n = site.matrix.shape[-2:]
        k = math.ceil(self.keep * n)
        rows = site.gradients.movedim(0, -3).flatten(-3, -2)  # (..., samples m, n)
        missing = max(0, k - rows.shape[-2])
        found = svd(torch.cat([rows, rows.new_zeros(*rows.shape[:-2], missing, n)], -2), rank=k)
        least = torch.finfo(found.s.dtype).eps * max(m, n) * found.s[..., :1]
        return GPMDelta(site, found.Vh * (found.s > least)[..., None])  # inputs that no sample has are free


class GPMDelta(Delta):
    """The change of a weight by GPM; names as in the equation, `protected` is V_k^H."""

    Z: Tensor
    protected: Tensor

    def __init__(self, site: Site, protected: Tensor):
        super().__init__(site.view, site.shape)
        self.hold("Z", site.matrix.new_zeros(site.matrix.shape), trained=True)
        self.hold("protected", protected, trained=False)

    def free(self) -> int:
        """Return the entries of what is outside of the protected inputs, m (n - k)."""
        inputs = self.Z[..., 0, :].numel()
        protected = int(self.protected.ne(0).any(-1).sum())  # what no sample has is zero there
        return real_numbers(self.Z) // inputs * (inputs - protected)

    def matrix(self) -> Tensor:
        change, V = self.Z, self.protected
        for _ in range(2):  # once leaves what rounding puts back
            change = change - (change @ V.mH) @ V
        return change
