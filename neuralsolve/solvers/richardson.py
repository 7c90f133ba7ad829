"""Richardson iteration x += omega M r: any preconditioner as a solver of its own.

With M = SOR it is the SOR method, with a direct factorisation it is a direct solve with iterative refinement
(Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., sec. 12). Cost per step: one product and one
application of M. It converges when the spectral radius of I - omega M A is below one; the residual is the
true one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from neuralsolve.errors import OptionError
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator, output_like
from neuralsolve.preconditioners.base import Preconditioner
from neuralsolve.solvers.method import Method, State, norm


@dataclass
class RichardsonState(State):
    """The residual r, and room for M r once there has been a residual to throw away."""

    r: Tensor = None  # type: ignore[assignment]
    z: Tensor | None = None


@dataclass(frozen=True)
class Richardson(Method):
    """Stationary iteration x += omega M (b - A x).

    Parameters
    ----------
    omega : relaxation of the whole correction; without M a step along the residual, for which omega must lie
        in (0, 2 / lambda_max(A))
    """

    omega: float = 1.0

    flexible: ClassVar[bool] = True
    keeps_r: ClassVar[bool] = True
    batched: ClassVar[bool] = True
    unseen: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.omega < float("inf"):
            msg = f"omega must be positive and finite, given {self.omega}"
            raise OptionError(msg)

    def init(
        self, A: LinearOperator, M: Preconditioner | None, b: Tensor, x: Tensor, r: Tensor
    ) -> RichardsonState:
        return RichardsonState(x, norm(r), exact=True, r=r)

    def step(
        self, A: LinearOperator, M: Preconditioner | None, b: Tensor, s: RichardsonState
    ) -> RichardsonState:
        z = output_like(s.r, len(s.r), s.z)
        z = z.copy_(s.r) if M is None else M.apply(s.r, z)
        if s.frozen is not None:
            z.masked_fill_(s.frozen, 0.0)
        K = table(b.device)
        K.axpy(self.omega, z, s.x)
        if A.null_space is not None:
            A.null_space.project(s.x)
        s.z = None if s.r is b else s.r  # b is the caller's
        s.r = A.matvec(s.x, z)
        K.xpby(b, -1.0, s.r)  # b - A x
        s.residual_norm = norm(s.r)
        return s
