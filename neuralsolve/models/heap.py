"""Memory that a training step frees stays with the process, for the next step.

The C library gives large pieces of memory back to the system as soon as they are free, and gets them again,
page by page and filled with zeros, in the next step: 10 to 20 % of the time of a small network on one core.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM, _OWN_PAGES = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h


def keep_freed_memory(most: int = 2**30, piece: int = 2**25) -> bool:
    """Let the process keep memory that is freed, for good; return whether the C library can (glibc does).

    Parameters
    ----------
    most : bytes that may lie unused at the end of the heap
    piece : larger ones are given back all the same; glibc allows 32 MB at most

    Examples
    --------
    >>> keep_freed_memory() in (True, False)
    True
    """
    if not sys.platform.startswith("linux"):
        return False
    setting = getattr(ctypes.CDLL(None), "mallopt", None)
    return setting is not None and setting(_TRIM, most) == 1 and setting(_OWN_PAGES, piece) == 1
