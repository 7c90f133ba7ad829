"""Pictures of state-space systems: gain over frequency, and how far from normal a matrix is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.plot.style import GROUND, INK, OTHERS, OURS, SHORT, new_figure, plain_axes
from neuralsolve.ssm.pseudospectrum import pseudospectrum

COLOURS = (INK, SHORT, OURS, OTHERS)
STYLES: tuple[Any, ...] = ("-", "-", (0, (4, 2)), ":")


def transfer_function_figure(
    frequencies: ArrayLike,
    gains: Mapping[str, ArrayLike],
    spikes: Sequence[tuple[float, float]] = (),
    title: str = "",
) -> Figure:
    """Return |G(it)| of some systems over the frequency, both on logarithmic axes.

    Parameters
    ----------
    frequencies : (T,), above zero, ascending; they should hold the resonances, or none will be seen
    gains : name -> |G| at them, (T,); up to four, the first is what the others should be
    spikes : frequency and height of resonances to mark, the highest with its numbers

    Raises
    ------
    ShapeError, OptionError
        Gains of another length; more than four, or none.
    """
    if not 1 <= len(gains) <= len(COLOURS):
        msg = f"got {len(gains)} systems; 1 to {len(COLOURS)} can be told apart"
        raise OptionError(msg)
    t = np.asarray(frequencies, dtype=float)
    figure = new_figure(7.2, 4.2)
    axes = figure.add_subplot()
    for (name, gain), colour, line in zip(gains.items(), COLOURS, STYLES, strict=False):
        if np.shape(gain) != t.shape:
            msg = (
                f"{name!r} has gains of shape {np.shape(gain)}, the frequencies {t.shape}; one each is needed"
            )
            raise ShapeError(msg)
        axes.loglog(t, np.asarray(gain), color=colour, linestyle=line, linewidth=1.3, label=name)
    if spikes:
        where, height = np.asarray(spikes, dtype=float)[:, :2].T
        axes.plot(where, height, linestyle="none", marker="v", color=SHORT, markersize=4, label="resonances")
        top = int(height.argmax())
        left = where[top] > np.sqrt(t[0] * t[-1])
        axes.annotate(
            f"|G| = {height[top]:.3g} at t = {where[top]:.4g}",
            (where[top], height[top]),
            xytext=(-8 if left else 8, -3),
            textcoords="offset points",
            ha="right" if left else "left",
            fontsize=8,
            color=INK,
        )
    axes.set_xlim(t[0], t[-1])
    axes.set_xlabel("angular frequency t", fontsize=9)
    axes.set_ylabel("|G(it)|", fontsize=9)
    axes.grid(True, which="major", color=GROUND)
    plain_axes(axes)
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    figure.suptitle(title, fontsize=10, color=INK)
    return figure


def pseudospectrum_figure(
    A: Any,
    eigenvalues: Mapping[str, Sequence[complex]] | None = None,
    points: int = 80,
    window: tuple[float, float, float, float] | None = None,
    title: str = "",
) -> Figure:
    """Return the pseudospectra of A, log10 of the least singular value of zI - A, and eigenvalues on top.

    Parameters
    ----------
    A : (n, n)
    eigenvalues : name -> eigenvalues of A or of neighbours, drawn as points; up to four names
    points : of the grid to each side; each costs a singular value decomposition
    window : left, right, lower, upper; default: around all eigenvalues given

    Raises
    ------
    OptionError
        No window and no eigenvalues to find one by; more than four names.
    """
    groups = {name: np.asarray(list(values), dtype=complex) for name, values in (eigenvalues or {}).items()}
    if len(groups) > len(COLOURS) or (window is None and not any(len(z) for z in groups.values())):
        msg = f"got {len(groups)} groups of eigenvalues; 1 to {len(COLOURS)}, or a window, are needed"
        raise OptionError(msg)
    left, right, lower, upper = _window(np.concatenate(list(groups.values()))) if window is None else window
    x, y = np.linspace(left, right, points), np.linspace(lower, upper, points)
    levels = np.log10(np.maximum(pseudospectrum(A, x, y), 1e-300))
    figure = new_figure(6.4, 4.8)
    axes = figure.add_subplot()
    least, most = int(np.floor(np.percentile(levels, 1))), int(np.ceil(levels.max()))
    steps = np.arange(least, most + 1, max(1, (most - least) // 8))
    shades = LinearSegmentedColormap.from_list("depth", [OURS, GROUND, "white"])
    filled = axes.contourf(x, y, levels, levels=steps, cmap=shades, extend="both")
    axes.contour(x, y, levels, levels=steps, colors=OTHERS, linewidths=0.5, linestyles="solid")
    axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
    marks = ("o", "x", "+", "d")
    for (name, z), colour, mark in zip(groups.items(), (INK, SHORT, OURS, OTHERS), marks, strict=False):
        axes.plot(
            np.real(z), np.imag(z), linestyle="none", marker=mark, markersize=4, color=colour, label=name
        )
    axes.set_xlim(left, right)
    axes.set_ylim(lower, upper)
    axes.set_xlabel("Re z", fontsize=9)
    axes.set_ylabel("Im z", fontsize=9)
    bar = figure.colorbar(filled, ax=axes, pad=0.02)
    bar.set_label("log₁₀ of the least singular value of zI − A", fontsize=8)
    bar.ax.tick_params(labelsize=7, colors=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]
    plain_axes(axes)
    if groups:
        axes.legend(frameon=True, edgecolor="none", framealpha=0.8, fontsize=8, loc="upper left")
    figure.suptitle(title, fontsize=10, color=INK)
    return figure


def robustness_figure(
    panels: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]], title: str = ""
) -> Figure:
    """Return accuracy over the loudness of a noise: means over the seeds, and from the least to the largest.

    Parameters
    ----------
    panels : panel -> name -> loudness, 0 first -> accuracies in per cent, one a seed; up to four names

    Raises
    ------
    OptionError
        No panel, or more than four names in one.
    """
    if not panels or max(map(len, panels.values())) > len(COLOURS):
        msg = f"got {len(panels)} panels; one at least is needed, each of up to {len(COLOURS)} names"
        raise OptionError(msg)
    figure = new_figure(3.6 * len(panels) + 0.4, 3.4)
    grid: Any = figure.subplots(1, len(panels), sharey=True, squeeze=False)
    for axes, (panel, names) in zip(grid[0], panels.items(), strict=True):
        for (name, found), colour, line in zip(names.items(), COLOURS, STYLES, strict=False):
            places, values = range(len(found)), list(found.values())
            axes.plot(
                places, list(map(np.mean, values)), color=colour, linestyle=line, label=name, linewidth=1.5
            )
            low, high = list(map(min, values)), list(map(max, values))
            axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.set_xticks(places, [f"{loud:g}" for loud in found])
        axes.set_title(panel, fontsize=9, color=INK)
        axes.set_xlabel("amplitude a", fontsize=9)
        axes.set_ylim(0, 101)
        axes.grid(True, axis="y", color=GROUND)
        plain_axes(axes)
    grid[0, 0].set_ylabel("accuracy, %", fontsize=9)
    grid[0, 0].legend(frameon=False, fontsize=8, loc="lower left")
    figure.suptitle(title, fontsize=10, color=INK)
    return figure


def _window(z: np.ndarray) -> tuple[float, float, float, float]:
    """Return a frame with a tenth of the larger side around the points; the imaginary axis is inside."""
    x, y = np.real(z), np.imag(z)
    left, right = float(x.min()), max(0.0, float(x.max()))
    lower, upper = float(y.min()), float(y.max())
    rim = 0.1 * max(right - left, upper - lower, 1e-12)
    return left - rim, right + rim, lower - rim, upper + rim
