"""Cells that leave their block for the next, numba. Definitions: `neuralsolve.kernels.reference.attach`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.padded import box, flags, over_lines, row_start, singles, strides, wrap_sides
from neuralsolve.kernels.cpu.threads import serial

TIGHT = np.float32(0.02)  # see the definition


@serial
def _strongest(faces, c, sz, sy):
    """Return the strongest coupling of a cell."""
    top = max(faces[0, c], faces[1, c], faces[2, c])
    return max(top, faces[0, c + sz], faces[1, c + sy], faces[2, c + 1])


@serial
def _hold(faces, g, c, other, sz, sy):
    """Whether two cells hold together that have the coupling g."""
    return g > 0 and g >= TIGHT * max(_strongest(faces, c, sz, sy), _strongest(faces, other, sz, sy))


@serial
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


@serial
def _mark_main(faces, factors, cell, part, main, sz, sy):
    """Mark the cells that stay in a block; return whether others exist."""
    strength, score = np.zeros(8, np.float32), np.zeros(8, np.int64)
    for k in range(8):
        if part[k] < 0:
            continue
        strength[part[k]] = max(strength[part[k]], _strongest(faces, cell[k], sz, sy))
        score[part[k]] += 32  # more than the ways of eight cells
        for axis in range(3):
            step = sz if axis == 0 else (sy if axis == 1 else 1)
            outward = cell[k] + step if k & (4 >> axis) else cell[k]
            score[part[k]] -= factors[axis] == 2 and faces[axis, outward] > 0
    best, bound, split = -1, TIGHT * strength.max(), False
    for p in range(8):
        if score[p] > 0 and strength[p] >= bound and (best < 0 or score[p] > score[best]):
            best = p
    for k in range(8):
        if part[k] >= 0:
            leaves = part[k] != best and strength[part[k]] >= bound
            main[cell[k]] = 0 if leaves else 1
            split |= leaves
    return split


@serial
def _main_part(faces, inverse, shape, factors, main, row, coarse_shape, bound):
    """Mark the cells of a coarse row that stay in their blocks; return whether others exist."""
    nz, ny, nx = shape
    fz, fy, fx = factors
    sz, sy, _, _ = strides(shape)
    Z, Y = row // coarse_shape[1], row % coarse_shape[1]
    part, cell = np.empty(8, np.int64), np.empty(8, np.int64)
    split = False
    cz, cy, cx = faces[0], faces[1], faces[2]
    whole_row = Z * fz + fz <= nz and Y * fy + fy <= ny
    for X in range(coarse_shape[2]):
        if whole_row and X * fx + fx <= nx:
            first = row_start(shape, Z * fz, Y * fy) + X * fx
            # most blocks end here: outside the fluid, or far from any wall
            if not _mark_whole(main, inverse, first, fz, fy, fx, sz, sy):
                continue
            if _all_hold(cz, cy, cx, first, fz, fy, fx, sz, sy, bound):
                continue
        for k in range(8):
            z, y, x = k >> 2, k >> 1 & 1, k & 1
            cell[k] = -1
            if z < fz and y < fy and x < fx and Z * fz + z < nz and Y * fy + y < ny and X * fx + x < nx:
                c = row_start(shape, Z * fz + z, Y * fy + y) + X * fx + x
                cell[k] = c if inverse[c] != 0 else -1
        _find_parts(faces, cell, part, sz, sy)
        split |= _mark_main(faces, factors, cell, part, main, sz, sy)
    return split


@serial
def _all_hold(cz, cy, cx, first, fz, fy, fx, sz, sy, bound):
    """Whether all couplings in a block reach a bound."""
    for z in range(fz):
        for y in range(fy):
            c = first + z * sz + y * sy
            if fx == 2 and not cx[c + 1] >= bound:
                return False
            for x in range(fx):
                if (y and not cy[c + x] >= bound) or (z and not cz[c + x] >= bound):
                    return False
    return True


@serial
def _mark_whole(main, inverse, first, fz, fy, fx, sz, sy):
    """Let all cells of a block stay; return whether any takes part."""
    active = False
    for z in range(fz):
        for y in range(fy):
            for x in range(fx):
                c = first + z * sz + y * sy + x
                main[c] = 1
                active |= inverse[c] != 0
    return active


@serial
def _main_parts(faces, inverse, shape, factors, main, coarse_shape, bound, lo, hi):
    split = False
    for row in range(lo, hi):
        split |= _main_part(faces, inverse, shape, factors, main, row, coarse_shape, bound)
    return split


@serial
def _attach(faces, inverse, shape, factors, main, out, lo, hi):
    """Lines lo..hi: 1 + axis for a cell that belongs to the next block along it, else 0."""
    _, ny, nx = shape
    sides = shape
    sz, sy, _, _ = strides(shape)
    position = np.zeros(3, np.int64)
    count = 0
    for line in range(lo, hi):
        position[0], position[1] = line // ny, line % ny
        s = row_start(shape, position[0], position[1])
        for i in range(nx):
            c, position[2] = s + i, i
            out[c] = 0
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
            count += out[c] > 0
    return count


@serial
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


@serial
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
    out: Tensor,
) -> int:
    """Fill out with 1 + axis for cells that belong to the next block along it, else 0; count them."""
    c, d, a = faces.numpy(), inverse.numpy(), out.numpy()
    sides, f, coarse = box(shape), box(factors), box(coarse_shape)
    main = np.zeros(len(d), np.uint8)
    bound = np.float32(TIGHT * c[:3].max()) or np.float32(1)
    found: list[bool] = []
    over_lines(
        coarse, len(d), lambda lo, hi: found.append(_main_parts(c, d, sides, f, main, coarse, bound, lo, hi))
    )
    if not any(found):
        return 0
    wrap_sides(main, sides, flags(periodic))
    counts: list[int] = []
    over_lines(sides, len(d), lambda lo, hi: counts.append(_attach(c, d, sides, f, main, a, lo, hi)))
    wrap_sides(a, sides, flags(periodic))
    return sum(counts)


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
