"""The same pressure systems, solved by SciPy's CG and PyAMG beside ours.

Every solver gets the same b (null space removed), the same first guess and the same rtol; every true residual
‖b - A x‖/‖b‖ is formed here from the assembled matrix. Set-up is timed apart. The baselines get the fluid
cells only, as CSR.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from torch import Tensor

from neuralsolve.operators.stencil import PoissonStencil

OURS, SCIPY, PYAMG = "neuralsolve", "SciPy CG", "PyAMG RS + CG"


@dataclass(frozen=True)
class PressureTiming:
    """One pressure solve by one solver.

    Attributes
    ----------
    step : int, from 1
    solver : str
    iterations : int
    seconds : float
        Wall time of the solve.
    residual : float
        ‖b - A x‖/‖b‖, recomputed from the assembled matrix.
    choice : str
        What a learner had chosen; empty where nothing is `Tuned`.
    """

    step: int
    solver: str
    iterations: int
    seconds: float
    residual: float
    choice: str = ""


class PressureComparison:
    """SciPy CG and PyAMG (a Ruge-Stüben V-cycle inside SciPy's CG) on the fluid cells of a stencil.

    Parameters
    ----------
    A : PoissonStencil
    rtol : float

    Attributes
    ----------
    setup_seconds : dict of solver to seconds
    """

    def __init__(self, A: PoissonStencil, rtol: float):
        import pyamg

        self.rtol, self.null_space = rtol, A.null_space
        self.fluid = A.grid.fluid.reshape(-1)
        cells = np.flatnonzero(self.fluid.numpy())
        self.matrix = A.to_scipy()[cells][:, cells]
        began = time.perf_counter()
        cycle = pyamg.ruge_stuben_solver(self.matrix).aspreconditioner(cycle="V")
        self.setup_seconds = {SCIPY: 0.0, PYAMG: time.perf_counter() - began}
        self.preconditioners: dict[str, Any] = {SCIPY: None, PYAMG: cycle}

    def right_side(self, b: Tensor) -> np.ndarray:
        """Return b ``(n,)`` on fluid cells, less its part in the null space of A."""
        b = b.masked_fill(~self.fluid, 0.0)
        if self.null_space is not None:
            self.null_space.project(b)
        return b[self.fluid].numpy()

    def residual(self, x: Tensor, b: Tensor) -> float:
        """Return ‖b - A x‖/‖b‖ of a solution ``(n,)`` on all cells; 0 where b is 0."""
        return self._residual(x[self.fluid].numpy(), self.right_side(b))

    def solve(self, step: int, b: Tensor, x0: Tensor | None) -> list[PressureTiming]:
        """Return one row per baseline."""
        from scipy.sparse.linalg import cg

        right = self.right_side(b)
        start = np.zeros_like(right) if x0 is None else x0[self.fluid].numpy()
        rows = []
        for name, M in self.preconditioners.items():
            iterates: list[None] = []
            began = time.perf_counter()
            x, _ = cg(
                self.matrix,
                right,
                x0=start,
                rtol=self.rtol,
                M=M,
                callback=lambda _, seen=iterates: seen.append(None),
            )
            seconds = time.perf_counter() - began
            rows.append(PressureTiming(step, name, len(iterates), seconds, self._residual(x, right)))
        return rows

    def _residual(self, x: np.ndarray, right: np.ndarray) -> float:
        size = float(np.linalg.norm(right))
        return float(np.linalg.norm(right - self.matrix @ x)) / size if size else 0.0


@dataclass(frozen=True)
class TimingTable:
    """Rows of all solvers over all steps, and what they add up to.

    Attributes
    ----------
    rows : tuple of PressureTiming
    setup_seconds : mapping of solver to seconds, in the order of the table
    """

    rows: tuple[PressureTiming, ...]
    setup_seconds: Mapping[str, float]

    def totals(self) -> list[dict[str, Any]]:
        """Return one dict per solver; `ratio` is its median solve time over ours of the same run.

        Where learners chose, there is one for each choice besides, whose set-up is in its solves.
        """
        ours = statistics.median(row.seconds for row in self.rows if row.solver == OURS)
        table = []
        for solver, setup in self.setup_seconds.items():
            rows = [row for row in self.rows if row.solver == solver]
            table.append(_total(solver, setup, rows, ours))
            for choice in sorted({row.choice for row in rows} - {""}):
                some = [row for row in rows if row.choice == choice]
                table.append(_total(f"{choice}, {len(some)} steps", 0.0, some, ours))
        return [total for total in table if total]

    def markdown(self) -> str:
        """Return the totals as a markdown table."""
        lines = [
            "| pressure solver | set-up, s | all steps, s | median step, ms | iterations per step "
            "| worst true residual | median / ours |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {t['solver']} | {t['setup_s']:.3f} | {t['solve_s']:.3f} | {t['median_ms']:.2f} "
            f"| {t['iterations']:.1f} | {t['worst_residual']:.1e} | {t['ratio']:.2f} |"
            for t in self.totals()
        ]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Return every row, with a header line."""
        names = [field.name for field in fields(PressureTiming)]
        return "\n".join([",".join(names), *(_csv_line(row, names) for row in self.rows)]) + "\n"


def _total(name: str, setup: float, rows: Sequence[PressureTiming], ours: float) -> dict[str, Any]:
    """Return what rows add up to; nothing of none."""
    if not rows:
        return {}
    median = statistics.median(row.seconds for row in rows)
    return {
        "solver": name,
        "setup_s": setup,
        "solve_s": sum(row.seconds for row in rows),
        "median_ms": 1e3 * median,
        "iterations": statistics.mean(row.iterations for row in rows),
        "worst_residual": max(row.residual for row in rows),
        "ratio": median / ours,
    }


def _csv_line(row: PressureTiming, names: Sequence[str]) -> str:
    values = asdict(row)
    return ",".join(f"{values[n]:.6g}" if isinstance(values[n], float) else str(values[n]) for n in names)
