"""The change of a weight outside its leading singular subspaces: what OSF and Effort share.

    Delta = P L diag(s) R Q - C,   P = I - U_k U_k^H,   Q = I - V_k V_k^H

L, s and R begin as the other singular triplets of W0, and C is what their product is then, so that Delta = 0.

To project the gradient is not enough: Adam scales every entry by itself, which turns a step out of the
subspace. Here P and Q are parts of the map. The weights of every step are those that one gets by projecting L
and R after every step, and no optimiser, weight decay or forgotten hook can leak into the leading subspaces.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuralsolve.lowrank.adapters.delta import Penalised
from neuralsolve.lowrank.adapters.options import Site
from neuralsolve.lowrank.svd import svd
from neuralsolve.lowrank.views import real_numbers


class SubspaceDelta(Penalised):
    """Trained singular triplets k .. p - 1 of a weight.

    Parameters
    ----------
    site : the weight
    k : leading triplets, which stay
    hard : whether P and Q act; otherwise they are the identity
    """

    left: Tensor
    core: Tensor
    right: Tensor
    U: Tensor
    s: Tensor
    Vh: Tensor
    start: Tensor

    def __init__(self, site: Site, k: int, hard: bool):
        super().__init__(site.view, site.shape)
        self.hard = hard
        found = svd(site.matrix)
        U, s, Vh = found.U, found.s, found.Vh
        for name, tensor in {"U": U[..., :k], "s": s[..., :k], "Vh": Vh[..., :k, :]}.items():
            self.hold(name, tensor, trained=False)
        for name, tensor in {"left": U[..., k:], "core": s[..., k:], "right": Vh[..., k:, :]}.items():
            self.hold(name, tensor, trained=True)
        self.hold("start", self.tail(), trained=False)

    def outside(self) -> tuple[Tensor, Tensor]:
        """Return P L and R Q."""
        left, right = self.left, self.right
        if self.hard:
            for _ in range(2):  # once leaves what rounding puts back
                left = left - self.U @ (self.U.mH @ left)
                right = right - (right @ self.Vh.mH) @ self.Vh
        return left, right

    def tail(self) -> Tensor:
        """Return P L diag(s) R Q (..., m, n)."""
        left, right = self.outside()
        return (left * self.core[..., None, :]) @ right

    def matrix(self) -> Tensor:
        change = self.tail() - self.start
        if (
            self.hard
        ):  # what cancels leaves rounding of the size of W0, which is no small part of a small change
            change = change - self.U @ (self.U.mH @ change)
            change = change - (change @ self.Vh.mH) @ self.Vh
        return change

    def free(self) -> int:
        """Return the entries of what is outside of the leading subspaces, (m - k)(n - k), if P and Q act."""
        if not self.hard:
            return super().free()
        rows, columns = self.left.shape[-2] - self.U.shape[-1], self.right.shape[-1] - self.U.shape[-1]
        return real_numbers(self.left[..., 0, 0]) * rows * columns

    def penalty(self) -> Tensor:
        """Return how far all singular vectors are from orthonormal, and the energy from what it was.

        1/2 ||[U_k L]^H [U_k L] - I||_F + 1/2 ||the same of V||_F + | ||W||_F^2 - ||W0||_F^2 |
        """
        left, right = self.outside()
        turned = _unlike_identity(torch.cat([self.U, left], -1))
        turned = turned + _unlike_identity(torch.cat([self.Vh, right], -2).mH)
        head = (self.U * self.s[..., None, :]) @ self.Vh
        energy = (head + self.tail()).abs().square().sum() - (head + self.start).abs().square().sum()
        return 0.5 * turned + energy.abs()


def _unlike_identity(Q: Tensor) -> Tensor:
    return (Q.mH @ Q - torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device)).norm()
