"""Atomic feature mimicking: the outputs of a layer in their own principal directions.

    C_y = U diag(l) U^H,   y' = U_r U_r^H (y - mean) + mean

so that B = U_r, A = U_r^H W and the bias U_r U_r^H b + (I - U_r U_r^H) mean; over the rows of the calibration
the mean square of the error is the sum of l_j, j > r, exactly, and no affine map of rank r has less. Costs
O(N out^2) for the moments and O(out^3); inputs are not looked at, which for convolutions saves the patches.

Sources: Yu & Wu, Compressing transformers: features are low-rank, but weights are not, AAAI 2023; Kaushal,
Vaidhya, Rish, LORD (arXiv 2309.14021). Uncentred, it is the whitened SVD: W C^(1/2) = U S V^H implies
W C W^H = U S^2 U^H.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.compress.calibration import OUTPUTS, Moments
from neuralsolve.lowrank.compress.factoriser import Factoriser, Factors
from neuralsolve.lowrank.svd import svd
from neuralsolve.lowrank.weighted import psd_eigh


@dataclass(frozen=True)
class AFM(Factoriser):
    """Factors by the covariance of the outputs; see the head of this file.

    Parameters
    ----------
    center : whether the mean goes into the bias; False: second moments of W x, the bias stays as it is

    Examples
    --------
    >>> import torch
    >>> x = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    >>> W, moments = torch.ones(2, 3, dtype=torch.float64), Moments()
    >>> moments.add(None, x @ W.T, 50)
    >>> found = AFM().factors(W, None, moments, rank=1)
    >>> torch.allclose(found.B @ found.A, W)
    True
    """

    center: bool = True
    needs: ClassVar[frozenset[str]] = frozenset({OUTPUTS})

    def adds_bias(self) -> bool:
        return self.center

    def without_bias(self) -> AFM:
        return AFM(center=False)

    def squares(self, W: Tensor, bias: Tensor | None, moments: Moments | None) -> Tensor:
        return self._directions(bias, moments)[0]

    def factors(self, W: Tensor, bias: Tensor | None, moments: Moments | None, rank: int) -> Factors:
        U = self._directions(bias, moments)[1][:, :rank]
        B, A = balanced(U, U.mH @ W)
        if not self.center:
            return Factors(B, A, bias)
        assert moments is not None
        mean = moments.mean()
        inner = mean if bias is None else mean - bias
        return Factors(B, A, mean - U @ (U.mH @ inner))

    def _directions(self, bias: Tensor | None, moments: Moments | None) -> tuple[Tensor, Tensor]:
        """Return variances, descending, and directions: of the second moments about the mean, or the bias."""
        moments = known(moments)
        about = moments.mean() if self.center else bias
        found = psd_eigh(moments.output_moment(about), floor=0.0)
        return found.values, found.vectors


def balanced(B: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
    """Return factors of the same product that share its size: gradients then have one, too."""
    found = svd(A, method="exact")
    root = found.s.sqrt().to(A.dtype)
    return (B @ found.U) * root, root[:, None] * found.Vh


def known(moments: Moments | None) -> Moments:
    """Return the moments, or raise an OptionError that says how to get them."""
    if moments is None:
        msg = 'this factoriser needs what goes through the layers; pass calibration=inputs, or take "svd"'
        raise OptionError(msg)
    return moments
