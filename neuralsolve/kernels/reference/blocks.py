"""Gauss-Seidel within blocks of rows, Jacobi between them, plain torch and Python: the definition.

The rows are cut into blocks starts[q] ... starts[q + 1]. L holds the entries below the diagonal that couple
rows of one block; B = D + L with a diagonal D to come; everything else is the rest, A = B + E. Then, block by
block and so for all blocks at the same time,

    forward, from zero    x = B^-1 b,             b - A x = -E x
    backward              x = y + B^-T (b - A y)

which makes forward, then backward a symmetric preconditioner for symmetric A. With F the couplings between
blocks and D_i = max(a_ii, 3/4 a_ii + 1/2 sum_j |f_ij|), B + B^T - A = 2 D - diag(a_ii) - F is at least
diag(a_ii) / 2 by Gershgorin's theorem, so that both sweeps contract the error in the A-norm for every SPD A
(Baker, Falgout, Kolev and Yang, SIAM J. Sci. Comput. 33, 2011, with a_ii + sum_j |f_ij| for D_i).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from neuralsolve.kernels.reference.aggregation import _entries, _matrix


def csr_block_split(
    indptr: Tensor, indices: Tensor, values: Tensor, starts: Tensor, factor: float, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Split factor * A; return L and E, three tensors each, and 1 / D, in `dtype`.

    1 / D is 0 in rows whose diagonal is not positive: these are left at zero. E holds a_ii - D_i where
    that is not zero.
    """
    rows = _entries(indptr, indices, values)
    lower: list[dict[int, float]] = []
    rest: list[dict[int, float]] = []
    inverse = torch.zeros(len(rows), dtype=torch.float64)
    for lo, hi in pairwise(starts.tolist()):
        for i in range(lo, hi):
            row = {j: factor * a for j, a in rows[i]}
            diagonal = row.pop(i, 0.0)
            between = sum(abs(a) for j, a in row.items() if not lo <= j < hi)
            divisor = max(diagonal, 0.75 * diagonal + 0.5 * between)
            lower.append({j: a for j, a in row.items() if lo <= j < i})
            rest.append({j: a for j, a in row.items() if not lo <= j < i})
            if divisor > diagonal:
                rest[i][i] = diagonal - divisor
            inverse[i] = 1 / divisor if diagonal > 0 else 0.0
    return *_matrix(lower, dtype), *_matrix(rest, dtype), inverse.to(dtype)


def csr_block_forward(
    l_indptr: Tensor,
    l_indices: Tensor,
    l_values: Tensor,
    inverse: Tensor,
    starts: Tensor,
    b: Tensor,
    x: Tensor,
) -> None:
    """Set x = B^-1 b, with L and 1 / D from `csr_block_split`; b and x (n,) or (n, k)."""
    for i in range(len(inverse)):
        entries = slice(int(l_indptr[i]), int(l_indptr[i + 1]))
        x[i] = (b[i] - l_values[entries] @ x[l_indices[entries].long()]) * inverse[i]


def csr_block_backward(
    l_indptr: Tensor,
    l_indices: Tensor,
    l_values: Tensor,
    e_indptr: Tensor,
    e_indices: Tensor,
    e_values: Tensor,
    inverse: Tensor,
    starts: Tensor,
    b: Tensor,
    y: Tensor,
    x: Tensor,
) -> None:
    """Set x = y + B^-T (b - A y), with L, E and 1 / D from `csr_block_split`; b, y, x (n,) or (n, k).

    Row by row from the last: x_i = (b_i - (L y)_i - (E z)_i) / D_i, z the new values of the rows of the block
    that come after i, and y elsewhere.
    """
    for lo, hi in pairwise(starts.tolist()):
        for i in range(hi - 1, lo - 1, -1):
            before = slice(int(l_indptr[i]), int(l_indptr[i + 1]))
            others = slice(int(e_indptr[i]), int(e_indptr[i + 1]))
            columns = e_indices[others].long()
            new = (columns > i) & (columns < hi)
            z = torch.where(new if b.ndim == 1 else new[:, None], x[columns], y[columns])
            left = l_values[before] @ y[l_indices[before].long()] + e_values[others] @ z
            x[i] = (b[i] - left) * inverse[i]
