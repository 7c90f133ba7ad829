"""How loops are shared between threads: every range once, in order, errors raised, processes that fork."""

from __future__ import annotations

import subprocess
import sys
import threading
from itertools import product

import pytest
import torch

from neuralsolve.kernels.cpu import threads


@pytest.fixture
def eager(monkeypatch):
    """Share every loop, however short."""
    monkeypatch.setattr(threads, "SERIAL_BELOW", 0)
    monkeypatch.setattr(threads, "BLOCK", 1)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("count", [0, 1, 3, 1000])
def test_ranges_cover_the_loop_in_order(count):
    ranges = threads.over_ranges(count, lambda lo, hi: (lo, hi))
    assert [i for lo, hi in ranges for i in range(lo, hi)] == list(range(count))


def test_short_loops_stay_with_the_caller():
    callers = threads.over_ranges(10, lambda lo, hi: (lo, hi, threading.get_ident()))
    assert callers == [(0, 10, threading.get_ident())]


@pytest.mark.usefixtures("eager")
def test_one_torch_thread_means_one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert threads.over_ranges(1000, lambda lo, hi: (lo, hi)) == [(0, 1000)]
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("eager")
def test_errors_reach_the_caller():
    def fails(lo: int, hi: int) -> None:
        msg = f"range {lo} to {hi}"
        raise ArithmeticError(msg)

    for _ in range(20):  # whichever thread takes the first range
        with pytest.raises(ArithmeticError, match="range"):
            threads.over_ranges(1000, fails)
    assert sum(threads.over_ranges(1000, lambda lo, hi: hi - lo)) == 1000


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 9), (5, 4, 3), (2, 2, 2), (9, 1, 1)], ids=str)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_blocks_run_after_the_blocks_they_depend_on(shape, reverse):
    lock, done = threading.Lock(), set()

    def kernel(block):
        z0, z1, y0, y1, x0, x1 = block
        cells = list(product(range(z0, z1), range(y0, y1), range(x0, x1)))
        with lock:
            ready = set(done)
        for cell in cells:
            for axis in range(3):
                for step in (-1, 1):
                    there = list(cell)
                    there[axis] += step
                    if not 0 <= there[axis] < shape[axis] or tuple(there) in cells:
                        continue
                    # Earlier neighbours are done, later ones have not been begun.
                    assert (tuple(there) in ready) == ((step < 0) != reverse)
        with lock:
            done.update(cells)

    threads.in_blocks(shape, kernel, reverse)
    assert done == set(product(*map(range, shape)))


def test_a_forked_process_starts_its_own_threads():
    code = """
import os, torch
from neuralsolve.kernels import table
torch.set_num_threads(2)
x = torch.ones(300_000, dtype=torch.float64)
assert float(table().dot(x, x)) == 300_000
child = os.fork()
if child == 0:
    os._exit(0 if float(table().dot(x, x)) == 300_000 else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    if not hasattr(threads.os, "register_at_fork"):
        pytest.skip("this system does not fork")
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
