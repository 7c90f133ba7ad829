"""One face of what can be multiplied: dense matrices and batches, sparse ones, operators, streams of rows.

A randomised method asks a matrix for A X, A^H Y and, where entries are at hand, ||A||_F^2; these objects
answer, with tensors. `product` makes one of whatever a caller passed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy as shallow
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.kernels import table
from neuralsolve.lowrank.decompositions import check_finite

HALF = (torch.bfloat16, torch.float16)
BLOCK = 1024  # rows that are rounded at a time
CACHED = 2**16  # entries that are raised to double precision at a time
LARGE = 2**22  # entries from which on products with A are what it costs


class Product(ABC):
    """A of shape (..., m, n); `dtype` is that of the products."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device):
        self.shape, self.dtype, self.device = tuple(shape), dtype, device

    @abstractmethod
    def times(self, X: Tensor) -> Tensor:
        """Return A X for X (..., n, k)."""

    @abstractmethod
    def adjoint_times(self, Y: Tensor) -> Tensor:
        """Return A^H Y for Y (..., m, k)."""

    def gram_times(self, X: Tensor) -> Tensor:
        """Return A^H A X."""
        return self.adjoint_times(self.times(X))

    def squared_norm(self) -> Tensor | None:
        """Return ||A||_F^2, (...), float64; None where the entries are not at hand."""
        return None

    def check(self) -> None:  # noqa: B027
        """Refuse NaN and infinity where that has not been done."""

    @property
    def H(self) -> Product:
        """The adjoint A^H."""
        return Adjoint(self)


class Adjoint(Product):
    """A^H (..., n, m) of a product."""

    def __init__(self, inner: Product):
        *batch, m, n = inner.shape
        super().__init__((*batch, n, m), inner.dtype, inner.device)
        self.inner = inner

    def times(self, X: Tensor) -> Tensor:
        return self.inner.adjoint_times(X)

    def adjoint_times(self, Y: Tensor) -> Tensor:
        return self.inner.times(Y)

    def squared_norm(self) -> Tensor | None:
        return self.inner.squared_norm()

    @property
    def H(self) -> Product:
        return self.inner


class Dense(Product):
    """A tensor (..., m, n); half precision is multiplied in float32.

    Attributes
    ----------
    squares : ||A||_F^2 (...), float64, inf where it overflows: summed when it is asked for, or noted by who
        has it

    Raises
    ------
    NonFiniteError
        By `squares`, where an entry is NaN or infinite.
    """

    def __init__(self, A: Tensor):
        self.A = A.float() if A.dtype in HALF else A
        super().__init__(tuple(A.shape), self.A.dtype, A.device)
        self._squares: Tensor | None = None

    @property
    def squares(self) -> Tensor:
        if self._squares is None:
            self.squares = squares_of_each(self.A.detach())
        return cast("Tensor", self._squares)

    @squares.setter
    def squares(self, value: Tensor) -> None:
        if not bool(torch.isfinite(value).all()):
            check_finite(self.A)  # or it overflowed
        self._squares = value

    def check(self) -> None:
        if self._squares is None and not bool(
            torch.isfinite(torch.linalg.matrix_norm(self.A.detach())).all()
        ):
            check_finite(self.A)  # or the norm overflowed, which is quicker to take than squares

    def times(self, X: Tensor) -> Tensor:
        if X.ndim == 2 and self.A.stride(-1) == 1:  # half the time for BLAS, of few columns
            return _by_rows(X.mT.contiguous(), self.A).mT
        return self.A @ X

    def adjoint_times(self, Y: Tensor) -> Tensor:
        return self.A.mH @ Y

    def squared_norm(self) -> Tensor:
        return self.squares

    @property
    def H(self) -> Product:
        other = shallow(self)
        other.A, other.shape = self.A.mH, (*self.shape[:-2], self.shape[-1], self.shape[-2])
        return other


def _by_rows(X: Tensor, A: Tensor) -> Tensor:
    """Return X A^T: in float32 by oneDNN, on the CPU, which has wider vectors than MKL on some of them."""
    linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.enabled else None
    plain = A.device.type == "cpu" and A.dtype == X.dtype == torch.float32 and A.is_contiguous()
    if linear is None or not plain or A.ndim > 2 or A.numel() < BLOCK**2:
        return X @ A.mT
    return linear(X, A, None, "none", [], "")


class Coarse(Dense):
    """A dense A multiplied in a lower precision, for A^H A X alone; rows are rounded block by block."""

    def __init__(self, fine: Dense, precision: torch.dtype):
        Product.__init__(self, fine.shape, fine.dtype, fine.device)
        self.A, self._squares, self.precision = fine.A, fine.squares, precision

    def gram_times(self, X: Tensor) -> Tensor:
        x, out = X.to(self.precision), torch.zeros_like(X)
        memory = torch.empty_like(self.A[..., :BLOCK, :], dtype=self.precision)
        for rows in self.A.split(BLOCK, -2):
            block = memory[..., : rows.shape[-2], :].copy_(rows)
            out += block.mH @ (block @ x)
        return out


class Sparse(Product):
    """A SciPy sparse matrix: real ones go through the kernels of the package, complex ones through SciPy."""

    def __init__(self, A: Any):
        csr = A.tocsr()
        if not csr.has_canonical_format:
            csr = csr.copy()  # the caller's stays as it is
            csr.sum_duplicates()
        dtype = torch.from_numpy(csr.data[:0]).dtype
        super().__init__(csr.shape, dtype, torch.device("cpu"))
        check_finite(torch.from_numpy(csr.data), "A.data")
        self.csr, self._transposed = csr, None

    def compact(self) -> tuple[Sparse, np.ndarray, np.ndarray] | None:
        """Return A without its empty rows and columns, and which those are that stay.

        None where that would leave more than half of both.
        """
        csr = self.csr
        full = np.zeros(self.shape[1], bool)
        full[csr.indices] = True
        rows, columns = np.flatnonzero(np.diff(csr.indptr)), np.flatnonzero(full)
        if len(rows) == 0 or 2 * min(len(rows) / self.shape[0], len(columns) / self.shape[1]) > 1:
            return None
        number = np.cumsum(full, dtype=np.int32) - np.int32(1)
        index = np.int32 if csr.nnz < 2**31 else np.int64
        starts = np.append(csr.indptr[rows], csr.indptr[-1]).astype(index)
        parts = (csr.data, number[csr.indices], starts)
        return Sparse(type(csr)(parts, shape=(len(rows), len(columns)))), rows, columns

    def rounded(self, dtype: torch.dtype) -> Sparse:
        """Return A multiplied in a lower precision, for A^H A X alone."""
        other = shallow(self)
        other.csr = self.csr.astype(torch.empty(0, dtype=dtype).numpy().dtype)
        other._transposed = None
        return other

    def gram_times(self, X: Tensor) -> Tensor:
        if X.is_complex() or self.dtype.is_complex:
            return self.adjoint_times(self.times(X))
        parts = _parts(self.csr)
        x = X.to(parts[-1].dtype).contiguous()
        out = torch.empty_like(x)
        table("cpu").csr_gram(*parts, x, out)
        return out.to(X.dtype)

    def times(self, X: Tensor) -> Tensor:
        return _csr_times(self.csr, X)

    def adjoint_times(self, Y: Tensor) -> Tensor:
        if self._transposed is None:
            self._transposed = self.csr.conj().T.tocsr()
        return _csr_times(self._transposed, Y)

    def squared_norm(self) -> Tensor:
        return squares_of(torch.from_numpy(self.csr.data))


def squares_of(A: Tensor) -> Tensor:
    """Return the sum of the squares of all entries, in double precision."""
    wide = torch.complex128 if A.is_complex() else torch.float64
    return torch.linalg.vector_norm(A, dtype=wide).square()


def squares_of_each(A: Tensor) -> Tensor:
    """Return the sums of the squares of the entries of A (..., m, n), (...), in double precision.

    Rows, or columns where these lie in memory one after the other, are summed apart, and raised by blocks:
    on the CPU of a size that stays in the cache.
    """
    wide = torch.complex128 if A.is_complex() else torch.float64
    lines = A if A.stride(-1) <= A.stride(-2) else A.mT
    most = CACHED if A.device.type == "cpu" else LARGE
    blocks = lines.split(max(1, most // lines.shape[-1]), -2)
    norms = [torch.linalg.vector_norm(block.to(wide), dim=-1) for block in blocks]
    return torch.cat(norms, -1).square().sum(-1)


def _csr_times(csr: Any, X: Tensor) -> Tensor:
    if X.is_complex() or csr.dtype.kind == "c":
        return torch.from_numpy(csr @ X.resolve_conj().numpy())
    out = fresh((csr.shape[0], X.shape[1]), X)
    table("cpu").csr_matvec(*_parts(csr), X.contiguous(), out)
    return out


def _parts(csr: Any) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(part) for part in (csr.indptr, csr.indices, csr.data))


def fresh(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return memory for a tensor: on the CPU NumPy's, which asks for large pages: few must be made."""
    if like.device.type != "cpu" or like.dtype in HALF:
        return like.new_empty(shape)
    return torch.from_numpy(np.empty(shape, torch.empty(0, dtype=like.dtype).numpy().dtype))


class Operator(Product):
    """Anything with `shape`, `dtype`, a product `@` and an adjoint: `rmatvec`, `.H`, `.mH` or `.T`."""

    def __init__(self, A: Any):
        ours = isinstance(A.dtype, torch.dtype)
        dtype = A.dtype if ours else torch.from_numpy(np.zeros(0, A.dtype)).dtype
        device = A.device if isinstance(getattr(A, "device", None), torch.device) else torch.device("cpu")
        if len(A.shape) != 2:
            msg = f"an operator of shape {tuple(A.shape)} was given; (m, n) is needed"
            raise ShapeError(msg)
        super().__init__((int(A.shape[0]), int(A.shape[1])), dtype, device)
        self.A, self.numpy = A, not ours
        self.adjoint = _adjoint_of(A)

    def times(self, X: Tensor) -> Tensor:
        return self._call(lambda x: self.A @ x, X)

    def adjoint_times(self, Y: Tensor) -> Tensor:
        return self._call(self.adjoint, Y)

    def _call(self, function: Callable[[Any], Any], X: Tensor) -> Tensor:
        if self.numpy:
            return torch.from_numpy(np.ascontiguousarray(function(X.resolve_conj().numpy())))
        return function(X.contiguous())


def _adjoint_of(A: Any) -> Callable[[Any], Any]:
    msg = f"{type(A).__name__} has no adjoint product; give it rmatvec(y) = A^H y, or a property H or T"
    for name in ("rmatmat", "rmatvec"):  # SciPy's take blocks by the first; ours take them by the second
        if callable(getattr(A, name, None)):
            if name == "rmatmat":  # SciPy's has it always, and fails where no rmatvec was given
                try:
                    A.rmatvec(np.zeros(A.shape[0], A.dtype))
                except (TypeError, NotImplementedError) as error:
                    raise OptionError(msg) from error
            return getattr(A, name)
    for name in ("H", "mH", "T"):
        if hasattr(A, name):
            adjoint = getattr(A, name)
            return lambda y: adjoint @ y
    raise OptionError(msg)


def as_tensor(A: Any) -> Tensor:
    """Return a tensor of floating point numbers that shares the memory of A."""
    X = A
    if isinstance(A, Tensor) and A.layout != torch.strided:
        msg = f"got a tensor of layout {A.layout}; a SciPy sparse matrix, or A.to_dense(), is needed"
        raise OptionError(msg)
    if not isinstance(A, Tensor):
        array = np.asarray(A)
        if array.dtype.kind not in "fc":
            msg = f"got dtype {array.dtype}; floating point or complex is needed: A.astype(float)"
            raise OptionError(msg)
        if any(stride < 0 for stride in array.strides) or not array.flags.writeable:
            array = array.copy()  # else torch refuses, or warns of what it might write
        X = torch.from_numpy(array)
    if not (X.is_floating_point() or X.is_complex()):
        msg = f"got dtype {X.dtype}; floating point or complex is needed: A.double()"
        raise OptionError(msg)
    return X


def product(A: Any, check: bool = True) -> Product:
    """Return A as a product.

    Parameters
    ----------
    A : tensor or array (..., m, n); SciPy sparse; an operator with `shape`, `dtype`, `@` and an adjoint; or a
        product already, such as `streams.Rows`
    check : whether to look at the entries of a dense one now; else `check` or `norm` of the product does

    Raises
    ------
    OptionError, ShapeError, NonFiniteError
    """
    if isinstance(A, Product):
        return A
    if isinstance(A, (Tensor, np.ndarray, list, tuple)):
        X = as_tensor(A)
        if X.ndim < 2 or 0 in X.shape:
            msg = f"got A of shape {tuple(X.shape)}; (..., m, n) with m >= 1 and n >= 1 is needed"
            raise ShapeError(msg)
        P = Dense(X)
        if check:
            P.check()
        return P
    if 0 in getattr(A, "shape", ()):
        msg = f"got A of shape {tuple(A.shape)}; m >= 1 and n >= 1 are needed"
        raise ShapeError(msg)
    if hasattr(A, "tocsr") and hasattr(A, "nnz"):
        if A.dtype.kind not in "fc":
            msg = f"got dtype {A.dtype}; floating point or complex is needed: A.astype(float)"
            raise OptionError(msg)
        return Sparse(A)
    if hasattr(A, "shape") and hasattr(A, "dtype") and hasattr(A, "__matmul__"):
        return Operator(A)
    msg = (
        f"got {type(A).__name__}; a tensor, an array, a SciPy sparse matrix, an operator with shape, dtype, "
        "@ and an adjoint, or a callable that returns an iterator of row blocks is needed"
    )
    raise OptionError(msg)
