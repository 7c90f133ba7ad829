"""What the groups of the suite of learned solvers share: scenes that no training has seen, runs, counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import neuralsolve as ns
from neuralsolve.bench.bars import Settings, named
from neuralsolve.bench.baselines import SLACK
from neuralsolve.bench.rivals import Run, ours, pyamg, stencil_system
from neuralsolve.bench.scenes import unseen
from neuralsolve.bench.system import System
from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil

RTOL = 1e-6
FIRST = 1000  # seed of the scenes
CLASSICAL, V_CYCLE = "Multigrid", "Multigrid V(2,2)"


def seeds_of(settings: Settings, count: int, first: int = FIRST) -> list[int]:
    """Return so many seeds, two at most in a quick run."""
    return list(range(first, first + (min(count, 2) if settings.quick else count)))


def unseen_stencil(shape: tuple[int, ...], seed: int, kind: str) -> PoissonStencil:
    """Return the operator of a scene of `scenes.unseen`."""
    return PoissonStencil(unseen(shape, np.random.default_rng(seed), kind))


def unseen_system(
    shape: tuple[int, ...], seed: int, kind: str
) -> tuple[Callable[[], PoissonStencil], System, np.ndarray]:
    """Return how to make A from cells, the system of its fluid cells, and white noise."""
    generator = np.random.default_rng(seed)
    cells = unseen(shape, generator, kind).cells.numpy()
    b = generator.standard_normal(cells.size)

    def make() -> PoissonStencil:
        return PoissonStencil(Grid(cells, walls="neumann"))

    return make, stencil_system(f"unseen {named(shape)}", make(), b), b


def classical_runs(make: Callable[[], PoissonStencil], system: System, b: np.ndarray) -> dict[str, Run]:
    """Return runs of the classical methods, by name."""
    recipes: dict[str, Any] = {
        "CG": None,
        "MIC(0) + CG": ns.IncompleteCholesky(modified=0.97),
        CLASSICAL: ns.Multigrid(),
        V_CYCLE: ns.Multigrid("V"),
    }
    runs = {name: ours(make, M, system, b, RTOL) for name, M in recipes.items()}
    return runs | {f"PyAMG {kind.upper()} + cg": pyamg(kind, system, RTOL) for kind in ("rs", "sa")}


def count(A: PoissonStencil, seed: int, method: Any, M: Any, rtol: float = RTOL) -> float:
    """Return the iterations of a solve, infinitely many where it missed the tolerance."""
    b = np.random.default_rng(seed + 500).standard_normal(A.shape[0])
    result = ns.prepare(A, method, M=M, rtol=rtol).solve(b, throw=False)
    residual = stencil_system("count", A, b).residual(np.asarray(result.x))
    return result.iterations if residual <= SLACK * rtol else math.inf
