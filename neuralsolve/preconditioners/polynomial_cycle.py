"""Algebraic multigrid without sequential sweeps, for devices: levels of `AMG`, smoothed by polynomials.

Sweeps of Gauss-Seidel, by which `AMG` smooths on the CPU, go row by row. Here a level takes steps of
Chebyshev's iteration on D^-1 A instead, products alone:

    d <- m_k d + w_k D^-1 (b - A x),   x <- x + d

with the same steps before and after the correction from below, so that M is symmetric. They contract in the
A-norm up to the largest eigenvalue of D^-1 A, which is estimated by power iteration, enlarged by a tenth and
cut at Gershgorin's bound; then M is positive definite. Levels, P and the inverse of the coarsest matrix are
those that the CPU uses. Cost of a V-cycle: 2 s - 1 products on every level besides the residual, P and P^T.

Source: Adams, Brezina, Hu and Tuminaro, Parallel multigrid smoothing, J. Comput. Phys. 188 (2003) 593-610.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator, output_like
from neuralsolve.preconditioners.base import Preconditioner
from neuralsolve.preconditioners.chebyshev import Steps, chebyshev_steps
from neuralsolve.preconditioners.coarsening import Rows

BAND = 8.0  # largest over smallest eigenvalue that a smoother damps
POWER_STEPS, ENLARGED = 15, 1.1
ALONE = 16  # steps on a coarsest level that is too large for its inverse


@dataclass
class Ladder:
    """Levels on the CPU: (A, P, P^T) of each, the coarsest A and its pseudo-inverse, None where too large."""

    levels: Sequence[tuple[Rows, Rows, Rows]]
    coarsest: Rows
    inverse: Tensor | None


class _Level:
    """A level on the device: A, 1/D, its steps, P and P^T."""

    def __init__(
        self, A: Rows, P: Rows | None, R: Rows | None, steps: int, device: torch.device, dtype: torch.dtype
    ):
        n = len(A[0]) - 1
        S = scipy.sparse.csr_array((A[2].numpy(), A[1].numpy(), A[0].numpy()), shape=(n, n))
        d = S.diagonal()
        inverse = np.divide(1.0, d, out=np.zeros_like(d), where=d != 0)
        self.steps: Steps = chebyshev_steps(_largest(S, inverse), BAND, steps)
        self.A, self.P, self.R = (None if part is None else _moved(part, device, dtype) for part in (A, P, R))
        self.inverse = torch.from_numpy(inverse).to(device, dtype)
        self.n, self.coarse = n, 0 if R is None else len(R[0]) - 1

    def vectors(self, like: Tensor) -> tuple[Tensor, ...]:
        """Return room for x, d and b - A x here, and b one level down; new: a graph may know the last."""
        return tuple(like.new_empty((size, *like.shape[1:])) for size in (self.n,) * 3 + (self.coarse,))


class PolynomialCycle(Preconditioner):
    """A V- or W-cycle from zero on a device.

    Parameters
    ----------
    ladder : made on the CPU
    steps : of the smoother before the correction, and after it
    twice : W-cycle
    dtype : of the cycle; with float32 r is scaled to a norm near one
    words : of the preconditioner whose levels these are
    kept : (m,) the rows of A that the levels are of, None for all; the others, which are empty, get zeros
    """

    symmetric = True
    stays = True

    def __init__(
        self,
        ladder: Ladder,
        steps: int,
        twice: bool,
        device: torch.device,
        dtype: torch.dtype,
        words: str,
        kept: Tensor | None = None,
    ):
        self.levels = [_Level(*parts, steps, device, dtype) for parts in ladder.levels]
        self.last = None
        self.inverse = None
        if ladder.inverse is None:
            self.last = _Level(ladder.coarsest, None, None, ALONE, device, dtype)
        else:
            self.inverse = ladder.inverse.to(device, dtype)
        self.twice, self.dtype, self.words, self._device = twice, dtype, words, device
        self.kept = None if kept is None else kept.to(device)

    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        size = torch.linalg.vector_norm(r, dim=0, keepdim=True)  # no scalar, whose dtype would give way
        size = torch.where(size > 0, size, 1.0)  # float32 has no room for any size of r, and M is linear
        out = output_like(r, len(r), out)
        if self.kept is None:
            return torch.mul(self._cycle(0, (r / size).to(self.dtype)), size, out=out)
        x = self._cycle(0, (r.index_select(0, self.kept) / size).to(self.dtype))
        return out.zero_().index_copy_(0, self.kept, x * size)

    def update(self, A_next: LinearOperator) -> None:
        """Nothing: what was moved is made anew from what follows A on the CPU."""

    def to(self, device: torch.device) -> Preconditioner:
        return self if device == self._device else super().to(device)

    def describe(self) -> str:
        return f"{self.words}, smoothed by polynomials"

    def _cycle(self, depth: int, b: Tensor) -> Tensor:
        """Return what one cycle makes of b from zero."""
        if depth == len(self.levels):
            if self.last is None:
                assert self.inverse is not None
                return self.inverse @ b
            x, d, residual, _ = self.last.vectors(b)
            self._smooth(self.last, b, x, d, residual, fresh=True)
            return x
        K, level = table(b.device), self.levels[depth]
        x, d, residual, coarse_b = level.vectors(b)
        assert level.A is not None
        assert level.P is not None
        assert level.R is not None
        self._smooth(level, b, x, d, residual, fresh=True)
        for _ in range(2 if self.twice and depth + 1 < len(self.levels) else 1):
            K.csr_matvec(*level.A, x, residual)
            torch.sub(b, residual, out=residual)
            K.csr_matvec(*level.R, residual, coarse_b)
            K.csr_matvec(*level.P, self._cycle(depth + 1, coarse_b), residual)
            x.add_(residual)
        self._smooth(level, b, x, d, residual, fresh=False)
        return x

    @staticmethod
    def _smooth(level: _Level, b: Tensor, x: Tensor, d: Tensor, residual: Tensor, fresh: bool) -> None:
        K = table(b.device)
        inverse = level.inverse if b.ndim == 1 else level.inverse[:, None]
        assert level.A is not None
        for k, (weight, momentum) in enumerate(level.steps):
            if fresh and k == 0:
                torch.mul(b, inverse, out=d).mul_(weight)
                x.copy_(d)
                continue
            K.csr_matvec(*level.A, x, residual)
            torch.sub(b, residual, out=residual).mul_(inverse)
            if momentum:
                d.mul_(momentum).add_(residual, alpha=weight)
            else:
                torch.mul(residual, weight, out=d)
            x.add_(d)


def _moved(A: Rows, device: torch.device, dtype: torch.dtype) -> Rows:
    return A[0].to(device), A[1].to(device), A[2].to(device, dtype)


def _largest(S: scipy.sparse.csr_array, inverse: np.ndarray) -> float:
    """Return a number a little above the largest eigenvalue of D^-1 A."""
    bound = float((abs(S) @ np.ones(len(inverse)) * inverse).max(initial=0.0))
    v = np.random.default_rng(6180).standard_normal(len(inverse)) * (inverse != 0)
    estimate = 0.0
    for _ in range(POWER_STEPS):
        size = np.linalg.norm(v)
        if not size > 0:
            break
        v = inverse * (S @ (v / size))
        estimate = float(np.linalg.norm(v))
    return min(bound, ENLARGED * estimate) or 1.0
