"""CSR products, plain torch: the definition.

A has shape (m, n): indptr (m+1,) and indices (nnz,) int32 or int64, values (nnz,). Row i of a product
errs by at most about nnz_i eps (|A||x|)_i in any summation order, eps of the dtype of `values` (Higham
2002, sec. 3.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuralsolve.kernels.reference.vector import dot


def _rows(indptr: Tensor) -> Tensor:
    """Row of every stored entry, (nnz,) int64."""
    lengths = (indptr[1:] - indptr[:-1]).long()
    return torch.repeat_interleave(torch.arange(len(lengths), device=indptr.device), lengths)


def csr_matvec(indptr: Tensor, indices: Tensor, values: Tensor, x: Tensor, out: Tensor) -> None:
    """Out = A x; x (n,) or (n, k), out (m,) or (m, k) overwritten."""
    products = x[indices.long()] * (values if x.ndim == 1 else values[:, None])
    out.zero_().index_add_(0, _rows(indptr), products)


def csr_matvec_dot(indptr: Tensor, indices: Tensor, values: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """Out = A x for square A; returns x.out, () or (k,)."""
    csr_matvec(indptr, indices, values, x, out)
    return dot(x, out)


def csr_gram(indptr: Tensor, indices: Tensor, values: Tensor, x: Tensor, out: Tensor) -> None:
    """Out = A^T A x; x and out (n, k)."""
    y = x.new_empty((len(indptr) - 1, x.shape[1]))
    csr_matvec(indptr, indices, values, x, y)
    out.zero_().index_add_(0, indices.long(), y[_rows(indptr)] * values[:, None])


def csr_diagonal(indptr: Tensor, indices: Tensor, values: Tensor, out: Tensor) -> None:
    """out_i = A_ii, 0 where it is not stored; out (min(m, n),)."""
    rows = _rows(indptr)
    on_diagonal = rows == indices
    out.zero_().index_add_(0, rows[on_diagonal], values[on_diagonal])


def csr_coloring(indptr: Tensor, indices: Tensor, out: Tensor) -> int:
    """Colour the graph of a symmetric pattern greedily: the smallest colour free among the neighbours.

    out (n,) int32 gets colours 0, 1, ...; returns their number, at most 1 + the largest degree. Rows of
    one colour are not coupled to each other.
    """
    starts, columns = indptr.tolist(), indices.tolist()
    colors = [-1] * (len(starts) - 1)
    for i in range(len(colors)):
        taken = {colors[j] for j in columns[starts[i] : starts[i + 1]] if j != i}
        colors[i] = next(color for color in range(len(taken) + 1) if color not in taken)
    out.copy_(torch.tensor(colors, dtype=torch.int32))
    return max(colors, default=-1) + 1
