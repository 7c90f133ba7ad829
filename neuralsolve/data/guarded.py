"""HDF5 files of others, opened so that nothing in them is trusted.

Links out of the file, data that were never written and sizes beyond what real data pack to are refused;
damaged bytes are a `FormatError`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neuralsolve.errors import InputError
from neuralsolve.io.files import DAMAGED, bounded_memory, broken, existing_file

SUFFIXES = (".h5", ".hdf5")
LARGEST_PACKING = 1100  # deflate reaches 1:1032; an uncompressed dataset holds its bytes in the file


@contextmanager
def opened(path: str | os.PathLike[str], suffixes: Iterable[str] = SUFFIXES) -> Iterator[Any]:
    """Open an HDF5 file to read; a damaged one is a FormatError, also within the block."""
    import h5py

    path = existing_file(path, suffixes)
    expected = "an HDF5 file that was written to its end"
    if not h5py.is_hdf5(path):
        raise broken(path, "no HDF5 signature", expected)
    try:
        with bounded_memory(path), h5py.File(path, "r") as file:
            yield file
    except (InputError, FileNotFoundError):
        raise
    except (*DAMAGED, KeyError, AttributeError) as error:
        raise broken(path, f"damaged HDF5 ({error})", expected) from None


def dataset(path: Path, file: Any, name: str) -> Any:
    """Return the dataset of a name, its numbers sure to lie within this file, none made up by its header.

    Raises
    ------
    FormatError
        No such dataset, a link, a virtual or external one, no numbers, or sizes beyond what the file holds.
    """
    import h5py

    place: Any = file
    for part in name.split("/"):
        if not isinstance(place, h5py.Group) or part not in place:
            raise broken(path, f"no dataset {name!r} among {names_of(file)}", f"{name!r}")
        if not isinstance(place.get(part, getlink=True), h5py.HardLink):
            raise broken(path, f"{name!r} that is a link", "datasets within the file")
        place = place[part]
    if not isinstance(place, h5py.Dataset):
        raise broken(path, f"a group {name!r}", "a dataset of numbers of this name")
    if place.is_virtual or place.external:
        raise broken(path, f"{name!r} whose numbers lie in other files", "datasets within the file")
    if place.dtype.kind not in "biuf":
        raise broken(path, f"{name!r} of type {place.dtype}", "real numbers")
    _stored(path, place, name)
    return place


def _stored(path: Path, place: Any, name: str) -> None:
    declared, held = math.prod(place.shape) * place.dtype.itemsize, place.id.get_storage_size()
    packed = place.compression is not None or place.id.get_create_plist().get_nfilters() > 0
    if declared > held * (LARGEST_PACKING if packed else 1):
        found = f"{name!r} that declares {place.shape} of {place.dtype}, {declared} bytes, but holds {held}"
        raise broken(path, found, "a file that was written to its end")
    if place.chunks is not None:
        wanted = math.prod(-(-side // chunk) for side, chunk in zip(place.shape, place.chunks, strict=True))
        if place.id.get_num_chunks() != wanted:
            found = f"{name!r} with {place.id.get_num_chunks()} of {wanted} chunks"
            raise broken(path, found, "a file that was written to its end")


def names_of(file: Any) -> str:
    """Return keys and shapes of a group, for messages."""
    shown = []
    for key in list(file)[:20]:
        item = file.get(key)
        shown.append(f"{key} {item.shape}" if hasattr(item, "shape") else f"{key}/")
    return ", ".join(shown) if shown else "nothing"
