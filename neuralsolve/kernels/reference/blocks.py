"""Gauss-Seidel within blocks of rows, Jacobi between them, plain torch and Python: the definition.

The rows are cut into blocks starts[q] ... starts[q + 1]. L holds the entries below the diagonal that couple
rows of one block; B = D + L with a diagonal D to come; everything else is the rest, A = B + E. Then, block by
block and so for all blocks at the same time,

    forward, from zero    x = B^-1 b,             b - A x = -E x
    backward              x += B^-T (b - A x)

which makes forward, then backward a symmetric preconditioner for symmetric A. With F the couplings between
blocks and D_i = max(a_ii, 3/4 a_ii + 1/2 sum_j |f_ij|), B + B^T - A = 2 D - diag(a_ii) - F is at least
diag(a_ii) / 2 by Gershgorin's theorem, so that both sweeps contract the error in the A-norm for every SPD A
(Baker, Falgout, Kolev and Yang, SIAM J. Sci. Comput. 33, 2011, with a_ii + sum_j |f_ij| for D_i).

x is (2 n,) or (2 n, k) and holds every number twice. A backward sweep overwrites the first half and sees the
rows of other blocks in the second, as they were before it. So E is (n, 2 n): its column n + j is row j of
another block. L and E are kept divided by D: a row then waits for one multiplication and addition of the row
before. Rows may be filled with explicit zeros.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from neuralsolve.kernels.reference.aggregation import Rows, _entries, _matrix


def csr_padded(indptr: Tensor, indices: Tensor, values: Tensor, dtype: torch.dtype) -> Rows:
    """Return the same matrix in `dtype`, its rows filled with explicit zeros as the other kernels like it."""
    return indptr.clone(), indices.clone(), values.to(dtype, copy=True)


def csr_block_split(
    indptr: Tensor, indices: Tensor, values: Tensor, starts: Tensor, factor: float, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Split factor * A; return D^-1 L and D^-1 E, three tensors each, D and D^-1, in `dtype`.

    Rows whose diagonal is not positive are zero in all of them, D^-1 too: they are left out. E holds
    a_ii - D_i where that is not zero.
    """
    rows, n = _entries(indptr, indices, values), len(indptr) - 1
    lower: list[dict[int, float]] = []
    rest: list[dict[int, float]] = []
    divisor = torch.zeros(n, dtype=torch.float64)
    for lo, hi in pairwise(starts.tolist()):
        for i in range(lo, hi):
            row = dict(rows[i])
            diagonal = row.pop(i, 0.0)
            between = sum(abs(a) for j, a in row.items() if not lo <= j < hi)
            d = max(diagonal, 0.75 * diagonal + 0.5 * between)
            if diagonal <= 0:
                row = {}
            else:
                divisor[i] = d * factor
            lower.append({j: a / d for j, a in row.items() if lo <= j < i})
            rest.append({j if lo <= j < hi else n + j: a / d for j, a in row.items() if not lo <= j < i})
            if row and d > diagonal:
                rest[i][i] = (diagonal - d) / d
    inverse = torch.where(divisor > 0, 1 / divisor, 0.0)
    return *_matrix(lower, dtype), *_matrix(rest, dtype), divisor.to(dtype), inverse.to(dtype)


def csr_block_forward(
    l_indptr: Tensor,
    l_indices: Tensor,
    l_values: Tensor,
    inverse: Tensor,
    starts: Tensor,
    b: Tensor,
    x: Tensor,
) -> None:
    """Set both halves of x to B^-1 b; b (n,) or (n, k), x (2 n,) or (2 n, k)."""
    n = len(inverse)
    for i in range(n):
        entries = slice(int(l_indptr[i]), int(l_indptr[i + 1]))
        x[i] = inverse[i] * b[i] - l_values[entries] @ x[l_indices[entries].long()]
    x[n:] = x[:n]


def csr_block_residual(
    e_indptr: Tensor, e_indices: Tensor, e_values: Tensor, divisor: Tensor, x: Tensor, out: Tensor
) -> None:
    """Set out = -E x, which is b - A x after `csr_block_forward`; out (n,) or (n, k), x twice as long."""
    for i in range(len(divisor)):
        entries = slice(int(e_indptr[i]), int(e_indptr[i + 1]))
        out[i] = -divisor[i] * (e_values[entries] @ x[e_indices[entries].long()])


def csr_block_correct(p_indptr: Tensor, p_indices: Tensor, p_values: Tensor, e: Tensor, x: Tensor) -> None:
    """Add P e to the first half of x and copy it to the second; P (n, m), e (m,) or (m, k)."""
    n = len(p_indptr) - 1
    for i in range(n):
        entries = slice(int(p_indptr[i]), int(p_indptr[i + 1]))
        x[i] += p_values[entries] @ e[p_indices[entries].long()]
    x[n:] = x[:n]


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
    x: Tensor,
) -> None:
    """Add B^-T (b - A x) to the first half of x, the second being equal to it: row by row from the last."""
    for i in range(len(inverse) - 1, -1, -1):
        before = slice(int(l_indptr[i]), int(l_indptr[i + 1]))
        others = slice(int(e_indptr[i]), int(e_indptr[i + 1]))
        left = l_values[before] @ x[l_indices[before].long()]
        x[i] = inverse[i] * b[i] - left - e_values[others] @ x[e_indices[others].long()]
