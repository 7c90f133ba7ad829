"""Ctrl-C between steps: a step is ended before the run is, so that what is saved is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from neuralsolve.models.parallel import processes


@contextmanager
def held_interrupts() -> Iterator[Callable[[], bool]]:
    """Give what tells whether Ctrl-C was pressed since the block began.

    Pressed again it ends the program at once, except among the processes of ``torchrun``, which passes on to
    all of them what the terminal has sent already.

    Examples
    --------
    >>> import os
    >>> with held_interrupts() as asked:
    ...     os.kill(os.getpid(), signal.SIGINT)
    ...     asked()
    True
    """
    pressed = False

    def note(number: int, frame: Any) -> None:
        nonlocal pressed
        if pressed and processes() == 1:
            raise KeyboardInterrupt
        pressed = True

    own = threading.current_thread() is threading.main_thread()
    if not (own and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
