"""Subspaces chosen from a fixed basis or from the parameters themselves: no SVD, and only indices are kept.

`BasisSelect` keeps r of the m columns of a fixed orthonormal Q (m, m): the cosine transform, or the unit
vectors, which picks rows of the gradient. For S = Q^H A and a set I of columns,

    ||A - Q_I Q_I^H A||_F^2 = ||A||_F^2 - sum over i in I of ||S_i||^2,

so the longest rows of S, in the 2-norm, are the best choice. A fixed basis can only fit an axis with an order
of its own, places, times or modes: the directions of a gradient's channels are arbitrary, and cosines are
then worth as much as single channels. Moments follow a refresh by matching indices, without a product.

Sources: "FFT-based dynamic subspace selection for low-rank adaptive optimization" (DCT-AdamW, 2025, arXiv
2505.17967) for the choice among cosines; Makhoul, IEEE Trans. ASSP 28 (1980) 27-34, for the transform by one
FFT; FRUGAL (arXiv 2411.07837) for blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from neuralsolve.errors import OptionError, check_known
from neuralsolve.lowrank.optim.projectors import Basis, Identity, Place, Projector, Rank

INDICES = "indices"
FFT_FROM = 512  # rows: below, the product with the matrix takes less time


@lru_cache(maxsize=32)
def dct_matrix(n: int, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Tensor:
    """Return the orthonormal Q (n, n) whose columns are cosines, lowest first: dct(A) = Q^T A (DCT-II).

    >>> Q = dct_matrix(5)
    >>> bool((Q.T @ Q - torch.eye(5)).abs().max() < 1e-15)
    True
    """
    k, i = torch.arange(n, dtype=torch.float64), torch.arange(n, dtype=torch.float64)[:, None]
    Q = torch.cos(math.pi / n * (i + 0.5) * k) * math.sqrt(2 / n)
    Q[:, 0] /= math.sqrt(2)
    return Q.to(device, dtype)


def dct(A: Tensor) -> Tensor:
    """Return Q^T A for A (..., n, k), by one FFT of length n along the rows (Makhoul)."""
    if A.is_complex():
        parts = dct(torch.view_as_real(A.resolve_conj()).movedim(-1, 0))
        return torch.complex(parts[0], parts[1])
    n = A.shape[-2]
    order = torch.cat([torch.arange(0, n, 2), torch.arange(1, n, 2).flip(0)]).to(A.device)
    turn = torch.exp(-0.5j * math.pi / n * torch.arange(n, dtype=torch.float64))
    size = torch.full((n,), math.sqrt(2 / n), dtype=torch.float64)
    size[0] = math.sqrt(1 / n)
    spectrum = torch.fft.fft(A[..., order, :], dim=-2)
    return (spectrum * (turn * size).to(A.device, spectrum.dtype)[:, None]).real


@dataclass(frozen=True)
class BasisSelect(Projector):
    """Some columns of a fixed basis.

    Parameters
    ----------
    basis : "dct", cosines; "identity", rows of the gradient
    choice : "longest" rows of Q^H A, or "random" ones
    norm : of their lengths; 2 is optimal

    Examples
    --------
    >>> A = torch.cos(torch.pi / 6 * (torch.arange(6.0) + 0.5) * 2)[:, None]
    >>> BasisSelect().refresh(A, 1, None, Place(7, 0))["indices"].tolist()
    [2]
    """

    basis: str = "dct"
    choice: str = "longest"
    norm: float = 2.0

    def __post_init__(self) -> None:
        for name, known in (("basis", ("dct", "identity")), ("choice", ("longest", "random"))):
            check_known(f"{name} =", getattr(self, name), known)

    @property
    def ordered(self) -> bool:  # type: ignore[override]
        """Cosines want an axis of points of a line."""
        return self.basis == "dct"

    @property
    def stacked(self) -> bool:  # type: ignore[override]
        """All but random choices."""
        return self.choice == "longest"

    def refresh(self, A: Tensor, rank: Rank, old: Basis | None, place: Place) -> dict[str, Tensor]:
        assert isinstance(rank, int)
        if self.choice == "random":
            weights = torch.rand(A.shape[:-1], generator=place.generator()).to(A.device)
        else:
            weights = self.coordinates(A).abs().pow(self.norm).sum(-1)
        return {INDICES: weights.topk(rank, dim=-1).indices.sort(dim=-1).values.int()}

    def coordinates(self, A: Tensor) -> Tensor:
        """Return Q^H A."""
        if self.basis == "identity":
            return A
        n = A.shape[-2]
        return dct(A) if n >= FFT_FROM else dct_matrix(n, A.dtype, A.device).mT @ A

    def down(self, A: Tensor, basis: Basis) -> Tensor:
        which = basis[INDICES].long()
        if self.basis == "identity":
            return A.gather(-2, which[..., None].expand(*which.shape, A.shape[-1]))
        return self._columns(which, A.dtype, A.shape[-2]).mT @ A

    def up(self, g: Tensor, basis: Basis, shape: torch.Size) -> Tensor:
        which = basis[INDICES].long()
        if self.basis == "identity":
            return g.new_zeros(shape).scatter_(-2, which[..., None].expand(*which.shape, shape[-1]), g)
        return self._columns(which, g.dtype, shape[-2]) @ g

    def carry(self, x: Tensor, new: Basis, old: Basis, *, squared: bool) -> Tensor:
        same = new[INDICES][..., :, None] == old[INDICES][..., None, :]
        known, where = same.any(-1), same.int().argmax(-1)
        moved = x.gather(-2, where[..., None].expand(*where.shape, x.shape[-1]))
        return moved * known[..., None]

    def alignment(self, new: Basis, old: Basis) -> float:
        same = new[INDICES][..., :, None] == old[INDICES][..., None, :]
        return float(same.any(-1).float().mean())

    def _columns(self, which: Tensor, dtype: torch.dtype, n: int) -> Tensor:
        Q = dct_matrix(n, dtype, which.device)
        return Q.mT[which].mT


@dataclass(frozen=True)
class BlockSelect(Identity):
    """Whole parameters, drawn anew at each refresh: the rank of the group is the part of all entries.

    Drawn are as many as fit into that part, and one at least.
    """

    def fit(self, rank: Rank, shape: torch.Size, what: str) -> Rank:
        if not isinstance(rank, float) or not 0 <= rank <= 1:
            msg = f"rank = {rank!r} of {what}; of blocks it is a part of all entries, from 0.0 to 1.0"
            raise OptionError(msg)
        return rank

    def refresh(self, A: Tensor, rank: Rank, old: Basis | None, place: Place) -> dict[str, Tensor]:
        assert isinstance(rank, float)
        room, chosen = rank * sum(place.sizes), set()
        for index in torch.randperm(len(place.sizes), generator=place.generator(shared=True)).tolist():
            if place.sizes[index] <= room or (not chosen and rank > 0):
                chosen.add(index)
                room -= place.sizes[index]
        return {"active": torch.tensor(place.which in chosen)}

    def down(self, A: Tensor, basis: Basis) -> Tensor:
        return A if basis["active"] else A[:0]

    def up(self, g: Tensor, basis: Basis, shape: torch.Size) -> Tensor:
        return g if basis["active"] else g.new_zeros(shape)

    def carry(self, x: Tensor, new: Basis, old: Basis, *, squared: bool) -> Tensor:
        if bool(new["active"]) == bool(old["active"]):
            return x
        msg = (
            "blocks that begin or cease to be stateful cannot keep their moments; transport='reset' is needed"
        )
        raise OptionError(msg)

    def alignment(self, new: Basis, old: Basis) -> float:
        return float(bool(new["active"]) == bool(old["active"]))
