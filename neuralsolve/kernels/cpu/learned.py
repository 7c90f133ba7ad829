"""Learned factors on couplings of grid levels, numba. Definitions: `neuralsolve.kernels.reference.learned`.

Most cells are plain and take no network. The others take some hundred products each, on rows as long as the
width of the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.padded import box, copy_line, over_lines, row_start, strides
from neuralsolve.kernels.cpu.threads import bare, bare_unchecked, over_ranges, serial
from neuralsolve.kernels.reference.learned import CLIPPED, INPUTS, LIMIT, PLAIN

NEAR_ONE = np.float32(1e-5)  # within which a coupling is nominal: rounding is no neighbour
COSTLY = 20  # entries that a cell counts for, when lines are shared out
CHUNK = 256  # cells that take a network together
FULL, FAR = np.uint8(2), np.uint8(1)
_LIMIT, _CLIPPED, _PLAIN = np.float32(LIMIT), np.float32(CLIPPED), np.array(PLAIN, np.float32)


@bare
def _add_line(line, marks, fx, share, total):
    """Add a line of cells to the sums of its blocks."""
    one, zero, n = np.float32(1), np.float32(0), line.size // fx
    if marks and fx == 2:
        for i in range(n):
            a, b = line[2 * i], line[2 * i + 1]
            total[i] += share * ((one if a != 0 else zero) + (one if b != 0 else zero))
    elif marks:
        for i in range(n):
            total[i] += share if line[i] != 0 else zero
    elif fx == 2:
        for i in range(n):
            total[i] += share * (line[2 * i] + line[2 * i + 1])
    else:
        for i in range(n):
            total[i] += share * line[i]
    if line.size % fx:
        last = line[line.size - 1]
        total[n] += share * ((one if last != 0 else zero) if marks else last)


@bare
def _volume(values, marks, shape, factors, coarse_shape, out, lo, hi):
    (nz, ny, nx), (fz, fy, fx) = shape, factors
    share = np.float32(1) / np.float32(fz * fy * fx)
    for row in range(lo, hi):
        Z, Y = row // coarse_shape[1], row % coarse_shape[1]
        s = row_start(coarse_shape, Z, Y)
        total = out[s : s + coarse_shape[2]]
        for i in range(total.size):
            total[i] = 0
        for z in range(Z * fz, min(Z * fz + fz, nz)):
            for y in range(Y * fy, min(Y * fy + fy, ny)):
                first = row_start(shape, z, y)
                _add_line(values[first : first + nx], marks, fx, share, total)


@bare
def _add_up(faces, units, shape, totals, lo, hi):
    """Add up the couplings of places lo..hi, of the layer around the box too: it may be the other side."""
    sz, sy, _, _ = strides(shape)
    total = totals[lo:hi]
    for axis in range(3):
        unit, step = units[axis], sz if axis == 0 else (sy if axis == 1 else 1)
        if unit > 0:
            low, high = faces[axis, lo:hi], faces[axis, lo + step : hi + step]
            for i in range(total.size):
                total[i] += (low[i] + high[i]) * unit


@bare
def _mark(faces, volume, units, shape, flags, lo, hi):
    """Note in which cells nothing is (FULL), and near which (FAR).

    Full are cells of fluid without fixed values, far those whose couplings are nominal, too.
    """
    sz, sy, _, _ = strides(shape)
    for line in range(lo, hi):
        s = row_start(shape, line // shape[1], line % shape[1])
        e = s + shape[2]
        row, fixed, v = flags[s:e], faces[3, s:e], volume[s:e]
        for i in range(row.size):
            row[i] = FULL | FAR if (fixed[i] == 0) & (v[i] == 1) else 0
        for axis in range(3):
            unit, step = units[axis], sz if axis == 0 else (sy if axis == 1 else 1)
            if unit > 0:
                low, high = faces[axis, s:e], faces[axis, s + step : e + step]
                for i in range(row.size):
                    off = (abs(low[i] * unit - 1) >= NEAR_ONE) | (abs(high[i] * unit - 1) >= NEAR_ONE)
                    row[i] = row[i] & FULL if off else row[i]


@bare
def _look(given, cells, m, shift, axis, up, step, seen):
    """Fill in what m cells, `shift` places beyond those given, show on a side, (7, m)."""
    faces, volume, units, totals = given
    unit, usual, there = units[axis], units[3], step if up else -step
    here, beyond = (step, 0) if up else (0, step)  # where the couplings of both sides lie
    count = -2
    for other in range(3):
        count += 2 if units[other] > 0 else 0
    share = np.float32(1) / np.float32(max(count, 1))
    for i in range(m):
        c = cells[i] + shift
        g, back = faces[axis, c + here] * unit, faces[axis, c + beyond] * unit
        seen[0, i], seen[1, i] = g, back
        seen[2, i] = (totals[c] - g - back) * share if count > 0 else np.float32(1)
        seen[3, i], seen[4, i] = faces[3, c] * usual, volume[c]
        seen[5, i], seen[6, i] = faces[3, c + there] * usual, volume[c + there]


@bare
def _first(seen, net, m, hidden):
    """Add the first layer of m sides to hidden, (h, m)."""
    s0, s1, s2, s3 = seen[0, :m], seen[1, :m], seen[2, :m], seen[3, :m]
    s4, s5, s6 = seen[4, :m], seen[5, :m], seen[6, :m]
    for h in range(net.shape[1]):
        w0, w1, w2, w3, w4, w5 = net[0, h], net[1, h], net[2, h], net[3, h], net[4, h], net[5, h]
        w6, bias, sums = net[6, h], net[7, h], hidden[h, :m]
        for i in range(m):
            total = bias + w0 * s0[i] + w1 * s1[i] + w2 * s2[i] + w3 * s3[i]
            total += w4 * s4[i] + w5 * s5[i] + w6 * s6[i]
            sums[i] += total if total > 0 else np.float32(0)


@bare
def _second(hidden, net, plain, m, room, out):
    """Set the factors (o, m) from the sums of the first layer; `plain` is the second one of plain cells."""
    n, sums = net.shape[1], room[:m]
    for o in range(len(out)):
        row = out[o, :m]
        for i in range(m):
            row[i] = 0
    for h in range(n):
        bias, less = net[8 + n, h], plain[h]
        for i in range(m):
            sums[i] = bias
        for k in range(n):
            w, given = net[8 + k, h], hidden[k, :m]
            for i in range(m):
                sums[i] += w * given[i]
        for o in range(len(out)):
            w, row = net[9 + n + o, h], out[o, :m]
            for i in range(m):
                row[i] += w * ((sums[i] if sums[i] > 0 else np.float32(0)) - less)
    for o in range(len(out)):
        row = out[o, :m]
        for i in range(m):
            row[i] = np.float32(math.exp(row[i] / (1 + abs(row[i]) / _LIMIT)))


@bare
def _clear(hidden, m):
    for h in range(len(hidden)):
        row = hidden[h, :m]
        for i in range(m):
            row[i] = 0


@bare
def _do_faces(given, cells, m, axis, step, net, plain, seen, hidden, room, scaled, out):
    """Put factors on the couplings of m cells to their lower neighbours along an axis."""
    _clear(hidden, m)
    _look(given, cells, m, 0, axis, False, step, seen)
    _first(seen, net, m, hidden)
    _look(given, cells, m, -step, axis, True, step, seen)
    _first(seen, net, m, hidden)
    _second(hidden, net, plain, m, room, scaled[:1])
    for i in range(m):
        out[axis, cells[i]] *= scaled[0, i]


@bare
def _do_cells(given, cells, m, steps, net, plain, seen, hidden, room, scaled, out, factor):
    """Put factors on the outlets of m cells, and set those on 1/diagonal."""
    _clear(hidden, m)
    for axis in range(3):
        if given[2][axis] > 0:
            _look(given, cells, m, 0, axis, False, steps[axis], seen)
            _first(seen, net, m, hidden)
            _look(given, cells, m, 0, axis, True, steps[axis], seen)
            _first(seen, net, m, hidden)
    _second(hidden, net, plain, m, room, scaled)
    for i in range(m):
        out[3, cells[i]] *= scaled[0, i]
        factor[cells[i]] = scaled[1, i]


@bare
def _wanted(kind, c, faces, volume, flags, steps):
    """Whether a network is wanted: for the coupling of a cell along an axis, or for the cell (kind 3)."""
    if kind < 3:
        return flags[c] & flags[c - steps[kind]] & FAR == 0 and faces[kind, c] > 0
    beside = flags[c - 1] & flags[c + 1] & flags[c - steps[1]] & flags[c + steps[1]]
    beside &= flags[c - steps[0]] & flags[c + steps[0]] if steps[0] > 0 else FULL
    return (flags[c] & FAR == 0 or beside & FULL == 0) and volume[c] > 0


@bare
def _plain_line(flags, s, n, steps):
    """Whether n cells of a line and those beside them along y and z are far from everything."""
    both = FULL | FAR
    for axis in range(2):
        step = steps[axis]
        row, low, high = flags[s : s + n], flags[s - step : s - step + n], flags[s + step : s + step + n]
        for i in range(n):
            both &= row[i] & low[i] & high[i]
    return both == FULL | FAR


@serial
def _adapt(given, flags, shape, face_net, cell_net, plain, out, factor, lo, hi):
    faces, volume, units, _ = given
    sz, sy, _, _ = strides(shape)
    steps, h, n = (sz, sy, 1), max(face_net.shape[1], cell_net.shape[1]), shape[2]
    seen, hidden = np.empty((7, CHUNK), np.float32), np.empty((h, CHUNK), np.float32)
    room, scaled, cells = (
        np.empty(CHUNK, np.float32),
        np.empty((2, CHUNK), np.float32),
        np.empty(CHUNK, np.int64),
    )
    skip = np.ones(
        hi - lo, np.int64
    )  # from the third cell of a line to the next: to the end where it is plain
    for line in range(lo, hi):
        s = row_start(shape, line // shape[1], line % shape[1])
        for row in range(4):
            copy_line(faces[row, s : s + n], out[row, s : s + n])
        factor[s : s + n] = 1
        if n > 6 and _plain_line(flags, s + 2, n - 4, steps):
            skip[line - lo] = n - 5
    for kind in range(4):  # the three axes, then the cells
        if kind < 3 and units[kind] == 0:
            continue
        m = 0
        for line in range(lo, hi):
            s, i = row_start(shape, line // shape[1], line % shape[1]), 0
            while i < n:
                c = s + i
                if _wanted(kind, c, faces, volume, flags, steps):
                    cells[m] = c
                    m += 1
                if m == CHUNK or (m > 0 and line == hi - 1 and i == n - 1):
                    if kind < 3:
                        step = steps[kind]
                        _do_faces(
                            given, cells, m, kind, step, face_net, plain[0], seen, hidden, room, scaled, out
                        )
                    else:
                        _do_cells(
                            given,
                            cells,
                            m,
                            steps,
                            cell_net,
                            plain[1],
                            seen,
                            hidden,
                            room,
                            scaled,
                            out,
                            factor,
                        )
                    m = 0
                i += skip[line - lo] if i == 2 else 1


@bare_unchecked
def _inverse(faces, factor, reach, shape, inverse, lo, hi):
    """Lines lo..hi: factor/diagonal, clipped; count those; -1 where numbers are wrong."""
    sz, sy, _, _ = strides(shape)
    zero, largest, clipped, wrong, nx = np.float32(0), np.float32(3e38), 0, 0, shape[2]
    for line in range(lo, hi):
        s = row_start(shape, line // shape[1], line % shape[1])
        e = s + nx
        zl, zh, yl, yh = faces[0, s:e], faces[0, s + sz : e + sz], faces[1, s:e], faces[1, s + sy : e + sy]
        xl, xh, fixed, given, row = (
            faces[2, s:e],
            faces[2, s + 1 : e + 1],
            faces[3, s:e],
            factor[s:e],
            inverse[s:e],
        )
        deep = np.float32(1 if sz > 0 else 0)
        for i in range(nx):
            ways = deep * (zl[i] + zh[i]) + yl[i] + yh[i] + xl[i] + xh[i]
            d = fixed[i] + ways
            most = reach * d / (d + ways)
            used = (given[i] if given[i] < most else most) / d
            row[i] = used if d > 0 else zero
        for i in range(nx):
            ways = deep * (zl[i] + zh[i]) + yl[i] + yh[i] + xl[i] + xh[i]
            d = fixed[i] + ways
            most = _CLIPPED * reach * d / (d + ways)
            clipped += np.int64((d > 0) & (given[i] > most))
            good = (d >= 0) & (d < largest) & (given[i] > 0) & (given[i] < largest)
            wrong += np.int64(not good)
    return -1 if wrong > 0 else clipped


def level_volume(
    values: Tensor,
    marks: bool,
    shape: Sequence[int],
    factors: Sequence[int],
    coarse_shape: Sequence[int],
    out: Tensor,
) -> None:
    """Set out on the coarse level to the means of `values` over blocks."""
    v, o, sides, f, coarse = values.numpy(), out.numpy(), box(shape), box(factors), box(coarse_shape)
    over_lines(coarse, v.size, lambda lo, hi: _volume(v, bool(marks), sides, f, coarse, o, lo, hi))


def level_adapt(
    faces: Tensor,
    volume: Tensor,
    nominal: Sequence[float],
    shape: Sequence[int],
    face_net: Tensor,
    cell_net: Tensor,
    out: Tensor,
    factor: Tensor,
) -> None:
    """Set out (4, n) to the couplings times their factors, and `factor` (n,) to that on 1/diagonal."""
    g, v, sides, o, f = faces.numpy(), volume.numpy(), box(shape), out.numpy(), factor.numpy()
    nets = face_net.numpy(), cell_net.numpy()
    long = [axis for axis in range(3) if sides[axis] > 1]
    units = np.zeros(4, np.float32)
    units[long] = [1 / nominal[axis] for axis in long]
    units[3] = len(long) / sum(nominal[axis] for axis in long) if long else 0.0
    plain = np.stack([_of_plain(nets[0], 2), _of_plain(nets[1], 2 * len(long))])
    flags, totals = np.zeros(v.size, np.uint8), np.zeros(v.size, np.float32)
    over_ranges(v.size - sum(strides(sides)[:2]) - 1, lambda lo, hi: _add_up(g, units, sides, totals, lo, hi))
    over_lines(sides, v.size, lambda lo, hi: _mark(g, v, units, sides, flags, lo, hi))
    given = g, v, units, totals
    over_lines(sides, COSTLY * v.size, lambda lo, hi: _adapt(given, flags, sides, *nets, plain, o, f, lo, hi))


def _of_plain(net: np.ndarray, count: int) -> np.ndarray:
    """Return the second layer of a plain cell, from `count` sides."""
    h = net.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):  # of absurd weights: what comes out is looked at later
        first = count * np.maximum(_PLAIN @ net[:INPUTS] + net[INPUTS], 0)
        return np.maximum(first @ net[INPUTS + 1 : INPUTS + 1 + h] + net[INPUTS + 1 + h], 0)


def level_inverse(faces: Tensor, factor: Tensor, reach: float, shape: Sequence[int], inverse: Tensor) -> int:
    """Set inverse to factor/diagonal, clipped; return how many factors were too large."""
    g, f, d, sides, most = faces.numpy(), factor.numpy(), inverse.numpy(), box(shape), np.float32(reach)
    counts = over_lines(sides, d.size, lambda lo, hi: _inverse(g, f, most, sides, d, lo, hi))
    return -1 if min(counts) < 0 else sum(counts)
