"""Symmetries that a solution operator commutes with: more data for nothing.

"square": flips along every axis and swaps of the axes, the 8 of a square and the 48 of a cube; of scalar
fields on grids of equal sides whose nodes lie the same seen from both ends, where the equation, its source
and its boundary have them (Darcy with a constant source). "swaps": swaps of the axes alone, whatever the
ends. "shifts": translations of a periodic box. "none".
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralsolve.data.samples import Layout
from neuralsolve.errors import OptionError, ShapeError, nearest

KINDS = ("none", "square", "swaps", "shifts")
EVEN = 1e-6  # of the box: how far the nodes may lie otherwise from one end than from the other
DECLARED = 'in Python Layout(boundary=("periodic", ...)) of the samples'


@dataclass(frozen=True)
class Motion:
    """One of them: a permutation of the axes, flips, shifts in nodes."""

    order: tuple[int, ...]
    flips: tuple[bool, ...]
    shifts: tuple[int, ...]

    def __call__(self, fields: Tensor) -> Tensor:
        dim = len(self.order)
        moved = fields.permute(0, 1, *(2 + a for a in self.order))
        flipped = [2 + a for a in range(dim) if self.flips[a]]
        moved = moved.flip(flipped) if flipped else moved
        return moved.roll(self.shifts, tuple(range(2, 2 + dim))) if any(self.shifts) else moved


def motions(kind: str, shape: Sequence[int]) -> list[Motion]:
    """Return all of "square" or "swaps", else the one that does nothing.

    Raises
    ------
    OptionError
        An unknown kind.
    ShapeError
        "square" or "swaps" on a grid of unequal sides.
    """
    dim = len(shape)
    still = Motion(tuple(range(dim)), (False,) * dim, (0,) * dim)
    if kind not in KINDS:
        msg = f"symmetry {kind!r}{nearest(kind, KINDS)}"
        raise OptionError(msg)
    if kind not in ("square", "swaps"):
        return [still]
    if len(set(shape)) > 1:
        msg = f'symmetry "{kind}" on a grid of {tuple(shape)}; equal sides are needed: use "none"'
        raise ShapeError(msg)
    flips = itertools.product((False, True), repeat=dim) if kind == "square" else [still.flips]
    orders = itertools.permutations(range(dim))
    return [Motion(order, flipped, still.shifts) for order, flipped in itertools.product(orders, flips)]


def fits(kind: str, layout: Layout, shape: Sequence[int]) -> None:
    """Refuse a symmetry that a grid does not have, or is not known to have.

    Raises
    ------
    OptionError
        An unknown kind; flips where one wall is a node and the other is none; shifts of a box that is closed,
        or of one whose boundary nobody has told.
    ShapeError
        "square" or "swaps" on a grid of unequal sides.
    """
    motions(kind, shape)
    boundary = layout.boundary or ("",) * len(layout.axes)
    for axis, known in zip(layout.axes, boundary, strict=True):
        uneven = abs(axis[0] + axis[-1] - 1) > EVEN and known != "periodic"
        if kind == "square" and uneven:
            msg = (
                f'symmetry "square" with nodes from {axis[0]:.4g} to {axis[-1]:.4g} of the unit box: a flip '
                "moves the walls; nodes that lie the same from both ends are needed, or a periodic box that "
                f'says so ({DECLARED}): use "swaps" or "none"'
            )
            raise OptionError(msg)
        if kind == "shifts" and known != "periodic":
            is_ = f"is {known!r}" if known else "is not known"
            msg = (
                f'symmetry "shifts" on an axis whose boundary {is_}; every axis must be declared "periodic" '
                f'({DECLARED}): use "none"'
            )
            raise OptionError(msg)


def drawn(kind: str, shape: Sequence[int], generator: torch.Generator) -> Motion:
    """Return a motion at random."""
    known = motions(kind, shape)
    if kind == "shifts":
        shifts = tuple(int(torch.randint(n, (), generator=generator)) for n in shape)
        return Motion(known[0].order, known[0].flips, shifts)
    return known[int(torch.randint(len(known), (), generator=generator))]
