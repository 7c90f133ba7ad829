"""The largest eigenvalue of A: a bound where its entries are at hand, an estimate where they are not."""

from __future__ import annotations

import torch

from neuralsolve.operators.base import LinearOperator
from neuralsolve.operators.batched import BatchedStencil
from neuralsolve.operators.csr import CSROperator
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.operators.structured import DenseOperator
from neuralsolve.solvers.method import norm

POWER_STEPS = 8
SEED = 60_221


def largest_eigenvalue(A: LinearOperator) -> float:
    """Return a number near the largest absolute eigenvalue of a symmetric A.

    With entries at hand it is Gershgorin's bound, the largest row sum of |a_ij|: never below the
    eigenvalue, above it by a factor of the entries per row at most. A stencil's couplings are at most its
    diagonal, so twice the largest diagonal entry bounds it. For a function it is ||A v|| after eight power
    iterations from a random unit vector: never above the eigenvalue, and for n unknowns below it by a
    factor of n^(1/16) or so (3 at n = 10^8).

    Examples
    --------
    >>> import neuralsolve as ns
    >>> largest_eigenvalue(ns.PoissonStencil(ns.Grid((8, 8), walls="dirichlet")))
    8.0
    """
    if isinstance(A, PoissonStencil | BatchedStencil):
        return 2 * float(A.diagonal().max())
    if isinstance(A, CSROperator):
        sums = A.values.new_zeros(A.shape[0], dtype=torch.float64, requires_grad=False)
        sums.index_add_(0, A.rows(), A.values.detach().abs().double())
        return float(sums.max())
    if isinstance(A, DenseOperator):
        return float(A.values.detach().abs().sum(1).max())
    v = torch.randn(A.shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(SEED)).to(
        A.device
    )
    if A.active is not None:
        v *= A.active
    size = float(norm(v))
    for _ in range(POWER_STEPS):
        if not 0 < size < float("inf"):
            break
        v = A.matvec(v / size)
        size = float(norm(v))
    return size
