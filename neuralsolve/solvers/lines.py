"""Direct solves along the axis of a box that is not transformed: a tridiagonal system per mode."""

from __future__ import annotations

from typing import Protocol, Self

import torch
from torch import Tensor

from neuralsolve.kernels import table
from neuralsolve.operators.base import shallow
from neuralsolve.operators.vectors import empty
from neuralsolve.solvers.transforms import Axis


class LineSolver(Protocol):
    """Solves (T + shift) y = gain v along an axis for every mode; the pseudo-inverse where singular."""

    def solve(self, v: Tensor, gain: float) -> None:
        """Overwrite v (outer, n, modes, w) with y."""
        ...

    def to(self, device: torch.device) -> Self:
        """Return the solver for modes on another device."""
        ...


def line_solver(axis: Axis, shift: Tensor) -> LineSolver:
    """Return the solver for an axis with these walls.

    Parameters
    ----------
    axis : Axis
        One whose cells couple.
    shift : (outer, modes) >= 0
        Eigenvalues of the other axes over this one's coupling; an exact 0 where they are 0.
    """
    if axis.walls is None:
        return Cyclic(axis.size, shift)
    return Tridiagonal(axis.size, axis.walls, shift)


class Tridiagonal:
    """Walls at both ends: Thomas algorithm, the pivots (one per mode and cell) made once."""

    def __init__(self, n: int, walls: tuple[int, int], shift: Tensor):
        self.singular = torch.nonzero((shift == 0) & (walls == (0, 0))).tolist()
        self.pivots = empty((len(shift), n, shift.shape[1]), shift)
        table().tridiagonal_factor(shift.contiguous(), 1.0 + walls[0], 1.0 + walls[1], self.pivots)

    def solve(self, v: Tensor, gain: float) -> None:
        """Overwrite v (outer, n, modes, w) with y; where T is singular the constant leaves v and y."""
        self._drop_constant(v)
        table(v.device).tridiagonal_solve(self.pivots, gain, v)
        self._drop_constant(v)

    def to(self, device: torch.device) -> Tridiagonal:
        """Return the solver for modes on another device."""
        moved = shallow(self)
        moved.pivots = self.pivots.to(device)
        return moved

    def _drop_constant(self, v: Tensor) -> None:
        for line, mode in self.singular:
            column = v[line, :, mode]
            column -= column.mean(0)


class Cyclic:
    """A periodic axis: cyclic recurrences forth and back, with nothing kept but their rates."""

    def __init__(self, n: int, shift: Tensor):
        rate = 2 * torch.asinh(shift.sqrt() / 2)
        self.decay = torch.exp(-rate)
        self.around = torch.where(shift == 0, 0.0, -1 / torch.expm1(-n * rate))
        self.singular = torch.nonzero(shift == 0).tolist()
        eigenvalues = 4 * torch.sin(torch.pi * torch.arange(n // 2 + 1, dtype=torch.float64) / n) ** 2
        self.pseudo_inverse = torch.where(eigenvalues == 0, 0.0, 1 / eigenvalues)[:, None]

    def solve(self, v: Tensor, gain: float) -> None:
        """Overwrite v (outer, n, modes, w) with y; singular modes are solved by a transform after all."""
        apart = [self._solve_singular(v[line, :, mode], gain) for line, mode in self.singular]
        width = v.shape[3]
        decay, around = (part.repeat_interleave(width, 1) for part in (self.decay, self.around))
        table(v.device).cyclic_solve(decay, around, gain, v.view(len(v), v.shape[1], -1))
        for (line, mode), column in zip(self.singular, apart, strict=True):
            v[line, :, mode] = column

    def to(self, device: torch.device) -> Cyclic:
        """Return the solver for modes on another device."""
        moved = shallow(self)
        moved.decay, moved.around = self.decay.to(device), self.around.to(device)
        moved.pseudo_inverse = self.pseudo_inverse.to(device)
        return moved

    def _solve_singular(self, column: Tensor, gain: float) -> Tensor:
        spectrum = torch.fft.rfft(column, dim=0) * (gain * self.pseudo_inverse)
        return torch.fft.irfft(spectrum, len(column), dim=0)


class Uncoupled:
    """No axis couples its cells: a division by the diagonal, by no zero."""

    def __init__(self, diagonal: Tensor):
        self.weights = torch.where(diagonal == 0, 0.0, 1 / diagonal)[..., None]

    def solve(self, v: Tensor, gain: float) -> None:
        """Overwrite v (1, 1, modes, w) with y."""
        v *= gain * self.weights

    def to(self, device: torch.device) -> Uncoupled:
        """Return the solver for modes on another device."""
        moved = shallow(self)
        moved.weights = self.weights.to(device)
        return moved
