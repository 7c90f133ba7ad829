"""``.pt`` files of tensors, as neuraloperator and PINA keep them; no pickle but tensors is ever loaded."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralsolve.data.readers.arrays import keys_of, shapes, sides
from neuralsolve.data.readers.found import Found, held
from neuralsolve.data.samples import Layout
from neuralsolve.errors import ShapeError
from neuralsolve.io.files import DAMAGED, bounded_memory, broken, check_unpacked_size, existing_file

SUFFIXES = (".pt", ".pth")
EXPECTED = (
    "a dict of tensors with x (n, *grid) and y (n, *grid) or (n, times, *grid), as torch.save writes it"
)
MESH = ("x", "y", "u", "triang")


def read_pt(path: Path, wanted: tuple[Sequence[str], Sequence[str]], dim: int | None) -> Found:
    """Return what a ``.pt`` file holds: x and y on a grid, or x, y, u, triang on triangles."""
    arrays = _loaded(existing_file(path, SUFFIXES))
    small = {name: each for name, each in arrays.items() if each.size == 1}
    origin: dict[str, Any] = {name: each.ravel().tolist()[0] for name, each in small.items()}
    if all(name in arrays for name in MESH) and not any(wanted):
        return _on_triangles(path, arrays, origin)
    large = {name: each for name, each in arrays.items() if name not in small}
    inputs, outputs = keys_of(path, large, wanted)
    one, other = ({name: arrays[name] for name in names} for names in (inputs, outputs))
    return held(path, sides(path, one, other, dim), layout=Layout(origin=origin))


def _loaded(path: Path) -> dict[str, np.ndarray]:
    import torch

    try:
        with warnings.catch_warnings(), bounded_memory(path):
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise broken(
            path, "objects that are no tensors", f"{EXPECTED}; nothing else is loaded, it could run anything"
        ) from None
    except (*DAMAGED, KeyError, AttributeError, AssertionError) as error:
        raise broken(path, f"no tensors ({error})", EXPECTED) from None
    if isinstance(content, list | tuple) and len(content) == 2:
        content = dict(zip(("x", "y"), content, strict=True))
    if not isinstance(content, dict):
        raise broken(path, f"a {type(content).__name__}", EXPECTED)
    arrays = {}
    for name, value in content.items():
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.device.type != "cpu":
            continue
        check_unpacked_size(path, value.numel() * value.element_size())  # strides may repeat a number
        tensor = value.detach()
        # a copy: files hold views that would keep a larger buffer alive
        arrays[str(name)] = np.array((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())
    return arrays


def _on_triangles(path: Path, arrays: dict[str, np.ndarray], origin: dict[str, Any]) -> Found:
    """Return fields on meshes that share their triangles: x, y, u (points, n), triang (m, 3), mu (n, k)."""
    x, y, u, cells = (arrays[name] for name in MESH)
    codes = arrays.get("mu")
    if not (x.ndim == cells.ndim == 2 and x.shape == y.shape == u.shape and cells.shape[1] == 3):
        msg = f"{path}: found {shapes(arrays)}; expected x, y, u (points, samples) and triang (m, 3)"
        raise ShapeError(msg)
    if cells.dtype.kind not in "iu" or (cells.size and not 0 <= cells.min() <= cells.max() < len(x)):
        raise broken(path, "triang with numbers that are no points", f"whole numbers 0 to {len(x) - 1}")
    if codes is not None and (codes.ndim != 2 or len(codes) != x.shape[1]):
        codes = None
    points = np.stack([x.T, y.T], axis=2)
    return Found(
        path,
        fixed={"x": x.T, "y": y.T},
        targets={"u": u.T},
        layout=Layout(origin=origin),
        points=points,
        cells=counterclockwise(points[0], cells),
        codes=codes,
    )


def counterclockwise(points: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return triangles ``(m, 3)`` of points ``(points, 2)``, the corners of clockwise ones swapped."""
    a, b, c = (points[cells[:, k]].astype(np.float64) for k in range(3))
    turn = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    return np.where((turn < 0)[:, None], cells[:, [0, 2, 1]], cells)
