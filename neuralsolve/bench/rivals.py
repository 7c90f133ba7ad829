"""Whole runs, set-up included, of our multigrid and of what it is measured against; races between them."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralsolve.bench import petsc_peer
from neuralsolve.bench.baselines import silent
from neuralsolve.bench.clock import settle, timed
from neuralsolve.bench.system import System, assembled
from neuralsolve.solvers.krylov import CG
from neuralsolve.solvers.solve import prepare

if TYPE_CHECKING:
    from neuralsolve.preconditioners.base import Recipe

OURS = "neuralsolve"
PETSC_PYTHON = "NEURALSOLVE_PETSC_PYTHON"  # an interpreter that has petsc4py and mpi4py
SLOW = 5.0  # seconds: a rival that took longer is not run again on the same system
LIMIT = 500  # iterations of a rival
# the set-up that is cheaper in 3D, at the price of more iterations
_CHEAPER = {"coarsen_type": "HMIS", "interp_type": "ext+i", "P_max": 4, "strong_threshold": 0.5, "agg_nl": 1}
PETSC = {
    "PETSc CG + BoomerAMG": ["-pc_type", "hypre", "-pc_hypre_type", "boomeramg"],
    "PETSc CG + GAMG": ["-pc_type", "gamg"],
}
PETSC["PETSc CG + BoomerAMG (HMIS, aggressive)"] = [
    *PETSC["PETSc CG + BoomerAMG"],
    *(word for key, value in _CHEAPER.items() for word in (f"-pc_hypre_boomeramg_{key}", str(value))),
]


@dataclass(frozen=True)
class Trial:
    """One run, or the medians of several.

    Attributes
    ----------
    setup_s, solve_s : seconds
    iterations : the most of one run
    residual : ||b - A x|| / ||b||, the largest, recomputed from the assembled matrix
    runs : how many there were
    version : of what ran, where the environment of the benchmark does not tell
    """

    setup_s: float
    solve_s: float
    iterations: int = 0
    residual: float = 0.0
    runs: int = 1
    version: str = ""

    @property
    def total_s(self) -> float:
        """Set-up and solve."""
        return self.setup_s + self.solve_s


Run = Callable[[], Trial]


def ours(make: Callable[[], Any], M: Recipe, system: System, b: np.ndarray, rtol: float) -> Run:
    """Return a run of CG with M; `make` returns A, from cells or as a matrix, and counts as set-up."""

    def run() -> Trial:
        setup, prepared = timed(lambda: prepare(make(), CG(), M=M, rtol=rtol))
        solve, result = timed(lambda: prepared.solve(b, throw=False))
        return Trial(setup, solve, result.iterations, system.residual(np.asarray(result.x)))

    return run


def pyamg(kind: str, system: System, rtol: float) -> Run:
    """Return a run of PyAMG ("rs" or "sa") at its defaults with its CG, from the matrix as it stands."""
    from pyamg import ruge_stuben_solver, smoothed_aggregation_solver

    S = system.matrix
    if S.indices.dtype != np.int32:
        S = type(S)((S.data, S.indices.astype(np.int32), S.indptr.astype(np.int32)), shape=S.shape)
    build = {"rs": ruge_stuben_solver, "sa": smoothed_aggregation_solver}[kind]

    def run() -> Trial:
        count = [0]

        def callback(_: Any) -> None:
            count[0] += 1

        with silent():
            setup, hierarchy = timed(lambda: build(S))
            solve, x = timed(
                lambda: hierarchy.solve(system.rhs, tol=rtol, accel="cg", maxiter=LIMIT, callback=callback)
            )
        return Trial(setup, solve, count[0], system.residual(x))

    return run


def product(system: System, times: int = 5) -> Run:
    """Return a run of one product with SciPy's CSR matrix, the median of several."""

    def run() -> Trial:
        return Trial(
            0.0, statistics.median(timed(lambda: system.matrix @ system.rhs)[0] for _ in range(times))
        )

    return run


def petsc(options: list[str], system: System, rtol: float) -> Run:
    """Return a run of PETSc on two ranks of one thread, by the interpreter $NEURALSOLVE_PETSC_PYTHON."""

    def run() -> Trial:
        with TemporaryDirectory() as folder:
            source, target = Path(folder) / "system.npz", Path(folder) / "x.npy"
            S = system.matrix
            np.savez(source, indptr=S.indptr, indices=S.indices, data=S.data, b=system.rhs)
            start = [
                "mpirun",
                "--allow-run-as-root",
                "--bind-to",
                "none",
                "-n",
                "2",
                os.environ[PETSC_PYTHON],
            ]
            script = [petsc_peer.__file__, str(source), str(target), str(rtol), *options]
            single = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            done = subprocess.run([*start, *script], capture_output=True, text=True, env=single, timeout=600)
            if done.returncode:
                msg = f"PETSc ended with {done.returncode}: {done.stderr.strip()[-200:]}"
                raise RuntimeError(msg)
            found = json.loads(done.stdout.splitlines()[-1])
            residual = system.residual(np.load(target))
        times = found["setup_s"], found["solve_s"]
        return Trial(*times, found["iterations"], residual, version=found["version"])

    return run


def petsc_missing() -> str:
    """Return why PETSc cannot be run, or nothing where it can."""
    return "" if os.environ.get(PETSC_PYTHON) else f"${PETSC_PYTHON} names no interpreter with petsc4py"


def race(our_run: Run, rivals: Mapping[str, Run], repeats: int) -> dict[str, Trial]:
    """Return the medians of all: in every round each rival runs, and ours before each of them.

    A rival slower than `SLOW` runs once. One run of ours, which fills caches, is not counted.
    """
    our_run()
    trials: dict[str, list[Trial]] = {OURS: []} | {name: [] for name in rivals}
    for _ in range(repeats):
        running = [name for name in rivals if not trials[name] or trials[name][-1].total_s <= SLOW]
        for name in running or [OURS]:
            settle()
            trials[OURS].append(our_run())
            if name != OURS:
                settle()
                trials[name].append(rivals[name]())
    return {name: medians(found) for name, found in trials.items()}


def medians(trials: list[Trial]) -> Trial:
    """Return the median times, the most iterations and the largest residual."""
    return Trial(
        statistics.median(trial.setup_s for trial in trials),
        statistics.median(trial.solve_s for trial in trials),
        max(trial.iterations for trial in trials),
        max(trial.residual for trial in trials),
        len(trials),
        trials[-1].version,
    )


def stencil_system(name: str, A: Any, b: np.ndarray) -> System:
    """Return a system whose matrix holds the fluid cells alone."""
    from neuralsolve.cases.problem import Problem

    return assembled(Problem(name, A, b))
