"""Orthonormal columns: made, kept, compared. Matrices are (..., m, k), real or complex, batches alike."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.lowrank.decompositions import check_finite, dense_singular_values, dense_svd

QUINTIC = (3.4445, -4.7750, 2.0315)


def orthonormalize(X: Tensor) -> Tensor:
    """Return Q (..., m, k), k <= m, with orthonormal columns that span those of X.

    Cholesky QR twice: Q = X R^-1 for X^H X = R^H R, which is orthonormal to about eps cond(X)^2, then again,
    which leaves eps (Yamamoto, Nakatsukasa, Yanagisawa & Fukaya, ETNA 44 (2015) 306-326): two products of
    tall matrices, where Householder's reflections take them column by column. It serves cond(X) up to about
    eps^-1/2, columns scaled beforehand; beyond, and for columns that depend on each other, Householder QR.

    Raises
    ------
    ShapeError
        More columns than rows.

    Examples
    --------
    >>> Q = orthonormalize(torch.tensor([[3.0, 1.0], [4.0, 1.0], [0.0, 2.0]]))
    >>> torch.allclose(Q.T @ Q, torch.eye(2), atol=1e-6)
    True
    """
    m, k = X.shape[-2:]
    if k > m:
        msg = f"{k} columns of length {m} are never orthonormal; at most {m} are: X[..., :{m}]"
        raise ShapeError(msg)
    Q = _cholesky_qr(X) if m >= 8 * k and X.dtype not in (torch.bfloat16, torch.float16) else None
    if Q is not None:
        return Q
    if X.dtype in (torch.bfloat16, torch.float16):
        return torch.linalg.qr(X.float()).Q.to(X.dtype)
    return torch.linalg.qr(X).Q


def _cholesky_qr(X: Tensor) -> Tensor | None:
    """Return Q by Cholesky QR twice, None where X is too ill conditioned for it."""
    eps = torch.finfo(X.dtype).eps
    G = X.mH @ X
    lengths = G.diagonal(dim1=-2, dim2=-1).real.sqrt()
    scaled = G / (lengths[..., :, None] * lengths[..., None, :])
    R, info = torch.linalg.cholesky_ex(scaled, upper=True)
    diagonal = R.diagonal(dim1=-2, dim2=-1).real
    if bool((info != 0).any()) or not bool((diagonal.square() > 100 * X.shape[-1] * eps).all()):
        return None
    Q = X @ (_inverse(R) / lengths[..., :, None])
    R, info = torch.linalg.cholesky_ex(Q.mH @ Q, upper=True)
    return None if bool((info != 0).any()) else Q @ _inverse(R)


def _inverse(R: Tensor) -> Tensor:
    """Return R^-1: a product with it is several times as fast as a triangular solve with many right sides."""
    eye = torch.eye(R.shape[-1], dtype=R.dtype, device=R.device).expand_as(R)
    return torch.linalg.solve_triangular(R, eye, upper=True)


def complement_project(X: Tensor, Q: Tensor) -> Tensor:
    """Return (I - Q Q^H) X for orthonormal Q (..., m, k), X (..., m, j); twice, which is enough.

    What one projection leaves of Q in X is eps ||X||, much where the result is short; the second removes it
    (Parlett, The Symmetric Eigenvalue Problem, 1998, sec. 6.9: "twice is enough").

    Examples
    --------
    >>> Q = torch.tensor([[1.0], [0.0]])
    >>> complement_project(torch.tensor([[5.0], [2.0]]), Q).tolist()
    [[0.0], [2.0]]
    """
    if X.shape[-2] != Q.shape[-2]:
        msg = f"X is {tuple(X.shape)}, Q is {tuple(Q.shape)}; as many rows are needed: is one transposed?"
        raise ShapeError(msg)
    for _ in range(2):
        X = X - Q @ (Q.mH @ X)
    return X


def polar(X: Tensor) -> Tensor:
    """Return the nearest matrix with orthonormal columns (rows, where X is wide): U V^H of X = U diag(s) V^H.

    Nearest in every unitarily invariant norm (Higham, Functions of Matrices, 2008, thm. 8.4). Where X has
    not full rank there are several; this is one of them.

    Examples
    --------
    >>> polar(torch.tensor([[3.0, 0.0], [0.0, -2.0]])).tolist()
    [[1.0, 0.0], [0.0, -1.0]]
    """
    check_finite(X, "X")
    U, _, Vh = dense_svd(X.float() if X.dtype in (torch.bfloat16, torch.float16) else X)
    return (U @ Vh).to(X.dtype)


def newton_schulz(X: Tensor, steps: int = 5) -> Tensor:
    """Return a matrix with the singular vectors of X (..., m, n), singular values about 1: cheap, and rough.

    X <- a X + (b X X^H + c (X X^H)^2) X after a division by ||X||_F, (a, b, c) = (3.4445, -4.7750, 2.0315):
    five steps take singular values from 0.01 ||X||_F on into about [0.7, 1.2], for products alone (Jordan et
    al., Muon, 2024). That is no orthonormal matrix; `polar` gives one.

    Examples
    --------
    >>> X = torch.diag(torch.tensor([1.0, 0.5, 0.1]))
    >>> bool(((newton_schulz(X).diagonal() - 1).abs() < 0.35).all())
    True
    """
    if steps < 1:
        msg = f"got steps={steps}; at least 1 is needed: newton_schulz(X, steps=5)"
        raise OptionError(msg)
    a, b, c = QUINTIC
    wide = X.shape[-2] > X.shape[-1]
    Y = X.mH if wide else X
    Y = Y / torch.linalg.matrix_norm(Y)[..., None, None].clamp_min(torch.finfo(X.dtype).tiny)
    for _ in range(steps):
        G = Y @ Y.mH
        Y = a * Y + (b * G + c * G @ G) @ Y
    return Y.mH if wide else Y


def principal_angles(P: Tensor, Q: Tensor) -> Tensor:
    """Return the cosines of the principal angles, descending, of the spans of orthonormal P and Q.

    P (..., m, j), Q (..., m, k): the singular values of P^H Q, min(j, k) of them (Bjorck & Golub, Math. Comp.
    27 (1973) 579-594). Their squares sum to ||P^H Q||_F^2, whatever bases of the spans were taken.

    Examples
    --------
    >>> principal_angles(torch.eye(3)[:, :2], torch.eye(3)[:, 1:]).tolist()
    [1.0, 0.0]
    """
    if P.shape[-2] != Q.shape[-2]:
        msg = f"P is {tuple(P.shape)}, Q is {tuple(Q.shape)}; as many rows, hence one space, are needed"
        raise ShapeError(msg)
    return dense_singular_values(P.mH @ Q).clamp_max(1)
