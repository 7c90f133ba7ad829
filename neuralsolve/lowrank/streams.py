"""Matrices that are read as a stream of blocks of their rows, (m_i, n) each: they need not fit in memory.

`Rows` reads them anew for every product, from a callable: one pass checks and measures, then a pass for A X
and one for each A^H A X. An iterator can be read once: `single_pass` is the randomised SVD without any power
iteration that still needs no second look at A.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.lowrank.decompositions import check_finite, dense_eigh
from neuralsolve.lowrank.factors import refuse_masked
from neuralsolve.lowrank.orthonormal import orthonormalize
from neuralsolve.lowrank.products import HALF, Product, as_tensor, squares_of


class Rows(Product):
    """A by blocks of its rows, read anew for every pass.

    Parameters
    ----------
    blocks : called for each pass; returns an iterator over tensors or arrays (m_i, n), the same every time
    """

    def __init__(self, blocks: Callable[[], Iterable[Any]]):
        self.blocks = blocks
        self._height: int | None = None  # not known before the first pass
        height, squares, first = 0, 0.0, None
        for rows in self():
            first = rows if first is None else first
            height, squares = height + len(rows), squares + float(squares_of(rows))
        if first is None:
            msg = "the stream gave no rows; a callable that returns a fresh iterator of blocks is needed"
            raise ShapeError(msg)
        super().__init__((height, first.shape[1]), first.dtype, first.device)
        self._height, self._squares = height, squares

    def __call__(self) -> Iterator[Tensor]:
        """Yield the blocks as tensors; raise ShapeError where the height is not that of the first pass."""
        height = 0
        for rows in tensors(self.blocks()):
            height += len(rows)
            yield rows
        if self._height not in (None, height):
            msg = f"the stream gave {self._height} rows first and {height} in a later pass; a callable that "
            msg += "returns a fresh iterator over the same blocks is needed"
            raise ShapeError(msg)

    def times(self, X: Tensor) -> Tensor:
        return torch.cat([rows @ X for rows in self()])

    def adjoint_times(self, Y: Tensor) -> Tensor:
        out = Y.new_zeros((self.shape[1], Y.shape[1]))
        start = 0
        for rows in self():
            out += rows.mH @ Y[start : start + len(rows)]
            start += len(rows)
        return out

    def gram_times(self, X: Tensor) -> Tensor:
        """A^H A X in one pass."""
        out = torch.zeros_like(X)
        for rows in self():
            out += rows.mH @ (rows @ X)
        return out

    def squared_norm(self) -> Tensor:
        return torch.tensor(self._squares, dtype=torch.float64)


def streamed(A: Any) -> bool:
    """Whether A is a callable that gives blocks of rows, and no operator."""
    return callable(A) and not hasattr(A, "shape")


def tensors(blocks: Iterable[Any]) -> Iterator[Tensor]:
    """Yield blocks of rows as tensors, checked, half precision as float32."""
    width, height, kind = None, 0, None
    for block in blocks:
        refuse_masked(block)
        rows = as_tensor(block.toarray() if hasattr(block, "toarray") else block)
        kind = kind or rows.dtype
        if rows.dtype != kind:
            msg = f"a block of {rows.dtype} came after one of {kind}; one dtype of all blocks is needed"
            raise OptionError(msg)
        if rows.ndim != 2 or rows.shape[1] != (width or rows.shape[1]) or rows.shape[1] == 0:
            msg = f"a block of shape {tuple(rows.shape)} came; (rows, {width or 'n'}) is needed of each"
            raise ShapeError(msg)
        check_finite(rows, f"the block of rows from {height} on")
        width, height = rows.shape[1], height + len(rows)
        yield rows.float() if rows.dtype in HALF else rows


def single_pass(
    blocks: Iterable[Any], columns: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, float]:
    """Return Q (m, k) orthonormal, k <= columns, Q^H A (k, n) and ||A||_F^2 from one look at the rows.

    Y = A X and Z = A^H Y for a random X (n, columns), block by block; then Q = Y R^-1 and Q^H A = R^-H Z^H,
    which a second pass would have computed (Yu, Gu, Li, Liu & Li, Single-pass PCA of large high-dimensional
    data, IJCAI 2017, 3350-3356). R comes from the eigenvalues of Y^H Y, those below eps^1/2 of the largest
    left out: singular values of A below about eps^1/4 of the largest are not seen.
    """
    kept, Z, X, squares = [], None, None, 0.0
    for rows in tensors(blocks):
        if X is None or Z is None:
            shape = (rows.shape[1], min(columns, rows.shape[1]))
            X = torch.randn(shape, generator=generator, dtype=rows.dtype, device=generator.device).to(
                rows.device
            )
            Z = torch.zeros_like(X)
        Y = rows @ X
        Z += rows.mH @ Y
        kept.append(Y)
        squares += float(squares_of(rows))
    if X is None or Z is None:
        msg = "the stream gave no rows; an iterator over blocks (m_i, n) is needed"
        raise ShapeError(msg)
    Y = torch.cat(kept)
    values, V = dense_eigh(Y.mH @ Y)
    count = max(1, int((values > torch.finfo(values.dtype).eps ** 0.5 * values[0]).sum()))
    root = values[:count].clamp_min(torch.finfo(values.dtype).tiny).sqrt()
    near = Y @ (V[:, :count] / root)  # orthonormal up to eps^1/2; near = Q M
    Q = orthonormalize(near)
    B = torch.linalg.solve((Q.mH @ near).mH, (Z @ (V[:, :count] / root)).mH)
    return Q, B, squares
