"""Forces on the faces of a MAC grid: buoyancy and vorticity confinement (Fedkiw, Stam and Jensen 2001)."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralsolve.pde.advection import Velocity
from neuralsolve.pde.mac import MACGrid


def to_faces(mac: MACGrid, cell_values: Tensor, axis: int) -> Tensor:
    """Return the mean of the two cells of every open face of an axis, zero on other faces."""
    low, high = cell_values.narrow(axis, 0, 1), cell_values.narrow(axis, cell_values.shape[axis] - 1, 1)
    before, after = (high, low) if mac.periodic[axis] else (low, high)
    padded = torch.cat([before, cell_values, after], dim=axis)
    n = cell_values.shape[axis] + 1
    return (padded.narrow(axis, 0, n) + padded.narrow(axis, 1, n)).mul_(0.5).mul_(mac.open[axis])


def buoyancy(mac: MACGrid, density: Tensor, strength: float) -> Velocity:
    """Return the upward (y) acceleration strength * density on faces (their eq. 8; heat follows density).

    Parameters
    ----------
    mac : MACGrid
    density : Tensor of the grid's shape
    strength : float
        Acceleration of smoke of density one, length/time^2.
    """
    up = len(mac.shape) - 2
    return tuple(
        to_faces(mac, density, axis).mul_(strength) if axis == up else torch.zeros_like(u)
        for axis, u in enumerate(mac.zeros())
    )


def confinement(mac: MACGrid, velocity: Velocity, strength: float) -> Velocity:
    """Return the acceleration strength * h * (N x w) that feeds small vortices (their eq. 9 to 11).

    w is the curl of the velocity in cells, N the unit vector towards larger ‖w‖, h the spacing. The force
    vanishes with h: it gives back what interpolation smears out. `strength` has the unit 1/time.
    """
    ndim = len(mac.shape)
    zero = torch.zeros(mac.shape, dtype=torch.float64)
    solid = ~mac.fluid

    def partial(field: Tensor, direction: int) -> Tensor:
        """Differentiate along x (0), y (1) or z (2)."""
        axis = ndim - 1 - direction
        if axis < 0 or field.shape[axis] < 2:
            return zero
        return torch.gradient(field, spacing=mac.spacing[axis], dim=axis)[0]

    def in_cells(direction: int) -> Tensor:
        axis = ndim - 1 - direction
        if axis < 0:
            return zero
        n = mac.shape[axis]
        return 0.5 * (velocity[axis].narrow(axis, 0, n) + velocity[axis].narrow(axis, 1, n))

    u, v, w = (in_cells(direction) for direction in range(3))
    curl = (partial(w, 1) - partial(v, 2), partial(u, 2) - partial(w, 0), partial(v, 0) - partial(u, 1))
    curl = tuple(c.masked_fill(solid, 0.0) for c in curl)
    size = torch.stack(curl).square().sum(0).sqrt()
    slope = [partial(size, direction) for direction in range(3)]
    length = torch.stack(slope).square().sum(0).sqrt()
    rounding = 1e-8 * float(size.max()) / min(mac.spacing)  # where ‖w‖ is even there is no direction to take
    towards = [s / (length + rounding + torch.finfo(torch.float64).tiny) for s in slope]
    force = torch.linalg.cross(torch.stack(towards), torch.stack(curl), dim=0) * strength
    return tuple(to_faces(mac, force[ndim - 1 - axis], axis).mul_(mac.spacing[axis]) for axis in range(ndim))
