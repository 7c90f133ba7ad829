"""What defines a smoke run: the fields of ``kind = "smoke"`` cases, checked, and the grid they stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from neuralsolve.errors import OptionError, nearest
from neuralsolve.operators.grid import SOLID, Grid
from neuralsolve.pde import shapes
from neuralsolve.pde.advection import SCHEMES

# kind of box -> walls (low, high) along y, and along the other axes
BOXES = {
    "open": (("neumann", "dirichlet"), "neumann"),  # smoke and air leave through the top
    "closed": (("neumann", "neumann"), "neumann"),  # nothing leaves: the pressure system is singular
    "periodic": (("neumann", "dirichlet"), "periodic"),  # open top, sides joined
}


@dataclass(frozen=True)
class SmokeCase:
    """Everything that defines a run.

    Attributes
    ----------
    shape : (ny, nx) or (nz, ny, nx)
        Cells. Lengths are in box widths, so the spacing is 1 / nx.
    dt : float
    steps : int
    walls : "open" (top), "closed" or "periodic" (open top, sides joined)
    obstacle : "bunny", "sphere", "box" or "none"
    obstacle_center : floats, one per axis as in `shape`, or (y, x) for both kinds of grid
    obstacle_size : float
        Height of the obstacle.
    obstacle_source : "auto", "data" or "analytic"
        The scanned bunny of ``$NEURALSOLVE_DATA`` or the one of ellipsoids; "auto": the scan if it is there.
    source_center : floats, as `obstacle_center`
    source_radius : float
    source_rate : float
        Density in the source tends to 1 at this rate, 1/time.
    inflow : float
        Upward velocity through the whole floor, a draught; needs a box that is not closed.
    buoyancy : float
        Upward acceleration of smoke of density 1.
    confinement : float
        Strength of vorticity confinement, 1/time; 0 switches it off.
    advection : "maccormack" or "semi-lagrangian"
    cfl : float
        Paths are followed in pieces of at most this many cells.
    noise : float
        Size of the random velocity at the start, which breaks symmetry.
    seed : int
        Of the generator of that noise.
    rtol : float
        Of every pressure solve, and so of the divergence.
    max_divergence : float, optional
        An absolute bound as well: largest |div u| in a fluid cell, 1/time.
    frames : int
        Density fields kept for the picture, equally spaced, the last step included.

    Raises
    ------
    OptionError
        For values that make no sense; the message names the field.
    """

    shape: tuple[int, ...] = (256, 256)
    dt: float = 0.016
    steps: int = 100
    walls: str = "open"
    obstacle: str = "bunny"
    obstacle_center: tuple[float, ...] = (0.42, 0.5)
    obstacle_size: float = 0.42
    obstacle_source: str = "auto"
    source_center: tuple[float, ...] = (0.05, 0.48)
    source_radius: float = 0.09
    source_rate: float = 20.0
    inflow: float = 0.5
    buoyancy: float = 3.0
    confinement: float = 3.0
    advection: str = "maccormack"
    cfl: float = 4.0
    noise: float = 0.01
    seed: int = 2001
    rtol: float = 1e-6
    max_divergence: float | None = None
    frames: int = 4

    def __post_init__(self) -> None:
        if len(self.shape) not in (2, 3) or min(self.shape) < 4:
            _refuse("shape", self.shape, "(ny, nx) or (nz, ny, nx), 4 cells a side or more", "shape=(64, 64)")
        for name, words in (
            ("walls", BOXES),
            ("obstacle", [*shapes.SHAPES, "none"]),
            ("advection", SCHEMES),
            ("obstacle_source", shapes.SOURCES),
        ):
            if getattr(self, name) not in words:
                msg = f"unknown {name} {getattr(self, name)!r}{nearest(str(getattr(self, name)), words)}"
                raise OptionError(msg)
        for name in ("dt", "obstacle_size", "source_radius", "cfl", "rtol"):
            if not 0 < getattr(self, name) < math.inf:
                _refuse(name, getattr(self, name), "a positive number", f"{name}=0.1")
        for name in ("source_rate", "confinement", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                _refuse(name, getattr(self, name), "a number >= 0", f"{name}=0")
        for name in ("buoyancy", "inflow"):
            if not math.isfinite(getattr(self, name)):
                _refuse(name, getattr(self, name), "a finite number", f"{name}=1")
        for name in ("steps", "frames"):
            if getattr(self, name) < 1:
                _refuse(name, getattr(self, name), "at least 1", f"{name}=4")
        for name in ("obstacle_center", "source_center"):
            if len(getattr(self, name)) not in (2, len(self.shape)):
                _refuse(name, getattr(self, name), "one number per axis, or (y, x)", f"{name}=(0.5, 0.5)")
        if self.inflow and self.walls == "closed":
            msg = (
                f"inflow={self.inflow} into a closed box has nowhere to go (the pressure system is singular, "
                'its right side inconsistent); pass walls="open", or inflow=0'
            )
            raise OptionError(msg)

    def grid(self) -> Grid:
        """Return the grid with the obstacle in it."""
        along_y, across = BOXES[self.walls]
        walls = (across,) * (len(self.shape) - 2) + (along_y, across)
        solid = shapes.obstacle(
            self.obstacle,
            self.shape,
            center=self.in_all_axes(self.obstacle_center),
            size=self.obstacle_size,
            source=self.obstacle_source,
        )
        return Grid(solid.to(torch.uint8) * SOLID, spacing=1 / self.shape[-1], walls=walls)

    def in_all_axes(self, center: tuple[float, ...]) -> tuple[float, ...]:
        """Return a centre with one number per axis; a missing z is the middle of the box."""
        if len(center) == len(self.shape):
            return center
        return (self.shape[0] / (2 * self.shape[-1]), *center)


def _refuse(name: str, value: object, needed: str, call: str) -> None:
    msg = f"{name}={value!r} given; it must be {needed}, for example SmokeCase({call})"
    raise OptionError(msg)
