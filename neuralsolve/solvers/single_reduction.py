"""Conjugate gradients with one reduction per step: all inner products of a step are taken at one place.

Problem: A x = b, A symmetric positive (semi-)definite, M likewise and fixed. Source: Chronopoulos and Gear,
s-step iterative methods for symmetric linear systems, J. Comput. Appl. Math. 25 (1989) 153-168; the form used
here is algorithm 2 of Ghysels and Vanroose, Parallel Computing 40 (2014) 224-238. In exact arithmetic the
iterates are those of CG. With u = M r and w = A u, the product A p is not formed but follows the recurrence
s = w + beta s, and p.Ap = w.u - beta (r.u) / alpha_old: r.u and w.u are needed together, once. Cost per step:
one product, one application of M, and one more vector than CG that is read and written. Memory: x, r, p, s, w
and, with M, u.

The recurrence of s drifts from A p as steps go by: where CG attains a residual of a few eps ||A|| ||x||, this
may stop some digits short on badly conditioned systems, and the loop starts it again from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator
from neuralsolve.operators.vectors import empty, zeros_like
from neuralsolve.preconditioners.base import Preconditioner
from neuralsolve.solvers.krylov import CGState
from neuralsolve.solvers.method import Method, demand, norm, safe_divide
from neuralsolve.solvers.result import Status


@dataclass
class SingleReductionState(CGState):
    """The vectors of CG, where `Ap` is the recurrence s, `z` is u; w = A u; the last step length."""

    w: Tensor = None  # type: ignore[assignment]
    alpha: Tensor | None = None


@dataclass(frozen=True)
class SingleReductionCG(Method):
    """Preconditioned CG with one reduction per step (Chronopoulos and Gear 1989).

    For devices on which waiting for inner products costs more than a pass over a vector; elsewhere `CG`,
    which has fewer passes and attains smaller residuals.

    Examples
    --------
    >>> import neuralsolve as ns
    >>> A = ns.PoissonStencil(ns.Grid((16, 16), walls="dirichlet"))
    >>> b = torch.ones(256, dtype=torch.float64)
    >>> ns.solve(A, b, ns.SingleReductionCG()).iterations == ns.solve(A, b, ns.CG()).iterations
    True
    """

    needs: ClassVar[str] = "spd"
    batched: ClassVar[bool] = True
    unseen: ClassVar[bool] = True

    def init(
        self, A: LinearOperator, M: Preconditioner | None, b: Tensor, x: Tensor, r: Tensor
    ) -> SingleReductionState:
        z = r if M is None else empty(tuple(r.shape), r)
        s, w = zeros_like(r), empty(tuple(r.shape), r)
        return SingleReductionState(x, norm(r), r=r, p=zeros_like(r), Ap=s, z=z, w=w)

    def step(
        self, A: LinearOperator, M: Preconditioner | None, b: Tensor, s: SingleReductionState
    ) -> SingleReductionState:
        K = table(b.device)
        if M is not None:
            M.apply(s.r, s.z)
        delta = A.matvec_dot(s.z, s.w)
        gamma = s.residual_norm**2 if M is None else K.dot(s.r, s.z)
        if M is not None:
            demand(s, gamma > 0, gamma, Status.INDEFINITE_PRECONDITIONER)
        beta, curvature = torch.zeros_like(gamma), delta
        if s.rz is not None and s.alpha is not None:
            beta = safe_divide(s, gamma, s.rz)
            curvature = delta - beta * safe_divide(s, gamma, s.alpha)
        demand(s, curvature > 0, curvature, Status.NOT_POSITIVE_DEFINITE)
        K.xpby(s.z, beta, s.p)  # p = u + beta p
        K.xpby(s.w, beta, s.Ap)  # A p = w + beta A p
        alpha = safe_divide(s, gamma, curvature)
        if s.frozen is not None:
            alpha = alpha.masked_fill(s.frozen, 0.0)
        s.residual_norm = K.cg_update(alpha, s.p, s.Ap, s.x, s.r).sqrt()
        s.rz, s.alpha = gamma, alpha
        return s
