"""`TunedPrepared`: a `Prepared` whose method or M hold parameters that learners choose before every solve.

    choose     every learner gives a value; options with these values take the place of the `Tuned`
    take       M follows without a set-up where it can (`Preconditioner.retune`), else it is one that is kept
               from before, brought up to date with A, or built
    solve      as ever; a solve that misses its tolerance, whatever the reason, is finished from where it came
               to by the automatic choice for A; so is one whose choice, of a list, cannot be built
    learn      every learner that had a part in it is told the cost

Nothing that a learner chooses can make an answer wrong: `converged` rests on the true residual, as ever.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from neuralsolve.errors import InputError, OptionError
from neuralsolve.preconditioners.base import Preconditioner
from neuralsolve.preconditioners.given import as_recipe
from neuralsolve.solvers.auto import Plan, plans
from neuralsolve.solvers.checks import checked
from neuralsolve.solvers.loop import Callback
from neuralsolve.solvers.prepared import Prepared
from neuralsolve.solvers.result import SolveResult, Status
from neuralsolve.solvers.structure import Structure
from neuralsolve.tuning.choosing import Choosing, as_context
from neuralsolve.tuning.report import TuningReport
from neuralsolve.tuning.tuned import Tuned

KEPT = 4  # preconditioners of other choices that are kept
AT_LEAST = 2.0  # times the largest cost of a solve that converged: the charge of one that did not

Tolerances = dict[str, Any]


class _Built(NamedTuple):
    """A preconditioner, and of which A: `update` counts them."""

    M: Preconditioner | None
    version: int


class TunedPrepared(Prepared):
    """A `Prepared` some of whose options are `Tuned`; `prepare` makes it."""

    def __init__(self, A: Any, method: Any = None, *, M: Any = None, **options: Any):
        self._choosing, self._given_to_prepare = Choosing(method, M), (method, M, options)
        self._kept: OrderedDict[Any, _Built] = OrderedDict()  # by what tells M from others
        self._largest: dict[str, float] = {}  # costs of solves that converged
        self._version = self._built_for = 0
        self._safe: Prepared | None = None
        self._safe_for = 0
        self._key: Any = None  # of the present M
        self._taking = self._solving = False
        self._context: float | None = None  # that `update` was given
        for name, value in options.items():
            if isinstance(value, Tuned):
                msg = f"{name}={value!r}: a learner chooses options of a method or an M; give {name} itself"
                raise OptionError(msg)
        first_method, first_M = self._choosing.first()
        super().__init__(A, first_method, M=first_M, **options)
        for choice in M.choices or () if isinstance(M, Tuned) else ():
            as_recipe(choice, self._source.shape[0], self._library)  # what is no M is refused now

    def __reduce__(self) -> tuple[Any, ...]:
        method, M, options = self._given_to_prepare
        return _tuned_again, (self._source, method, M, options, self.state_dict())

    @property
    def chosen(self) -> str:
        """What learners have chosen for the last solve, in words."""
        return self._choosing.words()

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
        """Choose, solve, learn; see `Prepared.solve`."""
        tolerances: Tolerances = {"rtol": rtol, "atol": atol}
        with self._lock:
            if self._solving:  # from a callback: the present choice serves, and no learner is told
                return super().solve(b, x0, maxiter=maxiter, callback=callback, throw=throw, **tolerances)
            self._solving = True
            try:
                return self._choose_and_solve(b, x0, context, tolerances, maxiter, callback, throw)
            finally:
                self._solving = False

    def _choose_and_solve(
        self,
        b: Any,
        x0: Any,
        context: Any,
        tolerances: Tolerances,
        maxiter: int | None,
        callback: Callback | None,
        throw: bool,
    ) -> SolveResult:
        method, M = self._choosing.choose(self._context if context is None else context)
        start = time.perf_counter()
        refused = self._take(method, M)
        setup = time.perf_counter() - start
        result, why = None, refused
        if not refused:
            result = super().solve(b, x0, maxiter=maxiter, callback=callback, throw=False, **tolerances)
            why = "" if result.converged else f"{result.status.name}, {result.iterations} iterations"
        if result is not None and result.status is Status.STOPPED:
            return checked(result, throw)
        first = result
        if result is None or why:
            result = self._finish(b, x0, result, why, callback, tolerances)
            if result.status is Status.STOPPED:
                return checked(result, throw)
        self._learn(first, result, setup, maxiter or self.maxiter)
        return checked(replace(result, setup_seconds=setup), throw)

    def update(self, A_next: Any, *, context: Any = None) -> Prepared:
        """Follow A to its next values; preconditioners follow when they are chosen. See `Prepared.update`."""
        with self._lock:
            number = as_context(context)
            super().update(A_next)
            self._version += 1
            self._context = number
        return self

    def report(self) -> TuningReport:
        return self._choosing.report()

    def state_dict(self) -> dict[str, Any]:
        return self._choosing.state_dict() | {"largest": dict(self._largest)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with self._lock:
            self._choosing.load_state_dict(state)
            self._largest = {str(name): float(cost) for name, cost in state.get("largest", {}).items()}

    # set-up

    def _set_up(self) -> None:
        """Build nothing yet: what is chosen is built; forget what was built for an A of another kind."""
        self._kept.clear()
        self._key = self._M = None

    def _follow_M(self, before: Structure) -> None:
        """Leave M as it is: it follows when it is chosen."""

    def _take(self, method: Any, M: Any) -> str:
        """Let a method and an M take the place of the present ones; return why they cannot."""
        key = self._choosing.key()
        if self._is_present(key, method):
            return ""
        self._place.forget()
        try:
            self._method_given, self._M_given, self._taking = method, M, True
            self._recipe_given = self._given_recipe()
            self._plans, self._failed = self._make_plans(), []
            if self._recorded:  # a gradient may still need the present M
                self._key = self._M = None
                self._recorded = False
            recipe = self._plans[0].recipe
            if key != self._key and (self._M is None or recipe is None or not self._M.retune(recipe)):
                self._put_away()
                self._M, self._built_for = self._kept.pop(key, _Built(None, -1))
            self._key = key
            if self._M is None:
                self._build_first()
            elif self._built_for != self._version:
                self._M.update(self._structure.A)
            self._built_for = self._version
            self._check_preconditioner(self._plans[0])
        except InputError as error:
            self._key = self._M = None
            if not self._choosing.among_things:
                raise
            return str(error).split(";")[0]
        finally:
            self._taking = False
        return ""

    def _is_present(self, key: tuple[Any, ...], method: Any) -> bool:
        """Whether all is as at the last solve."""
        same = key == self._key and self._M is not None and self._built_for == self._version
        return same and method == self._method_given and len(self._plans) == 1 and not self._recorded

    def _make_plans(self) -> list[Plan]:
        try:
            return super()._make_plans()
        except InputError:
            if self._taking or not self._choosing.among_things:
                raise
            return plans(self._structure)  # until a choice is made

    def _put_away(self) -> None:
        if self._key is not None and self._M is not None:
            self._kept[self._key] = _Built(self._M, self._built_for)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)

    # safety

    def _finish(
        self,
        b: Any,
        x0: Any,
        result: SolveResult | None,
        why: str,
        callback: Callback | None,
        tolerances: Tolerances,
    ) -> SolveResult:
        """Solve by the automatic choice, from where a choice came to; tell both."""
        if self._safe is None:
            options: dict[str, Any] = self._given_to_prepare[2] | {"maxiter": None}
            self._safe = Prepared(self._source, **options)
        elif self._safe_for != self._version:
            self._safe.update(self._source)
        self._safe_for = self._version
        if result is not None and _nearer(result):
            x0 = result.x
        before = 0 if result is None else result.iterations
        further = None if callback is None else lambda k, size, x: callback(before + k, size, x)
        finished = self._safe.solve(b, x0, callback=further, throw=False, **tolerances)
        told = f"{self.chosen} given up ({why}); finished by {finished.explanation}"
        if result is None:
            return replace(finished, explanation=told)
        return replace(
            finished,
            iterations=result.iterations + finished.iterations,
            matvecs=result.matvecs + finished.matvecs,
            residual_norms=[*result.residual_norms, *finished.residual_norms[1:]],
            solve_seconds=result.solve_seconds + finished.solve_seconds,
            explanation=told,
        )

    # cost

    def _learn(self, first: SolveResult | None, result: SolveResult, setup: float, cap: int | None) -> None:
        """Tell the learners; nothing of a solve that had nothing to do."""
        failed = first is None or not first.converged
        if not failed and result.iterations == 0:
            return
        costs = {
            "iterations": float(result.iterations),
            "matvecs": float(result.matvecs),
            "seconds": setup + result.solve_seconds,
        }
        if failed:
            costs = {name: max(cost, AT_LEAST * self._largest.get(name, 0)) for name, cost in costs.items()}
            if cap is not None:
                costs["iterations"] = float(cap)
        else:
            self._largest = {name: max(c, self._largest.get(name, 0.0)) for name, c in costs.items()}
        norms = result.residual_norms if first is None else first.residual_norms
        self._choosing.learn(costs, failed, norms)


def _nearer(result: SolveResult) -> bool:
    """Whether a solve that failed has come nearer to the solution than where it began."""
    norms = result.residual_norms
    return bool(np.isfinite(norms[-1])) and norms[-1] < norms[0]


def _tuned_again(
    A: Any, method: Any, M: Any, options: dict[str, Any], state: dict[str, Any]
) -> TunedPrepared:
    prepared = TunedPrepared(A, method, M=M, **options)
    prepared.load_state_dict(state)
    return prepared
