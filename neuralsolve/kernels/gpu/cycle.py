"""Multigrid cycles over the levels of a grid for CUDA. Definition: `neuralsolve.kernels.reference.cycle`.

A loop on the host over launches, the same ones in the same order with every call: nothing is read back, the
table of levels is never changed, and x ends where the table says. A CUDA graph may record a cycle.

**Launches.** Levels of at most `FUSED` cells are done in four launches a visit with two steps of smoothing:
two steps from zero; residual and restriction; correction and a step; the last step. Larger ones take six, as
what is computed several times there is dearer than a launch. A second visit takes one more. A W-cycle at
256^3 with constant coefficients, which corrects twice on two of seven levels, takes 89: 6 + 13 on the two
large levels, 18 + 3 * 16 on the four below them, 4 products with the coarsest inverse. Conductors take 3
before and 3 after.

**Bytes** of a W(2,2)-cycle a cell of the finest level, on paper. Constant coefficients: two steps from zero
12 (b, 1/diagonal, x), residual 16, restriction 8.5 (r, weights of four bytes, an eighth of b below),
correction 12.5, two steps of 16 and 20 (the second one has a memory): 85. A visit below reads four times
couplings of 16 besides, 149 a cell; a second one, which does not start from zero, takes 189. So
85 + (149 + 189) (1/8 + 2/64) + 4 * 149 (1/512 + ...) = 139, of which the second cache serves the levels from
64^3 on. Where coefficients vary the finest level takes 64 more, and every level corrects twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.conductors import conductor_correct
from neuralsolve.kernels.gpu.launch import block_for, blocks, launch
from neuralsolve.kernels.gpu.padded import SIDES, place_of, sides_of
from neuralsolve.kernels.gpu.smoothing import (
    CORRECTED_PAST,
    NO_PAST,
    PAST,
    ZERO_PAST,
    first_step,
    level_residual,
    relax,
)
from neuralsolve.kernels.gpu.transfers import WALLS, WRAPS, level_prolong, restrict
from neuralsolve.kernels.reference.cycle import (
    BLACK,
    CONDUCTORS,
    FACES,
    FULL,
    INVERSE,
    RED,
    WEIGHTS,
    B,
    V,
    W,
    X,
    Y,
)

SIZE = 6  # column of the table: entries of a vector
FUSED = 400_000  # padded cells of a level that is done in few launches, at most
ROWS, COLUMNS = 16, 128  # of the coarsest inverse, that a program multiplies together


@triton.jit(do_not_specialize=["inverse", "b", "x", *SIDES])
def _solve(inverse, b, x, nz, ny, nx, DEEP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    n = nz * ny * nx
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS, COLUMNS), tl.float64)
    for start in range(0, n, COLUMNS):
        j = start + tl.arange(0, COLUMNS)
        v = tl.load(b + place_of(j // (ny * nx), j // nx % ny, j % nx, ny, nx, DEEP), mask=j < n, other=0.0)
        E = tl.load(
            inverse + i[:, None] * n + j[None, :], mask=(i < n)[:, None] & (j < n)[None, :], other=0.0
        )
        total += E * v.to(tl.float64)[None, :]
    place = place_of(i // (ny * nx), i // nx % ny, i % nx, ny, nx, DEEP)
    tl.store(x + place, tl.sum(total, 1).to(tl.float32), mask=i < n)


@dataclass
class _Level:
    """Views of a level; x and y change their places."""

    shape: tuple[int, int, int]
    factors: tuple[int, int, int]
    size: int
    b: Tensor
    x: Tensor
    y: Tensor
    inverse: Tensor
    colors: tuple[Tensor, ...]
    faces: Tensor
    weights: Tensor
    conductors: tuple[Tensor, Tensor, Tensor, Tensor] | None

    def swap(self) -> None:
        self.x, self.y = self.y, self.x


def _level(
    row: list[int],
    vectors: Tensor,
    matrices: Tensor,
    weights: Tensor,
    places: Tensor,
    numbers: Tensor,
    colored: bool,
) -> _Level:
    """Return the views of a level that a row of the table stands for."""
    n = row[SIZE]
    b, x, y = (vectors.narrow(0, row[c], n) for c in (B, X, Y))
    inverse = matrices.narrow(0, row[INVERSE], n)
    colors = tuple(matrices.narrow(0, row[c], n) for c in (RED, BLACK)) if colored else (inverse,)
    faces = matrices.narrow(0, max(row[FACES], 0), 4 * n if row[FACES] >= 0 else 0)
    w = weights.narrow(0, row[WEIGHTS], 4 * n)
    at, at_number, r, e, k = row[CONDUCTORS]
    conductors = None
    if k:
        runs, edges = places.narrow(0, at, 3 * (r + e)).split([3 * r, 3 * e])
        g, E = numbers.narrow(0, at_number, e + k * k).split([e, k * k])
        conductors = runs.view(3, r), edges.view(3, e), g, E.view(k, k)
    shape, factors = (row[0], row[1], row[2]), (row[3], row[4], row[5])
    return _Level(shape, factors, n, b, x, y, inverse, colors, faces, w, conductors)


@dataclass
class _Cycle:
    levels: list[_Level]
    scale: Sequence[float]
    inverse: Tensor
    pre: list[list[tuple[float, float]]]
    post: list[list[tuple[float, float]]]
    gains: list[float]
    around: tuple[bool, ...]
    twice: int

    def full(self) -> None:
        last = len(self.levels) - 1
        for k in range(last):
            self.levels[k].x.zero_()
            self.down(k)
        self.solve()
        for k in range(last - 1, -1, -1):
            self.up(k, 0)
            self.run(k, V, False)

    def run(self, k: int, kind: int, fresh: bool) -> None:
        """Do a cycle from a level down."""
        last = len(self.levels) - 1
        if kind == W and k >= self.twice:
            kind = V
        if k == last:
            self.solve()
            return
        self.before(k, fresh)
        self.down(k)
        self.run(k + 1, kind, True)
        if kind != V and k + 1 < last:
            self.run(k + 1, W if kind == W else V, False)
        self.up(k, len(self.post[k]))
        if (conductors := self.levels[k].conductors) is not None:
            conductor_correct(self.levels[k].b, *conductors, self.levels[k].x)

    def halves(self, k: int, after: bool) -> list[tuple[Tensor, tuple[float, float]]]:
        """Return what a level relaxes one after the other: 1/diagonal of some cells, and the step."""
        level = self.levels[k]
        colors = level.colors[::-1] if after else level.colors
        return [(d, step) for step in (self.post if after else self.pre)[k] for d in colors]

    def before(self, k: int, fresh: bool) -> None:
        """Correct the means of conductors and smooth, from x = 0 where `fresh`."""
        level, halves = self.levels[k], self.halves(k, False)
        given = self.scale, level.faces, level.shape
        if fresh and (level.conductors is not None or not halves):
            level.x.zero_()
            fresh = False
        if level.conductors is not None:
            conductor_correct(level.b, *level.conductors, level.x)
        if fresh and len(halves) > 1 and (len(halves) == 2 or halves[2][1][1] == 0):
            (d, (weight, _)), (other, step) = halves[:2]
            given_to = level.b, other, *given, step, level.b, level.x, ZERO_PAST, self.around
            relax(*given_to, started=(d, weight))
            halves = halves[2:]
        elif fresh:
            first_step(level.b, halves[0][0], level.shape, halves[0][1][0], level.y)
            level.swap()
            if len(halves) > 1:
                self.relax(k, *halves[1], ZERO_PAST)
            halves = halves[2:]
        for d, step in halves:
            self.relax(k, d, step, PAST)

    def relax(
        self,
        k: int,
        d: Tensor,
        step: tuple[float, float],
        memory: int,
        below: tuple[Tensor, Tensor, Sequence[int], Sequence[int]] | None = None,
    ) -> None:
        level = self.levels[k]
        given = level.b, d, self.scale, level.faces, level.shape, step, level.x, level.y
        relax(*given, memory, self.around, below=below)
        level.swap()

    def down(self, k: int) -> None:
        """Give the residual to the level below."""
        level, coarse = self.levels[k], self.levels[k + 1]
        given = level.weights, level.shape, level.factors, coarse.shape, self.gains[k], coarse.b
        ends = tuple(WRAPS if p else WALLS for p in self.around)
        matrix = level.b, level.inverse, self.scale, level.faces
        if level.size <= FUSED:
            restrict(level.x, *given, ends, matrix)
            return
        level_residual(*matrix, level.shape, level.x, level.y, self.around)
        restrict(level.y, *given, ends)

    def up(self, k: int, steps: int) -> None:
        """Take the correction from the level below and smooth."""
        level, coarse = self.levels[k], self.levels[k + 1]
        halves = self.halves(k, True)[: steps * len(level.colors)]
        if not halves or level.size > FUSED:
            sides = level.shape, level.factors, coarse.shape
            level_prolong(coarse.x, level.weights, *sides, level.x, self.around)
        else:
            below = coarse.x, level.weights, level.factors, coarse.shape
            for (d, step), memory in zip(halves[:2], (NO_PAST, CORRECTED_PAST), strict=False):
                self.relax(k, d, step, memory, below)
            halves = halves[2:]
        for d, step in halves:
            self.relax(k, d, step, PAST)

    def solve(self) -> None:
        """Multiply by the inverse of the coarsest matrix."""
        level = self.levels[-1]
        sides, deep = sides_of(level.shape)
        rows, n = block_for(ROWS), len(self.inverse)
        tile = {"ROWS": rows, "COLUMNS": block_for(COLUMNS)}
        launch(_solve, (blocks(n, rows),), self.inverse, level.b, level.x, *sides, **deep, **tile)


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
    """Do one cycle from the first level of a table, whose x it improves.

    `table`, `pre`, `post`, `counts` and `gains` are on the host. The first step after a correction has no
    momentum.
    """
    data = vectors, matrices, weights, places, numbers, colored
    levels = [_level(row, *data) for row in table.tolist()]
    before, after = (
        [[(w, m) for w, m in steps[:n]] for steps, n in zip(each.tolist(), count, strict=True)]
        for each, count in zip((pre, post), counts.T.tolist(), strict=True)
    )
    cycle = _Cycle(
        levels, scale, inverse, before, after, gains.tolist(), tuple(bool(p) for p in periodic), int(twice)
    )
    top, passes = levels[0], len(cycle.halves(0, False)) + len(cycle.halves(0, True))
    if len(levels) > 1 and passes % 2:  # then x begins in the place where it does not end
        if not fresh and kind != FULL:
            top.y.copy_(top.x)
        top.swap()
    if kind == FULL:
        cycle.full()
    else:
        cycle.run(0, int(kind), bool(fresh))
