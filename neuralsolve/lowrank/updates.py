"""The SVD of a matrix that changed a little, from that of the matrix before, without forming either.

All follow from that of a product L R (Brand, Linear Algebra Appl. 415 (2006) 20-30): with L = Q_1 R_1 and
R^H = Q_2 R_2, L R = Q_1 (R_1 R_2^H) Q_2^H, and the middle is small. O((m + n) r^2 + r^3) for r inner columns.
Errors add up: ||A' - U' diag(s') Vh'|| is at most the error before plus what the new cut leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.lowrank.decompositions import check_finite, dense_svd
from neuralsolve.lowrank.factors import SVD, canonical_signs, check_part, part_lost, smallest_rank
from neuralsolve.lowrank.products import HALF, as_tensor
from neuralsolve.lowrank.range_finder import check_count


def recompress(
    L: Any, R: Any, rank: int | None = None, *, tol: float | None = None, energy: float | None = None
) -> SVD:
    """Return the SVD of L R, L (..., m, k) and R (..., k, n), which is not formed.

    Parameters
    ----------
    L, R : tensors or arrays
    rank, tol, energy : how many singular values to keep, as in `svd`; min(m, n, k) by default

    Raises
    ------
    OptionError, ShapeError, NonFiniteError

    Examples
    --------
    >>> found = recompress(torch.ones(4, 2), torch.ones(2, 9), tol=1e-5)
    >>> found.rank, round(float(found.s), 4)
    (1, 12.0)
    """
    left, right = _checked(L, "L"), _checked(R, "R")
    if left.shape[-1] != right.shape[-2]:
        msg = f"L is {tuple(left.shape)}, R is {tuple(right.shape)}; L (m, k) and R (k, n) are needed"
        raise ShapeError(msg)
    check_part(rank, tol, energy)
    if left.dtype in HALF:
        found = recompress(left.float(), right.float(), rank, tol=tol, energy=energy)
        return SVD(found.U.to(left.dtype), found.s, found.Vh.to(left.dtype), found.error, found.method)
    Q1, R1 = torch.linalg.qr(left)
    Q2, R2 = torch.linalg.qr(right.mH)
    W, s, Xh = dense_svd(R1 @ R2.mH)
    if rank is None:
        rank = s.shape[-1] if tol is None and energy is None else smallest_rank(s, part_lost(tol, energy))
    check_count("rank", rank, s.shape[-1])
    U, Vh = canonical_signs(Q1 @ W[..., :rank], Xh[..., :rank, :] @ Q2.mH)
    error = s[..., rank:].double().square().sum(-1).sqrt().to(s.dtype)
    return _back(SVD(U, s[..., :rank], Vh, error, "recompress"), L)


def append_columns(svd: SVD, C: Any, rank: int | None = None) -> SVD:
    """Return the SVD of [A, C] from that of A (..., m, n), C (..., m, k); of rank r + k, or as given.

    Examples
    --------
    >>> before = SVD(torch.eye(2)[:, :1], torch.tensor([2.0]), torch.eye(1), None, "")  # A = (2, 0)^T
    >>> append_columns(before, torch.tensor([[0.0], [3.0]])).s.tolist()
    [3.0, 2.0]
    """
    U, s, Vh = _parts(svd)
    more = _fitting(C, "C", U.shape[:-1], rows=True, like=U)
    eye = torch.eye(more.shape[-1], dtype=U.dtype, device=U.device).expand(*Vh.shape[:-2], -1, -1)
    zeros = Vh.new_zeros((*Vh.shape[:-1], more.shape[-1]))
    below = torch.cat([Vh.new_zeros((*eye.shape[:-1], Vh.shape[-1])), eye], -1)
    R = torch.cat([torch.cat([Vh, zeros], -1), below], -2)
    return _changed(svd, torch.cat([U * s[..., None, :], more], -1), R, rank)


def append_rows(svd: SVD, C: Any, rank: int | None = None) -> SVD:
    """Return the SVD of A with the rows C (..., k, n) below it; of rank r + k, or as given."""
    return _turned(append_columns(_turned(svd), as_tensor(C).mH, rank))


def remove_columns(svd: SVD, which: int | Sequence[int] | Tensor) -> SVD:
    """Return the SVD of A without some of its columns, by their indices, which may count from the end.

    Examples
    --------
    >>> before = SVD(torch.eye(2), torch.tensor([3.0, 2.0]), torch.eye(2), None, "")
    >>> remove_columns(before, [0]).s.tolist()
    [2.0]
    """
    U, s, Vh = _parts(svd)
    n = Vh.shape[-1]
    keep = torch.ones(n, dtype=torch.bool, device=Vh.device)
    gone = torch.as_tensor(which, device=Vh.device).reshape(-1)
    if bool(((gone < -n) | (gone >= n)).any()) or gone.is_floating_point():
        msg = f"got columns {gone.tolist()} of {n}; integers from {-n} to {n - 1} are needed"
        raise OptionError(msg)
    keep[gone] = False
    if not bool(keep.any()):
        msg = f"all {n} columns would go; one at least must stay"
        raise OptionError(msg)
    rank = min(svd.rank, U.shape[-2], int(keep.sum()))
    return _changed(svd, U * s[..., None, :], Vh[..., keep], rank)


def add_rank_one(svd: SVD, a: Any, b: Any, rank: int | None = None) -> SVD:
    """Return the SVD of A + a b^H, a (m,) and b (n,), or (..., m, k) and (..., n, k) for a sum of k such.

    Examples
    --------
    >>> before = SVD(torch.eye(2)[:, :1], torch.tensor([2.0]), torch.eye(2)[:1], None, "")
    >>> add_rank_one(before, torch.tensor([0.0, 5.0]), torch.tensor([0.0, 1.0])).s.tolist()
    [5.0, 2.0]
    """
    U, s, Vh = _parts(svd)
    left = _fitting(a, "a", U.shape[:-1], rows=True, like=U)
    right = _fitting(b, "b", (*Vh.shape[:-2], Vh.shape[-1]), rows=True, like=U)
    return _changed(svd, torch.cat([U * s[..., None, :], left], -1), torch.cat([Vh, right.mH], -2), rank)


def _changed(svd: SVD, L: Tensor, R: Tensor, rank: int | None) -> SVD:
    found = recompress(L, R, rank)
    error = None if svd.error is None else found.error + torch.as_tensor(svd.error).to(found.error)
    return _back(SVD(found.U, found.s, found.Vh, error, "update"), svd.U)


def _parts(svd: SVD) -> tuple[Tensor, Tensor, Tensor]:
    U, s, Vh = (torch.as_tensor(part) for part in (svd.U, svd.s, svd.Vh))
    if U.dtype in HALF:
        msg = f"U is {U.dtype}, too coarse to be updated; svd(A.float()) keeps float32 factors"
        raise OptionError(msg)
    return U, s.to(U.real.dtype), Vh


def _fitting(X: Any, name: str, shape: Sequence[int], rows: bool, like: Tensor) -> Tensor:
    """Return X (..., m, k) for a shape (..., m); one column where it is a vector."""
    given = _checked(X, name)
    columns = given[..., None] if given.ndim == 1 else given
    if columns.ndim < 2 or tuple(columns.shape[:-1]) != tuple(shape):
        msg = f"{name} is {tuple(given.shape)}; {(*shape, 'k')} is needed"
        raise ShapeError(msg)
    return columns.to(like.dtype)


def _checked(X: Any, name: str) -> Tensor:
    found = as_tensor(X)
    check_finite(found, name)
    return found


def _turned(svd: SVD) -> SVD:
    U, s, Vh = _parts(svd)
    V, Uh = canonical_signs(Vh.mH, U.mH)
    return _back(SVD(V, s, Uh, svd.error, svd.method), svd.U)


def _back(svd: SVD, like: Any) -> SVD:
    """Return the parts as arrays where `like` is one."""
    if isinstance(like, Tensor):
        return svd
    U, s, Vh = (part.numpy(force=True) for part in (svd.U, svd.s, svd.Vh))
    error = svd.error.numpy(force=True) if isinstance(svd.error, Tensor) else svd.error
    return SVD(U, s, Vh, error, svd.method)
