"""Conjugate directions: made A-orthogonal to the last ones, measured, stepped along. What DCDM chooses among.

With error e, a step t = d.r / d.Ad along d gives ||e_new||_A^2 = ||e||_A^2 - (d.r)^2 / (d.Ad).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator
from neuralsolve.solvers.method import State, norm

EPS = torch.finfo(torch.float64).eps
NOISE = 1e-6  # part of ||q|| that must be left of it after orthogonalisation


class Direction(NamedTuple):
    """A direction d with A d, d.Ad > 0 and d.r; a step takes `gain` off the squared A-norm of the error."""

    d: Tensor
    Ad: Tensor
    curvature: Tensor
    slope: Tensor

    @property
    def gain(self) -> Tensor:
        return self.slope**2 / self.curvature


@dataclass
class Directions(State):
    """Residual r, proposal q, the last directions (newest first), and pairs of vectors to be used again.

    Attributes
    ----------
    last : step length t and A d of the last step
    largest : the largest eigenvalue of A, or a bound
    anchor : the last direction that was not a gradient one, F r; None where there was none
    since : gradient directions since then

    The gradient directions since the anchor, made A-orthogonal to it and to each other, are those of PCG in
    the A-orthogonal complement of the anchor (augmented CG: Erhel and Guyomarc'h, SIAM J. Matrix Anal.
    Appl. 21 (2000) 1279-1299), so PCG can go on from them. Older directions must not enter: PCG started
    from any direction but its gradient converges linearly only (Crowder and Wolfe, IBM J. Res. Dev. 16
    (1972) 431-433).
    """

    r: Tensor = None  # type: ignore[assignment]
    q: Tensor = None  # type: ignore[assignment]
    past: list[Direction] = field(default_factory=list)
    spare: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    last: tuple[Tensor, Tensor] | None = None
    largest: float = 0.0
    steps: int = 0
    anchor: Direction | None = None
    since: int = 0

    def propose(self, A: LinearOperator, z: Tensor) -> bool:
        """Set q to z where A acts, of maximum norm one; return False where that cannot be (zero, NaN)."""
        q = self.q.copy_(z)
        if A.active is not None:
            q.copy_(torch.where(A.active, q, 0.0))
        size = torch.linalg.vector_norm(q, torch.inf)
        if not bool(torch.isfinite(size) & (size > 0)):
            return False
        q.div_(size)
        if A.null_space is not None:
            A.null_space.project(q)
        return True

    def direction(self, A: LinearOperator, against: list[Direction]) -> Direction | None:
        """Return q made A-orthogonal to `against`, or None where no step along it is safe."""
        K = table(self.r.device)
        d, Ad = self.spare.pop() if self.spare else (torch.empty_like(self.r), torch.empty_like(self.r))
        d.copy_(self.q)
        for p in against:
            K.axpy(-K.dot(d, p.Ad) / p.curvature, p.d, d)
        curvature = A.matvec_dot(d, Ad)
        found = Direction(d, Ad, curvature, K.dot(d, self.r))
        square = K.dot(d, d)
        left = square > NOISE**2 * K.dot(self.q, self.q)
        if bool(left & torch.isfinite(found.gain) & (curvature > EPS * self.largest * square)):
            return found
        self.release(found)
        return None

    def gradient_space(self) -> list[Direction]:
        """Return what a gradient direction is made A-orthogonal to."""
        anchor = [] if self.anchor is None else [self.anchor]
        return self.past[: self.since] + anchor

    def release(self, direction: Direction | None) -> None:
        """Let the vectors of a direction be used again."""
        if direction is not None:
            self.spare.append((direction.d, direction.Ad))

    def step_along(self, direction: Direction, times: int = 1) -> Tensor:
        """Step to the minimum of the A-norm error along d (times -1: back); return the step length."""
        t = times * direction.slope / direction.curvature
        rr = table(self.r.device).cg_update(t, direction.d, direction.Ad, self.x, self.r)
        self.residual_norm = rr.sqrt()
        return t

    def advance(
        self, A: LinearOperator, b: Tensor, direction: Direction, gradient: bool, history: int, refresh: int
    ) -> None:
        """Step along d, remember it as the newest of `history`, and renew r every `refresh` steps."""
        self.last = self.step_along(direction), direction.Ad
        self.steps += 1
        if self.steps % refresh == 0:
            torch.sub(b, A.matvec(self.x, self.q), out=self.r)
            self.residual_norm = norm(self.r)
        self.past.insert(0, direction)
        self.since += 1
        if not gradient and history:
            self.drop_anchor()
            self.anchor, self.since = direction, 0
        if len(self.past) > history:
            oldest = self.past.pop()
            if oldest is not self.anchor:
                self.release(oldest)

    def drop_anchor(self) -> None:
        """Forget the anchor; its vectors are free unless it is still among the last directions."""
        if self.anchor is not None and not any(p is self.anchor for p in self.past):
            self.release(self.anchor)
        self.anchor, self.since = None, 0
