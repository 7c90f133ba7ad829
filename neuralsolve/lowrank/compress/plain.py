"""Factors of the weights themselves: B A is the nearest matrix to W of rank r, whatever goes through it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from neuralsolve.lowrank.compress.calibration import Moments
from neuralsolve.lowrank.compress.factoriser import Factoriser, Factors
from neuralsolve.lowrank.svd import svd


@dataclass(frozen=True)
class PlainSVD(Factoriser):
    """B = U_r s_r^(1/2), A = s_r^(1/2) V_r^H; the error ||W - B A||_F^2 = sum of s_j^2, j > r (Eckart-Young).

    Needs no data. Outputs may err far more than the weights: inputs are rarely white.

    Examples
    --------
    >>> import torch
    >>> W = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    >>> PlainSVD().squares(W, None, None).tolist()
    [9.0, 4.0, 1.0]
    """

    def squares(self, W: Tensor, bias: Tensor | None, moments: Moments | None) -> Tensor:
        return svd(W, method="exact").s ** 2

    def factors(self, W: Tensor, bias: Tensor | None, moments: Moments | None, rank: int) -> Factors:
        B, A = svd(W, rank, method="exact").balanced()
        return Factors(B, A, bias)
