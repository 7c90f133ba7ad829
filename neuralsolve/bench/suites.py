"""Suites of quantities against bars that were set beforehand, in groups that can be run alone."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from neuralsolve.bench import fields, gpu, learned, lowrank, multigrid, optimize, ssm, tuned
from neuralsolve.bench.bars import BarRow, Settings, missing
from neuralsolve.bench.clock import CPU
from neuralsolve.errors import InputError, OptionError, SolveError, check_known

Groups = Mapping[str, Callable[[Settings], Iterable[BarRow]]]
SUITES: dict[str, Groups] = {
    "multigrid": multigrid.GROUPS,
    "learned": learned.GROUPS,
    "tuned": tuned.GROUPS,
    "fields": fields.GROUPS,
    "optimize": optimize.GROUPS,
    "ssm": ssm.GROUPS,
    "lowrank": lowrank.GROUPS,
    "gpu": gpu.GROUPS,
}
ON_A_GPU = ("gpu",)  # suites that measure a CUDA device; the others run on the CPU


def take_suite(
    suite: str,
    repeats: int = 5,
    *,
    only: Sequence[str] = (),
    quick: bool = False,
    device: torch.device = CPU,
    progress: Callable[[str], object] | None = None,
) -> list[BarRow]:
    """Measure a suite.

    Parameters
    ----------
    suite : "multigrid", "learned", "tuned", "fields", "optimize", "ssm", "lowrank" or "gpu"
    repeats : rounds of every timing; the median counts
    only : groups to run, by default all of the suite's
    quick : toy sizes, which show that everything runs
    device : a CUDA device for the suite "gpu", the CPU for all others
    progress : called with the name of what runs next

    Raises
    ------
    OptionError
        An unknown suite or group, or a device that the suite does not measure.
    """
    check_known("no suite", suite, SUITES)
    check_place(suite, device)
    groups = SUITES[suite]
    for name in only:
        check_known(f"the suite {suite} has no group", name, groups)
    settings, rows = Settings(repeats, quick, device), []
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


def check_place(suite: str, device: torch.device) -> None:
    """Refuse a device that a suite does not measure."""
    if suite in ON_A_GPU and device.type != "cuda":
        msg = f"the suite {suite} measures a CUDA device, given {device}: give cuda, or leave --device out"
        raise OptionError(msg)
    if suite not in ON_A_GPU and device.type != "cpu":
        msg = f"the suite {suite} runs on the CPU, given {device}: leave --device out, or take --suite gpu"
        raise OptionError(msg)
