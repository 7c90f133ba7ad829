"""Pictures of convergence, benchmarks and smoke."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle, product
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from neuralsolve.plot.style import GROUND, INK, OTHERS, OURS, SHORT, draw_history, new_figure, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from neuralsolve.pde.smoke import SmokeResult

LEAST = 0.01  # part of a bar where the axis begins: less says no more


def history_figure(residual_norms: Mapping[str, Sequence[float]], title: str = "") -> Figure:
    """Return the residual histories of several methods in one picture, each relative to its first norm."""
    figure = new_figure(6.2, 4.2)
    axes = figure.add_subplot()
    for name, norms in residual_norms.items():
        draw_history(axes, norms, name)
    axes.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10, color=INK)
    return figure


def smoke_figure(result: SmokeResult) -> Figure:
    """Return the frames of a smoke run, and where baselines ran the time per pressure solve of each.

    In 3D every frame is shown twice: as light comes through the volume, and as the middle slice.
    """
    from neuralsolve.pde.render import picture

    totals = [row for row in result.timings.totals() if row["solve_s"] > 0]
    compared, frames, solid = len(totals) > 1, len(result.frames), result.solid
    deep, middle = solid.ndim == 3, solid.shape[0] // 2
    width = max(6.2, 3.1 * (frames + (1.15 if compared else 0)))  # room for the title over a single frame
    figure = new_figure(width, 7.0 if deep else 3.9)
    places = figure.add_gridspec(1 + deep, frames + compared, width_ratios=[1.0] * frames + [0.95] * compared)
    for column, (time, density) in enumerate(result.frames):
        _image(figure.add_subplot(places[0, column]), picture(density, solid), f"t = {time:.2f}")
        if deep:
            panel = figure.add_subplot(places[1, column])
            _image(panel, picture(density[middle], solid[middle]), f"t = {time:.2f}, the middle slice")
    if compared:
        axes = figure.add_subplot(places[:, -1])
        _bars(
            axes,
            [str(row["solver"]) for row in totals],
            [row["median_ms"] for row in totals],
            "{:.3g} ms",
        )
        axes.set_xlabel("median time per pressure solve [ms]", fontsize=8)
        axes.set_title("the same systems, true residual checked", fontsize=9, color=INK)
    past = "" if result.case.obstacle == "none" else f" past a {result.case.obstacle}"
    case, cells = result.case, " x ".join(str(side) for side in result.case.shape)
    worst = max((record.relative_divergence for record in result.records), default=0.0)
    separator = "; " if figure.get_figwidth() > 10 else "\n"  # at 10 points a line takes 8 to 9 inches
    figure.suptitle(
        f"Smoke{past}, {cells} cells, {len(result.records)} steps{separator}"
        f"largest ‖div u‖ left by a projection: {worst:.1e} of what it met (tolerance {case.rtol:g})",
        fontsize=10,
        color=INK,
    )
    return figure


def _image(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image)
    axes.set_title(title, fontsize=9, color=INK)
    axes.set_axis_off()


def training_figure(
    curves: Mapping[str, Sequence[tuple[float, float]]], loss: str, title: str = ""
) -> Figure:
    """Return the losses of a training, (step, loss) by name; `loss` says what they are."""
    figure = new_figure(6.2, 4.2)
    axes = figure.add_subplot()
    drawn = [value for points in curves.values() for _, value in points if np.isfinite(value) and value > 0]
    looks = cycle(product(("-", "--"), (OTHERS, OURS, SHORT, INK)))
    for (label, points), (style, colour) in zip(curves.items(), looks, strict=False):
        steps, values = np.asarray(points, dtype=float).reshape(-1, 2).T
        known = np.isfinite(values) & (values > 0)
        axes.semilogy(steps[known], values[known], style, color=colour, label=label)
    axes.set_xlabel("step of training", fontsize=8)
    axes.set_ylabel(loss, fontsize=8)
    if drawn and max(drawn) < 10 * min(drawn):  # less than a decade: plain numbers
        axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.tick_params(which="both", labelsize=8)
    axes.grid(True, which="major", color=GROUND)
    axes.legend(frameon=False, fontsize=8)
    plain_axes(axes)
    figure.suptitle(title, fontsize=10, color=INK)
    return figure


def bench_figure(rows: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Return set-up and solve times, one panel per problem; what missed the tolerance is hatched."""
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    heights = [max(2, sum(row["problem"] == name for row in rows)) for name in problems]
    figure = new_figure(8.2, 0.9 + 0.32 * sum(heights) + 0.55 * len(problems))
    panels = np.atleast_1d(figure.subplots(len(problems), 1, height_ratios=heights))
    for axes, name in zip(panels, problems, strict=True):
        chosen = sorted((row for row in rows if row["problem"] == name), key=_order)
        _stacked_bars(axes, chosen)
        axes.set_title(f"{name}, n = {chosen[0]['n']:,}", fontsize=9, color=INK, loc="left")
    panels[-1].set_xlabel("seconds: set-up (pale) and solve", fontsize=8)
    figure.suptitle(title or "Time to the same true residual, two threads", fontsize=10, color=INK)
    return figure


def measures_figure(rows: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Return measured ratios against their bars: left of the line is within, right of it is short."""
    figure = new_figure(8.2, 1.2 + 0.36 * len(rows))
    axes = figure.add_subplot()
    shares = [row["value"] / row["bar"] for row in rows]
    colours = [OURS if share <= 1 else SHORT for share in shares]
    places = np.arange(len(rows))[::-1]
    axes.barh(places, shares, height=0.62, color=colours)
    axes.axvline(1.0, color=INK, linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(places, [row["measure"] for row in rows], fontsize=8)
    for place, share, row in zip(places, shares, rows, strict=True):
        unit = "" if row["unit"] == "x" else f" {row['unit']}"
        text = f" {row['value']:.3g}{unit}, allowed {row['bar']:.3g}"
        axes.text(max(1.0, share), place, text, va="center", fontsize=7.5, color=INK)
    axes.set_xlim(min(0.1, 0.7 * min(shares)), 30 * max(1.0, *shares))
    axes.set_xlabel("measured value / allowed value", fontsize=8)
    plain_axes(axes)
    figure.suptitle(title or "Measures of speed and memory", fontsize=10, color=INK)
    return figure


def bars_figure(rows: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Return what was measured as a part of what must be reached: within left of the line, short right of it.

    A diamond marks the aim, a line goes to the worst case. Where more is better, the part is turned over.
    """
    figure = new_figure(9.2, 1.3 + 0.3 * len(rows))
    axes = figure.add_subplot()
    axes.set_xscale("log")
    places = np.arange(len(rows))[::-1]
    extremes, edges = [1.0], _edges(rows)
    for place, row in zip(places, rows, strict=True):
        share, worst = (_share(row, key, edges) for key in ("median", "worst"))
        extremes += [share, worst]
        axes.barh(place, share, height=0.6, color=OURS if share <= 1 else SHORT)
        axes.plot([share, worst], [place, place], color=INK, linewidth=1.2)
        sense, wanted = "≥" if row["sense"] == ">=" else "≤", ""
        if row["aim"] is not None:
            aim = _share(row, "aim", edges)
            axes.plot(aim, place, marker="D", markersize=4.5, color="white", markeredgecolor=INK, zorder=3)
            extremes.append(aim)
            wanted = f", aim {row['aim']:g}"
        text = f"{row['median']:.3g} {row['unit']} (must {sense} {row['must']:g}{wanted})"
        axes.text(1.08 * max(share, worst, 1.0), place, text, va="center", fontsize=7.5, color=INK)
    axes.axvline(1.0, color=INK, linewidth=1)
    names = [f"{row['problem']}: {row['quantity']}" for row in rows]
    axes.set_yticks(places, names, fontsize=7.5)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    low, high = max(0.7 * min(extremes), LEAST), max(extremes)
    axes.set_xlim(low, 4 * high * (high / low) ** 0.75)  # room for the words
    words = "measured / must, turned over where more is better; diamonds: the aim"
    axes.set_xlabel(words, fontsize=8, loc="right")  # names of rows may leave less room than it needs
    plain_axes(axes)
    figure.suptitle(title or "Against the bars", fontsize=10, color=INK)
    return figure


def _share(row: Mapping[str, Any], key: str, edges: tuple[float, float] = (0.0, math.inf)) -> float:
    """Return a value as a part of what must be reached, turned over where more is better, within edges."""
    if row["sense"] == ">=":
        share = row["must"] / row[key] if row[key] > 0 else math.inf
    else:
        share = row[key] / row["must"]
    return min(max(share, edges[0]), edges[1])


def _edges(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return how far bars go whose value is zero or infinite: beyond all others."""
    shares = [_share(row, key) for row in rows for key in ("median", "worst")]
    known = [1.0, *(share for share in shares if 0 < share < math.inf)]
    return min(known) / 3, 3 * max(known)


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], form: str) -> None:
    places = np.arange(len(names))[::-1]
    axes.barh(places, values, height=0.55, color=[OURS if i == 0 else OTHERS for i in range(len(names))])
    axes.set_yticks(places, names, fontsize=8)
    for place, value in zip(places, values, strict=True):
        axes.text(value, place, " " + form.format(value), va="center", fontsize=8, color=INK)
    axes.set_xlim(0, 1.35 * max(values))
    plain_axes(axes)


def _order(row: Mapping[str, Any]) -> tuple[bool, float]:
    return not row["converged"], _total(row)


def _total(row: Mapping[str, Any]) -> float:
    return row["setup_s"] + row["solve_s"]


def _stacked_bars(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    places = np.arange(len(rows))[::-1]
    for place, row in zip(places, rows, strict=True):
        colour = OURS if row["ours"] else OTHERS
        hatch = None if row["converged"] else "////"
        axes.barh(place, row["setup_s"], height=0.62, color=colour, alpha=0.45)
        axes.barh(
            place,
            row["solve_s"],
            left=row["setup_s"],
            height=0.62,
            color=colour,
            hatch=hatch,
            edgecolor="white",
        )
        note = f" {_total(row):.3g} s, {row['iterations']} its" + (
            "" if row["converged"] else ", NOT converged"
        )
        axes.text(_total(row), place, note, va="center", fontsize=7.5, color=INK)
    axes.set_yticks(places, [row["method"] for row in rows], fontsize=8)
    axes.set_xlim(0, 1.45 * max(map(_total, rows)))
    plain_axes(axes)
