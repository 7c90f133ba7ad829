"""The suite of multigrid: quantities against bars that were set beforehand, in groups that can be run alone.

Every timed run of ours builds A from the cells of the grid, prepares and solves; rivals start from the ready
matrix of the fluid cells. The right side is white noise unless a group says otherwise.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Sequence

from neuralsolve.bench.bars import BarRow, Settings, missing
from neuralsolve.bench.multigrid_costs import memory, right_sides, updates
from neuralsolve.bench.multigrid_counts import anisotropy, contrast, growth, iterations
from neuralsolve.bench.multigrid_times import aggregation, darcy, masked_2d, masked_3d
from neuralsolve.bench.traffic import kernels
from neuralsolve.errors import InputError, OptionError, SolveError, nearest

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


def take_multigrid(
    repeats: int = 5,
    *,
    only: Sequence[str] = (),
    quick: bool = False,
    progress: Callable[[str], object] | None = None,
) -> list[BarRow]:
    """Measure the suite.

    Parameters
    ----------
    repeats : rounds of every timing; the median counts
    only : groups to run, by default all of `GROUPS`
    quick : toy sizes, which show that everything runs
    progress : called with the name of what runs next

    Raises
    ------
    OptionError
        An unknown group.
    """
    for name in only:
        if name not in GROUPS:
            msg = f"the suite multigrid has no group {name!r}{nearest(name, list(GROUPS))}"
            raise OptionError(msg)
    settings, rows = Settings(repeats, quick), []
    for name in only or GROUPS:
        if progress is not None:
            progress(name)
        try:
            for row in GROUPS[name](settings):
                rows.append(row)
                if progress is not None:
                    progress(f"{name}: {row.quantity}, {row.problem}")
        except (
            InputError,
            SolveError,
            ArithmeticError,
            RuntimeError,
            OSError,
            subprocess.SubprocessError,
        ) as error:
            what = f"{type(error).__name__}: {error}"[:200]
            rows.append(missing(name, "the rest of the group", "", "", None, what))
    return rows
