"""Multigrid cycles over the levels of a grid in one call: the definition, plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralsolve.kernels.reference.conductors import conductor_correct
from neuralsolve.kernels.reference.padded import (
    inside,
    level_prolong,
    level_relax,
    level_residual,
    level_restrict,
    level_wrap,
)

V, W, F, FULL = 0, 1, 2, 3
B, X, Y, INVERSE, RED, BLACK, FACES, WEIGHTS = range(7, 15)  # columns of the table after shape, factors, size
CONDUCTORS = slice(15, 20)


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

    Parameters
    ----------
    vectors, matrices, weights : all vectors, numbers of matrices, and weights of P
    table : (levels, 20) int64
        Shape, factors, size; where in `vectors` b, x and y lie, in `matrices` inverse, red, black and faces
        (-1: none), in `weights` the weights. x and y may change their places: the table then says so. Then
        where in `places` the runs of the conductors lie and their edges after them, where in `numbers` the
        couplings and after them the inverse, and how many runs, edges and conductors there are (0: none).
    places, numbers : int32 and float32, arguments of `conductor_correct` of all levels
    inverse : (n, n) float64, of the last level's matrix
    pre, post : (levels, most, 2)
        Weight and momentum of the steps of `level_relax` before and after the correction, of every level.
    counts : (levels, 2) int64, how many of these steps a level takes before and after
    gains : (levels,), on the restricted residual of a level
    colored : a step relaxes the red cells, then the black ones; after the correction black first
    kind : 0 V, 1 W (two corrections), 2 F (an F-cycle, then a V-cycle), 3 full multigrid: b goes down
        unsmoothed, every level starts from the one below and does a V-cycle
    twice : number of levels that a W-cycle corrects twice; below them it is a V-cycle
    fresh : start from x = 0, whatever x holds; full multigrid always does
    """
    cycle = _Cycle(
        vectors,
        matrices,
        weights,
        table,
        places,
        numbers,
        scale,
        inverse,
        pre,
        post,
        counts.tolist(),
        gains.tolist(),
        periodic,
        colored,
        twice,
    )
    if kind == FULL:
        cycle.full()
    else:
        cycle.run(0, kind, fresh)


@dataclass
class _Cycle:
    vectors: Tensor
    matrices: Tensor
    weights: Tensor
    table: Tensor
    places: Tensor
    numbers: Tensor
    scale: Sequence[float]
    inverse: Tensor
    pre: Tensor
    post: Tensor
    counts: list
    gains: list
    periodic: Sequence[bool]
    colored: bool
    twice: int

    def vector(self, k: int, column: int) -> Tensor:
        start, n = int(self.table[k, column]), int(self.table[k, 6])
        numbers = self.matrices if column >= INVERSE else self.vectors
        return numbers[start : start + n]

    def matrix(self, k: int) -> tuple[Sequence[float], Tensor, list[int]]:
        start, n = int(self.table[k, FACES]), int(self.table[k, 6])
        faces = (
            self.matrices[start : start + 4 * n].view(4, n) if start >= 0 else self.matrices[:0].view(4, 0)
        )
        return self.scale, faces, self.table[k, :3].tolist()

    def full(self) -> None:
        last = len(self.table) - 1
        for k in range(last):
            self.vector(k, X).zero_()
            self.restrict(k)
        self.run(last, V, True)
        for k in range(last - 1, -1, -1):
            self.prolong(k)
            self.run(k, V, False)

    def run(self, k: int, kind: int, fresh: bool) -> None:
        if kind == W and k >= self.twice:
            kind = V
        if k == len(self.table) - 1:
            shape = self.table[k, :3].tolist()
            solved = self.inverse @ inside(self.vector(k, B), shape).reshape(-1).double()
            inside(self.vector(k, X), shape).copy_(solved.view(tuple(shape)))
            return
        if fresh:
            self.vector(k, X).zero_()
        self.correct(k)
        self.smooth(k, self.pre[k, : self.counts[k][0]], False)
        self.restrict(k)
        self.run(k + 1, kind, True)
        if kind != V and k + 2 < len(self.table):
            self.run(k + 1, W if kind == W else V, False)
        self.prolong(k)
        self.smooth(k, self.post[k, : self.counts[k][1]], True)
        self.correct(k)

    def correct(self, k: int) -> None:
        """Correct the means of the conductors."""
        at, at_number, r, e, count = self.table[k, CONDUCTORS].tolist()
        if count == 0:
            return
        runs, edges = self.places[at : at + 3 * (r + e)].split([3 * r, 3 * e])
        couplings, inverse = self.numbers[at_number : at_number + e + count**2].split([e, count**2])
        given = runs.view(3, r), edges.view(3, e), couplings, inverse.view(count, count)
        conductor_correct(self.vector(k, B), *given, self.vector(k, X))

    def transfer(self, k: int) -> tuple[Tensor, list[int], list[int], list[int]]:
        start, n = int(self.table[k, WEIGHTS]), int(self.table[k, 6])
        weights, below = self.weights[start : start + 4 * n].view(4, n), self.table[k + 1, :3].tolist()
        return weights, self.table[k, :3].tolist(), self.table[k, 3:6].tolist(), below

    def restrict(self, k: int) -> None:
        """Give the residual to the level below."""
        b, shape = self.vector(k, B), self.table[k, :3].tolist()
        residual = torch.zeros_like(b)
        level_wrap(self.vector(k, X), shape, self.periodic)
        level_residual(b, self.vector(k, INVERSE), *self.matrix(k), self.vector(k, X), residual)
        level_wrap(residual, shape, self.periodic)
        level_restrict(residual, *self.transfer(k), self.gains[k], self.vector(k + 1, B))

    def prolong(self, k: int) -> None:
        """Take the correction from the level below."""
        level_wrap(self.vector(k + 1, X), self.table[k + 1, :3].tolist(), self.periodic)
        level_prolong(self.vector(k + 1, X), *self.transfer(k), self.vector(k, X))

    def smooth(self, k: int, steps: Tensor, after: bool) -> None:
        for weight, momentum in steps.tolist():
            for column in ((BLACK, RED) if after else (RED, BLACK)) if self.colored else (INVERSE,):
                level_wrap(self.vector(k, X), self.table[k, :3].tolist(), self.periodic)
                arguments = self.vector(k, B), self.vector(k, column), *self.matrix(k), (weight, momentum)
                level_relax(*arguments, self.vector(k, X), self.vector(k, Y))
                self.table[k, [X, Y]] = self.table[k, [Y, X]]
