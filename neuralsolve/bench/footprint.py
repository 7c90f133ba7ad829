"""What an import costs in time and a solve in memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import tracemalloc
from typing import Any

import numpy as np
import torch

from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.operators.vectors import release
from neuralsolve.pde.scenes import free_surface
from neuralsolve.solvers.solve import prepare


def import_seconds(repeats: int) -> tuple[float, float]:
    """Return the median times of ``import neuralsolve`` and of ``import torch``, each in new processes."""
    times: dict[str, list[float]] = {"neuralsolve": [], "torch": []}
    for _ in range(repeats):
        for name, values in times.items():
            values.append(_seconds_of(f"import {name}"))
    return statistics.median(times["neuralsolve"]), statistics.median(times["torch"])


def first_solve_seconds(cache: str) -> float:
    """Return the time of a new process's first solve, kernels loaded from `cache` or compiled into it."""
    code = (
        "import neuralsolve as ns, numpy as np; A = ns.PoissonStencil(ns.Grid((64, 64), walls='dirichlet'))\n"
        "ns.solve(A, np.ones(4096), ns.CG(), M=ns.IncompleteCholesky(modified=0.97))"
    )
    return _seconds_of(code, {"NUMBA_CACHE_DIR": cache})


def _seconds_of(code: str, more: dict[str, str] | None = None) -> float:
    timer = f"import time; t = time.perf_counter()\n{code}\nprint(time.perf_counter() - t)"
    return _last_number(timer, more)


def _last_number(code: str, more: dict[str, str] | None = None) -> float:
    """Run code in a new process and return the number in its last line; torch may print others before."""
    command, environment = [sys.executable, "-c", code], os.environ | (more or {})
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(run.stdout.splitlines()[-1])


def vectors_of_a_solve(side: int, obstacles: bool, method: str, M: str, count_A: bool = False) -> float:
    """Return the most memory held at once by set-up and solve, beyond A and b, in vectors of A's length.

    Measured in a new process. torch's allocations are read from its profiler, NumPy's from tracemalloc; the
    sum of the two largest amounts is taken, which is at least the largest sum. x is among what is counted.

    Parameters
    ----------
    side : cells along each of three axes
    obstacles : a free surface with balls, or a Dirichlet box
    method, M : Python text, for example ``"ns.CG()"``
    count_A : count what A holds beyond the cells of the grid as well
    """
    return _last_number(
        "import neuralsolve as ns\n"
        "from neuralsolve.bench.footprint import held_vectors\n"
        f"print(held_vectors({side}, {obstacles}, {method}, {M}, {count_A}))"
    )


def held_vectors(side: int, obstacles: bool, method: Any, M: Any, count_A: bool = False) -> float:
    """Do what `vectors_of_a_solve` says in this process."""
    grid = Grid((side,) * 3, walls="dirichlet")
    if obstacles:
        grid = free_surface((side,) * 3, np.random.default_rng(2114))
    b = torch.randn(grid.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1908))
    # kernels and the profiler are loaded outside the count; the second A remembers nothing of the first run
    with memory_profile():
        prepare(PoissonStencil(grid), method, M=M, rtol=1e-6).solve(b)
    A = None if count_A else PoissonStencil(grid)
    release()  # memory that the first run has left would not be counted
    tracemalloc.start()
    try:
        with memory_profile() as profiler:
            A = A or PoissonStencil(grid)
            prepare(A, method, M=M, rtol=1e-6).solve(b)
        numpy_peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return (numpy_peak + torch_peak(profiler)) / (8 * A.shape[0])


def memory_profile() -> Any:
    """Return torch's profiler of allocations, for a `with` block; `torch_peak` reads it."""
    return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)


def torch_peak(profiler: Any) -> int:
    """Return the largest sum of torch's live allocations over time, in bytes."""
    held = peak = 0
    events = profiler.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def compile_seconds() -> tuple[float, float]:
    """Return the time of a first solve with an empty kernel cache, and in the next process."""
    with tempfile.TemporaryDirectory() as folder:
        return first_solve_seconds(folder), first_solve_seconds(folder)
