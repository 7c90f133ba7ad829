"""The singular value decomposition under every low-rank method: A = U diag(s) Vh, s descending.

    exact          LAPACK, all singular values, then cut; the one that autograd goes through
    gram           eigenvectors of A^H A in float64, where one side is short
    randomized     subspace iteration from a random start, or a warm one; of large dense matrices on random
                   mixtures of their rows (`condensed`)
    block-krylov   all blocks of that iteration kept: more accurate for as many products with A

All but the first project A to the span of an orthonormal Z, in the smaller of the two spaces: with
A Z = Q R, the SVD of the small R gives that of A Z Z^H. What is left is known exactly from
||A - A Z Z^H||_F^2 = ||A||_F^2 - ||A Z||_F^2; where rounding shows in that, it is measured instead.

Sources: Halko, Martinsson & Tropp, SIAM Review 53 (2011) 217-288; Eckart & Young, Psychometrika 1 (1936):
no matrix of rank r is nearer to A than sum_{j <= r} s_j u_j v_j^H, which misses (sum_{j > r} s_j^2)^(1/2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import OptionError, nearest
from neuralsolve.lowrank.decompositions import dense_singular_values, dense_svd
from neuralsolve.lowrank.factors import (
    SVD,
    canonical_signs,
    check_part,
    effective_rank,
    part_lost,
    rank_for_energy,
    rank_for_tol,
    refuse_masked,
    smallest_rank,
)
from neuralsolve.lowrank.products import HALF, Dense, Product, Sparse, as_tensor, fresh, product
from neuralsolve.lowrank.projection import (
    Options,
    choose,
    condense,
    fixed_precision,
    fixed_rank,
    in_full,
    magnitude,
)
from neuralsolve.lowrank.range_finder import check_count, start
from neuralsolve.lowrank.streams import Rows, single_pass, streamed

METHODS = ("auto", "exact", "randomized", "block-krylov", "gram")
__all__ = [
    "SVD",
    "canonical_signs",
    "effective_rank",
    "rank_for_energy",
    "rank_for_tol",
    "singular_values",
    "svd",
]


def svd(
    A: Any,
    rank: int | None = None,
    *,
    tol: float | None = None,
    energy: float | None = None,
    method: str = "auto",
    oversample: int = 10,
    iterations: int | None = None,
    warm: Any = None,
    generator: torch.Generator | None = None,
    precision: torch.dtype | None = None,
) -> SVD:
    """Return the leading part of the SVD of A.

    Parameters
    ----------
    A : tensor or array (..., m, n), real or complex; SciPy sparse; an operator with `shape`, `dtype`, `@` and
        an adjoint; a callable that returns a fresh iterator over blocks of rows (m_i, n) for each pass; or
        such an iterator, which is read once
    rank : how many singular values; at most one of rank, tol and energy, none of them for all
    tol : the smallest rank with ||A - U diag(s) Vh||_F <= tol ||A||_F
    energy : the smallest rank that keeps this part of ||A||_F^2, in (0, 1]
    method : "auto", by shape and rank, or one of "exact", "randomized", "block-krylov", "gram"
    oversample : columns that the random start has beyond the rank
    iterations : products with A^H A; by default 2, 1 for sparse matrices, operators and streams of more than
        4 million entries; of dense real ones of that size on the CPU, whose rank is far below their sides,
        none where random mixtures of rows do
    warm : a basis (..., n, k) of right singular vectors, `Vh.mH` of a matrix nearby, to start from
    generator : of random numbers; one of a fixed seed by default
    precision : of the products with A^H A that find the range of a dense real A; the last one with A, from
        which s and the error come, is in that of A. By default torch.float32 for A of more than 4 million
        entries, and that of A where such rounding would show in the error; torch.bfloat16 takes two
        iterations or more, lest weak directions be left out

    Returns
    -------
    SVD
        Tensors for tensors, arrays for all else. float16 and bfloat16 are computed in float32: U and Vh are
        given back in the dtype of A, s and error in float32.

    Raises
    ------
    OptionError, ShapeError, NonFiniteError
        A rank above min(m, n), an integer A, a masked or an empty one, NaN; a method that A or autograd does
        not allow.

    Examples
    --------
    >>> A = torch.outer(torch.arange(4.0), torch.ones(3)) + torch.eye(4, 3)
    >>> found = svd(A, rank=1)
    >>> bool(abs(found.error - torch.linalg.svdvals(A)[1:].norm()) < 1e-5)
    True
    >>> svd(A, tol=0.5).rank, svd(A).rank
    (1, 3)
    """
    check_part(rank, tol, energy)
    _check(method, oversample, iterations, generator)
    refuse_masked(A)
    options = Options(oversample, iterations, warm, generator, precision)
    if hasattr(A, "__next__"):
        if method not in ("auto", "randomized"):
            msg = f'an iterator can be read once, and method="{method}" reads more often: pass a callable'
            raise OptionError(msg)
        return _read_once(A, rank, tol, energy, options)
    P = Rows(cast("Callable[[], Iterable[Any]]", A)) if streamed(A) else product(A, check=False)
    if rank is not None:
        check_count("rank", rank, min(P.shape[-2:]))
    part = None if tol is None and energy is None else part_lost(tol, energy)
    found = _found(P, rank, part, method, options)
    return _given_back(found, A)


def singular_values(A: Any) -> Any:
    """Return all singular values (..., min(m, n)) of a tensor or array (..., m, n), descending.

    Raises
    ------
    OptionError, ShapeError, NonFiniteError

    Examples
    --------
    >>> singular_values(np.array([[0.0, 2.0], [-3.0, 0.0]])).round(9).tolist()
    [3.0, 2.0]
    """
    refuse_masked(A)
    P = product(A)
    if not isinstance(P, Dense):
        msg = f"got {type(A).__name__}; all singular values need a dense matrix: singular_values(A.toarray())"
        raise OptionError(msg)
    s = dense_singular_values(P.A)
    return s if isinstance(A, Tensor) else s.numpy()


def _found(P: Product, rank: int | None, part: float | None, method: str, options: Options) -> SVD:
    """Return the SVD by the method asked for, or chosen."""
    p = min(P.shape[-2:])
    traced = isinstance(P, Dense) and P.A.requires_grad and torch.is_grad_enabled()
    if method == "auto":
        method = "exact" if traced else choose(P, rank, part, options)
    if method == "exact":
        P.check()
        return _exact(P, p if rank is None else rank, part)
    if traced:
        msg = f'method="{method}" is no function of A to autograd; method="exact" is, or pass A.detach()'
        raise OptionError(msg)
    with torch.no_grad():
        small = condense(P, rank, method, options)  # before the norm, which comes with it
        scale = magnitude(P)
        if isinstance(P, Dense) and scale is not None:
            found = _found(Dense(P.A / scale[..., None, None]), rank, part, method, options)
            return SVD(found.U, found.s * scale[..., None], found.Vh, found.error * scale, found.method)
        inner = P.compact() if isinstance(P, Sparse) else None
        if (
            isinstance(P, Sparse)
            and inner is not None
            and min(inner[0].shape) > options.oversample + (rank or 0)
        ):
            return _spread(P, inner, rank, part, method, options)
        if part is None:
            return fixed_rank(P, p if rank is None else rank, method, options, small)
        return fixed_precision(P, part, method, options) or _exact(P, p, part)


def _spread(
    P: Sparse,
    inner: tuple[Sparse, np.ndarray, np.ndarray],
    rank: int | None,
    part: float | None,
    method: str,
    options: Options,
) -> SVD:
    """Return the SVD from that of A without empty rows and columns, where singular vectors are zero."""
    small, rows, columns = inner
    if options.warm is not None:
        warm = start(P, as_tensor(options.warm).shape[-1], options.warm, None)
        options = replace(options, warm=warm[columns])
    found = _found(small, rank, part, method, options)
    U = fresh((P.shape[0], found.rank), found.U).zero_()
    Vh = fresh((found.rank, P.shape[1]), found.Vh).zero_()
    U[torch.from_numpy(rows)], Vh[:, torch.from_numpy(columns)] = found.U, found.Vh
    return SVD(U, found.s, Vh, found.error, found.method)


def _exact(P: Product, rank: int, part: float | None) -> SVD:
    matrix = P if isinstance(P, Dense) else in_full(P)
    U, s, Vh = dense_svd(matrix.A)
    if part is not None:
        rank = smallest_rank(s, part)
    wide = s.detach().double()
    scale = torch.where(wide[..., :1] > 0, wide[..., :1], 1.0)  # squares of 1e-170 are zero
    error = (torch.linalg.vector_norm(wide[..., rank:] / scale, dim=-1) * scale[..., 0]).to(s.dtype)
    U, Vh = canonical_signs(U[..., :rank], Vh[..., :rank, :])
    return SVD(U, s[..., :rank], Vh, error, "exact")


def _read_once(A: Any, rank: int | None, tol: float | None, energy: float | None, options: Options) -> SVD:
    """Return the SVD from the only look at a stream."""
    if rank is None:
        msg = "an iterator can be read once, and a tolerance takes more: name a rank, or pass a callable"
        raise OptionError(msg)
    check_count("rank", rank)
    first = next(A, None)
    blocks = chain(() if first is None else (first,), A)
    Q, B, squares = single_pass(blocks, rank + options.oversample, options.random())
    W, s, Vh = dense_svd(B)
    check_count("rank", rank, min(len(Q), B.shape[1]))
    if rank > len(s):
        msg = f"one look at the rows tells {len(s)} directions, rank={rank} is asked for; pass a callable"
        raise OptionError(msg)
    kept = s[:rank].double().square().sum()
    error = (squares - kept).clamp_min(torch.finfo(s.dtype).eps * squares).sqrt().to(s.dtype)
    U, Vh = canonical_signs((Q @ W)[:, :rank], Vh[:rank])
    return _given_back(SVD(U, s[:rank], Vh, error, "single-pass"), first)


def _given_back(found: SVD, A: Any) -> SVD:
    """Return the parts in the library and the precision of A."""
    if isinstance(A, Tensor):
        if A.dtype not in HALF:
            return found
        return SVD(found.U.to(A.dtype), found.s, found.Vh.to(A.dtype), found.error, found.method)
    if isinstance(getattr(A, "dtype", None), torch.dtype):
        return found
    U, s, Vh, error = (part.numpy(force=True) for part in (found.U, found.s, found.Vh, found.error))
    if getattr(A, "dtype", None) == np.float16:
        U, Vh = U.astype(np.float16), Vh.astype(np.float16)
    return SVD(U, s, Vh, error, found.method)


def _check(method: str, oversample: int, iterations: int | None, generator: object) -> None:
    if method not in METHODS:
        msg = f"got method={method!r}{nearest(str(method), METHODS)}"
        raise OptionError(msg)
    check_count("oversample", oversample, least=0)
    if iterations is not None:
        check_count("iterations", iterations, least=0)
    if generator is not None and not isinstance(generator, torch.Generator):
        msg = f"got generator={generator!r:.60}; torch.Generator().manual_seed(7) is needed, or None"
        raise OptionError(msg)
