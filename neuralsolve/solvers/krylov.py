"""Preconditioned conjugate gradients.

Problem: A x = b, A symmetric positive (semi-)definite, M likewise and fixed. Source: Saad, Iterative Methods
for Sparse Linear Systems, 2nd ed. (2003), algorithm 9.1. Cost per step: one product, one application of M,
and two passes over the vectors: (x, r, r.r) and (p); p.Ap comes with the product, and so does p on a GPU,
where A is a stencil. Memory: x, r, p, Ap and, with M, z; on a GPU p twice. The direction is formed at the
start of a step, so the last step pays for no unused application of M.
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
from neuralsolve.solvers.method import Method, State, demand, norm, safe_divide
from neuralsolve.solvers.result import Status


@dataclass
class CGState(State):
    """Vectors of CG: residual r, direction p, A p, preconditioned residual z (r itself without M), r.z.

    On a GPU `spare` is where the next direction is written while the last one is read.
    """

    r: Tensor = None  # type: ignore[assignment]
    p: Tensor = None  # type: ignore[assignment]
    Ap: Tensor = None  # type: ignore[assignment]
    z: Tensor = None  # type: ignore[assignment]
    spare: Tensor | None = None
    rz: Tensor | None = None


@dataclass(frozen=True)
class CG(Method):
    """Preconditioned conjugate gradients for SPD A and SPD M ~ A^-1 (Saad 2003, alg. 9.1).

    The A-norm of the error falls as 2 ((sqrt(kappa) - 1) / (sqrt(kappa) + 1))^k, kappa of M A.
    Several right sides run side by side, each with its own scalars; converged columns stand still.

    Examples
    --------
    >>> import neuralsolve as ns
    >>> A = ns.PoissonStencil(ns.Grid((16, 16), walls="dirichlet"))
    >>> ns.solve(A, torch.ones(256, dtype=torch.float64), ns.CG(), rtol=1e-10).converged
    True
    """

    needs: ClassVar[str] = "spd"
    batched: ClassVar[bool] = True
    unseen: ClassVar[bool] = True

    def init(self, A: LinearOperator, M: Preconditioner | None, b: Tensor, x: Tensor, r: Tensor) -> CGState:
        z = r if M is None else empty(tuple(r.shape), r)
        spare = None if r.device.type == "cpu" else empty(tuple(r.shape), r)
        return CGState(x, norm(r), r=r, p=zeros_like(r), Ap=empty(tuple(r.shape), r), z=z, spare=spare)

    def step(self, A: LinearOperator, M: Preconditioner | None, b: Tensor, s: CGState) -> CGState:
        K = table(b.device)
        rz = s.residual_norm**2 if M is None else K.dot(s.r, M.apply(s.r, s.z))
        if M is not None:
            demand(s, rz > 0, rz, Status.INDEFINITE_PRECONDITIONER)
        beta = torch.zeros_like(rz) if s.rz is None else safe_divide(s, rz, s.rz)
        s.p, s.spare, curvature = A.direction_dot(s.z, beta, s.p, s.spare, s.Ap)  # p = z + beta p
        # p.Ap > 0 whenever A is SPD and p != 0
        demand(s, curvature > 0, curvature, Status.NOT_POSITIVE_DEFINITE)
        alpha = safe_divide(s, rz, curvature)  # minimises the A-norm error along p
        if s.frozen is not None:
            alpha = alpha.masked_fill(s.frozen, 0.0)
        s.residual_norm = K.cg_update(alpha, s.p, s.Ap, s.x, s.r).sqrt()
        s.rz = rz
        return s
