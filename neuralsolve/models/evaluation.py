"""What predictions are worth: errors of many kinds, relative to the truth, as means over the samples.

    l2, h1        as the losses of these names
    max           max |u - t| / max |t|
    boundary      l2 on the outermost nodes
    mean          |mean(u - t)| / sqrt(mean t^2): the conserved quantity of a periodic box
    vrmse         sqrt(mean (u - t)^2 / variance of t)                                   (The Well)
    low, middle, high   size of the error's Fourier modes |k| <= 4, <= 12, above, over ||t||  (after PDEBench)
    residual      by how much the prediction misses the equation; residual_truth by how much the data do

On meshes those that need a grid are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.data.samples import Samples
from neuralsolve.errors import ShapeError
from neuralsolve.models.field_losses import TINY, h1, l2
from neuralsolve.models.frames import on_frames
from neuralsolve.models.surrogate import Surrogate

BANDS = {"low": (0.0, 4.0), "middle": (4.0, 12.0), "high": (12.0, math.inf)}


def errors(made: np.ndarray, truth: np.ndarray, spacing: Sequence[float] = ()) -> dict[str, np.ndarray]:
    """Return the errors of every sample, name -> (n,), of fields ``(n, channels, *shape)``.

    Parameters
    ----------
    spacing : of the nodes along each axis; () on a mesh

    Examples
    --------
    >>> truth = np.ones((2, 1, 8, 8))
    >>> found = errors(1.5 * truth, truth, (1 / 8, 1 / 8))
    >>> [float(v) for v in found["l2"]], float(found["high"].max())
    ([0.5, 0.5], 0.0)
    """
    u, t = (torch.from_numpy(np.ascontiguousarray(v, np.float64)) for v in (made, truth))
    flat_u, flat_t = u.flatten(1), t.flatten(1)
    size = flat_t.square().mean(1).clamp(min=TINY)
    found = {
        "l2": l2(u, t),
        "max": (flat_u - flat_t).abs().amax(1) / flat_t.abs().amax(1).clamp(min=TINY),
        "mean": (flat_u - flat_t).mean(1).abs() / size.sqrt(),
        "vrmse": ((flat_u - flat_t).square().mean(1) / flat_t.var(1, unbiased=False).clamp(min=TINY)).sqrt(),
    }
    if len(spacing) and min(u.shape[2:]) > 1:
        found["h1"] = h1(u, t, spacing)
        found["boundary"] = _on_boundary(u - t) / (flat_t.square().mean(1).sqrt().clamp(min=TINY))
        found |= _bands(u - t, flat_t.square().sum(1))
    return {name: value.numpy() for name, value in found.items()}


def _on_boundary(error: Tensor) -> Tensor:
    """Return the root mean square over the outermost nodes."""
    outer = torch.ones(error.shape[2:], dtype=torch.bool)
    outer[(slice(1, -1),) * outer.ndim] = False
    return error[..., outer].flatten(1).square().mean(1).sqrt()


def _bands(error: Tensor, size: Tensor) -> dict[str, Tensor]:
    shape = error.shape[2:]
    waves = torch.meshgrid(*(torch.fft.fftfreq(n, 1 / n) for n in shape), indexing="ij")
    length = torch.stack(list(waves)).square().sum(0).sqrt()
    power = torch.fft.fftn(error, dim=tuple(range(2, error.ndim))).abs().square().sum(1) / math.prod(shape)
    return {
        name: (
            (power * ((length > low) | (low == 0)) * (length <= high)).flatten(1).sum(1)
            / size.clamp(min=TINY)
        ).sqrt()
        for name, (low, high) in BANDS.items()
    }


def evaluated(
    model: Surrogate,
    samples: Samples,
    steps: int | None = None,
    residual: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> dict[str, Any]:
    """Return the mean errors of a model on samples, of any grid, and the worst l2.

    Parameters
    ----------
    steps : of a roll-out; None: one step gives all outputs
    residual : of the equation that the samples obey

    Raises
    ------
    ShapeError
        The model makes more than the samples have to compare with.
    """
    found = measured(samples, model.predict(samples, steps=steps), residual)
    row: dict[str, Any] = {name: float(value.mean()) for name, value in found.items()}
    return row | {"worst": float(found["l2"].max())}


def measured(
    samples: Samples,
    made: np.ndarray,
    residual: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Return the errors of predictions, of every sample, and of the equation where it is known.

    Raises
    ------
    ShapeError
        The samples have fewer outputs to compare with.
    """
    if made.shape[1] > samples.outputs.shape[1]:
        msg = (
            f"{made.shape[1]} channels were predicted, the data have {samples.outputs.shape[1]}; fewer "
            "steps of the roll-out, or data with more frames are needed"
        )
        raise ShapeError(msg)
    truth, axes = samples.outputs[:, : made.shape[1]], samples.layout.axes
    found = errors(made, truth, [float(axis[1] - axis[0]) for axis in axes if len(axis) > 1])
    if residual is not None:
        of_truth = np.asarray(residual(samples.inputs, truth))
        if np.isfinite(of_truth).all():  # else the nodes do not resolve what the equation speaks of
            found["residual"], found["residual_truth"] = np.asarray(residual(samples.inputs, made)), of_truth
    return found


def steps_for(model: Surrogate, samples: Samples) -> int | None:
    """Return the steps that give all frames, of a model that makes a part of them at a time."""
    if on_frames(model.network):
        fields, frames = model.net.fields, samples.outputs.shape[1]  # type: ignore[union-attr]
        return frames // fields if frames != samples.inputs.shape[1] else None  # type: ignore[operator]
    frames, outputs = samples.outputs.shape[1], model.network["outputs"]
    return frames // outputs if frames > outputs else None
