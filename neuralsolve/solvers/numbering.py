"""How the rows of a caller's matrix lie on the cells of a grid, and the rows that stand alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuralsolve.operators.base import LinearOperator
from neuralsolve.operators.structured import CallableOperator
from neuralsolve.operators.vectors import copy_of, empty
from neuralsolve.preconditioners.base import Preconditioner


@dataclass(frozen=True)
class Numbering:
    """The caller's rows on a grid: A = [[S, C], [0, D]] with the stencil S of the FLUID cells, D diagonal.

    S is solved on all cells of the grid, D row by row: x_i = b_i / d_i, and where d_i = 0 the row is empty,
    b_i out of reach and x_i = 0. C, mostly zero, brings known values into the rows of S.

    Attributes
    ----------
    matrix : the caller's A in float64
    cells : number of cells
    place : (n,) cell of every row, or None where row i is cell i
    alone : (k,) rows of D
    pivots : (k,) float64, its diagonal
    couples : C is not zero
    """

    matrix: LinearOperator
    cells: int
    place: np.ndarray | None
    alone: np.ndarray
    pivots: Tensor
    couples: bool

    def to_grid(self, v: Tensor) -> Tensor:
        """Return v, given in the caller's rows ``(n,)`` or ``(n, k)``, on the cells: zero outside FLUID."""
        if self.place is None:
            u = copy_of(v)
            u.numpy()[self.alone] = 0
            return u
        u = torch.from_numpy(np.zeros((self.cells, *v.shape[1:])))
        u.numpy()[self.place] = v.numpy()
        if len(self.alone):
            u.numpy()[self.place[self.alone]] = 0
        return u

    def to_rows(self, u: Tensor, known: Tensor | None = None) -> Tensor:
        """Return u, given on the cells, in the caller's rows; `known` fills the rows of D, zero without."""
        if self.place is None:
            v = copy_of(u)
        else:
            v = empty((len(self.place), *u.shape[1:]), u)
            np.take(u.numpy(), self.place, 0, v.numpy())
        v.numpy()[self.alone] = 0 if known is None else known.numpy()
        return v

    def solve_alone(self, b: Tensor) -> Tensor:
        """Return D^+ b of the caller's b."""
        pivots = self.pivots if b.ndim == 1 else self.pivots[:, None]
        inverse = torch.where(pivots == 0, 0.0, 1 / pivots)
        return b[self.alone] * inverse

    def empty_rows(self) -> np.ndarray:
        """Return the rows of D that hold nothing."""
        return self.alone[(self.pivots == 0).numpy()]

    def without_known(self, b: Tensor, known: Tensor) -> Tensor:
        """Return b - C x of the values `known` in the rows of D: the right side of S."""
        if not self.couples:
            return b
        x = torch.zeros_like(b)
        x.numpy()[self.alone] = known.numpy()
        return b - self.matrix.matvec(x)

    def adjoint_side(self, g: Tensor) -> Tensor:
        """Return the part of g that S^T lam_S = g_S needs: C has no say in it."""
        return self.to_rows(self.to_grid(g)) if self.couples else g

    def finish_adjoint(self, lam: Tensor, g: Tensor) -> Tensor:
        """Complete lam, which solves S, to the solution of A^T lam = g: D lam_D = g_D - C^T lam_S."""
        if self.couples:
            lam.numpy()[self.alone] = 0
            lam.numpy()[self.alone] = self.solve_alone(g - self.matrix.rmatvec(lam)).numpy()
        return lam

    def on_grid(self, M: Preconditioner) -> LinearOperator:
        """Return an M of the caller's rows as one of the cells."""

        def apply(r: Tensor) -> Tensor:
            return self.to_grid(M.apply(self.to_rows(r)))

        def apply_transpose(r: Tensor) -> Tensor:
            return self.to_grid(M.apply_transpose(self.to_rows(r)))

        props = {"symmetric"} if M.symmetric else ()
        return CallableOperator(
            apply, (self.cells, self.cells), torch.float64, apply_transpose, props, block=True
        )

    def describe(self) -> str:
        """One phrase for a solve's explanation."""
        rows = self.matrix.shape[0]
        alone = f", {len(self.alone)} of them outside the fluid" if len(self.alone) else ""
        return f"the {rows} rows of A read as cells of the grid{alone}"
