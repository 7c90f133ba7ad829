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

After `patience` rejections the fallback's own PCG finishes the solve, and the result's explanation says so.

Cost per step: one product (two where test 3 compares, three at a rejection of both), one call of M, and
2 history + 5 inner products and vector updates. Memory: 2 history + 6 vectors.

Differences from the source: modified Gram-Schmidt, newest direction first, instead of classical; the
recurrence for r, with the true residual formed every `refresh` steps, instead of every step; the safeguard.
For a fixed SPD map and history >= 1 the iterates are those of PCG.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from neuralsolve.errors import Breakdown, OptionError, ShapeError, StructureError
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator
from neuralsolve.preconditioners.base import Preconditioner, Recipe
from neuralsolve.preconditioners.relaxation import Jacobi
from neuralsolve.solvers.bounds import largest_eigenvalue
from neuralsolve.solvers.flexible import FlexibleCG
from neuralsolve.solvers.krylov import CG
from neuralsolve.solvers.method import Method, State, norm
from neuralsolve.solvers.result import Status

EPS = torch.finfo(torch.float64).eps
FIXED = 1e-4  # |q.r_old| / |q.r| above which M is no fixed symmetric map; float32 rounding stays below it
NOISE = 1e-6  # part of ||q|| that must be left of it after orthogonalisation
SHARE = 0.1  # of the fallback's gain, which a network must add to it in `minimise_span`


class Direction(NamedTuple):
    """A direction d with A d, d.Ad > 0 and d.r; a step takes `gain` off the squared A-norm error."""

    d: Tensor
    Ad: Tensor
    curvature: Tensor
    slope: Tensor

    @property
    def gain(self) -> Tensor:
        return self.slope**2 / self.curvature


@dataclass
class DCDMState(State):
    """Residual r, the last directions (newest first), spare vectors, and what became of the network."""

    r: Tensor = None  # type: ignore[assignment]
    q: Tensor = None  # type: ignore[assignment]
    past: list[Direction] = field(default_factory=list)
    spare: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    last: tuple[Tensor, Tensor] | None = None  # step length t and A d of the last step
    largest: float = 0.0
    steps: int = 0
    rejected: int = 0
    F: Preconditioner | None = None
    F_known: bool = False
    finish: tuple[Method, State] | None = None


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
        products a step: never worse than a step of the fallback from the same point

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
    >>> noise = lambda r: torch.full_like(r, float("nan"))
    >>> result = ns.solve(A, torch.ones(256), ns.DCDM(), M=noise)
    >>> result.converged
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
            return self._finish(A, b, s)
        proposal = self._choose_in_span(A, M, s) if self.minimise_span else self._choose(A, M, s)
        self._advance(A, b, s, proposal)
        if s.rejected >= self.patience:
            method = CG() if s.F is None or s.F.symmetric else FlexibleCG()
            s.finish = method, method.init(A, s.F, b, s.x, s.r)
            name = "without a preconditioner" if s.F is None else f"with {s.F.describe()}"
            s.note = f"{s.note}, so {method} {name} took over after step {s.steps}"
        return s

    def _finish(self, A: LinearOperator, b: Tensor, s: DCDMState) -> DCDMState:
        method, inner = s.finish  # type: ignore[misc]
        inner = method.step(A, s.F, b, inner)
        s.finish, s.x, s.residual_norm = (method, inner), inner.x, inner.residual_norm
        return s

    def _choose(self, A: LinearOperator, M: Preconditioner | None, s: DCDMState) -> Direction:
        """Return the network's direction, or the fallback's where that is rejected."""
        asked = self._ask(A, M, s)
        fixed = asked and self._fixed_symmetric(s)
        proposal = self._direction(A, s, s.past) if asked else None
        if proposal is None or not self._gains(proposal, s):
            self._reject(s)
            self._release(s, proposal)
            return self._fallback(A, s)
        if fixed:
            return proposal
        rival = self._fallback(A, s)
        if bool(rival.gain > proposal.gain):
            self._reject(s)
            self._release(s, proposal)
            return rival
        self._release(s, rival)
        return proposal

    def _choose_in_span(self, A: LinearOperator, M: Preconditioner | None, s: DCDMState) -> Direction:
        """Return the best combination of the network's direction, the fallback's and the last ones.

        Made A-orthogonal to each other, the two add their gains; along the last ones r has no slope left.
        """
        base = self._fallback(A, s)
        extra = self._direction(A, s, [base, *s.past]) if self._ask(A, M, s) else None
        if extra is None or not self._gains(extra, s) or bool(extra.gain < SHARE * base.gain):
            self._reject(s)
        if extra is None:
            return base
        K = table(s.r.device)
        t_base, t_extra = base.slope / base.curvature, extra.slope / extra.curvature
        for into, other in ((base.d, extra.d), (base.Ad, extra.Ad)):
            into.mul_(t_base)
            K.axpy(t_extra, other, into)
        self._release(s, extra)
        gain = base.gain + extra.gain  # both the curvature and the slope of the sum
        return Direction(base.d, base.Ad, gain, gain)

    def _ask(self, A: LinearOperator, M: Preconditioner | None, s: DCDMState) -> bool:
        """Set q = M(r / ||r||), of maximum norm one; return False where it is zero or not finite."""
        unit = s.r / s.residual_norm
        if M is None:
            s.q.copy_(unit)
        else:
            with torch.no_grad():
                answer = torch.as_tensor(M.apply(unit))
            if answer.shape != s.r.shape:
                msg = (
                    f"M returned a direction of shape {tuple(answer.shape)} for a residual of shape "
                    f"{tuple(s.r.shape)}; the shapes must agree: end the network with .reshape(r.shape)"
                )
                raise ShapeError(msg)
            s.q.copy_(answer)
        return _clean(A, s.q)

    def _fixed_symmetric(self, s: DCDMState) -> bool:
        """Whether q.r_old is as small as PCG has it; r_old = r + t Ad of the last step."""
        if s.last is None:
            return True  # nothing to compare with yet
        K = table(s.r.device)
        t, Ad = s.last
        qr = K.dot(s.q, s.r)
        return bool((qr + t * K.dot(s.q, Ad)).abs() <= FIXED * qr.abs())

    def _direction(self, A: LinearOperator, s: DCDMState, against: list[Direction]) -> Direction | None:
        """Return q made A-orthogonal to `against`, or None where no step along it is safe."""
        K = table(s.r.device)
        d, Ad = s.spare.pop() if s.spare else (torch.empty_like(s.r), torch.empty_like(s.r))
        d.copy_(s.q)
        for p in against:
            K.axpy(-K.dot(d, p.Ad) / p.curvature, p.d, d)
        curvature = A.matvec_dot(d, Ad)
        found = Direction(d, Ad, curvature, K.dot(d, s.r))
        square = K.dot(d, d)
        left = square > NOISE**2 * K.dot(s.q, s.q)
        if bool(left & torch.isfinite(found.gain) & (curvature > EPS * s.largest * square)):
            return found
        self._release(s, found)
        return None

    def _gains(self, proposal: Direction, s: DCDMState) -> bool:
        return bool(proposal.gain * s.largest >= (self.eta * s.residual_norm) ** 2)

    def _fallback(self, A: LinearOperator, s: DCDMState) -> Direction:
        """Return the direction of F r, else that of r, else r itself."""
        if not s.F_known:
            s.F, s.F_known = self._build(A), True
        if s.F is not None:
            s.F.apply(s.r, s.q)
            proposal = self._direction(A, s, s.past) if _clean(A, s.q) else None
            if proposal is not None:
                return proposal
        for against in (s.past, []):
            s.q.copy_(s.r)
            proposal = self._direction(A, s, against) if _clean(A, s.q) else None
            if proposal is not None:
                return proposal
        raise Breakdown(
            Status.NOT_POSITIVE_DEFINITE if bool(torch.isfinite(s.r).all()) else Status.NON_FINITE
        )

    def _build(self, A: LinearOperator) -> Preconditioner | None:
        if isinstance(self.fallback, Preconditioner):
            return self.fallback
        if self.fallback is not None:
            return self.fallback.build(A)
        try:
            return Jacobi().build(A)
        except StructureError:  # a function, whose diagonal is not known, or a zero on it
            return None

    def _reject(self, s: DCDMState) -> None:
        s.rejected += 1
        s.note = f"{s.rejected} of {s.steps + 1} directions of the network were rejected"

    def _release(self, s: DCDMState, direction: Direction | None) -> None:
        if direction is not None:
            s.spare.append((direction.d, direction.Ad))

    def _advance(self, A: LinearOperator, b: Tensor, s: DCDMState, step: Direction) -> None:
        """Step to the minimum of the A-norm error along d, and remember d."""
        t = step.slope / step.curvature
        s.residual_norm = table(b.device).cg_update(t, step.d, step.Ad, s.x, s.r).sqrt()
        s.steps += 1
        if s.steps % self.refresh == 0:
            torch.sub(b, A.matvec(s.x, s.q), out=s.r)
            s.residual_norm = norm(s.r)
        s.past.insert(0, step)
        s.last = t, step.Ad
        if len(s.past) > self.history:
            self._release(s, s.past.pop())


def _clean(A: LinearOperator, q: Tensor) -> bool:
    """Restrict q to what A acts on and scale it to maximum norm one; False where that cannot be."""
    if A.active is not None:
        q.copy_(torch.where(A.active, q, 0.0))
    size = torch.linalg.vector_norm(q, torch.inf)
    if not bool(torch.isfinite(size) & (size > 0)):
        return False
    q.div_(size)
    if A.null_space is not None:
        A.null_space.project(q)
    return True
