"""Flexible conjugate gradients: SPD systems with an M that changes from step to step.

Problem: A x = b, A symmetric positive (semi-)definite, M any map: nonlinear, nonsymmetric, of either sign.
Source: Notay, Flexible conjugate gradients, SIAM J. Sci. Comput. 22 (2000) 1444-1460, FCG(1). Cost per
step: one product, one application of M, CG's passes and two inner products more. Memory: that of CG.

Each direction is A-orthogonal to the one before and the step along it is the exact line search, so the
A-norm of the error never increases, whatever M is. Notay's beta = -z.Ap / p.Ap needs no old residual; as
r_new - r_old = -alpha Ap, it is the flexible (Polak-Ribiere) beta z_new.(r_new - r_old) / (z.r)_old. For a
fixed SPD M it is PCG.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuralsolve.errors import Breakdown
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator
from neuralsolve.operators.vectors import empty, zeros_like
from neuralsolve.preconditioners.base import Preconditioner
from neuralsolve.solvers.krylov import CGState
from neuralsolve.solvers.method import Method, demand, norm, safe_divide
from neuralsolve.solvers.result import Status


@dataclass
class FlexibleState(CGState):
    """The vectors of CG, and p . A p."""

    curvature: Tensor | None = None


@dataclass(frozen=True)
class FlexibleCG(Method):
    """Flexible conjugate gradients for SPD A and any M (Notay 2000, FCG(1)).

    Several right sides run side by side, each with its own scalars; converged columns stand still.

    Examples
    --------
    >>> import neuralsolve as ns
    >>> A = ns.PoissonStencil(ns.Grid((16, 16), walls="dirichlet"))
    >>> b = torch.ones(256, dtype=torch.float64)
    >>> ns.solve(A, b, ns.FlexibleCG(), M=lambda r: r + 0.1 * r.abs()).converged
    True
    """

    needs: ClassVar[str] = "spd"
    flexible: ClassVar[bool] = True
    batched: ClassVar[bool] = True
    unseen: ClassVar[bool] = True

    def init(
        self, A: LinearOperator, M: Preconditioner | None, b: Tensor, x: Tensor, r: Tensor
    ) -> FlexibleState:
        z = r if M is None else empty(tuple(r.shape), r)
        return FlexibleState(x, norm(r), r=r, p=zeros_like(r), Ap=zeros_like(r), z=z)

    def step(self, A: LinearOperator, M: Preconditioner | None, b: Tensor, s: FlexibleState) -> FlexibleState:
        K = table(b.device)
        if M is not None:
            M.apply(s.r, s.z)
        zAp = K.dot(s.z, s.Ap)
        beta = torch.zeros_like(zAp) if s.curvature is None else safe_divide(s, -zAp, s.curvature)
        K.xpby(s.z, beta, s.p)  # p = z + beta p
        s.curvature = A.matvec_dot(s.p, s.Ap)
        _demand_direction(s)
        alpha = safe_divide(s, K.dot(s.p, s.r), s.curvature)  # the minimum of the A-norm error along p
        if s.frozen is not None:
            alpha = alpha.masked_fill(s.frozen, 0.0)
        s.residual_norm = K.cg_update(alpha, s.p, s.Ap, s.x, s.r).sqrt()
        return s


def _demand_direction(s: FlexibleState) -> None:
    """Raise `Breakdown` unless p.Ap > 0 in every column that still moves; blame M where p vanishes."""
    curvature: Tensor = s.curvature  # type: ignore[assignment]
    if s.fault is None:  # one look at the curvature serves as a rule
        zero = (curvature == 0) if s.frozen is None else (curvature == 0) & ~s.frozen
        if bool(zero.any()) and bool((norm(s.p[..., zero]) ** 2 == 0).all()):
            raise Breakdown(Status.BREAKDOWN)
    else:
        demand(s, (curvature != 0) | (norm(s.p) ** 2 != 0), curvature, Status.BREAKDOWN)
    demand(s, curvature > 0, curvature, Status.NOT_POSITIVE_DEFINITE)
