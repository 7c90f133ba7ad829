"""Connected regions of a stencil, numba. Definition: `neuralsolve.kernels.reference.regions`.

The nodes of the graph are runs, cells of a line that are coupled one to the next: far fewer than cells. Every
run points to an earlier one of its region, or to itself (union-find; He, Chao and Suzuki 2008, "A run-based
two-scan labeling algorithm"). Threads take ranges of lines and join runs within them; what joins two ranges,
or wraps round the box, is done at the end by one thread, which reads only the lines there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neuralsolve.kernels.cpu.stencil import INSIDE, X_LOW, Y_LOW, Z_LOW
from neuralsolve.kernels.cpu.threads import over_ranges, serial

ONE, SIX = np.uint64(1), np.uint64(6)
LANES = 0x0001000100010001  # four cells in a word of 64 bits
COUPLED_FOUR, PAIRS, OPEN_FOUR = np.uint64(X_LOW * LANES), np.uint64(21 * LANES), np.uint64(63 * LANES)


@serial
def _count(code, nx, counts, lo, hi):
    """counts[line] = runs of a line: fluid cells that are not coupled to the one before them."""
    for line in range(lo, hi):
        row, count = code[line * nx : line * nx + nx], np.int32(0)
        for i in range(nx):
            count += np.int32((row[i] & (INSIDE | X_LOW)) == INSIDE)
        counts[line] = count + (row[0] & X_LOW != 0)  # a wrap begins a run too


@serial
def _root(parent, r):
    while parent[r] != r:
        parent[r] = parent[parent[r]]
        r = parent[r]
    return r


@serial
def _unite(parent, a, b):
    a, b = _root(parent, a), _root(parent, b)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


@serial
def _join(code, nx, starts, begin, end, parent, line, other, bit):
    """Unite the runs of a line with those of another that its cells are coupled to by a bit."""
    a, b, shift = starts[line], starts[other], (line - other) * nx
    while a < starts[line + 1] and b < starts[other + 1]:
        i, last = max(begin[a], begin[b] + shift), min(end[a], end[b] + shift)
        while i < last and not code[i] & bit:
            i += 1
        if i < last:
            _unite(parent, a, b)
        if end[a] <= end[b] + shift:
            a += 1
        else:
            b += 1


@serial
def _run_end(code, words, i, stop):
    """Return where the run that cell i begins ends, and whether one of its cells has a way out."""
    bits, out = code[i], np.uint64(0)
    out |= np.uint64(((bits & 21) + ((bits >> 1) & 21)) ^ ((bits >> 6) & 63))
    i += 1
    while i < stop:
        if i & 3 == 0 and i + 4 <= stop:
            four = words[i >> 2]
            if four & COUPLED_FOUR == COUPLED_FOUR:
                out |= ((four & PAIRS) + ((four >> ONE) & PAIRS)) ^ ((four >> SIX) & OPEN_FOUR)
                i += 4
                continue
        bits = code[i]
        if not bits & X_LOW:
            break
        out |= np.uint64(((bits & 21) + ((bits >> 1) & 21)) ^ ((bits >> 6) & 63))
        i += 1
    return i, out != 0


@serial
def _scan(code, words, shape, starts, begin, end, parent, grounded, lo, hi):
    """Find the runs of a range of lines and unite them with each other; returns its first line."""
    _, ny, nx = shape
    for line in range(lo, hi):
        i, stop = line * nx, line * nx + nx
        for r in range(starts[line], starts[line + 1]):
            while not code[i] & INSIDE:
                i += 1
            begin[r], parent[r] = i, r
            i, grounded[r] = _run_end(code, words, i, stop)
            end[r] = i
        if starts[line] < starts[line + 1] and code[line * nx] & X_LOW:
            _unite(parent, starts[line], starts[line + 1] - 1)
        if line > lo and line % ny:
            _join(code, nx, starts, begin, end, parent, line, line - 1, Y_LOW)
        if line - ny >= lo:
            _join(code, nx, starts, begin, end, parent, line, line - ny, Z_LOW)
    return lo


@serial
def _join_ranges(code, shape, starts, begin, end, parent, firsts):
    """Unite runs across the first lines of ranges and across the periodic walls of the box."""
    nz, ny, nx = shape
    for lo in firsts[1:]:
        if lo % ny:
            _join(code, nx, starts, begin, end, parent, lo, lo - 1, Y_LOW)
        for line in range(max(lo, ny), min(lo + ny, nz * ny)):
            _join(code, nx, starts, begin, end, parent, line, line - ny, Z_LOW)
    if nz > 1:
        for y in range(ny):
            _join(code, nx, starts, begin, end, parent, y, (nz - 1) * ny + y, Z_LOW)
    if ny > 1:
        for z in range(nz):
            _join(code, nx, starts, begin, end, parent, z * ny, z * ny + ny - 1, Y_LOW)


@serial
def _number(begin, end, parent, grounded, number):
    """number[r] = the singular region of a run, -1 for none; returns the cells of every one."""
    for r in range(parent.size):  # parents come first, so each points to its root already
        parent[r] = parent[parent[r]]
        grounded[parent[r]] |= grounded[r]
    regions = 0
    for r in range(parent.size):
        number[r] = -1
        if not grounded[parent[r]]:
            if parent[r] == r:
                number[r] = regions
                regions += 1
            number[r] = number[parent[r]]
    cells = np.zeros(regions)
    for r in range(parent.size):
        if number[r] >= 0:
            cells[number[r]] += end[r] - begin[r]
    return cells


@serial
def _label(nx, starts, begin, end, number, labels, lo, hi):
    labels[lo * nx : hi * nx] = -1
    for r in range(starts[lo], starts[hi]):
        if number[r] >= 0:
            labels[begin[r] : end[r]] = number[r]


def stencil_regions(code: Tensor, shape: Sequence[int], labels: Tensor) -> Tensor:
    """Label the regions with no way out, (n,), and return their cells, (m,): see the definition."""
    nz, ny, nx = (int(side) for side in shape)
    bits, n, lines, box = code.numpy(), code.numel(), nz * ny, (nz, ny, nx)
    words, starts = bits[: n // 4 * 4].view(np.uint64), np.zeros(lines + 1, np.int32)
    over_ranges(lines, lambda lo, hi: _count(bits, nx, starts[1:], lo, hi), entries=n)
    np.cumsum(starts, out=starts)
    begin, end, parent, number = np.empty((4, int(starts[-1])), np.int32)
    grounded = np.empty(len(begin), np.bool_)
    firsts = over_ranges(
        lines, lambda lo, hi: _scan(bits, words, box, starts, begin, end, parent, grounded, lo, hi), entries=n
    )
    _join_ranges(bits, box, starts, begin, end, parent, np.array(firsts))
    cells = _number(begin, end, parent, grounded, number)
    if len(cells):
        out = labels.numpy()
        over_ranges(lines, lambda lo, hi: _label(nx, starts, begin, end, number, out, lo, hi), entries=n)
    return torch.from_numpy(cells)
