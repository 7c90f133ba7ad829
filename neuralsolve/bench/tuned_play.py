"""Learners played on a sequence whose costs are known for all arms; what their rows have in common."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from neuralsolve.bench.bars import BarRow, Bars, listed, row
from neuralsolve.bench.grid_counts import THREADS
from neuralsolve.tuning import AdaptiveSOR, Learner, Observation, replay

Solve = Callable[[int, float, np.ndarray], float]  # number, omega, room for residual norms -> cost
LONGEST = 10_001  # residual norms of a solve
Item = TypeVar("Item")
Made = TypeVar("Made")


def costs_of(
    learner: Learner,
    arms: np.ndarray,
    table: np.ndarray,
    contexts: np.ndarray,
    seed: int,
    context_range: tuple[float, float] | None = None,
    solve: Solve | None = None,
) -> np.ndarray:
    """Return the costs (T,) of a learner on a table (T, d); a numeric one's solves are done by `solve`."""
    if not learner.numeric or solve is None:
        found = replay(learner, table, contexts, [seed], context_range=context_range, arms=arms.tolist())
        return table[np.arange(len(table)), found.choices[0]]
    run, costs = learner.start(arms.tolist(), seed, context_range), np.empty(len(table))
    norms = np.zeros(LONGEST if isinstance(learner, AdaptiveSOR) else 0)
    for t, context in enumerate(contexts.tolist()):
        costs[t] = solve(t, run.choose(context), norms)
        run.learn(Observation(costs[t], costs[t] >= LONGEST - 1, norms[: int(costs[t]) + 1].tolist()))
    return costs


def side_by_side(make: Callable[[Item], Made], items: Sequence[Item]) -> Iterable[tuple[Item, Made]]:
    """Yield each item and what `make` makes of it in numba, made on other threads meanwhile."""
    with ThreadPoolExecutor(THREADS) as pool:
        yield from zip(items, pool.map(make, items), strict=True)


def ratios_row(
    group: str,
    problem: str,
    quantity: str,
    bars: Bars | None,
    values: Sequence[float],
    seeds: Sequence[int],
    **more: Any,
) -> BarRow:
    """Return a row of ratios of costs, with their mean and range."""
    note = "; ".join(filter(None, [spread(values), more.pop("note", "")]))
    return row(group, problem, quantity, "x", bars, values, seeds=listed(seeds), note=note, **more)


def spread(values: Sequence[float]) -> str:
    """Return ``mean 1.070 (1.051 to 1.090)``."""
    return f"mean {statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
