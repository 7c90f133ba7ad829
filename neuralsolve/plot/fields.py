"""Pictures of predicted fields beside the truth, on grids of one to three axes and on meshes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from neuralsolve.data import Samples
from neuralsolve.errors import ShapeError
from neuralsolve.plot.errors import INKS, draw_strips, percent, relative_errors
from neuralsolve.plot.solution import SIGNED, colour_scale
from neuralsolve.plot.style import GROUND, INK, OTHERS, OURS, SHORT, new_figure, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLIPPED = 0.01  # of a colour scale: values further beyond it are pointed at
PANEL, BAR, SIDE = 1.95, 0.62, 0.75  # inches: a panel, its colour bar, the names of the rows


def fields_figure(
    samples: Samples,
    made: np.ndarray,
    names: Sequence[str] = (),
    title: str = "",
    channels: tuple[int, int] = (0, 0),
) -> Figure:
    """Return rows of samples: input, truth, prediction and error, made less true.

    Truth and prediction share the scale of the truth; a pointed colour bar tells of values beyond it. White
    in the error is zero, and in the others where both signs matter among all rows. On grids of one axis truth
    and prediction are lines in one panel, of three axes the middle slice across the first one is shown.

    Parameters
    ----------
    samples : as many as rows are wanted
    made : (n, channels, *shape), the predictions
    names : of the samples
    channels : of inputs and outputs
    """
    _same(samples, made)
    errors, deep = relative_errors(made, samples.outputs), len(samples.layout.axes) == 3
    names = [*names] or [f"sample {k}" for k in range(len(samples))]
    heads = [f"input {_name(samples.layout.inputs, channels[0], 'a')}", "truth", "prediction", "error"]
    heads[1] = f"truth {_name(samples.layout.outputs, channels[1], 'u')}"
    lines = len(samples.layout.axes) == 1
    if lines:
        heads = [heads[0], f"{heads[1]} and prediction", heads[3]]
    width, height = _size(samples, 3 if lines else 4)
    figure = new_figure(width, 0.75 + height * len(samples))
    panels = figure.subplots(len(samples), len(heads), squeeze=False)
    signs = [
        _signed(values[:, channel])
        for values, channel in zip((samples.inputs, samples.outputs), channels, strict=True)
    ]
    for k, row in enumerate(panels):
        fields = [samples.inputs[k, channels[0]], samples.outputs[k, channels[1]], made[k, channels[1]]]
        if lines:
            _draw_lines(row, samples.layout.axes[0], fields, first=k == 0)
        else:
            scale = colour_scale(fields[1], signs[1])
            error = fields[2] - fields[1]
            _bar(
                figure, draw_field(row[0], samples, k, fields[0], *colour_scale(fields[0], signs[0])), row[0]
            )
            for axes, values in zip(row[1:3], fields[1:], strict=True):
                _bar(figure, draw_field(axes, samples, k, values, *scale), axes)
            _bar(figure, draw_field(row[3], samples, k, error, *_about_zero(error)), row[3])
        row[0].set_ylabel(f"{names[k]}\n{percent(errors[k])}", fontsize=8, color=INK)
    for axes, head in zip(panels[0], heads, strict=True):
        axes.set_title(head, fontsize=9, color=INK)
    slices = "; the middle slice" if deep else ""
    legend = f"relative L2 errors beside the rows{slices}"
    figure.suptitle(f"{title}\n{legend}" if title else legend, fontsize=10, color=INK)
    return figure


def comparison_figure(
    samples: Samples,
    made: Mapping[str, np.ndarray],
    title: str = "",
    rows: int = 2,
    channel: int = 0,
    first: int = 0,
) -> Figure:
    """Return the errors of several models on the same samples, one scale a row, and all of them as strips.

    Shown are the samples that the first model is worst at, and at its median.

    Parameters
    ----------
    samples : Samples
    made : model -> (n, channels, *shape), the best model first
    rows : of samples
    channel : of the outputs
    first : number of the first sample, for its name
    """
    found = {}
    for name, values in made.items():
        _same(samples, values)
        found[name] = relative_errors(values, samples.outputs)
    order = np.argsort(next(iter(found.values())))[::-1]
    which = list(dict.fromkeys(int(order[place]) for place in (0, len(order) // 2)))[:rows]
    width, height = _size(samples, 1 + len(made))
    strips = 0.7 + 0.34 * len(made)
    figure = new_figure(max(6.2, width), 0.6 + height * len(which) + strips)
    places = figure.add_gridspec(
        len(which) + 1, 1 + len(made), height_ratios=[height] * len(which) + [strips]
    )
    signed = _signed(samples.outputs[which, channel])
    for row, k in enumerate(which):
        panels = [figure.add_subplot(places[row, column]) for column in range(1 + len(made))]
        truth = samples.outputs[k, channel]
        differences = [values[k, channel] - truth for values in made.values()]
        if truth.ndim == 1 and samples.points is None:
            _error_lines(panels, samples.layout.axes[0], truth, differences)
        else:
            _bar(figure, draw_field(panels[0], samples, k, truth, *colour_scale(truth, signed)), panels[0])
            scale = _about_zero(np.stack(differences))
            for axes, each in zip(panels[1:], differences, strict=True):
                _bar(figure, draw_field(axes, samples, k, each, *scale), axes)
        panels[0].set_ylabel(f"sample {first + k}", fontsize=8, color=INK)
        for axes, name in zip(panels[1:], made, strict=True):
            axes.set_title(f"{name}: {percent(found[name][k])}", fontsize=8, color=INK)
        panels[0].set_title(f"truth {_name(samples.layout.outputs, channel, 'u')}", fontsize=8, color=INK)
    draw_strips(figure.add_subplot(places[-1, :]), found)
    figure.suptitle(title or "Errors on the same samples", fontsize=10, color=INK)
    return figure


def draw_field(axes: Axes, samples: Samples, k: int, values: np.ndarray, norm: Any, colours: str) -> Any:
    """Draw one field of sample k, on the grid or the mesh of the samples."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(GROUND)
    if samples.points is not None:
        return _draw_mesh(axes, samples, k, values, norm, colours)
    plane = values[len(values) // 2] if values.ndim == 3 else values
    (low, high), (left, right) = (
        (axis[0] - h / 2, axis[-1] + h / 2)
        for axis, h in ((axis, axis[1] - axis[0]) for axis in samples.layout.axes[-2:])
    )
    extent = (float(left), float(right), float(low), float(high))
    return axes.imshow(plane, origin="lower", extent=extent, norm=norm, cmap=colours)


def _draw_mesh(axes: Axes, samples: Samples, k: int, values: np.ndarray, norm: Any, colours: str) -> Any:
    assert samples.points is not None
    points = samples.points if samples.points.ndim == 2 else samples.points[k]
    axes.set_aspect("equal")
    axes.spines[:].set_visible(False)
    flat = points.shape[1] == 2 and samples.cells is not None and samples.cells.shape[1] in (3, 4)
    if not flat or samples.cells is None:
        size = float(np.clip(6000 / len(points), 1.5, 18))
        return axes.scatter(*points.T[:2], c=values, s=size, norm=norm, cmap=colours, linewidths=0)
    cells = samples.cells
    if cells.shape[1] == 4:
        cells = np.concatenate([cells[:, [0, 1, 2]], cells[:, [0, 2, 3]]])
    triangles = Triangulation(points[:, 0], points[:, 1], cells)
    return axes.tripcolor(triangles, values, norm=norm, cmap=colours, shading="gouraud")


def _draw_lines(row: Sequence[Axes], x: np.ndarray, fields: Sequence[np.ndarray], first: bool) -> None:
    given, truth, found = fields
    row[0].plot(x, given, color=INK, linewidth=1)
    row[1].plot(x, truth, color=OTHERS, linewidth=3, label="truth")
    row[1].plot(x, found, color=OURS, linewidth=1.2, label="prediction")
    row[2].axhline(0, color=OTHERS, linewidth=0.8)
    row[2].plot(x, found - truth, color=SHORT, linewidth=1)
    if first:
        row[1].legend(frameon=False, fontsize=7)
    for axes in row:
        axes.grid(True, color=GROUND)
        axes.ticklabel_format(axis="y", scilimits=(-2, 3))
        axes.yaxis.get_offset_text().set_fontsize(7)
        plain_axes(axes)
        axes.tick_params(labelsize=7)


def _error_lines(
    panels: Sequence[Axes], x: np.ndarray, truth: np.ndarray, differences: Sequence[np.ndarray]
) -> None:
    panels[0].plot(x, truth, color=INK, linewidth=1)
    size = max(float(np.abs(each).max()) for each in differences) or 1.0
    for k, (axes, each) in enumerate(zip(panels[1:], differences, strict=True)):
        axes.axhline(0, color=OTHERS, linewidth=0.8)
        axes.plot(x, each, color=INKS[k % len(INKS)], linewidth=1)
        axes.set_ylim(-1.05 * size, 1.05 * size)
    for axes in panels:
        axes.grid(True, color=GROUND)
        axes.ticklabel_format(axis="y", scilimits=(-2, 3))
        axes.yaxis.get_offset_text().set_fontsize(7)
        plain_axes(axes)
        axes.tick_params(labelsize=7)


def last_frames(samples: Samples, made: int) -> tuple[int, int]:
    """Return which channels of inputs and of `made` outputs to draw: the first, of trajectories the last.

    Trajectories are several frames in and out, or outputs named as the input is, at other times.
    """
    inputs, names = samples.inputs.shape[1], (*samples.layout.inputs, *samples.layout.outputs)
    stems = {name.partition("(t=")[0].partition("[")[0] for name in names}
    named = bool(samples.layout.inputs and samples.layout.outputs) and len(stems) == 1
    return (inputs - 1, made - 1) if made > 1 and (inputs > 1 or named) else (0, 0)


def _size(samples: Samples, columns: int) -> tuple[float, float]:
    """Return the width of a figure and the height of a row: panels have the shape of the domain."""
    if samples.points is not None:
        low, high = (
            samples.points.min(axis=(0, *range(1, samples.points.ndim - 1))),
            samples.points.max(axis=(0, *range(1, samples.points.ndim - 1))),
        )
        sides = (high - low)[:2][::-1]
    else:
        sides = [float(axis[-1] - axis[0]) for axis in samples.layout.axes[-2:]]
    ratio = 0.8 if len(sides) < 2 else float(np.clip(sides[0] / max(sides[1], 1e-300), 0.25, 2.0))
    return SIDE + (PANEL + BAR) * columns, PANEL * max(ratio, 0.45) + 0.3


def _about_zero(values: np.ndarray) -> tuple[Any, str]:
    size = float(np.nanmax(np.abs(values))) or 1.0
    return TwoSlopeNorm(0.0, -size, size), SIGNED


def _signed(values: np.ndarray) -> bool:
    return colour_scale(values)[1] == SIGNED


def _bar(figure: Figure, image: Any, axes: Axes) -> None:
    """Draw a colour bar, pointed where values lie beyond it."""
    low, high = image.get_clim()
    values, room = np.ma.compressed(np.ma.masked_invalid(image.get_array())), CLIPPED * (high - low)
    below, above = bool((values < low - room).any()), bool((values > high + room).any())
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((below, above), "neither")
    bar = figure.colorbar(image, ax=axes, pad=0.03, shrink=0.9, aspect=18, extend=extend)
    bar.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]
    bar.ax.yaxis.get_offset_text().set_fontsize(6.5)
    bar.ax.tick_params(labelsize=6.5, colors=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _name(names: Sequence[str], channel: int, otherwise: str) -> str:
    return names[channel] if names else otherwise


def _same(samples: Samples, made: np.ndarray) -> None:
    if made.shape[0] != len(samples) or made.shape[2:] != samples.outputs.shape[2:]:
        msg = f"predictions {made.shape} of samples whose outputs are {samples.outputs.shape}"
        raise ShapeError(msg)
