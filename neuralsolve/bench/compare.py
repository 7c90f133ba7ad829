"""Our methods beside the baselines on one problem."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neuralsolve.bench.baselines import SLACK, Attempt, SetUp, Solve, baselines
from neuralsolve.bench.clock import CPU, timed
from neuralsolve.bench.device_rivals import device_rivals
from neuralsolve.bench.system import System, assembled
from neuralsolve.errors import InputError
from neuralsolve.operators.convert import as_operator
from neuralsolve.preconditioners.incomplete import IncompleteCholesky, IncompleteLU
from neuralsolve.solvers.bicgstab import BiCGStab
from neuralsolve.solvers.gmres import GMRES
from neuralsolve.solvers.krylov import CG
from neuralsolve.solvers.minres import MINRES
from neuralsolve.solvers.solve import prepare

if TYPE_CHECKING:
    from neuralsolve.cases import Problem


@dataclass(frozen=True)
class Contender:
    """One of our methods: None as method lets the solver choose."""

    name: str
    method: Any = None
    M: Any = None


@dataclass(frozen=True)
class Row:
    """One method on one problem.

    Attributes
    ----------
    problem, n : name and number of unknowns
    method, ours : name, and whose it is
    device, dtype, threads : where it ran
    setup_s, solve_s : median seconds
    iterations, matvecs : of one solve
    residual : ||b - A x|| / ||b||, recomputed here
    converged : residual <= rtol
    ratio : time of set-up and solve over that of `baseline`; NaN where no baseline converged
    baseline : the fastest foreign method of this run that converged
    note : why there is no result, or what was chosen
    """

    problem: str
    n: int
    method: str
    ours: bool
    device: str
    dtype: str
    threads: int
    setup_s: float
    solve_s: float
    iterations: int
    matvecs: int
    residual: float
    converged: bool
    ratio: float
    baseline: str
    note: str

    def as_dict(self) -> dict[str, Any]:
        """Return the row as a dictionary, in the order of its fields."""
        return asdict(self)


def compare(
    problem: Problem,
    contenders: Sequence[Contender] = (),
    *,
    rtol: float = 1e-8,
    repeats: int = 3,
    limit: float = 30.0,
    device: torch.device = CPU,
    progress: Callable[[str], object] | None = None,
) -> list[Row]:
    """Time methods on a problem.

    Parameters
    ----------
    problem : Problem
    contenders : our methods; empty: the automatic choice and what suits A
    rtol : for all; judged on the true residual
    repeats : rounds; every round runs all methods once
    limit : seconds after which an iteration is stopped, and a method is not repeated
    device : where our methods run, A and b brought there before the clock; on a GPU beside CuPy and
        torch.sparse there, and the same baselines on the CPU as ever
    progress : called with the name of what runs next

    Returns
    -------
    list of Row, fastest first, what did not converge last
    """
    system = assembled(problem)
    placed = _Placed(problem, device)
    runs = {
        each.name: _Run(True, _ours(each, placed), placed) for each in contenders or our_contenders(system)
    }
    if device.type == "cuda":
        runs |= {name: _Run(False, set_up, placed) for name, set_up in device_rivals(system, device).items()}
    at_home = _Placed(problem, CPU)
    runs |= {name: _Run(False, set_up, at_home) for name, set_up in baselines(system).items()}
    for round_ in range(repeats):
        for name, run in runs.items():
            if progress is not None:
                progress(f"{problem.name}: {name}, round {round_ + 1} of {repeats}")
            run.once(system, rtol, limit)
    return _rows(system, runs, rtol)


def our_contenders(system: System) -> list[Contender]:
    """Return the automatic choice, and what is usual for such an A."""
    chosen = [Contender("neuralsolve auto")]
    if system.structure.maybe_spd:
        return [
            *chosen,
            Contender("CG + MIC(0)", CG(), IncompleteCholesky(modified=0.97)),
            Contender("CG", CG()),
        ]
    if system.structure.symmetric:
        return [*chosen, Contender("MINRES", MINRES())]
    return [
        *chosen,
        Contender("GMRES + ILU(0)", GMRES(), IncompleteLU()),
        Contender("BiCGStab + ILU(0)", BiCGStab(), IncompleteLU()),
    ]


class _Placed:
    """A and b of a problem on a device, brought there when they are first asked for."""

    def __init__(self, problem: Problem, device: torch.device):
        self.problem, self.device = problem, device

    @cached_property
    def A(self) -> Any:
        A = self.problem.A
        return A if self.device.type == "cpu" else as_operator(A).to(self.device)

    @cached_property
    def b(self) -> Any:
        b = self.problem.b
        return b if self.device.type == "cpu" else torch.from_numpy(b).to(self.device)


def _ours(contender: Contender, placed: _Placed) -> SetUp:
    def set_up(system: System, rtol: float, seconds: float) -> Solve:
        prepared = prepare(placed.A, contender.method, M=contender.M, rtol=rtol)

        def solve() -> Attempt:
            result = prepared.solve(placed.b, throw=False)
            return Attempt(result.x, result.iterations, result.matvecs)

        solve.explanation = prepared.explanation  # type: ignore[attr-defined]
        return solve

    return set_up


class _Run:
    """The repeated runs of one method; a method that fails or is slow runs once."""

    def __init__(self, ours: bool, set_up: SetUp, placed: _Placed):
        self.ours, self.set_up, self.placed, self.device = ours, set_up, placed, placed.device
        self.setups: list[float] = []
        self.solves: list[float] = []
        self.attempt: Attempt | None = None
        self.note, self.over = "", False

    def once(self, system: System, rtol: float, limit: float) -> None:
        if self.over:
            return
        try:
            if not self.setups:
                self._warm_up(system, rtol, limit)
            setup, solve = timed(lambda: self.set_up(system, rtol, limit), self.device)
            seconds, self.attempt = timed(solve, self.device)
        except (InputError, ArithmeticError, ValueError, RuntimeError, MemoryError) as error:
            self.note, self.over = f"{type(error).__name__}: {error}"[:200], True
            return
        self.note = getattr(solve, "explanation", "")
        self.setups.append(setup)
        self.solves.append(seconds)
        self.over = setup + seconds > limit

    def _warm_up(self, system: System, rtol: float, limit: float) -> None:
        """Load compiled kernels outside the clock, as the baselines' are loaded when they are imported.

        On a GPU a whole solve, which compiles what it meets, and brings the matrix there.
        """
        if self.device.type == "cuda":
            self.set_up(system, rtol, limit)()
        elif self.ours:
            self.set_up(system, rtol, 0.0)
            method = CG() if system.structure.maybe_spd else GMRES()
            prepare(self.placed.A, method, maxiter=2).solve(self.placed.b, throw=False)


def _rows(system: System, runs: dict[str, _Run], rtol: float) -> list[Row]:
    rows = []
    totals = {}
    for name, run in runs.items():
        residual = np.inf if run.attempt is None else system.residual(run.attempt.x)
        converged = bool(residual <= SLACK * rtol)
        setup, solve = (statistics.median(t) if t else float("nan") for t in (run.setups, run.solves))
        if converged and not run.ours:
            totals[name] = setup + solve
        rows.append((name, run, residual, converged, setup, solve))
    baseline = min(totals, key=lambda name: totals[name]) if totals else ""
    best = totals.get(baseline, float("nan"))
    made = [
        Row(
            problem=system.problem.name,
            n=len(system.rhs),
            method=name,
            ours=run.ours,
            device=str(run.device),
            dtype="float64",
            threads=torch.get_num_threads(),
            setup_s=setup,
            solve_s=solve,
            iterations=run.attempt.iterations if run.attempt else 0,
            matvecs=run.attempt.matvecs if run.attempt else 0,
            residual=float(residual),
            converged=converged,
            ratio=(setup + solve) / best,
            baseline=baseline,
            note=run.note,
        )
        for name, run, residual, converged, setup, solve in rows
    ]
    return sorted(made, key=lambda row: (not row.converged, row.setup_s + row.solve_s))
