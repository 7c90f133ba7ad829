"""Matrix Market text, parsed here because SciPy's reader can crash the interpreter on damaged files.

Format: R. F. Boisvert, R. Pozo, K. Remington, "The Matrix Market exchange formats", NISTIR 5935 (1996).
Difference from it: numbers may be broken over lines in any way.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuralsolve.io.files import broken

# Rows without entries cost nothing in a file but memory here: a real system has about one entry per row.
MAX_ROWS_PER_ENTRY = 100
_FIELDS = {"real": 1, "double": 1, "integer": 1, "unsigned-integer": 1, "complex": 2, "pattern": 0}
_SYMMETRIES = ("general", "symmetric", "skew-symmetric", "hermitian")


@dataclass(frozen=True)
class Entries:
    """The entries of a matrix: rows, columns and values, both triangles, unsorted and unsummed."""

    shape: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray


def read_entries(path: Path) -> Entries:
    """Return what a Matrix Market file holds, float64 or complex128; pattern entries are 1.

    Raises
    ------
    FormatError
        Another banner, sizes that the file cannot hold, a body of another length, indices outside the matrix.
    """
    with path.open("rb") as stream:
        layout, field, symmetry = _banner(path, stream.readline(1024))
        line = stream.readline(65536)
        while line.startswith(b"%") or (line and not line.strip()):
            line = stream.readline(65536)
        sizes = _sizes(path, line, 3 if layout == "coordinate" else 2)
        if symmetry != "general" and sizes[0] != sizes[1]:
            raise broken(path, f"a {symmetry} matrix of {sizes[0]} x {sizes[1]}", "a square one")
        parts = _FIELDS[field]
        count, width = _body(layout, symmetry, sizes, parts)
        if 2 * count * width - 1 > path.stat().st_size:  # every number takes a digit and a space
            found = f"{path.stat().st_size} bytes for the declared size {' x '.join(map(str, sizes))}"
            raise broken(path, found, "more; is the file truncated?")
        if layout == "coordinate" and max(sizes[:2]) > MAX_ROWS_PER_ENTRY * (count + 10_000):
            raise broken(path, f"{sizes[0]} x {sizes[1]} with {count} entries", "about one per row or more")
        table = _numbers(path, stream.read(), count * width).reshape(count, width)
    values = table[:, width - parts :]
    values = (
        np.ones(count) if parts == 0 else values[:, 0] if parts == 1 else values[:, 0] + 1j * values[:, 1]
    )
    if layout == "coordinate":
        rows, columns = _indices(path, table[:, :2], sizes)
    else:
        rows, columns = _dense_indices(sizes[0], sizes[1], symmetry)
    return _mirrored(Entries((sizes[0], sizes[1]), rows, columns, values), symmetry)


def _banner(path: Path, line: bytes) -> tuple[str, str, str]:
    words = line.decode("latin-1").lower().split()
    if len(words) != 5 or words[:2] != ["%%matrixmarket", "matrix"]:
        found = f"the first line {' '.join(words)[:80]!r}"
        raise broken(path, found, "'%%MatrixMarket matrix coordinate real general' or the like")
    layout, field, symmetry = words[2:]
    known = (("coordinate", "array"), tuple(_FIELDS), _SYMMETRIES)
    for word, choices in zip((layout, field, symmetry), known, strict=True):
        if word not in choices:
            raise broken(path, f"the word {word!r} in the first line", f"one of {', '.join(choices)}")
    if layout == "array" and field == "pattern":
        raise broken(path, "a dense pattern", "a dense matrix with values")
    return layout, field, symmetry


def _sizes(path: Path, line: bytes, count: int) -> list[int]:
    words = line.split()
    if len(words) != count or not all(word.isdigit() and len(word) < 19 for word in words):
        raise broken(path, f"the size line {line[:80]!r}", f"{count} whole numbers")
    return [int(word) for word in words]


def _body(layout: str, symmetry: str, sizes: list[int], parts: int) -> tuple[int, int]:
    """Return the number of entries of the body and the numbers per entry."""
    if layout == "coordinate":
        return sizes[2], 2 + parts
    rows, columns = sizes
    if symmetry == "general":
        return rows * columns, parts
    return rows * (rows - 1) // 2 + (rows if symmetry != "skew-symmetric" else 0), parts


def _numbers(path: Path, text: bytes, count: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # how older NumPy says that a word is no number
        try:
            numbers = np.fromstring(text, dtype=np.float64, sep=" ") if text.strip() else np.empty(0)
        except (ValueError, DeprecationWarning):
            raise broken(path, "a word that is no number", "numbers after the line of sizes") from None
    if len(numbers) != count:
        raise broken(
            path, f"{len(numbers)} numbers after the line of sizes", f"{count}; is the file truncated?"
        )
    return numbers


def _indices(path: Path, table: np.ndarray, sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    for column, size in zip(table.T, sizes[:2], strict=True):
        valid = (column >= 1) & (column <= size) & (column == np.floor(column))  # NaN is not valid either
        if not valid.all():
            raise broken(path, f"the index {column[~valid][0]:g}", f"whole numbers from 1 to {size}")
    whole = table.astype(np.int64) - 1
    return whole[:, 0], whole[:, 1]


def _dense_indices(rows: int, columns: int, symmetry: str) -> tuple[np.ndarray, np.ndarray]:
    """Return where the numbers of a dense body stand: by columns; if symmetric, the lower triangle."""
    if symmetry == "general":
        column, row = np.divmod(np.arange(rows * columns), max(rows, 1))
        return row, column
    column, row = np.triu_indices(rows, 1 if symmetry == "skew-symmetric" else 0)
    return row, column


def _mirrored(entries: Entries, symmetry: str) -> Entries:
    if symmetry == "general":
        return entries
    below = entries.rows != entries.columns
    values = entries.values[below]
    values = {"symmetric": values, "skew-symmetric": -values, "hermitian": values.conj()}[symmetry]
    rows = np.concatenate([entries.rows, entries.columns[below]])
    columns = np.concatenate([entries.columns, entries.rows[below]])
    return Entries(entries.shape, rows, columns, np.concatenate([entries.values, values]))
