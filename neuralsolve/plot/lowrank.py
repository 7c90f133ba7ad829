"""Pictures of compressed models: what each layer keeps, and the error over what is kept."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from neuralsolve.errors import OptionError
from neuralsolve.plot.style import GROUND, INK, OTHERS, OURS, SHORT, new_figure, plain_axes

COLOURS = (OURS, OTHERS, INK, SHORT)


def compression_figure(
    layers: Mapping[str, tuple[float, float]],
    curves: Mapping[str, Mapping[float, float]],
    marked: tuple[float, float] | None = None,
    title: str = "",
) -> Figure:
    """Return the parameters of each layer before and after, and errors over the part that is kept.

    Parameters
    ----------
    layers : path -> parameters before and after, from the inputs of the model to its outputs
    curves : name -> part kept -> error; up to four names
    marked : part and error of the model after a fine-tune; None: there is none

    Raises
    ------
    OptionError
        No layer, no curve, or more than four.
    """
    if not layers or not 1 <= len(curves) <= len(COLOURS):
        msg = (
            f"got {len(layers)} layers and {len(curves)} curves; one layer and 1 to {len(COLOURS)} are needed"
        )
        raise OptionError(msg)
    figure = new_figure(8.4, max(3.2, 0.8 + 0.2 * len(layers)))
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    places = np.arange(len(layers))
    before, after = (np.array([pair[k] for pair in layers.values()], float) for k in (0, 1))
    left.barh(places, before, color=GROUND, height=0.8, label="before")
    left.barh(places, after, color=OURS, height=0.8, label="kept")
    for place, whole, part in zip(places, before, after, strict=True):
        left.annotate(
            f"{part / whole:.0%}", (whole, place), (3, 0), textcoords="offset points", va="center", fontsize=7
        )
    left.set_yticks(places, list(layers))
    left.invert_yaxis()
    left.set_xlim(0, 1.12 * before.max())
    left.set_xlabel("parameters", fontsize=9)
    left.legend(frameon=False, fontsize=8)
    plain_axes(left)
    left.tick_params(axis="y", labelsize=7)
    right.tick_params(which="both", labelsize=8)
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        parts = sorted(curve)
        right.semilogy(
            parts, [curve[part] for part in parts], color=colour, marker="o", markersize=3, label=name
        )
    if marked is not None:
        right.plot(*marked, marker="*", markersize=10, color=SHORT, linestyle="none", label="fine-tuned")
    right.set_xlabel("part of the parameters that is kept", fontsize=9)
    right.set_ylabel("relative L2 of held samples", fontsize=9)
    right.grid(True, which="major", color=GROUND)
    right.legend(frameon=False, fontsize=8)
    plain_axes(right)
    figure.suptitle(title, fontsize=10, color=INK)
    return figure
