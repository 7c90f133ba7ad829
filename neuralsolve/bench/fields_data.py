"""Making data: Darcy flow by our multigrid beside PyAMG, in CPU seconds a sample."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np

from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, row
from neuralsolve.bench.baselines import silent
from neuralsolve.pde.darcy import Darcy

SEED, SAMPLES, DIRECT = 9001, 32, 4  # of them so many are solved directly too


def darcy(settings: Settings) -> Iterator[BarRow]:
    """Make samples of 421^2, solve the same systems by PyAMG, and some of them directly."""
    equation = Darcy(grid=61 if settings.quick else 421)
    numbers = range(4 if settings.quick else SAMPLES)
    equation.samples([len(numbers)], SEED)  # compiles
    together, made = _cpu(lambda: equation.samples(numbers, SEED))
    ours, theirs, apart = [], [], []
    for k in numbers:
        ours.append(_cpu(lambda k=k: equation.samples([k], SEED))[0])
        a = equation.permeability(k, SEED)
        A, b = equation.operator(a).to_scipy(), equation.right_side(a)
        theirs.append(_cpu(lambda A=A, b=b: _pyamg(A, b, equation.rtol))[0])
        if k < DIRECT:
            apart.append(_apart(A, b, equation.solve(a)[0][1:-1, 1:-1].ravel()))
    problem = f"Darcy 12:3, {equation.grid}^2"
    more: dict[str, Any] = {"seeds": str(SEED), "note": f"samples {listed(numbers)}"}
    yield row("data", problem, "CPU s a sample", "s", Bars(0.25, 0.10), [together / len(numbers)], **more)
    quantity = "CPU s of a sample made alone / of its solve by PyAMG RS + CG"
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    rival = {"baseline": "PyAMG RS + CG", "baseline_s": median(theirs), "solve_s": median(ours)}
    yield row("data", problem, quantity, "x", Bars(1.0), ratios, **rival, **more)
    assert made.residuals is not None
    yield row("data", problem, "relative residual", "", Bars(equation.rtol), made.residuals.tolist(), **more)
    yield row("data", problem, "distance to a direct solve, relative", "", Bars(1e-7), apart, **more)


def _cpu(call: Any) -> tuple[float, Any]:
    """Return the CPU seconds of a call, of all threads, and what it returned."""
    started = time.process_time()
    result = call()
    return time.process_time() - started, result


def _pyamg(A: Any, b: np.ndarray, rtol: float) -> np.ndarray:
    from pyamg import ruge_stuben_solver

    with silent():
        return np.asarray(ruge_stuben_solver(A).solve(b, tol=rtol, accel="cg"))


def _apart(A: Any, b: np.ndarray, u: np.ndarray) -> float:
    from scipy.sparse.linalg import spsolve

    exact: Any = spsolve(A.tocsc(), b)
    return float(np.linalg.norm(u - exact) / np.linalg.norm(exact))
