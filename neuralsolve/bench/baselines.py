"""Other people's solvers, called as their documentation says, with defaults."""

from __future__ import annotations

import importlib.util
import inspect
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuralsolve.bench.system import System

# foreign solvers stop on a recurrence, which may differ from the true residual in the third digit
SLACK = 1.01
LARGEST_DIRECT = 60_000  # unknowns: beyond it a sparse LU of a 3-D problem fills the memory


@dataclass(frozen=True)
class Attempt:
    """What a solve gave: x on the active unknowns, or on all, where it was made."""

    x: Any
    iterations: int
    matvecs: int


Solve = Callable[[], Attempt]
SetUp = Callable[[System, float, float], Solve]  # system, rtol, seconds allowed


class _OutOfTimeError(Exception):
    """Carries the iterate at which a baseline was stopped."""

    def __init__(self, x: np.ndarray):
        super().__init__()
        self.x = x


def baselines(system: System) -> dict[str, SetUp]:
    """Return the baselines that suit A, by name."""
    spd = system.structure.maybe_spd
    chosen: dict[str, SetUp] = {}
    if spd:
        chosen |= {"SciPy cg": _scipy_cg, "PyAMG RS + cg": _pyamg("rs"), "PyAMG SA + cg": _pyamg("sa")}
    elif system.structure.symmetric:
        chosen |= {"SciPy minres": _scipy_minres}
    else:
        chosen |= {"SciPy gmres + spilu": _scipy_gmres}
    if len(system.rhs) <= LARGEST_DIRECT and not system.singular:
        chosen |= {"SciPy splu": _scipy_splu}
    if spd and importlib.util.find_spec("petsc4py") is not None:
        chosen |= {"PETSc cg + gamg": _petsc("gamg"), "PETSc cg + hypre": _petsc("hypre")}
    return chosen


def _watched(seconds: float) -> tuple[Callable[[Any], None], list[int]]:
    """Return a callback that counts, and ends the solve when the time is over."""
    count, end = [0], time.perf_counter() + seconds

    def callback(x: Any) -> None:
        count[0] += 1
        if time.perf_counter() > end:
            raise _OutOfTimeError(np.array(x))

    return callback, count


def _krylov(name: str, system: System, rtol: float, seconds: float, M: Any) -> Solve:
    import scipy.sparse.linalg

    method = getattr(scipy.sparse.linalg, name)
    limit = min(max(1000, 10 * len(system.rhs)), 20_000)  # as ours
    # SciPy below 1.14 calls minres's tolerance "tol"
    tolerance = {"rtol" if "rtol" in inspect.signature(method).parameters else "tol": rtol}

    def solve() -> Attempt:
        callback, count = _watched(seconds)
        try:
            x, _ = method(system.matrix, system.rhs, maxiter=limit, M=M, callback=callback, **tolerance)
        except _OutOfTimeError as stopped:
            x = stopped.x
        return Attempt(x, count[0], count[0] + 1)

    return solve


def _scipy_cg(system: System, rtol: float, seconds: float) -> Solve:
    return _krylov("cg", system, rtol, seconds, None)


def _scipy_minres(system: System, rtol: float, seconds: float) -> Solve:
    return _krylov("minres", system, rtol, seconds, None)


def _scipy_gmres(system: System, rtol: float, seconds: float) -> Solve:
    from scipy.sparse.linalg import LinearOperator, gmres, spilu

    factors = spilu(system.matrix.tocsc())
    M = LinearOperator(system.matrix.shape, matvec=factors.solve, dtype=np.float64)  # type: ignore[call-arg]

    def solve() -> Attempt:
        count = [0]
        end = time.perf_counter() + seconds
        restart, cycles = 50, 400

        def callback(_: Any) -> None:
            count[0] += 1

        x = np.zeros_like(system.rhs)
        for _ in range(cycles):  # one cycle a call: SciPy's callback does not hand out x
            x, info = gmres(
                system.matrix,
                system.rhs,
                x0=x,
                rtol=rtol,
                restart=restart,
                maxiter=1,
                M=M,
                callback=callback,
                callback_type="pr_norm",
            )
            if info == 0 or time.perf_counter() > end:
                break
        return Attempt(x, count[0], count[0])

    return solve


def _scipy_splu(system: System, rtol: float, seconds: float) -> Solve:
    from scipy.sparse.linalg import splu

    factors = splu(system.matrix.tocsc())
    return lambda: Attempt(factors.solve(system.rhs), 1, 0)


@contextmanager
def silent() -> Iterator[None]:
    """Close standard error for the block: PyAMG's C++ writes a line there for every row it dislikes."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _pyamg(kind: str) -> SetUp:
    def set_up(system: System, rtol: float, seconds: float) -> Solve:
        import pyamg

        B = system.problem.near_null_space
        if kind == "rs":
            with silent():
                hierarchy = pyamg.ruge_stuben_solver(system.matrix)
        else:
            hierarchy = pyamg.smoothed_aggregation_solver(system.matrix, B=B)
        return _krylov("cg", system, rtol, seconds, hierarchy.aspreconditioner(cycle="V"))

    return set_up


def _petsc(pc: str) -> SetUp:
    def set_up(system: System, rtol: float, seconds: float) -> Solve:
        from petsc4py import PETSc  # type: ignore[import-not-found]

        S = system.matrix
        parts = (S.indptr.astype(np.int32), S.indices.astype(np.int32), S.data)
        A = PETSc.Mat().createAIJ(size=S.shape, csr=parts)
        if system.singular:
            A.setNullSpace(PETSc.NullSpace().create(constant=True))
        ksp = PETSc.KSP().create()
        ksp.setOperators(A)
        ksp.setType("cg")
        ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
        ksp.getPC().setType(pc)
        ksp.setTolerances(rtol=rtol, max_it=min(max(1000, 10 * len(system.rhs)), 20_000))
        b = PETSc.Vec().createWithArray(system.rhs.copy())
        x = b.duplicate()
        ksp.setUp()

        def solve() -> Attempt:
            x.set(0.0)
            ksp.solve(b, x)
            steps = ksp.getIterationNumber()
            return Attempt(x.getArray().copy(), steps, steps + 1)

        return solve

    return set_up
