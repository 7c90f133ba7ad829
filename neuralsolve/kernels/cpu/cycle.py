"""Multigrid cycles over the small levels of a grid in one call, numba.

A pass over a level of a few thousand cells takes microseconds, less than a call from Python. Definition and
arguments: `neuralsolve.kernels.reference.cycle`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.conductors import correct
from neuralsolve.kernels.cpu.padded import (
    flags,
    relax_range,
    residual_range,
    singles,
    start_range,
    strides,
    wrap_sides,
)
from neuralsolve.kernels.cpu.threads import serial
from neuralsolve.kernels.cpu.transfers import prolong_range, restrict_range

# columns of the table of levels
NZ, FZ, SIZE, B, XX, Y, INVERSE, RED, BLACK, FACES, WEIGHTS = 0, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14
PLACES, NUMBERS, RUNS, EDGES, CONDUCTORS = 15, 16, 17, 18, 19
V, W, F = 0, 1, 2


@serial
def _box(level):
    return level[NZ], level[NZ + 1], level[NZ + 2]


@serial
def _vector(floats, level, column):
    return floats[level[column] : level[column] + level[SIZE]]


@serial
def _faces(floats, level):
    rows = 4 * level[SIZE] if level[FACES] >= 0 else 0
    at = max(level[FACES], 0)
    return floats[at : at + rows].reshape(4, rows // 4)


@serial
def _smooth(floats, level, scale, steps, periodic, colored, post, fresh):
    """Smooth x of one level; from x = 0 where `fresh`."""
    shape = _box(level)
    b, inverse, faces = _vector(floats, level, B), _vector(floats, level, INVERSE), _faces(floats, level)
    _, _, lo, hi = strides(shape)
    around = periodic[0] or periodic[1] or periodic[2]
    first = 0
    if fresh and not colored and not around and len(steps) > 1:
        start_range(
            b,
            inverse,
            scale,
            faces,
            shape,
            steps[0, 0],
            steps[1, 0],
            steps[1, 1],
            _vector(floats, level, XX),
            lo,
            hi,
        )
        if len(steps) > 2:  # the step after needs the one before: x1 = weight D^-1 b
            y = _vector(floats, level, Y)
            for i in range(lo, hi):
                y[i] = steps[0, 0] * inverse[i] * b[i]
        first = 2
    elif fresh:
        _vector(floats, level, XX)[:] = 0
    for k in range(first, len(steps)):
        for color in range(2 if colored else 1):
            d = inverse
            if colored:
                d = _vector(floats, level, RED if (color == 0) != post else BLACK)
            x, y = _vector(floats, level, XX), _vector(floats, level, Y)
            if around:
                wrap_sides(x, shape, periodic)
            relax_range(b, d, scale, faces, shape, steps[k, 0], steps[k, 1], x, y, lo, hi)
            level[XX], level[Y] = level[Y], level[XX]


@serial
def _correct(floats, places, numbers, level):
    """Correct the means of the conductors of a level."""
    r, e, k = level[RUNS], level[EDGES], level[CONDUCTORS]
    if k == 0:
        return
    at, at_number = level[PLACES], level[NUMBERS]
    runs = places[at : at + 3 * r].reshape(3, r)
    edges = places[at + 3 * r : at + 3 * (r + e)].reshape(3, e)
    couplings = numbers[at_number : at_number + e]
    inverse = numbers[at_number + e : at_number + e + k * k].reshape(k, k)
    correct(_vector(floats, level, B), runs, edges, couplings, inverse, _vector(floats, level, XX))


@serial
def _down(floats, bytes_, level, below, scale, gain, periodic):
    """Restrict the residual to the level below."""
    shape, factors, coarse = _box(level), (level[FZ], level[FZ + 1], level[FZ + 2]), _box(below)
    _, _, lo, hi = strides(shape)
    x, r = _vector(floats, level, XX), _vector(floats, level, Y)
    if periodic[0] or periodic[1] or periodic[2]:
        wrap_sides(x, shape, periodic)
    residual_range(
        _vector(floats, level, B),
        _vector(floats, level, INVERSE),
        scale,
        _faces(floats, level),
        shape,
        x,
        r,
        lo,
        hi,
    )
    if periodic[0] or periodic[1] or periodic[2]:
        wrap_sides(r, shape, periodic)
    weights = bytes_[level[WEIGHTS] : level[WEIGHTS] + 4 * level[SIZE]].reshape(4, level[SIZE])
    restrict_range(
        r, weights, shape, factors, coarse, gain, _vector(floats, below, B), 0, coarse[0] * coarse[1]
    )


@serial
def _up(floats, bytes_, level, below, periodic):
    """Add the correction of the level below."""
    shape, factors, coarse = _box(level), (level[FZ], level[FZ + 1], level[FZ + 2]), _box(below)
    e = _vector(floats, below, XX)
    if periodic[0] or periodic[1] or periodic[2]:
        wrap_sides(e, coarse, periodic)
    weights = bytes_[level[WEIGHTS] : level[WEIGHTS] + 4 * level[SIZE]].reshape(4, level[SIZE])
    prolong_range(e, weights, shape, factors, coarse, _vector(floats, level, XX), 0, coarse[0] * coarse[1])


@serial
def _solve_coarsest(floats, level, inverse):
    nz, ny, nx = _box(level)
    sz, sy, first, _ = strides((nz, ny, nx))
    b, x = _vector(floats, level, B), _vector(floats, level, XX)
    i = 0
    for z in range(nz):
        for y in range(ny):
            for c in range(first + z * sz + y * sy, first + z * sz + y * sy + nx):
                total, j = np.float32(0), 0
                for zz in range(nz):
                    for yy in range(ny):
                        s = first + zz * sz + yy * sy
                        line, row = b[s : s + nx], inverse[i, j : j + nx]
                        for k in range(nx):
                            total += row[k] * line[k]
                        j += nx
                x[c] = total
                i += 1


@serial
def _cycle(
    floats, bytes_, table, places, numbers, scale, inverse, pre, post, gain, periodic, colored, kind, fresh
):
    last, top = len(table) - 1, 0
    level, stage, kinds = top, np.zeros(last + 1, np.int64), np.zeros(last + 1, np.int64)
    news = np.zeros(last + 1, np.bool_)
    kinds[top], news[top] = kind, fresh
    while True:
        own = table[level]
        if level == last:
            _solve_coarsest(floats, own, inverse)
            if level == top:
                return
            level -= 1
        elif stage[level] == 0:
            _smooth(floats, own, scale, pre, periodic, colored, False, news[level])
            _correct(floats, places, numbers, own)
            _down(floats, bytes_, own, table[level + 1], scale, gain, periodic)
            stage[level] = 1
            level += 1
            stage[level], kinds[level], news[level] = 0, kinds[level - 1], True
        elif stage[level] == 1 and kinds[level] != V and level + 1 < last:
            stage[level] = 2
            level += 1
            stage[level], kinds[level], news[level] = 0, (W if kinds[level - 1] == W else V), False
        else:
            _up(floats, bytes_, own, table[level + 1], periodic)
            _correct(floats, places, numbers, own)
            _smooth(floats, own, scale, post, periodic, colored, True, False)
            if level == top:
                return
            level -= 1


def small_levels_cycle(
    floats: Tensor,
    weights: Tensor,
    table: Tensor,
    places: Tensor,
    numbers: Tensor,
    scale: Sequence[float],
    inverse: Tensor,
    pre: Tensor,
    post: Tensor,
    gain: float,
    periodic: Sequence[bool],
    colored: bool,
    kind: int,
    fresh: bool,
) -> None:
    """Do one cycle from the first level of a table, whose x it improves."""
    data, bytes_, rows, dense = floats.numpy(), weights.numpy(), table.numpy(), inverse.numpy()
    lists, steps = (places.numpy(), numbers.numpy()), (pre.numpy(), post.numpy())
    around, k, g, both = flags(periodic), singles(scale), np.float32(gain), bool(colored)
    _cycle(data, bytes_, rows, *lists, k, dense, *steps, g, around, both, int(kind), bool(fresh))
