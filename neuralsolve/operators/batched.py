"""Many grid systems of one shape, solved side by side: every column of the vectors has an A of its own.

A batch costs one product, and one start of a kernel, for all; what is small on its own fills a GPU together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuralsolve.errors import ShapeError, StructureError
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator, output_like, shallow
from neuralsolve.operators.nullspace import NullSpace
from neuralsolve.operators.stencil import PoissonStencil

if TYPE_CHECKING:
    import scipy.sparse


class BatchedStencil(LinearOperator):
    """k stencils on grids of one shape and spacing: column j of a product is A_j x_j.

    Vectors are ``(n, k)``, one column for each system. For `CG`, `FlexibleCG`, `SingleReductionCG`, `MINRES`
    and `Richardson`, with `Jacobi`, a function r -> z of all columns, or no M.

    Parameters
    ----------
    stencils : of `PoissonStencil`, without coefficients; their cells and walls may differ

    Raises
    ------
    ShapeError
        None is given, or grids of different shape or spacing.
    StructureError
        One is no `PoissonStencil`, or has coefficients.

    Examples
    --------
    >>> import neuralsolve as ns, numpy as np
    >>> holes = np.zeros((2, 12, 12), np.uint8)
    >>> holes[1, 3:6, 3:6] = ns.SOLID
    >>> A = BatchedStencil([ns.PoissonStencil(ns.Grid(cells, walls="dirichlet")) for cells in holes])
    >>> ns.solve(A, np.ones((144, 2))).x.shape
    (144, 2)
    """

    def __init__(self, stencils: Sequence[PoissonStencil]):
        if not isinstance(stencils, Sequence):
            given = type(stencils).__name__
            msg = f"got a {given}; a list of stencils is needed: ns.BatchedStencil([A_1, A_2])"
            raise StructureError(msg)
        self.stencils = [_checked(A) for A in stencils]
        if not self.stencils:
            msg = "got no stencil; a list of one or more is needed: ns.BatchedStencil([A_1, A_2])"
            raise ShapeError(msg)
        first = self.stencils[0]
        for j, A in enumerate(self.stencils):
            if A.grid.shape != first.grid.shape or A.grid.spacing != first.grid.spacing:
                msg = (
                    f"stencil {j} has a grid {A.grid.shape} of spacing {A.grid.spacing}, the first one "
                    f"{first.grid.shape} of {first.grid.spacing}; one shape and spacing is needed: one batch "
                    "for each"
                )
                raise ShapeError(msg)
        dtype = first.dtype if all(A.dtype == first.dtype for A in self.stencils) else torch.float64
        super().__init__(first.shape, dtype, torch.device("cpu"), {"spd"})
        self.columns = len(self.stencils)
        self.shape3, self.scale = first.shape3, first.scale
        self._code = torch.stack([_code(A) for A in self.stencils], 1).contiguous()
        inside = self._code.to(torch.int32) != 0
        self.active = None if bool(inside.all()) else inside
        self.null_space = _null_space(self.stencils)

    def matvec(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        self._demand_columns(x)
        out = output_like(x, self.shape[0], out)
        table(x.device).stencil_matvec(self._code, self.scale, self.shape3, x, out)
        return out

    def matvec_dot(self, x: Tensor, out: Tensor) -> Tensor:
        self._demand_columns(x)
        return table(x.device).stencil_matvec_dot(self._code, self.scale, self.shape3, x, out)

    def diagonal(self) -> Tensor:
        """Return the diagonals, ``(n, k)``."""
        diagonals = [A.diagonal() for A in self.stencils]
        return torch.stack(diagonals, 1).to(self.device, self.dtype)

    def to_scipy(self) -> scipy.sparse.csr_array:
        """Return all systems in one matrix (n k, n k), for vectors ``x.reshape(-1)``."""
        import scipy.sparse

        k, parts = len(self.stencils), []
        for j, A in enumerate(self.stencils):
            S = A.to_scipy().tocoo()
            parts.append((S.data, S.row * k + j, S.col * k + j))
        data, rows, columns = (torch.cat([torch.from_numpy(p[i]) for p in parts]).numpy() for i in range(3))
        size = self.shape[0] * k
        return scipy.sparse.coo_array((data, (rows, columns)), shape=(size, size)).tocsr()

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> BatchedStencil:
        device, dtype = self._destination(device, dtype)
        if (device, dtype) == (self.device, self.dtype):
            return self
        moved = shallow(self)
        moved.device, moved.dtype, moved._code = device, dtype, self._code.to(device)
        return self._handing_on(moved)

    def __reduce__(self) -> tuple[Any, ...]:
        return _batch_on, (self.device, self.dtype, self.stencils)

    def _demand_columns(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.columns:
            msg = (
                f"x is {tuple(x.shape)}, and A holds {self.columns} systems side by side; ({self.shape[0]}, "
                f"{self.columns}) is needed, and a method that takes all at once: ns.CG()"
            )
            raise ShapeError(msg)


def _checked(A: Any) -> PoissonStencil:
    if not isinstance(A, PoissonStencil) or A.coefficients is not None:
        what = "one with coefficients" if isinstance(A, PoissonStencil) else f"a {type(A).__name__}"
        msg = f"a batch takes PoissonStencils without coefficients, got {what}; solve those one by one"
        raise StructureError(msg)
    return A.to("cpu")


def _code(A: PoissonStencil) -> Tensor:
    assert A.code is not None
    return A.code


def _null_space(stencils: Sequence[PoissonStencil]) -> NullSpace | None:
    """Return the constants on the closed regions of all systems; labels (n, k)."""
    labels, counts, seen = [], [], 0
    for A in stencils:
        Z = A.null_space
        if Z is None or Z.labels is None or Z.counts is None:
            labels.append(torch.full((A.shape[0],), -1, dtype=torch.int32))
            continue
        labels.append(torch.where(Z.labels >= 0, Z.labels + seen, -1).to(torch.int32))
        counts.append(Z.counts.double())
        seen += len(Z.counts)
    return NullSpace(torch.stack(labels, 1).contiguous(), torch.cat(counts)) if counts else None


def _batch_on(device: torch.device, dtype: torch.dtype, stencils: Sequence[PoissonStencil]) -> BatchedStencil:
    return BatchedStencil(stencils).to(device, dtype)
