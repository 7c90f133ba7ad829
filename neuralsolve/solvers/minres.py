"""Minimal residuals for symmetric systems, definite or not.

Problem: A x = b, A symmetric, possibly indefinite, or singular with b in its range; M symmetric positive
definite. Source: Paige and Saunders, Solution of sparse indefinite systems of linear equations, SIAM J.
Numer. Anal. 12 (1975) 617-629, with the preconditioned Lanczos process of their program; names as there.
Cost per step: one product, one application of M, about eight passes over vectors. Memory: x, two Lanczos
vectors, two directions, one product, and with M also z and the residual.

Without M the residual norm is minimised and is phibar. With M phibar is its M-norm, so the residual vector
itself is carried by its two-term recurrence r_k = s_k^2 r_{k-1} - c_k phibar_k u_{k+1}, and `residual_norm`
is its 2-norm. A singular system whose b lies outside the range has no solution: x comes near the
least-squares one, where ||A r|| is tiny, and then grows along the null space by rounding. The x of the
least ||A r|| is kept, and given back (STAGNATED) once ||r|| <= eps ||A|| ||x||, where no digit of x means
anything any more (the source's first stopping test).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor

from neuralsolve.errors import Breakdown
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator
from neuralsolve.preconditioners.base import Preconditioner
from neuralsolve.solvers.method import Method, State, norm
from neuralsolve.solvers.result import Status

EPS = torch.finfo(torch.float64).eps
NEAR = 1e-7  # ||A r|| / (||A|| ||r||) below which b may lie outside the range of A


@dataclass
class MINRESState(State):
    """Lanczos vectors u, v = M u, their coefficients, and the rotation that removes the subdiagonal.

    `W` and `W_old` are the directions w_{k-1}, w_{k-2} divided by their `inverse`, `inverse_old`: one pass
    less a step.
    """

    r: Tensor | None = None  # the residual, with M only
    u: Tensor = None  # type: ignore[assignment]
    u_old: Tensor = None  # type: ignore[assignment]
    v: Tensor = None  # type: ignore[assignment]
    q: Tensor = None  # type: ignore[assignment]
    W: Tensor = None  # type: ignore[assignment]
    W_old: Tensor = None  # type: ignore[assignment]
    beta: Tensor = None  # type: ignore[assignment]
    phibar: Tensor | None = None  # set by the first step
    cs: Tensor = None  # type: ignore[assignment]
    sn: Tensor = None  # type: ignore[assignment]
    dbar: Tensor = None  # type: ignore[assignment]
    epsilon: Tensor = None  # type: ignore[assignment]
    inverse: Tensor = None  # type: ignore[assignment]
    inverse_old: Tensor = None  # type: ignore[assignment]
    size: Tensor = None  # type: ignore[assignment]
    stuck: Tensor | None = None
    near: tuple[Tensor, Tensor, Tensor] | None = None  # least ||A r|| / ||r||, ||r|| and x there

    def follow(self, root: Tensor) -> Tensor:
        """Keep the x of the least `root`; return which columns are worn out, given that x back."""
        assert self.phibar is not None
        size = self.phibar.abs()
        if self.near is None:
            self.near = root.clone(), size.clone(), self.x.clone()
        least, size_there, x_there = self.near
        closer = root < least
        least.copy_(torch.where(closer, root, least))
        size_there.copy_(torch.where(closer, size, size_there))
        x_there.copy_(torch.where(closer, self.x, x_there))
        worn_out = (size <= 4 * EPS * self.size * norm(self.x)) & (least <= NEAR * self.size)
        if self.stuck is not None:
            worn_out = worn_out & ~self.stuck
        self.x.copy_(torch.where(worn_out & (size > size_there / 2), x_there, self.x))
        return worn_out


@dataclass(frozen=True)
class MINRES(Method):
    """Minimal residuals for symmetric A, definite or not, and SPD M (Paige and Saunders 1975).

    Without M the residual norm falls monotonically and is the least over the Krylov space; with M this
    holds of the M-norm. Several right sides run side by side.

    Examples
    --------
    >>> import neuralsolve as ns, numpy as np, scipy.sparse as sp
    >>> A = sp.diags_array([1.0, -2.0, 3.0])  # indefinite: not for CG
    >>> ns.solve(A, np.array([1.0, 2.0, 3.0]), ns.MINRES()).iterations
    3
    """

    needs: ClassVar[str] = "symmetric"
    batched: ClassVar[bool] = True

    def init(
        self, A: LinearOperator, M: Preconditioner | None, b: Tensor, x: Tensor, r: Tensor
    ) -> MINRESState:
        first_norm = norm(r)
        zero = torch.zeros_like(first_norm)
        return MINRESState(
            x,
            first_norm,
            r=None if M is None else r,
            u=r if M is None else r.clone(),
            u_old=torch.zeros_like(r),
            v=r if M is None else torch.empty_like(r),
            q=torch.empty_like(r),
            W=torch.zeros_like(r),
            W_old=torch.zeros_like(r),
            beta=zero,
            cs=zero - 1.0,
            sn=zero,
            dbar=zero,
            epsilon=zero,
            inverse=zero,
            inverse_old=zero,
            size=zero,
        )

    def step(self, A: LinearOperator, M: Preconditioner | None, b: Tensor, s: MINRESState) -> MINRESState:
        K = table(b.device)
        if s.phibar is None:
            s.phibar = _normalise(M, s)
        v = s.v
        alpha, beta = _lanczos(K, A, M, s)
        # s.u, s.v are now u_{k+1}, v_{k+1}; v is v_k (and, without M, s.u_old)

        delta = s.cs * s.dbar + s.sn * alpha  # the previous rotation on column k of the Lanczos matrix
        gbar = s.sn * s.dbar - s.cs * alpha
        epsilon, s.epsilon = s.epsilon, s.sn * beta
        s.dbar = -s.cs * beta
        s.size = torch.maximum(s.size, torch.hypot(alpha, torch.hypot(s.beta, beta)))  # at most ||A||
        still = self._hold(torch.hypot(gbar, s.dbar), s)

        gamma = torch.hypot(gbar, beta)  # the rotation that removes beta
        inverse = _inverse(gamma)
        s.cs, s.sn = gbar * inverse, beta * inverse
        phi, s.phibar = s.cs * s.phibar, s.sn * s.phibar

        W = s.W_old  # gamma w_k = v_k - delta w_{k-1} - epsilon w_{k-2}
        K.xpby(v, -epsilon * s.inverse_old, W)
        K.axpy(-delta * s.inverse, s.W, W)
        s.W, s.W_old, s.inverse, s.inverse_old, s.beta = W, s.W, inverse, s.inverse, beta
        K.axpy((phi * inverse).masked_fill(still, 0.0), W, s.x)
        if s.r is None:
            s.residual_norm = torch.where(still, s.residual_norm, s.phibar.abs())
        else:
            s.r.mul_((s.sn**2).masked_fill(still, 1.0))
            K.axpy((-s.cs * s.phibar).masked_fill(still, 0.0), s.u, s.r)
            s.residual_norm = norm(s.r)
        return s

    def _hold(self, root: Tensor, s: MINRESState) -> Tensor:
        """Return which columns must not move: converged ones, and those where nothing is left to gain.

        `root` is ||A r|| / ||r|| of the present residual (in the norms of M).
        """
        stuck = root <= 8 * EPS * s.size
        if s.near is not None or bool((root <= NEAR * s.size).any()):
            stuck = stuck | s.follow(root)
        s.stuck = stuck if s.stuck is None else stuck | s.stuck
        still = s.stuck if s.frozen is None else s.stuck | s.frozen
        if bool(still.all()):
            raise Breakdown(Status.STAGNATED)
        return still


def _lanczos(
    K: ModuleType, A: LinearOperator, M: Preconditioner | None, s: MINRESState
) -> tuple[Tensor, Tensor]:
    """Advance u, v by one step of the Lanczos process; return alpha_k and beta_{k+1}.

    q = A v_k - alpha_k u_k - beta_k u_{k-1}; beta_{k+1}^2 = q . M q; u_{k+1} = q / beta_{k+1}.
    """
    alpha = A.matvec_dot(s.v, s.q)
    K.xpby(s.q, -s.beta, s.u_old)  # into the place of u_{k-1}
    K.axpy(-alpha, s.u, s.u_old)
    s.u, s.u_old = s.u_old, s.u
    if M is not None:
        s.v, s.q = s.q, s.v  # v_k is still read by the directions; the product's place is free
    return alpha, _normalise(M, s)


def _normalise(M: Preconditioner | None, s: MINRESState) -> Tensor:
    """Set v = M u, divide both by sqrt(u . v), and return that."""
    if M is None:
        s.v = s.u
        beta = norm(s.u)
    else:
        square = table(s.u.device).dot(s.u, M.apply(s.u, s.v))
        if bool((square < 0).any()):
            raise Breakdown(Status.INDEFINITE_PRECONDITIONER)
        beta = square.sqrt()
    if not bool(torch.isfinite(beta).all()):
        raise Breakdown(Status.NON_FINITE)
    scale = _inverse(beta)
    s.u.mul_(scale)
    if M is not None:
        s.v.mul_(scale)
    return beta


def _inverse(value: Tensor) -> Tensor:
    """Return 1 / value, and 0 for 0: an invariant space was reached and what follows is zero."""
    return torch.where(value == 0, 0.0, value.reciprocal())
