"""Learned factors on the couplings of grid levels: the definition, plain torch, differentiable.

A network of two hidden layers sees a cell i from each of its sides. On the side where its neighbour j lies it
reads seven numbers: the coupling to j, the one on the opposite side, the mean of those across, couplings to
fixed values, and the volume of i; then the last two of j. Couplings are in units of `nominal`, the volume is
the part of a block that is fluid on the finest level. The hidden layers are summed, over the sides of a cell
or over the two of a face, so that mirrored scenes have mirrored factors:

    s = sum over sides of relu(W1^T c + b1),    o = W3^T (relu(W2^T s + b2) - the same of a plain cell),
    factor = exp(o / (1 + |o|/LIMIT))

A cell is plain where nothing is near: its factors are one. A network of width h lies in one array (9 + h + o,
h): W1, b1, W2, b2, and W3 transposed, of o outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuralsolve.kernels.reference.padded import beside, boxed, inside

LIMIT = 2.0  # of |log factor|
CLIPPED = 1.0001  # times what a factor may be: what is beyond counts as clipped, rounding does not
INPUTS = 7
PLAIN = (1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0)  # what a cell far from everything shows
Shape = Sequence[int]
Side = tuple[int, bool]  # axis, and whether the neighbour lies above


def level_volume(
    values: Tensor, marks: bool, shape: Shape, factors: Shape, coarse_shape: Shape, out: Tensor
) -> None:
    """Set out on the coarse level to the means of `values` over blocks, what is beyond a wall being zero.

    With `marks` of 1 where they are not zero.
    """
    v = inside(values, shape).double()
    v = (v != 0).double() if marks else v
    for axis, factor in enumerate(factors):
        if factor == 2:
            first = v.index_select(axis, torch.arange(0, shape[axis], 2))
            second = v.index_select(axis, torch.arange(1, shape[axis], 2))
            first.narrow(axis, 0, second.shape[axis]).add_(second)
            v = first / 2
    inside(out, coarse_shape).copy_(v)


def level_adapt(
    faces: Tensor,
    volume: Tensor,
    nominal: Sequence[float],
    shape: Shape,
    face_net: Tensor,
    cell_net: Tensor,
    out: Tensor,
    factor: Tensor,
) -> None:
    """Set out (4, n) to the couplings times their factors, and `factor` (n,) to that on 1/diagonal.

    The factor of a cell without volume is one. All have their layers filled along periodic axes; `cell_net`
    has two outputs, for the couplings to fixed values and for 1/diagonal.
    """
    lower, fixed, v = boxed(faces[:3], shape), boxed(faces[3], shape), boxed(volume, shape)
    long = [axis for axis in range(3) if shape[axis] > 1]
    upper = {axis: lower[axis].roll(-1, axis) for axis in long}
    near = {
        (axis, up): (fixed.roll(1 - 2 * up, axis), v.roll(1 - 2 * up, axis))
        for axis in long
        for up in (False, True)
    }
    seen = sides({a: lower[a] for a in long}, upper, fixed, v, near, nominal)

    def put(values: Tensor, row: Tensor) -> None:
        inside(row, shape).copy_(inside(values.reshape(-1), shape))

    for axis in range(3):
        scaled = lower[axis]
        if axis in long:
            other = first_layer(seen[axis, True], face_net).roll(1, axis)
            scaled = (
                lower[axis] * factors(first_layer(seen[axis, False], face_net) + other, 2, face_net)[..., 0]
            )
        put(scaled, out[axis])
    if not seen:  # a single cell
        put(fixed, out[3])
        put(torch.ones_like(v), factor)
        return
    hidden = torch.stack([first_layer(each, cell_net) for each in seen.values()]).sum(0)
    by = torch.where((v > 0)[..., None], factors(hidden, len(seen), cell_net), 1.0)
    put(by[..., 0] * fixed, out[3])
    put(by[..., 1], factor)


def level_inverse(faces: Tensor, factor: Tensor, reach: float, shape: Shape, inverse: Tensor) -> int:
    """Set inverse to factor/diagonal, clipped so that D'^-1 A has its eigenvalues in [0, reach].

    The sums of |A| over its rows, divided by D', bound them; they are at most reach where factor is at most
    reach diagonal/(diagonal + couplings to cells). Returns how many factors were larger; -1 where any number
    is not finite, or a factor not positive.
    """
    ways = sum(
        inside(faces[axis], shape) + beside(faces[axis], shape, axis, 1)
        for axis in range(3)
        if shape[axis] > 1
    )
    diagonal = inside(faces[3], shape) + ways
    most = reach * diagonal / (diagonal + ways)
    given = inside(factor, shape)
    active = diagonal > 0
    inside(inverse, shape).copy_(torch.where(active, torch.minimum(given, most) / diagonal, 0.0))
    fine = (diagonal >= 0) & diagonal.isfinite() & (given > 0) & given.isfinite()
    if not bool(fine.all()):
        return -1
    return int(((given > CLIPPED * most) & active).sum())


def sides(
    lower: dict[int, Tensor],
    upper: dict[int, Tensor],
    fixed: Tensor,
    volume: Tensor,
    near: dict[Side, tuple[Tensor, ...]],
    nominal: Sequence[float],
) -> dict[Side, Tensor]:
    """Return what is seen on every side of all cells, (..., 7), from boxes of any number of dimensions."""
    g = {(axis, False): lower[axis] / nominal[axis] for axis in lower}
    g |= {(axis, True): upper[axis] / nominal[axis] for axis in lower}
    usual, seen = sum(nominal[axis] for axis in lower) / max(len(lower), 1), {}
    for axis, up in near:
        across = [g[a, u] for a, u in g if a != axis]
        mean = torch.stack(across).mean(0) if across else torch.ones_like(fixed)
        there = near[axis, up]
        parts = g[axis, up], g[axis, not up], mean, fixed / usual, volume, there[0] / usual, there[1]
        seen[axis, up] = torch.stack(parts, -1)
    return seen


def first_layer(seen: Tensor, net: Tensor) -> Tensor:
    """Return relu(W1^T c + b1), (..., h)."""
    return torch.relu(seen @ net[:INPUTS].to(seen.dtype) + net[INPUTS].to(seen.dtype))


def factors(hidden: Tensor, count: int, net: Tensor) -> Tensor:
    """Return the factors (..., o) from the sums of the first layer over `count` sides."""
    h, net = net.shape[1], net.to(hidden.dtype)
    W2, b2, W3 = net[INPUTS + 1 : INPUTS + 1 + h], net[INPUTS + 1 + h], net[INPUTS + 2 + h :]
    plain = count * first_layer(torch.tensor(PLAIN, dtype=hidden.dtype), net)
    o = (torch.relu(hidden @ W2 + b2) - torch.relu(plain @ W2 + b2)) @ W3.T
    return torch.exp(o / (1 + o.abs() / LIMIT))
