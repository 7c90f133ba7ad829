"""Algebraic multigrid by smoothed aggregation, set-up and cycle on the package's own kernels.

Problem: A symmetric positive (semi-)definite, its slow errors nearly constant over strongly coupled rows.
Each level cuts its rows into aggregates, smooths their indicator vectors into P and has P^T A P below it
(Vanek, Mandel and Brezina, Computing 56, 1996); the definitions of the kernels,
`neuralsolve.kernels.reference`, files aggregation and blocks, hold the equations. M r is one V-cycle from
zero,

    x = B^-1 r;   y = x + P M_c P^T (r - A x);   M r = y + B^-T (r - A y)

with B = D + L: Gauss-Seidel within blocks of rows, Jacobi between them, D enlarged where blocks are coupled
so much that it has to be. Both sweeps contract in the A-norm for every SPD A, so 0 < lambda(M A) <= 1
whatever the signs of the couplings, without an estimate of an eigenvalue. A bad fit costs iterations, never
definiteness.

Cost: the set-up is worth some hundred products with A, a cycle about four. Matrices are formed in float64 and
cycled over in float32, half the memory traffic, with r scaled to a norm of 1/2 to 1; in float64 where the
diagonals or the coarsest matrix span too much for float32. The blocks depend on A alone, not on the machine;
so does M.

Differences from the source: W = omega / (row sums of |A_F|) smooths the aggregates in place of a multiple of
D^-1; strength is relative to the largest couplings, not to the diagonal, so that no row is left out for
having many; rows without any strong coupling are relaxed only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from neuralsolve.errors import StructureError
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator, output_like
from neuralsolve.preconditioners.base import Preconditioner
from neuralsolve.preconditioners.coarsening import DENSE_LIMIT, ROUNDING, Rows, pseudo_inverse
from neuralsolve.preconditioners.matrix import divisors, matrix_of
from neuralsolve.preconditioners.polynomial_cycle import Ladder, PolynomialCycle

THETA = 0.25  # a coupling is strong from this share of the geometric mean of its rows' largest
OMEGA = 1.6  # 4/3 to 2 serve alike; half of it is the usual damping where rows sum to zero
LONG, LONG_MEANS = 200, 10  # entries, and multiples of the mean: longer rows are not smoothed
SMOOTHING_STEPS = 2  # of a polynomial, on devices, before the correction and after it
BLOCKS = 8  # of rows, for large matrices: as many threads can work on a sweep
SMALL = 250_000  # entries below which one block, plain Gauss-Seidel, is as fast
MOST = 2**29  # entries: filled with zeros their number must fit 31 bits
SPAN = 1e-20  # of diagonal entries, below which float32 is too narrow
CONDITION = 1e-9  # of the coarsest matrix, below which float32 is too coarse
SINGULAR_CUTOFF = 1e-10  # of the terms of the coarsest matrix of a singular A, and
CUTOFF = 1e-12  # of one not known to be: an eigenvalue below it is taken for their rounding


@dataclass
class Coarsening:
    """One level while it is set up: A, its aggregates, P and P^T; without aggregates it is the last one."""

    A: Rows
    diagonal: Tensor
    labels: Tensor
    count: int = 0
    P: Rows | None = None
    R: Rows | None = None


class Level:
    """One level as the cycle needs it: L, E and 1 / D of its blocks, P and P^T, and room for vectors."""

    def __init__(self, made: Coarsening, factor: float, dtype: torch.dtype):
        indptr, entries = made.A[0], len(made.A[2])
        blocks = BLOCKS if entries > SMALL else 1
        equal = torch.linspace(0, entries, blocks + 1, dtype=torch.float64).to(indptr.dtype)
        self.starts = torch.searchsorted(indptr, equal)  # of equal work
        self.starts[-1] = self.n = len(indptr) - 1
        parts = table("cpu").csr_block_split(*made.A, self.starts, factor, dtype)
        self.lower, self.rest, self.divisor, self.inverse = parts[:3], parts[3:6], parts[6], parts[7]
        self.count, self.dtype, self.P, self.R = made.count, dtype, None, None
        if made.P is not None and made.R is not None:
            self.P = table("cpu").csr_padded(*made.P, dtype)
            self.R = made.R[0], made.R[1], made.R[2].to(dtype)
        self.room: tuple[Tensor, ...] = ()

    def vectors(self, tail: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Return room for b, x twice and a residual here, b one level down, kept from call to call."""
        if not self.room or self.room[0].shape[1:] != tail:
            sizes = (self.n, 2 * self.n, self.n, self.count)
            self.room = tuple(torch.empty((size, *tail), dtype=self.dtype) for size in sizes)
        return self.room


class SmoothedAggregation(Preconditioner):
    """M of `AMG("aggregation")`."""

    symmetric = True

    def __init__(
        self, A: LinearOperator, near_null_space: np.ndarray | None, max_coarse: int, max_levels: int
    ):
        self.near, self.max_coarse, self.max_levels = near_null_space, max_coarse, max_levels
        self.pattern: tuple[Tensor, Tensor] | None = None
        self.labels: list[tuple[Tensor, int]] = []
        self.update(A)

    def update(self, A_next: LinearOperator) -> None:
        """Follow A to new values; the aggregates stay where the pattern does."""
        self._A = A_next
        A, self.weights = self._rows(A_next)
        if self.pattern is not None and not all(
            torch.equal(old, new) for old, new in zip(self.pattern, A[:2], strict=True)
        ):
            self.labels = []
        self.pattern = A[:2]
        made = self._coarsen(A, A_next)
        self.labels = [(level.labels, level.count) for level in made]
        self.sizes = [len(level.A[2]) for level in made]
        inverse, doubt = self._invert(made, A_next.null_space is not None)
        diagonal = made[0].diagonal.numpy()
        largest = float(diagonal.max(initial=0.0))
        smallest = float(diagonal.min(where=diagonal > 0, initial=largest))
        self.factor = 2.0 ** -np.frexp(largest)[1]
        self.dtype = torch.float64 if doubt or smallest < SPAN * largest else torch.float32
        self.inverse = None if inverse is None else (inverse / self.factor).to(self.dtype)
        if inverse is not None:
            made = made[:-1]
        self.levels = [Level(level, self.factor, self.dtype) for level in made]

    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        out = output_like(r, len(r), out)
        K = table(r.device)
        weighted = r if self.weights is None else r * self._weights_like(r)
        scale = _towards_one(K.dot(weighted, weighted))
        b = (
            self.levels[0].vectors(tuple(r.shape[1:]))[0]
            if self.levels
            else torch.empty(r.shape, dtype=self.dtype)
        )
        K.scaled_copy(scale, weighted, b)
        K.scaled_copy(self.factor / scale, self._cycle(0, b), out)
        return out if self.weights is None else out.mul_(self._weights_like(r))

    def to(self, device: torch.device) -> Preconditioner:
        if device.type == "cpu" or self.weights is not None:
            return super().to(device)
        made = self._coarsen(
            self._rows(self._A)[0], self._A
        )  # what the CPU cycles over is laid out otherwise
        levels = [(level.A, level.P, level.R) for level in made if level.P is not None]
        inverse = None if self.inverse is None else self.inverse.double() * self.factor
        return PolynomialCycle(
            Ladder(levels, made[-1].A, inverse),  # type: ignore[arg-type]
            SMOOTHING_STEPS,
            False,
            device,
            self.dtype,
            self.describe(),
        )

    def describe(self) -> str:
        complexity = sum(self.sizes) / max(1, self.sizes[0])
        words = [f"AMG (aggregation): {len(self.sizes)} levels, operator complexity {complexity:.2f}"]
        if self.dtype == torch.float64:
            words.append("in float64 because of A's condition")
        if self.inverse is None and len(self.levels) == self.max_levels:
            words.append(f"coarsening stopped at {self.levels[-1].n} rows, which are relaxed only")
        return ", ".join(words)

    def _cycle(self, depth: int, b: Tensor) -> Tensor:
        """Return what one V-cycle makes of b from zero, in room that the next call overwrites."""
        if depth == len(self.levels):
            assert self.inverse is not None
            return self.inverse @ b
        K, level = table(b.device), self.levels[depth]
        _, x, residual, coarse_b = level.vectors(tuple(b.shape[1:]))
        K.csr_block_forward(*level.lower, level.inverse, level.starts, b, x)
        if level.P is not None and level.R is not None:
            K.csr_block_residual(*level.rest, level.divisor, x, residual)
            K.csr_matvec(*level.R, residual, coarse_b)
            K.csr_block_correct(*level.P, self._cycle(depth + 1, coarse_b), x)
        K.csr_block_backward(*level.lower, *level.rest, level.inverse, level.starts, b, x)
        return x[: level.n]

    def _weights_like(self, r: Tensor) -> Tensor:
        return self.weights if r.ndim == 1 else self.weights[:, None]  # type: ignore[index]

    def _coarsen(self, A: Rows, operator: LinearOperator) -> list[Coarsening]:
        """Return the levels, the last one without aggregates."""
        K, known, made = table("cpu"), iter(self.labels), []
        while True:
            n = len(A[0]) - 1
            diagonal, scale = torch.empty(n, dtype=torch.float64), torch.empty(n, dtype=torch.float64)
            K.csr_row_sizes(*A, diagonal, scale)
            if not made:
                _check_diagonal(diagonal, operator)
            labels, count = next(known, (None, -1))
            if n <= self.max_coarse or len(made) + 1 >= self.max_levels:
                labels, count = torch.full((n,), -1, dtype=torch.int32), 0
            elif labels is None:
                labels = torch.empty(n, dtype=torch.int32)
                count = K.csr_aggregate(*A, scale, THETA, labels)
            made.append(Coarsening(A, diagonal, labels, count))
            if count == 0:
                return made
            longest = max(LONG, LONG_MEANS * len(A[2]) // n)
            P = K.csr_smoothed_aggregates(*A, scale, THETA, OMEGA, labels, count, longest)
            R = K.csr_transpose(*P, count)
            made[-1].P, made[-1].R = P, R
            A = K.csr_galerkin(*A, diagonal, *P, *R, ROUNDING)

    def _invert(self, made: list[Coarsening], singular: bool) -> tuple[Tensor | None, bool]:
        """Return the pseudo-inverse of the last matrix, and whether float32 is in doubt for it."""
        indptr, indices, values = (part.numpy() for part in made[-1].A)
        n = len(indptr) - 1
        uncoupled = n > self.max_coarse and len(made) < self.max_levels  # relaxation alone is exact
        if uncoupled or n > DENSE_LIMIT:
            return None, False
        terms = float(np.abs(values).max(initial=0.0))  # which cancel in the last matrix of a singular A
        if len(made) > 1 and made[-2].R is not None:
            starts, rows, weights = made[-2].R
            sums = torch.zeros(n, dtype=torch.float64)
            above = made[-2].diagonal[rows.long()] * weights.double().square()
            sums.index_add_(0, torch.repeat_interleave(torch.arange(n), torch.diff(starts)), above)
            terms = float(sums.max())
        S = scipy.sparse.csr_array((values, indices, indptr), shape=(n, n))
        inverse = pseudo_inverse(S, True, (SINGULAR_CUTOFF if singular else CUTOFF) * terms)
        if inverse is None:
            return None, False
        empty = made[-1].diagonal == 0
        inverse[empty], inverse[:, empty] = 0.0, 0.0  # exactly
        return inverse, float(inverse.norm()) * terms * CONDITION > 1

    def _rows(self, A: LinearOperator) -> tuple[Rows, Tensor | None]:
        """Return the rows of V A V, and V where the near null space is not made of constants."""
        if not A.symmetric:
            msg = (
                f"AMG(kind='aggregation') needs a symmetric A, A declares {sorted(A.props)}; if you know it "
                "is, pass ns.as_operator(A, props={'spd'}), otherwise use ns.AMG('rs') or ns.IncompleteLU()"
            )
            raise StructureError(msg)
        rows = matrix_of(A, "AMG")
        if len(rows.values) > MOST:
            msg = (
                f"AMG(kind='aggregation') takes up to {MOST} entries, A has {len(rows.values)}; use "
                "ns.CG() with M=ns.Jacobi()"
            )
            raise StructureError(msg)
        indptr, indices = rows.indptr.to(torch.int32), rows.indices.to(torch.int32)
        values, near = rows.values.detach(), self._near(A)
        if near is not None:
            values = values * near[rows.rows()] * near[indices.long()]
        return (indptr, indices, values), near

    def _near(self, A: LinearOperator) -> Tensor | None:
        near = self.near
        if near is None and A.null_space is not None and A.null_space.basis is not None:
            near = A.null_space.basis.numpy()
        if near is None:
            return None
        if near.shape[1] != 1 or not near.all():
            msg = (
                f"AMG(kind='aggregation') takes one near-null-space vector without zeros, given "
                f"{near.shape[1]} with {int((near == 0).sum())} zeros; use ns.AMG('sa', near_null_space=...)"
            )
            raise StructureError(msg)
        return torch.from_numpy(np.ascontiguousarray(near[:, 0]))


def _towards_one(squares: Tensor) -> Tensor | float:
    """Return the power of two that brings each norm, of which the squares are given, to 1/2 to 1."""
    if squares.ndim == 0:
        return 2.0 ** -math.frexp(math.sqrt(float(squares)))[1]
    exponent = torch.frexp(squares.double().sqrt())[1]
    return torch.ldexp(torch.ones_like(exponent, dtype=torch.float64), -exponent)


def _check_diagonal(diagonal: Tensor, A: LinearOperator) -> None:
    """Refuse a diagonal entry that is negative, or zero in a row that is not."""
    d = diagonal.numpy()
    smallest = float(d.min(initial=1.0))
    if smallest < 0:
        msg = (
            f"AMG(kind='aggregation') needs a positive diagonal, and {int((d < 0).sum())} entries of A's are "
            "negative; if A is negative definite solve with -A, otherwise use ns.MINRES() without M"
        )
        raise StructureError(msg)
    if smallest == 0:
        divisors(A, "AMG")
