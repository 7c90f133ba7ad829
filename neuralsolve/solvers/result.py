"""The answer, and the truth about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Status(Enum):
    """How a solve ended; the value is the advice."""

    CONVERGED = "the true residual met max(rtol*||b||, atol)"
    PROJECTED = (
        "the consistent part of b is solved: b had a part in the null space of the singular A, which no x "
        "can reach; it was removed (result.removed is its norm)"
    )
    MAXITER = "maxiter reached: pass a preconditioner M, loosen rtol, or raise maxiter"
    STAGNATED = (
        "the true residual stopped falling: rtol is beyond what rounding allows for this A, or A is singular "
        "and b has a part that it cannot reach; loosen rtol, rescale A, or declare null_space=..."
    )
    ROUNDED = (
        "x in float64 met the default tolerance; rounded to the caller's dtype it leaves residual_norms[-1]: "
        "pass float64 for more digits, or an rtol to have the rounded x judged"
    )
    PRECISION = (
        "x in float64 met the tolerance, rounded to the caller's dtype it does not: pass float64, or loosen "
        "rtol"
    )
    DIVERGED = "the residual grew without bound: the iteration does not suit A; use ns.GMRES() or another M"
    NON_FINITE = "NaN or infinity appeared in the iteration: look at M (or the function that stands for A)"
    NOT_POSITIVE_DEFINITE = (
        "p.Ap <= 0: A is not positive definite (a sign? an undeclared null space?); use ns.MINRES() or "
        "ns.GMRES()"
    )
    INDEFINITE_PRECONDITIONER = (
        "r.Mr <= 0: M is not positive definite; use ns.FlexibleCG(), ns.GMRES() or another M"
    )
    BREAKDOWN = "the recurrence divided by zero: use ns.GMRES() or another x0"
    STOPPED = "the callback returned True"

    @property
    def converged(self) -> bool:
        """Whether this ending is a success."""
        return self in (Status.CONVERGED, Status.PROJECTED, Status.ROUNDED)


@dataclass(frozen=True)
class SolveResult:
    """What `solve` returns.

    Attributes
    ----------
    x : (n,) or (n, k), the caller's library, dtype and device
    status : Status, whose value is the advice
    converged : ||b - A x|| <= max(rtol ||b||, atol) for every column, recomputed in float64 from the x
        returned; b without its part in the null space where A is singular (PROJECTED), and without its
        entries outside the fluid of a grid; see ROUNDED for float32 at the default tolerance
    iterations : steps of the method; the largest over the columns where they ran one by one
    matvecs : products with A, the fair cost across methods
    residual_norms : ||b - A x_i||_2 for i = 0, 1, ...; the largest over columns
    setup_seconds, solve_seconds : wall time of the set-up (once per `prepare`) and of this solve
    explanation : what was chosen and why
    removed : 2-norm of the part of b that lies in the null space, the largest over columns; 0 where A is
        regular
    """

    x: Any
    status: Status
    converged: bool
    iterations: int
    matvecs: int
    residual_norms: list[float]
    setup_seconds: float
    solve_seconds: float
    explanation: str
    removed: float = 0.0

    def __str__(self) -> str:
        word = "converged" if self.converged else "NOT converged"
        last = self.residual_norms[-1] if self.residual_norms else float("nan")
        return (
            f"{word} ({self.status.name}): {self.iterations} iterations, {self.matvecs} products, ||b - Ax|| "
            f"= {last:.3g}, set-up {self.setup_seconds:.3g} s, solve {self.solve_seconds:.3g} s; "
            f"{self.explanation}"
        )
