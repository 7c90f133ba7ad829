"""How the CPU kernels are compiled, and how they share a loop between threads.

Every kernel is compiled for one range of its loop and releases the GIL. `over_ranges` hands out the
ranges: the caller's thread takes the next one as soon as it is done with the last, and so does every
idle thread of the pool. Pool threads sleep between kernels. OpenMP, which numba's own `prange` may use,
lets them spin instead: next to torch's pool and BLAS's, which spin as well, a kernel of 0.2 ms was seen to
wait tens of milliseconds for a core, and a process that has used it must not fork (a DataLoader does).
Here a thread that gets no core only means that the caller does all the ranges itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numba
import torch

# Reassociation lets sums be vectorised. NaN and infinity keep their meaning (no nnan, no ninf): a solver
# must see them.
serial = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz"})
# For sums whose order is written out: the compiler neither vectorises short rows nor lengthens a recurrence.
ordered = numba.njit(cache=True, nogil=True, fastmath={"contract"})

SERIAL_BELOW = 100_000  # entries: about 20 us of work, what waking another thread costs
MAX_THREADS = 8  # the loops wait for memory: more cores than this do not make it faster
RANGES_PER_THREAD = 2

_inbox: SimpleQueue[tuple[Callable[[], int], SimpleQueue[int]]] = SimpleQueue()
_running: list[threading.Thread] = []


def _serve(inbox: SimpleQueue[tuple[Callable[[], int], SimpleQueue[int]]]) -> None:
    while True:
        take_ranges, finished = inbox.get()
        done = take_ranges()
        if done:
            finished.put(done)
        del take_ranges, finished  # the arrays of a finished kernel must not live on in a sleeping thread


def _forget_threads() -> None:
    """Start afresh in a forked child, where the threads of the parent do not exist."""
    global _inbox
    _inbox = SimpleQueue()
    _running.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_threads)


def over_ranges(count: int, kernel: Callable[[int, int], Any], entries: int | None = None) -> list[Any]:
    """Call `kernel(lo, hi)` on ranges that cover 0..count, side by side where it pays; return their results.

    Parameters
    ----------
    count : int
        Length of the loop.
    kernel : callable
        Compiled with `serial` or `ordered`; its ranges must not write to the same entries.
    entries : int, optional
        Numbers touched by the whole loop, which decide whether it pays (default: count).

    Notes
    -----
    As many threads are used as torch uses (`torch.set_num_threads`). Results come in the order of the
    ranges, so a sum over them does not depend on which thread was faster.
    """
    small = (count if entries is None else entries) < SERIAL_BELOW
    threads = 1 if small else min(torch.get_num_threads(), MAX_THREADS)
    if threads == 1:
        return [kernel(0, count)]
    ranges = threads * RANGES_PER_THREAD
    results: list[Any] = [None] * ranges
    next_range = iter(range(ranges)).__next__  # taking one is atomic: a single call into C

    def take_ranges() -> int:
        done = 0
        try:
            while True:
                c = next_range()
                results[c] = kernel(count * c // ranges, count * (c + 1) // ranges)
                done += 1
        except StopIteration:
            return done

    while len(_running) < threads - 1:
        _running.append(threading.Thread(target=_serve, args=(_inbox,), daemon=True, name="neuralsolve"))
        _running[-1].start()
    finished: SimpleQueue[int] = SimpleQueue()
    for _ in range(threads - 1):
        _inbox.put((take_ranges, finished))
    done = take_ranges()
    while done < ranges:
        done += finished.get()
    return results
