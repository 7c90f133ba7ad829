"""How the CPU kernels are compiled, and how they share a loop between threads.

Every kernel is compiled for one range of its loop and releases the GIL. `over_ranges` hands out the
ranges: the caller's thread takes the next one as soon as it is done with the last, and so does every
idle thread of the pool. Pool threads sleep between kernels. OpenMP, which numba's own `prange` may use,
lets them spin instead: next to torch's pool and BLAS's, which spin as well, a kernel of 0.2 ms was seen to
wait tens of milliseconds for a core, and a process that has used it must not fork (a DataLoader does).
Here a thread that gets no core only means that the caller does all the ranges itself.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any

import numba
import torch

# Reassociation lets sums be vectorised. NaN and infinity keep their meaning (no nnan, no ninf): a solver
# must see them.
_MATH = {"reassoc", "contract", "arcp", "nsz"}
_UNCOUNTED: dict[str, Any] = {"_nrt": False}
serial = numba.njit(cache=True, nogil=True, fastmath=_MATH)
# For kernels that call others on short lines: no references are counted, which would take longer than a line,
# and therefore no arrays made.
bare = numba.njit(cache=True, nogil=True, fastmath=_MATH, **_UNCOUNTED)
# A division by zero gives infinity instead of an error: without that test its loop is vectorised.
unchecked = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_MATH)
bare_unchecked = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_MATH, **_UNCOUNTED)
# For sums whose order is written out: the compiler neither vectorises short rows nor lengthens a recurrence.
ordered = numba.njit(cache=True, nogil=True, fastmath={"contract"})

SERIAL_BELOW = 250_000  # entries: about 100 us of work, twice what waking another thread costs
MAX_THREADS = 8  # the loops wait for memory: more cores than this do not make it faster
RANGES_PER_THREAD = 2
UNEVEN = 8  # ranges per thread, where most of the work may lie in few places
BLOCK = 100_000  # cells per block of a sweep, about 300 us

Task = tuple[Callable[[], int], SimpleQueue]  # taken by a sleeping thread; None ends it
_alone: ContextVar[bool] = ContextVar("neuralsolve_alone", default=False)
_inbox: SimpleQueue[Task | None] = SimpleQueue()
_running: list[threading.Thread] = []


def _serve(inbox: SimpleQueue[Task | None]) -> None:
    while (task := inbox.get()) is not None:
        take_tasks, finished = task
        try:
            done = take_tasks()
            if done:
                finished.put(done)
        except BaseException as error:
            finished.put(error)
        # the arrays of a finished kernel must not live on in a sleeping thread
        del task, take_tasks, finished


@atexit.register
def _stop_threads() -> None:
    """End the threads before the interpreter does: one that woke later would be torn out of compiled code."""
    for _ in _running:
        _inbox.put(None)
    for thread in _running:
        thread.join()
    _running.clear()


def _forget_threads() -> None:
    """Start afresh in a forked child, where the threads of the parent do not exist."""
    global _inbox
    _inbox = SimpleQueue()
    _running.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_threads)


def thread_count() -> int:
    """Return how many threads a kernel may use: as many as torch, one inside `one_thread_each`."""
    return 1 if _alone.get() else min(torch.get_num_threads(), MAX_THREADS)


def one_thread_each(tasks: int, task: Callable[[int], Any]) -> list[Any]:
    """Call `task(0)` ... `task(tasks - 1)` side by side, every kernel inside on its own thread alone.

    For tasks that are whole solves: they share no data, so no thread waits for another.
    """

    def alone(c: int) -> Any:
        token = _alone.set(True)
        try:
            return task(c)
        finally:
            _alone.reset(token)

    return side_by_side(tasks, alone, min(tasks, thread_count()))


def over_ranges(
    count: int,
    kernel: Callable[[int, int], Any],
    entries: int | None = None,
    per_thread: int = RANGES_PER_THREAD,
) -> list[Any]:
    """Call `kernel(lo, hi)` on ranges that cover 0..count, side by side where it pays; return their results.

    Parameters
    ----------
    count : int
        Length of the loop.
    kernel : callable
        Compiled with `serial` or `ordered`; its ranges must not write to the same entries.
    entries : int, optional
        Numbers touched by the whole loop, which decide whether it pays (default: count).
    per_thread : int
        Ranges for each thread: the more, the less they are alike in work.

    Notes
    -----
    As many threads are used as torch uses (`torch.set_num_threads`). Results come in the order of the
    ranges, so a sum over them does not depend on which thread was faster.
    """
    small = (count if entries is None else entries) < SERIAL_BELOW
    threads = 1 if small else thread_count()
    if threads == 1:
        return [kernel(0, count)]
    ranges = threads * per_thread
    return side_by_side(ranges, lambda c: kernel(count * c // ranges, count * (c + 1) // ranges), threads)


def side_by_side(tasks: int, kernel: Callable[[int], Any], threads: int) -> list[Any]:
    """Call `kernel(0)` ... `kernel(tasks - 1)` on up to `threads` threads; return their results in order."""
    if tasks == 1:
        return [kernel(0)]
    results: list[Any] = [None] * tasks
    next_task = iter(range(tasks)).__next__  # taking one is atomic: a single call into C

    def take_tasks() -> int:
        done = 0
        try:
            while True:
                c = next_task()
                results[c] = kernel(c)
                done += 1
        except StopIteration:
            return done

    _start(threads - 1)
    finished: SimpleQueue[int | BaseException] = SimpleQueue()
    for _ in range(min(threads, tasks) - 1):
        _inbox.put((take_tasks, finished))
    done = take_tasks()
    while done < tasks:
        other = finished.get()
        if isinstance(other, BaseException):
            raise other
        done += other
    return results


def alongside(helpers: int, task: Callable[[], Any]) -> None:
    """Let so many sleeping threads call `task()`, soon or late, while the caller goes on without waiting."""

    def once() -> int:
        task()
        return 0  # nobody waits for it

    _start(helpers)
    for _ in range(helpers):
        _inbox.put((once, SimpleQueue()))


def _start(threads: int) -> None:
    """Have at least so many threads that sleep or work."""
    while len(_running) < threads:
        _running.append(threading.Thread(target=_serve, args=(_inbox,), daemon=True, name="neuralsolve"))
        _running[-1].start()


def in_blocks(shape: tuple[int, ...], kernel: Callable[[tuple[int, ...]], Any], reverse: bool) -> None:
    """Call `kernel(block)` on the blocks of a grid so that the result is that of one pass in C order.

    A cell may depend on the new values of its six neighbours before it, and on the old values of those after
    it. The two longest-stride axes are cut into bands and slices; block (band, slice) runs after (band - 1,
    slice) and (band, slice - 1), so that blocks of equal band + slice, which share no face, run side by side.

    Parameters
    ----------
    shape : (nz, ny, nx)
    kernel : callable
        Does the cells of a block (z0, z1, y0, y1, x0, x1) in C order; in the opposite order if `reverse`.
    reverse : bool
        From the last block to the first.
    """
    cells = shape[0] * shape[1] * shape[2]
    threads = thread_count()
    outer = 0 if shape[0] > 1 else 1
    slices = min(threads, shape[outer + 1])
    bands = min(shape[outer], cells // (BLOCK * slices))
    if slices == 1 or bands < slices:
        kernel((0, shape[0], 0, shape[1], 0, shape[2]))
        return

    def run(step: int, j: int) -> None:
        band, part = (bands - 1 - step + j, slices - 1 - j) if reverse else (step - j, j)
        block = [0, shape[0], 0, shape[1], 0, shape[2]]
        for axis, at, count in ((outer, band, bands), (outer + 1, part, slices)):
            block[2 * axis] = shape[axis] * at // count
            block[2 * axis + 1] = shape[axis] * (at + 1) // count
        kernel(tuple(block))

    for step in range(bands + slices - 1):
        first, last = max(0, step - bands + 1), min(step, slices - 1)
        side_by_side(last - first + 1, lambda q, step=step, first=first: run(step, first + q), threads)


@contextmanager
def torch_on_one_thread() -> Iterator[None]:
    """Keep torch on one thread: its waiting threads spin, and small tensors gain nothing from them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
