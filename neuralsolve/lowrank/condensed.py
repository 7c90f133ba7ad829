"""A large dense matrix condensed to few rows, B = S A, with nearly the same leading right singular vectors.

S mixes all rows at random (`kernels.reference.mixing`), in one pass over A that takes ||A||_F^2 along. With l
rows, all projections P of rank r have ||B - B P||_F^2 = (1 +- O((r/l)^(1/2))) ||A - A P||_F^2, up to the same
constant (Cohen, Elder, Musco, Musco & Persu, Dimensionality reduction for k-means clustering and low rank
approximation, STOC 2015, 163-172), so that the best one for B is nearly so for A. What is left to errors is
rather less: l independent mixtures of a tail of the squared norm t turn r vectors until the squared error is
about (1 + r/l) t, and B itself shows (1 - r/l) t.

The range of B is found by subspace iteration from mixtures of its own rows. Afterwards A is multiplied once,
and its error is known exactly; `trusted` tells whether it is as expected, whatever S did to A.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from neuralsolve.kernels import table
from neuralsolve.lowrank.factors import SVD
from neuralsolve.lowrank.orthonormal import orthonormalize
from neuralsolve.lowrank.products import LARGE, Dense, fresh
from neuralsolve.lowrank.sketch import distinct
from neuralsolve.lowrank.tall import tall_svd

MIXTURES = 12  # rows of B for each column of the basis, or fewer,
ENOUGH = 10  # but no fewer than these,
LEAST = 200  # mixtures in any case: of fewer too many meet
SAVED = 3  # and so many rows of A for each of them, or the detour does not pay
EXPECTED = (0.83, 1.1)  # the squared error over what is expected, where all went well
RANGE = 1e15  # of norms whose float32 squares are normal numbers
GROUP = LANES = 8  # rows that are mixed together, columns that are not


@dataclass(frozen=True)
class Condensed:
    """B (l, n) float32 = S A; `matrix` is A, or A^H where that has its rows in memory one after the other."""

    matrix: Dense
    B: Tensor

    def basis(self, rank: int, width: int, generator: torch.Generator) -> tuple[Tensor, float]:
        """Return Z (n, width), orthonormal, of leading right singular vectors, and ||B - B_rank||_F^2.

        Left ones are those of C = B T^T, which has few columns, mixtures of those of B, by subspace iteration
        from mixtures of its rows; the projection of B to them gives the right ones.
        """
        B = self.B
        C, squares = _columns_mixed(B, max(len(B) // 2, LEAST), generator)
        start, _ = _rows_mixed(C, width + GROUP, generator)
        X = _orthonormal(C.mT @ (C @ _orthonormal(start.mT)))
        Q = _orthonormal(C @ X)
        Z, s, _ = tall_svd((Q.mT @ B).mT.double(), width, self.matrix.dtype)
        return Z.to(self.matrix.dtype), squares - float(s[:rank].square().sum())

    def trusted(self, found: SVD, tail: float) -> bool:
        """Whether the error of A is about what B has shown, and that no product of rounding.

        An error that is smaller tells of left vectors that were not those of B, and of a tail that they
        left too large: it may be far from the smallest.
        """
        part = found.rank / len(self.B)
        rounding = 100 * torch.finfo(self.B.dtype).eps * float(self.matrix.squared_norm())
        expected = (1 + part) / (1 - part) * (tail - rounding)
        least, most = EXPECTED
        return least * expected <= float(found.error) ** 2 <= most * expected


def condensed(P: Dense, width: int, generator: torch.Generator) -> Condensed | None:
    """Condense A for a basis of so many columns, and note its norm.

    None where that does not pay, or A is no single real matrix on the CPU, of a norm that float32 can hold.
    Where neither its rows nor its columns lie in memory one after the other, they are copied so that they do,
    which takes less time than a product; where none of them is read in one go, in any case.
    """
    A = P.A.detach()
    if A.ndim != 2 or A.numel() < LARGE or A.device.type != "cpu" or A.is_complex():
        return None
    across = not A.is_contiguous() and A.stride(0) < A.stride(1)
    lines = A.mT if across else A
    rows = min(max(MIXTURES * width, LEAST), len(lines) // SAVED)
    pays = min(rows, lines.shape[1]) >= max(ENOUGH * width, LEAST)
    if not lines.is_contiguous() and (pays or 1 not in A.stride()):  # BLAS would copy it for each product
        lines = lines.contiguous()
        P.A = lines.mT if across else lines
    if not pays:
        return None
    B, squares = _rows_mixed(lines, rows, generator)
    P.squares = torch.tensor(squares, dtype=torch.float64)
    return Condensed(cast("Dense", P.H) if across else P, B) if 1 / RANGE < squares**0.5 < RANGE else None


def _orthonormal(X: Tensor) -> Tensor:
    """Return an orthonormal basis of columns, by double precision, which serves worse conditioned ones."""
    return orthonormalize(X.double()).to(X.dtype)


def _rows_mixed(A: Tensor, rows: int, generator: torch.Generator) -> tuple[Tensor, float]:
    """Return S A (rows, n) for a random S, and ||A||_F^2."""
    out = fresh((rows, A.shape[1]), torch.empty(0))
    drawn = _signs(len(A), generator), _places(len(A), rows, generator)
    return out, table("cpu").hadamard_sketch(A, *drawn, out)


def _columns_mixed(B: Tensor, columns: int, generator: torch.Generator) -> tuple[Tensor, float]:
    """Return B T^T (l, columns), or up to seven columns more, for a random T, and ||B||_F^2."""
    n, each = B.shape[1], -(-columns // LANES)
    out = fresh((len(B), LANES * each), B)
    drawn = _signs(n, generator), _places(-(-n // LANES), each, generator)
    return out, table("cpu").hadamard_sketch_columns(B, *drawn, out)


def _signs(count: int, generator: torch.Generator) -> Tensor:
    heads = torch.randint(2, (count,), generator=generator, device=generator.device)
    return 2.0 * heads.float().cpu() - 1


def _places(count: int, mixtures: int, generator: torch.Generator) -> Tensor:
    """Return to which mixtures each eight of so many rows is added, (ceil(count/8), 8)."""
    return distinct(GROUP, mixtures, -(-count // GROUP), generator).mT.contiguous().cpu()
