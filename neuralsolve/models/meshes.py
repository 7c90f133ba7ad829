"""What models of fields have to know of meshes: their points as tensors, their box, and what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.data.samples import Samples
from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.models.networks import ON_POINTS

OUTSIDE = 0.5  # of the box of the training: how far beyond it points may lie


def mesh_of(samples: Samples, which: Any, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor | None]:
    """Return `placed` of some samples on points."""
    assert samples.points is not None
    return placed(samples.points, samples.codes, which, device)


def placed(
    points: np.ndarray, codes: np.ndarray | None, which: Any, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor | None]:
    """Return points ``(n, points, dim)``, or one for all, and codes ``(n, k)`` of some samples of a mesh."""

    def taken(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device)

    places = taken(points[None] if points.ndim == 2 else points[which])
    return places, None if codes is None else taken(codes[which])


def box_of(points: np.ndarray) -> list[list[float]]:
    """Return the lowest and the highest coordinates; an axis without extent gets one of 1.

    >>> box_of(np.array([[0.0, 5.0], [2.0, 5.0]]))
    [[0.0, 5.0], [2.0, 6.0]]
    """
    rows = points.reshape(-1, points.shape[-1]).astype(float)
    low, high = rows.min(0), rows.max(0)
    return [low.tolist(), np.where(high > low, high, low + 1).tolist()]


def check_kind(network: str, points: np.ndarray | None, normaliser: str) -> None:
    """Raise OptionError where a network, or a normaliser, is not for samples on such points, or a grid."""
    if (network in ON_POINTS) != (points is not None):
        fits = f"on {'a grid' if points is None else 'points'}, where {network!r} cannot be used"
        msg = f"samples are {fits}; the networks of points are {', '.join(ON_POINTS)}"
        raise OptionError(msg)
    if normaliser == "pointwise" and points is not None and points.ndim == 3:
        msg = (
            "a pointwise normaliser, but every sample has points of its own, which do not correspond; "
            'normaliser "channel" or "none" is needed'
        )
        raise OptionError(msg)


def check_axes(axes: Sequence[np.ndarray], own: Sequence[np.ndarray]) -> None:
    """Raise OptionError where nodes lie further outside the box of the training than `OUTSIDE` of it."""
    for k, (given, known) in enumerate(zip(axes, own, strict=True)):
        low, high = float(np.min(known)), float(np.max(known))
        room = OUTSIDE * (high - low or 1.0)
        if not (np.min(given) >= low - room and np.max(given) <= high + room):
            msg = (
                f"axis {k} runs from {np.min(given):.6g} to {np.max(given):.6g}, and the model was trained "
                f"on {low:.6g} to {high:.6g}; the same units of length and origin are needed"
            )
            raise OptionError(msg)


def check_points(network: dict[str, Any], points: np.ndarray | None, inputs: np.ndarray, known: int) -> None:
    """Raise an error where a trained network cannot look at inputs at such points, or on a grid.

    Parameters
    ----------
    network : name and options
    inputs : (n, channels, points)
    known : points of the normaliser, 1 unless pointwise
    """
    if (network["name"] in ON_POINTS) != (points is not None):
        given = "points= of the inputs are" if points is None else "fields on a grid and no points are"
        msg = f"{given} needed by the network {network['name']!r}"
        raise ShapeError(msg)
    if points is None:
        return
    low, high = np.asarray(network["bounds"])
    rows, room = np.asarray(points).reshape(-1, np.shape(points)[-1]), OUTSIDE * (high - low)
    if rows.shape[1] == len(low) and ((rows < low - room) | (rows > high + room)).any():
        msg = (
            f"points from {rows.min(0)} to {rows.max(0)}, and the model was trained on {low} to {high}; "
            "the same units of length and origin are needed"
        )
        raise OptionError(msg)
    if known > 1 and inputs.shape[-1] != known:
        msg = (
            f"inputs at {inputs.shape[-1]} points; a pointwise normaliser holds the model to the {known} "
            'points of its training: train it with normaliser "channel"'
        )
        raise ShapeError(msg)
