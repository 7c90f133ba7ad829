"""What every reader and writer shares: a checked path, a guarded NumPy header, an atomic replacement."""

from __future__ import annotations

import os
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from neuralsolve.errors import FormatError, nearest

# A compressed file may claim any size. What it unpacks to is bounded by these two, whichever is larger:
# deflate reaches 1:1032 on zeros, real matrices stay below 1:100.
MAX_UNPACKED_BYTES = 256 * 2**20
MAX_UNPACKED_RATIO = 200
# What Python's own readers raise on damaged bytes. RuntimeError: an encrypted zip member, deep nesting, a
# compression that zipfile lacks; StopIteration: a text that ends early.
DAMAGED = (
    ValueError,
    TypeError,
    IndexError,
    OverflowError,
    SyntaxError,
    EOFError,
    OSError,
    MemoryError,
    RuntimeError,
    StopIteration,
    tokenize.TokenError,  # NumPy's header parser
    zlib.error,
    zipfile.BadZipFile,
)


def existing_file(path: str | os.PathLike[str], suffixes: Iterable[str]) -> Path:
    """Return `path` if it is a non-empty file with one of the lower-case `suffixes`.

    Raises
    ------
    FileNotFoundError
        No such file; a file of a similar name in the same folder is suggested.
    FormatError
        A folder, a pipe or device, an empty file, or a suffix that has no reader.
    """
    path = Path(path)
    if not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, beside) if beside and len(beside) < 10_000 else ""
        msg = f"no file {path}{hint if hint.startswith('; did') else ''}"
        raise FileNotFoundError(msg)
    suffixes = sorted(suffixes)
    known = suffixes[0] if len(suffixes) == 1 else f"one of {', '.join(suffixes)}"
    if not path.is_file():  # a pipe could not be read twice, nor its size be told
        found = "a folder" if path.is_dir() else "a pipe, socket or device"
        raise broken(path, found, f"a regular file whose name ends in {known}")
    if path.suffix.lower() not in suffixes:
        found = f"the suffix {path.suffix!r}" if path.suffix else "a name without suffix"
        raise broken(path, found, f"{known}, since the suffix tells the format; rename the file")
    if path.stat().st_size == 0:
        raise broken(path, "an empty file", f"{path.suffix} content")
    return path


def broken(path: Path, found: str, expected: str) -> FormatError:
    """Return the error for a file that cannot be used."""
    found = " ".join(found.split())  # one line, whatever a library put into its message
    return FormatError(f"{path}: found {found[:300]}; expected {expected}")


def check_array_header(
    stream: IO[bytes], size: int, path: Path, name: str = "array"
) -> tuple[tuple[int, ...], np.dtype]:
    """Read the header of a ``.npy`` stream of `size` bytes and return (shape, dtype), reading no data.

    Refuses object arrays (they hold pickles), structured types, and a shape that does not match `size`.
    """
    expected = "a NumPy array of numbers (np.save or scipy.sparse.save_npz write one)"
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read_header(stream)
    except KeyError:
        raise broken(path, f"{name} of an unknown .npy version", expected) from None
    except DAMAGED as error:
        raise broken(path, f"{name} with a damaged header ({error})", expected) from None
    if dtype.hasobject or dtype.fields is not None or dtype.kind not in "biufcSU":
        raise broken(path, f"{name} of type {dtype} (objects and records are never loaded)", expected)
    count = 1
    for length in shape:
        count *= length
    held = size - stream.tell()
    if min(shape, default=0) < 0 or count * dtype.itemsize != held:
        found = f"{name} that declares {shape} of {dtype}, {count * dtype.itemsize} bytes, but holds {held}"
        raise broken(path, found, "a file that was written to its end")
    return shape, dtype


def check_unpacked_size(path: Path, unpacked: int) -> None:
    """Refuse a compressed file that would unpack to far more than real data do (a "zip bomb")."""
    limit = max(MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO * path.stat().st_size)
    if unpacked > limit:
        msg = (
            f"{path}: found at least {unpacked} bytes packed into {path.stat().st_size}; expected at most "
            f"{limit}; if the file is yours, save it uncompressed (compressed=False)"
        )
        raise FormatError(msg)


@contextmanager
def bounded_memory(path: Path) -> Iterator[None]:
    """Let the block allocate no more than `check_unpacked_size` would allow for `path`, twice the least.

    For foreign readers that allocate what a header says. The limit is the whole process's and ends with the
    block: import before it. It exists on Linux only; elsewhere the block runs without.
    """
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        yield
        return
    allowed = max(2 * MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO * path.stat().st_size)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + allowed
    tighter = [value for value in (soft, hard, limit) if value != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(tighter), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def replacing(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it becomes `path`, on failure nothing has changed.

    Parameters
    ----------
    path : where the finished file goes
    overwrite : whether an existing file may be replaced

    Raises
    ------
    FileExistsError
        `path` exists and `overwrite` is False; also where it appeared during the writing.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "x.txt"
    >>> with replacing(target) as temporary:
    ...     _ = temporary.write_text("1.0")
    >>> target.read_text()
    '1.0'
    """
    path = Path(path)
    check_target(path, overwrite)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes it private
        if overwrite:
            os.replace(temporary, path)
        else:
            _claim(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse a target that exists, or whose folder takes no files, before any work is done for it."""
    if path.exists() and not overwrite:
        msg = f"{path} exists and is left as it is; to replace it pass --force (in Python: overwrite=True)"
        raise FileExistsError(msg)
    if path.is_dir():
        msg = f"{path} is a folder; give the name of a file in it"
        raise IsADirectoryError(msg)
    if not path.parent.is_dir():
        msg = f"no folder {path.parent} for {path.name}; make it first, or name another"
        raise FileNotFoundError(msg)
    try:
        tempfile.TemporaryFile(dir=path.parent).close()  # permissions alone say too little of a file system
    except OSError as error:
        msg = f"the folder {path.parent} cannot be written ({error.strerror}); name a file in another"
        raise PermissionError(msg) from None


def _claim(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)  # fails where `path` has appeared meanwhile; a rename would replace it
    except FileExistsError:
        check_target(path, overwrite=False)
        raise
    except OSError:  # a file system without hard links
        check_target(path, overwrite=False)
        os.replace(temporary, path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
