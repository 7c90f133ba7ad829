"""From a basis of the range to an SVD: A Z Z^H for orthonormal Z, and what it leaves of A."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from neuralsolve.errors import NonFiniteError, OptionError
from neuralsolve.lowrank.decompositions import dense_svd
from neuralsolve.lowrank.factors import SVD, canonical_signs, smallest_rank
from neuralsolve.lowrank.orthonormal import orthonormalize
from neuralsolve.lowrank.products import Dense, Product
from neuralsolve.lowrank.range_finder import SEED, gram_basis, krylov_basis, subspace_basis

SMALL = 128  # LAPACK is done with such a matrix before anything else has begun
FITS = 2**27  # entries of a matrix that may be formed from its products, 1 GB
FIRST = 32  # columns that the search for a tolerance begins with
PROBES = 10  # random vectors that estimate the norm of what cannot be seen


@dataclass(frozen=True)
class Options:
    """How a range is found; `svd` says what each of them is."""

    oversample: int = 10
    iterations: int | None = None
    warm: Any = None
    generator: torch.Generator | None = None
    precision: torch.dtype | None = None

    def random(self) -> torch.Generator:
        """Return the generator, or one of a fixed seed."""
        return self.generator or torch.Generator().manual_seed(SEED)


def choose(P: Product, rank: int | None, part: float | None, options: Options) -> str:
    """Return the method that is the fastest of those that are accurate enough."""
    p, longest = min(P.shape[-2:]), max(P.shape[-2:])
    if rank is None and part is None:
        return "exact"
    width = (FIRST if rank is None else rank) + options.oversample
    if p <= SMALL or 3 * width >= p:
        return "exact" if isinstance(P, Dense) or p * longest <= FITS else "randomized"
    if isinstance(P, Dense) and p <= 6 * width and longest >= 4 * p:
        return "gram"
    return "randomized"


def in_full(P: Product) -> Dense:
    """Return a matrix formed from its products.

    Raises
    ------
    OptionError
        One of too many entries.
    """
    m, n = P.shape
    if m * n > FITS:
        msg = f"A is {m} x {n}, too large for method='exact'; name a rank: svd(A, rank=50)"
        raise OptionError(msg)
    if n <= m:
        return Dense(P.times(torch.eye(n, dtype=P.dtype, device=P.device)))
    return Dense(P.adjoint_times(torch.eye(m, dtype=P.dtype, device=P.device)).mH)


def magnitude(P: Product) -> Tensor | None:
    """Return by what to divide where squares overflow or underflow; None where all is well."""
    if not isinstance(P, Dense):
        return None
    norm = torch.linalg.matrix_norm(P.A)
    finfo = torch.finfo(norm.dtype)
    well = (norm < finfo.max**0.4) & ((norm > finfo.tiny**0.4) | (norm == 0))
    if bool(well.all()):
        return None
    largest = P.A.abs().amax((-2, -1))
    return torch.where(well, torch.ones_like(largest), largest.clamp_min(finfo.tiny))


def fixed_rank(P: Product, rank: int, method: str, options: Options) -> SVD:
    """Return the SVD of a rank."""
    width = min(rank + options.oversample, min(P.shape[-2:]))
    return _cut(P, _basis(P, width, method, options), rank, method)


def fixed_precision(P: Product, part: float, method: str, options: Options) -> SVD | None:
    """Return the SVD of the smallest rank that loses at most a part of ||A||_F^2, by doubling the basis.

    None where that takes more than a third of all directions, or a part so small that rounding hides it: then
    the exact method is as fast, and sure.
    """
    p, width = min(P.shape[-2:]), FIRST
    total = P.squared_norm()
    fits = P.shape[-1] * P.shape[-2] <= FITS
    hidden = part < 100 * torch.finfo(P.dtype).eps
    if fits and (hidden or method == "gram"):
        return None
    while True:
        found = _cut(P, _basis(P, width, method, options), width, method)
        lost = found.error.double().square()
        whole = lost + found.s.double().square().sum(-1) if total is None else total
        if bool((lost <= part * whole).all()):
            return _within(found, smallest_rank(found.s, part, lost))
        if width == p or (fits and 3 * 2 * width >= p):
            return None if fits else found
        width = min(2 * width, p)
        options = replace(options, warm=found.Vh.mH if P.shape[-2] >= P.shape[-1] else found.U)


def _within(found: SVD, rank: int) -> SVD:
    return found.truncate(rank)


@dataclass(frozen=True)
class Basis:
    """Z (..., n, k), orthonormal, and A Z, where m >= n; of A^H else."""

    tall: Product
    Z: Tensor
    Y: Tensor


def _basis(P: Product, width: int, method: str, options: Options) -> Basis:
    m, n = P.shape[-2:]
    tall = P if m >= n else P.H
    iterations = 2 if options.iterations is None else options.iterations
    generator, warm = options.random(), options.warm
    if warm is not None and m < n:
        warm = P.times(warm)  # to the other side
    if method == "block-krylov":
        return Basis(tall, *krylov_basis(tall, width, iterations + 1, warm, generator))
    if method == "gram":
        Z = gram_basis(tall, width)
    else:
        Z = subspace_basis(tall, width, iterations, warm, generator)
    return Basis(tall, Z, tall.times(Z))


def _cut(P: Product, basis: Basis, rank: int, method: str) -> SVD:
    """Return the leading part of the SVD of A Z Z^H, and how far it is from A."""
    if not bool(torch.isfinite(basis.Y.sum())):
        msg = f"products with A {P.shape} give NaN or infinity; mend its entries, or the operator"
        raise NonFiniteError(msg)
    Q = orthonormalize(basis.Y)
    W, s, Xh = dense_svd(Q.mH @ basis.Y)
    U, s, Vh = Q @ W[..., :rank], s[..., :rank], Xh[..., :rank, :] @ basis.Z.mH
    if basis.tall is not P:
        U, Vh = Vh.mH, U.mH
    U, Vh = canonical_signs(U, Vh)
    return SVD(U, s, Vh, _error(P, U, s, Vh), method)


def _error(P: Product, U: Tensor, s: Tensor, Vh: Tensor) -> Tensor:
    """Return ||A - U diag(s) Vh||_F: by norms, or measured where their difference drowns in rounding."""
    total, kept = P.squared_norm(), s.double().square().sum(-1)
    if total is not None:
        lost = total - kept
        if bool((lost > 100 * torch.finfo(s.dtype).eps * total).all()):
            return lost.sqrt().to(s.dtype)
    scaled = U * s[..., None, :].to(U.dtype)
    if isinstance(P, Dense):
        parts = zip(P.A.split(1024, -2), scaled.split(1024, -2), strict=True)
        squares = [torch.linalg.matrix_norm(rows - left @ Vh).double().square() for rows, left in parts]
        return torch.stack(squares).sum(0).sqrt().to(s.dtype)
    generator = torch.Generator().manual_seed(SEED + 1)
    X = torch.randn((P.shape[-1], PROBES), generator=generator, dtype=P.dtype).to(P.device)
    residual = P.times(X) - scaled @ (Vh @ X)  # E ||R x||^2 = ||R||_F^2
    return torch.linalg.matrix_norm(residual) / PROBES**0.5
