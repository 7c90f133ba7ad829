"""Conductors of a level of multigrid, and the correction of their means: the definition.

A conductor is a connected region whose couplings to the rest are weak for its own cells. Its indicator z has
little energy z.Az, so an error that is constant on it hardly shows in the residual; a coarse level that ties
two of them together in one cell cannot remove it. Layout: `neuralsolve.kernels.reference.padded`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from neuralsolve.kernels.reference.padded import beside, boxed, inside, level_wrap
from neuralsolve.kernels.reference.stencil import INSIDE

APART = 0.05  # of the strongest coupling of a cell: a weaker one does not hold it

Shape = Sequence[int]


def conductor_code(
    faces: Tensor,
    inverse: Tensor,
    nominal: Sequence[float],
    shape: Shape,
    periodic: Sequence[bool],
    code: Tensor,
) -> bool:
    """Describe which couplings of a level hold, so that `stencil_regions` finds the conductors.

    A coupling holds a cell if it is at least `APART` of the strongest one that the cell has, both in units of
    `nominal`, what is usual along their axes. Cells are coupled where it holds both; a cell that is held from
    outside alone, or by a fixed value, has a way out.

    Parameters
    ----------
    faces, inverse : of the level; `faces` with its layer filled along periodic axes
    code : (n,) uint16, without a layer
        Overwritten, bits as of `stencil_code`: a cell with a way out counts one more open face along z.

    Returns
    -------
    bool
        Whether a conductor may exist. Where couplings differ too little for one, `code` is left as it is.
    """
    low = [inside(faces[a], shape) / nominal[a] for a in range(3)]
    high = [beside(faces[a], shape, a, 1) / nominal[a] for a in range(3)]
    every = torch.stack(low)
    if not every.any() or every[every > 0].min() >= APART * every.max():
        return False
    top = torch.zeros_like(inverse)
    inside(top, shape).copy_(torch.stack(low + high).amax(0))
    level_wrap(top, shape, periodic)
    own = inside(top, shape)
    bits = torch.where(inside(inverse, shape) != 0, INSIDE, 0)
    fixed = inside(faces[3], shape) / min(k for k, n in zip(nominal, shape, strict=True) if n > 1)
    out = (fixed > 0) & (fixed >= APART * own)
    for axis, upward in product(range(3), (0, 1)):
        g = (low, high)[upward][axis]
        held = (g > 0) & (g >= APART * own)
        both = held & (g >= APART * beside(top, shape, axis, 2 * upward - 1))
        out |= held & ~both
        bits += torch.where(both, (1 << (2 * axis + upward)) + (1 << (6 + 2 * axis)), 0)
    bits += torch.where(out, 1 << 6, 0)
    code.copy_(torch.where(inside(inverse, shape) != 0, bits, 0).reshape(-1))
    return True


def conductor_parts(
    faces: Tensor, labels: Tensor, numbers: Tensor, shape: Shape, periodic: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cells of conductors, and their couplings to all else.

    Parameters
    ----------
    faces : of the level
    labels : (n,) int32, from `stencil_regions`
    numbers : (m,) int32
        The conductor that a label stands for, -1 for none.

    Returns
    -------
    runs : (3, r) int32
        Conductor, first place in a padded vector, and one after the last, of neighbours along x.
    edges : (4, e) int32
        Conductor, place of its cell, place of the cell beyond (-1: a fixed value of zero), conductor beyond
        (-1: none).
    couplings : (e,) float32, of the edges
    """
    label = labels.view(tuple(shape)).tolist()
    number = [*numbers.tolist(), -1]
    place = inside(torch.arange(faces.shape[1]), shape).tolist()
    g = boxed(faces, shape)
    runs: list[list[int]] = []
    edges: list[tuple[int, int, int, int]] = []
    couplings: list[float] = []
    lift = (int(shape[0] > 1), 1, 1)
    for z, y, x in product(*(range(n) for n in shape)):
        own, here = number[label[z][y][x]], place[z][y][x]
        if own < 0:
            continue
        if x > 0 and runs and runs[-1][0] == own and runs[-1][2] == here:
            runs[-1][2] += 1
        else:
            runs.append([own, here, here + 1])
        for axis, upward in product(range(3), (0, 1)):
            there, at = [z, y, x], [z + lift[0], y + 1, x + 1]
            there[axis] += 2 * upward - 1
            at[axis] += upward
            if shape[axis] == 1 or not (periodic[axis] or 0 <= there[axis] < shape[axis]):
                continue
            there[axis] %= shape[axis]
            k, j, i = there
            other, strength = number[label[k][j][i]], float(g[axis][tuple(at)])
            if strength > 0 and other != own:
                edges.append((own, here, place[k][j][i], other))
                couplings.append(strength)
        fixed = float(g[3, z + lift[0], y + 1, x + 1])
        if fixed > 0:
            edges.append((own, here, -1, -1))
            couplings.append(fixed)
    return (
        torch.tensor(runs, dtype=torch.int32).view(-1, 3).T.contiguous(),
        torch.tensor(edges, dtype=torch.int32).view(-1, 4).T.contiguous(),
        torch.tensor(couplings, dtype=torch.float32),
    )


def conductor_correct(
    b: Tensor, runs: Tensor, edges: Tensor, couplings: Tensor, inverse: Tensor, x: Tensor
) -> None:
    """Add Z E Z^T (b - A x) to x: columns of Z are the indicators of the conductors, E is `inverse` (k, k).

    Z^T A x is what flows over the edges, so that nothing but the conductors' cells and their edges is read.
    """
    rest = torch.zeros(len(inverse), dtype=torch.float64)
    for k, begin, end in runs.T.tolist():
        rest[k] += b[begin:end].double().sum()
    k, here, there = edges[:3].long()
    beyond = torch.where(there >= 0, x[there.clamp(min=0)], 0.0)
    rest.index_add_(0, k, (couplings * (x[here] - beyond)).double(), alpha=-1)
    change = (inverse.double() @ rest).to(x.dtype)
    for k, begin, end in runs.T.tolist():
        x[begin:end] += change[k]
