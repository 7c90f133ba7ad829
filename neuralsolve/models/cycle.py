"""A differentiable multigrid cycle on batches of small grids, for training what `NeuralMultigrid` knows.

The same passes as `neuralsolve.kernels.reference.padded`, without periodic sides, on levels that are taken
from a `Hierarchy` as they stand: M r is one V-cycle, with the factors of
`neuralsolve.kernels.reference.learned` on all levels but the finest, or with conductors. Vectors are
(batch, n), cells in C order, zero where a cell takes no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neuralsolve.kernels.reference.learned import Side, factors, first_layer, sides
from neuralsolve.kernels.reference.padded import OWN, WHOLE, inside
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.preconditioners.conductors import Conductors
from neuralsolve.preconditioners.learned import LARGEST, Knowledge
from neuralsolve.preconditioners.levels import COARSEST, Plan, build

F64 = torch.float64


@dataclass
class TorchLevel:
    """One level of a batch.

    Attributes
    ----------
    lower : (3, batch, nz, ny, nx) couplings to the lower neighbours
    fixed : (batch, nz, ny, nx) couplings to fixed values
    factor : (batch, nz, ny, nx) on 1/diagonal, in the smoother
    weights : (4, batch, n) of P, at most one a row
    places : (4, n) block that each of them takes from
    conductors : (batch, k, n) one where a cell is of a conductor; of k of the scene with the most
    energies : (batch, k, k) inverse of the matrix of their couplings, zero where a scene has fewer
    """

    plan: Plan
    lower: Tensor
    fixed: Tensor
    factor: Tensor
    weights: Tensor
    places: Tensor
    conductors: Tensor
    energies: Tensor

    @property
    def diagonal(self) -> Tensor:
        """Row sums of the couplings, (batch, nz, ny, nx)."""
        total = self.fixed
        for axis in range(3):
            total = total + self.lower[axis] + _upper(self.lower[axis], axis)
        return total

    def product(self, x: Tensor) -> Tensor:
        """Return A x."""
        u = x.view(self.fixed.shape)
        out = self.fixed * u
        for axis in range(3):
            if u.shape[1 + axis] == 1:
                continue
            n = u.shape[1 + axis]
            g = self.lower[axis].narrow(1 + axis, 1, n - 1)
            flow = g * (u.narrow(1 + axis, 1, n - 1) - u.narrow(1 + axis, 0, n - 1))
            out = out + _padded(flow, 1 + axis, True) - _padded(flow, 1 + axis, False)
        return out.reshape(x.shape)

    def prolong(self, e: Tensor) -> Tensor:
        """Return P e."""
        return torch.stack([w * e[:, at] for w, at in zip(self.weights, self.places, strict=True)]).sum(0)

    def restrict(self, r: Tensor, cells: int) -> Tensor:
        """Return P^T r."""
        out = r.new_zeros((len(r), cells))
        for w, place in zip(self.weights, self.places, strict=True):
            out = out.index_add(1, place, w * r)
        return out


def _upper(lower: Tensor, axis: int) -> Tensor:
    """Return the couplings to the upper neighbours; the last ones are zero."""
    return _neighbour(lower, axis, True)


def _padded(v: Tensor, axis: int, front: bool) -> Tensor:
    """Return v with a layer of zeros more along an axis."""
    zeros = v.new_zeros([1 if k == axis else n for k, n in enumerate(v.shape)])
    return torch.cat([zeros, v] if front else [v, zeros], axis)


def levels_of(operators: Sequence[PoissonStencil], coarsest: int) -> list[TorchLevel]:
    """Return the levels of operators of one shape and kind, without periodic sides, each in its own unit."""
    hierarchies = [build(A, coarsest=coarsest) for A in operators]
    plans = [level.plan for level in hierarchies[0].levels]
    levels = []
    for depth, plan in enumerate(plans):
        given = [h.levels[depth] for h in hierarchies]
        weights = torch.stack([inside(each.weights, plan.shape) for each in given], 1).to(F64) / WHOLE
        if depth == 0 and operators[0].code is not None:
            lower, fixed = _finest(operators, hierarchies[0].scale)
        else:
            faces = torch.stack([inside(each.faces, plan.shape) for each in given], 1).to(F64)
            lower, fixed = faces[:3], faces[3]
        below = plans[depth + 1].shape if depth + 1 < len(plans) else plan.shape
        level = TorchLevel(
            plan,
            lower,
            fixed,
            torch.ones_like(fixed),
            weights.flatten(2),
            _places(plan, below),
            *_conductors([each.conductors for each in given], plan),
        )
        levels.append(level)
    return levels


def _conductors(given: Sequence[Conductors], plan: Plan) -> tuple[Tensor, Tensor]:
    """Return the indicators (batch, k, n) of the conductors of a level, and the inverses (batch, k, k)."""
    most, cells = max(len(each.inverse) for each in given), int(np.prod(plan.shape))
    marks = torch.zeros((len(given), most, plan.size), dtype=F64)
    energies = torch.zeros((len(given), most, most), dtype=F64)
    for scene, each in enumerate(given):
        for number, first, end in each.runs.T.tolist():
            marks[scene, number, first:end] = 1
        k = len(each.inverse)
        energies[scene, :k, :k] = each.inverse
    rows = [inside(mark, plan.shape).reshape(-1) for mark in marks.flatten(0, 1)]
    return torch.stack(rows).view(len(given), most, cells) if most else marks[..., :cells], energies


def _places(plan: Plan, coarse: Sequence[int]) -> Tensor:
    """Return the blocks (4, n) that cells take from, z, y, x and own; inside the box, whatever the weight."""
    fine = torch.meshgrid(*(torch.arange(n) for n in plan.shape), indexing="ij")
    block = [i // f for i, f in zip(fine, plan.factors, strict=True)]
    strides = (coarse[1] * coarse[2], coarse[2], 1)

    def number(parts: list[Tensor]) -> Tensor:
        return sum(p * s for p, s in zip(parts, strides, strict=True)).reshape(-1)  # type: ignore

    rows = []
    for axis in range(3):
        step = 2 * (fine[axis] % 2) - 1 if plan.factors[axis] == 2 else 0 * fine[axis]
        moved = (block[axis] + step).clamp(0, coarse[axis] - 1)
        rows.append(number([moved if a == axis else block[a] for a in range(3)]))
    rows.insert(OWN, number(block))
    return torch.stack(rows)


def _finest(operators: Sequence[PoissonStencil], scale: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return the couplings to lower neighbours, (3, batch, ...), and to fixed values, from the codes."""
    codes = [A.code for A in operators if A.code is not None]
    bits = torch.stack([code.to(torch.int64).view(operators[0].shape3) for code in codes])
    lower, fixed = [], torch.zeros(bits.shape, dtype=F64)
    for axis in range(3):
        below, above = bits >> (2 * axis) & 1, bits >> (2 * axis + 1) & 1
        lower.append((scale[axis] * below).to(F64))
        fixed = fixed + scale[axis] * ((bits >> (6 + 2 * axis) & 3) - below - above)
    return torch.stack(lower), fixed


def volumes(levels: Sequence[TorchLevel]) -> list[Tensor]:
    """Return the parts of the cells of every level that are fluid on the finest one."""
    found = [(levels[0].diagonal > 0).to(F64)]
    for level in levels[:-1]:
        v = found[-1]
        for axis, factor in enumerate(level.plan.factors, 1):
            if factor == 2:
                v = v if v.shape[axis] % 2 == 0 else _padded(v, axis, False)
                v = 0.5 * v.unflatten(axis, (-1, 2)).sum(axis + 1)
        found.append(v)
    return found


def seen_by(level: TorchLevel, volume: Tensor) -> dict[Side, Tensor]:
    """Return what the networks see of a level: it does not depend on what is learned."""
    long = [axis for axis in range(3) if level.plan.shape[axis] > 1]
    lower = {axis: level.lower[axis] for axis in long}
    upper = {axis: _upper(level.lower[axis], axis) for axis in long}
    near = {
        (axis, up): (_neighbour(level.fixed, axis, up), _neighbour(volume, axis, up))
        for axis in long
        for up in (False, True)
    }
    return sides(lower, upper, level.fixed, volume, near, level.plan.nominal)


def adapted(
    level: TorchLevel,
    seen: dict[Side, Tensor],
    face_net: Tensor,
    cell_net: Tensor,
    reach: float = LARGEST,
) -> TorchLevel:
    """Return a level with the learned factors on it, those of the smoother clipped as at set-up."""
    lower = list(level.lower)
    for axis, up in seen:
        if up:
            above = _neighbour(first_layer(seen[axis, True], face_net), axis, False)
            below = first_layer(seen[axis, False], face_net)
            lower[axis] = lower[axis] * factors(below + above, 2, face_net)[..., 0]
    hidden = torch.stack([first_layer(each, cell_net) for each in seen.values()]).sum(0)
    by = factors(hidden, len(seen), cell_net)
    new = replace(level, lower=torch.stack(lower), fixed=by[..., 0] * level.fixed)
    d = new.diagonal
    new.factor = torch.minimum(by[..., 1], reach * d / (2 * d - new.fixed).clamp(min=1e-30))
    return new


def _neighbour(v: Tensor, axis: int, up: bool) -> Tensor:
    """Return the values of the neighbours along an axis, zero beyond the box; the batch comes first."""
    n = v.shape[1 + axis]
    return _padded(v.narrow(1 + axis, int(up), n - 1), 1 + axis, not up)


class TorchCycle:
    """M r by one V-cycle: `roots` are the weights of the steps of a level, the same before and after."""

    def __init__(self, levels: list[TorchLevel], roots: Sequence[Tensor], gains: Sequence[Tensor]):
        self.levels, self.roots, self.gains = levels, roots, gains
        self.inverse = [
            torch.where(d > 0, level.factor / torch.where(d > 0, d, 1), 0).flatten(1)
            for level in levels
            for d in [level.diagonal]
        ]
        self.coarsest = self._dense(levels[-1])

    def _dense(self, level: TorchLevel) -> Tensor:
        """Return the inverse of the coarsest matrices, (batch, n, n); singular ones are lifted by 1e-10."""
        n = level.fixed[0].numel()
        unit = torch.eye(n, dtype=F64)
        columns = [level.product(row.expand(len(level.fixed), n)) for row in unit]
        A = torch.stack(columns, 2)
        diagonal = torch.diagonal(A, dim1=1, dim2=2)
        empty = diagonal == 0
        lifted = A + torch.diag_embed(torch.where(empty, 1.0, 1e-10 * diagonal))
        inverse = torch.linalg.inv(lifted)
        return inverse * (~empty)[:, :, None] * (~empty)[:, None, :]

    def smooth(self, k: int, b: Tensor, x: Tensor | None) -> Tensor:
        for root in self.roots[k]:
            r = b if x is None else b - self.levels[k].product(x)
            step = root * self.inverse[k] * r
            x = step if x is None else x + step
        assert x is not None
        return x

    def correct(self, k: int, b: Tensor, x: Tensor | None) -> Tensor | None:
        """Correct the means of the conductors of level k; None is zero."""
        level = self.levels[k]
        if not level.conductors.shape[1]:
            return x
        r = b if x is None else b - level.product(x)
        means = torch.einsum("bij,bjn,bn->bi", level.energies, level.conductors, r)
        step = torch.einsum("bi,bin->bn", means, level.conductors)
        return step if x is None else x + step

    def apply(self, b: Tensor, k: int = 0) -> Tensor:
        """Return M b of level k."""
        if k + 1 == len(self.levels):
            return torch.einsum("bij,bj->bi", self.coarsest, b)
        level = self.levels[k]
        x = self.smooth(k, b, self.correct(k, b, None))
        active = (self.inverse[k] != 0).to(b.dtype)
        r = (b - level.product(x)) * active
        coarse = self.levels[k + 1].fixed[0].numel()
        x = x + level.prolong(self.apply(self.gains[k] * level.restrict(r, coarse), k + 1))
        corrected = self.correct(k, b, self.smooth(k, b, x))
        assert corrected is not None
        return corrected


def cycle_of(A: PoissonStencil, known: Knowledge, coarsest: int = COARSEST) -> TorchCycle:
    """Return in float64 the cycle that `NeuralMultigrid` runs in float32.

    Its levels are in units of A's largest coupling, which are one where the spacing is.
    """
    levels, last = levels_of([A], coarsest), len(known.roots) - 1
    faces, cells = known.faces.to(F64), known.cells.to(F64)
    if len(faces):
        seen = [seen_by(level, v) for level, v in zip(levels, volumes(levels), strict=True)]
        for k in range(1, len(levels)):
            at = min(k, len(faces)) - 1
            levels[k] = adapted(levels[k], seen[k], faces[at], cells[at], known.reach[min(k, last)])
    used = [min(k, last) for k in range(len(levels))]
    roots, gains = ([torch.tensor(each[k], dtype=F64) for k in used] for each in (known.roots, known.gains))
    return TorchCycle(levels, roots, gains)


def cg_errors(A: TorchLevel, cycle: TorchCycle, y: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return ||y - x_K||_A^2/||y||_A^2 and ||b - A x_K||^2/||b||^2, (batch,), of K steps of CG from zero."""
    b = A.product(y)
    x, r = torch.zeros_like(y), b
    z = cycle.apply(r)
    p, rz = z, (r * z).sum(1)
    for k in range(steps):
        Ap = A.product(p)
        alpha = rz / (p * Ap).sum(1)
        x, r = x + alpha[:, None] * p, r - alpha[:, None] * Ap
        if k + 1 < steps:
            z = cycle.apply(r)
            new = (r * z).sum(1)
            p, rz = z + (new / rz)[:, None] * p, new
    return ((y - x) * r).sum(1) / (y * b).sum(1), (r * r).sum(1) / (b * b).sum(1)
