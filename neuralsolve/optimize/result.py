"""How a minimisation ended, in SciPy's names, and what it reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class MinimizeStatus(Enum):
    """How it ended; the value is the advice."""

    CONVERGED = "the KKT residual ||(grad_x L, c)|| is at most tol"
    MAX_ITER = (
        "maxiter or maxfun reached: raise it, start nearer, or scale unknowns and constraints to about 1"
    )
    SINGULAR_JACOBIAN = (
        "the constraints are dependent here: drop those that follow from others; "
        "ns.SketchedNewton(faithful=False) goes on without"
    )
    LINE_SEARCH_FAILED = (
        "no step lowers the merit function: derivatives that do not belong to the functions "
        "(scipy.optimize.check_grad tells), or tol is beyond what rounding allows"
    )
    INNER_CAP = "the inner solver reached inner_cap: raise it, or use inner='direct'"
    INFEASIBLE_STATIONARY = (
        "x is a stationary point of ||c|| where c is not zero: the constraints contradict each other near "
        "here; start elsewhere, or look at result.constr with ns.minimize's docs"
    )
    STOPPED = "the callback said so"

    @property
    def success(self) -> bool:
        """Whether this ending is a solution."""
        return self is MinimizeStatus.CONVERGED


@dataclass(frozen=True)
class MinimizeResult:
    """What `minimize` returns.

    Attributes
    ----------
    x : (n,), in the caller's library
    fun, jac : f and its gradient there
    constr : (m,), the constraints there
    multipliers : (m,) of the Lagrangian f + multipliers . c
    kkt_residual : ||(grad_x L, c)||_2, recomputed from x and the multipliers returned
    constr_violation : max |c_i|
    status, success, message : the ending; the message is the advice
    nit : steps
    nfev, njev, nhev : values, gradients, Hessians of f that were asked for; those of c as often
    inner_iterations : of the inner solver, all steps together
    history : a row for the start and one for each step: fun, kkt_residual, constr_violation, step_length,
        shift, eta1, eta2, inner
    seconds : wall time
    explanation : what was chosen and why
    """

    x: Any
    fun: float
    jac: Any
    constr: Any
    multipliers: Any
    kkt_residual: float
    constr_violation: float
    status: MinimizeStatus
    nit: int
    nfev: int
    njev: int
    nhev: int
    inner_iterations: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    explanation: str = ""

    @property
    def success(self) -> bool:
        """Whether x is a solution."""
        return self.status.success

    @property
    def message(self) -> str:
        """What the ending means."""
        return self.status.value

    def __str__(self) -> str:
        word = "converged" if self.success else "NOT converged"
        return (
            f"{word} ({self.status.name}): f = {self.fun:.6g}, KKT residual {self.kkt_residual:.3g}, "
            f"max |c| = {self.constr_violation:.3g}, {self.nit} steps, {self.nfev} values, {self.njev} "
            f"gradients, {self.nhev} Hessians, {self.seconds:.3g} s; {self.explanation}"
        )
