"""Right sides and solutions from .npy, .npz, .mtx and text."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from neuralsolve.io.files import broken, check_array_header, existing_file
from neuralsolve.io.matrices import read_npz_arrays
from neuralsolve.io.matrix_market import MAX_ROWS_PER_ENTRY, read_entries

VECTOR_SUFFIXES = (".npy", ".npz", ".mtx", ".txt")


def read_vector(path: str | os.PathLike[str], key: str | None = None) -> np.ndarray:
    r"""Read a vector ``(n,)`` or several side by side ``(n, k)``; no pickle is ever loaded.

    Parameters
    ----------
    path : ``.npy``; ``.npz`` (array `key`, or the only one, or "x" or "b"); Matrix Market; text with one row
        per line
    key : name of the array in an ``.npz`` file

    Returns
    -------
    ndarray, float64 (complex128 where the file is complex). A single column of a ``.mtx`` or text file
    becomes ``(n,)``; NumPy files keep their shape.

    Raises
    ------
    FileNotFoundError, FormatError

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "b.txt"
    >>> _ = path.write_text("1.0\n2.0\n")
    >>> read_vector(path)
    array([1., 2.])
    """
    path = existing_file(path, VECTOR_SUFFIXES)
    array = read_array(path, key)
    if array.ndim not in (1, 2) or array.size == 0:
        raise broken(path, f"an array of shape {array.shape}", "a vector (n,) or columns (n, k)")
    return np.array(array, dtype=np.complex128 if array.dtype.kind == "c" else np.float64, order="C")


def read_array(path: Path, key: str | None = None) -> np.ndarray:
    """Read an array of numbers of any shape, as stored, by the rules of `read_vector`."""
    path = existing_file(path, VECTOR_SUFFIXES)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        array = _read_npy(path)
    elif suffix == ".npz":
        array = _choose(path, read_npz_arrays(path), key)
    elif suffix == ".mtx":
        array = _read_matrix_market(path)
    else:
        array = _read_text(path)
    if array.dtype.kind not in "biufc":
        raise broken(path, f"values of type {array.dtype}", "numbers")
    return array


def _read_npy(path: Path) -> np.ndarray:
    with path.open("rb") as stream:
        check_array_header(stream, path.stat().st_size, path)
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)


def _choose(path: Path, arrays: dict[str, np.ndarray], key: str | None) -> np.ndarray:
    if key is None and len(arrays) == 1:
        return next(iter(arrays.values()))
    for name in ("x", "b") if key is None else (key,):
        if name in arrays:
            return arrays[name]
    raise broken(
        path, f"the arrays {sorted(arrays)}", f"one named {key!r}" if key else "one alone, or 'x' or 'b'"
    )


def _read_matrix_market(path: Path) -> np.ndarray:
    entries = read_entries(path)
    rows, columns = entries.shape
    # a sparse vector may leave out zeros, not nearly all of itself
    if rows * columns > MAX_ROWS_PER_ENTRY * (len(entries.values) + 10_000):
        raise broken(path, f"a {rows} x {columns} matrix", "a vector or a few columns")
    dense = np.zeros(entries.shape, entries.values.dtype)
    np.add.at(dense, (entries.rows, entries.columns), entries.values)
    return dense[:, 0] if columns == 1 else dense


def _read_text(path: Path) -> np.ndarray:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [line.split("#", 1)[0].split() for line in lines]
        return _table([[float(word) for word in row] for row in rows if row])
    except ValueError as error:  # UnicodeDecodeError too
        raise broken(
            path, f"text that is no table of numbers ({error})", "numbers, as many in every line"
        ) from None


def _table(rows: list[list[float]]) -> np.ndarray:
    if len({len(row) for row in rows}) > 1:
        msg = "lines of different lengths"
        raise ValueError(msg)
    array = np.array(rows)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
