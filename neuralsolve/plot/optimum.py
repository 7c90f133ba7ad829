"""Pictures of constrained minima: what was wanted, what was reached, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from neuralsolve.plot.solution import colour_scale
from neuralsolve.plot.style import GROUND, INK, OTHERS, OURS, SHORT, new_figure, plain_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from neuralsolve.optimize.result import MinimizeResult
    from neuralsolve.pde.control import PoissonControl


def control_figure(
    control: PoissonControl, result: MinimizeResult, title: str = "", tol: float | None = None
) -> Figure:
    """Return target, state and control, and beside them KKT residual and constraints over the steps.

    Target and state have the same colours, so that they can be compared. `tol` is drawn where it is given.
    """
    target = control.target()
    w, z = np.asarray(result.x).reshape(2, control.n, control.n)
    figure = new_figure(8.0, 6.6)
    panels = figure.subplots(2, 2)
    both = colour_scale(np.stack([target, w]))
    away = np.linalg.norm(w - target) / np.linalg.norm(target)
    _field(figure, panels[0, 0], target, "target $w_d$", both)
    _field(figure, panels[0, 1], w, f"state $w$, {away:.2g} of ‖$w_d$‖ away from it", both)
    _field(figure, panels[1, 0], z, f"control $z$, its price α = {control.alpha:g}", colour_scale(z))
    draw_steps(panels[1, 1], result.history, tol)
    status = "converged" if result.success else f"NOT converged ({result.status.name})"
    steps = "1 step" if result.nit == 1 else f"{result.nit} steps"
    line = f"{control.n} × {control.n} nodes; {steps}, {status}, KKT residual {result.kkt_residual:.2g}"
    figure.suptitle("\n".join(filter(None, [title, line])), fontsize=10, color=INK)
    return figure


def draw_steps(axes: Axes, history: Sequence[dict[str, float]], tol: float | None = None) -> None:
    """Draw the KKT residual and max |c| at the start and after each step, on a logarithmic axis."""
    steps = np.arange(len(history))
    style: dict[str, Any] = {"marker": "o", "markersize": 3} if len(history) < 40 else {}
    names = {"kkt_residual": ("KKT residual", OURS), "constr_violation": ("max |c|", SHORT)}
    axes.set_yscale("log")
    for key, (label, colour) in names.items():
        values = np.array([row[key] for row in history], dtype=float)
        seen = values > 0  # zero has no place on a logarithmic axis
        axes.plot(steps[seen], values[seen], color=colour, label=label, **style)
    if tol is not None:
        axes.axhline(tol, color=OTHERS, linewidth=1, linestyle="--", label="tolerance")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlim(-0.5, len(history) - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("step", fontsize=8)
    axes.grid(True, which="major", color=GROUND)
    axes.legend(frameon=False, fontsize=8)
    plain_axes(axes)


def _field(figure: Figure, axes: Axes, values: np.ndarray, title: str, scale: tuple[Any, str]) -> None:
    norm, colours = scale
    edge = len(values) / (len(values) + 1)  # half a cell beyond the outermost nodes; the walls are at 1
    image = axes.imshow(values, origin="lower", extent=(-edge, edge, -edge, edge), norm=norm, cmap=colours)
    axes.set_xlim(-1, 1)
    axes.set_ylim(-1, 1)
    axes.set_title(title, fontsize=9, color=INK)
    axes.set_xlabel("x", fontsize=8)
    axes.set_ylabel("y", fontsize=8)
    axes.set_xticks([-1, 0, 1])
    axes.set_yticks([-1, 0, 1])
    axes.tick_params(labelsize=7, colors=INK)
    bar = figure.colorbar(image, ax=axes, pad=0.02, shrink=0.9)
    bar.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]
    bar.ax.yaxis.get_offset_text().set_fontsize(7)
    bar.ax.tick_params(labelsize=7, colors=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]
