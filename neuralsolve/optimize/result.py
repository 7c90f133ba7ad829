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
        "constraints are dependent here, and no shift makes the KKT matrix regular: drop those that follow "
        "from others, or start elsewhere; with faithful=True dependent ones are always the end"
    )
    LINE_SEARCH_FAILED = (
        "no step lowers the merit function any more: tol is beyond what rounding allows (scale f and c to "
        "about 1, take float64), derivatives do not belong to the functions (scipy.optimize.check_grad "
        "tells), or there is a kink"
    )
    INNER_CAP = "the inner solver reached inner_cap: raise it, or use inner='direct'"
    INFEASIBLE_STATIONARY = (
        "x is a stationary point of ||c|| where c is not zero: the constraints have no solution near here, "
        "or their Jacobian vanishes; start elsewhere"
    )
    UNBOUNDED = "f falls without end: there is no minimum, or a constraint is missing"
    NON_FINITE = "a Hessian became NaN or infinite: f or c has a kink or a pole here"
    RUNNING = "not at an end yet"
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
    minimum : whether x is a strict minimum to second order, by the inertia of the KKT matrix; None where
        that is
        not known: not converged, sparse, or dependent constraints
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
    minimum: bool | None = None

    @property
    def success(self) -> bool:
        """Whether x is a solution."""
        return self.status.success

    @property
    def message(self) -> str:
        """What the ending means."""
        return self.status.value

    def __getitem__(self, name: str) -> Any:
        """Return an attribute, as SciPy's results do."""
        return getattr(self, name)

    def __str__(self) -> str:
        word = "converged" if self.success else "NOT converged"
        return (
            f"{word} ({self.status.name}): f = {self.fun:.6g}, KKT residual {self.kkt_residual:.3g}, "
            f"max |c| = {self.constr_violation:.3g}, {self.nit} steps, {self.nfev} values, {self.njev} "
            f"gradients, {self.nhev} Hessians, {self.seconds:.3g} s; {self.explanation}"
        )
