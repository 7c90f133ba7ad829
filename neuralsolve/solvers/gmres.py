"""Generalised minimal residuals, restarted, flexible.

Problem: A x = b, A any regular matrix; M may be any map, another one at every step. Sources: Saad and
Schultz, GMRES, SIAM J. Sci. Stat. Comput. 7 (1986) 856-869; Saad, A flexible inner-outer preconditioned
GMRES algorithm, SIAM J. Sci. Comput. 14 (1993) 461-469, algorithm 2.2. M stands on the right, so the
residual that is minimised is the true one.

Step j of a cycle costs one product, one application of M and 4 j n multiply-adds for the orthogonalisation,
8 j n where cancellation asks for a second pass. Memory: restart + 1 vectors, and restart more with M.

Differences from the sources: the new vector is orthogonalised by classical Gram-Schmidt with matrix-vector
products, a second time where it lost more than a factor sqrt(2) of its length; twice is enough to keep the
basis orthogonal to rounding (Giraud, Langou, Rozloznik and van den Eshof, Numer. Math. 101 (2005) 87-100),
which modified Gram-Schmidt does not. The small triangular system lives on the host: one transfer of j
numbers a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from neuralsolve.errors import Breakdown, OptionError
from neuralsolve.operators.base import LinearOperator
from neuralsolve.preconditioners.base import Preconditioner
from neuralsolve.solvers.method import Method, State, norm
from neuralsolve.solvers.result import Status

EPS = torch.finfo(torch.float64).eps
CANCELLATION = math.sqrt(0.5)  # a vector shorter than this part of itself is orthogonalised again


@dataclass
class GMRESState(State):
    """Basis V, preconditioned basis Z (V itself without M), and the QR factors of the Hessenberg matrix.

    Attributes
    ----------
    V : (m + 1, n)
    Z : (m, n)
    R : columns of the triangular factor, the j-th of j + 1 numbers
    rotations : (c, s) per column
    g : rotated right side; |g[-1]| is the residual norm
    """

    V: Tensor = None  # type: ignore[assignment]
    Z: Tensor = None  # type: ignore[assignment]
    R: list[list[float]] = field(default_factory=list)
    rotations: list[tuple[float, float]] = field(default_factory=list)
    g: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class GMRES(Method):
    """Restarted, right-preconditioned, flexible GMRES (Saad 1993) for any regular A and any M.

    Parameters
    ----------
    restart : steps after which the basis is dropped and a new cycle starts from the present x; memory and
        work grow with it. The residual never grows, but with a small `restart` it may stand still.

    Raises
    ------
    OptionError
        restart < 1

    Examples
    --------
    >>> import neuralsolve as ns, numpy as np, scipy.sparse as sp
    >>> A = sp.diags_array([-1.0, 2.0, -0.5], offsets=[-1, 0, 1], shape=(40, 40))
    >>> ns.solve(A, np.ones(40), ns.GMRES(restart=20)).converged
    True
    """

    restart: int = 50

    needs: ClassVar[str] = "any"
    flexible: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if int(self.restart) != self.restart or self.restart < 1:
            msg = f"restart is {self.restart!r}; a whole number >= 1 is needed, such as ns.GMRES(restart=50)"
            raise OptionError(msg)

    def init(
        self, A: LinearOperator, M: Preconditioner | None, b: Tensor, x: Tensor, r: Tensor
    ) -> GMRESState:
        m = min(self.restart, len(b))
        V = b.new_empty((m + 1, len(b)))
        V[0] = r
        s = GMRESState(x, norm(r), V=V, Z=V if M is None else b.new_empty((m, len(b))))
        _begin(s)
        return s

    def step(self, A: LinearOperator, M: Preconditioner | None, b: Tensor, s: GMRESState) -> GMRESState:
        j = len(s.R)
        if j == len(s.V) - 1 or (j and s.g[j] == 0):
            self._restart(A, M, b, s)
            j = 0
        v, w = s.V[j], s.V[j + 1]
        z = v if M is None else M.apply(v, s.Z[j])
        A.matvec(z, w)
        length = float(norm(w))
        column, rest = _orthogonalise(s.V[: j + 1], w, length)
        if not math.isfinite(rest + length):
            raise Breakdown(Status.NON_FINITE)
        happy = rest <= 8 * EPS * length  # the space is invariant: it holds the solution
        if not happy:
            w.mul_(1 / rest)

        for i, (c, sn) in enumerate(s.rotations):
            column[i], column[i + 1] = c * column[i] + sn * column[i + 1], c * column[i + 1] - sn * column[i]
        if (
            happy and abs(column[j]) <= 8 * EPS * length
        ):  # A M is singular there: no solution in this direction
            raise Breakdown(Status.BREAKDOWN)
        below = 0.0 if happy else rest
        pivot = math.hypot(column[j], below)
        c, sn = column[j] / pivot, below / pivot
        column[j] = pivot
        s.R.append(column)
        s.rotations.append((c, sn))
        s.g[j:] = [c * s.g[j], -sn * s.g[j]]
        s.residual_norm = b.new_tensor(abs(s.g[-1]))
        return s

    def solution(self, A: LinearOperator, M: Preconditioner | None, s: GMRESState) -> Tensor:
        """Return x + Z y, y from the triangular system; the state stays as it is."""
        j = len(s.R)
        if j == 0:
            return s.x
        y = _back_substitute(s.R, s.g[:j])
        return torch.addmv(s.x, s.Z[:j].T, s.x.new_tensor(y))

    def _restart(self, A: LinearOperator, M: Preconditioner | None, b: Tensor, s: GMRESState) -> None:
        s.x = self.solution(A, M, s)
        torch.sub(b, A.matvec(s.x, s.V[0]), out=s.V[0])
        s.residual_norm = norm(s.V[0])
        _begin(s)


def _begin(s: GMRESState) -> None:
    """Start a cycle from the residual that lies in V[0]."""
    size = float(s.residual_norm)
    if size > 0:
        s.V[0].mul_(1 / size)
    s.R, s.rotations, s.g = [], [], [size]


def _orthogonalise(V: Tensor, w: Tensor, length: float) -> tuple[list[float], float]:
    """Make w orthogonal to the rows of V in place; return the coefficients and its new length."""
    h = torch.mv(V, w)
    w.addmv_(V.T, h, alpha=-1)
    rest = float(norm(w))
    if rest < CANCELLATION * length:
        again = torch.mv(V, w)
        w.addmv_(V.T, again, alpha=-1)
        h += again
        rest = float(norm(w))
    return h.tolist(), rest


def _back_substitute(R: list[list[float]], g: list[float]) -> list[float]:
    y = list(g)
    for k in range(len(R) - 1, -1, -1):
        y[k] /= R[k][k]
        for i in range(k):
            y[i] -= y[k] * R[k][i]
    return y
