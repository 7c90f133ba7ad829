"""Cells that leave their block for the next, numba. Definitions: `neuralsolve.kernels.reference.attach`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.padded import box, flags, over_spans, row_start, singles, strides, wrap_sides
from neuralsolve.kernels.cpu.threads import bare, serial

TIGHT = np.float32(0.02)  # see the definition
SPECK = np.float32(1e-30)  # far below any coupling: a cell that takes part is not taken for one outside


@bare
def _strongest(faces, c, sz, sy):
    """Return the strongest coupling of a cell."""
    top = max(faces[0, c], faces[1, c], faces[2, c])
    return max(top, faces[0, c + sz], faces[1, c + sy], faces[2, c + 1])


@bare
def _hold(faces, g, c, other, sz, sy):
    """Whether two cells hold together that have the coupling g."""
    return g > 0 and g >= TIGHT * max(_strongest(faces, c, sz, sy), _strongest(faces, other, sz, sy))


@bare
def _find_parts(faces, cell, part, sz, sy):
    """Find the parts of a block whose cells hold together, numbered by their first cells."""
    for k in range(8):
        part[k] = k if cell[k] >= 0 else -1
    for _ in range(2):  # twice over the twelve faces joins every part of eight cells
        for k in range(8):
            for axis in range(3):
                other = k ^ (4 >> axis)
                if other > k or part[k] < 0 or part[other] < 0 or part[k] == part[other]:
                    continue
                step = sz if axis == 0 else (sy if axis == 1 else 1)
                if _hold(faces, faces[axis, cell[k]], cell[k], cell[k] - step, sz, sy):
                    low, high = min(part[k], part[other]), max(part[k], part[other])
                    for q in range(8):
                        if part[q] == high:
                            part[q] = low


@bare
def _mark_main(faces, factors, cell, part, main, sz, sy, strength, score):
    """Mark the cells that stay in a block; return whether others exist."""
    strength[:], score[:] = 0, 0
    for k in range(8):
        if part[k] < 0:
            continue
        strength[part[k]] = max(strength[part[k]], _strongest(faces, cell[k], sz, sy))
        score[part[k]] += 32  # more than the ways of eight cells
        for axis in range(3):
            step = sz if axis == 0 else (sy if axis == 1 else 1)
            outward = cell[k] + step if k & (4 >> axis) else cell[k]
            score[part[k]] -= factors[axis] == 2 and faces[axis, outward] > 0
    best, top, split = -1, np.float32(0), False
    for k in range(8):
        top = max(top, strength[k])
    bound = TIGHT * top
    for p in range(8):
        if score[p] > 0 and strength[p] >= bound and (best < 0 or score[p] > score[best]):
            best = p
    for k in range(8):
        if part[k] >= 0:
            leaves = part[k] != best and strength[part[k]] >= bound
            main[cell[k]] = 0 if leaves else 1
            split |= leaves
    return split


@bare
def _any(flags, lo, hi):
    flags, count = flags[lo:hi], 0
    for i in range(flags.size):
        count += np.int32(flags[i] > 0)
    return count


@bare
def _strengths(faces, inverse, s, n, sz, sy, tops, line):
    """Strongest couplings of the cells of a line from s on, at least `SPECK` where a cell takes part."""
    end, top = s + n, tops[line, :n]
    zl, yl, xl, d = faces[0, s:end], faces[1, s:end], faces[2, s:end], inverse[s:end]
    zh, yh, xh = faces[0, s + sz : end + sz], faces[1, s + sy : end + sy], faces[2, s + 1 : end + 1]
    for i in range(n):
        a, b = zl[i], zh[i]
        top[i] = a if a > b else b
    for i in range(n):
        a, b, c = yl[i], yh[i], top[i]
        a = a if a > b else b
        top[i] = a if a > c else c
    for i in range(n):
        a, b, c = xl[i], xh[i], top[i]
        a, c = a if a > b else b, c if d[i] == 0 or c > SPECK else SPECK
        top[i] = a if a > c else c


@bare
def _mark_loose(faces, axis, s, n, tops, here, there, shift, loose):
    """Mark cells that do not hold to the one below along an axis, whose strengths are `shift` before."""
    g, own, other, marks = (
        faces[axis, s + shift : s + n],
        tops[here, shift:n],
        tops[there, : n - shift],
        loose[shift:n],
    )
    for i in range(g.size):
        a, b = own[i], other[i]
        top = a if a > b else b
        marks[i] |= np.int32(g[i] < TIGHT * top)


@bare
def _find_loose(faces, inverse, shape, factors, Z, Y, first, n, tops, loose):
    """Mark in `loose` (n,) where a coupling inside a block, of a piece of a row, does not hold."""
    (nz, ny, _), (fz, fy, fx) = shape, factors
    sz, sy, _, _ = strides(shape)
    loose[:n] = 0
    for z in range(min(fz, nz - Z * fz)):
        for y in range(min(fy, ny - Y * fy)):
            s, line = row_start(shape, Z * fz + z, Y * fy + y) + first, 2 * z + y
            _strengths(faces, inverse, s, n, sz, sy, tops, line)
            if z:
                _mark_loose(faces, 0, s, n, tops, line, y, 0, loose)
            if y:
                _mark_loose(faces, 1, s, n, tops, line, 2 * z, 0, loose)
            if fx == 2:  # those between two blocks too: they cost a look in vain at most
                _mark_loose(faces, 2, s, n, tops, line, line, 1, loose)
    return _any(loose, 0, n)


@serial
def _main_parts(faces, inverse, shape, factors, spans, main, coarse_shape, lo, hi):
    """Mark the cells that stay in their blocks, in rows lo..hi of those; return whether others exist."""
    (nz, ny, nx), (fz, fy, fx) = shape, factors
    sz, sy, _, _ = strides(shape)
    part, cell = np.empty(8, np.int64), np.empty(8, np.int64)
    strength, score = np.empty(8, np.float32), np.empty(8, np.int64)
    top, loose, split = np.empty((4, nx), np.float32), np.empty(nx, np.int32), False
    for row in range(lo, hi):
        Z, Y = row // coarse_shape[1], row % coarse_shape[1]
        first, end = spans[row, 0] * fx, min(spans[row, 1] * fx, nx)
        if first >= end:
            continue
        count = _find_loose(faces, inverse, shape, factors, Z, Y, first, end - first, top, loose)
        for z in range(Z * fz, min(Z * fz + fz, nz)):
            for y in range(Y * fy, min(Y * fy + fy, ny)):
                s = row_start(shape, z, y)
                main[s + first : s + end] = 1
        if count == 0:  # as in most rows: outside the fluid, or far from any wall
            continue
        for X in range(spans[row, 0], spans[row, 1]):
            i = X * fx - first
            if not (loose[i] or (fx == 2 and i + 1 < end - first and loose[i + 1])):
                continue
            for k in range(8):
                z, y, x = k >> 2, k >> 1 & 1, k & 1
                cell[k] = -1
                if z < fz and y < fy and x < fx and Z * fz + z < nz and Y * fy + y < ny and X * fx + x < nx:
                    c = row_start(shape, Z * fz + z, Y * fy + y) + X * fx + x
                    cell[k] = c if inverse[c] != 0 else -1
            _find_parts(faces, cell, part, sz, sy)
            split |= _mark_main(faces, factors, cell, part, main, sz, sy, strength, score)
    return split


@serial
def _attach(faces, inverse, shape, factors, spans, main, out, lo, hi):
    """Rows lo..hi of blocks: 1 + axis for a cell that belongs to the next block along it, else 0.

    The spans become those in which that has changed.
    """
    sides, (nz, ny, nx), (fz, fy, fx) = shape, shape, factors
    position, old = np.zeros(3, np.int64), np.empty(nx, np.uint8)
    rows = -(-ny // fy)
    for row in range(lo, hi):
        first, end = spans[row, 0] * fx, min(spans[row, 1] * fx, nx)
        if first >= end:
            continue
        low, high = end, first
        for z in range(row // rows * fz, min(row // rows * fz + fz, nz)):
            for y in range(row % rows * fy, min(row % rows * fy + fy, ny)):
                s, position[0], position[1] = row_start(shape, z, y), z, y
                old[first:end] = out[s + first : s + end]
                out[s + first : s + end] = 0
                if _all(main, s + first, s + end) and _any(old, first, end) == 0:
                    continue
                _attach_line(faces, inverse, sides, factors, main, position, s, first, end, out)
                for i in range(first, end):
                    if out[s + i] != old[i]:
                        low, high = min(low, i), max(high, i + 1)
        spans[row, 0], spans[row, 1] = low // fx, -(-high // fx)


@bare
def _attach_line(faces, inverse, sides, factors, main, position, s, first, end, out):
    sz, sy, _, _ = strides(sides)
    for i in range(first, end):
        c, position[2] = s + i, i
        if inverse[c] == 0 or main[c]:
            continue
        strongest = np.float32(0)
        for axis in range(3):
            if factors[axis] == 1:
                continue
            step = sz if axis == 0 else (sy if axis == 1 else 1)
            above = position[axis] % 2 == 1
            g = faces[axis, c + step] if above else faces[axis, c]
            # the neighbour itself, not its copy around the box, which has no neighbours
            hop = 1 if above else -1
            if position[axis] + hop == sides[axis] or position[axis] + hop < 0:
                hop -= sides[axis] if above else -sides[axis]
            other = c + hop * step
            if g > strongest and main[other] and _hold(faces, g, c, other, sz, sy):
                strongest = g
                out[c] = 1 + axis


@bare
def _all(flags, lo, hi):
    flags, count = flags[lo:hi], 0
    for i in range(flags.size):
        count += np.int32(flags[i] == 0)
    return count == 0


@bare
def _target(attached, c, position, factors, coarse_shape, out):
    """Write the coarse cell of a fine one."""
    for axis in range(3):
        out[axis] = position[axis] // factors[axis]
    if attached[c]:
        axis = attached[c] - 1
        out[axis] += 1 if position[axis] % 2 else -1
        out[axis] %= coarse_shape[axis]


@serial
def _add_attached(
    faces, outlets, attached, shape, factors, shares, coarse_shape, periodic, coarse_faces, coarse_outlets
):
    """Add the couplings and the outlets of attached cells to the coarse level."""
    nz, ny, nx = shape
    sides = shape
    sz, sy, _, _ = strides(shape)
    here, there = np.zeros(3, np.int64), np.zeros(3, np.int64)
    position, beside, way = np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(3, np.int64)
    for line in range(nz * ny):
        s = row_start(shape, line // ny, line % ny)
        if _any(attached, s, s + nx) == 0:
            continue
        for i in range(nx):
            c = s + i
            if attached[c] == 0:
                continue
            position[0], position[1], position[2] = line // ny, line % ny, i
            _target(attached, c, position, factors, coarse_shape, here)
            place = row_start(coarse_shape, here[0], here[1]) + here[2]
            for axis in range(3):
                coarse_outlets[axis, place] += shares[axis] * outlets[axis, c]
                step = sz if axis == 0 else (sy if axis == 1 else 1)
                half = np.float32(0.5 if factors[axis] == 2 else 1)
                for up in range(2):
                    g = faces[axis, c + step] if up else faces[axis, c]
                    beside[:] = position
                    beside[axis] = (position[axis] + 2 * up - 1) % sides[axis]
                    other = row_start(shape, beside[0], beside[1]) + beside[2]
                    if g <= 0 or (up and attached[other]):  # the other one adds it
                        continue
                    _target(attached, other, beside, factors, coarse_shape, there)
                    way[:] = here
                    _add_coupling(way, there, half * g, coarse_shape, periodic, coarse_faces)


@bare
def _add_coupling(here, there, g, shape, periodic, faces):
    """Add a coupling between two coarse cells; m faces apart, m times as strong on all faces of a way there.

    The circuit in series then has the coupling that was asked for; `here` is moved to `there`.
    """
    steps = 0
    for axis in range(3):
        ahead = there[axis] - here[axis]
        n = shape[axis]
        steps += min(ahead % n, n - ahead % n) if periodic[axis] else abs(ahead)
    for axis in range(3):
        n = shape[axis]
        while here[axis] != there[axis]:
            ahead = there[axis] - here[axis]
            up = 2 * (ahead % n) <= n if periodic[axis] else ahead > 0
            if not up:  # the face is the lower one of the cell that is left
                faces[axis, row_start(shape, here[0], here[1]) + here[2]] += steps * g
            here[axis] = (here[axis] + (1 if up else -1)) % n
            if up:
                faces[axis, row_start(shape, here[0], here[1]) + here[2]] += steps * g


def level_attach(
    faces: Tensor,
    inverse: Tensor,
    shape: Sequence[int],
    factors: Sequence[int],
    coarse_shape: Sequence[int],
    periodic: Sequence[bool],
    spans: Tensor,
    around: Tensor,
    main: Tensor,
    out: Tensor,
) -> bool:
    """Fill out with 1 + axis for cells that belong to the next block along it, else 0; return if any does."""
    c, d, m, a = faces.numpy(), inverse.numpy(), main.numpy(), out.numpy()
    sides, f, coarse, wraps = box(shape), box(factors), box(coarse_shape), flags(periodic)
    parts, wide, before = spans.numpy(), around.numpy(), _any(a, 0, len(a))
    found = over_spans(parts, f, lambda lo, hi: _main_parts(c, d, sides, f, parts, m, coarse, lo, hi))
    if not any(found) and not before:
        wide[:] = 0
        return False
    wrap_sides(m, sides, wraps)
    over_spans(wide, f, lambda lo, hi: _attach(c, d, sides, f, wide, m, a, lo, hi))
    wrap_sides(a, sides, wraps)
    return bool(_any(a, 0, len(a)))


def coarse_attached(
    faces: Tensor,
    outlets: Tensor,
    attached: Tensor,
    shape: Sequence[int],
    factors: Sequence[int],
    shares: Sequence[float],
    coarse_shape: Sequence[int],
    periodic: Sequence[bool],
    coarse_faces: Tensor,
    coarse_outlets: Tensor,
) -> None:
    """Add couplings and outlets of the attached cells to the level below."""
    c, o, a, C, D = (t.numpy() for t in (faces, outlets, attached, coarse_faces, coarse_outlets))
    sides, f, part, coarse = box(shape), box(factors), singles(shares), box(coarse_shape)
    _add_attached(c, o, a, sides, f, part, coarse, flags(periodic), C, D)
