"""Multigrid cycles over the small levels of a grid in one call: the definition, plain torch."""

from __future__ import annotations

from collections.abc import Sequence

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

V, W, F = 0, 1, 2
B, X, Y, INVERSE, RED, BLACK, FACES, WEIGHTS = range(7, 15)  # columns of the table after shape, factors, size
CONDUCTORS = slice(15, 20)


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
    """Do one cycle from the first level of a table, whose x it improves.

    Parameters
    ----------
    floats, weights : all vectors, and all weights of P, of these levels
    table : (levels, 20) int64
        Shape, factors, size; where in `floats` b, x, y, inverse, red, black and faces lie (-1: none); where
        in `weights` the weights do. x and y may change their places: the table then says so. Then where in
        `places` the runs of the conductors lie and their edges after them, where in `numbers` the couplings
        and after them the inverse, and how many runs, edges and conductors there are (0: none).
    places, numbers : int32 and float32, arguments of `conductor_correct` of all levels
    inverse : (n, n), of the last level's matrix
    pre, post : (steps, 2), weight and momentum of the steps of `level_relax` before and after the correction
    gain : on the restricted residual
    colored : a step relaxes the red cells, then the black ones; after the correction black first
    kind : 0 V, 1 W (two corrections), 2 F (an F-cycle, then a V-cycle)
    fresh : start from x = 0, whatever x holds
    """
    lists, smoothing = (places, numbers), (pre, post)
    cycle = _Cycle(floats, weights, table, *lists, scale, inverse, *smoothing, gain, periodic, colored)
    cycle.run(0, kind, fresh)


class _Cycle:
    def __init__(
        self, floats, weights, table, places, numbers, scale, inverse, pre, post, gain, periodic, colored
    ):
        self.places, self.numbers = places, numbers
        self.floats, self.weights, self.table, self.scale, self.inverse = (
            floats,
            weights,
            table,
            scale,
            inverse,
        )
        self.pre, self.post, self.gain, self.periodic, self.colored = pre, post, gain, periodic, colored

    def vector(self, k: int, column: int) -> Tensor:
        start, n = int(self.table[k, column]), int(self.table[k, 6])
        return self.floats[start : start + n]

    def matrix(self, k: int) -> tuple[Sequence[float], Tensor, list[int]]:
        start, n = int(self.table[k, FACES]), int(self.table[k, 6])
        faces = self.floats[start : start + 4 * n].view(4, n) if start >= 0 else self.floats.new_empty((4, 0))
        return self.scale, faces, self.table[k, :3].tolist()

    def run(self, k: int, kind: int, fresh: bool) -> None:
        shape = self.table[k, :3].tolist()
        b, x = self.vector(k, B), self.vector(k, X)
        if k == len(self.table) - 1:
            solved = self.inverse @ inside(b, shape).reshape(-1)
            inside(x, shape).copy_(solved.view(tuple(shape)))
            return
        if fresh:
            x.zero_()
        self.smooth(k, self.pre, False)
        self.correct(k)
        below, n = self.table[k + 1, :3].tolist(), int(self.table[k, 6])
        start = int(self.table[k, WEIGHTS])
        parts = self.weights[start : start + 4 * n].view(4, n), shape, self.table[k, 3:6].tolist(), below
        residual = torch.zeros_like(b)
        level_wrap(self.vector(k, X), shape, self.periodic)
        level_residual(b, self.vector(k, INVERSE), *self.matrix(k), self.vector(k, X), residual)
        level_restrict(residual, *parts, self.gain, self.vector(k + 1, B))
        self.run(k + 1, kind, True)
        if kind != V and k + 2 < len(self.table):
            self.run(k + 1, W if kind == W else V, False)
        level_wrap(self.vector(k + 1, X), below, self.periodic)
        level_prolong(self.vector(k + 1, X), *parts, self.vector(k, X))
        self.correct(k)
        self.smooth(k, self.post, True)

    def correct(self, k: int) -> None:
        at, at_number, r, e, count = self.table[k, CONDUCTORS].tolist()
        if count == 0:
            return
        runs, edges = self.places[at : at + 3 * (r + e)].split([3 * r, 3 * e])
        couplings, inverse = self.numbers[at_number : at_number + e + count**2].split([e, count**2])
        given = runs.view(3, r), edges.view(3, e), couplings, inverse.view(count, count)
        conductor_correct(self.vector(k, B), *given, self.vector(k, X))

    def smooth(self, k: int, steps: Tensor, after: bool) -> None:
        for weight, momentum in steps.tolist():
            for column in ((BLACK, RED) if after else (RED, BLACK)) if self.colored else (INVERSE,):
                level_wrap(self.vector(k, X), self.table[k, :3].tolist(), self.periodic)
                arguments = self.vector(k, B), self.vector(k, column), *self.matrix(k), (weight, momentum)
                level_relax(*arguments, self.vector(k, X), self.vector(k, Y))
                self.table[k, [X, Y]] = self.table[k, [Y, X]]
