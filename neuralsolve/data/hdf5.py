"""Our file of samples: HDF5, readable by any program that reads HDF5.

Datasets ``inputs``, ``outputs``, and where there are any ``residuals``, ``points``, ``cells``, ``codes``,
``axes/0``, ``axes/1``, ...; attributes ``format`` = "neuralsolve samples", ``version`` = 1, and ``layout``,
the JSON of names, units, boundary, equation and origin. Fields lie in chunks of whole samples: a part is read
without the rest.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuralsolve.data.guarded import SUFFIXES, dataset, names_of, opened
from neuralsolve.data.samples import Layout, Samples
from neuralsolve.data.streams import KeptErrors, uninterrupted
from neuralsolve.errors import InputError, OptionError
from neuralsolve.io.files import MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO, broken, replacing

FORMAT, VERSION = "neuralsolve samples", 1
WRITTEN_BY = "a file that neuralsolve.data.write_samples or `neuralsolve data make` wrote"
CHUNK_BYTES = 2**18  # small samples share a chunk of this size, large ones have one each
FEW = 256  # a field of so few distinct values packs well, others hardly shrink
TEXTS = ("inputs", "outputs", "units", "boundary", "equation", "origin")  # of a Layout, kept as JSON
FIELDS, PER_SAMPLE = ("inputs", "outputs"), ("inputs", "outputs", "residuals", "codes")


@dataclass(frozen=True)
class Header:
    """What a file of samples holds, its fields not read.

    Attributes
    ----------
    path : Path
    layout : Layout
    shapes : name of a dataset -> its shape, the first axis of inputs and outputs counts samples
    types : name of a dataset -> the type of its numbers
    bytes : of the file
    """

    path: Path
    layout: Layout
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, str]
    bytes: int

    def __len__(self) -> int:
        return self.shapes["inputs"][0]


def write_samples(path: str | os.PathLike[str], samples: Samples, overwrite: bool = False) -> None:
    """Write a file of samples in one step: whatever happens, an older file stays whole.

    Parameters
    ----------
    path : ``.h5`` or ``.hdf5``
    samples : Samples
    overwrite : whether an existing file may be replaced

    Raises
    ------
    FileExistsError
    OptionError
        Another suffix, fields that are neither float32 nor float64, or a layout that is no JSON.
    OSError
        A full disk; nothing has changed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from neuralsolve.data import Layout, Samples, read_samples, write_samples
    >>> u = np.random.default_rng(7).standard_normal((5, 1, 8))
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "u.h5"
    >>> write_samples(path, Samples(u, 2 * u, Layout((np.arange(8) / 8,), ("u0",), ("u1",))))
    >>> data = read_samples(path, slice(1, 3))
    >>> len(data), bool((data.outputs == 2 * u[1:3]).all())
    (2, True)
    """
    write_parts(path, [samples], len(samples), samples.layout, overwrite)


def write_parts(
    path: str | os.PathLike[str],
    parts: Iterable[Samples],
    count: int,
    layout: Layout,
    overwrite: bool = False,
) -> None:
    """Write `count` samples that come in parts, one part in memory at a time; else as `write_samples`.

    All parts have the same channels, nodes and types; `layout` is the file's.
    """
    import h5py

    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        msg = f"{path}: samples are written as HDF5; give a name that ends in {' or '.join(SUFFIXES)}"
        raise OptionError(msg)
    text = _layout_text(layout)
    with (
        _told_of_a_full_disk(path),
        replacing(path, overwrite) as temporary,
        uninterrupted() as let_through,
        KeptErrors(temporary) as stream,
    ):
        with h5py.File(stream, "w") as file:
            file.attrs["format"], file.attrs["version"], file.attrs["layout"] = FORMAT, VERSION, text
            for number, axis in enumerate(layout.axes):
                file[f"axes/{number}"] = np.asarray(axis, np.float64)
            done, sets = 0, {}
            for part in parts:
                sets = sets or _create(file, part, count)
                for name in _split(part)[0]:
                    sets[name][done : done + len(part)] = getattr(part, name)
                done += len(part)
                stream.check()
                let_through()
        if done != count:
            msg = f"{done} samples came where {count} were announced"
            raise InputError(msg)
        stream.flush()
        stream.check()
        os.fsync(stream.fileno())


def _split(part: Samples) -> tuple[list[str], list[str]]:
    """Return the names of what every sample has its own of, and of what all share."""
    own = [name for name in PER_SAMPLE if getattr(part, name) is not None]
    shared = ["cells"] if part.cells is not None else []
    if part.points is not None:
        (own if part.points.ndim == 3 else shared).append("points")
    return own, shared


def _create(file: Any, part: Samples, count: int) -> dict[str, Any]:
    own, shared = _split(part)
    sets = {}
    for name in own:
        values = np.asarray(getattr(part, name))
        if name in FIELDS and values.dtype not in (np.float32, np.float64):
            msg = f"{name} are {values.dtype}; float32 or float64 is needed: {name}.astype(numpy.float32)"
            raise OptionError(msg)
        of_one = values.dtype.itemsize * math.prod(values.shape[1:])
        chunk = min(count, max(1, CHUNK_BYTES // max(of_one, 1)))
        packing = {}
        if name in FIELDS and len(np.unique(values[0])) <= min(FEW, values[0].size // 4):
            packing = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        sets[name] = file.create_dataset(
            name, (count, *values.shape[1:]), values.dtype, chunks=(chunk, *values.shape[1:]), **packing
        )
    for name in shared:
        file.create_dataset(name, data=getattr(part, name))
    return sets


def _layout_text(layout: Layout) -> str:
    try:
        return json.dumps(
            {name: getattr(layout, name) for name in TEXTS},
            allow_nan=False,
            default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value),
        )
    except (ValueError, TypeError) as error:
        msg = f"the layout cannot be written as JSON ({error}); let units, equation, origin hold plain values"
        raise OptionError(msg) from None


@contextmanager
def _told_of_a_full_disk(path: Path) -> Iterator[None]:
    """Say of a disk, quota or limit that is full what mends it."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        free = shutil.disk_usage(path.parent).free / 1e6
        msg = (
            f"{path} cannot be written ({error.strerror}; {free:.0f} MB are free there) and nothing has "
            "changed; free some space, or name a file on another disk"
        )
        raise OSError(msg) from None


def read_samples(path: str | os.PathLike[str], which: Any = None) -> Samples:
    """Read a file of samples, or a part of it.

    Parameters
    ----------
    path : a file of `write_samples`
    which : a slice or whole numbers, counted from 0; all samples if None. Only these are read

    Raises
    ------
    FileNotFoundError
    FormatError
        Another format or version, a file that lacks something, a truncated or hostile one.
    OptionError
        `which` names samples that are not there.
    """
    with opened(path) as file:
        header = _checked(Path(path), file)
        places = _places(which, len(header), Path(path))
        arrays = {name: _part(file[name], places) for name in PER_SAMPLE if name in header.shapes}
        if "points" in header.shapes:
            points = file["points"]
            arrays["points"] = _part(points, places if points.ndim == 3 else slice(None))
        if "cells" in header.shapes:
            arrays["cells"] = cells = _part(file["cells"], slice(None))
            count = header.shapes["inputs"][-1]
            if cells.size and not 0 <= cells.min() <= cells.max() < count:
                raise broken(
                    header.path, f"cells of points {cells.min()} to {cells.max()}", f"0 to {count - 1}"
                )
    try:
        return Samples(**arrays, layout=header.layout)
    except InputError as error:
        msg = f"{path}: {error}"
        raise type(error)(msg) from None


def read_header(path: str | os.PathLike[str]) -> Header:
    """Return what a file of samples holds, its fields not read; errors as of `read_samples`."""
    with opened(path) as file:
        return _checked(Path(path), file)


def is_ours(file: Any) -> bool:
    """Return whether an opened file says that it is of this format."""
    return _plain(file.attrs.get("format")) == FORMAT


def _plain(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _checked(path: Path, file: Any) -> Header:
    if not is_ours(file):
        found = f"HDF5 of another format: {names_of(file)}"
        raise broken(path, found, f"{WRITTEN_BY}; neuralsolve.data.read_data knows others")
    version = file.attrs.get("version")
    if version != VERSION:
        raise broken(path, f"version {version}", f"version {VERSION}; a newer neuralsolve may read it")
    layout = _layout(path, file)
    present = [name for name in (*PER_SAMPLE, "points", "cells") if name in FIELDS or name in file]
    sets = {name: dataset(path, file, name) for name in present}
    count, total = sets["inputs"].shape[:1], 0
    for name, values in sets.items():
        own = name in PER_SAMPLE or (name == "points" and values.ndim == 3)
        dims = {"residuals": (1,), "codes": (2,), "cells": (2,), "points": (2, 3)}.get(name)
        if (own and values.shape[:1] != count) or (dims and values.ndim not in dims) or not values.ndim:
            raise broken(
                path, f"{name} of shape {values.shape} with {math.prod(count)} inputs", "one entry per sample"
            )
        total += math.prod(values.shape) * values.dtype.itemsize
    kinds = {"inputs": "f", "outputs": "f", "cells": "iu"}
    for name, wanted in kinds.items():
        if name in sets and sets[name].dtype.kind not in wanted:
            raise broken(path, f"{name} of type {sets[name].dtype}", "float fields, whole numbers as cells")
    limit = max(MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO * path.stat().st_size)
    if total > limit:
        raise broken(path, f"{total} bytes packed into {path.stat().st_size}", f"at most {limit}")
    shapes = {name: tuple(map(int, values.shape)) for name, values in sets.items()}
    types = {name: str(values.dtype) for name, values in sets.items()}
    return Header(path, layout, shapes, types, path.stat().st_size)


def _layout(path: Path, file: Any) -> Layout:
    expected = "an attribute layout, the JSON of " + ", ".join(TEXTS)
    try:
        told = json.loads(_plain(file.attrs["layout"]))
        parts = {name: told[name] for name in TEXTS}
    except (KeyError, TypeError, ValueError, RecursionError):
        raise broken(path, "no layout", expected) from None
    for name, value in parts.items():
        listed = name in ("inputs", "outputs", "boundary")
        words = (
            value if listed else list(value.values()) if name == "units" and isinstance(value, dict) else []
        )
        if not isinstance(value, list if listed else dict) or not all(
            isinstance(each, str) for each in words
        ):
            raise broken(path, f"a layout whose {name} are {value!r}", expected)
        parts[name] = tuple(value) if listed else value
    axes = []
    while f"axes/{len(axes)}" in file:
        values = dataset(path, file, f"axes/{len(axes)}")
        if values.ndim != 1:
            raise broken(path, f"an axis of shape {values.shape}", "coordinates in a row")
        axes.append(values[()].astype(np.float64))
    return Layout(axes=tuple(axes), **parts)


def _places(which: Any, count: int, path: Path) -> slice | np.ndarray:
    if which is None:
        return slice(0, count, 1)
    try:
        if isinstance(which, slice):
            start, stop, step = which.indices(count)
            places: slice | np.ndarray = slice(start, stop, step)
            if step < 0:
                places = np.arange(count)[which]
            chosen = len(range(start, stop, step))
        else:
            places = np.atleast_1d(np.arange(count)[which])
            chosen = len(places)
    except (IndexError, TypeError, ValueError):
        chosen, places = 0, slice(0)
    if not chosen:
        msg = f"{path} holds samples 0 to {count - 1}; {which!r} chooses none of them"
        raise OptionError(msg)
    return places


def _part(values: Any, places: slice | np.ndarray) -> np.ndarray:
    if isinstance(places, slice):
        return values[places]
    sorted_places, back = np.unique(places, return_inverse=True)
    return values[sorted_places][back]
