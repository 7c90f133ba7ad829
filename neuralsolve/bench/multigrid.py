"""The suite of multigrid: quantities against bars that were set beforehand, in groups that can be run alone.

Every timed run of ours builds A from the cells of the grid, prepares and solves; rivals start from the ready
matrix of the fluid cells. The right side is white noise unless a group says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from neuralsolve.bench.bars import BarRow, Settings
from neuralsolve.bench.multigrid_costs import memory, right_sides, updates
from neuralsolve.bench.multigrid_counts import anisotropy, contrast, growth, iterations
from neuralsolve.bench.multigrid_times import aggregation, darcy, masked_2d, masked_3d
from neuralsolve.bench.traffic import kernels

GROUPS: dict[str, Callable[[Settings], Iterable[BarRow]]] = {
    "masked_3d": masked_3d,
    "masked_2d": masked_2d,
    "darcy": darcy,
    "aggregation": aggregation,
    "iterations": iterations,
    "growth": growth,
    "contrast": contrast,
    "anisotropy": anisotropy,
    "updates": updates,
    "right_sides": right_sides,
    "memory": memory,
    "kernels": kernels,
}
