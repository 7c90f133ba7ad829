"""Set-up of the levels of a grid for multigrid: the definition, plain torch and Python.

Layout and meaning of the arrays: `neuralsolve.kernels.reference.padded`. Besides, during the set-up a level
has `outlets` (3, n), its couplings to fixed values along z, y, x apart, and `attached` (n,), empty where no
cell is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from neuralsolve.kernels.reference.padded import OWN, WHOLE, beside, boxed, inside, level_wrap
from neuralsolve.kernels.reference.spans import set_spans, spanned

TIGHT = 0.02  # of the strongest coupling of two cells: weaker ones let them go apart

Shape = Sequence[int]
Cell = tuple[int, int, int]


def code_level(
    code: Tensor,
    scale: Sequence[float],
    shape: Shape,
    factors: Shape,
    spans: Tensor,
    inverse: Tensor,
    weights: Tensor,
) -> None:
    """Fill 1/diagonal and the weights of P of a level with constant coefficients, in spans of blocks.

    A cell takes a quarter from the next block along every axis on which its partner in the block is fluid and
    the way to the next block is open; where that leads to air, it takes a quarter of the value zero. A cell
    without any neighbour takes nothing: its row of A is zero.
    """
    bits = code.to(torch.int32).view(tuple(shape))
    diagonal = torch.zeros(tuple(shape))
    own, there = torch.full(tuple(shape), WHOLE), spanned(spans, shape, factors)
    for axis in range(3):
        opened = bits >> (6 + 2 * axis) & 3
        diagonal += scale[axis] * opened
        position = _positions(shape, axis)
        above = position % 2 == 0  # the partner lies above, the next block below
        lower, upper = (bits >> (2 * axis) & 1) == 1, (bits >> (2 * axis + 1) & 1) == 1
        has = (factors[axis] == 2) & ~(above & (position == shape[axis] - 1))
        ways = has & torch.where(above, upper, lower) & (opened == 2)
        own = own - torch.where(ways, WHOLE // 4, 0)
        taken = torch.where(ways & torch.where(above, lower, upper), WHOLE // 4, 0)
        _put(weights[axis], shape, there, taken)
    _put(weights[OWN], shape, there, torch.where(diagonal > 0, own, 0))
    _put(inverse, shape, there, torch.where(diagonal > 0, 1 / diagonal, 0.0))


def coarse_couplings(
    code: Tensor,
    scale: Sequence[float],
    faces: Tensor,
    outlets: Tensor,
    attached: Tensor,
    shape: Shape,
    factors: Shape,
    shares: Sequence[float],
    coarse_shape: Shape,
    spans: Tensor,
    coarse_faces: Tensor,
    coarse_outlets: Tensor,
) -> None:
    """Sum couplings and outlets, from a code or from those of a level, for spans of the level below.

    A coarse face sums the fine ones in it, halved along an axis that is coarsened: the way is twice as long.
    A block sums the outlets of its cells, of which `shares` is left. Attached cells are left out.
    """
    couplings, fixed = (
        _from_code(code, scale, shape) if code.numel() else (inside(faces[:3], shape), inside(outlets, shape))
    )
    free, there = torch.ones(tuple(shape), dtype=torch.bool), spanned(spans, coarse_shape, (1, 1, 1))
    for axis in range(3):
        kept = couplings[axis]
        if attached.numel():
            free = inside(attached, shape) == 0
            kept = kept * free * (beside(attached, shape, axis, -1) == 0)
        first = _positions(shape, axis) % factors[axis] == 0
        if coarse_shape[axis] > 1:
            half = 1 / factors[axis]
            _put(coarse_faces[axis], coarse_shape, there, _block_sums(half * kept * first, factors))
        left = _block_sums(shares[axis] * fixed[axis] * free, factors)
        _put(coarse_outlets[axis], coarse_shape, there, left)


def coarse_attached(
    faces: Tensor,
    outlets: Tensor,
    attached: Tensor,
    shape: Shape,
    factors: Shape,
    shares: Sequence[float],
    coarse_shape: Shape,
    periodic: Sequence[bool],
    coarse_faces: Tensor,
    coarse_outlets: Tensor,
) -> None:
    """Add couplings and outlets of the attached cells to the level below.

    Where the two ends of a coupling have come to lie m coarse faces apart, all faces on a way from one to the
    other get m times the coupling: in series they amount to it.
    """
    flags, g, out = inside(attached, shape), boxed(faces[:3], shape), inside(outlets, shape)
    lift = (int(shape[0] > 1), 1, 1)
    for cell in _cells(shape):
        if not flags[cell]:
            continue
        here = _target(cell, int(flags[cell]), factors, coarse_shape)
        for axis, up in product(range(3), (0, 1)):
            if not up:
                inside(coarse_outlets[axis], coarse_shape)[here] += shares[axis] * out[axis][cell]
            if shape[axis] == 1:
                continue
            other = _moved(cell, axis, 2 * up - 1, shape)
            place = [i + k for i, k in zip(cell, lift, strict=True)]
            place[axis] += up
            coupling = float(g[axis][tuple(place)]) / factors[axis]
            if coupling <= 0 or (up and flags[other]):
                continue
            way = list(
                _way(here, _target(other, int(flags[other]), factors, coarse_shape), coarse_shape, periodic)
            )
            for step_axis, upper in way:
                inside(coarse_faces[step_axis], coarse_shape)[upper] += len(way) * coupling


def level_attach(
    faces: Tensor,
    inverse: Tensor,
    shape: Shape,
    factors: Shape,
    coarse_shape: Shape,
    periodic: Sequence[bool],
    spans: Tensor,
    around: Tensor,
    main: Tensor,
    out: Tensor,
) -> bool:
    """Fill out (n,) bytes with 1 + axis for cells that belong to the next block along it, 0 for others.

    Two cells hold together where their coupling is at least `TIGHT` of the strongest that either has. A block
    falls into parts that do. Of those about as strong as its strongest one the largest stays; of equal ones
    that with fewest couplings to next blocks, as at a wall its cells have nowhere to go; then the first. The
    others leave: a cell of them is attached to the next block along the axis of its strongest coupling to a
    cell that stays there and that it holds to. Where there is none it stays. Weak parts stay too. Returns
    whether cells are attached.

    In the blocks of `spans`, main (n,) bytes is set to 1 for cells that stay and to 0 for others; out is set
    in those of `around`, which holds those next to them too, and `around` to the spans in which it changed.

    Without this a coarse cell would tie together what a thin wall parts, or two conductors with an insulator
    between them: modes of little energy, of which the coarse level would think that they have much.
    """
    there, stay = spanned(spans, shape, factors), torch.ones(tuple(shape), dtype=torch.uint8)
    active, lower = inside(inverse, shape) != 0, inside(faces[:3], shape)
    strongest = torch.stack(
        [inside(faces[a], shape) for a in range(3)] + [beside(faces[a], shape, a, 1) for a in range(3)]
    ).amax(0)
    ways = sum(
        torch.where(_positions(shape, a) % 2 == 1, beside(faces[a], shape, a, 1), lower[a]) > 0
        for a in range(3)
        if factors[a] == 2
    )
    for block in _cells(coarse_shape):
        corner = [b * f for b, f in zip(block, factors, strict=True)]
        cells = [
            cell
            for k in product(*(range(f) for f in factors))
            if all(c + i < n for c, i, n in zip(corner, k, shape, strict=True))
            and active[cell := (corner[0] + k[0], corner[1] + k[1], corner[2] + k[2])]
        ]
        for cell, stays in zip(
            cells, _staying(cells, lower, strongest, torch.as_tensor(ways), shape), strict=True
        ):
            stay[cell] = stays
    _put(main, shape, there, stay)
    level_wrap(main, shape, periodic)
    flags = inside(main, shape)
    best, choice = torch.zeros(tuple(shape)), torch.zeros(tuple(shape), dtype=torch.uint8)
    for axis in range(3):
        above = _positions(shape, axis) % 2 == 1
        g = torch.where(above, beside(faces[axis], shape, axis, 1), lower[axis])
        other = torch.where(above, beside(main, shape, axis, 1), beside(main, shape, axis, -1))
        holds = g >= TIGHT * torch.where(
            above, strongest.roll(-1, axis).maximum(strongest), strongest.roll(1, axis).maximum(strongest)
        )
        better = active & (flags == 0) & (other != 0) & (g > best) & holds & (factors[axis] == 2)
        best, choice = torch.where(better, g, best), torch.where(better, 1 + axis, choice)
    old = inside(out, shape).clone()
    _put(out, shape, spanned(around, shape, factors), choice)
    moved = _block_sums((inside(out, shape) != old).float(), factors) > 0
    set_spans(moved.reshape(-1, coarse_shape[2]), around)
    level_wrap(out, shape, periodic)
    return bool(inside(out, shape).any())


def _staying(cells: list[Cell], lower: Tensor, strongest: Tensor, ways: Tensor, shape: Shape) -> list[bool]:
    """Return which cells of a block stay in it."""
    parts = {cell: i for i, cell in enumerate(cells)}
    for _ in cells:
        for cell, axis in product(cells, range(3)):
            below = _moved(cell, axis, -1, shape)
            if cell[axis] == 0 or below not in parts:
                continue
            g = lower[axis][cell]
            if g > 0 and g >= TIGHT * max(strongest[cell], strongest[below]):
                parts[cell] = parts[below] = min(parts[cell], parts[below])
    numbers = list(parts.values())
    strength = {p: max(float(strongest[c]) for c in cells if parts[c] == p) for p in set(numbers)}
    bound = float(torch.tensor(TIGHT) * max(strength.values(), default=0.0))
    strong = sorted(p for p in strength if strength[p] >= bound)
    out = {p: sum(int(ways[c]) for c in cells if parts[c] == p) for p in strong}
    best = max(strong, key=lambda p: (numbers.count(p), -out[p]), default=-1)
    return [parts[cell] == best or strength[parts[cell]] < bound for cell in cells]


def level_diagonal(
    faces: Tensor, outlets: Tensor, shape: Shape, factors: Shape, spans: Tensor, inverse: Tensor
) -> None:
    """Set the last row of faces to the sums of the outlets, and inverse to 1/diagonal, 0 where that is 0.

    In spans of blocks.
    """
    total, there = inside(outlets, shape).sum(0), spanned(spans, shape, factors)
    _put(faces[3], shape, there, total)
    for axis in range(3):
        total = total + inside(faces[axis], shape) + beside(faces[axis], shape, axis, 1)
    _put(inverse, shape, there, torch.where(total > 0, 1 / total, 0.0))


def level_weights(
    faces: Tensor,
    outlets: Tensor,
    inverse: Tensor,
    attached: Tensor,
    nominal: Sequence[float],
    shape: Shape,
    factors: Shape,
    spans: Tensor,
    out: Tensor,
) -> None:
    """Fill the weights of P of a level with couplings of its own, in spans of blocks.

    The last row of faces holds the sums of the outlets.

    Along an axis a cell takes half of the outward part of its two couplings from the next block: a quarter
    where they are equal, less where its partner holds it, up to a half where the next block does; nothing
    without a partner. Axes of couplings that are weak for them, in units of `nominal`, take less than the
    strongest. An attached cell takes all from the next block along its axis.
    """
    w, strength, fluid = (torch.zeros((3, *shape)) for _ in range(3))
    flags = inside(attached, shape) if attached.numel() else torch.zeros(tuple(shape), dtype=torch.uint8)
    for axis in range(3):
        if factors[axis] == 1:
            continue
        position = _positions(shape, axis)
        above = position % 2 == 0
        low, high = inside(faces[axis], shape), beside(faces[axis], shape, axis, 1)
        alone = above & (position == shape[axis] - 1)
        if attached.numel():
            alone = alone | (beside(attached, shape, axis, -1) > 0) | (beside(attached, shape, axis, 1) > 0)
        outward, inward = (
            torch.where(above, low, high),
            torch.where(alone, 0.0, torch.where(above, high, low)),
        )
        fluid[axis] = (outward > 0) & (inward > 0)
        outward = torch.where(outward > 0, outward, inside(outlets[axis], shape))
        both = (inward > 0) & (outward > 0)
        w[axis] = torch.where(both, 0.5 * outward / (outward + inward), 0.0)
        strength[axis] = torch.maximum(inward, outward) / nominal[axis]
    strongest = strength.amax(0)
    w = torch.where(strongest > 0, w * strength / strongest, w)
    parts = (WHOLE / w.sum(0).clamp(min=1) * w).to(torch.int32)
    taken = torch.where(fluid != 0, parts, 0)
    own = torch.where(inside(inverse, shape) > 0, WHOLE - parts.sum(0), 0)
    for axis in range(3):
        taken[axis] = torch.where(flags > 0, WHOLE * (flags == 1 + axis), taken[axis])
    weights, there = torch.cat([taken, torch.where(flags > 0, 0, own)[None]]), spanned(spans, shape, factors)
    for row, values in zip(out, weights, strict=True):
        _put(row, shape, there, values)


def coarsest_matrix(faces: Tensor, shape: Shape, periodic: Sequence[bool], out: Tensor) -> None:
    """Add the dense matrix of a small level to out (n, n), cells in C order."""
    number = torch.arange(out.shape[0]).view(tuple(shape))
    for cell in _cells(shape):
        i = int(number[cell])
        out[i, i] += inside(faces[3], shape)[cell]
        for axis in range(3):
            if cell[axis] > 0 or periodic[axis]:
                j = int(number[_moved(cell, axis, -1, shape)])
                g = inside(faces[axis], shape)[cell]
                for p, q, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
                    out[p, q] += sign * g


def _put(v: Tensor, shape: Shape, there: Tensor, values: Tensor) -> None:
    """Set the cells of a padded vector that are marked."""
    cells = inside(v, shape)
    cells.copy_(torch.where(there, values.to(v.dtype), cells))


def _positions(shape: Shape, axis: int) -> Tensor:
    """Return the coordinate of every cell along an axis, broadcast over the others."""
    view = [1, 1, 1]
    view[axis] = shape[axis]
    return torch.arange(shape[axis]).view(view).expand(tuple(shape))


def _cells(shape: Shape) -> Iterator[Cell]:
    return product(*(range(n) for n in shape))  # type: ignore[return-value]


def _moved(cell: Cell, axis: int, step: int, shape: Shape) -> Cell:
    there = list(cell)
    there[axis] = (there[axis] + step) % shape[axis]
    return there[0], there[1], there[2]


def _target(cell: Cell, flag: int, factors: Shape, coarse_shape: Shape) -> Cell:
    """Return the coarse cell that a fine one belongs to."""
    z, y, x = (i // f for i, f in zip(cell, factors, strict=True))
    if flag == 0:
        return z, y, x
    return _moved((z, y, x), flag - 1, 1 if cell[flag - 1] % 2 else -1, coarse_shape)


def _way(here: Cell, there: Cell, shape: Shape, periodic: Sequence[bool]) -> Iterator[tuple[int, Cell]]:
    """Yield (axis, upper cell) of the faces on the shortest way, z first."""
    for axis in range(3):
        while here[axis] != there[axis]:
            ahead, n = there[axis] - here[axis], shape[axis]
            up = 2 * (ahead % n) <= n if periodic[axis] else ahead > 0
            beyond = _moved(here, axis, 1 if up else -1, shape)
            yield axis, (beyond if up else here)
            here = beyond


def _from_code(code: Tensor, scale: Sequence[float], shape: Shape) -> tuple[Tensor, Tensor]:
    """Return couplings to the lower neighbours and outlets, (3, *shape) each."""
    bits = code.to(torch.int32).view(tuple(shape))
    lower, fixed = [], []
    for axis in range(3):
        below, above = bits >> (2 * axis) & 1, bits >> (2 * axis + 1) & 1
        lower.append(scale[axis] * below)
        fixed.append(scale[axis] * ((bits >> (6 + 2 * axis) & 3) - below - above))
    return torch.stack(lower).float(), torch.stack(fixed).float()


def _block_sums(v: Tensor, factors: Shape) -> Tensor:
    """Sum over blocks; a last half block counts as it is."""
    for axis, factor in enumerate(factors):
        if factor == 2:
            first = v.index_select(axis, torch.arange(0, v.shape[axis], 2))
            second = v.index_select(axis, torch.arange(1, v.shape[axis], 2))
            first.narrow(axis, 0, second.shape[axis]).add_(second)
            v = first
    return v
