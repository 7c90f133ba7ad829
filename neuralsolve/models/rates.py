"""Learning rates as parts of the highest one: functions of the step alone, so a run may go on anywhere."""

from __future__ import annotations

import math

SCHEDULES = ("onecycle", "cosine", "step", "constant")
START, END = 1 / 25, 1e-4  # of the highest rate: where "onecycle" begins and ends


def rate(schedule: str, step: int, steps: int, rise: float, period: int, factor: float) -> float:
    """Return the rate of a step, 0-based, of `steps`.

    Parameters
    ----------
    schedule : "onecycle": up along a cosine over the part `rise` of the steps, then down (Smith and Topin
        2019);
        "cosine": up in a line over `rise`, then down; "step": times `factor` every `period` steps
    rise : part of the steps in which the rate grows
    period, factor : of "step"

    Examples
    --------
    >>> [round(rate("onecycle", k, 10, 0.3, 1, 0.5), 3) for k in (0, 3, 10)]
    [0.04, 1.0, 0.0]
    """
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        return factor ** (step // period)
    top = rise * steps
    if step < top:
        share = step / top
        return START + (1 - START) * _bump(1 - share) if schedule == "onecycle" else (step + 1) / (top + 1)
    return END + (1 - END) * _bump((step - top) / max(1e-9, steps - top))


def _bump(x: float) -> float:
    """Return a half cosine: one at 0, zero at 1."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, x)))
