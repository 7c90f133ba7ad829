"""Kaczmarz's row projections, numba. Definition: `neuralsolve.kernels.reference.kaczmarz`."""

from __future__ import annotations

from numba import uint64
from torch import Tensor

from neuralsolve.kernels.cpu.threads import ordered


@ordered
def _project(indptr, indices, values, gram_indptr, gram_indices, gram_values, rows, d, r):
    for q in range(rows.size):
        i = uint64(rows[q])
        after = i + uint64(1)
        first, last = uint64(gram_indptr[i]), uint64(gram_indptr[after])
        square = 0.0
        for p in range(first, last):
            if uint64(gram_indices[p]) == i:
                square += gram_values[p]
        if square == 0:
            continue
        t = r[i] / square
        for p in range(uint64(indptr[i]), uint64(indptr[after])):
            d[uint64(indices[p])] -= t * values[p]
        for p in range(first, last):
            r[uint64(gram_indices[p])] -= t * gram_values[p]


def csr_kaczmarz(
    indptr: Tensor,
    indices: Tensor,
    values: Tensor,
    gram_indptr: Tensor,
    gram_indices: Tensor,
    gram_values: Tensor,
    rows: Tensor,
    d: Tensor,
    r: Tensor,
) -> None:
    """Project d on the equations `rows` of A, one after the other, in place; r = A d - b follows."""
    A = indptr.numpy(), indices.numpy(), values.numpy()
    gram = gram_indptr.numpy(), gram_indices.numpy(), gram_values.numpy()
    _project(*A, *gram, rows.numpy(), d.numpy(), r.numpy())
