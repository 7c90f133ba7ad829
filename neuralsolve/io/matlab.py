"""Numeric arrays of MATLAB level 5 files (save -v6, -v7).

Of any number of dimensions; in MATLAB's order, first index fastest, which is how they are returned.
Parsed here because SciPy's reader can crash the interpreter on damaged ones.

Format: The MathWorks, "MAT-File Format", chapter 1. Cells, structures, text and objects are skipped.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuralsolve.io.files import broken, check_unpacked_size
from neuralsolve.io.matrix_market import MAX_ROWS_PER_ENTRY

if TYPE_CHECKING:
    import scipy.sparse

_HEADER = 128
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_SPARSE_CLASS, _NUMERIC_CLASSES = 5, range(6, 16)
_COMPLEX_FLAG = 0x08


def read_matlab(
    path: Path, names: tuple[str, ...]
) -> tuple[dict[str, np.ndarray | scipy.sparse.csc_array], list[str]]:
    """Return the numeric arrays among `names`, and the names of all variables of the file.

    Raises
    ------
    FormatError
        Another format (v4, v7.3), a damaged or hostile file.
    """
    with path.open("rb") as stream:
        content = stream.read()
    mark = content[124:_HEADER]
    if content[:8] == b"\x89HDF\r\n\x1a\n" or mark in (b"\x00\x02IM", b"\x02\x00MI"):
        raise broken(path, "MATLAB v7.3 (HDF5)", "v7: save(name, 'A', '-v7')")
    if mark not in (b"\x00\x01IM", b"\x01\x00MI"):
        raise broken(
            path, "no MATLAB level 5 header", "a file written by save -v6 or -v7, or scipy.io.savemat"
        )
    order = "<" if mark == b"\x00\x01IM" else ">"
    found, present, unpacked = {}, [], 0
    for kind, body in _elements(path, content[_HEADER:], order):
        if kind == _COMPRESSED:
            body = _unpack(path, body, unpacked)
            unpacked += len(body)
            kind, body = next(_elements(path, body, order), (0, b""))
        if kind != _MATRIX:
            continue
        array_class, is_complex, shape, name, data = _array_header(path, body, order)
        present.append(name)
        if name not in names:
            continue
        if array_class == _SPARSE_CLASS:
            found[name] = _sparse(path, name, shape, data, is_complex)
        elif array_class in _NUMERIC_CLASSES:
            found[name] = _dense(path, name, shape, data, is_complex)
    return found, present


def _elements(path: Path, content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield (type, body) of every data element; bodies are padded to 8 bytes unless compressed."""
    place = 0
    while place + 8 <= len(content):
        word, length = (int(number) for number in np.frombuffer(content, order + "u4", 2, place))
        if word >> 16:  # a small element: four bytes or fewer, within the tag
            yield word & 0xFFFF, content[place + 4 : place + 4 + min(word >> 16, 4)]
            place += 8
            continue
        if place + 8 + length > len(content):
            raise broken(
                path,
                f"an element of {length} bytes where {len(content) - place - 8} are left",
                "a whole file",
            )
        yield word, content[place + 8 : place + 8 + length]
        place += 8 + length + (-length % 8 if word != _COMPRESSED else 0)


def _unpack(path: Path, packed: bytes, before: int) -> bytes:
    unpacker, parts = zlib.decompressobj(), []
    while packed and not unpacker.eof:
        try:
            parts.append(unpacker.decompress(packed, 2**20))
        except zlib.error as error:
            raise broken(path, f"damaged compression ({error})", "a whole file") from None
        before += len(parts[-1])
        check_unpacked_size(path, before)
        packed = unpacker.unconsumed_tail
    return b"".join(parts)


def _array_header(
    path: Path, body: bytes, order: str
) -> tuple[int, bool, tuple[int, ...], str, list[np.ndarray]]:
    """Return class, complex flag, shape, name and the numeric parts of an array."""
    parts = list(_elements(path, body, order))
    if len(parts) < 3 or len(parts[0][1]) < 8 or parts[1][0] != 5:
        raise broken(path, "an array without flags, dimensions and name", "a MATLAB array")
    flags = int(np.frombuffer(parts[0][1], order + "u4", 1)[0])
    shape = tuple(int(side) for side in np.frombuffer(parts[1][1], order + "i4", len(parts[1][1]) // 4))
    name = parts[2][1].decode("latin-1")
    numeric = flags & 0xFF in _NUMERIC_CLASSES or flags & 0xFF == _SPARSE_CLASS
    data = [_numbers(path, name, kind, part, order) for kind, part in parts[3:]] if numeric else []
    return flags & 0xFF, bool(flags >> 8 & _COMPLEX_FLAG), shape, name, data


def _numbers(path: Path, name: str, kind: int, part: bytes, order: str) -> np.ndarray:
    if kind not in _NUMBERS:
        raise broken(path, f"{name!r} with data of type {kind}", "numbers")
    numbers = np.dtype(order + _NUMBERS[kind])
    return np.frombuffer(part, numbers, len(part) // numbers.itemsize)


def _dense(
    path: Path, name: str, shape: tuple[int, ...], data: list[np.ndarray], is_complex: bool
) -> np.ndarray:
    values = _values(path, name, data, is_complex)
    if len(shape) < 2 or min(shape) < 0 or math.prod(shape) != len(values):
        raise broken(
            path, f"{name!r} of shape {shape} with {len(values)} numbers", "as many as the shape says"
        )
    return values.reshape(shape, order="F")


def _sparse(
    path: Path, name: str, shape: tuple[int, ...], data: list[np.ndarray], is_complex: bool
) -> scipy.sparse.csc_array:
    import scipy.sparse

    if len(data) < 3 or len(shape) != 2 or min(shape) < 0:
        raise broken(path, f"the sparse matrix {name!r} without its parts", "rows, column starts and values")
    indices, indptr = data[0].astype(np.int64), data[1].astype(np.int64)
    values = _values(path, name, data[2:], is_complex)
    entries = int(indptr[-1]) if len(indptr) else -1
    rising = len(indptr) == shape[1] + 1 and indptr[0] == 0 and bool((np.diff(indptr) >= 0).all())
    if not rising or not 0 <= entries <= min(len(indices), len(values)):
        raise broken(
            path, f"{name!r} with column starts that do not rise from 0 to its size", "a sparse matrix"
        )
    indices = indices[:entries]  # MATLAB may keep room for more
    if entries and not 0 <= indices.min() <= indices.max() < shape[0]:
        raise broken(path, f"{name!r} with rows {indices.min()} to {indices.max()}", f"0 to {shape[0] - 1}")
    if shape[0] > MAX_ROWS_PER_ENTRY * (entries + 10_000):
        raise broken(path, f"{name!r} of {shape} with {entries} entries", "about one entry per row or more")
    return scipy.sparse.csc_array((values[:entries], indices, indptr), shape=shape)


def _values(path: Path, name: str, data: list[np.ndarray], is_complex: bool) -> np.ndarray:
    if len(data) < (2 if is_complex else 1) or (is_complex and len(data[0]) != len(data[1])):
        raise broken(path, f"{name!r} without its numbers", "a real part, and an imaginary one if complex")
    return data[0] + 1j * data[1] if is_complex else data[0].astype(np.float64)
