"""Options of the constrained minimiser."""

from __future__ import annotations

from dataclasses import dataclass

from neuralsolve.errors import OptionError, nearest

INNER = ("auto", "direct", "minres", "kaczmarz", "gaussian-vector", "gaussian", "countsketch", "srht")
SKETCHED = INNER[3:]


@dataclass(frozen=True)
class SketchedNewton:
    """Newton's method on the exact augmented Lagrangian, its linear systems solved as well as a step needs.

    Parameters
    ----------
    inner : what solves the KKT system of a step. "direct": factorisation, dense LDL^T with its inertia or
        sparse LU; "minres", with the problem's own preconditioner where it has one; "kaczmarz",
        "gaussian-vector", "gaussian", "countsketch", "srht": randomised sketch and project, for study.
        "auto": "minres" for a problem with a preconditioner, else "direct"; "kaczmarz" if faithful.
    faithful : the algorithm as published, constants and all: no regularised Jacobian, penalties that only
        grow, a shift of xi_B + ||H||, no second-order correction; its matrices are dense
    eta1, eta2 : penalties at the start
    beta : part of the promised descent that a step must bring (Armijo)
    block : rows of a block sketch
    inner_cap : inner iterations a step
    seed : of the sketches

    Raises
    ------
    OptionError

    Examples
    --------
    >>> SketchedNewton(inner="minres").inner
    'minres'
    """

    inner: str = "auto"
    faithful: bool = False
    eta1: float = 1.0
    eta2: float = 0.1
    beta: float = 0.1
    block: int = 8
    inner_cap: int = 1_000_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.inner not in INNER:
            msg = f"inner = {self.inner!r}{nearest(self.inner, INNER)}"
            raise OptionError(msg)
        if self.faithful and self.inner in ("direct", "minres"):
            msg = (
                f"faithful with inner = {self.inner!r}; one of the sketches is needed: {', '.join(SKETCHED)}"
            )
            raise OptionError(msg)
        if not (0 < self.eta1 < 1e8 and 1e-8 < self.eta2 < 1e8 and 0 < self.beta < 0.5):
            msg = (
                f"eta1 = {self.eta1}, eta2 = {self.eta2}, beta = {self.beta}; eta1 in (0, 1e8), eta2 in "
                "(1e-8, 1e8) and beta in (0, 1/2) are needed"
            )
            raise OptionError(msg)
        if min(self.block, self.inner_cap) < 1:
            msg = f"block = {self.block}, inner_cap = {self.inner_cap}; both must be at least 1"
            raise OptionError(msg)
