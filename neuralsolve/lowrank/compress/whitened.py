"""The whitened SVD: B A is the matrix of rank r nearest to W in what it does to the inputs.

    E ||(W - B A) x||^2 = ||(W - B A) C^(1/2)||_F^2,   C = E[x x^H],   W C^(1/2) = U S V^H
    B = U_r S_r^(1/2),   A = S_r^(1/2) V_r^H C^(-1/2)

the mean square of the error is the sum of s_j^2, j > r. The same map of the inputs that were seen as `AFM`
without centring, at the price of an inverse root and, for convolutions, of moments of patches, in * taps
squared; what it maps unseen directions to differs. For the residual of layers that are compressed already:
`compensate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from neuralsolve.lowrank.compress.afm import known
from neuralsolve.lowrank.compress.calibration import INPUTS, Moments
from neuralsolve.lowrank.compress.factoriser import Factoriser, Factors
from neuralsolve.lowrank.svd import svd
from neuralsolve.lowrank.weighted import psd_eigh, weighted_svd

FLOOR = 1e-8  # of the eigenvalues of C, relative to the largest: behind an activation C is often singular


@dataclass(frozen=True)
class Whitened(Factoriser):
    """Factors by the second moments of the inputs; see the head of this file.

    Parameters
    ----------
    floor : smallest eigenvalue of C that is kept, relative to the largest

    Examples
    --------
    >>> import torch
    >>> W, moments = torch.eye(2, dtype=torch.float64), Moments()
    >>> moments.add(torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64), None, 2)
    >>> Whitened().squares(W, None, moments)
    tensor([4.5000, 0.5000], dtype=torch.float64)
    """

    floor: float = FLOOR
    needs: ClassVar[frozenset[str]] = frozenset({INPUTS})

    def squares(self, W: Tensor, bias: Tensor | None, moments: Moments | None) -> Tensor:
        root = psd_eigh(known(moments).input_moment(), floor=self.floor).sqrt()
        return svd(W @ root, method="exact").s ** 2

    def factors(self, W: Tensor, bias: Tensor | None, moments: Moments | None, rank: int) -> Factors:
        moment = psd_eigh(known(moments).input_moment(), floor=self.floor)
        B, A = weighted_svd(W, rank, right=moment).balanced()
        return Factors(B, A, bias)
