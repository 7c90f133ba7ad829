"""Incomplete factorisations and triangular solves, plain torch and Python: the definition.

IC(0) and ILU(0) keep the pattern of A and match A on it: (L L^T)_ij = A_ij, (L U)_ij = A_ij wherever A_ij is
stored (Saad 2003, sec. 10.3). The modified factorisation subtracts `modified` times every dropped
product from the diagonals of both rows it couples: with modified = 1 row sums are kept, L L^T 1 = A 1,
which lowers the condition number for a Poisson equation from O(h^-2) to O(h^-1) (Gustafsson 1978; Saad
2003, sec. 10.3.5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def _rows(indptr: Tensor, indices: Tensor, values: Tensor) -> list[dict[int, float]]:
    starts, columns, entries = indptr.tolist(), indices.tolist(), values.tolist()
    return [dict(zip(columns[p:q], entries[p:q], strict=True)) for p, q in pairwise(starts)]


def csr_ic0_factor(
    indptr: Tensor, indices: Tensor, values: Tensor, modified: float, out_values: Tensor, floor: float = 0.0
) -> int:
    """Factor A ~ L L^T on the pattern of the lower triangle of A.

    Parameters
    ----------
    indptr, indices, values : (n + 1,), (nnz,), (nnz,)
        Lower triangle of an SPD A, columns sorted, so that the diagonal is the last entry of its row.
    modified : float
        0: IC(0). 1: row sums are kept. In between: that share of the dropped products.
    out_values : (nnz,)
        Entries of L.
    floor : float
        A pivot below this share of its entry A_ii is replaced by A_ii (Bridson 2015, sec. 5.4); 0 keeps all.

    Returns
    -------
    int
        0, or 1 + the row whose pivot is not positive: no factor then, out_values is unspecified.
    """
    L = _rows(indptr, indices, values)
    n = len(L)
    columns: list[list[int]] = [[] for _ in range(n)]
    whole = [row[i] for i, row in enumerate(L)]
    for i in range(n):
        for j in L[i]:
            columns[j].append(i)
    for j in range(n):
        if floor > 0 and L[j][j] < floor * whole[j]:
            L[j][j] = whole[j]
        if not L[j][j] > 0:
            return j + 1
        L[j][j] = math.sqrt(L[j][j])
        below = [i for i in columns[j] if i > j]
        for i in below:
            L[i][j] /= L[j][j]
        for i in below:
            for k in below:
                product = L[i][j] * L[k][j]
                if k > i:
                    continue
                if k in L[i]:
                    L[i][k] -= product
                else:
                    L[i][i] -= modified * product
                    L[k][k] -= modified * product
    out_values.copy_(torch.tensor([value for row in L for value in row.values()], dtype=torch.float64))
    return 0


def csr_lower_solve(indptr: Tensor, indices: Tensor, values: Tensor, b: Tensor, out: Tensor) -> None:
    """Solve L y = b for lower triangular L, the diagonal last in its row; b and out (n,) or (n, k).

    The computed y solves (L + dL) y = b exactly, |dL_ij| <= nnz_i eps |L_ij| (Higham 2002, thm 8.5).
    """
    for i in range(len(indptr) - 1):
        first, last = int(indptr[i]), int(indptr[i + 1]) - 1
        columns = indices[first:last].long()
        out[i] = (b[i] - values[first:last] @ out[columns]) / values[last]


def csr_lower_transpose_solve(
    indptr: Tensor, indices: Tensor, values: Tensor, b: Tensor, out: Tensor
) -> None:
    """Solve L^T y = b, the diagonal of L last in its row; b and out (n,) or (n, k)."""
    out.copy_(b)
    for i in range(len(indptr) - 2, -1, -1):
        first, last = int(indptr[i]), int(indptr[i + 1]) - 1
        out[i] /= values[last]
        for p in range(first, last):
            out[int(indices[p])] -= values[p] * out[i]


def csr_ilu0_factor(
    indptr: Tensor, indices: Tensor, values: Tensor, diag_ptr: Tensor, out_values: Tensor
) -> int:
    """Factor A ~ L U on the pattern of A, L with a unit diagonal that is not stored.

    Parameters
    ----------
    indptr, indices, values : (n + 1,), (nnz,), (nnz,)
        Square A, columns sorted, the diagonal stored in every row.
    diag_ptr : (n,)
        Where in `values` the diagonal of each row is.
    out_values : (nnz,)
        L before the diagonal, U from the diagonal on.

    Returns
    -------
    int
        0, or 1 + the row whose pivot is zero or NaN: out_values is unspecified then.
    """
    rows = _rows(indptr, indices, values)
    for i, row in enumerate(rows):
        for k in [k for k in row if k < i]:
            row[k] /= rows[k][k]
            for j, upper in rows[k].items():
                if j > k and j in row:
                    row[j] -= row[k] * upper
        if not abs(row[i]) > 0:
            return i + 1
    out_values.copy_(torch.tensor([value for row in rows for value in row.values()], dtype=torch.float64))
    return 0


def csr_ilu0_solve(
    indptr: Tensor, indices: Tensor, values: Tensor, diag_ptr: Tensor, b: Tensor, out: Tensor
) -> None:
    """Solve L U out = b with the factors of `csr_ilu0_factor`; b and out (n,) or (n, k)."""
    n = len(indptr) - 1
    for i in range(n):
        first, middle = int(indptr[i]), int(diag_ptr[i])
        out[i] = b[i] - values[first:middle] @ out[indices[first:middle].long()]
    for i in range(n - 1, -1, -1):
        middle, last = int(diag_ptr[i]), int(indptr[i + 1])
        above = slice(middle + 1, last)
        out[i] = (out[i] - values[above] @ out[indices[above].long()]) / values[middle]


def _neighbours(shape: Sequence[int]) -> tuple[list[list[int]], list[list[int]]]:
    """Lower and upper neighbour of each cell along each axis, -1 beyond the box: no periodic wraps."""
    index = torch.arange(math.prod(shape)).reshape(tuple(shape))
    below, above = [], []
    for axis in range(3):
        for step, side, found in ((1, 0, below), (-1, -1, above)):
            around = index.roll(step, axis)
            around.select(axis, side).fill_(-1)
            found.append(around.reshape(-1).tolist())
    return below, above


def faces_ic0_factor(
    diagonal: Tensor,
    lower: Tensor,
    shape: Sequence[int],
    modified: float,
    out_inverse_pivot: Tensor,
    floor: float = 0.0,
) -> int:
    """Factor the matrix of `faces_matvec` as M = (D + L) D^-1 (D + L)^T, L its strict lower triangle.

    Only the pivots D are new: M_ii = A_ii gives IC(0), less `modified` times the dropped products MIC(0).
    Periodic couplings are left out of L.

    Parameters
    ----------
    diagonal, lower, shape
        As in `faces_matvec`.
    modified : float
        0 to 1, see the top of this file.
    out_inverse_pivot : (n,)
        1 / D_i, 0 for cells outside.
    floor : float
        A pivot below this share of its diagonal entry is replaced by that entry (Bridson 2015); 0 keeps all.

    Returns
    -------
    int
        0, or 1 + the cell whose pivot is not positive: out_inverse_pivot is unspecified then.
    """
    below, above = _neighbours(shape)
    couplings, inverse = lower.tolist(), [0.0] * len(diagonal)
    for i, pivot in enumerate(diagonal.tolist()):
        if pivot == 0:
            continue
        for a in range(3):
            j = below[a][i]
            if j < 0 or inverse[j] == 0:
                continue
            coupling = couplings[a][i]
            # Row j eliminates x_j from row i and from its other upper neighbours: those products are dropped.
            dropped = sum(couplings[b][above[b][j]] for b in range(3) if b != a and above[b][j] >= 0)
            pivot -= coupling * (coupling + modified * dropped) * inverse[j]
        if floor > 0 and pivot < floor * float(diagonal[i]):
            pivot = float(diagonal[i])
        if not pivot > 0:
            return i + 1
        inverse[i] = 1 / pivot
    out_inverse_pivot.copy_(torch.tensor(inverse, dtype=torch.float64))
    return 0


def faces_ic0_solve(
    inverse_pivot: Tensor, lower: Tensor, shape: Sequence[int], b: Tensor, out: Tensor
) -> None:
    """Solve (D + L) D^-1 (D + L)^T out = b with the pivots of `faces_ic0_factor`; 0 in cells outside.

    b and out (n,) or (n, k); b outside is never used.
    """
    below, above = _neighbours(shape)
    n = len(inverse_pivot)
    out.zero_()
    for i in range(n):
        if inverse_pivot[i] != 0:
            known = [(below[a][i], lower[a, i]) for a in range(3) if below[a][i] >= 0]
            out[i] = (b[i] + sum(coupling * out[j] for j, coupling in known)) * inverse_pivot[i]
    for i in range(n - 1, -1, -1):
        if inverse_pivot[i] != 0:
            known = [(above[a][i], lower[a, above[a][i]]) for a in range(3) if above[a][i] >= 0]
            out[i] += sum(coupling * out[j] for j, coupling in known) * inverse_pivot[i]
