"""From one grid to another by splines, axis by axis: cubic, or linear where there are too few nodes.

The interpolation along an axis is a matrix ``(to, from)``, made once. On a periodic axis it wraps; where the
nodes of a Dirichlet axis do not reach the walls at 0 and 1, a zero lies there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Resampling:
    """Fields ``(..., *shape)`` from some axes to others.

    Parameters
    ----------
    axes, onto : coordinates of the nodes, of the unit box
    boundary : per axis "periodic", "dirichlet" or anything else; () for nothing known

    Examples
    --------
    >>> from_axis, to_axis = np.arange(16) / 16, np.arange(32) / 32
    >>> wave = torch.sin(2 * torch.pi * torch.tensor(from_axis))
    >>> finer = Resampling([from_axis], [to_axis], ["periodic"])(wave)
    >>> bool((finer - torch.sin(2 * torch.pi * torch.tensor(to_axis))).abs().max() < 1e-3)
    True
    """

    def __init__(self, axes: Sequence[np.ndarray], onto: Sequence[np.ndarray], boundary: Sequence[str] = ()):
        known = list(boundary) or [""] * len(axes)
        self.matrices = [
            None if len(a) == len(b) and np.allclose(a, b) else torch.from_numpy(_matrix(a, b, kind))
            for a, b, kind in zip(axes, onto, known, strict=True)
        ]

    def __call__(self, fields: Tensor) -> Tensor:
        dim = len(self.matrices)
        for axis, matrix in enumerate(self.matrices):
            if matrix is not None:
                at = fields.ndim - dim + axis
                fields = (fields.movedim(at, -1) @ matrix.to(fields).T).movedim(-1, at)
        return fields

    def of_array(self, fields: np.ndarray) -> np.ndarray:
        """Return an array resampled."""
        return self(torch.from_numpy(np.ascontiguousarray(fields, np.float64))).numpy()


def _matrix(axis: np.ndarray, onto: np.ndarray, boundary: str) -> np.ndarray:
    from scipy.interpolate import make_interp_spline

    nodes, values = np.asarray(axis, float), np.eye(len(axis))
    order = 3 if len(nodes) > 3 else 1
    if len(nodes) == 1:
        return np.ones((len(onto), 1))
    if boundary == "periodic":
        nodes, values = np.append(nodes, nodes[0] + 1.0), np.concatenate([values, values[:1]])
        spline = make_interp_spline(nodes, values, order, bc_type="periodic" if order == 3 else None)
        return spline(nodes[0] + (np.asarray(onto) - nodes[0]) % 1.0)
    zero = np.zeros((1, len(axis)))
    if boundary == "dirichlet" and nodes[-1] < 1 - 1e-9:
        nodes, values = np.append(nodes, 1.0), np.concatenate([values, zero])
    if boundary == "dirichlet" and nodes[0] > 1e-9:
        nodes, values = np.append(0.0, nodes), np.concatenate([zero, values])
    return make_interp_spline(nodes, values, order)(np.clip(onto, nodes[0], nodes[-1]))
