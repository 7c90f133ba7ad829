"""`Prepared`: A looked at once, its preconditioner built; from a caller's b to an answer that was checked."""

from __future__ import annotations

import dataclasses
import threading
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from neuralsolve.errors import GridError, InputError, OptionError, ShapeError, SolveError, StructureError
from neuralsolve.operators.base import LinearOperator, shallow
from neuralsolve.operators.convert import as_operator
from neuralsolve.operators.structured import CallableOperator
from neuralsolve.preconditioners.base import Preconditioner, Recipe
from neuralsolve.preconditioners.given import Given, Library, as_recipe
from neuralsolve.solvers.adjoint import differentiable_solve, wants_gradient
from neuralsolve.solvers.auto import Plan, direct, plans
from neuralsolve.solvers.checks import (
    backward_stable,
    better,
    check_batch,
    check_suits,
    checked,
    kind_of,
    steps_unseen,
    tolerances,
)
from neuralsolve.solvers.loop import PATIENCE, Callback, Outcome, iterate
from neuralsolve.solvers.method import Method, norm
from neuralsolve.solvers.passage import receive
from neuralsolve.solvers.placement import Placement
from neuralsolve.solvers.result import SolveResult, Status
from neuralsolve.solvers.structure import Structure, probe
from neuralsolve.solvers.unseen import Unseen
from neuralsolve.tuning.report import TuningReport

DEFAULT_RTOL = {torch.float64: 1e-8, torch.float32: 1e-5}


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
        grid: Any = None,
        check_every: int | None = None,
    ):
        start = time.perf_counter()
        self.rtol, self.atol, self.maxiter = tolerances(rtol, atol, maxiter)
        self._null_space_given, self._method_given, self._M_given = null_space, method, M
        self._grid_given = grid
        self._library = Library()
        self._source = as_operator(A)
        self._device = self._source.device
        self._check_every_given, self._check_every = check_every, steps_unseen(check_every, self._device)
        self._look()
        self._recipe_given = self._given_recipe()
        self._plans = self._make_plans()
        self._failed: list[str] = []
        self._transposed: Prepared | None = None
        self._recorded = False  # a gradient may still need the present M
        self._lock = threading.RLock()  # M and the plans have room and state of their own
        self._set_up()
        self.setup_seconds = time.perf_counter() - start

    def __reduce__(self) -> tuple[Any, ...]:
        given = (self._source, self._method_given, self._M_given, self.rtol, self.atol, self.maxiter)
        rest = self._null_space_given, self._grid_given, self._check_every_given
        return _prepare_again, (*given, *rest)  # the set-up is done anew, in the new process

    @property
    def explanation(self) -> str:
        """What was chosen and why."""
        built = f" [{self._place.describe(self._M)}]" if self._M is not None else ""
        told = [self._structure.note, *self._failed, self._plans[0].reason + built]
        return "; ".join(filter(None, told))

    @property
    def chosen(self) -> str:
        """What learners have chosen for the last solve, in words; empty where nothing is `Tuned`."""
        return ""

    def solve(
        self,
        b: Any,
        x0: Any = None,
        *,
        context: Any = None,
        rtol: float | None = None,
        atol: float | None = None,
        maxiter: int | None = None,
        callback: Callback | None = None,
        throw: bool = True,
    ) -> SolveResult:
        """Solve for a right side; tolerances given here replace those of `prepare`. See `solve`.

        Parameters
        ----------
        context : a number known before the solve that learners of `Tuned` options go by, such as a time step;
            without such options it is not looked at
        """
        rtol, atol, maxiter = tolerances(
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
        return checked(result, throw)

    def update(self, A_next: Any, *, context: Any = None) -> Prepared:
        """Follow A to its next values, keeping what the pattern allows; return self.

        A grid given to `prepare` is that of A_next too; `context` is that of the solves to come which are
        given none.

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
        before = self._structure
        self._source, self._device, self._transposed = source, source.device, None
        self._check_every = steps_unseen(self._check_every_given, self._device)
        self._look()
        if kind_of(self._structure) != kind_of(before):
            self._recipe_given = self._given_recipe()
            self._plans, self._failed = self._make_plans(), []
            self._set_up()
        elif self._M is not None:
            self._follow_M(before)

    def report(self) -> TuningReport:
        """Return what learners have chosen, how often, and at what cost; empty where nothing is `Tuned`."""
        return TuningReport()

    def state_dict(self) -> dict[str, Any]:
        """Return what learners of `Tuned` options have learned, as JSON holds it."""
        return {"places": {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on learning where a `state_dict` of the same options was taken.

        Raises
        ------
        OptionError
            It is of other options, or no state.
        """
        if not isinstance(state, dict) or state.get("places") != {}:
            msg = "nothing is Tuned here, and this is no state of that; give the options that the state is of"
            raise OptionError(msg)

    # set-up

    def _look(self) -> None:
        """Look at A; bring what iterations need to its device."""
        if self._grid_given is not None and self._device.type != "cpu":
            msg = (
                f"A is on {self._device}, and grid= reads matrices on the CPU alone; pass A on the CPU, or "
                f"the stencil itself: ns.PoissonStencil(grid).to('{self._device}')"
            )
            raise OptionError(msg)
        self._structure = probe(self._source, self._null_space_given, self._grid_given)
        self._place = Placement(self._structure, self._device, self._check_every)

    def _set_up(self) -> None:
        """Build what solves will need."""
        self._build_first()

    def _follow_M(self, before: Structure) -> None:
        """Bring M up to date with A."""
        recipe, recorded = self._plans[0].recipe, self._recorded
        self._recorded = False
        self._place.forget()
        assert self._M is not None
        if recorded and recipe is not None:
            self._M = recipe.build(self._structure.A)
            return
        try:
            self._M.update(self._structure.A)
        except InputError as error:
            self._M.update(before.A)
            self._blame_grid(error)
            raise

    def _given_recipe(self) -> Recipe | None:
        recipe = as_recipe(self._M_given, self._source.shape[0], self._library)
        numbering = self._structure.numbering
        if not isinstance(recipe, Given) or numbering is None:
            return recipe
        given = recipe.build(self._structure.A)  # the caller's own map knows the caller's rows
        return Given(numbering.on_grid(given))

    def _make_plans(self) -> list[Plan]:
        method, recipe, structure = self._method_given, self._recipe_given, self._structure
        check_batch(structure, method, recipe)
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
        check_suits(method, structure)
        return [Plan(method, recipe, f"{method} (given): {structure.describe()}")]

    def _build_first(self) -> None:
        """Build the preconditioner of the first plan that can be built."""
        self._place.forget()
        while True:
            plan = self._plans[0]
            try:
                self._M = None if plan.recipe is None else plan.recipe.build(self._structure.A)
            except InputError as error:
                if len(self._plans) == 1:
                    self._blame_grid(error)
                    raise
                self._next_plan(str(error).split(";")[0])
            else:
                self._check_preconditioner(plan)
                return

    def _blame_grid(self, error: InputError) -> None:
        """Raise why the grid that was given is not used, where the error is that there is none."""
        if isinstance(error, GridError) and self._structure.note:
            wanted = type(self._plans[0].recipe).__name__
            msg = (
                f"{self._structure.note}; {wanted} needs the grid of A: pass the cells that A was made from, "
                "or leave grid out and take ns.CG() with M=ns.AMG()"
            )
            raise GridError(msg) from None

    def _check_preconditioner(self, plan: Plan) -> None:
        if self._M is None or plan.method.flexible or plan.method.needs == "any" or self._M.symmetric:
            return
        msg = (
            f"{type(plan.method).__name__} needs a symmetric positive definite M; {self._M.describe()} is "
            "not: use ns.SSOR() for ns.SOR(), or a method that takes any M: ns.GMRES(), ns.FlexibleCG(), "
            "ns.DCDM() for a network"
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
            self._place.forget()
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
        A = self._place.structure.A
        passage = receive(self._place.structure, b)
        rhs, removed, scale = passage.rhs, passage.removed, passage.scale
        guess = passage.guess(x0)
        self._library.torch = passage.home.torch
        strict = rtol is not None
        if rtol is None:
            rtol = DEFAULT_RTOL[torch.float64 if passage.home.epsilon < 1e-10 else torch.float32]
        least = torch.as_tensor(atol / scale, dtype=torch.float64, device=A.device)
        if A.null_space is not None:  # what the projection's own rounding leaves of a b in the null space
            least = torch.maximum(least, 4 * torch.finfo(torch.float64).eps * removed)
        size = passage.size
        tolerance = allowed = (rtol * size).maximum(least)
        if passage.whole is not None:  # rows that stand alone do not loosen those of the fluid
            tolerance = (rtol * norm(rhs)).maximum(least)
        matvecs, best, told = 0, None, ""
        while True:
            plan, M = self._plans[0], self._place.M(self._M)
            products, unseen = self._place.steps(plan.method, M, kept=callback is None)
            limit = maxiter or plan.maxiter or min(max(1000, 10 * len(rhs)), 20_000)
            observe = passage.observe(callback)
            patience = max(plan.patience, maxiter or 0) if plan.patience == PATIENCE else plan.patience
            run = partial(_run, plan.method, products.A, M, tolerance, limit, patience, unseen)
            outcome = passage.check(run(rhs, guess, observe), allowed, run)
            matvecs += products.count
            if best is None or better(outcome, best):
                best, told = outcome, self.explanation
            if len(self._plans) == 1 or outcome.status in (Status.CONVERGED, Status.STOPPED):
                break
            if (outcome.status is Status.MAXITER and maxiter) or backward_stable(A, outcome, rhs):
                break  # the caller's own limit, or as good as any method's answer
            if not self._try_next_plan(outcome.status.name.lower()):
                break
        outcome = best
        x, status = passage.deliver(outcome, allowed, strict)
        floor = torch.as_tensor(atol / scale, dtype=torch.float64, device=A.device)
        allowed = (rtol * torch.hypot(size, removed)).maximum(floor)
        worst = torch.hypot(outcome.true_norm, removed) > allowed
        if status is Status.CONVERGED and bool(((removed > 0) & worst).any()):
            status = Status.PROJECTED
        return SolveResult(
            x=x,
            status=status,
            converged=status.converged,
            iterations=outcome.iterations,
            matvecs=matvecs,
            residual_norms=[r * passage.largest_scale for r in outcome.residual_norms],
            setup_seconds=self.setup_seconds,
            solve_seconds=time.perf_counter() - start,
            explanation="; ".join(filter(None, [told, outcome.note])),
            removed=float((removed * scale).max()),
        )

    def _adjoint(self, g: Tensor, rtol: float | None) -> Tensor:
        """Solve A^T lam = g for the gradient, to the tolerance of the forward solve."""
        rtol = rtol or DEFAULT_RTOL[torch.float64]
        solver, numbering = self, self._structure.numbering
        if not self._structure.symmetric:
            if self._transposed is None:
                T = self._source.to(dtype=torch.float64)
                transposed: LinearOperator = CallableOperator(
                    T.rmatvec, T.shape, torch.float64, T.matvec, block=True, device=T.device
                )
                if not isinstance(T, CallableOperator):
                    transposed = as_operator(T.to_scipy().T.tocsr()).to(T.device)
                self._transposed = Prepared(transposed)
            solver = self._transposed
        with solver._lock:  # the tolerance of the forward solve, relative to g; its other limits were for b
            result = solver._solve(
                g if numbering is None else numbering.adjoint_side(g), None, rtol, 0.0, None, None
            )
        if not result.converged:
            msg = f"the adjoint solve of the gradient ended in {result.status.name}: {result.status.value}"
            raise SolveError(msg, result)
        return result.x if numbering is None else numbering.finish_adjoint(result.x, g)


def _prepare_again(
    A: Any,
    method: Any,
    M: Any,
    rtol: float | None,
    atol: float,
    maxiter: int | None,
    null_space: Any,
    grid: Any = None,
    check_every: int | None = None,
) -> Prepared:
    tolerances = {"rtol": rtol, "atol": atol, "maxiter": maxiter}
    return Prepared(A, method, M=M, null_space=null_space, grid=grid, check_every=check_every, **tolerances)


def _run(
    method: Method,
    A: LinearOperator,
    M: Preconditioner | None,
    tolerance: Tensor,
    maxiter: int,
    patience: int,
    unseen: Unseen | None,
    b: Tensor,
    x0: Tensor | None,
    callback: Callback | None = None,
) -> Outcome:
    return iterate(method, A, M, b, x0, tolerance, maxiter, callback, patience, unseen)
