"""One call for all formats: which reader a file goes to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neuralsolve.data.guarded import SUFFIXES as HDF5
from neuralsolve.data.guarded import dataset, opened
from neuralsolve.data.hdf5 import is_ours, read_samples
from neuralsolve.data.readers import matlab, npy, pdebench, pt, well
from neuralsolve.data.readers.arrays import found_in
from neuralsolve.data.readers.found import Found, samples_of
from neuralsolve.data.samples import Samples
from neuralsolve.errors import OptionError
from neuralsolve.io.files import existing_file
from neuralsolve.io.matrices import read_npz_arrays

READABLE = (*HDF5, *pt.SUFFIXES, *matlab.SUFFIXES, *npy.SUFFIXES, ".npz")
Paths = str | os.PathLike[str]


def read_data(
    path: Paths,
    *more: Paths,
    input: str | Sequence[str] | None = None,
    output: str | Sequence[str] | None = None,
    frames: tuple[int, int] | None = None,
    axes: Sequence[np.ndarray] | None = None,
    drop_bad: bool = False,
    which: slice | None = None,
) -> Samples:
    """Read samples from a file of ours or of others; docs/data.md has the table of formats.

    Parameters
    ----------
    path, more : ``.h5`` of ours, of PDEBench, of The Well or with named arrays; ``.pt`` of tensors; ``.mat``;
        ``.npz`` with named arrays; ``.npy`` of Geo-FNO, several files or one whose family lies beside it
    input, output : names of the arrays or fields, where they are not the usual ones
    frames : of trajectories, so many frames become input and so many after them output; by default the
        initial state is the input and all later frames are the output
    axes : coordinates along every axis of the grid, where the file has none or wrong ones
    drop_bad : leave out samples with NaN or infinity; ``layout.origin["left_out"]`` tells how many
    which : a slice of the samples

    Raises
    ------
    FileNotFoundError
    FormatError
        Another format, a truncated or hostile file, missing keys.
    ShapeError
        Axes that do not fit together.
    NonFiniteError
        NaN or infinity without `drop_bad`.
    OptionError
        Frames, fields or samples that the file does not have.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "waves.npz"
    >>> u = np.random.default_rng(7).standard_normal((5, 9, 16))           # samples, times, nodes
    >>> np.savez(path, start=u[:, 0], later=u)
    >>> data = read_data(path, input="start", output="later", frames=(2, 3))
    >>> data.layout.inputs, data.layout.outputs
    (('later[0]', 'later[1]'), ('later[2]', 'later[3]', 'later[4]'))
    """
    paths = [Path(each) for each in (path, *more)]
    wanted = (_names(input), _names(output))
    _fits(frames, which, paths)
    dim = None if axes is None else len(axes)
    suffix = existing_file(paths[0], READABLE).suffix.lower()
    if suffix in HDF5:
        samples_or_found = _of_hdf5(paths[0], wanted, frames, dim, which)
        if isinstance(samples_or_found, Samples):
            return samples_or_found
        return samples_of(samples_or_found, frames, drop_bad, axes)
    if suffix in npy.SUFFIXES:
        found = npy.read_npy(paths, wanted, dim)
    elif suffix in pt.SUFFIXES:
        found = pt.read_pt(paths[0], wanted, dim)
    elif suffix in matlab.SUFFIXES:
        found = matlab.read_mat(paths[0], wanted, dim)
    else:
        found = found_in(paths[0], read_npz_arrays(paths[0]), wanted, dim)
    return samples_of(_some(found, which), frames, drop_bad, axes)


def _names(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def _fits(frames: tuple[int, int] | None, which: slice | None, paths: list[Path]) -> None:
    if frames is not None and (len(frames) != 2 or min(frames) < 0):
        msg = f"frames = {frames!r}; two whole numbers are needed, of input and of output: frames=(10, 10)"
        raise OptionError(msg)
    if which is not None and (not isinstance(which, slice) or (which.step or 1) < 1):
        msg = f"which = {which!r}; a slice with a step >= 1 is needed: which=slice(0, 100)"
        raise OptionError(msg)
    if len(paths) > 1 and any(path.suffix.lower() != ".npy" for path in paths):
        msg = f"{len(paths)} files: {', '.join(map(str, paths))}; several at once are read of .npy alone"
        raise OptionError(msg)


def _of_hdf5(
    path: Path,
    wanted: tuple[Sequence[str], Sequence[str]],
    frames: tuple[int, int] | None,
    dim: int | None,
    which: slice | None,
) -> Samples | Found:
    every = which or slice(None)
    with opened(path) as file:
        if well.is_well(file):
            return well.read_well(path, file, wanted, every, frames)
        if pdebench.is_pdebench(file) and not is_ours(file):
            return pdebench.read_pdebench(path, file, wanted, every)
        if not is_ours(file):
            found = found_in(path, _Named(path, file), wanted, dim)
            return _some(found, which)
    if frames is not None or any(wanted):
        msg = f"{path} is a file of samples already; input=, output= and frames= are for files of others"
        raise OptionError(msg)
    return read_samples(path, which)


class _Named(dict[str, Any]):
    """The datasets of an HDF5 file by name; only those that are asked for are read."""

    def __init__(self, path: Path, file: Any):
        super().__init__({name: file[name] for name in file if hasattr(file.get(name), "shape")})
        self.path, self.file = path, file

    def __getitem__(self, name: str) -> np.ndarray:
        return dataset(self.path, self.file, name)[()]


def _some(found: Found, which: slice | None) -> Found:
    """Return a slice of the samples."""
    if which is None:
        return found
    groups = {
        name: {key: values[which] for key, values in getattr(found, name).items()}
        for name in ("fixed", "initial", "frames", "targets")
    }
    own = {
        name: None if each is None else each[which]
        for name, each in (("codes", found.codes), ("residuals", found.residuals))
    }
    points = found.points if found.points is None or found.points.ndim == 2 else found.points[which]
    return replace(found, **groups, **own, points=points)
