"""Arrays by name, an input and an output: .npz, plain HDF5, two .npy files; and what .pt and .mat share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralsolve.data.readers.found import Fields, Found, held
from neuralsolve.data.samples import Layout
from neuralsolve.errors import ShapeError
from neuralsolve.io.files import broken

PAIRS = (("inputs", "outputs"), ("x", "y"), ("a", "u"), ("coeff", "sol"))
WHOLE = "(samples, *grid) or (samples, channels, *grid)"


def shapes(arrays: Mapping[str, Any]) -> str:
    """Return names and shapes, for messages."""
    return ", ".join(f"{name} {tuple(each.shape)}" for name, each in list(arrays.items())[:20]) or "nothing"


def keys_of(
    path: Path, arrays: Mapping[str, Any], wanted: tuple[Sequence[str], Sequence[str]], pairs: Any = PAIRS
) -> tuple[Sequence[str], Sequence[str]]:
    """Return the keys of input and output: those named, else the first known pair that is there."""
    for option, names in zip(("input", "output"), wanted, strict=True):
        missing = [name for name in names if name not in arrays]
        if missing:
            raise broken(path, f"no {missing[0]!r} among {shapes(arrays)}", f"{option}= a name that is there")
    known = next((pair for pair in pairs if all(key in arrays for key in pair)), None)
    inputs, outputs = wanted[0] or (known[:1] if known else ()), wanted[1] or (known[1:] if known else ())
    if not inputs or not outputs:
        names = " or ".join(" and ".join(pair) for pair in pairs)
        raise broken(
            path,
            shapes(arrays),
            f"{names}, {WHOLE}; name other keys with input= and output= (--input, --output)",
        )
    return inputs, outputs


def sides(
    path: Path,
    inputs: Fields,
    outputs: Fields,
    dim: int | None = None,
    time: str = "middle",
) -> tuple[Fields, Fields, Fields]:
    """Return inputs, outputs and trajectories as fields ``(n, *nodes)`` and ``(n, times, *nodes)``.

    Parameters
    ----------
    inputs, outputs : name -> array ``(n, *grid)`` or ``(n, channels, *grid)``; an output may have times as
        well, ``(n, times, *grid)`` or ``(n, *grid, times)``
    dim : of the grid where it is known; 1 for the points of a mesh
    time : "middle" or "last", where both would do
    """
    one = next(iter(inputs.values()))
    for name, values in (inputs | outputs).items():
        if values.ndim < 2 or len(values) != len(one):
            msg = (
                f"{path}: found {shapes(inputs | outputs)}; expected {WHOLE}, as many samples in all: "
                f"{name} does not fit; bring the samples to the first axis with numpy.moveaxis"
            )
            raise ShapeError(msg)
    if dim is None:
        dim = _dim(one, next(iter(outputs.values())))
    fixed: Fields = {}
    for name, values in inputs.items():
        fixed |= _channels(path, name, values, dim)
    targets: Fields = {}
    frames: Fields = {}
    grid = next(iter(fixed.values())).shape[1:]
    for name, values in outputs.items():
        if values.ndim == dim + 2 and values.shape[1] != 1:
            middle, last = values.shape[2:] == grid, values.shape[1:-1] == grid
            if middle and (time == "middle" or not last):
                frames[name] = values
                continue
            if last:
                frames[name] = np.moveaxis(values, -1, 1)
                continue
        targets |= _channels(path, name, values, dim)
    _one_grid(path, inputs | outputs, fixed | targets)
    return fixed, targets, frames


def _one_grid(path: Path, arrays: Fields, fields: Fields) -> None:
    """Raise ShapeError where the fields of arrays are on different grids."""
    if len({values.shape for values in fields.values()}) == 1:
        return
    dim = min(values.ndim for values in arrays.values()) - 1
    dim -= dim > 2
    nodes = [
        " x ".join(map(str, values.shape[1:] if values.ndim <= dim + 1 else values.shape[2:]))
        for values in arrays.values()
    ]
    told = f"{next(iter(arrays))} is on {nodes[0]} nodes, " + ", ".join(
        f"{name} on {each}" for name, each in list(zip(arrays, nodes, strict=True))[1:8]
    )
    sides = {values.shape[1 : 1 + dim] for values in arrays.values()}
    last = len(sides) == 1 and any(values.ndim > dim + 1 for values in arrays.values())
    hint = "channels come second, numpy.moveaxis(a, -1, 1)" if last else "the same nodes are needed"
    msg = f"{path}: {told}; found {shapes(arrays)}, expected {WHOLE}: {hint}"
    raise ShapeError(msg)


def _dim(one: np.ndarray, other: np.ndarray) -> int:
    """Return the dimension of the grid by what input and output have in common."""
    if one.shape[1:] == other.shape[1:]:
        return one.ndim - 1 if one.ndim == 2 or one.shape[1] != 1 else one.ndim - 2
    if one.ndim == other.ndim:
        return one.ndim - 2
    return min(one.ndim, other.ndim) - 1


def _channels(path: Path, name: str, values: np.ndarray, dim: int) -> Fields:
    if values.ndim == dim + 1:
        return {name: values}
    if values.ndim != dim + 2:
        msg = (
            f"{path}: found {name} {values.shape}; expected {dim + 1} axes (samples, grid of {dim}), or "
            f"{dim + 2} with channels after the samples: move axes with numpy.moveaxis, or give axes= "
            "that belong to the data"
        )
        raise ShapeError(msg)
    if values.shape[1] == 1:
        return {name: values[:, 0]}
    return {f"{name}[{k}]": values[:, k] for k in range(values.shape[1])}


def found_in(
    path: Path, arrays: Mapping[str, Any], wanted: tuple[Sequence[str], Sequence[str]], dim: int | None
) -> Found:
    """Return what named arrays hold: inputs, outputs, axis0, axis1, ..., points, cells, codes, residuals."""
    inputs, outputs = keys_of(path, arrays, wanted)
    extra = {
        key: np.asarray(arrays[key]) for key in ("points", "cells", "codes", "residuals") if key in arrays
    }
    axes = []
    while f"axis{len(axes)}" in arrays:
        axes.append(np.asarray(arrays[f"axis{len(axes)}"], float).ravel())
    dim = 1 if "points" in extra else len(axes) or dim
    one, other = ({name: np.asarray(arrays[name]) for name in names} for names in (inputs, outputs))
    parts = sides(path, one, other, dim)
    fits = {"points": (2, 3), "cells": (2,), "codes": (2,), "residuals": (1,)}
    count = len(next(iter(parts[0].values())))
    for name, values in extra.items():
        shared = name == "cells" or (name == "points" and values.ndim == 2)
        if values.ndim not in fits[name] or not (shared or len(values) == count):
            msg = f"{path}: found {name} {values.shape} with {count} samples; expected one entry per sample"
            raise ShapeError(msg)
    return held(path, parts, layout=Layout(tuple(axes)), **extra)
