"""Pictures of smoke as plain arrays of colours: no plotting library, so that a script can write films.

2D: the density through a colour scale, the obstacle lit as if it were inflated. 3D: parallel rays along z
through an absorbing and scattering medium, front to back; lights from the left and from above, in
whose shadows smoke and obstacle stand (the emission-absorption model of Max 1995).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from neuralsolve.errors import ShapeError

# density 0 ... 1: night, indigo, magenta, coral, apricot, ivory
COLOURS = np.array(
    [
        (0.035, 0.039, 0.063),
        (0.140, 0.098, 0.310),
        (0.480, 0.137, 0.427),
        (0.867, 0.322, 0.322),
        (0.988, 0.640, 0.404),
        (1.000, 0.957, 0.855),
    ]
)
WIDTH = 512  # pixels across, about
SOLID_COLOUR = np.array((0.80, 0.77, 0.73))
LIGHT = np.array((-0.45, 0.70, 0.55)) / np.linalg.norm((-0.45, 0.70, 0.55))  # x, y, towards the viewer


def picture(density: Tensor, solid: Tensor, *, scale: int | None = None) -> np.ndarray:
    """Return a picture of a smoke field.

    Parameters
    ----------
    density : Tensor (ny, nx) or (nz, ny, nx), values in [0, 1]
    solid : bool Tensor of that shape
    scale : int, optional
        Pixels per cell; as many as give about 512 pixels across where left out.

    Returns
    -------
    ndarray (scale ny, scale nx, 3) of uint8; the first row is the top of the box

    Examples
    --------
    >>> import torch
    >>> picture(torch.zeros(4, 6), torch.zeros(4, 6, dtype=torch.bool), scale=3).shape
    (12, 18, 3)
    """
    scale = scale or max(1, round(WIDTH / density.shape[-1]))
    values, mask = density.double().numpy(), solid.numpy()
    image = _flat(values, mask, scale) if values.ndim == 2 else _volume(values, mask, scale)
    return np.round(255 * np.clip(image, 0, 1)[::-1]).astype(np.uint8)


def strip(
    densities: Sequence[Tensor], solid: Tensor, *, scale: int | None = None, gap: int = 8
) -> np.ndarray:
    """Return pictures of several moments side by side, `gap` white pixels between them; see `picture`."""
    images = [picture(density, solid, scale=scale) for density in densities]
    if not images:
        msg = "no densities were given; pass at least one, such as [density for _, density in result.frames]"
        raise ShapeError(msg)
    white = np.full((len(images[0]), gap, 3), 255, np.uint8)
    return np.concatenate([part for image in images for part in (white, image)][1:], axis=1)


def colours(values: np.ndarray) -> np.ndarray:
    """Return the colour ``(..., 3)`` of densities in [0, 1]."""
    anchors = np.linspace(0, 1, len(COLOURS))
    return np.stack([np.interp(values, anchors, COLOURS[:, c]) for c in range(3)], axis=-1)


def _zoom(field: np.ndarray, scale: int, order: int = 3) -> np.ndarray:
    """Return a field with `scale` pixels per cell, cell centres staying where they are."""
    from scipy.ndimage import zoom

    if scale == 1:
        return field
    return np.asarray(zoom(field, scale, order=order, mode="nearest", grid_mode=True))


def _flat(density: np.ndarray, solid: np.ndarray, scale: int) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    around: Any = distance_transform_edt(solid, return_distances=False, return_indices=True)
    extended = density[tuple(around)]  # so that no dark rim appears along the obstacle
    order = 3 if scale < 4 else 1  # cubic splines ring visibly when much enlarged
    smoke = colours(np.clip(_zoom(extended, scale, order), 0, 1) ** 0.8)
    if not solid.any():
        return smoke
    cover = np.clip(_zoom(gaussian_filter(solid.astype(float), 0.7), scale) * 3 - 1, 0, 1)
    inside = _zoom(solid.astype(float), scale, 1) > 0.5
    inflated = np.sqrt(np.asarray(distance_transform_edt(inside)))
    shade = _lambert(gaussian_filter(inflated, 1.6 * scale), 2.2)
    return smoke + cover[..., None] * (shade[..., None] * SOLID_COLOUR - smoke)


def _lambert(height: np.ndarray, relief: float) -> np.ndarray:
    """Return the brightness of a surface z = height(y, x) under LIGHT, with some light from everywhere."""
    slope_y, slope_x = (np.asarray(g) * relief for g in np.gradient(height))
    facing = (-slope_x * LIGHT[0] - slope_y * LIGHT[1] + LIGHT[2]) / np.sqrt(1 + slope_x**2 + slope_y**2)
    return 0.30 + 0.75 * np.clip(facing, 0, None)


def _volume(density: np.ndarray, solid: np.ndarray, scale: int) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    per_cell = 14.0 / density.shape[-1]  # optical depth of one cell of full density
    body = gaussian_filter(solid.astype(float), 0.8)
    toward = np.stack(list(reversed(np.gradient(-body))))  # outward normal x, y, z
    toward /= np.linalg.norm(toward, axis=0) + 1e-9
    facing = np.clip(np.tensordot(LIGHT, toward, axes=1), 0, None)
    optical = per_cell * density + 1.5 * solid
    lit = 0.6 * _shadow(optical, axis=2, from_high=False) + 0.4 * _shadow(optical, axis=1, from_high=True)
    shape = (density.shape[1] * scale, density.shape[2] * scale)
    image, through = np.zeros((*shape, 3)), np.ones(shape)
    for k in reversed(range(density.shape[0])):  # the viewer stands at large z
        smoke = 1 - np.exp(-np.clip(_zoom(per_cell * density[k], scale, 1), 0, None))
        wall = np.clip(_zoom(body[k], scale, 1) * 4 - 1.5, 0, 1)
        bright = _zoom(lit[k], scale, 1)
        shade = 0.22 + 0.78 * _zoom(facing[k], scale, 1) * (0.35 + 0.65 * bright)
        smoke *= 1 - wall
        seen = (wall * shade)[..., None] * SOLID_COLOUR + smoke[..., None] * colours(0.2 + 0.8 * bright)
        image += through[..., None] * seen
        through *= 1 - wall - smoke
    return image + through[..., None] * COLOURS[0]


def _shadow(optical: np.ndarray, axis: int, from_high: bool) -> np.ndarray:
    """Return the share of light that reaches every cell along an axis, from its high or its low end."""
    ordered = np.flip(optical, axis) if from_high else optical
    passed = np.cumsum(ordered, axis) - ordered
    return np.exp(-0.45 * np.minimum(np.flip(passed, axis) if from_high else passed, 12.0))
