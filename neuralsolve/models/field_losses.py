"""How far fields ``(n, channels, *shape)`` are from the truth, relative to it, sample by sample: ``(n,)``.

    l2          ||u - t|| / ||t||
    h1          sqrt(||u - t||^2 + ||grad(u - t)||^2) / sqrt(||t||^2 + ||grad t||^2)
    derivative  ||grad(u - t)|| / ||grad t||
    frames      mean over the channels of ||u_c - t_c|| / ||t_c||: of a trajectory, every frame counts alike

grad: differences of neighbours, per unit of the coordinates. On meshes l2 alone is taken. At the truth all
are zero, and so is what flows back from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

TINY = 1e-30

FieldLoss = Callable[[Tensor, Tensor, Sequence[float]], Tensor]


def _squares(u: Tensor) -> Tensor:
    return u.flatten(1).square().sum(1)


def _slopes(u: Tensor, spacing: Sequence[float]) -> Tensor:
    total = u.new_zeros(len(u))
    for axis, h in enumerate(spacing):
        total = total + _squares(u.diff(dim=2 + axis)) / h**2
    return total


def _root(squares: Tensor) -> Tensor:
    """Return square roots whose slope at zero is taken as zero."""
    known = squares != 0  # true of NaN
    return torch.where(known, torch.where(known, squares, 1.0).sqrt(), 0.0)


def l2(u: Tensor, truth: Tensor, spacing: Sequence[float] = ()) -> Tensor:
    """Return the relative error.

    >>> float(l2(torch.ones(1, 1, 4), 2 * torch.ones(1, 1, 4)))
    0.5
    """
    return _root(_squares(u - truth) / _squares(truth).clamp(min=TINY))


def h1(u: Tensor, truth: Tensor, spacing: Sequence[float]) -> Tensor:
    """Return the relative error of values and slopes."""
    error, size = u - truth, _squares(truth) + _slopes(truth, spacing)
    return _root((_squares(error) + _slopes(error, spacing)) / size.clamp(min=TINY))


def derivative(u: Tensor, truth: Tensor, spacing: Sequence[float]) -> Tensor:
    """Return the relative error of slopes."""
    return _root(_slopes(u - truth, spacing) / _slopes(truth, spacing).clamp(min=TINY))


def frames(u: Tensor, truth: Tensor, spacing: Sequence[float] = ()) -> Tensor:
    """Return the mean of the relative errors of the channels.

    >>> truth = torch.tensor([[[1.0], [100.0]]])
    >>> float(frames(torch.tensor([[[0.0], [100.0]]]), truth))
    0.5
    """
    every = l2(u.flatten(0, 1)[:, None], truth.flatten(0, 1)[:, None])
    return every.reshape(u.shape[:2]).mean(1)


FIELD_LOSSES: dict[str, FieldLoss] = {"l2": l2, "h1": h1, "derivative": derivative, "frames": frames}
