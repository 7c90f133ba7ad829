"""A file for HDF5 to write to that never fails under it.

HDF5 cannot let go of a file whose disk is full: the process crashes when it ends. So errors are kept here,
HDF5 goes on as though all were well, and whoever writes asks afterwards.
"""

from __future__ import annotations

import io
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class KeptErrors(io.RawIOBase):
    """An open file whose first error waits for `check`; what is written after it is dropped.

    Parameters
    ----------
    path : of an existing file
    """

    def __init__(self, path: Path):
        self._file = path.open("r+b")
        self.error: OSError | None = None

    def check(self) -> None:
        """Raise the error that was kept, if there was one."""
        if self.error is not None:
            raise self.error

    def write(self, data: Any) -> int:
        try:
            if self.error is None:
                self._file.write(data)
        except OSError as error:
            self.error = error
        return len(data)

    def readinto(self, buffer: Any) -> int:
        if self.error is None:
            return self._file.readinto(buffer)
        memoryview(buffer).cast("B")[:] = bytes(len(buffer))
        return len(buffer)

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        return (
            place if self.error is not None and whence == io.SEEK_SET else self._quiet("seek", place, whence)
        )

    def tell(self) -> int:
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        return self._quiet("truncate", size)

    def flush(self) -> None:
        self._quiet("flush")

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        super().close()  # flushes
        self._quiet("close")

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def _quiet(self, name: str, *arguments: Any) -> int:
        try:
            return getattr(self._file, name)(*arguments) or 0
        except OSError as error:
            self.error = self.error or error
            return 0


@contextmanager
def uninterrupted() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C wait: HDF5 calls Python back, and must not see it raise.

    Yields a function that lets it through, to be called where nothing is at work; the block's end does too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # where Ctrl-C never comes
        return
    came: list[tuple[int, Any]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))

    def let_through() -> None:
        if came and callable(before):
            before(*came.pop())

    try:
        yield let_through
    finally:
        signal.signal(signal.SIGINT, before)
        let_through()
