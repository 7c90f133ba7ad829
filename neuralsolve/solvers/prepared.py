"""`Prepared`: A looked at once, its preconditioner built; from a caller's b to an answer that was checked."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import InputError, OptionError, ShapeError, SolveError, StructureError
from neuralsolve.operators.base import LinearOperator, copy_of, shallow
from neuralsolve.operators.convert import Home, as_operator, as_vector, check_finite
from neuralsolve.operators.structured import CallableOperator
from neuralsolve.preconditioners.base import Recipe
from neuralsolve.preconditioners.given import Library, as_recipe
from neuralsolve.solvers.adjoint import differentiable_solve, wants_gradient
from neuralsolve.solvers.auto import Plan, direct, plans
from neuralsolve.solvers.bounds import largest_eigenvalue
from neuralsolve.solvers.loop import PATIENCE, Callback, Outcome, Products, iterate
from neuralsolve.solvers.method import Method, norm
from neuralsolve.solvers.result import SolveResult, Status
from neuralsolve.solvers.structure import Structure, probe

DEFAULT_RTOL = {torch.float64: 1e-8, torch.float32: 1e-5}
NUMBERS = (int, float, np.integer, np.floating)
ROUNDED_LIMIT = 1e-3  # of ||b||: what rounding x to float32 may leave at the default tolerance
SAFE_SIZE = 1e140  # beyond it, or below its inverse, squares leave float64: b is scaled by a power of two


class Prepared:
    """A, looked at once and with its preconditioner built.

    `solve(b)` many times, `update(A_next)` when A changes.
    """

    def __init__(
        self,
        A: Any,
        method: Method | Recipe | None = None,
        *,
        M: Any = None,
        rtol: float | None = None,
        atol: float = 0.0,
        maxiter: int | None = None,
        null_space: Any = None,
    ):
        start = time.perf_counter()
        self.rtol, self.atol, self.maxiter = _tolerances(rtol, atol, maxiter)
        self._null_space_given, self._method_given, self._M_given = null_space, method, M
        self._library = Library()
        self._source = as_operator(A)
        self._structure = probe(self._source, null_space)
        self._recipe_given = as_recipe(M, self._source.shape[0], self._library)
        self._plans = self._make_plans()
        self._failed: list[str] = []
        self._transposed: Prepared | None = None
        self._recorded = False  # a gradient may still need the present M
        self._lock = threading.RLock()  # M and the plans have room and state of their own
        self._build_first()
        self.setup_seconds = time.perf_counter() - start

    def __reduce__(self) -> tuple[Any, ...]:
        given = (self._source, self._method_given, self._M_given, self.rtol, self.atol, self.maxiter)
        return _prepare_again, (*given, self._null_space_given)  # the set-up is done anew, in the new process

    @property
    def explanation(self) -> str:
        """What was chosen and why."""
        built = f" [{self._M.describe()}]" if self._M is not None else ""
        return "; ".join([*self._failed, self._plans[0].reason + built])

    def solve(
        self,
        b: Any,
        x0: Any = None,
        *,
        rtol: float | None = None,
        atol: float | None = None,
        maxiter: int | None = None,
        callback: Callback | None = None,
        throw: bool = True,
    ) -> SolveResult:
        """Solve for a right side; tolerances given here replace those of `prepare`. See `solve`."""
        rtol, atol, maxiter = _tolerances(
            self.rtol if rtol is None else rtol,
            self.atol if atol is None else atol,
            self.maxiter if maxiter is None else maxiter,
        )

        if callback is not None and not callable(callback):
            msg = f"callback is {callback!r}; a function (iteration, residual_norm, x) is needed"
            raise OptionError(msg)

        def forward(b: Any) -> SolveResult:
            with self._lock:
                return self._solve(b, x0, rtol, atol, maxiter, callback)

        if wants_gradient(self._source, b):
            self._recorded = True
            present = shallow(self)  # the gradient belongs to this A, whatever `update` brings before it
            x, result = differentiable_solve(forward, lambda g: present._adjoint(g, rtol), self._source, b)
            result = dataclasses.replace(result, x=x)
        else:
            result = forward(b)
        if throw and not result.converged:
            msg = f"{result.status.name}: {result.status.value} [{result}]"
            raise SolveError(msg, result)
        return result

    def update(self, A_next: Any) -> Prepared:
        """Follow A to its next values, keeping what the pattern allows; return self.

        Raises
        ------
        ShapeError
            A_next is of another size: call `prepare` anew.
        """
        start = time.perf_counter()
        source = as_operator(A_next)
        if source.shape != self._source.shape:
            msg = (
                f"A was {self._source.shape}, A_next is {source.shape}; call ns.prepare(A_next, ...) for "
                "another size"
            )
            raise ShapeError(msg)
        with self._lock:
            following = shallow(self)  # takes the place of self only when all went well
            following._follow(source)
            following.setup_seconds = time.perf_counter() - start
            vars(self).update(vars(following))
        return self

    def _follow(self, source: LinearOperator) -> None:
        before, structure = self._structure, probe(source, self._null_space_given)
        self._source, self._structure, self._transposed = source, structure, None
        if _kind(structure) != _kind(before):
            self._plans, self._failed = self._make_plans(), []
            self._build_first()
        elif self._M is not None:
            recipe, recorded = self._plans[0].recipe, self._recorded
            self._recorded = False
            if recorded and recipe is not None:
                self._M = recipe.build(structure.A)
                return
            try:
                self._M.update(structure.A)
            except InputError:
                self._M.update(before.A)
                raise

    # set-up

    def _make_plans(self) -> list[Plan]:
        method, recipe, structure = self._method_given, self._recipe_given, self._structure
        if method is None:
            return plans(structure, recipe)
        if isinstance(method, Recipe):
            if recipe is not None:
                msg = (
                    f"{type(method).__name__} is a direct method and takes no M; drop M, or use ns.CG() with "
                    "it"
                )
                raise OptionError(msg)
            return [direct(method, f"{method} (given): {structure.describe()}")]
        if not isinstance(method, Method):
            msg = (
                f"method is {method!r}; an object such as ns.CG() or ns.GMRES(restart=50) is needed, or None"
            )
            raise OptionError(msg)
        _check_suits(method, structure)
        return [Plan(method, recipe, f"{method} (given): {structure.describe()}")]

    def _build_first(self) -> None:
        """Build the preconditioner of the first plan that can be built."""
        while True:
            plan = self._plans[0]
            try:
                self._M = None if plan.recipe is None else plan.recipe.build(self._structure.A)
            except InputError as error:
                if len(self._plans) == 1:
                    raise
                self._next_plan(str(error).split(";")[0])
            else:
                self._check_preconditioner(plan)
                return

    def _check_preconditioner(self, plan: Plan) -> None:
        if self._M is None or plan.method.flexible or plan.method.needs == "any" or self._M.symmetric:
            return
        msg = (
            f"{type(plan.method).__name__} needs a symmetric positive definite M; {self._M.describe()} is "
            "not: use ns.SSOR() for ns.SOR(), or a flexible method: ns.GMRES(), ns.FlexibleCG()"
        )
        raise StructureError(msg)

    def _try_next_plan(self, why: str) -> bool:
        """Go on to the next plan whose preconditioner can be built; stay where there is none."""
        present = self._plans, self._failed, self._M
        self._failed = [*self._failed]
        self._next_plan(why)
        try:
            self._build_first()
        except InputError:
            self._plans, self._failed, self._M = present
            return False
        return True

    def _next_plan(self, why: str) -> None:
        self._failed.append(f"{self._plans[0].reason.split(':')[0]} given up ({why})")
        self._plans = self._plans[1:]

    # solution

    def _solve(
        self, b: Any, x0: Any, rtol: float | None, atol: float, maxiter: int | None, callback: Callback | None
    ) -> SolveResult:
        start = time.perf_counter()
        A = self._structure.A
        rhs, home, removed, scale = self._receive(b)
        guess = None if x0 is None else self._receive_guess(x0, rhs, scale)
        self._library.torch = home.torch
        strict = rtol is not None
        if rtol is None:
            rtol = DEFAULT_RTOL[torch.float64 if home.epsilon < 1e-10 else torch.float32]
        size = norm(rhs)
        tolerance = (rtol * size).maximum(torch.as_tensor(atol / scale))
        if A.null_space is not None:  # what the projection's own rounding leaves of a b in the null space
            tolerance = torch.maximum(tolerance, 4 * torch.finfo(torch.float64).eps * removed)
        matvecs, best, told = 0, None, ""
        while True:
            products, plan = Products(A), self._plans[0]
            limit = maxiter or plan.maxiter or min(max(1000, 10 * len(rhs)), 20_000)
            observe = _scaled(callback, scale, home)
            patience = max(plan.patience, maxiter or 0) if plan.patience == PATIENCE else plan.patience
            outcome = iterate(
                plan.method, products.A, self._M, rhs, guess, tolerance, limit, observe, patience
            )
            matvecs += products.count
            if best is None or _better(outcome, best):
                best, told = outcome, self.explanation
            if len(self._plans) == 1 or outcome.status in (Status.CONVERGED, Status.STOPPED):
                break
            if (outcome.status is Status.MAXITER and maxiter) or _backward_stable(A, outcome, rhs):
                break  # the caller's own limit, or as good as any method's answer
            if not self._try_next_plan(outcome.status.name.lower()):
                break
        outcome = best
        largest_scale = float(scale.max()) if isinstance(scale, Tensor) else scale
        x, status = self._deliver(outcome, rhs, home, tolerance, scale, strict)
        allowed = (rtol * torch.hypot(size, removed)).maximum(torch.as_tensor(atol / scale))
        worst = torch.hypot(outcome.true_norm, removed) > allowed
        if status is Status.CONVERGED and bool(((removed > 0) & worst).any()):
            status = Status.PROJECTED
        return SolveResult(
            x=x,
            status=status,
            converged=status.converged,
            iterations=outcome.iterations,
            matvecs=matvecs,
            residual_norms=[r * largest_scale for r in outcome.residual_norms],
            setup_seconds=self.setup_seconds,
            solve_seconds=time.perf_counter() - start,
            explanation="; ".join(filter(None, [told, outcome.note])),
            removed=float((removed * scale).max()),
        )

    def _receive(self, b: Any) -> tuple[Tensor, Home, Tensor, Tensor | float]:
        """Return b as the solver takes it (masked, flipped, projected, scaled), and what was removed."""
        A, signs = self._structure.A, self._structure.signs
        rhs, home = as_vector(b, A.shape[0])
        if A.active is not None:
            rhs = torch.where(A.active if rhs.ndim == 1 else A.active[:, None], rhs, 0.0)
        largest = check_finite(rhs, "b")
        if signs is not None:
            rhs = rhs * (signs if rhs.ndim == 1 else signs[:, None])
        scale: Tensor | float = 1.0
        if (largest and not 1 / SAFE_SIZE < largest < SAFE_SIZE) or _has_tiny_column(rhs):
            size = rhs.abs().amax(0)
            scale = torch.exp2(torch.where(size > 0, size, 1.0).log2().floor())
            rhs = rhs / scale
        removed = torch.zeros(rhs.shape[1:], dtype=torch.float64)
        if A.null_space is not None and self._structure.symmetric:  # else its range is another space
            rhs = copy_of(rhs)  # b is the caller's
            removed = A.null_space.project(rhs)
        return rhs, home, removed, scale

    def _receive_guess(self, x0: Any, rhs: Tensor, scale: Tensor | float) -> Tensor:
        guess, _ = as_vector(x0, len(rhs), "x0")
        if guess.shape != rhs.shape:
            msg = f"x0 has shape {tuple(guess.shape)}, b has {tuple(rhs.shape)}; they must agree"
            raise ShapeError(msg)
        A = self._structure.A
        if A.active is not None:
            guess = torch.where(A.active if guess.ndim == 1 else A.active[:, None], guess, 0.0)
        check_finite(guess, "x0")
        return guess / scale if isinstance(scale, Tensor) else guess

    def _deliver(
        self,
        outcome: Outcome,
        rhs: Tensor,
        home: Home,
        tolerance: Tensor,
        scale: Tensor | float,
        strict: bool,
    ) -> tuple[Any, Status]:
        """Return x as the caller's array, and the status of *that* array.

        Rounding to float32 may cost the tolerance: a failure where the caller asked for it (`strict`).
        """
        x = outcome.x * scale if isinstance(scale, Tensor) else outcome.x
        answer = home.bring(x)
        if outcome.status is not Status.CONVERGED:
            return answer, outcome.status
        if isinstance(scale, Tensor) and not bool(torch.isfinite(x).all()):
            return answer, Status.NON_FINITE
        if home.epsilon > 1e-10:
            rounded, _ = as_vector(answer, len(x), "x")
            residual = norm(rhs - self._structure.A.matvec(rounded / scale))
            outcome.residual_norms[-1] = float(residual.max())
            if bool((residual <= tolerance).all()):
                return answer, outcome.status
            near = bool((residual <= ROUNDED_LIMIT * norm(rhs)).all())
            return answer, Status.ROUNDED if near and not strict else Status.PRECISION
        return answer, outcome.status

    def _adjoint(self, g: Tensor, rtol: float | None) -> Tensor:
        """Solve A^T lam = g for the gradient, to the tolerance of the forward solve."""
        rtol = rtol or DEFAULT_RTOL[torch.float64]
        solver = self
        if not self._structure.symmetric:
            if self._transposed is None:
                T = self._source.to(dtype=torch.float64)
                transposed = CallableOperator(T.rmatvec, T.shape, torch.float64, T.matvec, block=True)
                matrix = None if isinstance(T, CallableOperator) else T.to_scipy().T.tocsr()
                self._transposed = Prepared(transposed if matrix is None else matrix)
            solver = self._transposed
        with solver._lock:  # the tolerance of the forward solve, relative to g; its other limits were for b
            result = solver._solve(g, None, rtol, 0.0, None, None)
        if not result.converged:
            msg = f"the adjoint solve of the gradient ended in {result.status.name}: {result.status.value}"
            raise SolveError(msg, result)
        return result.x


def _has_tiny_column(rhs: Tensor) -> bool:
    """Whether the squares of some column, but not of all, would vanish."""
    if rhs.ndim == 1:
        return False
    size = rhs.abs().amax(0)
    return bool(((size > 0) & (size < 1 / SAFE_SIZE)).any())


def _prepare_again(
    A: Any, method: Any, M: Any, rtol: float | None, atol: float, maxiter: int | None, null_space: Any
) -> Prepared:
    return Prepared(A, method, M=M, rtol=rtol, atol=atol, maxiter=maxiter, null_space=null_space)


def _better(a: Outcome, b: Outcome) -> bool:
    """Whether a ended nearer to the solution than b; NaN is never nearer."""
    return float(a.true_norm.max()) < float(b.true_norm.max()) or not math.isfinite(float(b.true_norm.max()))


def _backward_stable(A: LinearOperator, outcome: Outcome, b: Tensor) -> bool:
    """Whether x solves exactly a system within rounding of A: no other method can do better in float64.

    The test is ||b - A x|| <= c n^(1/2) eps (||A|| ||x|| + ||b||) for every column, with a bound of ||A||_2
    (Rigal and Gaches 1967; Higham 2002, thm. 7.1).
    """
    if isinstance(A, CallableOperator) or not bool(torch.isfinite(outcome.x).all()):
        return False
    if A.symmetric:
        size = largest_eigenvalue(A)
    else:
        S = abs(A.to_scipy())
        size = math.sqrt(float(S.sum(0).max()) * float(S.sum(1).max()))  # ||A||_1 ||A||_inf >= ||A||_2^2
    rounding = 4 * math.sqrt(len(b)) * torch.finfo(torch.float64).eps
    return bool((outcome.true_norm <= rounding * (size * norm(outcome.x) + norm(b))).all())


def _scaled(callback: Callback | None, scale: Tensor | float, home: Home) -> Callback | None:
    if callback is None:
        return None

    def call(iteration: int, residual_norm: float, x: Tensor) -> Any:
        return callback(iteration, residual_norm * float(torch.as_tensor(scale).max()), home.bring(x * scale))

    return call


def _kind(structure: Structure) -> tuple[Any, ...]:
    """Return what must stay the same for an update to keep the plan."""
    Z = structure.A.null_space
    signs = None if structure.signs is None else structure.signs.numpy().tobytes()
    spd = structure.maybe_spd
    return (
        type(structure.A),
        structure.symmetric,
        spd,
        structure.m_matrix,
        structure.box,
        getattr(structure.A, "coefficients", None) is None,
        signs,
        None if Z is None else Z.dimension,
    )


def _check_suits(method: Method, structure: Structure) -> None:
    if method.needs == "any":
        return
    name = type(method).__name__
    if not structure.symmetric:
        msg = f"{name} needs a symmetric A, and A is not; use ns.GMRES() or ns.BiCGStab()"
        raise StructureError(msg)
    if method.needs == "spd" and structure.positive_diagonal is False and "spd" not in structure.A.props:
        msg = (
            f"{name} needs a positive definite A, and the diagonal of A has zero entries or both signs: it "
            "is indefinite; use ns.MINRES()"
        )
        raise StructureError(msg)


def _tolerances(
    rtol: float | None, atol: float, maxiter: int | None
) -> tuple[float | None, float, int | None]:
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not (isinstance(value, NUMBERS) and 0 <= value < float("inf")):
            msg = f"{name} is {value!r}; a number >= 0 and finite is needed"
            raise OptionError(msg)
    if maxiter is not None and not (
        isinstance(maxiter, NUMBERS) and 1 <= maxiter < 2**62 and maxiter % 1 == 0
    ):
        msg = f"maxiter is {maxiter!r}; a positive integer is needed"
        raise OptionError(msg)
    return rtol, float(atol), None if maxiter is None else int(maxiter)
