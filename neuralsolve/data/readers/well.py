"""HDF5 files of The Well: fields by tensor order, ``(trajectories, times, *grid, components)``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralsolve.data.guarded import dataset, names_of
from neuralsolve.data.readers.found import Fields, Found
from neuralsolve.data.samples import Layout
from neuralsolve.errors import ShapeError
from neuralsolve.io.files import broken

GROUPS = ("t0_fields", "t1_fields", "t2_fields")


def is_well(file: Any) -> bool:
    """Return whether an opened HDF5 file looks like one of The Well."""
    return "dimensions" in file and any(group in file for group in GROUPS)


def read_well(
    path: Path,
    file: Any,
    wanted: tuple[Sequence[str], Sequence[str]],
    which: slice,
    frames: tuple[int, int] | None,
) -> Found:
    """Return what a file of The Well holds; fields that do not change in time are inputs."""
    names = _words(file["dimensions"].attrs.get("spatial_dims", []))
    if not names:
        raise broken(
            path, f"dimensions without spatial_dims ({names_of(file)})", "their names, as The Well has them"
        )
    axes = tuple(dataset(path, file, f"dimensions/{name}")[()].astype(float) for name in names)
    if any(axis.ndim != 1 for axis in axes):
        raise broken(path, "coordinates that vary between samples or are no rows", "one row of them per axis")
    count = int(np.ravel(file.attrs.get("n_trajectories", 0))[0])
    if not 0 < count < 10**9:
        raise broken(
            path, f"n_trajectories = {count}", "the number of trajectories as an attribute of the file"
        )
    chosen_rows = range(*which.indices(count))
    last = None if frames is None else sum(frames)
    steady: Fields = {}
    moving: Fields = {}
    for group in GROUPS:
        for name in list(file.get(group, {})):
            values = dataset(path, file, f"{group}/{name}")
            moves = bool(values.attrs.get("time_varying", True))
            whole = _expanded(path, f"{group}/{name}", values, (count, axes), which, slice(last), moves)
            (moving if moves else steady).update(_components(name, whole, len(axes), names, moves))
    codes, told = _scalars(path, file, chosen_rows)
    layout = Layout(axes, boundary=_boundary(file, names), origin={"format": "The Well", "parameters": told})
    return Found(path, fixed=steady, frames=moving, wanted=wanted, layout=layout, codes=codes)


def _words(value: Any) -> list[str]:
    return [
        each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in np.ravel(value)
    ]


def _expanded(
    path: Path,
    name: str,
    values: Any,
    sizes: tuple[int, tuple[np.ndarray, ...]],
    which: slice,
    steps: slice,
    moves: bool,
) -> np.ndarray:
    """Return a field ``(n, [times,] *grid, *components)``; what it does not vary in is repeated."""
    count, axes = sizes
    sampled = bool(values.attrs.get("sample_varying", True))
    along = [bool(each) for each in np.ravel(values.attrs.get("dim_varying", [True] * len(axes)))]
    lead = int(sampled) + int(moves)
    sides = [len(axis) for axis, varies in zip(axes, along, strict=False) if varies]
    grid = list(values.shape[lead : lead + len(sides)])
    if len(along) != len(axes) or grid != sides or (sampled and values.shape[0] != count):
        wanted = (*(["n"] if sampled else []), *(["t"] if moves else []), *sides)
        msg = f"{path}: found {name} {values.shape} of {count} trajectories; expected {wanted} and components"
        raise ShapeError(msg)
    part = values[((which,) if sampled else ()) + ((steps,) if moves else ())]
    part = part if sampled else part[None]
    for axis, varies in enumerate(along):
        if not varies:
            part = np.expand_dims(part, 1 + int(moves) + axis)
    shape = list(part.shape)
    shape[0] = len(range(*which.indices(count)))
    start = 1 + int(moves)
    shape[start : start + len(axes)] = [len(axis) for axis in axes]
    return np.broadcast_to(part, shape)


def _components(name: str, values: np.ndarray, dim: int, names: list[str], moves: bool) -> Fields:
    """Return every component of a scalar, vector or tensor as a field of its own."""
    lead = 1 + int(moves) + dim
    sizes = values.shape[lead:]
    if not sizes:
        return {name: values}
    letters = list(names) if len(sizes) == 1 or sizes[0] == dim else []
    if len(sizes) == 1 and sizes[0] == dim * dim and dim > 1:
        labels = [a + b for a, b in itertools.product(names, names)]
    elif all(size == dim for size in sizes):
        labels = ["".join(pair) for pair in itertools.product(letters, repeat=len(sizes))]
    else:
        labels = ["".join(map(str, place)) for place in np.ndindex(*sizes)]
    flat = values.reshape(*values.shape[:lead], -1)
    return {f"{name}_{label}": flat[..., k] for k, label in enumerate(labels)}


def _scalars(path: Path, file: Any, rows: range) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Return scalars that differ between samples as codes, and the others by name."""
    columns, told = [], {}
    for name in list(file.get("scalars", {})):
        values = dataset(path, file, f"scalars/{name}")
        if bool(values.attrs.get("time_varying", False)):
            continue
        if (
            bool(values.attrs.get("sample_varying", False))
            and values.ndim
            and len(values) > max(rows, default=0)
        ):
            columns.append(np.asarray(values[()], float).reshape(len(values), -1)[list(rows), :1])
            told.setdefault("codes", []).append(name)
        elif values.size == 1:
            told[name] = np.ravel(values[()]).tolist()[0]
    return (np.concatenate(columns, axis=1) if columns else None), told


def _boundary(file: Any, names: list[str]) -> tuple[str, ...]:
    kinds: dict[str, set[str]] = {name: set() for name in names}
    for key in list(file.get("boundary_conditions", {})):
        about = file["boundary_conditions"][key].attrs
        kind = "".join(_words(about.get("bc_type", ""))).lower()
        for name in _words(about.get("associated_dims", [])):
            if name in kinds and kind:
                kinds[name].add(kind)
    told = tuple("/".join(sorted(kinds[name])) for name in names)
    return told if all(told) else ()
