"""Operators made of other operators or functions: dense, callable, block, diagonal plus low rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import NonFiniteError, ShapeError, StructureError
from neuralsolve.operators.base import LinearOperator, canonical, output_like, shallow

if TYPE_CHECKING:
    import scipy.sparse

CPU = torch.device("cpu")


class DenseOperator(LinearOperator):
    """A dense matrix ``(m, n)``; a gradient reaches its values."""

    def __init__(self, values: Tensor, props: Iterable[str] = ()):
        if values.ndim != 2:
            msg = f"a dense matrix has two axes, given shape {tuple(values.shape)}"
            raise ShapeError(msg)
        _check_finite(values, "A")
        super().__init__((values.shape[0], values.shape[1]), values.dtype, values.device, props)
        self.values = values

    def matvec(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.matmul(self.values.detach(), x, out=output_like(x, self.shape[0], out))

    def rmatvec(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.matmul(self.values.detach().T, x, out=output_like(x, self.shape[1], out))

    def diagonal(self) -> Tensor:
        return self.values.detach().diagonal().clone()

    def to_scipy(self) -> scipy.sparse.csr_array:
        import scipy.sparse

        return scipy.sparse.csr_array(self.values.detach().cpu().numpy())

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> DenseOperator:
        moved = self.values.to(*self._destination(device, dtype))
        return self if moved is self.values else self._handing_on(DenseOperator(moved, self.props))

    def parameters(self) -> tuple[Tensor, ...]:
        return (self.values,)

    def parameter_gradients(self, lam: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        return (-lam.reshape(len(lam), -1) @ x.reshape(len(x), -1).T,)


class CallableOperator(LinearOperator):
    """A function x ``(n,)`` -> A x ``(m,)``; several columns are mapped one by one unless `block` is set.

    Parameters
    ----------
    function : tensor -> tensor
    shape : (m, n)
    dtype : of what the function takes, of torch or NumPy; other vectors are converted on the way in and out
    transposed : the same for A^T, optional
    props : what is known of A
    block : the function takes (n, k)
    diagonal : (n,), where it is known
    device : of the vectors that the function takes, such as "cuda", where its solves then run too; by default
        it takes them from wherever they are
    """

    stays = False  # who knows what the function does

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        shape: tuple[int, int],
        dtype: Any = torch.float64,
        transposed: Callable[[Tensor], Tensor] | None = None,
        props: Iterable[str] = (),
        block: bool = False,
        diagonal: Tensor | None = None,
        device: torch.device | str | None = None,
    ):
        if not isinstance(shape, Sequence) or len(shape) != 2:
            msg = f"shape is {shape!r}; a pair (m, n) is needed"
            raise ShapeError(msg)
        if not isinstance(dtype, torch.dtype):
            dtype = torch.from_numpy(np.empty(0, dtype)).dtype
        super().__init__(shape, dtype, CPU if device is None else canonical(device), props)
        self.function, self.transposed, self.block, self.known_diagonal = (
            function,
            transposed,
            block,
            diagonal,
        )
        self.takes, self.takes_on = dtype, None if device is None else self.device

    def matvec(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return self._map(self.function, x, output_like(x, self.shape[0], out))

    def rmatvec(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        if self.transposed is None:
            return super().rmatvec(x, out)
        return self._map(self.transposed, x, output_like(x, self.shape[1], out))

    def diagonal(self) -> Tensor:
        if self.known_diagonal is not None:
            return self.known_diagonal
        msg = (
            "A is given as a function, its diagonal is not known; pass a matrix, or "
            "ns.CallableOperator(function, shape, diagonal=...)"
        )
        raise StructureError(msg)

    def to_scipy(self) -> scipy.sparse.csr_array:
        import scipy.sparse

        columns = [self.matvec(e) for e in torch.eye(self.shape[1], dtype=self.dtype)]
        return scipy.sparse.csr_array(torch.stack(columns, 1).numpy())

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> CallableOperator:
        device, dtype = self._destination(device, dtype)
        if (device, dtype) == (self.device, self.dtype):
            return self
        other = shallow(self)  # the function still takes what it took
        other.device, other.dtype = device, dtype
        other.known_diagonal = None if self.known_diagonal is None else self.known_diagonal.to(device)
        return self._handing_on(other)

    def _map(self, function: Callable[[Tensor], Tensor], x: Tensor, out: Tensor) -> Tensor:
        if x.ndim == 2 and not self.block:
            for j in range(x.shape[1]):
                out[:, j] = self._checked(function, x[:, j].contiguous(), out[:, j])
            return out
        return out.copy_(self._checked(function, x, out))

    def _checked(self, function: Callable[[Tensor], Tensor], x: Tensor, like: Tensor) -> Tensor:
        given = x.to(self.takes_on or x.device, self.takes, copy=True)  # it may write to its argument
        y = torch.as_tensor(function(given))
        if y.is_complex():
            msg = f"the function that stands for A returned {y.dtype}; real numbers are needed"
            raise StructureError(msg)
        if y.shape != like.shape:
            msg = f"the function that stands for A returned {tuple(y.shape)}; {tuple(like.shape)} is needed"
            raise ShapeError(msg)
        return y


class Block(LinearOperator):
    """A block matrix of operators, such as the KKT matrix [[A, B^T], [B, 0]]; None is a zero block.

    Parameters
    ----------
    blocks : rows of operators or None; every row and column needs one operator, which gives its size
    props : what is known of the whole

    Examples
    --------
    >>> A, B = DenseOperator(torch.eye(2)), DenseOperator(torch.ones(1, 2))
    >>> kkt = Block([[A, DenseOperator(torch.ones(2, 1))], [B, None]], props={"symmetric"})
    >>> kkt @ torch.tensor([1.0, 2.0, 3.0])
    tensor([4., 5., 3.])
    """

    def __init__(self, blocks: Sequence[Sequence[LinearOperator | None]], props: Iterable[str] = ()):
        self.blocks = [list(row) for row in blocks]
        if not self.blocks or len({len(row) for row in self.blocks}) != 1:
            msg = f"blocks must be rows of equal length, given lengths {[len(row) for row in self.blocks]}"
            raise ShapeError(msg)
        self.row_sizes = [_shared_size(row, 0, f"row {i}") for i, row in enumerate(self.blocks)]
        columns = list(zip(*self.blocks, strict=True))
        self.column_sizes = [_shared_size(column, 1, f"column {j}") for j, column in enumerate(columns)]
        present = [block for row in self.blocks for block in row if block is not None]
        dtype = torch.float64 if any(b.dtype == torch.float64 for b in present) else torch.float32
        super().__init__((sum(self.row_sizes), sum(self.column_sizes)), dtype, present[0].device, props)
        self.stays = all(block.stays for block in present)
        self.blocks = [[None if b is None else b.to(dtype=dtype) for b in row] for row in self.blocks]

    def matvec(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return self._sum(
            self.blocks, x.split(self.column_sizes), "matvec", output_like(x, self.shape[0], out)
        )

    def rmatvec(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        columns = list(zip(*self.blocks, strict=True))
        return self._sum(columns, x.split(self.row_sizes), "rmatvec", output_like(x, self.shape[1], out))

    def _sum(
        self, rows: Sequence[Sequence[LinearOperator | None]], parts: Any, product: str, out: Tensor
    ) -> Tensor:
        out.zero_()
        start = size = 0
        for row in rows:
            for block, part in zip(row, parts, strict=True):
                if block is not None:
                    term = getattr(block, product)(part.contiguous())
                    out[start : start + len(term)] += term
                    size = len(term)
            start += size  # every row holds at least one operator
        return out

    def diagonal(self) -> Tensor:
        if self.row_sizes != self.column_sizes:
            return torch.from_numpy(self.to_scipy().diagonal())
        parts = [
            torch.zeros(size, dtype=self.dtype) if (block := self.blocks[i][i]) is None else block.diagonal()
            for i, size in enumerate(self.row_sizes)
        ]
        return torch.cat([part.to(self.dtype) for part in parts])

    def parameters(self) -> tuple[Tensor, ...]:
        return tuple(
            p for row in self.blocks for block in row if block is not None for p in block.parameters()
        )

    def parameter_gradients(self, lam: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        lams, xs = lam.split(self.row_sizes), x.split(self.column_sizes)
        gradients: list[Tensor] = []
        for row, part in zip(self.blocks, lams, strict=True):
            for block, column in zip(row, xs, strict=True):
                if block is not None:
                    gradients += block.parameter_gradients(part, column)
        return tuple(gradients)

    def to_scipy(self) -> scipy.sparse.csr_array:
        import scipy.sparse

        rows = [[None if b is None else b.to_scipy() for b in row] for row in self.blocks]
        return scipy.sparse.csr_array(scipy.sparse.block_array(rows, format="csr"))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Block:
        moved = [[None if b is None else b.to(device, dtype) for b in row] for row in self.blocks]
        same = all(
            a is b for new, old in zip(moved, self.blocks, strict=True) for a, b in zip(new, old, strict=True)
        )
        return self if same else self._handing_on(Block(moved, self.props))


class DiagonalPlusLowRank(LinearOperator):
    """diag(d) + U U^T, or diag(d) + U V^T: solved directly by the Woodbury identity.

    Parameters
    ----------
    d : (n,)
    U : (n, r)
    V : (n, r), U by default (A is then symmetric)
    props : what else is known; "spd" is found where d > 0 and V is U
    """

    def __init__(self, d: Tensor, U: Tensor, V: Tensor | None = None, props: Iterable[str] = ()):
        shapes = [tuple(U.shape)] if V is None else [tuple(U.shape), tuple(V.shape)]
        if d.ndim != 1 or any(shape != (len(d), U.shape[-1]) for shape in shapes) or U.ndim != 2:
            msg = f"d is {tuple(d.shape)} and the factors are {shapes}; (n,) and (n, r) are needed"
            raise ShapeError(msg)
        for part, name in ((d, "d"), (U, "U"), (V if V is not None else U, "V")):
            _check_finite(part, name)
        found = set(props)
        if V is None:
            found |= {"spd"} if bool((d > 0).all()) else {"symmetric"}
        super().__init__((len(d), len(d)), d.dtype, d.device, found)
        self._given = (d, U) if V is None else (d, U, V)  # what a gradient reaches
        self.d, self.U = d.detach(), U.detach()
        self.V = self.U if V is None else V.detach()

    def matvec(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return self._product(self.U, self.V, x, out)

    def rmatvec(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return self._product(self.V, self.U, x, out)

    def _product(self, left: Tensor, right: Tensor, x: Tensor, out: Tensor | None) -> Tensor:
        out = output_like(x, self.shape[0], out)
        torch.mul(self.d if x.ndim == 1 else self.d[:, None], x, out=out)
        out += left @ (right.T @ x)
        return out

    def parameters(self) -> tuple[Tensor, ...]:
        return self._given

    def parameter_gradients(self, lam: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        lam, x = lam.reshape(len(lam), -1), x.reshape(len(x), -1)
        by_d = -(lam * x).sum(1)
        by_U, by_V = -lam @ (x.T @ self.V), -x @ (lam.T @ self.U)
        return (by_d, by_U + by_V) if len(self._given) == 2 else (by_d, by_U, by_V)

    def inverse(self) -> CallableOperator:
        """Return A^-1 by Woodbury: D^-1 - D^-1 U (I + V^T D^-1 U)^-1 V^T D^-1; d must have no zero.

        Cost: O(n r^2) once, O(n r) per product.
        """
        if bool((self.d == 0).any()):
            msg = (
                "the Woodbury identity divides by d, which has zeros; pass ns.as_operator(A.to_scipy()) "
                "instead"
            )
            raise StructureError(msg)
        scaled = self.U / self.d[:, None]
        capacitance = torch.eye(self.U.shape[1], dtype=self.dtype) + self.V.T @ scaled
        lu = torch.linalg.lu_factor(capacitance)

        def apply(r: Tensor) -> Tensor:
            r = r.reshape(len(r), -1) / self.d[:, None]
            return (r - scaled @ torch.linalg.lu_solve(*lu, self.V.T @ r)).squeeze(1)

        return CallableOperator(apply, self.shape, self.dtype, props=self.props, diagonal=1 / self.d)

    def diagonal(self) -> Tensor:
        return self.d + (self.U * self.V).sum(1)

    def to_scipy(self) -> scipy.sparse.csr_array:
        import scipy.sparse

        return scipy.sparse.csr_array((torch.diag(self.d) + self.U @ self.V.T).cpu().numpy())

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> DiagonalPlusLowRank:
        device, dtype = self._destination(device, dtype)
        if (device, dtype) == (self.device, self.dtype):
            return self
        V = None if self.V is self.U else self.V.to(device, dtype)
        parts = self.d.to(device, dtype), self.U.to(device, dtype), V
        return self._handing_on(DiagonalPlusLowRank(*parts, self.props))


def _shared_size(blocks: Iterable[LinearOperator | None], axis: int, where: str) -> int:
    sizes = {block.shape[axis] for block in blocks if block is not None}
    if len(sizes) != 1:
        msg = (
            f"{where} of the block matrix has sizes {sorted(sizes)}; exactly one is needed (at least one "
            "operator)"
        )
        raise ShapeError(msg)
    return sizes.pop()


def _check_finite(values: Tensor, name: str) -> None:
    if not bool(torch.isfinite(values.detach()).all()):
        msg = f"{name} holds NaN or infinite values; mend them before the solve (np.isfinite finds them)"
        raise NonFiniteError(msg)
