"""From a basis of the range to an SVD: A Z Z^H for orthonormal Z, and what it leaves of A."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from neuralsolve.errors import NonFiniteError, OptionError
from neuralsolve.lowrank.condensed import Condensed, condensed
from neuralsolve.lowrank.factors import SVD, phases, smallest_rank
from neuralsolve.lowrank.products import LARGE, Coarse, Dense, Product, Sparse, as_tensor, squares_of_each
from neuralsolve.lowrank.range_finder import SEED, gram_basis, krylov_basis, subspace_basis
from neuralsolve.lowrank.tall import tall_svd

SMALL = 128  # LAPACK is done with such a matrix before anything else has begun
FITS = 2**27  # entries of a matrix that may be formed from its products, 1 GB
FIRST = 32  # columns that the search for a tolerance begins with
CERTAIN = {torch.float64: 1e-8, torch.float32: 3e-4}  # parts of ||A||_F^2 that rounding changes little
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
    norm, finfo = P.squares.sqrt(), torch.finfo(P.dtype)
    well = (norm < finfo.max**0.4) & (norm > finfo.tiny**0.4)
    if bool(well.all()):
        return None
    largest = P.A.abs().amax((-2, -1))
    well |= largest == 0
    return None if bool(well.all()) else torch.where(well, torch.ones_like(largest), largest)


def condense(P: Product, rank: int | None, method: str, options: Options) -> Condensed | None:
    """Return A condensed, and its norm noted, where that finds the range of it; None elsewhere."""
    asked = (options.iterations, options.warm, options.precision)
    if rank is None or method != "randomized" or any(option is not None for option in asked):
        return None
    if not isinstance(P, Dense):
        return None
    return condensed(P, _kept(rank, options), options.random())


def _kept(rank: int, options: Options) -> int:
    """Return the columns of a basis whose product with A costs more than all before: few, by eights."""
    return -(-(rank + options.oversample // 3) // 8) * 8


def fixed_rank(P: Product, rank: int, method: str, options: Options, small: Condensed | None = None) -> SVD:
    """Return the SVD of a rank; the range is found from A condensed where that is given."""
    width = min(rank + options.oversample, min(P.shape[-2:]))
    if small is not None:
        Z, tail = small.basis(rank, _kept(rank, options), options.random())
        found = _cut(P, Basis(small.matrix, Z, small.matrix.times(Z)), rank, method)
        fine = small.trusted(found, tail)
    else:
        coarse = lowered(P, options.precision) if method == "randomized" else None
        found = _cut(P, _basis(P, width, method, options, coarse), rank, method)
        fine = coarse is None or not _hidden(found, P, coarse)
    if fine:
        return found
    again = replace(options, warm=right_of(found), iterations=1)
    return _cut(P, _basis(P, width, method, again, None), rank, method)


def fixed_precision(P: Product, part: float, method: str, options: Options) -> SVD | None:
    """Return the SVD of the smallest rank that loses at most a part of ||A||_F^2, by doubling the basis.

    None where that takes more than a third of all directions, or a part so small that rounding hides it: then
    the exact method is as fast, and sure.
    """
    p = min(P.shape[-2:])
    width = p if method == "gram" else min(FIRST, p)
    total = P.squared_norm()
    fits = P.shape[-1] * P.shape[-2] <= FITS
    hidden = part < 100 * torch.finfo(P.dtype).eps
    if fits and hidden:
        return None
    while True:
        found = _cut(P, _basis(P, width, method, options, None), width, method)
        lost = found.error.double().square()
        whole = lost + found.s.double().square().sum(-1) if total is None else total
        if bool((lost <= part * whole).all()):
            return found.truncate(smallest_rank(found.s, part, lost))
        if width == p or (fits and 3 * 2 * width >= p):
            return None if fits else found
        width = min(2 * width, p)
        options = replace(options, warm=right_of(found))


def right_of(found: SVD) -> Tensor:
    """Return the right singular vectors as columns."""
    return found.Vh.mH


def lowered(P: Product, precision: torch.dtype | None) -> torch.dtype | None:
    """Return the precision in which the range is found, None for that of A.

    By default float32 of a large real A in float64. No less: one iteration in bfloat16 leaves
    directions out that are a 60th of the largest, and the error may be half as large again.
    """
    if precision is not None:
        if not (isinstance(P, Dense) and precision.is_floating_point and not P.dtype.is_complex):
            msg = f"got precision={precision}; a real dtype and a real dense A are needed: torch.float32"
            raise OptionError(msg)
        return precision
    if isinstance(P, Sparse):
        return torch.float32 if P.dtype == torch.float64 and P.csr.nnz >= LARGE // 32 else None
    large = isinstance(P, Dense) and P.A.ndim == 2 and P.A.numel() >= LARGE
    return torch.float32 if large and P.dtype == torch.float64 else None


def _hidden(found: SVD, P: Product, coarse: torch.dtype) -> bool:
    """Whether rounding to the coarse precision adds more than a hundredth to the squared error.

    Independent rounding errors e ||A||_F/(mn)^(1/2) of the entries are a matrix of the norm
    e ||A||_F (m^(-1/2) + n^(-1/2)). It turns each of r singular vectors, by which at most the squares of all
    of these turns, r e^2 ||A||_F^2 (m^(-1/2) + n^(-1/2))^2, are lost. Where the
    entries of a sparse matrix are crowded the norm may be e ||A||_F, and no larger.
    """
    m, n = (1, 1) if isinstance(P, Sparse) else P.shape[-2:]
    e = torch.finfo(coarse).eps / 3**0.5
    lost = found.error.double().square()
    total = lost + found.s.double().square().sum(-1)
    return bool((100 * found.rank * (e * (m**-0.5 + n**-0.5)) ** 2 * total > lost).any())


@dataclass(frozen=True)
class Basis:
    """Z (..., n, k), orthonormal, and A Z, where m >= n; of A^H else."""

    tall: Product
    Z: Tensor
    Y: Tensor


def _basis(P: Product, width: int, method: str, options: Options, coarse: torch.dtype | None) -> Basis:
    m, n = P.shape[-2:]
    tall = P if m >= n else P.H
    generator, warm = options.random(), options.warm
    iterations = options.iterations
    if iterations is None:
        iterations = 2 if isinstance(P, Dense) or math.prod(P.shape[-2:]) < LARGE else 1
    if warm is not None and m < n:
        warm = P.times(as_tensor(warm).to(P.device, P.dtype))  # to the other side
    if method == "block-krylov":
        return Basis(tall, *krylov_basis(tall, width, iterations + 1, warm, generator))
    if method == "gram":
        Z = gram_basis(tall, width)
    elif coarse is not None:  # the last product costs more than all others
        more, keep = min(width + options.oversample, min(m, n)), width - 2 * options.oversample // 3
        Z = subspace_basis(_rounded(tall, coarse), more, iterations, warm, generator, keep)
    else:
        Z = subspace_basis(tall, width, iterations, warm, generator)
    return Basis(tall, Z, tall.times(Z))


def _rounded(P: Product, precision: torch.dtype) -> Product:
    """Return A in a lower precision, for A^H A X."""
    if isinstance(P, Dense):
        return Coarse(P, precision)
    if isinstance(P, Sparse):
        return P.rounded(precision)
    return _rounded(P.H, precision).H


def _cut(P: Product, basis: Basis, rank: int, method: str) -> SVD:
    """Return the leading part of the SVD of A Z Z^H, and how far it is from A."""
    if not bool(torch.isfinite(basis.Y.sum())):
        msg = f"products with A {P.shape} give NaN or infinity; mend its entries, or the operator"
        raise NonFiniteError(msg)
    U, s, X = tall_svd(basis.Y, rank)
    Vh = X.mH @ basis.Z.mH
    if basis.tall is not P:
        U, Vh = Vh.mH.resolve_conj(), U.mH.resolve_conj()
    phase = phases(U)
    U, Vh = U.mul_(phase), Vh.mul_(phase.conj().mT)  # both are new, and large
    return SVD(U, s, Vh, _error(P, U, s, Vh), method)


def _error(P: Product, U: Tensor, s: Tensor, Vh: Tensor) -> Tensor:
    """Return ||A - U diag(s) Vh||_F: by norms, or measured where rounding shows in their difference.

    Operators, sparse matrices and streams, of which ten random vectors tell it, to a fifth or so, are left
    to norms as long as that is the more accurate.
    """
    total, kept = P.squared_norm(), s.double().square().sum(-1)
    if total is not None:
        lost = total - kept
        doubtful = CERTAIN[s.dtype] if isinstance(P, Dense) else 100 * torch.finfo(s.dtype).eps
        if bool((lost > doubtful * total).all()):
            return lost.sqrt().to(s.dtype)
    scaled = U * s[..., None, :].to(U.dtype)
    if isinstance(P, Dense):
        parts = zip(P.A.split(1024, -2), scaled.split(1024, -2), strict=True)
        squares = [squares_of_each(rows - left @ Vh) for rows, left in parts]
        return torch.stack(squares).sum(0).sqrt().to(s.dtype)
    generator = torch.Generator().manual_seed(SEED + 1)
    X = torch.randn((P.shape[-1], PROBES), generator=generator, dtype=P.dtype).to(P.device)
    residual = P.times(X) - scaled @ (Vh @ X)  # E ||R x||^2 = ||R||_F^2
    return torch.linalg.matrix_norm(residual) / PROBES**0.5
