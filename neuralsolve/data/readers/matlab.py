"""MATLAB files of fields, as the FNO papers keep them: level 5, and v7.3 (HDF5, its axes reversed)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuralsolve.data.guarded import dataset, opened
from neuralsolve.data.readers.arrays import keys_of, shapes, sides
from neuralsolve.data.readers.found import Found, held
from neuralsolve.data.samples import Layout
from neuralsolve.io.files import broken, existing_file
from neuralsolve.io.matlab import read_matlab

SUFFIXES = (".mat",)
PAIRS = (("coeff", "sol"), ("a", "u"))


def read_mat(path: Path, wanted: tuple[Sequence[str], Sequence[str]], dim: int | None) -> Found:
    """Return what a ``.mat`` file holds: coeff and sol (Darcy), a and u (Navier-Stokes), or u alone."""
    import h5py

    path = existing_file(path, SUFFIXES)
    names = (*wanted[0], *wanted[1], *(name for pair in PAIRS for name in pair))
    arrays, present = (_of_hdf5 if h5py.is_hdf5(path) else _of_level_5)(path, tuple(dict.fromkeys(names)))
    lone = not wanted[0] and not any(pair[0] in arrays for pair in PAIRS)
    alone = wanted[1] or (("u",) if "u" in arrays else ())
    if lone and len(alone) == 1 and alone[0] in arrays and arrays[alone[0]].ndim > 2:
        frames = {alone[0]: np.moveaxis(arrays[alone[0]], -1, 1)}
        return Found(path, frames=frames, layout=_periodic(arrays[alone[0]].ndim - 2))
    if not any(all(name in arrays for name in pair) for pair in PAIRS) and not all(wanted):
        expected = "coeff and sol, a and u, or u (n, *grid, times); name others with input= and output="
        raise broken(path, f"the variables {', '.join(present) or 'none'} ({shapes(arrays)})", expected)
    inputs, outputs = keys_of(path, arrays, wanted, PAIRS)
    one, other = ({name: arrays[name] for name in keys} for keys in (inputs, outputs))
    parts = sides(path, one, other, dim, time="last")
    nodes = next(iter(parts[0].values())).ndim - 1
    if tuple(inputs) == ("coeff",):
        walls = Layout(boundary=("dirichlet",) * nodes)
        return held(path, parts, layout=walls, spaced="i/(n - 1)")
    return held(path, parts, layout=_periodic(nodes) if tuple(inputs) == ("a",) else Layout())


def _periodic(dim: int) -> Layout:
    return Layout(boundary=("periodic",) * dim)


def _of_level_5(path: Path, names: tuple[str, ...]) -> tuple[dict[str, np.ndarray], list[str]]:
    found, present = read_matlab(path, names)
    return {name: each for name, each in found.items() if isinstance(each, np.ndarray)}, present


def _of_hdf5(path: Path, names: tuple[str, ...]) -> tuple[dict[str, np.ndarray], list[str]]:
    with opened(path, SUFFIXES) as file:
        present = [name for name in file if not name.startswith("#")]
        return {
            name: np.ascontiguousarray(dataset(path, file, name)[()].transpose())
            for name in names
            if name in present
        }, present
