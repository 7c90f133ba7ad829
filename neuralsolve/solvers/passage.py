"""The way of a caller's b to the solver, and of x back: library, rows, signs, null space, scale."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuralsolve.errors import ShapeError
from neuralsolve.kernels import table
from neuralsolve.operators.convert import Home, as_vector, check_finite
from neuralsolve.operators.vectors import copy_of, empty
from neuralsolve.solvers.loop import Callback, Outcome
from neuralsolve.solvers.method import norm
from neuralsolve.solvers.result import Status
from neuralsolve.solvers.structure import Structure

ROUNDED_LIMIT = 1e-3  # of ||b||: what rounding x to float32 may leave at the default tolerance
SAFE_SIZE = 1e140  # beyond it, or below its inverse, squares leave float64: b is scaled by a power of two


@dataclass(frozen=True)
class Passage:
    """A right side on its way, and all that brings its answer home.

    Attributes
    ----------
    structure : of the A that it is solved with
    home : where b came from
    rhs : b as the solver takes it (masked, flipped, projected, scaled)
    scale : of every column; 1.0 where none was needed
    removed : norm of what was taken out of every column, scaled: no x reaches it
    whole : with a numbering, what is left of b in the caller's rows, scaled
    known : with a numbering, the entries of x in the rows that stand alone, scaled
    """

    structure: Structure
    home: Home
    rhs: Tensor
    scale: Tensor | float
    removed: Tensor
    whole: Tensor | None = None
    known: Tensor | None = None

    @property
    def size(self) -> Tensor:
        """The norm of b without what was removed, scaled, per column."""
        return norm(self.rhs if self.whole is None else self.whole)

    @property
    def largest_scale(self) -> float:
        """One number for the history of all columns."""
        return float(self.scale.max()) if isinstance(self.scale, Tensor) else self.scale

    def guess(self, x0: Any) -> Tensor | None:
        """Return the caller's first guess as the solver takes it."""
        if x0 is None:
            return None
        numbering = self.structure.numbering
        like = self.rhs if self.whole is None else self.whole
        guess, _ = as_vector(x0, len(like), "x0", like.device)
        if guess.shape != like.shape:
            msg = f"x0 has shape {tuple(guess.shape)}, b has {tuple(like.shape)}; they must agree"
            raise ShapeError(msg)
        guess, _ = _checked(numbering.to_grid(guess) if numbering else guess, self.structure, "x0")
        return guess / self.scale if isinstance(self.scale, Tensor) else guess

    def residual(self, x: Tensor) -> Tensor:
        """Return b - A x of the caller's A and rows, for x in the caller's rows, both scaled."""
        if self.whole is None:
            return self.rhs - self.structure.A.matvec(x)
        assert self.structure.numbering is not None
        return self.whole - self.structure.numbering.matrix.matvec(x)

    def check(self, outcome: Outcome, tolerance: Tensor, run: Callable[..., Outcome]) -> Outcome:
        """Return the outcome with the residual of the caller's own rows, refined until that meets it.

        A stencil agrees with the matrix that it was read from to rounding, of float32 where that is its type:
        the loop's residual and the true one differ by as much, times |x|.
        """
        if self.whole is None or outcome.status is not Status.CONVERGED:
            return outcome
        before, signs = None, self.structure.signs
        while True:
            r = self.residual(self.rows(outcome.x))
            true = norm(r)
            outcome = dataclasses.replace(outcome, true_norm=true)
            outcome.residual_norms[-1] = float(true.max())
            if bool((true <= tolerance).all()):
                return outcome
            if before is not None and not bool((true <= before / 2)[true > tolerance].all()):
                return dataclasses.replace(outcome, status=Status.STAGNATED)
            before = true
            assert self.structure.numbering is not None
            rhs = self.structure.numbering.to_grid(r if signs is None else r * signs[0])
            if self.structure.A.null_space is not None:
                self.structure.A.null_space.project(rhs)
            step = run(rhs, None)
            outcome = dataclasses.replace(
                step,
                x=outcome.x + step.x,
                iterations=outcome.iterations + step.iterations,
                residual_norms=outcome.residual_norms + step.residual_norms[1:],
            )
            if step.status is not Status.CONVERGED:
                return outcome

    def rows(self, x: Tensor) -> Tensor:
        """Return x of the solver in the caller's rows, scaled."""
        numbering = self.structure.numbering
        return x if numbering is None else numbering.to_rows(x, self.known)

    def observe(self, callback: Callback | None) -> Callback | None:
        """Return the callback that the loop calls for that of the caller, who gets an x of their own."""
        if callback is None:
            return None

        def call(iteration: int, residual_norm: float, x: Tensor) -> Any:
            return callback(
                iteration, residual_norm * self.largest_scale, self.home.bring(self.rows(x) * self.scale)
            )

        return call

    def deliver(self, outcome: Outcome, tolerance: Tensor, strict: bool) -> tuple[Any, Status]:
        """Return x as the caller's array, and the status of *that* array.

        Rounding to float32 may cost the tolerance: a failure where the caller asked for it (`strict`).
        """
        scaled = self.rows(outcome.x)
        x = scaled * self.scale if isinstance(self.scale, Tensor) else scaled
        answer = self.home.bring(x)
        if outcome.status is not Status.CONVERGED:
            return answer, outcome.status
        if isinstance(self.scale, Tensor) and not bool(torch.isfinite(x).all()):
            return answer, Status.NON_FINITE
        if self.home.epsilon > 1e-10:
            rounded, _ = as_vector(answer, len(x), "x", x.device)
            residual = norm(self.residual(rounded / self.scale))
            outcome.residual_norms[-1] = float(residual.max())
            if bool((residual <= tolerance).all()):
                return answer, outcome.status
            near = bool((residual <= ROUNDED_LIMIT * self.size).all())
            return answer, Status.ROUNDED if near and not strict else Status.PRECISION
        return answer, outcome.status


def receive(structure: Structure, b: Any) -> Passage:
    """Bring a caller's b to where A is solved."""
    A, signs, numbering = structure.A, structure.signs, structure.numbering
    rows = A.shape[0] if numbering is None else numbering.matrix.shape[0]
    given, home = as_vector(b, rows, device=A.device)
    if A.columns is not None and tuple(given.shape) != (rows, A.columns):
        msg = f"b is {tuple(given.shape)}, and A holds {A.columns} systems; ({rows}, {A.columns}) is needed"
        raise ShapeError(msg)
    rhs, largest = _checked(given, structure, "b")
    scale: Tensor | float = 1.0
    if (largest and not 1 / SAFE_SIZE < largest < SAFE_SIZE) or _has_tiny_column(rhs):
        size = rhs.abs().amax(0)
        scale = torch.exp2(torch.where(size > 0, size, 1.0).log2().floor())
        rhs = rhs / scale
    whole, known = rhs, None
    if numbering is not None:
        known = numbering.solve_alone(whole)
        rhs = numbering.to_grid(numbering.without_known(whole, known))
    if signs is not None:
        rhs = rhs * (signs if rhs.ndim == 1 else signs[:, None])
    nothing = torch.zeros(rhs.shape[1:], dtype=torch.float64, device=rhs.device)
    passage = Passage(structure, home, rhs, scale, nothing)
    if numbering is not None:
        return _project_rows(dataclasses.replace(passage, whole=whole, known=known))
    if A.null_space is None or not structure.symmetric:  # else its range is another space
        return passage
    rhs = copy_of(rhs) if rhs is given else rhs  # b is the caller's
    return dataclasses.replace(passage, rhs=rhs, removed=A.null_space.project(rhs))


def _project_rows(passage: Passage) -> Passage:
    """Take out of b what no x reaches: the null space of the stencil, and entries of empty rows."""
    structure, rhs, whole = passage.structure, passage.rhs, passage.whole
    numbering, Z = structure.numbering, structure.A.null_space
    assert numbering is not None
    assert whole is not None
    removed, none = passage.removed, numbering.empty_rows()
    if Z is None and not len(none):
        return passage
    whole = copy_of(whole)
    if Z is not None:
        before = copy_of(rhs)
        removed = Z.project(rhs)
        taken = (before - rhs) * (1.0 if structure.signs is None else structure.signs[0])
        whole -= numbering.to_rows(taken)
    if len(none):
        removed = torch.hypot(removed, norm(whole[none]))
        whole[none] = 0
    return dataclasses.replace(passage, rhs=rhs, removed=removed, whole=whole)


def _checked(v: Tensor, structure: Structure, name: str) -> tuple[Tensor, float]:
    """Return a vector of the caller's, zero where A is not active, and its largest entry, which is finite."""
    active = structure.A.active
    if active is None or structure.numbering is not None:
        return v, check_finite(v, name)
    masked = empty(tuple(v.shape), v)
    if active.ndim == v.ndim:  # every column has cells of its own
        most = table(v.device).masked_copy(active.reshape(-1), v.reshape(-1), masked.view(-1))
    else:
        most = table(v.device).masked_copy(active, v, masked)
    return masked, most if math.isfinite(most) else check_finite(masked, name)


def _has_tiny_column(rhs: Tensor) -> bool:
    """Whether the squares of some column, but not of all, would vanish."""
    if rhs.ndim == 1:
        return False
    faint = norm(rhs) < math.sqrt(len(rhs)) / SAFE_SIZE
    return bool(faint.any()) and bool((rhs[:, faint] != 0).any())
