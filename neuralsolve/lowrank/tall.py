"""The SVD of tall matrices (..., m, k), k small: by products and decompositions of k x k matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralsolve.lowrank.decompositions import dense_eigh, dense_svd
from neuralsolve.lowrank.orthonormal import orthonormalize
from neuralsolve.lowrank.products import fresh


def tall_svd(Y: Tensor, rank: int, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return U (..., m, rank), s and X (..., k, rank) of the SVD of tall Y (..., m, k).

    U need be orthonormal to the precision of `dtype` only, by default that of Y.

    By the eigenvectors of Y^H Y, which take two products of tall matrices where Householder QR takes many
    steps: U = Y X/s is orthonormal up to eps (s_1/s_r)^2. Past 100 of those allowed it is corrected as in
    Cholesky QR twice: with U = Q R, R near I, the SVD of R diag(s) is that of Y X. Where squares lose the
    last singular values to rounding, QR it is.
    """
    eps = torch.finfo(Y.dtype).eps
    G = Y.mH @ Y
    values, X = dense_eigh(G)
    values, X = values[..., :rank], X[..., :rank]
    s = values.sqrt()
    allowed = 100 * torch.finfo(dtype or Y.dtype).eps
    if bool((eps * values[..., 0] < allowed * values[..., -1]).all()):
        return _times(Y, X / s[..., None, :]), s, X
    found = _graded(Y, G, rank)
    if found is not None:
        return found
    if not bool((values[..., -1] > 1e4 * eps * values[..., 0]).all()):
        Q = orthonormalize(Y)
        W, s, Xh = dense_svd(Q.mH @ Y)
        return Q @ W[..., :rank], s[..., :rank], Xh[..., :rank, :].mH
    U = Y @ (X / s[..., None, :])
    R = torch.linalg.cholesky(U.mH @ U, upper=True)
    W, s, Th = dense_svd(R * s[..., None, :])
    return U @ torch.linalg.solve_triangular(R, W, upper=True), s, X @ Th.mH


def _graded(Y: Tensor, G: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return what `tall_svd` does, for Y D^-1 well conditioned, D the lengths of the columns; None else.

    With G = D S D, S = R^H R near I, Y (R D)^-1 is orthonormal up to eps cond(S), however much the lengths
    differ: so it is where the basis was sorted by singular values.
    """
    lengths = G.diagonal(dim1=-2, dim2=-1).real.sqrt().clamp_min(torch.finfo(G.dtype).tiny ** 0.4)
    S = G / (lengths[..., :, None] * lengths[..., None, :])
    spread = dense_eigh(S)[0]
    if not bool((spread[..., 0] < 100 * spread[..., -1]).all()):
        return None
    R = torch.linalg.cholesky(S, upper=True)
    W, s, Th = dense_svd(R * lengths[..., None, :])
    turn = torch.linalg.solve_triangular(R, W[..., :rank], upper=True) / lengths[..., :, None]
    return _times(Y, turn), s[..., :rank], Th[..., :rank, :].mH


def _times(Y: Tensor, X: Tensor) -> Tensor:
    """Return Y X in fresh memory."""
    if Y.ndim > 2 or Y.is_conj() or X.is_conj():
        return Y @ X
    return torch.mm(Y, X, out=fresh((len(Y), X.shape[1]), Y))
