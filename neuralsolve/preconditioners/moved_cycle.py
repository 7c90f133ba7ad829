"""The cycle of geometric multigrid on another device than the CPU, where its levels were made.

All launches go into one stream and nothing is read back: the size of r, by which it is brought into the range
of float32, stays on the device too. A CUDA graph may record an application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator, output_like
from neuralsolve.operators.vectors import copy_of
from neuralsolve.preconditioners.base import Preconditioner
from neuralsolve.preconditioners.levels import B, X

if TYPE_CHECKING:
    from neuralsolve.preconditioners.grid_cycle import GridCycle


class MovedCycle(Preconditioner):
    """A `GridCycle` for vectors on a device; `GridCycle.to` makes it.

    The cycle it comes from stays on the CPU; an update of either is for both only through `update` here.
    """

    dtype = torch.float32
    stays = True

    def __init__(self, origin: GridCycle, device: torch.device):
        self._origin, self._device = origin, device
        self._move()

    def _move(self) -> None:
        self._hierarchy, self._null_space = self._origin.moving(self._device)
        self._size = torch.ones((), dtype=torch.float64, device=self._device)
        self.symmetric = self._origin.symmetric

    def update(self, A_next: LinearOperator) -> None:
        """Fill the levels on the CPU, and copy them."""
        self._origin.update(A_next.to(torch.device("cpu")))
        self._move()

    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        out = output_like(r, len(r), out)
        if r.ndim == 1:
            return self._apply(r, out)
        columns, K = r.new_empty(r.shape[::-1]), table(r.device)
        K.transposed_copy(r, columns)
        for column in columns.unbind():
            self._apply(column, column)
        K.transposed_copy(columns, out)
        return out

    def to(self, device: torch.device) -> Preconditioner:
        return self if device == self._device else self._origin.to(device)

    def describe(self) -> str:
        return self._origin.describe()

    def _apply(self, r: Tensor, out: Tensor) -> Tensor:
        """Set out to M r, r (n,); both may be one."""
        K, h, Z = table(r.device), self._hierarchy, self._null_space
        shape = h.levels[0].plan.shape
        if Z is not None:
            r = copy_of(r)
            Z.project(r)
        K.level_load_scaled(r, shape, h.vector(0, B), self._size)
        self._origin.cycle(h=h)
        K.level_store_scaled(h.vector(0, X), self._size, 1 / h.unit, shape, out)
        if Z is not None:
            Z.project(out)
        return out
