"""Fills the levels of geometric multigrid, anew or where a coupling has changed.

`levels` says what the levels are, `kernels.reference.spans` how a part of one is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from neuralsolve.kernels import table
from neuralsolve.operators.stencil import PoissonStencil

if TYPE_CHECKING:
    from neuralsolve.preconditioners.levels import Couplings, Hierarchy, Level, Plan

NO_FACES = torch.empty((4, 0), dtype=torch.float32)
NO_OUTLETS = torch.empty((3, 0), dtype=torch.float32)
NONE_ATTACHED = torch.empty(0, dtype=torch.uint8)
NO_LEAKS = torch.empty((3, 0), dtype=torch.uint8)
NO_SPANS = torch.empty((0, 2), dtype=torch.int32)
NO_CODE = torch.empty(0, dtype=torch.uint16)
NEAR = 64.0  # times the mean coupling, or less: a unit that an update keeps
STEPS = 4  # to a doubling, to which mean coefficients along the axes are rounded: P follows no small changes
REGULAR = 1e-6  # of a diagonal entry: with smaller pivots the coarsest matrix is taken to be singular
RANK_TOLERANCE = 1e-12  # of the largest eigenvalue: smaller ones are those of regions without a way out


def refill(
    A: PoissonStencil, h: Hierarchy, changed: Tensor, adapt: Callable[[Hierarchy], None] | None = None
) -> Tensor:
    """Fill the levels with the couplings of A; return the inverse of the coarsest matrix.

    Where A has coefficients those of the finest level are there already, `changed` in spans of its lines.
    `adapt` may change the levels when they are filled; it says in `filled` whether an update must fill them
    anew.
    """
    K, levels, filled, scale = table(A.device), h.levels, h.filled, tuple(s / h.unit for s in A.scale)
    key = [replace(level.plan) for level in levels], h.unit, scale
    same = filled.whole and filled.key == key and not any(h.periodic)
    filled.whole = False
    code = NO_CODE if A.code is None else A.code
    if same and A.code is not None:
        changed = all_rows(A.shape3)
        K.code_changes(filled.code, code, A.shape3, changed)
    reach: list[Tensor] = []
    for k, fine in enumerate(levels):
        plan, last = fine.plan, k + 1 == len(levels)
        blocks = tuple(-(-n // f) for n, f in zip(plan.shape, plan.factors, strict=True))
        spans = all_rows(blocks)
        if same:
            K.spans_below(changed, plan.shape, plan.factors, spans)
        if k == 0 and A.code is not None:
            K.code_level(code, scale, plan.shape, plan.factors, spans, fine.inverse, fine.weights)
            wrap_all(fine.weights, plan, h.periodic)
            found = NONE_ATTACHED
            reach.append(NO_SPANS)
        else:
            was = filled.reach[k] if same else NO_SPANS
            rest = h.spare[k], h.parts[k], h.periodic, spans
            found = _finish(fine, None if last else blocks, *rest, len(was) > 0)
            reach.append(torch.zeros_like(spans) if len(found) else NO_SPANS)
            if len(found) and not any(h.periodic):
                K.spans_attached(found, plan.shape, plan.factors, blocks, reach[k])
                K.spans_join(reach[k], spans)
            if len(was):
                K.spans_join(was, spans)
        if last:
            break
        given = h.spare[k], found, plan.shape, plan.factors, plan.shares, blocks
        faces, below = levels[k + 1].faces, h.spare[k + 1]
        K.coarse_couplings(code if k == 0 else NO_CODE, scale, fine.faces, *given, spans, faces, below)
        if len(found):
            K.coarse_attached(fine.faces, *given, h.periodic, faces, below)
        changed = spans
    for level in levels:
        if level.colors is not None:
            _paint(level)
    filled.code, filled.key, filled.reach, filled.whole = code, key, reach, True
    if adapt is not None:
        adapt(h)
    return _coarsest_inverse(A, levels[-1], h.unit, h.periodic)


def all_rows(shape: Sequence[int]) -> Tensor:
    """Return spans of all blocks, or of all cells of lines."""
    nz, ny, nx = shape
    spans = np.empty((nz * ny, 2), np.int32)
    spans[:, 0], spans[:, 1] = 0, nx
    return torch.from_numpy(spans)


def _finish(
    level: Level,
    blocks: Sequence[int] | None,
    outlets: Tensor,
    parts: Tensor,
    periodic: tuple[bool, ...],
    spans: Tensor,
    was: bool,
) -> Tensor:
    """Fill what follows from the couplings of a level, in spans of its blocks.

    Returns which cells are attached to the next block; `was` tells whether any was before. The spans are
    widened by what depends on that.
    """
    K, plan = table(), level.plan
    room = plan.shape, plan.factors
    wrap_all(level.faces[:3], plan, periodic)
    K.level_diagonal(level.faces, outlets, *room, spans, level.inverse)
    if blocks is None:
        return NONE_ATTACHED
    around = torch.empty_like(spans)
    K.spans_around(spans, blocks, around)
    main, attached = parts
    found = K.level_attach(level.faces, level.inverse, *room, blocks, periodic, spans, around, main, attached)
    if found or was:
        moved = torch.empty_like(spans)
        K.spans_around(around, blocks, moved)  # beside cells that were not attached, or are no more
        K.spans_join(moved, spans)
    attached = attached if found else NONE_ATTACHED
    K.level_weights(level.faces, outlets, level.inverse, attached, plan.nominal, *room, spans, level.weights)
    wrap_all(level.weights, plan, periodic)
    return attached


def wrap_all(rows: Iterable[Tensor], plan: Plan, periodic: tuple[bool, ...]) -> None:
    """Fill the layers around the box of some vectors along periodic axes."""
    if any(periodic):
        for row in rows:
            table().level_wrap(row, plan.shape, periodic)


def load(A: PoissonStencil, before: Hierarchy | None) -> tuple[Tensor, Couplings, float]:
    """Return where couplings differ from before, the usual ones along z, y, x, and the unit.

    Where there is room from before the finest level is filled with them.
    """
    changed, unit = all_rows(A.shape3), 1.0 if before is None else before.unit
    sums = load_faces(A, unit, before, changed)
    means = [total / count if count else 0.0 for total, count in sums.tolist()]
    most = max(means) or 1.0
    if before is None or not most / NEAR <= unit <= most * NEAR:
        unit = 2.0 ** math.ceil(math.log2(most))
        if before is not None:
            load_faces(A, unit, before, changed)
    # spacings as they are: linear functions are interpolated exactly
    shares = [m / s if s else 0.0 for m, s in zip(means, A.scale, strict=True)]
    largest = max(shares) or 1.0
    z, y, x = (
        s * 2.0 ** (round(STEPS * math.log2(share / largest)) / STEPS) if share else 0.0
        for s, share in zip(A.scale, shares, strict=True)
    )
    return changed, (z, y, x), unit


def load_faces(A: PoissonStencil, unit: float, h: Hierarchy | None, changed: Tensor) -> Tensor:
    """Fill the couplings of the finest level, if there is one; return sums and counts of A's."""
    K, given = table(A.device), A.face_data()
    if h is None:
        return K.level_faces(*given, unit, NO_FACES, NO_OUTLETS, NO_LEAKS, changed)
    filled = h.filled
    if not filled.whole:
        filled.leaks.fill_(1)
    filled.whole, whole = False, filled.whole
    sums = K.level_faces(*given, unit, h.levels[0].faces, h.spare[0], filled.leaks, changed)
    filled.whole = whole
    return sums


def _paint(level: Level) -> None:
    """Split 1/diagonal into that of the red cells, z + y + x even, and that of the black ones."""
    assert level.colors is not None
    padded = level.plan.padded
    parity = sum(
        torch.arange(n).view([-1 if a == axis else 1 for a in range(3)]) for axis, n in enumerate(padded)
    )
    red = ((torch.as_tensor(parity) + (padded[0] > 1) * 3) % 2 == 0).reshape(-1)
    level.colors[0].copy_(torch.where(red, level.inverse, 0.0))
    level.colors[1].copy_(torch.where(red, 0.0, level.inverse))


def _coarsest_inverse(A: PoissonStencil, level: Level, unit: float, periodic: tuple[bool, ...]) -> Tensor:
    """Return the pseudo-inverse of the coarsest matrix; singular where a region has no way out.

    In float64: where coefficients jump, rounding its entries would take the definiteness.
    """
    nz, ny, nx = level.plan.shape
    if level.faces.numel():
        dense = torch.zeros((nz * ny * nx,) * 2, dtype=torch.float64)
        table().coarsest_matrix(level.faces, level.plan.shape, periodic, dense)
    else:
        dense = torch.from_numpy(A.to_scipy().toarray()) / unit
    empty = dense.diagonal() == 0
    whole = dense + torch.diag(empty.to(dense.dtype))
    root, failed = torch.linalg.cholesky_ex(whole)
    if not failed and bool((root.diagonal().square() > REGULAR * whole.diagonal()).all()):
        inverse = torch.cholesky_inverse(root)
    else:
        values, vectors = torch.linalg.eigh(dense)
        good = values > RANK_TOLERANCE * values.max().clamp(min=0)
        inverse = (vectors[:, good] / values[good] @ vectors[:, good].T).contiguous()
    inverse[empty], inverse[:, empty] = 0.0, 0.0  # but for rounding, they are
    return inverse
