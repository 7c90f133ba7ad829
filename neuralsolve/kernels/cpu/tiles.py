"""One level of a multigrid cycle, down or up, in one pass over its vectors, numba.

Smoothing, residual and restriction, or interpolation and smoothing, are a chain of stages. They run slab by
slab (a plane in 3D, all in 2D), each stage one slab behind the one that feeds it; what passes between them
lies in rings of four slabs, which stay in cache, and memory sees every vector once. Tiles, some lines of some
slabs, run side by side: each computes anew the few lines around it that it needs, and writes only cells of
its own, to a vector that nobody reads. Slabs and lines before the first and after the last one are those of
the other side along a periodic axis, else zero.
"""

from __future__ import annotations

from neuralsolve.kernels.cpu.padded import copy_line, strides
from neuralsolve.kernels.cpu.smoothing import relax_cells, residual_cells, start_cells, starts_with_two
from neuralsolve.kernels.cpu.threads import bare
from neuralsolve.kernels.cpu.transfers import prolong_line, restrict_row

RING = 4  # slabs
MARGIN = 16  # numbers before the first line of a slab: its first cell has a neighbour before it
PLANE, BOX = 4096, 32_768  # cells of a slab of a tile, about: in 3D, where rings hold several, and in 2D


@bare
def tiling(shape, factors, threads):
    """Return how many tiles there are along z and y, and the planes and lines of one."""
    nz, ny, nx = shape
    cells = threads * (BOX if nz == 1 else PLANE)
    lines = -(-ny // (threads * max(1, (ny * (nx + 2) + cells // 2) // cells)))
    lines = max(lines + lines % factors[1], 8)
    tiles_y = -(-ny // lines)
    planes = -(-nz // min(max(1, threads // tiles_y), nz))
    planes += planes % factors[0]
    return -(-nz // planes), tiles_y, planes, lines


@bare
def slab_size(shape, lines, chain):
    """Return the numbers of one slab in a ring: the lines of a tile, and those around them."""
    return 2 * MARGIN + (lines + 2 * chain + 8) * (shape[2] + 2)


@bare
def tile_room(shape, lines, chain):
    """Return the numbers that `run_tile` wants beside the vectors."""
    return (chain + 2) * RING * slab_size(shape, lines, chain) + 2 * (shape[2] + 2)


@bare
def _copy(source, start, n, target, to):
    copy_line(source[start : start + n], target[to : to + n])


@bare
def _zero(target, to, n):
    w = target[to : to + n]
    for i in range(n):
        w[i] = 0


@bare
def _close(room, first, low, high, shape, periodic):
    """Fill what lies around lines of a slab: the cells beside each, and the lines at the walls."""
    ny, nx = shape[1], shape[2]
    L = nx + 2
    if periodic[2]:
        for line in range(high - low):
            s = first + line * L
            room[s], room[s + nx + 1] = room[s + nx], room[s + 1]
    if not periodic[1] and low == 0:
        _zero(room, first - L, L)
    if not periodic[1] and high == ny:
        _zero(room, first + (high - low) * L, L)


@bare
def _source(ways, level, below, numbers, z, lines, at, room, to):
    """Stage 0 on some lines of a slab: x, two steps from zero, zero, or x + P e."""
    b, inverses, faces, weights, x, shape, factors = level
    down, fresh, quick, _ = ways
    steps, scale, _ = numbers
    S, L, _, _ = strides(shape)
    home, count = lines
    if not down:
        for line in range(count):
            place = to + line * L
            prolong_line(below[0], weights, shape, factors, below[1], z, home + line, x, room, place)
    elif quick:
        first, second, momentum = steps[0, 0], steps[1, 0], steps[1, 1]
        start_cells(b, inverses[0], scale, faces, S, L, at, count * L, first, second, momentum, room, to)
    elif fresh:
        _zero(room, to, count * L)
    else:
        _copy(x, at, count * L, room, to)


@bare
def _relax(after, level, numbers, k, at, n, room, place, was, out, to):
    """Relaxation k of the chain: a step, or the half of one that does one of two colors."""
    b, inverses, faces, _, _, shape, _ = level
    steps, scale, _ = numbers
    S, L, _, _ = strides(shape)
    colors = min(2, len(inverses))
    color = k % colors
    d = inverses[0] if colors == 1 else inverses[2 - color if after else 1 + color]
    weight, momentum = steps[k // colors, 0], steps[k // colors, 1]
    relax_cells(b, d, scale, faces, S, L, at, n, weight, momentum, room, place, room, was, out, to)


@bare
def _run_stage(ways, level, below, numbers, stage, chain, z, lines, own, room, ring, out):
    """Do one stage on the lines low..high of plane z; what is to be kept, `own` lines, goes to `out`."""
    b, inverses, faces, _, _, shape, _ = level
    down, _, quick, after = ways
    _, scale, periodic = numbers
    size, base = ring
    nz, ny, _ = shape
    S, L, first, _ = strides(shape)
    low, high = lines
    to = (stage * RING + (z & RING - 1)) * size + MARGIN + (low - base) * L
    if not periodic[0] and (z < 0 or z >= nz):
        _zero(room, to - L, (high - low + 2) * L)
        return
    plane, final = first - 1 + z % nz * S, stage == chain
    here = to - RING * size  # the same lines of the stage before
    under = here + ((z - 1 & RING - 1) - (z & RING - 1)) * size if nz > 1 else here
    over = here + ((z + 1 & RING - 1) - (z & RING - 1)) * size if nz > 1 else here
    line = low
    while line < high:  # in one piece, but across a seam
        home = line % ny
        count = min(high - line, ny - home)
        at, n, q = plane + home * L, count * L, (line - low) * L
        place = under + q, here + q, over + q
        target, goal = (out, at) if final and not down else (room, to + q)
        if stage == 0:
            _source(ways, level, below, numbers, z % nz, (home, count), at, target, goal)
        elif stage <= chain:
            was = place[1] - (RING * size if stage > 1 else 0)  # the first step has no momentum
            _relax(
                after, level, numbers, stage - 1 + (2 if quick else 0), at, n, room, place, was, target, goal
            )
        else:
            residual_cells(b, inverses[0], scale, faces, S, L, at, n, room, place, target, goal)
        line += count
    if down or not final:
        _close(room, to, low, high, shape, periodic)
    if down and final and own[1] > own[0]:
        _copy(room, to + (own[0] - low) * L, (own[1] - own[0]) * L, out, plane + own[0] * L)


@bare
def _restrict_plane(level, below, gain, block, rows, room, ring, lines):
    """Restrict the residual of a plane of blocks, from its ring."""
    _, _, _, weights, _, shape, factors = level
    for row in range(rows[0], rows[1]):
        restrict_row(room, ring, weights, shape, factors, below[1], block, row, gain, below[0], *lines)


@bare
def run_tile(down, level, below, steps, gain, scale, periodic, fresh, after, tile, out, room, size):
    """Do the cells z0..z1, y0..y1 of a level.

    Down: smooth x, from zero where `fresh`, into `out`, and restrict the residual. Up: add the correction to
    x, and smooth into `out`.

    Parameters
    ----------
    level : b, 1/diagonal as (1, n), or (3, n) with those of red and of black cells, faces, weights, x, shape
        and factors
    below : right side (down) or correction (up) of the level below, and its shape
    after : black cells go first
    tile : z0, z1, y0, y1; even numbers along axes that are coarsened, or the end of the box
    room, size : `tile_room` numbers, and `slab_size`
    """
    _, inverses, _, _, _, shape, factors = level
    z0, z1, y0, y1 = tile
    nz, ny, L = shape[0], shape[1], shape[2] + 2
    around = periodic[0] or periodic[1] or periodic[2]
    quick = down and fresh and len(inverses) == 1 and starts_with_two(steps) and not around
    # relaxations; stage 0 is x, after two steps if `quick`, the last one the residual
    chain = (len(steps) - (2 if quick else 0)) * min(2, len(inverses))
    ways, numbers = (down, fresh, quick, after), (steps, scale, periodic)
    # planes and lines around the tile that the residual is wanted on, and the smoothed x
    rest_z, rest_y = (factors[0] - 1, factors[1] - 1) if down else (0, 0)
    last_z, last_y = (rest_z + 1, rest_y + 1) if down else (0, 0)
    base, block, rows = y0 - last_y - chain - 1, z0 // factors[0], (y0 // factors[1], -(-y1 // factors[1]))
    stages, reach = chain + (2 if down else 1), chain + last_z if nz > 1 else 0
    sums, ring = stages * RING * size, ((chain + 1) * RING * size + MARGIN, size, RING - 1, base)
    whole, flow = room[sums : sums + L], room[sums + L : sums + 2 * L]
    for front in range(z0 - reach, z1 + reach + stages - 1):
        for stage in range(stages):
            z, before_last = front - stage, chain - stage
            wide_z = (last_z + before_last if before_last >= 0 else rest_z) if nz > 1 else 0
            wide_y = last_y + before_last if before_last >= 0 else rest_y
            if z < z0 - wide_z or z >= z1 + wide_z:
                continue
            low, high = y0 - wide_y, y1 + wide_y
            if not periodic[1]:
                low, high = max(low, 0), min(high, ny)
            own = (y0, y1) if z0 <= z < z1 else (y0, y0)
            _run_stage(
                ways, level, below, numbers, stage, chain, z, (low, high), own, room, (size, base), out
            )
        z = front - chain - 1  # of the residual
        while down and block * factors[0] < z1 and z >= min((block + 1) * factors[0], nz) - 1 + rest_z:
            _restrict_plane(level, below, gain, block, rows, room, ring, (whole, flow))
            block += 1
