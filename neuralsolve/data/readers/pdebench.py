"""HDF5 files of PDEBench: fields ``(n, t, *grid)``, or one group per sample with ``data`` (t, *grid, c)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralsolve.data.guarded import dataset, names_of
from neuralsolve.data.readers.found import Fields, Found, chosen
from neuralsolve.data.samples import Layout
from neuralsolve.errors import ShapeError
from neuralsolve.io.files import broken

FLOW = ("density", "pressure", "Vx", "Vy", "Vz")
COORDINATES = ("x-coordinate", "y-coordinate", "z-coordinate")


def is_pdebench(file: Any) -> bool:
    """Return whether an opened HDF5 file looks like one of PDEBench."""
    return "tensor" in file or all(name in file for name in FLOW[:3]) or bool(_numbered(file))


def read_pdebench(path: Path, file: Any, wanted: tuple[Sequence[str], Sequence[str]], which: slice) -> Found:
    """Return what a file of PDEBench holds."""
    if _numbered(file):
        return _of_groups(path, file, which, wanted)
    if "nu" in file and "tensor" in file:
        nu, tensor = dataset(path, file, "nu"), dataset(path, file, "tensor")
        if tensor.ndim != nu.ndim + 1 or tensor.shape[1] != 1:
            raise broken(path, names_of(file), "nu (n, x, y) and tensor (n, 1, x, y)")
        axes = _axes(path, file, nu.shape[1:])
        return Found(
            path, fixed={"nu": nu[which]}, targets={"tensor": tensor[which][:, 0]}, layout=_layout(file, axes)
        )
    names = ["tensor"] if "tensor" in file else [name for name in FLOW if name in file]
    frames = {name: dataset(path, file, name) for name in names}
    one = next(iter(frames.values()))
    if one.ndim < 3:
        raise broken(path, names_of(file), "fields (n, times, *grid)")
    axes = _axes(path, file, one.shape[2:])
    needed = chosen(path, frames, (*wanted[0], *wanted[1]), "input and output") if all(wanted) else frames
    return Found(
        path,
        frames={key: each[which] for key, each in needed.items()},
        wanted=wanted,
        layout=_layout(file, axes),
    )


def _numbered(file: Any) -> list[str]:
    return sorted((name for name in file if name.isdigit() and hasattr(file.get(name), "keys")), key=int)


def _of_groups(path: Path, file: Any, which: slice, wanted: tuple[Sequence[str], Sequence[str]]) -> Found:
    groups = _numbered(file)[which]
    if not groups:
        return Found(path)
    blocks = []
    for group in groups:
        data = dataset(path, file, f"{group}/data")
        if data.ndim < 3 or (blocks and data.shape != blocks[0].shape):
            found = f"{group}/data {data.shape}" + (f" beside {blocks[0].shape}" if blocks else "")
            msg = f"{path}: found {found}; expected (times, *grid, channels), the same in every group"
            raise ShapeError(msg)
        blocks.append(data[()])
    stack = np.stack(blocks)
    frames: Fields = {
        f"data[{c}]" if stack.shape[-1] > 1 else "data": stack[..., c] for c in range(stack.shape[-1])
    }
    axes = []
    for letter in "xyz"[: stack.ndim - 3]:
        if f"{groups[0]}/grid/{letter}" in file:
            axes.append(dataset(path, file, f"{groups[0]}/grid/{letter}")[()].astype(float).ravel())
    shape = stack.shape[2:-1]
    whole = tuple(len(axis) for axis in axes) == shape
    return Found(path, frames=frames, wanted=wanted, layout=_layout(file, tuple(axes) if whole else ()))


def _axes(path: Path, file: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Return coordinates where the file has them all; without, they are assumed."""
    names = COORDINATES[: len(shape)]
    if not all(name in file for name in names):
        return ()
    axes = tuple(dataset(path, file, name)[()].astype(float).ravel() for name in names)
    found = tuple(len(axis) for axis in axes)
    if found != tuple(shape):
        msg = f"{path}: found coordinates of {found} nodes with fields on {tuple(shape)}; expected as many"
        raise ShapeError(msg)
    return axes


def _layout(file: Any, axes: tuple[np.ndarray, ...]) -> Layout:
    told = {}
    for name, value in file.attrs.items():
        plain = np.asarray(value)
        if plain.size == 1 and plain.dtype.kind in "biuf":
            told[name] = plain.ravel().tolist()[0]
    return Layout(axes, origin={"format": "PDEBench", "parameters": told})
