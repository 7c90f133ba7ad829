"""LoLDU: the weight by Gaussian elimination, W = P L D U; the leading pivots are trained, and one scale.

    Delta = P L_r diag(scale z - scale_0 z_0) U_r,   z = D_{1..r} at first: r + 1 numbers

A wide matrix is taken by its adjoint. Elimination sorts nothing: the leading pivots are not the large ones,
and the part that they span is no good approximation of W, other than the leading singular vectors.
`pivot="rank-revealing"` puts columns in the order of a pivoted QR first, which mends most of it.

Source: Shi et al., LoLDU (arXiv 2410.13618). The authors' code keeps P as a dense matrix and divides by zero
pivots; here P is worked into L, and a zero pivot leaves its row of U as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import OptionError, check_known
from neuralsolve.lowrank.adapters.delta import Delta, LowRankDelta
from neuralsolve.lowrank.adapters.options import Ranked, Site

STARTS = ("lu", "uniform", "normal", "constant", "ones", "zeros")
PIVOTS = ("partial", "rank-revealing")


@dataclass(frozen=True)
class LoLDU(Ranked):
    """Trained pivots.

    Parameters
    ----------
    rank : r
    alpha : scale_0 = alpha / r; None: 1
    start : of z: "lu" the pivots, "uniform" and "normal" of their mean size, "constant" their mean, "ones",
        "zeros"; the weight begins as it was with all of them
    pivot : "partial", or "rank-revealing" (on the CPU, by SciPy)

    Examples
    --------
    >>> from neuralsolve.lowrank.adapters import attach, summary
    >>> summary(attach(torch.nn.Linear(100, 50), LoLDU(rank=8))).trained
    9
    """

    alpha: float | None = None
    start: str = "lu"
    pivot: str = "partial"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in {"start": STARTS, "pivot": PIVOTS}.items():
            check_known(f"{name} =", getattr(self, name), known)
        if self.alpha is not None and not (math.isfinite(self.alpha) and self.alpha > 0):
            msg = f"got alpha={self.alpha!r}; a positive number is needed, or None for the rank"
            raise OptionError(msg)

    def delta(self, site: Site) -> Delta:
        r = self.rank_of(site)
        left, pivots, right = ldu(site.matrix, self.pivot)
        scale = 1.0 if self.alpha is None else self.alpha / r
        z = self._first(site, pivots[..., :r])
        start, trained = scale * z, ("core", "scale")
        left, right = left[..., :r], right[..., :r, :]
        return LowRankDelta(site.view, site.shape, left, right, z, start=start, scale=scale, trained=trained)

    def _first(self, site: Site, pivots: Tensor) -> Tensor:
        size = pivots.abs().mean(-1, keepdim=True).expand(pivots.shape)
        if self.start == "uniform":
            return site.random(*pivots.shape) * size / 2
        if self.start == "normal":
            drawn = torch.randn(pivots.shape, generator=site.generator, dtype=pivots.dtype)
            return drawn.to(pivots.device) * size
        if self.start == "constant":
            return pivots.mean(-1, keepdim=True).expand(pivots.shape)
        return {"lu": pivots, "ones": torch.ones_like(pivots), "zeros": torch.zeros_like(pivots)}[self.start]


def ldu(W: Tensor, pivot: str = "partial") -> tuple[Tensor, Tensor, Tensor]:
    """Return P L (..., m, p), D (..., p) and U (..., p, n) with W = P L diag(D) U.

    Where W has rows at least as many as columns, L and U are triangular with ones on the diagonal, U but for
    zero pivots, up to the order of rows and, "rank-revealing", of columns; for others this holds of W^H.

    Examples
    --------
    >>> left, pivots, right = ldu(torch.tensor([[0.0, 2.0], [4.0, 4.0]]))
    >>> pivots, left @ torch.diag(pivots) @ right
    (tensor([4., 2.]), tensor([[0., 2.],
            [4., 4.]]))
    """
    if W.shape[-2] < W.shape[-1]:
        left, pivots, right = ldu(W.mH, pivot)
        return right.mH, pivots.conj().resolve_conj(), left.mH
    order = _column_order(W) if pivot == "rank-revealing" else None
    seen = W if order is None else W.gather(-1, order[..., None, :].expand(W.shape))
    P, L, U = torch.linalg.lu(seen)
    pivots = U.diagonal(dim1=-2, dim2=-1)
    tiny = torch.finfo(W.dtype).eps * pivots.abs().amax(-1, keepdim=True)
    pivots = torch.where(pivots.abs() > tiny, pivots, torch.ones_like(pivots))
    U = U / pivots[..., None]
    if order is not None:
        back = order.argsort(-1)
        U = U.gather(-1, back[..., None, :].expand(U.shape))
    return P @ L, pivots, U


def _column_order(W: Tensor) -> Tensor:
    """Return the order of columns (..., n) of a QR with pivoting."""
    from scipy.linalg import qr

    flat = W.detach().reshape(-1, *W.shape[-2:]).cpu().resolve_conj().numpy()
    orders = [qr(each, mode="r", pivoting=True)[-1] for each in flat]
    return torch.from_numpy(np.stack(orders).astype(np.int64)).to(W.device).view(*W.shape[:-2], -1)
