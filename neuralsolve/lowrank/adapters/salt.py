"""SALT: the leading singular values are scaled and shifted, the rest of the core takes a low-rank change.

    Delta = U_1 diag((a - 1) sigma + b) V_1^H + U_2 X Y V_2^H

with the leading k of the p = min(m, n) singular vectors in U_1, V_1, the others in U_2, V_2; a = 1 and b = 0
(k), X (p - k, r) uniform and Y (r, p - k) = 0 at first: 2 k + 2 r (p - k) numbers.

Source: Elsayed et al., SALT, MICCAI 2025 (arXiv 2503.16055). The authors' code bends X Y by a ReLU, so
that it is neither of rank r nor free in sign, and begins convolutions with a change that is not zero; here it
does neither, and `nonnegative` bends the diagonal alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralsolve.lowrank.adapters.delta import Delta, Penalised
from neuralsolve.lowrank.adapters.options import Ranked, Site, leading, share
from neuralsolve.lowrank.svd import SVD, svd


@dataclass(frozen=True)
class SALT(Ranked):
    """Singular value adaptation with a low-rank transformation of the rest.

    Parameters
    ----------
    rank : r of the low-rank part, at most p - k
    keep : k / p, the share of singular values that are scaled and shifted
    nonnegative : whether scaled and shifted singular values are cut at 0

    Examples
    --------
    >>> from neuralsolve.lowrank.adapters import attach, summary
    >>> summary(attach(torch.nn.Linear(100, 50), SALT(rank=2, keep=0.5))).trained
    150
    """

    rank: int = 4
    keep: float = 0.5
    nonnegative: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        share("keep", self.keep)

    def room(self, site: Site) -> int:
        return site.smaller - leading(site, self.keep)

    def delta(self, site: Site) -> Delta:
        k, r = leading(site, self.keep), self.rank_of(site)
        X = site.random(*site.matrix.shape[:-2], site.smaller - k, r) * math.sqrt(6 / (21 * r))
        return SALTDelta(site, svd(site.matrix), k, X, self.nonnegative)


class SALTDelta(Penalised):
    """The change of a weight by SALT; names as in the equation."""

    scale: Tensor
    shift: Tensor
    X: Tensor
    Y: Tensor
    U: Tensor
    s: Tensor
    Vh: Tensor

    def __init__(self, site: Site, found: SVD, k: int, X: Tensor, nonnegative: bool):
        super().__init__(site.view, site.shape)
        self.k, self.nonnegative = k, nonnegative
        for name, tensor in {"U": found.U, "s": found.s[..., :k], "Vh": found.Vh}.items():
            self.hold(name, tensor, trained=False)
        first = {"scale": torch.ones_like(self.s), "shift": torch.zeros_like(self.s), "X": X}
        for name, tensor in (first | {"Y": torch.zeros_like(X.mT)}).items():
            self.hold(name, tensor, trained=True)

    def diagonal(self) -> Tensor:
        """Return by how much the leading singular values change, (..., k)."""
        if self.nonnegative:
            return (self.scale * self.s + self.shift).clamp_min(0) - self.s
        return (self.scale - 1) * self.s + self.shift

    def matrix(self) -> Tensor:
        k = self.k
        left = torch.cat([self.U[..., :k] * self.diagonal()[..., None, :], self.U[..., k:] @ self.X], -1)
        return left @ torch.cat([self.Vh[..., :k, :], self.Y @ self.Vh[..., k:, :]], -2)

    def penalty(self) -> Tensor:
        """Return ||scaled and shifted part|| + ||X Y||, of the core."""
        return self.diagonal().norm() + (self.X @ self.Y).norm()
