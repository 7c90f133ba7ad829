"""Symmetries that a solution operator commutes with: more data for nothing.

"square": flips along every axis and swaps of the axes, the 8 of a square and the 48 of a cube; of scalar
fields on grids of equal sides whose nodes lie the same seen from both ends, where the equation, its source
and its boundary have them (Darcy with a constant source). "swaps": swaps of the axes alone, whatever the
ends. "shifts": translations of a periodic box, of an equation in which no place differs from another.
"glides": those of vorticity on a periodic square under a force f(x + y) with f(t + 1/2) = -f(t) and
f(1/4 - t) = f(t), as of the Navier-Stokes data here: translations along x - y, the half turn and the mirror
image of opposite sign, both moved by a part of the wave; 4 n of them on n x n nodes. "none".
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralsolve.data.samples import Layout
from neuralsolve.errors import OptionError, ShapeError, check_known

KINDS = ("none", "square", "swaps", "shifts", "glides")
EVEN = 1e-6  # of the box: how far the nodes may lie otherwise from one end than from the other
DECLARED = 'in Python Layout(boundary=("periodic", ...)) of the samples'


@dataclass(frozen=True)
class Motion:
    """One of them: a permutation of the axes, flips, shifts in nodes, and the sign of the values."""

    order: tuple[int, ...]
    flips: tuple[bool, ...]
    shifts: tuple[int, ...]
    sign: int = 1

    def __call__(self, fields: Tensor) -> Tensor:
        dim = len(self.order)
        moved = fields.permute(0, 1, *(2 + a for a in self.order))
        flipped = [2 + a for a in range(dim) if self.flips[a]]
        moved = moved.flip(flipped) if flipped else moved
        moved = moved.roll(self.shifts, tuple(range(2, 2 + dim))) if any(self.shifts) else moved
        return moved if self.sign == 1 else -moved


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
    check_known("symmetry", kind, KINDS)
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
        or of one whose boundary nobody has told, or of a flow whose force is not everywhere the same.
    ShapeError
        "square" or "swaps" on a grid of unequal sides; "glides" on another grid than n x n, 4 dividing n.
    """
    motions(kind, shape)
    if kind == "glides" and (len(shape) != 2 or len(set(shape)) > 1 or shape[0] % 4):
        msg = f'symmetry "glides" on a grid of {tuple(shape)}; n x n nodes, 4 dividing n, are needed'
        raise ShapeError(msg)
    if kind == "shifts" and layout.equation.get("forcing"):
        msg = (
            f'symmetry "shifts" of {layout.equation["name"]} with forcing = {layout.equation["forcing"]}: '
            'the force differs from place to place; use "glides"'
        )
        raise OptionError(msg)
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
        if kind in ("shifts", "glides") and known != "periodic":
            is_ = f"is {known!r}" if known else "is not known"
            msg = (
                f'symmetry "{kind}" on an axis whose boundary {is_}; every axis must be declared "periodic" '
                f'({DECLARED}): use "none"'
            )
            raise OptionError(msg)


def drawn(kind: str, shape: Sequence[int], generator: torch.Generator) -> Motion:
    """Return a motion at random."""
    known = motions(kind, shape)
    if kind == "shifts":
        shifts = tuple(int(torch.randint(n, (), generator=generator)) for n in shape)
        return Motion(known[0].order, known[0].flips, shifts)
    if kind == "glides":
        along, turned, mirrored = (int(torch.randint(n, (), generator=generator)) for n in (shape[0], 2, 2))
        return glide(shape[0], along, bool(turned), bool(mirrored))
    return known[int(torch.randint(len(known), (), generator=generator))]


def glide(n: int, along: int, turned: bool, mirrored: bool) -> Motion:
    """Return the glide of n x n nodes i / n by so many along x - y, after a half turn and a mirror image.

    w(x, y) goes to w(1/4 - x, -y) and to -w(y + 1/2, x), by the force to itself.
    """
    wave = turned * n // 4 + mirrored * n // 2
    flipped = int(turned)  # node i of n goes to n - i, not to n - 1 - i
    order = (1, 0) if mirrored else (0, 1)
    return Motion(order, (turned, turned), (along + flipped, flipped + wave - along), -1 if mirrored else 1)
