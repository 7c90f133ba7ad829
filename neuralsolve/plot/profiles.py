"""Performance profiles: the part of some problems that a solver solves within a multiple of the least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from neuralsolve.plot.style import GROUND, INK, new_figure, plain_axes

STEPS = {"where": "post", "linewidth": 1.6}


def profiles_figure(ratios: Mapping[str, Sequence[float]], effort: str, title: str = "") -> Figure:
    """Return the profiles of some solvers (Dolan and More, Math. Program. 91 (2002) 201-213).

    Parameters
    ----------
    ratios : solver -> for each problem its effort over the least of all solvers, infinite where it failed
    effort : what it is, for the axis
    """
    figure = new_figure(6.2, 4.2)
    axes = figure.add_subplot()
    ends = [value for values in ratios.values() for value in values if np.isfinite(value)]
    last = 1.3 * max([2.0, *ends])
    for name, values in ratios.items():
        found = np.sort([value for value in values if np.isfinite(value)])
        parts = np.arange(1, len(found) + 1) / max(1, len(values))
        x = np.concatenate([[1.0], found, [last]])
        axes.step(x, np.concatenate([[0.0], parts, parts[-1:] if len(parts) else [0.0]]), label=name, **STEPS)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.grid(True, color=GROUND)
    plain_axes(axes)
    axes.set_xlim(1, last)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(f"{effort}, over the least of all", fontsize=9)
    axes.set_ylabel("part of the problems solved", fontsize=9)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    figure.suptitle(title, fontsize=10, color=INK)
    return figure
