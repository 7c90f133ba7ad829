"""A box with obstacles, preconditioned by the exact inverse of the box without them (fictitious domain).

Problem: A x = b on the fluid cells of a `PoissonStencil` with SOLID cells, mild coefficients. M extends
the residual by zero into the solids, applies the inverse of the full box, and keeps the fluid values:
M = R L^-1 R^T. M^-1 is the Schur complement of L on the fluid: x . M^-1 x is the least y . L y over all
extensions y of x into the solids. A leaves out the energy in there, so all eigenvalues of M A lie in (0, 1].
Below they are bounded by the norm of the discrete extension, which depends on the shape of the obstacles but
not on the spacing: CG takes the same number of steps on every grid (fictitious domain: Marchuk, Kuznetsov and
Matsokin, Sov. J. Numer. Anal. Math. Modelling 1, 1986; the capacitance matrix of Proskurowski and Widlund,
Math. Comp. 30, 1976, is a relative). Narrow slits between solids raise that number; interior AIR cells, where
zero is prescribed, let it grow with the grid. Coefficients that vary are replaced by their mean along every
axis; that widens the spectrum by their largest ratio and no more.
Cost: that of `FastPoisson` on the box and one pass over z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import GridError
from neuralsolve.operators.base import LinearOperator, shallow
from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.preconditioners.base import Preconditioner, Recipe
from neuralsolve.solvers.fast_poisson import FastPoisson


@dataclass(frozen=True)
class EmbeddedBox(Recipe):
    """Precondition a grid with obstacles by the exact inverse of the whole box: M for CG.

    Parameters
    ----------
    workers : threads of the transforms, as in `FastPoisson`

    Raises
    ------
    StructureError
        At `build`: A is no `PoissonStencil`.

    Examples
    --------
    >>> import torch, neuralsolve as ns
    >>> cells = torch.zeros(32, 32, dtype=torch.uint8)
    >>> cells[10:20, 12:18] = ns.SOLID
    >>> A = ns.PoissonStencil(ns.Grid(cells, walls="dirichlet"))
    >>> ns.solve(A, torch.ones(1024, dtype=torch.float64), ns.CG(), M=EmbeddedBox()).iterations <= 12
    True
    """

    workers: int | None = None

    def build(self, A: LinearOperator) -> EmbeddedBoxInverse:
        """Prepare the transforms of the box around A."""
        return EmbeddedBoxInverse(A, FastPoisson(self.workers))


class EmbeddedBoxInverse(Preconditioner):
    """R L^-1 R^T; made by `EmbeddedBox().build(A)`."""

    symmetric = True

    def __init__(self, A: LinearOperator, box: FastPoisson):
        self._box, self.device = box, torch.device("cpu")
        self.update(A)

    def update(self, A_next: LinearOperator) -> None:
        """Take other obstacles or walls."""
        if not isinstance(A_next, PoissonStencil):
            msg = (
                f"EmbeddedBox needs a PoissonStencil, given {type(A_next).__name__}; pass grid=cells to "
                "ns.solve or ns.prepare where the matrix comes from a grid, or use M=ns.AMG()"
            )
            raise GridError(msg)
        grid = A_next.grid
        spacing = [h / mean**0.5 for h, mean in zip(grid.spacing, _means(A_next), strict=True)]
        self._inverse = self._box.build(PoissonStencil(Grid(grid.shape, spacing, grid.walls))).to(self.device)
        self._outside = None if A_next.active is None else (~A_next.active).to(self.device)

    def to(self, device: torch.device) -> EmbeddedBoxInverse:
        """Return M for vectors on another device; see `BoxInverse.to`."""
        if device == self.device:
            return self
        moved = shallow(self)
        moved.device, moved._inverse = device, self._inverse.to(device)
        moved._outside = None if self._outside is None else self._outside.to(device)
        moved.stays = moved._inverse.stays
        return moved

    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        z = self._inverse.apply(r, out)  # r is zero outside the fluid, as every product with A is
        if self._outside is None:
            return z
        outside = self._outside if z.ndim == 1 else self._outside.unsqueeze(1)
        if z.device.type != "cpu":
            return z.masked_fill_(outside, 0.0)
        np.copyto(z.numpy(), 0.0, where=outside.numpy())
        return z

    def describe(self) -> str:
        return f"obstacles ignored, {self._inverse.describe()}"


def _means(A: PoissonStencil) -> list[float]:
    """Return the mean coefficient of the open faces along every axis."""
    if A.coefficients is None:
        return [1.0] * len(A.grid.shape)
    means = []
    for c in A.coefficients:
        count = int(torch.count_nonzero(c.detach()))
        means.append(float(c.detach().sum()) / count if count else 1.0)
    return means
