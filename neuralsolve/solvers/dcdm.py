"""Deep conjugate directions: a network proposes directions, exact line search and conjugacy make them safe.

Problem: A x = b, A symmetric positive (semi-)definite; M any map from a residual to a direction: a network,
linear or not, of any sign and scale. Source: Kaneda, Akar, Chen, Kala, Hyde and Teran, A deep conjugate
direction method for iteratively solving linear systems, ICML 2023 (PMLR 202), algorithm 1.

    q = M(r / ||r||);  d = q - sum_i (q.Ap_i / p_i.Ap_i) p_i;  t = d.r / d.Ad;  x += t d;  r -= t A d

With error e, ||e_new||_A^2 = ||e||_A^2 - (d.r)^2 / (d.Ad): the A-norm of the error never increases, for any
M. That is all the source guarantees; a direction orthogonal to r stalls it. Here a direction is *rejected*,
and the fallback preconditioner F applied to r takes its place, made conjugate in the same way, where

1. it is not finite, or d.Ad <= eps lambda_max ||d||^2 (eps in the units of A), or only rounding is left of
   q in d;
2. its gain (d.r)^2 / d.Ad is below eta^2 ||r||^2 / lambda_max, a part of what steepest descent is sure to
   gain;
3. M shows itself to be no fixed symmetric map, and the direction gains less than that of F. For such a map,
   hence for PCG, z_new . r_old = 0; where |q.r_old| > 1e-4 |q.r| (as in Powell's restarts of nonlinear
   conjugate gradients, Math. Program. 12 (1977) 241-254) the direction of F is formed too. It costs one
   product and one application of F: little beside a network. Without this test noise passes 1 and 2 up to n
   ~ 1/eta^2 and never converges.

The first direction has no r_old. Where the second shows M to be no such map, the first is tried against F in
hindsight, and taken back if F gains more. After `patience` rejections the fallback's own PCG finishes the
solve, going on from the fallback's steps so far, and the result's explanation says so.

Cost per step: one product (two where test 3 compares, or M is rejected), one call of M, and about
2 history + 6 inner products and vector updates. Memory: 2 history + 6 vectors, 2 more to compare.

Differences from the source: modified Gram-Schmidt, newest direction first, instead of classical; the
recurrence for r, with the true residual formed every `refresh` steps, instead of every step; the safeguard.
For a fixed SPD map and history >= 1 the iterates are those of PCG.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuralsolve.errors import Breakdown, OptionError, ShapeError, StructureError
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator, output_like
from neuralsolve.preconditioners.base import Preconditioner, Recipe
from neuralsolve.preconditioners.relaxation import Jacobi
from neuralsolve.solvers.bounds import largest_eigenvalue
from neuralsolve.solvers.directions import Direction, Directions
from neuralsolve.solvers.flexible import FlexibleCG, FlexibleState
from neuralsolve.solvers.method import Method, norm
from neuralsolve.solvers.result import Status

FIXED = 1e-4  # |q.r_old| / |q.r| above which M is no fixed symmetric map; float32 rounding stays below it
SHARE = 0.1  # of the fallback's gain, which a network must add to it in `minimise_span`


@dataclass
class DCDMState(Directions):
    """The directions, and what became of the network."""

    sign: Tensor | None = None  # of M(r).r at the first step
    fixed: bool = True  # M behaves as a fixed map, symmetric and of one sign
    trial: Direction | None = None  # the network's first direction, not compared with the fallback's yet
    rejected: int = 0
    F: Preconditioner | None = None
    F_known: bool = False
    finish: FlexibleState | None = None


@dataclass(frozen=True)
class DCDM(Method):
    """Conjugate directions from any map r -> d, with a safeguard (Kaneda et al. 2023).

    Parameters
    ----------
    history : directions that a new one is made A-orthogonal to; 2 as in the source, 0 is steepest descent
        along M(r)
    fallback : recipe, or a preconditioner already built, for rejected directions and for the finish; None
        is Jacobi where A has a positive diagonal, otherwise r itself. A recipe is built anew in every solve
        that needs it.
    patience : rejected directions after which the fallback's PCG takes over for good
    eta : least gain of a direction, as a part of steepest descent's (test 2 above)
    refresh : steps after which the residual is formed anew
    minimise_span : minimise the A-norm of the error over span{M(r), F r, last directions} instead, two
        products a step: never worse than a step of the fallback from the same point. M(r) is rejected where
        tests 1 and 2 fail or it adds less than a tenth to the gain of F r.

    Raises
    ------
    OptionError
        history < 0, patience < 1, refresh < 1, or eta outside [0, 1)
    ShapeError
        From the solve: M returns another shape than it is given.

    Examples
    --------
    >>> import neuralsolve as ns
    >>> A = ns.PoissonStencil(ns.Grid((16, 16), walls="dirichlet"))
    >>> broken = lambda r: torch.full_like(r, float("nan"))
    >>> b = torch.ones(256, dtype=torch.float64)
    >>> ns.solve(A, b, ns.DCDM(), M=broken).converged
    True
    """

    history: int = 2
    fallback: Recipe | Preconditioner | None = None
    patience: int = 3
    eta: float = 1e-3
    refresh: int = 50
    minimise_span: bool = False

    needs: ClassVar[str] = "spd"
    flexible: ClassVar[bool] = True

    def __post_init__(self) -> None:
        whole = all(int(count) == count for count in (self.history, self.patience, self.refresh))
        if not whole or self.history < 0 or self.patience < 1 or self.refresh < 1 or not 0 <= self.eta < 1:
            msg = (
                f"got {self}; history >= 0, patience >= 1 and refresh >= 1 must be whole numbers and eta lie "
                "in [0, 1), as in ns.DCDM(history=2, patience=3, refresh=50, eta=1e-3)"
            )
            raise OptionError(msg)

    def init(self, A: LinearOperator, M: Preconditioner | None, b: Tensor, x: Tensor, r: Tensor) -> DCDMState:
        return DCDMState(x, norm(r), r=r, q=torch.empty_like(r), largest=largest_eigenvalue(A))

    def step(self, A: LinearOperator, M: Preconditioner | None, b: Tensor, s: DCDMState) -> DCDMState:
        if s.finish is not None:
            s.finish = FlexibleCG().step(A, s.F, b, s.finish)
            s.residual_norm = s.finish.residual_norm
            return s
        rejected = s.rejected
        direction = self._choose_in_span(A, M, s) if self.minimise_span else self._choose(A, M, s)
        s.advance(A, b, direction, s.rejected > rejected, self.history, self.refresh)
        if s.rejected >= self.patience:
            s.finish = self._take_over(A, b, s)
        return s

    def _choose(self, A: LinearOperator, M: Preconditioner | None, s: DCDMState) -> Direction:
        """Return the network's direction, or the fallback's where that is rejected."""
        asked = self._ask(A, M, s)
        if asked:
            self._watch(s)
        proposal = s.direction(A, s.past) if asked else None
        if s.trial is not None and not s.fixed:
            better = self._instead_of_trial(A, s)
            if better is not None:
                s.release(proposal)
                return better
        first, s.trial = s.steps == 0, None
        if proposal is None or not self._gains(proposal, s):
            return self._reject(A, s, proposal)
        if not s.fixed:
            rival = self._fallback(A, s)
            if bool(rival.gain > proposal.gain):
                return self._reject(A, s, proposal, rival)
            s.release(rival)
        s.trial = proposal if first and self.history else None
        return proposal

    def _choose_in_span(self, A: LinearOperator, M: Preconditioner | None, s: DCDMState) -> Direction:
        """Return the best combination of the network's direction, the fallback's and the last ones.

        Made A-orthogonal to each other, the two add their gains; along the last ones r has no slope left.
        """
        base = self._fallback(A, s)
        extra = s.direction(A, [base, *s.past]) if self._ask(A, M, s) else None
        if extra is None or not self._gains(extra, s) or bool(extra.gain < SHARE * base.gain):
            return self._reject(A, s, extra, base)
        K = table(s.r.device)
        t_base, t_extra = base.slope / base.curvature, extra.slope / extra.curvature
        for into, other in ((base.d, extra.d), (base.Ad, extra.Ad)):
            into.mul_(t_base)
            K.axpy(t_extra, other, into)
        s.release(extra)
        gain = base.gain + extra.gain  # both the curvature and the slope of the sum
        return Direction(base.d, base.Ad, gain, gain)

    def _ask(self, A: LinearOperator, M: Preconditioner | None, s: DCDMState) -> bool:
        """Set q = M(r / ||r||); return False where that is no direction."""
        unit = s.r / s.residual_norm
        if M is None:
            return s.propose(A, unit)
        with torch.no_grad():
            answer = torch.as_tensor(M.apply(unit))
        if answer.shape != s.r.shape:
            msg = (
                f"M returned a direction of shape {tuple(answer.shape)} for a residual of shape "
                f"{tuple(s.r.shape)}; the shapes must agree: end the network with .reshape(r.shape)"
            )
            raise ShapeError(msg)
        return s.propose(A, answer)

    def _watch(self, s: DCDMState) -> None:
        """Note whether q is that of a fixed symmetric map of one sign; r_old = r + t Ad of the last step."""
        K = table(s.r.device)
        qr = K.dot(s.q, s.r)
        if s.sign is None:
            s.sign = qr.sign()
        if s.last is not None:
            t, Ad = s.last
            small = (qr + t * K.dot(s.q, Ad)).abs() <= FIXED * qr.abs()
            s.fixed = s.fixed and bool(small & (qr.sign() == s.sign))

    def _gains(self, proposal: Direction, s: DCDMState) -> bool:
        return bool(proposal.gain * s.largest >= (self.eta * s.residual_norm) ** 2)

    def _instead_of_trial(self, A: LinearOperator, s: DCDMState) -> Direction | None:
        """Take the first step back and return the fallback's direction there, where that gains more."""
        trial, s.trial = s.trial, None
        assert trial is not None
        s.step_along(trial, -1)
        past, s.past, s.anchor = s.past, [], None
        rival = self._fallback(A, s)
        if bool(rival.gain > trial.gain):
            return self._reject(A, s, trial, rival)
        s.release(rival)
        s.past, s.anchor = past, trial
        s.step_along(trial, 1)
        return None

    def _reject(
        self, A: LinearOperator, s: DCDMState, proposal: Direction | None, rival: Direction | None = None
    ) -> Direction:
        """Count a rejection, keep the proposal's room, and return the fallback's direction."""
        s.release(proposal)
        s.rejected += 1
        s.note = f"{s.rejected} of the network's first {s.steps + 1} directions rejected"
        return rival or self._fallback(A, s)

    def _fallback(self, A: LinearOperator, s: DCDMState) -> Direction:
        """Return the direction of F r, else that of r, else r itself."""
        if not s.F_known:
            s.F, s.F_known = self._build(A), True
        if s.F is not None:
            found = s.direction(A, s.gradient_space()) if s.propose(A, s.F.apply(s.r)) else None
            if found is not None:
                return found
            s.F = None  # no better than the network
        for against in (s.gradient_space(), []):
            found = s.direction(A, against) if s.propose(A, s.r) else None
            if found is not None:
                return found
        finite = bool(torch.isfinite(s.r).all())
        raise Breakdown(Status.NOT_POSITIVE_DEFINITE if finite else Status.NON_FINITE)

    def _build(self, A: LinearOperator) -> Preconditioner | None:
        if isinstance(self.fallback, Preconditioner):
            return self.fallback
        if self.fallback is not None:
            return self.fallback.build(A)
        try:
            return Jacobi().build(A)
        except StructureError:  # a function, whose diagonal is not known, or a zero on it
            return None

    def _take_over(self, A: LinearOperator, b: Tensor, s: DCDMState) -> FlexibleState:
        """Return the fallback's PCG, going on from its directions since the network's last one."""
        name = "CG" if s.F is None else f"CG with {s.F.describe()}"
        s.note = f"{s.note}, so {name} took over after step {s.steps}"
        if s.anchor is not None:
            s.F = _Augmented(s.F, s.anchor)
        state = FlexibleCG().init(A, s.F, b, s.x, s.r)
        if s.past:
            last = s.past[0]
            state.p, state.Ap, state.curvature = last.d, last.Ad, last.curvature
        return state


class _Augmented(Preconditioner):
    """F, or the identity, followed by the A-orthogonal projection away from one direction."""

    def __init__(self, F: Preconditioner | None, away: Direction):
        self.F, self.away = F, away

    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        z = output_like(r, len(r), out)
        z = z.copy_(r) if self.F is None else self.F.apply(r, z)
        K = table(r.device)
        K.axpy(-K.dot(z, self.away.Ad) / self.away.curvature, self.away.d, z)
        return z

    def update(self, A_next: LinearOperator) -> None:
        """Nothing to follow: it lives within one solve."""

    def describe(self) -> str:
        return "identity" if self.F is None else self.F.describe()
