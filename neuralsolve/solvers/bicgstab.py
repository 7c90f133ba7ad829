"""Stabilised biconjugate gradients: nonsymmetric systems with short recurrences.

Problem: A x = b, A regular; M a fixed linear map. Source: van der Vorst, Bi-CGSTAB: a fast and smoothly
converging variant of Bi-CG, SIAM J. Sci. Stat. Comput. 13 (1992) 631-644, with M on the right, so that r is
the true residual. Cost per step: two products, two applications of M, about ten passes over vectors.
Memory: x, r, shadow, p, v, t and, with M, one more. No norm is minimised: the residual may jump, and the
method may stand still where A has large imaginary eigenvalues; GMRES is the safe choice.

Difference from the source: where rho or omega vanishes to rounding, the recurrence starts again from the
present residual with another shadow residual, r/||r|| plus a random unit vector; the second such event ends
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuralsolve.errors import Breakdown
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator
from neuralsolve.preconditioners.base import Preconditioner
from neuralsolve.solvers.method import Method, State, norm
from neuralsolve.solvers.result import Status

TINY = torch.finfo(torch.float64).eps  # a cosine below it is rounding
SEED = 18_092  # of the second shadow residual: a run can be repeated


@dataclass
class BiCGStabState(State):
    """Residual r, shadow residual, direction p, v = A M p, t = A M s, and room for M p and M s."""

    r: Tensor = None  # type: ignore[assignment]
    shadow: Tensor = None  # type: ignore[assignment]
    p: Tensor = None  # type: ignore[assignment]
    v: Tensor = None  # type: ignore[assignment]
    t: Tensor = None  # type: ignore[assignment]
    z: Tensor = None  # type: ignore[assignment]
    shadow_norm: Tensor = None  # type: ignore[assignment]
    rho: Tensor | None = None  # None: p starts anew from r
    alpha: Tensor = None  # type: ignore[assignment]
    omega: Tensor = None  # type: ignore[assignment]
    restarted: bool = False


@dataclass(frozen=True)
class BiCGStab(Method):
    """Stabilised biconjugate gradients for any regular A and a fixed linear M (van der Vorst 1992).

    Examples
    --------
    >>> import neuralsolve as ns, numpy as np, scipy.sparse as sp
    >>> A = sp.diags_array([-1.0, 2.0, -0.5], offsets=[-1, 0, 1], shape=(40, 40))
    >>> ns.solve(A, np.ones(40), ns.BiCGStab()).converged
    True
    """

    needs: ClassVar[str] = "any"

    def init(
        self, A: LinearOperator, M: Preconditioner | None, b: Tensor, x: Tensor, r: Tensor
    ) -> BiCGStabState:
        p, v, t = (torch.empty_like(r) for _ in range(3))
        z = r if M is None else torch.empty_like(r)
        size = norm(r)
        return BiCGStabState(x, size, r=r, shadow=r.clone(), shadow_norm=size, p=p, v=v, t=t, z=z)

    def step(self, A: LinearOperator, M: Preconditioner | None, b: Tensor, s: BiCGStabState) -> BiCGStabState:
        K = table(b.device)
        rho = K.dot(s.shadow, s.r)
        if _vanishes(rho, s.shadow_norm * s.residual_norm):
            rho = _restart(s)
        if s.rho is None:
            s.p.copy_(s.r)
        else:
            K.axpy(-s.omega, s.v, s.p)  # p = r + beta (p - omega v)
            K.xpby(s.r, (rho / s.rho) * (s.alpha / s.omega), s.p)

        p_hat = s.p if M is None else M.apply(s.p, s.z)
        curvature = _image(A, p_hat, s)
        if _vanishes(curvature, s.shadow_norm * norm(s.v)):
            rho = _restart(s)
            s.p.copy_(s.r)
            p_hat = s.p if M is None else M.apply(s.p, s.z)
            curvature = _image(A, p_hat, s)
            if _vanishes(curvature, s.shadow_norm * norm(s.v)):
                raise Breakdown(Status.BREAKDOWN)
        alpha = rho / curvature
        K.axpy(alpha, p_hat, s.x)
        K.axpy(-alpha, s.v, s.r)  # r is now the s of the source

        s_hat = s.r if M is None else M.apply(s.r, s.z)
        A.matvec(s_hat, s.t)
        ts, tt = K.dot(s.t, s.r), K.dot(s.t, s.t)
        half_norm = norm(s.r)
        if _vanishes(ts, tt.sqrt() * half_norm):  # no stabilising step; zero where s = 0: x is exact
            s.residual_norm = half_norm
            if bool(half_norm > 0):
                _restart(s)
            return s
        s.omega, s.alpha, s.rho = ts / tt, alpha, rho
        K.axpy(s.omega, s_hat, s.x)
        K.axpy(-s.omega, s.t, s.r)
        s.residual_norm = norm(s.r)
        return s


def _image(A: LinearOperator, p_hat: Tensor, s: BiCGStabState) -> Tensor:
    """Set v = A p_hat and return shadow . v."""
    A.matvec(p_hat, s.v)
    return table(s.r.device).dot(s.shadow, s.v)


def _vanishes(product: Tensor, size: Tensor) -> bool:
    """Whether an inner product is zero to rounding, given the product of the norms."""
    if bool(product.abs() > TINY * size):
        return False
    if not bool(torch.isfinite(product)):
        raise Breakdown(Status.NON_FINITE)
    return True


def _restart(s: BiCGStabState) -> Tensor:
    """Take a new shadow residual, forget the direction, and return the new rho."""
    if s.restarted:
        raise Breakdown(Status.BREAKDOWN)
    s.restarted = True
    generator = torch.Generator().manual_seed(SEED)
    g = torch.randn(s.r.shape, dtype=s.r.dtype, generator=generator).to(s.r.device)
    s.shadow.copy_(s.r / s.residual_norm + g / norm(g))
    s.shadow_norm, s.rho = norm(s.shadow), None
    return table(s.r.device).dot(s.shadow, s.r)
