"""The only door for foreign matrices and vectors: SciPy, NumPy, torch, callables in; NumPy or torch out."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import NonFiniteError, ShapeError, StructureError
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator, check_props
from neuralsolve.operators.csr import CSROperator, buffers, check_bounds, from_scipy, is_canonical
from neuralsolve.operators.structured import CallableOperator, DenseOperator
from neuralsolve.operators.vectors import shared

CPU = torch.device("cpu")
KINDS = (
    "a SciPy sparse matrix, array or LinearOperator, a NumPy or torch dense matrix, a torch CSR or COO "
    "tensor, a callable with .shape and .dtype, or an operator of neuralsolve"
)


def as_operator(A: Any, props: Iterable[str] = ()) -> LinearOperator:
    """Return A as an operator of ours, its buffers shared where they can be, never written.

    Parameters
    ----------
    A : SciPy sparse matrix, array or LinearOperator; NumPy or torch dense matrix; torch CSR or COO tensor; a
        callable with ``shape`` and ``dtype``; an operator of ours
        Integers and booleans become float64. Unsorted or repeated CSR entries are sorted and summed in a
        copy.
    props : of "symmetric", "spd"
        What you know of A beyond what can be seen.

    Raises
    ------
    StructureError
        Complex or half precision values, or a thing that is no matrix.
    ShapeError, NonFiniteError

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> as_operator(sp.eye_array(3)) @ torch.ones(3, dtype=torch.float64)
    tensor([1., 1., 1.], dtype=torch.float64)
    """
    operator = _wrap(A)
    if operator.shape[0] == 0 or operator.shape[1] == 0:
        msg = f"A is empty, its shape is {operator.shape}; a matrix of at least one row and column is needed"
        raise ShapeError(msg)
    if props and not check_props(props) <= operator.props:
        known = copy.copy(operator)
        known.props = operator.props | check_props(props)
        return known
    return operator


def _wrap(A: Any) -> LinearOperator:
    if isinstance(A, LinearOperator):
        return A
    if isinstance(A, Tensor):
        return _wrap_torch(A)
    if isinstance(A, np.ndarray):
        _check_axes(A.shape)
        _refuse(A.dtype)
        return DenseOperator(shared(np.ascontiguousarray(A, _float(A.dtype))))
    import scipy.sparse
    import scipy.sparse.linalg

    if scipy.sparse.issparse(A):
        return _wrap_scipy(A)
    if isinstance(A, scipy.sparse.linalg.LinearOperator):
        return _wrap_function(A, A.matvec, _transposed(A))
    if callable(A) and hasattr(A, "shape"):
        return _wrap_function(A, A, None)
    if isinstance(A, list | tuple):
        try:
            array = np.asarray(A)
        except ValueError as ragged:
            msg = f"A is a {type(A).__name__} that makes no matrix ({ragged}); {KINDS} is needed"
            raise ShapeError(msg) from None
        return _wrap(array)
    msg = f"A is a {type(A).__name__}; {KINDS} is needed"
    if callable(A):
        msg += "; for a bare function: ns.CallableOperator(function, shape=(n, n))"
    raise StructureError(msg)


def _wrap_scipy(A: Any) -> CSROperator:
    _check_axes(A.shape)
    _refuse(A.dtype)
    csr = A.tocsr()
    values = csr.data.astype(_float(csr.dtype), copy=False)
    csr = type(csr)((values, csr.indices, csr.indptr), shape=csr.shape, copy=False)
    # SciPy trusts its buffers, and flags that may be stale: look, and mend a copy
    indptr, indices, data = buffers(csr)
    check_bounds(indptr, indices, data, csr.shape)
    if not is_canonical(indptr, indices):
        csr = csr.copy()
        csr.has_sorted_indices = csr.has_canonical_format = False
        csr.sum_duplicates()
    return from_scipy(csr)


def _wrap_torch(A: Tensor) -> LinearOperator:
    _check_axes(tuple(A.shape))
    _refuse(A.dtype)
    if not (A.is_floating_point()):
        A = A.to(torch.float64)
    if A.layout == torch.strided:
        return DenseOperator(A)
    if A.layout == torch.sparse_csr:
        crow, columns, values = A.crow_indices(), A.col_indices(), A.values()
        check_bounds(crow, columns, values, (A.shape[0], A.shape[1]))
        if is_canonical(crow, columns):
            return CSROperator(crow, columns, values, (A.shape[0], A.shape[1]))
        A = A.to_sparse_coo()
    elif A.layout != torch.sparse_coo:
        A = A.to_sparse_coo()
    A = A.coalesce()
    rows, columns = A.indices()
    counts = torch.bincount(rows, minlength=A.shape[0])
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return CSROperator(indptr, columns.contiguous(), A.values(), (A.shape[0], A.shape[1]))


def _wrap_function(
    A: Any, product: Callable[..., Any], transposed: Callable[..., Any] | None
) -> CallableOperator:
    """Wrap what maps NumPy vectors (SciPy's operators, and functions that are not known to want tensors)."""
    _check_axes(tuple(A.shape))
    declared = getattr(A, "dtype", None)
    dtype = declared if isinstance(declared, torch.dtype) else np.dtype(declared or np.float64)
    _refuse(dtype)
    tensors = isinstance(dtype, torch.dtype)
    kind = dtype if tensors else torch.from_numpy(np.empty(0, _float(dtype))).dtype

    def on_vectors(function: Callable[..., Any] | None) -> Callable[[Tensor], Tensor] | None:
        if function is None or tensors:
            return function
        return lambda x: torch.from_numpy(np.ascontiguousarray(function(x.cpu().numpy())))

    shape = (int(A.shape[0]), int(A.shape[1]))
    return CallableOperator(on_vectors(product), shape, kind, on_vectors(transposed))  # type: ignore[arg-type]


def _transposed(A: Any) -> Callable[[Any], Any]:
    """Return the transposed product of a SciPy operator, which may turn out not to have one."""

    def product(x: Any) -> Any:
        try:
            return A.rmatvec(x)
        except NotImplementedError:
            msg = "A is a SciPy LinearOperator with no transposed product; give it rmatvec, or pass a matrix"
            raise StructureError(msg) from None

    return product


def _check_axes(shape: tuple[int, ...]) -> None:
    if len(shape) != 2:
        msg = f"A has shape {tuple(shape)}; a matrix has two axes"
        raise ShapeError(msg)


def _float(dtype: np.dtype) -> np.dtype:
    return dtype if dtype in (np.float32, np.float64) else np.dtype(np.float64)


def _refuse(dtype: Any, name: str = "A") -> None:
    kind = str(dtype).replace("torch.", "")
    if kind.startswith("complex"):
        msg = (
            f"{name} is {kind}; real numbers are needed: solve [[Re, -Im], [Im, Re]] [x_re; x_im] = [b_re; "
            "b_im] (scipy.sparse.block_array) instead"
        )
        raise StructureError(msg)
    if kind in ("float16", "bfloat16") or kind.startswith("float8"):
        msg = f"{name} is {kind}, too coarse for a linear solve; convert with .astype('float32') or .float()"
        raise StructureError(msg)
    if kind.startswith(("object", "<U", "|S", "str", "datetime", "timedelta", "void")):
        msg = f"{name} holds {kind} values; numbers of type float64 or float32 are needed"
        raise StructureError(msg)


@dataclass(frozen=True)
class Home:
    """Where a vector came from, so that the answer goes back there: library, dtype, device, layout."""

    torch: bool
    dtype: Any
    device: torch.device

    def bring(self, x: Tensor) -> Any:
        """Return float64 x as the caller's kind of array."""
        if self.torch:
            return x.to(self.device, self.dtype)
        return x.detach().cpu().numpy().astype(self.dtype, copy=False)

    @property
    def epsilon(self) -> float:
        """Rounding unit of the caller's dtype."""
        dtype = self.dtype if self.torch else torch.from_numpy(np.empty(0, self.dtype)).dtype
        return torch.finfo(dtype).eps


def as_vector(b: Any, n: int, name: str = "b", device: torch.device = CPU) -> tuple[Tensor, Home]:
    """Return b as float64 ``(n,)`` or ``(n, k)`` on a device, new or shared, and where it came from."""
    if isinstance(b, Tensor):
        _refuse(b.dtype, name)
        home = Home(True, b.dtype if b.is_floating_point() else torch.float64, b.device)
        if b.layout != torch.strided:
            b = b.to_dense()
        v = b.detach().to(device, torch.float64)
    else:
        b = _as_array(b, name)
        home = Home(False, _float(b.dtype), CPU)
        b = np.ascontiguousarray(b, np.float64)
        v = shared(b).to(device)
    if v.ndim not in (1, 2) or v.shape[0] != n or v.numel() == 0:
        msg = f"{name} has shape {tuple(v.shape)}; A has {n} rows, so {name} must be ({n},) or ({n}, k)"
        raise ShapeError(msg)
    return v.contiguous(), home


def _as_array(b: Any, name: str) -> np.ndarray:
    import scipy.sparse

    if scipy.sparse.issparse(b):
        b = b.toarray()
    try:
        b = np.asarray(b)
    except ValueError as ragged:
        msg = f"{name} makes no vector ({ragged}); an array ({name}.shape == (n,) or (n, k)) is needed"
        raise ShapeError(msg) from None
    _refuse(b.dtype, name)
    return b


def check_finite(v: Tensor, name: str) -> float:
    """Refuse NaN and infinity in a vector of the caller's; return its largest absolute entry."""
    most = table(v.device).largest(v)  # in which NaN shows too
    if not math.isfinite(most):
        bad = int((~torch.isfinite(v)).sum())
        msg = f"{name} has {bad} NaN or infinite entries of {v.numel()}; mend them before the solve"
        raise NonFiniteError(msg)
    return most
