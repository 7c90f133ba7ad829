"""Pictures of how large errors of predicted fields are: over samples, over wave numbers, over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from neuralsolve.data import Samples
from neuralsolve.errors import ShapeError
from neuralsolve.plot.style import GROUND, INK, OTHERS, OURS, SHORT, new_figure, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INKS = (OURS, SHORT, "#7a6aa8", "#4f8a4c", "#c79a2b", INK)  # of models, in their order
BINS = 24


def relative_errors(made: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return ||u - t|| / ||t|| of every sample, of as many channels as were made.

    >>> relative_errors(np.ones((1, 1, 4)), np.full((1, 1, 4), 2.0)).tolist()
    [0.5]
    """
    t = truth[:, : made.shape[1]].reshape(len(truth), -1).astype(float)
    u = made.reshape(len(made), -1).astype(float)
    return np.linalg.norm(u - t, axis=1) / np.maximum(np.linalg.norm(t, axis=1), 1e-30)


def percent(error: float) -> str:
    """Return an error in words: per cent, or where that is thousands a factor.

    >>> percent(0.0123), percent(60.14), percent(6014)
    ('1.23 %', '60.1 ×', '6,014 ×')
    """
    if error < 10 or not np.isfinite(error):
        return f"{100 * error:.3g} %"
    return f"{error:.3g} ×" if error < 1000 else f"{error:,.0f} ×"


def errors_figure(errors: Mapping[str, Sequence[float] | np.ndarray], title: str = "") -> Figure:
    """Return histograms of relative errors, (n,) by model, on a logarithmic axis, and their medians."""
    found = {name: np.asarray(values, float) for name, values in errors.items()}
    figure = new_figure(6.2, 3.2 + 0.3 * len(found))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 0.5 + 0.3 * len(found)])
    known = np.concatenate([values[(values > 0) & np.isfinite(values)] for values in found.values()])
    low, high = (known.min(), known.max()) if len(known) else (0.1, 1.0)
    bins = np.geomspace(0.9 * low, 1.1 * high, BINS + 1)
    for k, (name, values) in enumerate(found.items()):
        ink = INKS[k % len(INKS)]
        above.hist(values, bins, histtype="stepfilled", color=ink, alpha=0.22)
        above.hist(values, bins, histtype="step", color=ink, linewidth=1.3, label=name)
        above.axvline(float(np.median(values)), color=ink, linewidth=1, linestyle="--")
    above.set_ylabel("samples", fontsize=8)
    above.grid(True, axis="y", color=GROUND)
    above.set_axisbelow(True)
    if len(found) > 1:
        above.legend(frameon=False, fontsize=8)
    plain_axes(above)
    draw_strips(below, found)
    figure.suptitle(title or "Errors of the samples; dashed: the median", fontsize=10, color=INK)
    return figure


def draw_strips(axes: Axes, errors: Mapping[str, np.ndarray]) -> None:
    """Draw a line of points for each model, a point a sample, with the median as a bar."""
    places = np.arange(len(errors))[::-1]
    for k, (place, values) in enumerate(zip(places, errors.values(), strict=True)):
        ink = INKS[k % len(INKS)]
        spread = 0.26 * np.sin(2.4 * np.arange(len(values)))  # apart, and the same in every picture
        size = 3.5 if len(values) > 40 else 6
        axes.plot(values, place + spread, ".", color=ink, markersize=size, alpha=0.6, markeredgewidth=0)
        middle = float(np.median(values))
        axes.plot([middle, middle], [place - 0.36, place + 0.36], color=ink, linewidth=2)
        axes.annotate(
            percent(middle),
            (1.0, place),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="center",
            fontsize=7.5,
            color=INK,
        )
    _percents(axes, np.concatenate(list(errors.values())))
    axes.set_yticks(places, list(errors), fontsize=8)
    axes.set_ylim(-0.6, len(errors) - 0.4)
    axes.set_xlabel("relative L2 error of a sample; bars and figures: the median", fontsize=8)
    axes.grid(True, axis="x", which="major", color=GROUND)
    axes.set_axisbelow(True)
    plain_axes(axes)


def _percents(axes: Axes, values: np.ndarray) -> None:
    """Make the abscissa logarithmic, its ticks 1, 2, 5, 10 % and so on, with room for words at the right."""
    axes.set_xscale("log")
    known = values[(values > 0) & np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.01, 0.1)
    ratio = high / low
    axes.set_xlim(low / max(1.1, ratio**0.04), high * max(1.15, ratio**0.16))
    axes.xaxis.set_major_locator(
        LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if ratio < 12 else (1.0, 2.0, 5.0))
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def spectrum(fields: np.ndarray) -> np.ndarray:
    """Return the energy of fields ``(n, channels, *shape)`` by whole wave number, mean over the samples.

    Entry k adds |u_k|^2 over all waves whose length rounds to k, with sum u_k exp(2 pi i k x) = u.

    >>> spectrum(np.cos(2 * np.pi * np.arange(8) / 8)[None, None]).round(3).tolist()
    [0.0, 0.5, 0.0, 0.0, 0.0]
    """
    shape = fields.shape[2:]
    waves = np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in shape), indexing="ij")
    length = np.rint(np.sqrt(sum(wave**2 for wave in waves))).astype(int)
    axes = tuple(range(2, fields.ndim))
    power = np.abs(np.fft.fftn(fields, axes=axes) / np.prod(shape)) ** 2
    return np.bincount(length.ravel(), power.sum(1).mean(0).ravel())[: max(shape) // 2 + 1]


def spectra_figure(truth: np.ndarray, made: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """Return the energy by wave number of the truth, of predictions and, dashed, of their errors.

    Parameters
    ----------
    truth : (n, channels, *shape) on a grid; of a box that is not periodic the jumps between its ends are part
        of the spectrum
    made : model -> the same
    """
    figure = new_figure(6.2, 4.2)
    axes = figure.add_subplot()
    k = np.arange(1, max(truth.shape[2:]) // 2 + 1)
    axes.loglog(k, spectrum(truth)[1:], color=OTHERS, linewidth=4, label="truth", solid_capstyle="round")
    for number, (name, values) in enumerate(made.items()):
        ink, true = INKS[number % len(INKS)], truth[:, : values.shape[1]]
        axes.loglog(k, spectrum(values)[1:], color=ink, linewidth=1.4, label=name)
        axes.loglog(k, spectrum(values - true)[1:], "--", color=ink, linewidth=1.1, label=f"error of {name}")
    axes.set_xlabel("wave number |k|, waves a side", fontsize=8)
    axes.set_ylabel("energy", fontsize=8)
    axes.grid(True, which="major", color=GROUND)
    axes.legend(frameon=False, fontsize=8)
    plain_axes(axes)
    axes.tick_params(which="both", labelsize=8)
    figure.suptitle(title or "Energy by wave number", fontsize=10, color=INK)
    return figure


def rollout_figure(
    samples: Samples,
    made: Mapping[str, np.ndarray],
    times: Sequence[float] | None = None,
    title: str = "",
) -> Figure:
    """Return the relative error by frame, its mean and the range of half of the samples.

    The grey line is persistence, the last frame of the input for ever: what is above it is worth nothing.

    Parameters
    ----------
    samples : frames as channels
    made : model -> (n, frames, *shape)
    times : of the frames of the outputs; None: their numbers
    """
    frames = samples.outputs.shape[1]
    still = np.broadcast_to(samples.inputs[:, -1:], samples.outputs.shape)
    at = np.asarray(times if times is not None else np.arange(1, frames + 1), float)
    figure = new_figure(6.2, 4.2)
    axes = figure.add_subplot()
    axes.semilogy(at, by_frame(still, samples.outputs).mean(0), "--", color=OTHERS, linewidth=2)
    axes.lines[0].set_label("persistence")
    for number, (name, values) in enumerate(made.items()):
        if values.shape[1] > frames or len(values) != len(samples):
            msg = f"{name}: predictions {values.shape} of outputs {samples.outputs.shape}"
            raise ShapeError(msg)
        ink, errors = INKS[number % len(INKS)], by_frame(values, samples.outputs)
        x = at[: errors.shape[1]]
        axes.fill_between(x, *np.quantile(errors, (0.25, 0.75), axis=0), color=ink, alpha=0.18, linewidth=0)
        axes.semilogy(x, errors.mean(0), color=ink, marker="o", markersize=3, linewidth=1.4, label=name)
    axes.set_xlabel("frame" if times is None else "time", fontsize=8)
    axes.set_ylabel("relative L2 error", fontsize=8)
    axes.grid(True, which="major", color=GROUND)
    axes.legend(frameon=False, fontsize=8)
    plain_axes(axes)
    axes.tick_params(which="both", labelsize=8)
    figure.suptitle(title or "Error by frame; shaded: half of the samples", fontsize=10, color=INK)
    return figure


def by_frame(made: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the relative errors (n, frames) of fields ``(n, frames, *shape)``."""
    frames = made.shape[1]
    pairs = (values[:, :frames].reshape(-1, 1, *truth.shape[2:]) for values in (made, truth))
    return relative_errors(*pairs).reshape(-1, frames)
