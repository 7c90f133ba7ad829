"""What all pictures share: the frame, the inks, the residual history, the file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from neuralsolve.io import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, OURS, OTHERS, SHORT, GROUND = "#22303c", "#1c6e8c", "#a9b4bc", "#c8553d", "#e9edf0"


def save(figure: Figure, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a figure as PNG; an existing file is replaced only if `overwrite`."""
    with replacing(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=150, facecolor="white", format="png")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, sizes in inches, whose panels keep clear of each other."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)  # type: ignore[union-attr]
    return figure


def plain_axes(axes: Axes) -> None:
    """Leave out the frame above and to the right; small figures at the ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)


def draw_history(axes: Axes, norms: Sequence[float], name: str | None = None) -> None:
    """Draw residual norms relative to the first, on a logarithmic axis."""
    relative = np.asarray(norms) / (norms[0] if norms[0] > 0 else 1.0)
    steps = np.arange(len(relative))
    seen = relative > 0  # a residual of exactly zero has no place on a logarithmic axis
    style: dict[str, Any] = {"marker": "o", "markersize": 3} if len(relative) < 40 else {}
    axes.semilogy(steps[seen], relative[seen], color=None if name else OURS, label=name, **style)
    axes.set_xlabel("iteration", fontsize=8)
    axes.set_ylabel("‖b − A xᵢ‖ / ‖b − A x₀‖", fontsize=8)
    axes.grid(True, which="major", color=GROUND)
    plain_axes(axes)
