"""Pictures of what learners choose: cost over time, choices over time or over the context."""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neuralsolve.errors import OptionError
from neuralsolve.plot.style import GROUND, INK, OTHERS, OURS, SHORT, new_figure, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from neuralsolve.tuning.report import TuningReport, TuningTable

WINDOW = 20  # parts of the history that a moving mean spans


def tuning_figure(report: TuningReport, title: str = "", costs: Any = None) -> Figure:
    """Return the costs (left) and the choices (right) of a `Prepared.report()`, one row per tuned parameter.

    Choices are shown over the context where solves had one, else over the solves. `costs`, what every solve
    would have cost with every choice of the first parameter, adds its regret: see `TuningTable.regret`.
    """
    if not hasattr(report, "tables"):
        msg = f"a {type(report).__name__} is no report; give prepared.report()"
        raise OptionError(msg)
    rows = max(1, len(report.tables)) + (costs is not None)
    figure = new_figure(8.2, 0.6 + 2.6 * rows)
    panels = figure.subplots(rows, 2, squeeze=False)
    for (left, right), table in zip(panels, report.tables, strict=False):
        _draw_costs(left, table)
        _draw_choices(right, table)
        left.set_title(f"{table.name} by {table.learner}", fontsize=9, color=INK, loc="left")
    if costs is not None:
        _draw_regret(panels[-1, 0], report.tables[0], costs)
        panels[-1, 1].set_axis_off()
    figure.suptitle(title, fontsize=10, color=INK)
    return figure


def _draw_costs(axes: Axes, table: TuningTable) -> None:
    """Draw the costs that the learner was told, capped ones apart, and their moving mean."""
    told = [(k, pull) for k, pull in enumerate(table.history, 1) if not pull.first]
    costs = np.array([pull.cost for _, pull in told])
    capped = np.array([pull.capped for _, pull in told], dtype=bool)
    at = np.array([k for k, _ in told])
    axes.plot(at[~capped], costs[~capped], ".", color=OTHERS, markersize=3)
    if capped.any():
        label = "capped, or finished by the automatic choice"
        axes.plot(at[capped], costs[capped], "x", color=SHORT, markersize=4, label=label)
    width = max(1, len(costs) // WINDOW)
    if len(costs) > 1:
        mean = np.convolve(costs, np.ones(width) / width, "valid")
        axes.plot(at[width - 1 :], mean, color=OURS, label=f"mean of {width}" if width > 1 else "cost")
        axes.legend(frameon=False, fontsize=7)
    if costs.size and costs.min() > 0 and costs.max() > 30 * costs.min():
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("solve", fontsize=8)
    axes.set_ylabel(table.unit, fontsize=8)
    axes.grid(True, which="major", color=GROUND)
    plain_axes(axes)


def _draw_choices(axes: Axes, table: TuningTable) -> None:
    """Draw numbers as they are, other choices by name."""
    contexts = [pull.context for pull in table.history]
    seen = all(context is not None for context in contexts) and len(contexts) > 0
    x = np.array(contexts, dtype=float) if seen else np.arange(1, len(contexts) + 1)
    numeric = all(_is_number(label) for label in table.choices)
    if numeric and all(float(label).is_integer() for label in table.choices):
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    places = {label: float(label) if numeric else k for k, label in enumerate(table.choices)}
    axes.plot(x, [places[pull.choice] for pull in table.history], ".", color=OURS, markersize=3)
    if not numeric:
        axes.set_yticks(
            range(len(table.choices)), [shorten(label, 30, placeholder="...") for label in table.choices]
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=not seen))
    axes.set_xlabel("context" if seen else "solve", fontsize=8)
    axes.set_ylabel(table.name.split(".")[-1] if numeric else "", fontsize=8)
    axes.grid(True, which="major", color=GROUND)
    plain_axes(axes)


def _draw_regret(axes: Axes, table: TuningTable, costs: Any) -> None:
    """Draw what the run cost beyond the best fixed choice in hindsight."""
    regret = table.regret(costs)
    axes.plot(np.arange(1, len(regret) + 1), regret, color=OURS)
    axes.axhline(0.0, color=OTHERS, linewidth=0.8)
    axes.set_xlabel("solve", fontsize=8)
    axes.set_ylabel(f"regret, {table.unit}", fontsize=8)
    axes.grid(True, which="major", color=GROUND)
    plain_axes(axes)


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True
