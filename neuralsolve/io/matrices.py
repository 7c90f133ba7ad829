"""Sparse matrices from Matrix Market, SciPy .npz and MATLAB .mat files."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuralsolve.errors import FormatError, ShapeError
from neuralsolve.io.files import DAMAGED, broken, check_array_header, check_unpacked_size, existing_file
from neuralsolve.io.matlab import read_matlab
from neuralsolve.io.matrix_market import MAX_ROWS_PER_ENTRY, read_entries

if TYPE_CHECKING:
    import scipy.sparse

MATRIX_SUFFIXES = (".mtx", ".npz", ".mat")
_SPARSE_PARTS = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "coo": ("data", "row", "col"),
    "dia": ("data", "offsets"),
}


@dataclass(frozen=True)
class MatrixFile:
    """What a matrix file holds.

    Attributes
    ----------
    A : scipy.sparse.csr_array, (n, n)
        float64 (complex128 where the file is complex), sorted, duplicates summed, explicit zeros kept.
    near_null_space : ndarray (n, k) or None
        The columns "B" of a PyAMG ``.mat`` file, float64.
    path : Path
    """

    A: scipy.sparse.csr_array
    near_null_space: np.ndarray | None
    path: Path


def read_matrix(path: str | os.PathLike[str], key: str = "A") -> MatrixFile:
    r"""Read a square matrix from ``.mtx``, ``.npz`` or ``.mat``.

    Parameters
    ----------
    path : Matrix Market (any field and symmetry; pattern entries become 1), `scipy.sparse.save_npz` or a
        two-dimensional array in ``.npz``, MATLAB v6 or v7
    key : name of the matrix in a ``.mat`` file, or of the dense array in a ``.npz`` file of several

    Raises
    ------
    FileNotFoundError
        No such file.
    FormatError
        A truncated, damaged or hostile file, or one of another format.
    ShapeError
        A matrix that is not square, or has no rows.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "two.mtx"
    >>> banner = "%%MatrixMarket matrix coordinate real symmetric"
    >>> _ = path.write_text(f"{banner}\n2 2 3\n1 1 2.0\n2 1 -1.0\n2 2 2.0\n")
    >>> read_matrix(path).A.toarray()
    array([[ 2., -1.],
           [-1.,  2.]])
    """
    path = existing_file(path, MATRIX_SUFFIXES)
    near_null_space = None
    if path.suffix.lower() == ".mtx":
        A = _read_matrix_market(path)
    elif path.suffix.lower() == ".npz":
        A = _read_npz(path, key)
    else:
        A, near_null_space = _read_matlab(path, key)
    return MatrixFile(_square_csr(A, path), near_null_space, path)


def _read_matrix_market(path: Path):
    import scipy.sparse

    entries = read_entries(path)
    return scipy.sparse.coo_array((entries.values, (entries.rows, entries.columns)), shape=entries.shape)


def read_npz_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz`` file; every header is checked before any data are unpacked."""
    expected = "an .npz archive of number arrays (scipy.sparse.save_npz or np.savez)"
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            check_unpacked_size(path, sum(member.file_size for member in members))
            for member in members:
                with archive.open(member) as stream:
                    check_array_header(stream, member.file_size, path, member.filename)
            arrays = {}
            for member in members:
                with archive.open(member) as stream:
                    arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(
                        stream, allow_pickle=False
                    )
            return arrays
    except FormatError:
        raise
    except DAMAGED as error:
        raise broken(path, f"a damaged archive ({error})", expected) from None


def _read_npz(path: Path, key: str):
    arrays = read_npz_arrays(path)
    if "format" not in arrays:
        square = [name for name, array in arrays.items() if array.ndim == 2]
        name = key if key in square else square[0] if len(square) == 1 else None
        if name is None:
            expected = (
                f"what scipy.sparse.save_npz writes, or one two-dimensional array (or one named {key!r})"
            )
            raise broken(path, f"the arrays {sorted(arrays)}", expected)
        return arrays[name]
    layout = arrays["format"].item() if arrays["format"].size == 1 else b""
    layout = layout.decode("latin-1") if isinstance(layout, bytes) else str(layout)
    if layout not in _SPARSE_PARTS:
        raise broken(path, f"the sparse format {layout!r}", f"one of {', '.join(_SPARSE_PARTS)}")
    missing = [name for name in (*_SPARSE_PARTS[layout], "shape") if name not in arrays]
    if missing:
        raise broken(
            path, f"a {layout} matrix without {', '.join(missing)}", "all parts that save_npz writes"
        )
    return _assemble(path, layout, arrays)


def _assemble(path: Path, layout: str, arrays: dict[str, np.ndarray]):
    import scipy.sparse

    shape = arrays["shape"]
    if shape.shape != (2,) or shape.dtype.kind not in "iu":
        raise broken(path, f"the shape {shape!r}", "two whole numbers")
    rows, columns = (int(length) for length in shape)
    parts = [arrays[name] for name in _SPARSE_PARTS[layout]]
    entries = parts[0].size
    if min(rows, columns) < 0 or max(rows, columns) > MAX_ROWS_PER_ENTRY * (entries + 10_000):
        raise broken(path, f"{rows} x {columns} with {entries} entries", "about one entry per row or more")
    for name, part in zip(_SPARSE_PARTS[layout][1:], parts[1:], strict=True):
        if part.dtype.kind not in "iu":
            raise broken(path, f"{name} of type {part.dtype}", "whole numbers")
    try:
        if layout == "coo":
            return scipy.sparse.coo_array((parts[0], (parts[1], parts[2])), shape=(rows, columns))
        if layout == "dia":
            return scipy.sparse.dia_array((parts[0], parts[1]), shape=(rows, columns))
        make = getattr(scipy.sparse, f"{layout}_array")
        return make(tuple(parts), shape=(rows, columns))
    except DAMAGED as error:
        raise broken(path, f"parts that are no {layout} matrix ({error})", "what save_npz writes") from None


def _read_matlab(path: Path, key: str):
    found, present = read_matlab(path, (key, "B"))
    if key not in found:
        what = (
            f"{key!r} that is no array of numbers" if key in present else f"the variables {sorted(present)}"
        )
        raise broken(path, what, f"a matrix {key!r}")
    A, B = found[key], found.get("B") if key != "B" else None
    usable = (
        isinstance(B, np.ndarray) and B.dtype.kind == "f" and B.ndim == 2 and len(B) == (A.shape or (0,))[0]
    )
    return A, np.ascontiguousarray(B) if usable else None


def _square_csr(A, path: Path) -> scipy.sparse.csr_array:
    """Return A as canonical CSR; indices are checked first, conversions trust them."""
    import scipy.sparse

    if A.ndim != 2 or A.shape[0] != A.shape[1] or A.shape[0] == 0:
        msg = f"{path} holds a matrix of shape {tuple(A.shape)}; a linear system needs a square one with rows"
        raise ShapeError(msg)
    if A.dtype.kind not in "biufc":
        raise broken(path, f"values of type {A.dtype}", "numbers")
    try:
        if scipy.sparse.issparse(A):
            if A.format in ("csr", "csc", "bsr"):
                A.check_format(full_check=True)
            elif A.format == "coo" and A.nnz:
                low, high = min(A.row.min(), A.col.min()), max(A.row.max(), A.col.max())
                if low < 0 or high >= A.shape[0]:
                    raise broken(path, f"indices from {low} to {high}", f"0 to {A.shape[0] - 1}")
        number = np.complex128 if A.dtype.kind == "c" else np.float64
        csr = scipy.sparse.csr_array(A, dtype=number)
    except FormatError:
        raise
    except DAMAGED as error:
        raise broken(
            path, f"a matrix that is not consistent ({error})", "valid row and column indices"
        ) from None
    csr.sum_duplicates()
    csr.sort_indices()
    return csr
