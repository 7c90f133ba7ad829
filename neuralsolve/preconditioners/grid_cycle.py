"""The cycle of geometric multigrid: one compiled call, and what it takes to choose it.

What it does and why it is positive definite: `neuralsolve.preconditioners.multigrid`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from neuralsolve.errors import GridError
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator, output_like
from neuralsolve.operators.nullspace import NullSpace
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.operators.vectors import copy_of
from neuralsolve.preconditioners.base import Preconditioner, Recipe, by_columns
from neuralsolve.preconditioners.chebyshev import Steps, chebyshev_steps
from neuralsolve.preconditioners.learned import Adapted, Knowledge, adapt
from neuralsolve.preconditioners.levels import B, Hierarchy, Level, Plan, X, build, moved, with_room
from neuralsolve.preconditioners.moved_cycle import MovedCycle

if TYPE_CHECKING:
    from neuralsolve.preconditioners.multigrid import Multigrid

KINDS = {"V": 0, "W": 1, "F": 2, "full": 3}  # as in `kernels.reference.cycle`
SEAM_OMEGA = 0.9  # of "red-black" where cells of one colour are neighbours
LARGEST = 2.0  # eigenvalue of D^-1 A, of any A that is weakly dominant
CONTRACTION = 1.95  # largest eigenvalue of M A that a W-cycle may meet one level below
POWER_STEPS, MORE_STEPS = 8, 3  # of power iteration, and for the next A, from where the last one ended
TESTED = 6_000  # padded cells of the levels on which a W-cycle is tested
TWICE = 2  # levels on which a W-cycle corrects twice, where coefficients are constant and cells about cubes
SAMPLES = 4096  # entries of r that tell its size


class Schedule(NamedTuple):
    """What a cycle does on its levels: see `kernels.reference.cycle`."""

    pre: Tensor
    post: Tensor
    counts: Tensor
    gains: Tensor

    @classmethod
    def of(cls, pre: list[Steps], post: list[Steps], gains: list[float]) -> Schedule:
        """Lay out the steps of every level before and after the correction, and the gains."""
        counts = torch.tensor([[len(a), len(b)] for a, b in zip(pre, post, strict=True)])
        most = int(counts.max())
        before, after = (
            torch.tensor([[*steps, *[(0.0, 0.0)] * (most - len(steps))] for steps in each])
            for each in (pre, post)
        )
        return cls(before, after, counts, torch.tensor(gains))

    @classmethod
    def learned(cls, known: Knowledge, depths: int) -> Schedule:
        """Lay out learned steps and gains; the last ones serve all levels below."""
        steps = [[(w, 0.0) for w in known.roots[min(k, len(known.roots) - 1)]] for k in range(depths)]
        return cls.of(steps, steps, [known.gains[min(k, len(known.gains) - 1)] for k in range(depths)])


def smoothing_steps(recipe: Multigrid, count: int) -> Steps:
    """Return (weight, momentum) of every step of a smoother; see `kernels.reference.padded.level_relax`."""
    if recipe.smoother != "chebyshev":
        omega = recipe.omega or (0.8 if recipe.smoother == "jacobi" else 1.0)
        return [(omega, 0.0)] * count
    return chebyshev_steps(LARGEST, recipe.band, count)


def _plans(h: Hierarchy) -> list[Plan]:
    return [level.plan for level in h.levels]


def _levels_of(recipe: Multigrid) -> tuple[object, ...]:
    """Return the options that the levels depend on."""
    return recipe.coarsest, recipe.max_levels, recipe.strong, recipe.smoother == "red-black"


def _power_above(size: float) -> float:
    """Return the next power of two, or one whose inverse is a number too; 1 for infinity and NaN."""
    return 2.0 ** min(max(math.frexp(size)[1], -1000), 1000) if math.isfinite(size) else 1.0


class GridCycle(Preconditioner):
    """A cycle on the levels of a grid, float32 inside; made by `Multigrid().build(A)`."""

    by_columns = True
    dtype = torch.float32

    def __init__(
        self, A: LinearOperator, recipe: Multigrid, tables: Mapping[str, Knowledge | str] | None = None
    ):
        self.recipe, self._tables = recipe, tables
        self._adapted = Adapted(None)
        self._hierarchy: Hierarchy | None = None
        self._null_space: NullSpace | None = None
        self._twice = 0
        self._modes: dict[tuple[int, ...], Tensor] = {}  # that grow most on the levels, by their shapes
        self.update(A)

    def update(self, A_next: LinearOperator) -> None:
        """Fill the levels with another mask, other walls or coefficients, in the room that is there."""
        if not isinstance(A_next, PoissonStencil):
            msg = (
                f"Multigrid needs the grid of A: a PoissonStencil, given {type(A_next).__name__}; pass "
                "grid=cells to ns.solve or ns.prepare where the matrix comes from a grid, or use M=ns.AMG()"
            )
            raise GridError(msg)
        recipe = self.recipe
        colored = recipe.smoother == "red-black"
        options = recipe.coarsest, recipe.max_levels, recipe.strong, colored
        learn = None if self._tables is None else self._learn
        fresh = build(A_next, *options, self._hierarchy, learn)
        self._hierarchy = fresh
        # M 1 is large where coefficients jump: what rounding leaves of 1 in r would take over in the end
        self._null_space = A_next.null_space if A_next.code is None else None
        known = self._adapted.knowledge
        if known is not None:
            self._choose(replace(recipe, cycle="V"))
            self._schedule = Schedule.learned(known, len(fresh.levels))
        else:
            self._choose_tested(recipe)

    def retune(self, recipe: Recipe) -> bool:
        before = self.recipe
        if (
            self._tables is not None
            or not isinstance(recipe, type(before))
            or _levels_of(recipe) != _levels_of(before)
        ):
            return False
        self.recipe = recipe
        self._choose_tested(recipe)
        return True

    def _choose_tested(self, recipe: Multigrid) -> None:
        """Take the cycle of a recipe, or the V-cycle where another would not contract."""
        self._choose(recipe)
        h = self._hierarchy
        assert h is not None
        plans, last = _plans(h), len(h.levels) - 1
        even = all(len({f for f, n in zip(p.factors, p.shape, strict=True) if n > 1}) <= 1 for p in plans)
        self._twice = TWICE if not h.levels[0].faces.numel() and even else len(plans)
        # the second correction of a level meets those below it; large ones cost too much to be looked at
        tested = [d for d, plan in enumerate(plans) if plan.size <= TESTED and 0 < d < last]
        if recipe.cycle != "V" and any(self._growth(depth) > CONTRACTION for depth in tested):
            self._choose(replace(recipe, cycle="V"))
            self._note = f", instead of {recipe.cycle}, which would not contract"

    def _learn(self, h: Hierarchy) -> None:
        assert self._tables is not None
        self._adapted = adapt(h, self._tables)

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
        if self._tables is not None:
            return self._describe_learned()
        return (
            f"multigrid: {self._used.cycle}({before},{after}), {self._used.smoother}, {len(levels)} levels"
            f"{self._note}"
        )

    def _describe_learned(self) -> str:
        levels, known = self._levels(), self._adapted.knowledge
        if known is None:
            (before, after), cycle = self._used.steps, self._used.cycle
            what = f"{cycle}({before},{after}), {len(levels)} levels{self._note}"
            return f"learned multigrid, classical channel ({self._adapted.reason}): {what}"
        if len(levels) == 1:
            return "learned multigrid: one level, which is solved, certified"
        steps = "-".join(str(len(each)) for each in known.roots[: len(levels) - 1])
        return (
            f"learned multigrid, {self._adapted.kind}: V, {steps} steps, {len(levels)} levels, certified "
            f"up to {min(known.reach):.3g}, {self._adapted.clipped} factors clipped"
        )

    def _choose(self, recipe: Multigrid) -> None:
        """Take the cycle and the smoother of a recipe."""
        if recipe.smoother == "red-black" and recipe.omega is None and self._one_color_meets():
            recipe = replace(recipe, omega=SEAM_OMEGA)
        self._used, self._note = recipe, ""
        before, after = recipe.steps
        depths = len(self._levels())
        pre, post = ([smoothing_steps(recipe, count)] * depths for count in (before, after))
        self._schedule = Schedule.of(pre, post, [recipe.correction] * depths)
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
        K, h, finest, Z = table(), self._hierarchy, self._levels()[0], self._null_space
        assert h is not None
        if Z is not None:
            r = copy_of(r)
            Z.project(r)
        b = h.vector(0, B)
        # float32 has no room for any size of r; M is linear, so a power of two changes nothing else
        size = float(r[:: len(r) // SAMPLES + 1].abs().max()) or float(r.abs().max())
        if size == 0:
            return out.zero_()
        size = _power_above(size)
        if K.level_load(r, 1 / size, finest.plan.shape, b):  # the samples missed a source
            size = _power_above(float(r.abs().max()))
            K.level_load(r, 1 / size, finest.plan.shape, b)
        self.cycle()
        K.level_store(h.vector(0, X), size / h.unit, finest.plan.shape, out)
        if Z is not None:
            Z.project(out)
        return out

    def moving(self, device: torch.device) -> tuple[Hierarchy, NullSpace | None]:
        """Return the levels on another device, for `cycle`, and the null space of A there."""
        assert self._hierarchy is not None
        Z = self._null_space
        return moved(self._hierarchy, device), None if Z is None else Z.to(device)

    def to(self, device: torch.device) -> Preconditioner:
        return self if device.type == "cpu" else MovedCycle(self, device)

    def cycle(self, kind: int | None = None, depth: int = 0, h: Hierarchy | None = None) -> None:
        """Set x from b by one cycle on a level and all below; of `h`, where they are on another device.

        `kind` is one of `kernels.reference.cycle`, else the recipe's.
        """
        kind = KINDS[self._used.cycle] if kind is None else kind
        h, schedule = h or self._hierarchy, self._schedule
        assert h is not None
        numbers = (
            h.vectors,
            h.matrices,
            h.bytes,
            h.table[depth:],
            h.places,
            h.numbers,
            h.scale,
            h.inverse,
            *(each[depth:] for each in schedule),
        )
        options = h.periodic, self._colored, kind, self._twice - depth
        table(h.vectors.device).levels_cycle(*numbers, *options, True)

    def _wrap(self, v: Tensor, shape: tuple[int, int, int]) -> None:
        assert self._hierarchy is not None
        if any(self._hierarchy.periodic):
            table().level_wrap(v, shape, self._hierarchy.periodic)

    def _growth(self, depth: int) -> float:
        """Return an estimate, from below, of the largest eigenvalue of M A of a level: power iteration.

        M A is symmetric in the inner product of A, in which the Rayleigh quotient is taken. The growth of the
        2-norm may exceed it many times over where A is badly conditioned.
        """
        h, level = self._hierarchy, self._levels()[depth]
        assert h is not None
        K, shape = table(), level.plan.shape
        given = self._modes.get(shape)
        steps = POWER_STEPS if given is None else MORE_STEPS
        if given is None:
            v = torch.randn(
                math.prod(shape), dtype=torch.float64, generator=torch.Generator().manual_seed(314159)
            )
            self._modes[shape] = given = torch.zeros_like(level.inverse)
            K.level_load(v, 1.0, shape, given)
        zero, quotient = torch.zeros_like(given), 0.0
        b, inside = h.vector(depth, B), (level.inverse != 0).to(given.dtype)
        kind = KINDS["V" if self._used.cycle == "full" else self._used.cycle]
        for _ in range(steps):
            given *= inside
            self._wrap(given, shape)
            # -A v: the cycle returns -M A v, and leaves b as it is
            K.level_residual(zero, level.inverse, h.scale, level.faces, shape, given, b)
            energy = -float(torch.dot(given, b))
            self.cycle(kind, depth)
            x = h.vector(depth, X)
            size = float(x.norm())
            if not (energy > 0 and 0 < size < math.inf):
                del self._modes[shape]
                return self._growth(depth) if steps == MORE_STEPS else abs(quotient)
            quotient = float(torch.dot(b, x)) / energy
            torch.div(x, size, out=given)
        return abs(quotient)
