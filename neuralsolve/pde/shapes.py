"""Obstacles as masks of grid cells: a bunny, analytic or scanned, a sphere, a box.

Positions are fractions of the box width (the x side), axes ordered as in `Grid`: (y, x) or (z, y, x), y
upwards.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import FormatError, OptionError, nearest
from neuralsolve.pde.advection import sample

# The analytic bunny, sitting, one unit tall, looking to +x: ellipsoids (x, y, z of the centre, half axes,
# tilt in degrees of the first half axis in the x-y plane). Its silhouette along z is the union of the
# ellipses without z.
BUNNY = (
    (-0.06, 0.27, 0.00, 0.285, 0.245, 0.230, 18.0),  # body
    (-0.17, 0.22, 0.13, 0.195, 0.205, 0.120, 0.0),  # thighs
    (-0.17, 0.22, -0.13, 0.195, 0.205, 0.120, 0.0),
    (0.09, 0.34, 0.00, 0.150, 0.210, 0.165, -18.0),  # chest
    (0.185, 0.545, 0.00, 0.165, 0.135, 0.130, -12.0),  # head
    (0.285, 0.505, 0.00, 0.085, 0.075, 0.080, -10.0),  # muzzle
    (0.045, 0.790, 0.075, 0.220, 0.058, 0.040, 112.0),  # ears
    (0.155, 0.800, -0.075, 0.205, 0.055, 0.040, 88.0),
    (0.170, 0.120, 0.085, 0.055, 0.130, 0.055, 0.0),  # fore legs
    (0.170, 0.120, -0.085, 0.055, 0.130, 0.055, 0.0),
    (0.205, 0.035, 0.085, 0.085, 0.040, 0.055, 0.0),  # fore paws
    (0.205, 0.035, -0.085, 0.085, 0.040, 0.055, 0.0),
    (-0.040, 0.040, 0.140, 0.150, 0.045, 0.060, 0.0),  # hind feet
    (-0.040, 0.040, -0.140, 0.150, 0.045, 0.060, 0.0),
    (-0.365, 0.175, 0.00, 0.080, 0.075, 0.080, 0.0),  # tail
)

SOURCES = ("auto", "data", "analytic")

Inside = Callable[..., Tensor]


def bunny(x: Tensor, y: Tensor, z: Tensor | None = None) -> Tensor:
    """Return where points lie in the bunny, one unit tall, standing on y = 0; without z in its silhouette."""
    solid = torch.zeros_like(x, dtype=torch.bool)
    for cx, cy, cz, rx, ry, rz, tilt in BUNNY:
        cosine, sine = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
        along, across = cosine * (x - cx) + sine * (y - cy), cosine * (y - cy) - sine * (x - cx)
        distance = (along / rx).square() + (across / ry).square()
        if z is not None:
            distance = distance + ((z - cz) / rz).square()
        solid |= distance <= 1
    return solid


def sphere(x: Tensor, y: Tensor, z: Tensor | None = None) -> Tensor:
    """Return where points lie in the ball (disc) of diameter one that stands on y = 0."""
    square = x.square() + (y - 0.5).square()
    return (square if z is None else square + z.square()) <= 0.25


def box(x: Tensor, y: Tensor, z: Tensor | None = None) -> Tensor:
    """Return where points lie in the cube (square) of side one that stands on y = 0."""
    inside = (x.abs() <= 0.5) & ((y - 0.5).abs() <= 0.5)
    return inside if z is None else inside & (z.abs() <= 0.5)


SHAPES: dict[str, Inside] = {"bunny": bunny, "sphere": sphere, "box": box}


def obstacle(
    name: str, shape: Sequence[int], *, center: Sequence[float], size: float, source: str = "auto"
) -> Tensor:
    """Return the solid cells of an obstacle.

    Parameters
    ----------
    name : "bunny", "sphere", "box" or "none"
    shape : (ny, nx) or (nz, ny, nx)
    center : d floats
        Middle of the obstacle, of its height too, as fractions of the box width.
    size : float
        Height as a fraction of the box width.
    source : "auto", "data" or "analytic"
        Whether the bunny is the Stanford scan in ``$NEURALSOLVE_DATA/meshes/obstacle_masks.npz`` or a union
        of ellipsoids; "auto" takes the scan where it is there.

    Returns
    -------
    Tensor of bool, of the given shape

    Raises
    ------
    OptionError
        For an unknown name, or ``source="data"`` where the folder is missing.
    FormatError
        If the file does not hold the masks.

    Examples
    --------
    >>> solid = obstacle("sphere", (64, 64), center=(0.5, 0.5), size=0.5)
    >>> round(float(solid.double().mean()), 2)  # pi / 16
    0.2
    """
    from scipy.ndimage import binary_fill_holes

    if name == "none":
        return torch.zeros(tuple(shape), dtype=torch.bool)
    if name not in SHAPES:
        msg = f"unknown obstacle {name!r}{nearest(name, [*SHAPES, 'none'])}"
        raise OptionError(msg)
    width = shape[-1]
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) / width for n in shape]
    points = torch.meshgrid(*axes, indexing="ij")
    local = [(p - c) / size for p, c in zip(points, center, strict=True)]
    local[-2] = local[-2] + 0.5  # shapes stand on y = 0
    scan = _scan_file(source) if name == "bunny" else None
    solid = SHAPES[name](*reversed(local)) if scan is None else _scan(scan, local)
    return torch.from_numpy(
        binary_fill_holes(solid.numpy())
    )  # air locked up inside takes no part in the flow


def _scan_file(source: str) -> Path | None:
    """Return the file of scanned masks, or None where the analytic shape is to be used."""
    if source not in SOURCES:
        msg = f"unknown obstacle source {source!r}{nearest(source, ['auto', 'data', 'analytic'])}"
        raise OptionError(msg)
    folder = os.environ.get("NEURALSOLVE_DATA", "")
    path = Path(folder) / "meshes" / "obstacle_masks.npz"
    if source == "analytic" or (source == "auto" and not (folder and path.is_file())):
        return None
    if not (folder and path.is_file()):
        msg = (
            'obstacle_source="data" needs meshes/obstacle_masks.npz in the folder named by NEURALSOLVE_DATA; '
            'set that variable, or pass obstacle_source="analytic"'
        )
        raise OptionError(msg)
    return path


def _scan(path: Path, local: Sequence[Tensor]) -> Tensor:
    """Sample the scanned bunny, cropped to its bounds, at points of the unit-height frame."""
    key, side = ("bunny_silhouette", 192) if len(local) == 2 else ("bunny_96", 96)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            bits = archive[key]
        voxels = np.unpackbits(bits)[: side ** len(local)].reshape((side,) * len(local))
    except (OSError, KeyError, ValueError, TypeError, BadZipFile) as error:
        msg = f"{path.name} does not hold {key} as packed bits ({error}); see the README beside the file"
        raise FormatError(msg) from error
    if not voxels.any():
        msg = (
            f'{key} in {path.name} holds no solid voxel; restore the file, or pass obstacle_source="analytic"'
        )
        raise FormatError(msg)
    solid = voxels.transpose().astype(bool)  # stored (x, y[, z])
    if (
        solid.ndim == 3
    ):  # holes in the base of the scan left shafts: what lies between solids along x and z is solid
        solid = solid | (_between(solid, 0) & _between(solid, 2))
    filled = [
        np.flatnonzero(solid.any(axis=tuple(a for a in range(solid.ndim) if a != axis)))
        for axis in range(solid.ndim)
    ]
    bounds = [(int(f[0]), int(f[-1]) + 1) for f in filled]
    cropped = np.pad(solid[tuple(slice(*b) for b in bounds)], 1).astype(np.float64)
    height = bounds[-2][1] - bounds[-2][0]
    points = []
    for axis, (coordinate, (low, high)) in enumerate(zip(local, bounds, strict=True)):
        start = 0.0 if axis == len(local) - 2 else -(high - low) / 2
        points.append(
            coordinate * height - start + 0.5
        )  # voxel i has its centre at i + 1/2, plus one of padding
    return sample(torch.from_numpy(cropped), points) >= 0.5


def _between(solid: np.ndarray, axis: int) -> np.ndarray:
    """Return where there are solids on both sides along an axis."""
    before = np.logical_or.accumulate(solid, axis=axis)
    after = np.flip(np.logical_or.accumulate(np.flip(solid, axis), axis=axis), axis)
    return before & after
