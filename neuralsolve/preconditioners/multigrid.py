"""Matrix-free geometric multigrid for grids of cells with obstacles, air and variable coefficients.

(docstring below)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from neuralsolve.kernels import table
from neuralsolve.operators.base import output_like
from neuralsolve.preconditioners.base import Preconditioner, Recipe
from neuralsolve.preconditioners.levels import COARSEST, STRONG, build

CYCLES = ("V", "W", "F", "full")
SMOOTHERS = ("chebyshev", "jacobi", "red-black")
KIND = {"V": 0, "W": 1, "F": 2, "full": 3}


@dataclass(frozen=True)
class Multigrid(Recipe):
    cycle: str = "W"
    smoother: str = "chebyshev"
    sweeps: int | tuple[int, int] = 2
    omega: float | None = None
    band: float = 6.0
    correction: float = 1.0
    strong: float = STRONG
    coarsest: int = COARSEST
    max_levels: int = 40

    def build(self, A):
        return GridCycle(A, self)


def _steps(recipe, count):
    """Weights and momenta"""
    if recipe.smoother != "chebyshev":
        omega = recipe.omega or (0.8 if recipe.smoother == "jacobi" else 1.0)
        return [(omega, 0.0)] * count
    top = 2.0
    low = top / recipe.band
    middle, half = (top + low) / 2, (top - low) / 2
    sigma = middle / half
    steps, rho = [(1 / middle, 0.0)], 1 / sigma
    while len(steps) < count:
        following = 1 / (2 * sigma - rho)
        steps.append((2 * following / half, following * rho))
        rho = following
    return steps


class GridCycle(Preconditioner):
    def __init__(self, A, recipe):
        self.recipe = recipe
        pre, post = recipe.sweeps if isinstance(recipe.sweeps, tuple) else (recipe.sweeps,) * 2
        self.pre, self.post = _steps(recipe, pre), _steps(recipe, post)
        self.tables = torch.tensor(self.pre), torch.tensor(self.post)
        self.symmetric = pre == post and recipe.cycle in ("V", "W")
        self.colored = recipe.smoother == "red-black"
        self.kind = KIND[recipe.cycle]
        self.update(A)

    def update(self, A_next):
        r = self.recipe
        self.h = build(A_next, r.coarsest, r.max_levels, r.strong, self.colored)
        self.around = any(self.h.periodic)

    def describe(self):
        return f"{self.recipe.cycle}-cycle, {len(self.h.levels)} levels"

    def apply(self, r, out=None):
        out = output_like(r, len(r), out)
        if r.ndim == 1:
            self._apply(r, out)
        else:
            for j in range(r.shape[1]):
                self._apply(r[:, j], out[:, j])
        return out

    def _apply(self, r, out):
        K, h, finest = table(), self.h, self.h.levels[0]
        size = float(r[:: max(1, len(r) // 4096)].abs().max()) or float(r.abs().max())
        if not size:
            out.zero_()
            return
        size = 2.0 ** math.frexp(size)[1]
        K.level_load(r, 1 / size, finest.plan.shape, finest.b)
        self._cycle(0, self.kind, True)
        K.level_store(finest.x, size / h.unit, finest.plan.shape, out)

    def _cycle(self, depth, kind, fresh):
        h = self.h
        if depth >= h.first_small:
            self._small(kind, fresh)
            return
        K, level = table(), h.levels[depth]
        self._smooth(level, self.pre, False, fresh)
        plan, below = level.plan, h.levels[depth + 1]
        if self.around:
            K.level_wrap(level.x, plan.shape, h.periodic)
        K.level_residual(level.b, level.inverse, h.scale, level.faces, plan.shape, level.x, level.y)
        if self.around:
            K.level_wrap(level.y, plan.shape, h.periodic)
        K.level_restrict(
            level.y,
            level.weights,
            plan.shape,
            plan.factors,
            below.plan.shape,
            self.recipe.correction,
            below.b,
        )
        self._cycle(depth + 1, kind, True)
        if kind and depth + 2 < len(h.levels):
            self._cycle(depth + 1, kind if kind == 1 else 0, False)
        if self.around:
            K.level_wrap(below.x, below.plan.shape, h.periodic)
        K.level_prolong(below.x, level.weights, plan.shape, plan.factors, below.plan.shape, level.x)
        self._smooth(level, self.post, True, False)

    def _small(self, kind, fresh):
        h = self.h
        table().small_levels_cycle(
            h.floats,
            h.bytes,
            h.table,
            h.scale,
            h.inverse,
            *self.tables,
            self.recipe.correction,
            h.periodic,
            self.colored,
            kind,
            fresh,
        )
        top = h.levels[h.first_small]
        at, n = int(h.table[0, 8]), top.plan.size
        top.x = h.floats[at : at + n]

    def _smooth(self, level, steps, post, fresh):
        K, h, plan = table(), self.h, level.plan
        first = 0
        if fresh and not self.colored and not self.around and len(steps) > 1:
            K.level_start(
                level.b, level.inverse, h.scale, level.faces, plan.shape, steps[0][0], steps[1], level.x
            )
            if len(steps) > 2:
                torch.mul(level.inverse, level.b, out=level.y).mul_(steps[0][0])
            first = 2
        elif fresh:
            level.x.zero_()
        for step in steps[first:]:
            for color in range(2 if self.colored else 1):
                inverse = (
                    level.inverse if not self.colored else level.colors[color if not post else 1 - color]
                )
                if self.around:
                    K.level_wrap(level.x, plan.shape, h.periodic)
                K.level_relax(level.b, inverse, h.scale, level.faces, plan.shape, step, level.x, level.y)
                level.x, level.y = level.y, level.x
