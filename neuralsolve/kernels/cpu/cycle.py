"""Multigrid cycles over the levels of a grid in one call, numba.

Small levels, which lie in cache, are done by one thread, vector by vector: a pass over them takes
microseconds, less than a call from Python. On large ones threads share the tiles of
`neuralsolve.kernels.cpu.tiles`. Definition and arguments: `neuralsolve.kernels.reference.cycle`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.conductors import correct
from neuralsolve.kernels.cpu.padded import flags, singles, strides, wrap_sides
from neuralsolve.kernels.cpu.smoothing import relax_over, residual_cells, start_cells, starts_with_two
from neuralsolve.kernels.cpu.team import DETAILS, NONE, OVER, done, end, new_job, offer, rest, take, wait_for
from neuralsolve.kernels.cpu.threads import alongside, bare, thread_count
from neuralsolve.kernels.cpu.tiles import run_tile, slab_size, tile_room, tiling
from neuralsolve.kernels.cpu.transfers import prolong_range, restrict_range

# columns of the table of levels
NZ, FZ, SIZE, B, XX, Y, INVERSE, FACES, WEIGHTS = 0, 3, 6, 7, 8, 9, 10, 13, 14
PLACES, NUMBERS, RUNS, EDGES, CONDUCTORS = 15, 16, 17, 18, 19
V, W, F, FULL = 0, 1, 2, 3
STAGE, KIND, NEW, TOP = 0, 1, 2, 3  # rows of the state of a cycle, one number per level
DOWN, UP = 4, 5  # the part of a cycle that is on the first level, alone: for benchmarks
TILED = 15_000  # padded cells: a level of more is done in tiles


@bare
def _box(level):
    return level[NZ], level[NZ + 1], level[NZ + 2]


@bare
def _factors(level):
    return level[FZ], level[FZ + 1], level[FZ + 2]


@numba.njit(inline="always")  # `bare` functions return no view, but in a tuple
def _vector(vectors, level, column):
    return vectors[level[column] : level[column] + level[SIZE]]


@bare
def _level(vectors, matrices, bytes_, level, colored):
    """Return a level as `run_tile` takes it."""
    n = level[SIZE]
    inverses = matrices[level[INVERSE] : level[INVERSE] + (3 if colored else 1) * n].reshape(-1, n)
    faces_rows = 4 * n if level[FACES] >= 0 else 0
    faces = matrices[max(level[FACES], 0) : max(level[FACES], 0) + faces_rows].reshape(4, faces_rows // 4)
    weights = bytes_[level[WEIGHTS] : level[WEIGHTS] + 4 * n].reshape(4, n)
    b, x = _vector(vectors, level, B), _vector(vectors, level, XX)
    return b, inverses, faces, weights, x, _box(level), _factors(level)


@bare
def _swap(level):
    """Let x and y change their places."""
    level[XX], level[Y] = level[Y], level[XX]


@bare
def _clear(vectors, level):
    x = _vector(vectors, level, XX)
    for i in range(x.size):
        x[i] = 0


@bare
def _smooth(vectors, parts, level, scale, steps, periodic, after, fresh):
    """Smooth x of a small level; from x = 0 where `fresh`."""
    b, inverses, faces, _, _, shape, _ = parts
    S, L, at, stop = strides(shape)
    size, around, colors = stop - at, periodic[0] or periodic[1] or periodic[2], min(2, len(inverses))
    skip = 0
    if fresh and colors == 1 and not around and starts_with_two(steps):
        first, second, momentum = steps[0, 0], steps[1, 0], steps[1, 1]
        x = _vector(vectors, level, XX)
        start_cells(b, inverses[0], scale, faces, S, L, at, size, first, second, momentum, x, at)
        skip = 2
    elif fresh:
        _clear(vectors, level)
    for k in range(skip, len(steps)):
        for color in range(colors):
            x, y = _vector(vectors, level, XX), _vector(vectors, level, Y)
            if around:
                wrap_sides(x, shape, periodic)
            d = inverses[0] if colors == 1 else inverses[2 - color if after else 1 + color]
            relax_over(b, d, scale, faces, S, L, at, size, steps[k, 0], steps[k, 1], x, y)
            _swap(level)


@bare
def _small_down(vectors, parts, level, below, scale, steps, gain, periodic, fresh, room):
    """Smooth a small level and restrict the residual."""
    _smooth(vectors, parts, level, scale, steps, periodic, False, fresh)
    b, inverses, faces, weights, _, shape, factors = parts
    S, L, at, stop = strides(shape)
    x, r, coarse = _vector(vectors, level, XX), _vector(vectors, level, Y), _box(below)
    around = periodic[0] or periodic[1] or periodic[2]
    if around:
        wrap_sides(x, shape, periodic)
    residual_cells(b, inverses[0], scale, faces, S, L, at, stop - at, x, (at - S, at, at + S), r, at)
    if around:
        wrap_sides(r, shape, periodic)
    whole, flow, rows = room[:L], room[L : 2 * L], coarse[0] * coarse[1]
    out = _vector(vectors, below, B)
    restrict_range(r, weights, shape, factors, coarse, gain, out, whole, flow, 0, rows)


@bare
def _small_up(vectors, parts, level, below, scale, steps, periodic):
    """Add the correction to a small level and smooth it."""
    _, _, _, weights, x, shape, factors = parts
    e, y = _vector(vectors, below, XX), _vector(vectors, level, Y)
    prolong_range(e, weights, shape, factors, _box(below), x, y, 0, shape[0] * shape[1])
    _swap(level)
    _smooth(vectors, parts, level, scale, steps, periodic, True, False)


@bare
def _correct(vectors, conductors, level):
    """Correct the means of the conductors of a level."""
    places, numbers, sums = conductors
    r, e, k = level[RUNS], level[EDGES], level[CONDUCTORS]
    at, at_number = level[PLACES], level[NUMBERS]
    runs = places[at : at + 3 * r].reshape(3, r)
    edges = places[at + 3 * r : at + 3 * (r + e)].reshape(3, e)
    couplings = numbers[at_number : at_number + e]
    inverse = numbers[at_number + e : at_number + e + k * k].reshape(k, k)
    correct(_vector(vectors, level, B), runs, edges, couplings, inverse, _vector(vectors, level, XX), sums)


@bare
def _solve_coarsest(vectors, level, inverse):
    nz, ny, nx = _box(level)
    sz, sy, first, _ = strides((nz, ny, nx))
    b, x = _vector(vectors, level, B), _vector(vectors, level, XX)
    i = 0
    for z in range(nz):
        for y in range(ny):
            for c in range(first + z * sz + y * sy, first + z * sz + y * sy + nx):
                total, j = 0.0, 0
                for zz in range(nz):
                    for yy in range(ny):
                        s = first + zz * sz + yy * sy
                        line, row = b[s : s + nx], inverse[i, j : j + nx]
                        for k in range(nx):
                            total += row[k] * line[k]
                        j += nx
                x[c] = total
                i += 1


@bare
def _tile(work, job, task, room):
    """Do one tile of the pass that the job tells."""
    vectors, matrices, bytes_, table, scale, _, pre, post, gains, periodic, colored, threads, _, _, _ = work
    depth, down, fresh, count = job[DETAILS], job[DETAILS + 1] == 1, job[DETAILS + 2] == 1, job[DETAILS + 3]
    own, next_, gain = table[depth], table[depth + 1], gains[depth]
    level = _level(vectors, matrices, bytes_, own, colored)
    steps = pre[depth, :count] if down else post[depth, :count]
    shape = level[5]
    _, tiles_y, planes, lines = tiling(shape, level[6], threads)
    z, y = task // tiles_y * planes, task % tiles_y * lines
    tile = z, min(z + planes, shape[0]), y, min(y + lines, shape[1])
    below = _vector(vectors, next_, B if down else XX), _box(next_)
    size = slab_size(shape, lines, count * (2 if colored else 1))
    out = _vector(vectors, own, Y)
    run_tile(down, level, below, steps, gain, scale, periodic, fresh, not down, tile, out, room, size)


@bare
def _order(job, depth, down, fresh, count):
    """Write down what `_step` is to do: its way, and the first `count` steps of smoothing.

    Arguments that are constants would make the compiler write every function that they are given to once
    more.
    """
    job[DETAILS], job[DETAILS + 1], job[DETAILS + 2], job[DETAILS + 3] = depth, down, fresh, count


@bare
def _step(work, job, room):
    """Go down from a level, or up to it, as the job says."""
    vectors, matrices, bytes_, table, scale, _, pre, post, gains, periodic, colored, threads, tiled, _, _ = (
        work
    )
    depth, down, fresh, count = job[DETAILS], job[DETAILS + 1] == 1, job[DETAILS + 2] == 1, job[DETAILS + 3]
    own, below, gain = table[depth], table[depth + 1], gains[depth]
    steps = pre[depth, :count] if down else post[depth, :count]
    if not down and (periodic[0] or periodic[1] or periodic[2]):
        wrap_sides(_vector(vectors, below, XX), _box(below), periodic)
    if own[SIZE] <= tiled:
        parts = _level(vectors, matrices, bytes_, own, colored)
        if down:
            _small_down(vectors, parts, own, below, scale, steps, gain, periodic, fresh, room)
        else:
            _small_up(vectors, parts, own, below, scale, steps, periodic)
        return
    tiles_z, tiles_y, _, _ = tiling(_box(own), _factors(own), threads)
    tiles = tiles_z * tiles_y
    offer(job, tiles)
    task = take(job)
    while task >= 0:
        _tile(work, job, task, room)
        done(job)
        task = take(job)
    wait_for(job, tiles)
    _swap(own)


@bare
def _help(work, job, room):
    """Take part in the passes of another thread until the last one is done."""
    looks, task = 0, NONE
    while task != OVER:
        task = take(job)
        if task >= 0:
            _tile(work, job, task, room)
            done(job)
            looks = 0
        else:
            looks = rest(looks)


@bare
def _begin(state, top, kind, fresh):
    """Write down where `_cycle` begins, and with what."""
    state[TOP, 0], state[STAGE, top], state[KIND, top], state[NEW, top] = top, 0, kind, fresh


@bare
def _cycle(work, job, room, state, twice):
    """Do a V-, W- or F-cycle from a level down."""
    vectors, _, _, table, _, inverse, _, _, _, _, _, _, _, conductors, counts = work
    last, stage, kinds, news = len(table) - 1, state[STAGE], state[KIND], state[NEW]
    level = state[TOP, 0]
    while True:
        if level < last and stage[level] == 0:
            if kinds[level] == W and level >= twice:
                kinds[level] = V
            if table[level, CONDUCTORS] > 0:
                if news[level]:
                    _clear(vectors, table[level])
                _correct(vectors, conductors, table[level])
                news[level] = 0
            _order(job, level, 1, news[level], counts[level, 0])
            _step(work, job, room)
            stage[level] = 1
            level += 1
            stage[level], kinds[level], news[level] = 0, kinds[level - 1], 1
        elif level < last and stage[level] == 1 and kinds[level] != V and level + 1 < last:
            stage[level] = 2
            level += 1
            stage[level], kinds[level], news[level] = 0, W if kinds[level - 1] == W else V, 0
        else:
            if level == last:
                _solve_coarsest(vectors, table[level], inverse)
            else:
                _order(job, level, 0, 0, counts[level, 1])
                _step(work, job, room)
                if table[level, CONDUCTORS] > 0:
                    _correct(vectors, conductors, table[level])
            if level == state[TOP, 0]:
                return
            level -= 1


@bare
def _run(work, job, room, state, kind, twice, fresh):
    """Do a cycle, or full multigrid, on all levels, and send the helpers home."""
    last = len(work[3]) - 1
    if kind in (DOWN, UP):
        _order(job, 0, kind == DOWN, fresh, work[14][0, 0] if kind == DOWN else work[14][0, 1])
        _step(work, job, room)
    elif kind == FULL:
        for depth in range(last):
            _order(job, depth, 1, 1, 0)
            _step(work, job, room)
        _begin(state, last, V, 1)
        _cycle(work, job, room, state, twice)
        for depth in range(last - 1, -1, -1):
            _order(job, depth, 0, 0, 0)
            _step(work, job, room)
            _begin(state, depth, V, 0)
            _cycle(work, job, room, state, twice)
    else:
        _begin(state, 0, kind, fresh)
        _cycle(work, job, room, state, twice)
    end(job)


@bare
def _room(table, chain, threads):
    """Return the numbers that a thread wants beside the vectors."""
    most = 0
    for depth in range(len(table)):
        shape = _box(table[depth])
        _, _, _, lines = tiling(shape, _factors(table[depth]), threads)
        most = max(most, tile_room(shape, lines, chain))
    return most


def levels_cycle(
    vectors: Tensor,
    matrices: Tensor,
    weights: Tensor,
    table: Tensor,
    places: Tensor,
    numbers: Tensor,
    scale: Sequence[float],
    inverse: Tensor,
    pre: Tensor,
    post: Tensor,
    counts: Tensor,
    gains: Tensor,
    periodic: Sequence[bool],
    colored: bool,
    kind: int,
    twice: int,
    fresh: bool,
) -> None:
    """Do one cycle from the first level of a table, whose x it improves."""
    rows = table.numpy()
    threads = thread_count() if rows[0, SIZE] > TILED else 1
    data, steps = (vectors.numpy(), matrices.numpy(), weights.numpy()), counts.numpy()
    conductors = places.numpy(), numbers.numpy(), np.empty((2, rows[:, CONDUCTORS].max()))
    options = gains.numpy(), flags(periodic), bool(colored), threads, TILED
    work = (
        *data,
        rows,
        singles(scale),
        inverse.numpy(),
        pre.numpy(),
        post.numpy(),
        *options,
        conductors,
        steps,
    )
    job, size = new_job(4), _room(rows, steps.max() * (1 + bool(colored)), threads)
    alongside(threads - 1, lambda: _help(work, job, np.empty(size, np.float32)))
    state = np.zeros((4, len(rows)), np.int64)
    _run(work, job, np.empty(size, np.float32), state, int(kind), int(twice), bool(fresh))
