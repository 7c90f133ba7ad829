"""The cycle of geometric multigrid: on large levels pass by pass, on the small ones in one compiled call.

What it does and why it is positive definite: `neuralsolve.preconditioners.multigrid`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuralsolve.errors import StructureError
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator, output_like
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.preconditioners.base import Preconditioner, by_columns
from neuralsolve.preconditioners.levels import Hierarchy, Level, Plan, build, with_room

if TYPE_CHECKING:
    from neuralsolve.preconditioners.multigrid import Multigrid

V, W, F = 0, 1, 2  # as in `kernels.reference.cycle`
SEAM_OMEGA = 0.9  # of "red-black" where cells of one colour are neighbours
LARGEST = 2.0  # eigenvalue of D^-1 A, of any A that is weakly dominant
CONTRACTION = 1.95  # largest eigenvalue of M A that a W-cycle may meet one level below
POWER_STEPS = 8
TESTED = 6_000  # padded cells of the levels on which a W-cycle is tested
TWICE = 2  # levels on which a W-cycle corrects twice, where coefficients are constant and cells about cubes
SAMPLES = 4096  # entries of r that tell its size


def smoothing_steps(recipe: Multigrid, count: int) -> list[tuple[float, float]]:
    """Return (weight, momentum) of every step of a smoother; see `kernels.reference.padded.level_relax`."""
    if recipe.smoother != "chebyshev":
        omega = recipe.omega or (0.8 if recipe.smoother == "jacobi" else 1.0)
        return [(omega, 0.0)] * count
    middle, half = LARGEST * (1 + 1 / recipe.band) / 2, LARGEST * (1 - 1 / recipe.band) / 2
    sigma = middle / half
    rho, steps = 1 / sigma, [(1 / middle, 0.0)]  # Saad 2003, alg. 12.1
    while len(steps) < count:
        following = 1 / (2 * sigma - rho)
        steps.append((2 * following / half, following * rho))
        rho = following
    return steps[:count]


def _plans(h: Hierarchy) -> list[Plan]:
    return [level.plan for level in h.levels]


def _power_above(size: float) -> float:
    """Return the next power of two, or one whose inverse is a number too; 1 for infinity and NaN."""
    return 2.0 ** min(max(math.frexp(size)[1], -1000), 1000) if math.isfinite(size) else 1.0


class GridCycle(Preconditioner):
    """A cycle on the levels of a grid, float32 inside; made by `Multigrid().build(A)`."""

    by_columns = True
    dtype = torch.float32

    def __init__(self, A: LinearOperator, recipe: Multigrid):
        self.recipe = recipe
        self._hierarchy: Hierarchy | None = None
        self._twice = 0
        self.update(A)

    def update(self, A_next: LinearOperator) -> None:
        """Fill the levels with another mask, other walls or coefficients, in the room that is there."""
        if not isinstance(A_next, PoissonStencil):
            msg = (
                f"Multigrid needs the grid of A: a PoissonStencil, given {type(A_next).__name__}; pass "
                "grid=cells to ns.solve or ns.prepare where the matrix comes from a grid, or use M=ns.AMG()"
            )
            raise StructureError(msg)
        recipe = self.recipe
        colored = recipe.smoother == "red-black"
        fresh = build(A_next, recipe.coarsest, recipe.max_levels, recipe.strong, colored, self._hierarchy)
        self._hierarchy = fresh
        self._choose(recipe)
        even = all(
            len({f for f, n in zip(p.factors, p.shape, strict=True) if n > 1}) <= 1 for p in _plans(fresh)
        )
        self._twice = TWICE if A_next.code is not None and even else len(fresh.levels)
        # the second correction of a level meets those below it; large ones cost too much to be looked at
        tested = [
            d for d, plan in enumerate(_plans(fresh)) if plan.size <= TESTED and 0 < d < len(fresh.levels) - 1
        ]
        if recipe.cycle != "V" and any(self._growth(depth) > CONTRACTION for depth in tested):
            self._choose(replace(recipe, cycle="V"))
            self._note = f", instead of {recipe.cycle}, which would not contract"

    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        out = output_like(r, len(r), out)
        return by_columns(self._apply, r, out) if r.ndim == 2 else self._apply(r, out)

    def twin(self) -> GridCycle:
        assert self._hierarchy is not None
        other = copy.copy(self)
        other._hierarchy = with_room(self._hierarchy)
        return other

    def describe(self) -> str:
        levels = self._levels()
        before, after = self._used.steps
        return (
            f"multigrid: {self._used.cycle}({before},{after}), {self._used.smoother}, {len(levels)} levels"
            f"{self._note}"
        )

    def _choose(self, recipe: Multigrid) -> None:
        """Take the cycle and the smoother of a recipe."""
        if recipe.smoother == "red-black" and recipe.omega is None and self._one_color_meets():
            recipe = replace(recipe, omega=SEAM_OMEGA)
        self._used, self._note = recipe, ""
        before, after = recipe.steps
        self._steps = smoothing_steps(recipe, before), smoothing_steps(recipe, after)
        self._tables = tuple(torch.tensor(steps).view(-1, 2) for steps in self._steps)
        self._colored = recipe.smoother == "red-black"
        self.symmetric = before == after and recipe.cycle in ("V", "W")

    def _one_color_meets(self) -> bool:
        """Whether a periodic side of a level is odd: steps of omega = 1 may then not contract."""
        h = self._hierarchy
        assert h is not None
        sides = (zip(h.periodic, level.plan.shape, strict=True) for level in h.levels)
        return any(p and n > 1 and n % 2 == 1 for pairs in sides for p, n in pairs)

    def _levels(self) -> list[Level]:
        assert self._hierarchy is not None
        return self._hierarchy.levels

    def _apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        out = torch.empty_like(r) if out is None else out
        K, h, finest = table(), self._hierarchy, self._levels()[0]
        assert h is not None
        # float32 has no room for any size of r; M is linear, so a power of two changes nothing else
        size = float(r[:: len(r) // SAMPLES + 1].abs().max()) or float(r.abs().max())
        if size == 0:
            return out.zero_()
        size = _power_above(size)
        if K.level_load(r, 1 / size, finest.plan.shape, finest.b):  # the samples missed a source
            size = _power_above(float(r.abs().max()))
            K.level_load(r, 1 / size, finest.plan.shape, finest.b)
        if self._used.cycle == "full":
            self._full()
        else:
            self._cycle(0, {"V": V, "W": W, "F": F}[self._used.cycle], True)
        K.level_store(self._vectors(0)[0], size / h.unit, finest.plan.shape, out)
        return out

    def _vectors(self, depth: int) -> tuple[Tensor, Tensor]:
        """Return x and y of a level: in the small ones, steps change their places."""
        h, level = self._hierarchy, self._levels()[depth]
        assert h is not None
        if depth < h.first_small:
            return level.x, level.y
        x, y = h.table[depth - h.first_small, 8:10].tolist()
        return h.floats[x : x + level.plan.size], h.floats[y : y + level.plan.size]

    def _cycle(self, depth: int, kind: int, fresh: bool) -> None:
        """Improve x by one cycle on this level and all below."""
        h, levels = self._hierarchy, self._levels()
        assert h is not None
        K, kind = table(), V if kind == W and depth >= self._twice else kind
        if depth >= h.first_small:
            rows, steps = h.table[depth - h.first_small :], self._tables
            numbers = h.floats, h.bytes, rows, h.scale, h.inverse, *steps, self._used.correction
            K.small_levels_cycle(*numbers, h.periodic, self._colored, kind, fresh)
            return
        self._smooth(levels[depth], False, fresh)
        self._restrict(depth)
        self._cycle(depth + 1, kind, True)
        if kind != V and depth + 2 < len(levels):
            self._cycle(depth + 1, W if kind == W else V, False)
        self._prolong(depth)
        self._smooth(levels[depth], True, False)

    def _full(self) -> None:
        """Do full multigrid: b goes down unsmoothed, every level starts from the one below."""
        levels = self._levels()
        last = len(levels) - 1
        for depth in range(last):
            self._vectors(depth)[0].zero_()
            self._restrict(depth)
        self._cycle(last, V, True)
        for depth in range(last - 1, -1, -1):
            self._prolong(depth)
            self._cycle(depth, V, False)

    def _restrict(self, depth: int) -> None:
        """Give the residual to the level below."""
        h, level, below = self._hierarchy, self._levels()[depth], self._levels()[depth + 1]
        assert h is not None
        K, plan = table(), level.plan
        x, rest = self._vectors(depth)
        self._wrap(x, plan.shape)
        K.level_residual(level.b, level.inverse, h.scale, level.faces, plan.shape, x, rest)
        self._wrap(rest, plan.shape)
        way = level.weights, plan.shape, plan.factors, below.plan.shape
        K.level_restrict(rest, *way, self._used.correction, below.b)

    def _prolong(self, depth: int) -> None:
        """Take the correction from the level below."""
        level, below = self._levels()[depth], self._levels()[depth + 1]
        plan, e = level.plan, self._vectors(depth + 1)[0]
        self._wrap(e, below.plan.shape)
        way = level.weights, plan.shape, plan.factors, below.plan.shape
        table().level_prolong(e, *way, self._vectors(depth)[0])

    def _wrap(self, v: Tensor, shape: tuple[int, int, int]) -> None:
        assert self._hierarchy is not None
        if any(self._hierarchy.periodic):
            table().level_wrap(v, shape, self._hierarchy.periodic)

    def _smooth(self, level: Level, after: bool, fresh: bool) -> None:
        """Smooth x of a large level; from x = 0 where `fresh`."""
        h, plan, steps = self._hierarchy, level.plan, self._steps[after]
        assert h is not None
        K, matrix = table(), (h.scale, level.faces, plan.shape)
        done = 0
        if fresh and len(steps) == 2 and level.colors is None and not any(h.periodic):
            K.level_start(level.b, level.inverse, *matrix, steps[0][0], steps[1], level.x)
            done = 2
        elif fresh:
            level.x.zero_()
        inverses = level.colors or (level.inverse,)
        for step in steps[done:]:
            for inverse in reversed(inverses) if after else inverses:
                self._wrap(level.x, plan.shape)
                K.level_relax(level.b, inverse, *matrix, step, level.x, level.y)
                level.x, level.y = level.y, level.x

    def _growth(self, depth: int) -> float:
        """Return an estimate, from below, of the largest eigenvalue of M A of a level: power iteration.

        M A is symmetric in the inner product of A, in which the Rayleigh quotient is taken. The growth of the
        2-norm may exceed it many times over where A is badly conditioned.
        """
        h, level = self._hierarchy, self._levels()[depth]
        assert h is not None
        K, shape = table(), level.plan.shape
        generator = torch.Generator().manual_seed(314159)
        v = torch.randn(math.prod(shape), dtype=torch.float64, generator=generator)
        given, zero, quotient = torch.zeros_like(level.b), torch.zeros_like(level.b), 0.0
        inside = (level.inverse != 0).to(given.dtype)
        K.level_load(v, 1.0, shape, given)
        for _ in range(POWER_STEPS):
            given *= inside
            self._wrap(given, shape)
            # -A v: the cycle returns -M A v, and leaves b as it is
            K.level_residual(zero, level.inverse, h.scale, level.faces, shape, given, level.b)
            energy = -float(torch.dot(given, level.b))
            self._cycle(depth, V if self._used.cycle == "full" else {"W": W, "F": F}[self._used.cycle], True)
            x = self._vectors(depth)[0]
            size = float(x.norm())
            if not (energy > 0 and 0 < size < math.inf):
                break
            quotient = float(torch.dot(level.b, x)) / energy
            torch.div(x, size, out=given)
        return abs(quotient)
