"""Orthonormal bases of the ranges of matrices, from products with them: what every fast SVD begins with.

    subspace    (A^H A)^q X for a random X: q + 1 products with A, q with A^H; warm-started by a basis that
                was good for a matrix nearby
    krylov      the span of X, (A^H A) X, ..., (A^H A)^q X: as many products, and the better approximation
                where singular values decay slowly; a basis q + 1 times as wide
    gram        eigenvectors of A^H A, which is formed in float64: exact for all singular values above
                1e-8 of the largest, where one side is short

Halko, Martinsson & Tropp, SIAM Review 53 (2011) 217-288, alg. 4.4; Musco & Musco, Randomized block Krylov
methods for stronger and faster approximate singular value decomposition, NeurIPS 2015, alg. 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.lowrank.decompositions import dense_eigh, dense_svd
from neuralsolve.lowrank.orthonormal import complement_project, orthonormalize
from neuralsolve.lowrank.products import Dense, Product, as_tensor, product

SEED = 2209


def range_basis(
    A: Any,
    rank: int,
    *,
    side: str = "left",
    warm: Tensor | None = None,
    iterations: int = 1,
    generator: torch.Generator | None = None,
) -> Any:
    """Return an orthonormal basis near the leading singular vectors of A, by subspace iteration.

    Parameters
    ----------
    A : (..., m, n) tensor, array or anything that `product` takes
    rank : columns of the basis, at most min(m, n)
    side : "left", (..., m, rank), or "right", (..., n, rank)
    warm : a basis to start from, (..., m or n, any number of columns), such as the last one of a matrix that
        changes slowly; a random start else
    iterations : products with A A^H (A^H A for "right"); a random start has 10 columns more, of which the
        best `rank` are picked by one product more
    generator : of random columns; one of a fixed seed by default

    Raises
    ------
    OptionError, ShapeError, NonFiniteError

    Examples
    --------
    >>> A = torch.outer(torch.tensor([3.0, 4.0]), torch.ones(5))
    >>> torch.allclose(range_basis(A, 1).abs(), torch.tensor([[0.6], [0.8]]))
    True
    """
    P = product(A)
    m, n = P.shape[-2:]
    check_count("rank", rank, min(m, n))
    check_count("iterations", iterations, least=0)
    if side not in ("left", "right"):
        msg = f"got side={side!r}; 'left' (columns of length {m}) or 'right' (of length {n}) is needed"
        raise OptionError(msg)
    towards = P if side == "right" else P.H  # the wanted basis spans the range of its adjoint
    with torch.no_grad():
        if warm is None:
            width = min(rank + 10, min(m, n))
            Z = subspace_basis(towards, width, iterations, None, generator)
            Q = Z @ dense_svd(_short(towards.times(Z)))[2].mH[..., :rank]
        else:
            Q = subspace_basis(towards, rank, iterations, warm, generator)
    return _like(Q, A)


def subspace_basis(
    P: Product,
    width: int,
    iterations: int,
    warm: Any = None,
    generator: torch.Generator | None = None,
    keep: int | None = None,
) -> Tensor:
    """Return Z (..., n, width), orthonormal, from so many products of a random or warm start with A^H A.

    With `keep` the leading directions of the last product alone, (..., n, keep): columns that made it more
    accurate need not take part in what comes after.
    """
    Z = start(P, width, warm, generator)
    if iterations == 0:
        return orthonormalize(Z)
    for _ in range(iterations - 1):
        Z = orthonormalize(P.gram_times(Z))
    W = P.gram_times(Z)
    if keep is not None and keep < width:
        wide = W.to(
            torch.complex128 if W.is_complex() else torch.float64
        )  # singular values to the fourth power
        W = W @ dense_eigh(wide.mH @ wide)[1][..., :keep].to(W.dtype)
    return orthonormalize(W)


def krylov_basis(
    P: Product, width: int, blocks: int, warm: Any = None, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Return Z (..., n, k), orthonormal, and A Z for the Krylov space of so many blocks of `width` columns.

    Each block is A^H A times the one before, made orthogonal to all: block Golub-Kahan, all vectors kept.
    """
    bases = [orthonormalize(start(P, width, warm, generator))]
    images = [P.times(bases[0])]
    room = P.shape[-1] - width
    for _ in range(blocks - 1):
        if room <= 0:
            break
        known = torch.cat(bases, -1)
        fresh = complement_project(P.adjoint_times(images[-1])[..., :room], known)
        Z = complement_project(orthonormalize(fresh), known)
        bases.append(orthonormalize(Z))
        images.append(P.times(bases[-1]))
        room -= bases[-1].shape[-1]
    return torch.cat(bases, -1), torch.cat(images, -1)


def gram_basis(P: Product, width: int) -> Tensor:
    """Return the leading eigenvectors (..., n, width) of A^H A, formed in double precision."""
    wide = torch.complex128 if P.dtype.is_complex else torch.float64
    if isinstance(P, Dense):
        C = _gram(P.A, wide)
    else:
        n = P.shape[-1]
        C = P.gram_times(torch.eye(n, dtype=P.dtype, device=P.device)).to(wide)
    return dense_eigh(C)[1][..., :width].to(P.dtype)


def _gram(A: Tensor, wide: torch.dtype) -> Tensor:
    """Return A^H A; where the precision is raised, by blocks of rows, which stay in the cache."""
    if A.dtype == wide:
        return A.mH @ A
    C = torch.zeros((*A.shape[:-2], A.shape[-1], A.shape[-1]), dtype=wide, device=A.device)
    for rows in A.split(1024, -2):
        raised = rows.to(wide)
        C += raised.mH @ raised
    return C


def start(P: Product, width: int, warm: Any, generator: torch.Generator | None) -> Tensor:
    """Return columns Z (..., n, width) to start from: warm ones, filled up by random ones, or random."""
    n = P.shape[-1]
    if warm is None:
        return _normal((n, width), P, generator).expand(*P.shape[:-2], n, width)
    Z = as_tensor(warm).detach().to(P.device, P.dtype)
    if Z.ndim < 2 or Z.shape[-2] != n:
        msg = f"warm is {tuple(Z.shape)}; a basis ({n}, k) is needed, one column for each direction"
        raise ShapeError(msg)
    Z = Z[..., :width]
    if Z.shape[-1] < width:
        fill = _normal((n, width - Z.shape[-1]), P, generator).expand(*Z.shape[:-2], -1, -1)
        Z = torch.cat([Z, fill], -1)
    return Z


def _normal(shape: tuple[int, int], P: Product, generator: torch.Generator | None) -> Tensor:
    generator = generator or torch.Generator().manual_seed(SEED)
    single = torch.complex64 if P.dtype.is_complex else torch.float32  # drawn ten times as fast
    X = torch.randn(shape, generator=generator, dtype=single, device=generator.device)
    return X.to(P.device, P.dtype) / shape[0] ** 0.5


def _short(Y: Tensor) -> Tensor:
    """Return R of Y = Q R: the singular values and right singular vectors of Y, in a small matrix."""
    return torch.linalg.qr(Y, mode="r").R if Y.shape[-2] > Y.shape[-1] else Y


def _like(Q: Tensor, A: Any) -> Any:
    """Return Q in the library of A, in its precision."""
    if isinstance(A, Tensor):
        return Q.to(A.dtype)
    dtype = getattr(A, "dtype", None)
    return Q if isinstance(dtype, torch.dtype) or dtype is None else Q.cpu().numpy()


def check_count(name: str, value: Any, most: int | None = None, least: int = 1) -> None:
    """Refuse what is no integer from `least` to `most`."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        need = f"{least} to {most}, which is min(m, n)," if most is not None else f"{least} or more"
        msg = f"got {name}={value!r}; an integer of {need} is needed: {name}={max(least, 1)}"
        raise OptionError(msg)
