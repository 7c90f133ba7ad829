"""What a decomposition gives back: U, s, Vh, how many of them to keep, and their signs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import OptionError

Array = Any  # a torch tensor or a NumPy array, as the matrix was


@dataclass(frozen=True)
class SVD:
    """A = U diag(s) Vh up to `error`; a batch of matrices has a batch of each.

    Attributes
    ----------
    U : (..., m, r), orthonormal columns; the entry of largest modulus of each is real and positive
    s : (..., r), real, descending
    Vh : (..., r, n), orthonormal rows
    error : (...), ||A - U diag(s) Vh||_F as measured, or a bound of it; None where nobody knows
    method : by which method it was found

    Examples
    --------
    >>> found = SVD(torch.eye(3)[:, :2], torch.tensor([4.0, 3.0]), torch.eye(2), torch.tensor(0.0), "exact")
    >>> found.rank, found.shape
    (2, (3, 2))
    >>> float(found.truncate(rank=1).error)
    3.0
    """

    U: Array
    s: Array
    Vh: Array
    error: Array
    method: str

    @property
    def rank(self) -> int:
        """How many singular values are kept."""
        return self.s.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of A, (..., m, n)."""
        return (*self.U.shape[:-1], self.Vh.shape[-1])

    def to_dense(self) -> Array:
        """Return U diag(s) Vh, (..., m, n), in the precision of U."""
        return _scaled(self.U, self.s) @ self.Vh

    def balanced(self) -> tuple[Array, Array]:
        """Return L = U diag(s)^(1/2) and R = diag(s)^(1/2) Vh: factors of equal norm, A = L R."""
        root = self.s**0.5
        Rh = _scaled(self.Vh.swapaxes(-1, -2), root)
        return _scaled(self.U, root), Rh.swapaxes(-1, -2)

    def truncate(
        self, rank: int | None = None, *, tol: float | None = None, energy: float | None = None
    ) -> SVD:
        """Return the leading part: of a rank, or of the smallest one that a rule allows.

        Parameters
        ----------
        rank : at most the present one
        tol : ||A - U diag(s) Vh||_F <= tol ||A||_F, what was left out before counted in
        energy : ||U diag(s) Vh||_F^2 >= energy ||A||_F^2

        Raises
        ------
        OptionError
            None or several of the three; a rank that there is not.
        """
        check_part(rank, tol, energy, none=False)
        if rank is None:
            rank = self._enough(part_lost(tol, energy))
        if isinstance(rank, bool) or not isinstance(rank, (int, np.integer)) or not 1 <= rank <= self.rank:
            msg = f"got rank={rank!r} of a decomposition of rank {self.rank}; 1 to {self.rank} is needed"
            raise OptionError(msg)
        error = self.error
        if error is not None:
            dropped = _torch(self.s)[..., rank:].double().square().sum(-1)
            total = (_torch(error).double().square() + dropped).sqrt()
            error = total.to(_torch(self.s).dtype) if isinstance(error, Tensor) else total.numpy()
        return SVD(self.U[..., :rank], self.s[..., :rank], self.Vh[..., :rank, :], error, self.method)

    def _enough(self, part: float) -> int:
        s = _torch(self.s)
        lost = None if self.error is None else _torch(self.error).double().square()
        if lost is not None and bool((lost > part * (lost + s.double().square().sum(-1))).any()):
            least = float((lost / (lost + s.double().square().sum(-1))).max()) ** 0.5
            msg = f"rank {self.rank} misses A by {least:.2g} ||A||_F already; svd(A, tol=...) finds more"
            raise OptionError(msg)
        return smallest_rank(s, part, lost)


def rank_for_tol(s: Array, tol: float) -> int:
    """Return the least rank r >= 1 with (sum_{j > r} s_j^2)^(1/2) <= tol (sum_j s_j^2)^(1/2).

    Of a batch (..., p) the largest of its ranks.

    Examples
    --------
    >>> rank_for_tol(np.array([4.0, 3.0, 0.1]), 0.6), rank_for_tol(np.array([4.0, 3.0, 0.1]), 0.59)
    (2, 2)
    """
    check_part(None, tol, None)
    return smallest_rank(_torch(s), part_lost(tol, None))


def rank_for_energy(s: Array, energy: float) -> int:
    """Return the least rank r >= 1 with sum_{j <= r} s_j^2 >= energy sum_j s_j^2; of a batch the largest.

    Examples
    --------
    >>> rank_for_energy(np.array([4.0, 3.0]), 0.64), rank_for_energy(np.array([4.0, 3.0]), 0.65)
    (1, 2)
    """
    check_part(None, None, energy)
    return smallest_rank(_torch(s), part_lost(None, energy))


def effective_rank(s: Array) -> int:
    """Return exp of the entropy of s/sum(s), rounded: p for p equal singular values, 1 where one leads all.

    Roy & Vetterli, The effective rank, EUSIPCO 2007, 606-610. Of a batch the largest; 0 of zeros.

    Examples
    --------
    >>> effective_rank(torch.ones(7)), effective_rank(torch.tensor([1.0, 1e-9]))
    (7, 1)
    """
    values = _torch(s).double()
    share = values / values.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    entropy = torch.special.entr(share).sum(-1)
    ranks = torch.where(values.sum(-1) > 0, entropy.exp().round(), 0.0)
    return int(ranks.max())


def canonical_signs(U: Tensor, Vh: Tensor) -> tuple[Tensor, Tensor]:
    """Return U and Vh with phases such that the entry of largest modulus of each column of U is positive.

    Singular vectors are unique up to a phase of each pair, where singular values differ; this fixes it. Of
    entries that tie up to rounding the first counts. The phases are constants to autograd.

    Examples
    --------
    >>> canonical_signs(torch.tensor([[0.6], [-0.8]]), torch.tensor([[1.0, 0.0]]))
    (tensor([[-0.6000],
            [ 0.8000]]), tensor([[-1., -0.]]))
    """
    phase = phases(U)
    return U * phase, Vh * phase.conj().mT


@torch.no_grad()
def phases(U: Tensor) -> Tensor:
    """Return by what to multiply the columns of U, (..., 1, r), for `canonical_signs`."""
    eps = 64 * torch.finfo(U.dtype).eps
    if not U.is_complex():
        low, high = U.amin(-2, keepdim=True), U.amax(-2, keepdim=True)  # aminmax is not vectorised
        if bool(((high + low).abs() > eps * high.maximum(-low)).all()):  # no ties, and one look was enough
            return torch.where(high > -low, 1.0, -1.0).to(U.dtype)
    size = U.abs()
    near = size >= size.amax(-2, keepdim=True) * (1 - eps)
    entry = U.gather(-2, near.int().argmax(-2, keepdim=True))
    length = entry.abs()
    phase = torch.where(length > 0, entry.conj() / length.clamp_min(torch.finfo(size.dtype).tiny), 1.0)
    return phase.to(U.dtype).resolve_conj()


def check_part(rank: Any, tol: float | None, energy: float | None, *, none: bool = True) -> None:
    """Refuse several rules at once, none of them unless `none`, and values that no rule has."""
    given = {k: v for k, v in {"rank": rank, "tol": tol, "energy": energy}.items() if v is not None}
    if len(given) > 1 or not (given or none):
        many = "at most" if none else "exactly"
        msg = f"got {given or 'nothing'}; {many} one of rank=, tol= and energy= is needed"
        raise OptionError(msg)
    if tol is not None and not _within(tol, lambda value: 0 <= value < 1):
        msg = f"got tol={tol!r}, a relative Frobenius error; 0 <= tol < 1 is needed: tol=0.1"
        raise OptionError(msg)
    if energy is not None and not _within(energy, lambda value: 0 < value <= 1):
        msg = f"got energy={energy!r}, a part of ||A||_F^2; 0 < energy <= 1 is needed: energy=0.99"
        raise OptionError(msg)


def refuse_masked(A: object) -> None:
    """Raise OptionError of a masked array: a decomposition has no missing entries."""
    if isinstance(A, np.ma.MaskedArray):
        msg = "got a masked array, and a decomposition has no missing entries; fill them: A.filled(0.0)"
        raise OptionError(msg)


def _within(number: Any, fits: Callable[[Any], bool]) -> bool:
    """Return whether a number fits; what is no number does not."""
    try:
        return bool(fits(number))
    except (TypeError, ValueError, RuntimeError):  # text, arrays, tensors of several numbers
        return False


def part_lost(tol: float | None, energy: float | None) -> float:
    """Return the part of ||A||_F^2 that a rule allows to be lost, and an ulp or two for its own rounding."""
    ulps = 4 * torch.finfo(torch.float64).eps
    return tol**2 * (1 + ulps) if tol is not None else 1 - (1.0 if energy is None else energy) + ulps


def smallest_rank(s: Tensor, part: float, lost: Tensor | None = None) -> int:
    """Return the least rank >= 1 that loses at most a part of sum(s^2) + lost; the largest of a batch.

    What rounding makes of zeros, p eps s_1, does not count.
    """
    eps, p = torch.finfo(s.dtype).eps, s.shape[-1]
    squares = s.detach().double().square()
    tails = squares.flip(-1).cumsum(-1).flip(-1)  # of the values from j on, small ones first
    lost = torch.zeros_like(tails[..., 0]) if lost is None else lost.to(tails)
    total = tails[..., :1] + lost[..., None]
    allowed = (part + (p * eps) ** 2) * total - lost[..., None]
    return max(1, int((tails > allowed).sum(-1).max()))


def _torch(x: Array) -> Tensor:
    return x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))


def _scaled(U: Array, s: Array) -> Array:
    """Return U diag(s) in the precision of U."""
    scale = s.to(U.dtype) if isinstance(U, Tensor) else s.astype(U.dtype)
    return U * scale[..., None, :]
