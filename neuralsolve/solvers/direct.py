"""Direct solution of small or difficult systems: sparse LU, dense LU, Woodbury.

Run as Richardson with the factorisation as M, so every answer gets iterative refinement until its true
residual meets the tolerance. A symmetric singular A with a known null space Z is made regular first: one
entry per component is pinned where Z holds constants (fill-in stays as it was), otherwise A is bordered, [[A,
Z], [Z^T, 0]].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import StructureError
from neuralsolve.operators.base import LinearOperator, output_like
from neuralsolve.operators.structured import CallableOperator, DenseOperator, DiagonalPlusLowRank
from neuralsolve.preconditioners.base import Preconditioner, Recipe


@dataclass(frozen=True)
class SparseLU(Recipe):
    """LU factorisation: SciPy's SuperLU for sparse A, LAPACK for dense, Woodbury for diagonal plus low rank.

    As a method, `ns.solve(A, b, ns.SparseLU())`, it is refined until the true residual meets the tolerance;
    it may also stand as M of any method. Memory grows as n log n in 2D and n^(4/3) in 3D: for small systems.

    Raises
    ------
    StructureError
        From `build`: A is exactly singular and its null space is not known, or A is a bare function.

    Examples
    --------
    >>> import neuralsolve as ns, scipy.sparse as sp
    >>> ns.solve(sp.diags_array([2.0, 4.0]), np.array([2.0, 2.0]), ns.SparseLU()).x
    array([1. , 0.5])
    """

    def build(self, A: LinearOperator) -> Preconditioner:
        """Factorise A."""
        return Factorisation(A)


class Factorisation(Preconditioner):
    """A^-1 by forward and backward substitution."""

    def __init__(self, A: LinearOperator):
        self.update(A)

    def update(self, A_next: LinearOperator) -> None:
        # the sign of the diagonal is what can be seen of definiteness; the loop reports it where it misleads
        self.symmetric = "spd" in A_next.props or (
            A_next.symmetric
            and not isinstance(A_next, CallableOperator)
            and bool((A_next.diagonal() > 0).all())
        )
        self.n = A_next.shape[0]
        if isinstance(A_next, DiagonalPlusLowRank):
            inverse = A_next.inverse()
            self._solve: Callable[[Tensor], Tensor] = inverse.matvec
            self._solve_transposed = self._solve if A_next.symmetric else None
            self._kind = "Woodbury"
        elif isinstance(A_next, DenseOperator):
            self._factor_dense(A_next)
        elif isinstance(A_next, CallableOperator):
            msg = (
                "a factorisation needs the entries of A, and A is a function; pass a matrix, or use "
                "ns.GMRES()"
            )
            raise StructureError(msg)
        else:
            self._factor_sparse(A_next)

    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        return output_like(r, self.n, out).copy_(self._solve(r))

    def apply_transpose(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        if self._solve_transposed is None:
            return super().apply_transpose(r, out)
        return output_like(r, self.n, out).copy_(self._solve_transposed(r))

    def describe(self) -> str:
        return self._kind

    def _factor_dense(self, A: DenseOperator) -> None:
        matrix = A.values.detach()
        if A.null_space is not None:  # A + s Z Z^T is regular and agrees with A on the complement of Z
            Z = torch.eye(self.n, dtype=matrix.dtype)
            A.null_space.project(Z)
            size = matrix.abs().max().clamp_min(torch.finfo(matrix.dtype).tiny)
            matrix = matrix + size * (torch.eye(self.n, dtype=matrix.dtype) - Z)
        factors, pivots, info = torch.linalg.lu_factor_ex(matrix)
        if int(info) > 0:
            raise StructureError(_singular(int(info) - 1))

        def solve(r: Tensor, transposed: bool = False) -> Tensor:
            columns = r.reshape(self.n, -1)
            return torch.linalg.lu_solve(factors, pivots, columns, adjoint=transposed).reshape(r.shape)

        self._solve, self._solve_transposed = solve, lambda r: solve(r, True)
        self._kind = "dense LU"

    def _factor_sparse(self, A: LinearOperator) -> None:
        import scipy.sparse
        from scipy.sparse.linalg import splu

        S: Any = scipy.sparse.csc_array(A.to_scipy())
        kept, border = self._make_regular(A)
        if len(kept) < self.n:
            S = S[kept][:, kept]
        if border is not None:
            S = scipy.sparse.block_array([[S, border], [border.T, None]], format="csc")
        S.eliminate_zeros()
        S.indices, S.indptr = S.indices.astype(np.intc), S.indptr.astype(np.intc)
        definite = A.symmetric and border is None and bool((S.diagonal() > 0).all())
        ordering = "MMD_AT_PLUS_A" if A.symmetric else "COLAMD"
        options = {"SymmetricMode": True} if definite else {}
        try:
            lu = splu(S, permc_spec=ordering, diag_pivot_thresh=0.01 if definite else None, options=options)
        except RuntimeError as error:  # SuperLU: "Factor is exactly singular"
            raise StructureError(_singular()) from error
        size = S.shape[0]

        def solve(r: Tensor, trans: Any = "N") -> Tensor:
            full = np.zeros((size, *r.shape[1:]))
            full[: len(kept)] = r.numpy()[kept]
            z = torch.zeros_like(r)
            z.numpy()[kept] = lu.solve(full, trans=trans)[: len(kept)]
            if A.null_space is not None:
                A.null_space.project(z)
            return z

        self._solve, self._solve_transposed = solve, lambda r: solve(r, "T")
        self._kind = f"sparse LU ({lu.nnz / max(1, S.nnz):.1f} times the entries of A)"

    def _make_regular(self, A: LinearOperator) -> tuple[np.ndarray, Any]:
        """Return the rows to keep, and a border of null vectors where those are not constants."""
        import scipy.sparse

        kept = np.ones(self.n, bool) if A.active is None else A.active.numpy().copy()
        Z = A.null_space
        if Z is None:
            return np.flatnonzero(kept), None
        if Z.basis is not None:
            return np.flatnonzero(kept), scipy.sparse.csc_array(Z.basis.numpy()[kept])
        assert Z.labels is not None
        labels = Z.labels.numpy()
        _, first = np.unique(labels, return_index=True)
        kept[first[labels[first] >= 0]] = False
        return np.flatnonzero(kept), None


def _singular(row: int | None = None) -> str:
    where = "" if row is None else f" (pivot {row} is zero)"
    return (
        f"A is exactly singular{where} and no null space is known that explains it; declare it with "
        "null_space=..., or drop the empty or dependent rows"
    )
