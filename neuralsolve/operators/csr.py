"""Compressed sparse rows: the form in which foreign matrices arrive."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuralsolve.errors import NonFiniteError, ShapeError, StructureError
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator, output_like
from neuralsolve.operators.vectors import shared

if TYPE_CHECKING:
    import scipy.sparse


class CSROperator(LinearOperator):
    """A sparse matrix in CSR form; buffers are shared with the caller, never written.

    Parameters
    ----------
    indptr : (m + 1,) int32 or int64
    indices : (nnz,) column of every value, sorted and without duplicates within a row
    values : (nnz,) float32 or float64; a gradient reaches it
    shape : (m, n)
    props : what is known of A, of "symmetric" and "spd"

    Raises
    ------
    ShapeError, StructureError, NonFiniteError
        Buffers that do not fit together, indices outside the matrix, unsorted or repeated columns (pass such
        a matrix through `ns.as_operator`, which sorts and sums), NaN or infinite values.

    Examples
    --------
    >>> import torch
    >>> A = CSROperator(torch.tensor([0, 1, 2]), torch.tensor([0, 1]), torch.tensor([2.0, 4.0]), (2, 2))
    >>> A @ torch.tensor([1.0, 1.0])
    tensor([2., 4.])
    """

    def __init__(
        self,
        indptr: Tensor,
        indices: Tensor,
        values: Tensor,
        shape: tuple[int, int],
        props: Iterable[str] = (),
    ):
        super().__init__(shape, values.dtype, values.device, props)
        check_csr(indptr, indices, values, self.shape)
        self.indptr, self.indices, self.values = indptr, indices, values
        self._transpose: CSROperator | None = None
        self._transpose_version = 0

    def matvec(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        out = output_like(x, self.shape[0], out)
        table(x.device).csr_matvec(self.indptr, self.indices, self.values.detach(), x, out)
        return out

    def matvec_dot(self, x: Tensor, out: Tensor) -> Tensor:
        return table(x.device).csr_matvec_dot(self.indptr, self.indices, self.values.detach(), x, out)

    def rmatvec(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        if self.symmetric:
            return self.matvec(x, out)
        return self.transpose().matvec(x, out)

    def transpose(self) -> CSROperator:
        """Return A^T in CSR form, built once."""
        version = self.values._version
        if self._transpose is None or version != self._transpose_version:  # an optimiser writes in place
            self._transpose_version = version
            T = self.to_scipy().T.tocsr()
            T.sort_indices()
            self._transpose = from_scipy(T, self.props).to(self.device)
        return self._transpose

    def diagonal(self) -> Tensor:
        out = self.values.new_zeros(min(self.shape), requires_grad=False)
        table(self.device).csr_diagonal(self.indptr, self.indices, self.values.detach(), out)
        return out

    def to_scipy(self) -> scipy.sparse.csr_array:
        import scipy.sparse

        parts = (self.values.detach().cpu().numpy(), self.indices.cpu().numpy(), self.indptr.cpu().numpy())
        return scipy.sparse.csr_array(parts, shape=self.shape)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> CSROperator:
        device, dtype = self._destination(device, dtype)
        if (device, dtype) == (self.device, self.dtype):
            return self
        indptr, indices = self.indptr.to(device), self.indices.to(device)
        return self._handing_on(
            CSROperator(indptr, indices, self.values.to(device, dtype), self.shape, self.props)
        )

    def with_values(self, values: Tensor, props: Iterable[str] | None = None) -> CSROperator:
        """Return the operator of the same pattern with other values."""
        return CSROperator(
            self.indptr, self.indices, values, self.shape, self.props if props is None else props
        )

    def rows(self) -> Tensor:
        """Return the row of every stored value, ``(nnz,)``."""
        counts = torch.diff(self.indptr)
        return torch.repeat_interleave(torch.arange(self.shape[0], device=self.device), counts)

    def parameters(self) -> tuple[Tensor, ...]:
        return (self.values,)

    def parameter_gradients(self, lam: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        product = lam[self.rows()] * x[self.indices]
        return (-(product if product.ndim == 1 else product.sum(1)),)


def from_scipy(A: Any, props: Iterable[str] = ()) -> CSROperator:
    """Wrap a canonical SciPy CSR matrix without copying its buffers."""
    return CSROperator(*buffers(A), (A.shape[0], A.shape[1]), props)


def buffers(A: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return indptr, indices and values of a SciPy CSR matrix as tensors, shared where they can be."""
    return shared(A.indptr), shared(A.indices), shared(A.data)


def check_csr(indptr: Tensor, indices: Tensor, values: Tensor, shape: tuple[int, int]) -> None:
    """Refuse buffers that are no canonical CSR matrix of finite numbers."""
    check_bounds(indptr, indices, values, shape)
    if not is_canonical(indptr, indices):
        msg = (
            "columns within a row must be sorted and unique; ns.as_operator(scipy_matrix) sorts and sums them"
        )
        raise StructureError(msg)
    if not math.isfinite(float(values.detach().sum())) and not bool(torch.isfinite(values.detach()).all()):
        bad = int((~torch.isfinite(values.detach())).sum())
        msg = (
            f"A has {bad} NaN or infinite values of {len(values)}; mend them before the solve (np.isfinite "
            "finds them)"
        )
        raise NonFiniteError(msg)


def is_canonical(indptr: Tensor, indices: Tensor) -> bool:
    """Whether the columns of every row are sorted and unique."""
    rising = indices[1:] > indices[:-1]
    starts = indptr[1:-1].long()  # the step into a new row may fall
    starts = starts[(starts > 0) & (starts < len(indices))]
    rising[starts - 1] = True
    return bool(rising.all())


def check_bounds(indptr: Tensor, indices: Tensor, values: Tensor, shape: tuple[int, int]) -> None:
    """Refuse buffers through which a kernel, or SciPy, would read outside its arrays."""
    m, n = shape
    if indptr.ndim != 1 or indices.ndim != 1 or values.ndim != 1 or len(indptr) != m + 1:
        msg = (
            f"CSR of shape {shape} needs one-dimensional indptr ({m + 1},), indices and values; given "
            f"{tuple(indptr.shape)}, {tuple(indices.shape)}, {tuple(values.shape)}"
        )
        raise ShapeError(msg)
    nnz = len(values)
    if (
        len(indices) != nnz
        or int(indptr[0]) != 0
        or int(indptr[-1]) != nnz
        or bool((torch.diff(indptr) < 0).any())
    ):
        msg = (
            f"indptr must rise from 0 to nnz = {nnz} and indices must have nnz entries (given "
            f"{len(indices)}); build the matrix with scipy.sparse.csr_array and pass that"
        )
        raise StructureError(msg)
    if nnz and (int(indices.min()) < 0 or int(indices.max()) >= n):
        msg = f"column indices run from {int(indices.min())} to {int(indices.max())}; A has {n} columns"
        raise StructureError(msg)
