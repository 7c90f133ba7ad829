"""Suites of quantities against bars that were set beforehand, in groups that can be run alone."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence

from neuralsolve.bench import fields, learned, lowrank, multigrid, optimize, ssm, tuned
from neuralsolve.bench.bars import BarRow, Settings, missing
from neuralsolve.errors import InputError, SolveError, check_known

Groups = Mapping[str, Callable[[Settings], Iterable[BarRow]]]
SUITES: dict[str, Groups] = {
    "multigrid": multigrid.GROUPS,
    "learned": learned.GROUPS,
    "tuned": tuned.GROUPS,
    "fields": fields.GROUPS,
    "optimize": optimize.GROUPS,
    "ssm": ssm.GROUPS,
    "lowrank": lowrank.GROUPS,
}


def take_suite(
    suite: str,
    repeats: int = 5,
    *,
    only: Sequence[str] = (),
    quick: bool = False,
    progress: Callable[[str], object] | None = None,
) -> list[BarRow]:
    """Measure a suite.

    Parameters
    ----------
    suite : "multigrid", "learned", "tuned", "fields", "optimize", "ssm" or "lowrank"
    repeats : rounds of every timing; the median counts
    only : groups to run, by default all of the suite's
    quick : toy sizes, which show that everything runs
    progress : called with the name of what runs next

    Raises
    ------
    OptionError
        An unknown suite or group.
    """
    check_known("no suite", suite, SUITES)
    groups = SUITES[suite]
    for name in only:
        check_known(f"the suite {suite} has no group", name, groups)
    settings, rows = Settings(repeats, quick), []
    for name in only or groups:
        if progress is not None:
            progress(name)
        try:
            for row in groups[name](settings):
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
