"""Conductors of a level of multigrid, numba. Definitions: `neuralsolve.kernels.reference.conductors`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neuralsolve.kernels.cpu.padded import (
    box,
    flags,
    over_cells,
    over_lines,
    row_start,
    singles,
    strides,
    wrap_sides,
)
from neuralsolve.kernels.cpu.stencil import INSIDE
from neuralsolve.kernels.cpu.threads import bare, over_ranges

APART = np.float32(0.05)  # see the definition
OUT = 1 << 13  # bit of a cell with a way out, until all its sides are known


@bare
def _extent(bits, lo, hi):
    """Smallest and largest positive number of a range, as bits: numbers >= 0 in the order of their bits."""
    bits, most, least = bits[lo:hi], np.uint32(0), np.uint32(0xFFFFFFFF)
    for i in range(bits.size):
        most = max(most, bits[i])
    for i in range(bits.size):
        least = min(least, bits[i] - np.uint32(1))  # zero, which is none, becomes the largest
    return least, most


def _differ(faces: np.ndarray, nominal: Sequence[np.float32]) -> bool:
    """Whether the couplings of a level differ so much that some may not hold."""
    least, most = np.inf, 0.0
    for row, usual in zip(faces[:3], nominal, strict=True):
        bits = row.view(np.uint32)
        found = over_ranges(len(bits), lambda lo, hi, bits=bits: _extent(bits, lo, hi))
        top = np.array(max(high for _, high in found), np.uint32)
        if top > 0:
            low = np.array(min(low for low, _ in found) + 1, np.uint32)
            least, most = min(least, low.view(np.float32) / usual), max(most, top.view(np.float32) / usual)
    return bool(least < APART * most)


@bare
def _top(faces, nominal, shape, top, lo, hi):
    """Strongest coupling of the cells lo..hi of the padded box, in units of `nominal`."""
    sz, sy, _, _ = strides(shape)
    kz, ky, kx = np.float32(1) / nominal[0], np.float32(1) / nominal[1], np.float32(1) / nominal[2]
    row, zl, yl, xl = top[lo:hi], faces[0, lo:hi], faces[1, lo:hi], faces[2, lo:hi]
    zh, yh, xh = faces[0, lo + sz : hi + sz], faces[1, lo + sy : hi + sy], faces[2, lo + 1 : hi + 1]
    for i in range(row.size):
        z, y, x = max(zl[i], zh[i]), max(yl[i], yh[i]), max(xl[i], xh[i])
        row[i] = max(kz * z, max(ky * y, kx * x))


@bare
def _code(faces, inverse, nominal, least, shape, top, code, lo, hi):
    """Lines lo..hi: the bits of the couplings that hold both their cells, and the ways out."""
    _, ny, nx = shape
    sz, sy, _, _ = strides(shape)
    for line in range(lo, hi):
        s = row_start(shape, line // ny, line % ny)
        bits, d, own, fixed = code[line * nx : line * nx + nx], inverse[s : s + nx], top[s:], faces[3, s:]
        for i in range(nx):
            f = fixed[i] / least
            bits[i] = (INSIDE | OUT * ((f > 0) & (f >= APART * own[i]))) * (d[i] != 0)
        for side in range(6):
            axis, upward = side // 2, side % 2
            if shape[axis] == 1:
                continue
            step = sz if axis == 0 else (sy if axis == 1 else 1)
            at = s + upward * step
            g, other = faces[axis, at : at + nx], top[at - step + upward * step :]
            usual, coupled, way = np.float32(1) / nominal[axis], 1 << side, 1 << 6 + 2 * axis
            for i in range(nx):
                h = usual * g[i]
                held = (h > 0) & (h >= APART * own[i])
                both = held & (h >= APART * other[i])
                bits[i] = (bits[i] | coupled * both | OUT * (held & ~both & (d[i] != 0))) + way * both
        for i in range(nx):
            bits[i] = (bits[i] & (OUT - 1)) + 64 * (bits[i] >= OUT)


@bare
def _parts(faces, labels, numbers, shape, periodic, starts, runs, edges, couplings, lo, hi):
    """Lines lo..hi: write runs and edges from `starts` on; only count them there where `runs` is empty."""
    sides = shape
    _, ny, nx = shape
    sz, sy, _, _ = strides(shape)
    counting = runs.size == 0
    for line in range(lo, hi):
        z, y = line // ny, line % ny
        s = row_start(shape, z, y)
        r, e, before = (0, 0, -1) if counting else (starts[line, 0], starts[line, 1], -1)
        for i in range(nx):
            label = labels[line * nx + i]
            own = numbers[label] if label >= 0 else -1
            if own >= 0:
                if not counting:
                    if own != before:
                        runs[0, r], runs[1, r] = own, s + i
                    runs[2, r - (own == before)] = s + i + 1
                r += own != before
                for side in range(7):
                    axis, upward = side // 2, side % 2
                    there, other = -1, -1
                    if side == 6:
                        g = faces[3, s + i]
                    else:
                        step = sz if axis == 0 else (sy if axis == 1 else 1)
                        hop = ny * nx if axis == 0 else (nx if axis == 1 else 1)
                        position = (z if axis == 0 else (y if axis == 1 else i)) + 2 * upward - 1
                        n, steps = sides[axis], 2 * upward - 1
                        if n == 1 or (not periodic[axis] and (position < 0 or position == n)):
                            continue
                        steps += n if position < 0 else (-n if position == n else 0)
                        g, there = faces[axis, s + i + upward * step], s + i + steps * step
                        label = labels[line * nx + i + steps * hop]
                        other = numbers[label] if label >= 0 else -1
                    if g <= 0 or other == own:
                        continue
                    if not counting:
                        edges[0, e], edges[1, e], edges[2, e], edges[3, e] = own, s + i, there, other
                        couplings[e] = g
                    e += 1
            before = own
        if counting:
            starts[line, 0], starts[line, 1] = r, e


@bare
def correct(b, runs, edges, couplings, inverse, x, sums):
    """Add Z E Z^T (b - A x) to x; `sums` is room for (2, k) numbers."""
    k = len(inverse)
    rest, change = sums[0, :k], sums[1, :k]
    for i in range(k):
        rest[i] = 0
    for r in range(runs.shape[1]):
        part, total = b[runs[1, r] : runs[2, r]], 0.0
        for i in range(part.size):
            total += part[i]
        rest[runs[0, r]] += total
    for e in range(edges.shape[1]):
        there = edges[2, e]
        beyond = x[there] if there >= 0 else np.float32(0)
        rest[edges[0, e]] -= couplings[e] * (x[edges[1, e]] - beyond)
    for i in range(k):
        total = 0.0
        for j in range(k):
            total += inverse[i, j] * rest[j]
        change[i] = total
    for r in range(runs.shape[1]):
        part, step = x[runs[1, r] : runs[2, r]], np.float32(change[runs[0, r]])
        for i in range(part.size):
            part[i] += step


def conductor_code(
    faces: Tensor,
    inverse: Tensor,
    nominal: Sequence[float],
    shape: Sequence[int],
    periodic: Sequence[bool],
    code: Tensor,
) -> bool:
    """Describe which couplings hold, for `stencil_regions`; return whether a conductor may exist."""
    c, d, bits, usual, sides = faces.numpy(), inverse.numpy(), code.numpy(), singles(nominal), box(shape)
    if not _differ(c, usual):
        return False
    least = min(k for k, n in zip(usual, sides, strict=True) if n > 1)
    top = np.zeros(len(d), np.float32)
    over_cells(sides, lambda S, L, at, size: _top(c, usual, sides, top, at, at + size))
    wrap_sides(top, sides, flags(periodic))
    over_lines(sides, len(d), lambda lo, hi: _code(c, d, usual, least, sides, top, bits, lo, hi))
    return True


def conductor_parts(
    faces: Tensor, labels: Tensor, numbers: Tensor, shape: Sequence[int], periodic: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cells of conductors in runs, their couplings to all else, and how strong these are."""
    c, of, number, sides, around = faces.numpy(), labels.numpy(), numbers.numpy(), box(shape), flags(periodic)
    starts = np.zeros((sides[0] * sides[1] + 1, 2), np.int64)
    parts = np.empty((3, 0), np.int32), np.empty((4, 0), np.int32), np.empty(0, np.float32)
    over_lines(
        sides, len(of), lambda lo, hi: _parts(c, of, number, sides, around, starts[1:], *parts, lo, hi)
    )
    np.cumsum(starts, axis=0, out=starts)
    r, e = starts[-1]
    parts = np.empty((3, r), np.int32), np.empty((4, e), np.int32), np.empty(e, np.float32)
    if r:
        over_lines(
            sides, len(of), lambda lo, hi: _parts(c, of, number, sides, around, starts, *parts, lo, hi)
        )
    runs, edges, couplings = (torch.from_numpy(part) for part in parts)
    return runs, edges, couplings


def conductor_correct(
    b: Tensor, runs: Tensor, edges: Tensor, couplings: Tensor, inverse: Tensor, x: Tensor
) -> None:
    """Add Z E Z^T (b - A x) to x: Z the indicators of the conductors, E `inverse` (k, k)."""
    of, between, g, E = runs.numpy(), edges.numpy(), couplings.numpy(), inverse.numpy()
    correct(b.numpy(), of, between, g, E, x.numpy(), np.empty((2, len(E))))
