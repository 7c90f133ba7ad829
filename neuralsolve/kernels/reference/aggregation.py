"""Smoothed aggregation: what sets up a level of algebraic multigrid, plain torch and Python: the definition.

Rows i and j are strongly coupled where |a_ij| > theta sqrt(s_i s_j), s_i the largest |a_ij| off the diagonal.
Aggregates are disjoint sets of strongly coupled rows; their indicator vectors are the columns of T. A_F is A
without its weak couplings, which are added to the diagonal so that row sums stay. Then

    P = (I - W A_F) T,   W_ii = omega / sum_j |(A_F)_ij|,   A_c = P^T A P

(Vanek, Mandel and Brezina 1996; W in place of a multiple of D^-1 makes ||W A_F|| <= omega in the maximum norm
without an estimate of an eigenvalue).

Kernels that make a matrix return new tensors: its size is not known before. Columns within a row come in no
order.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

Rows = tuple[Tensor, Tensor, Tensor]  # indptr, indices, values


def _entries(indptr: Tensor, indices: Tensor, values: Tensor) -> list[list[tuple[int, float]]]:
    starts, columns, numbers = indptr.tolist(), indices.tolist(), values.tolist()
    return [list(zip(columns[p:q], numbers[p:q], strict=True)) for p, q in pairwise(starts)]


def _matrix(rows: list[dict[int, float]], dtype: torch.dtype) -> Rows:
    starts = torch.tensor([0] + [len(row) for row in rows], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    columns = torch.tensor([j for row in rows for j in row], dtype=torch.int32)
    return starts, columns, torch.tensor([a for row in rows for a in row.values()], dtype=dtype)


def csr_row_sizes(indptr: Tensor, indices: Tensor, values: Tensor, diagonal: Tensor, scale: Tensor) -> None:
    """Set diagonal_i = a_ii and scale_i = sqrt(max |a_ij|, j != i), both (n,), 0 where nothing is stored."""
    for i, row in enumerate(_entries(indptr, indices, values)):
        diagonal[i] = sum(a for j, a in row if j == i)
        scale[i] = max((abs(a) for j, a in row if j != i), default=0.0) ** 0.5


def csr_aggregate(
    indptr: Tensor, indices: Tensor, values: Tensor, scale: Tensor, theta: float, out: Tensor
) -> int:
    """Cut the graph of strong couplings into connected aggregates; return their number.

    First every row whose strongly coupled rows are all free makes an aggregate with them, in the order of the
    rows. Each row that is left then joins the one of these aggregates that it is coupled to most.

    Parameters
    ----------
    indptr, indices, values : (n + 1,), (nnz,), (nnz,)
        Square, symmetric pattern.
    scale : (n,)
        From `csr_row_sizes`.
    theta : float
    out : (n,) int32
        Aggregate of every row, -1 for rows without a strong coupling.
    """
    rows, q = _entries(indptr, indices, values), scale.tolist()
    strong = [
        [(j, abs(a)) for j, a in row if j != i and abs(a) > theta * q[i] * q[j]] for i, row in enumerate(rows)
    ]
    first, count = [-1] * len(rows), 0
    for i, row in enumerate(strong):
        if row and first[i] < 0 and all(first[j] < 0 for j, _ in row):
            for j in [i, *(j for j, _ in row)]:
                first[j] = count
            count += 1
    labels = list(first)
    for i, row in enumerate(strong):
        near = [(a, j) for j, a in row if first[j] >= 0]
        if labels[i] < 0 and near:
            largest = max(a for a, _ in near)
            labels[i] = first[next(j for a, j in near if a == largest)]
    out.copy_(torch.tensor(labels, dtype=torch.int32))
    return count


def csr_smoothed_aggregates(
    indptr: Tensor,
    indices: Tensor,
    values: Tensor,
    scale: Tensor,
    theta: float,
    omega: float,
    labels: Tensor,
    count: int,
    longest: int,
) -> Rows:
    """Return P = (I - W A_F) T, (n, count) with float32 values, of the aggregates in `labels` (n,).

    Rows of A with more than `longest` entries have W_ii = 0: a row coupled to everything would otherwise fill
    P^T A P.
    """
    q, label = scale.tolist(), labels.tolist()
    made: list[dict[int, float]] = []
    for i, row in enumerate(_entries(indptr, indices, values)):
        weak = [j != i and abs(a) <= theta * q[i] * q[j] for j, a in row]
        diagonal = sum(a for (j, a), left in zip(row, weak, strict=True) if left or j == i)
        strong = [(j, a) for (j, a), left in zip(row, weak, strict=True) if not left and j != i]
        size = abs(diagonal) + sum(abs(a) for _, a in strong)
        w = omega / size if size > 0 and len(row) <= longest else 0.0
        new: dict[int, float] = {}
        for j, a in strong:
            if label[j] >= 0 and w > 0:
                new[label[j]] = new.get(label[j], 0.0) - w * a
        if label[i] >= 0:
            new[label[i]] = new.get(label[i], 0.0) + 1 - w * diagonal
        made.append(new)
    return _matrix(made, torch.float32)


def csr_transpose(indptr: Tensor, indices: Tensor, values: Tensor, columns: int) -> Rows:
    """Return A^T for A of shape (m, columns), its columns within a row rising."""
    made: list[dict[int, float]] = [{} for _ in range(columns)]
    for i, row in enumerate(_entries(indptr, indices, values)):
        for j, a in row:
            made[j][i] = a
    return _matrix(made, values.dtype)


def csr_galerkin(
    indptr: Tensor,
    indices: Tensor,
    values: Tensor,
    diagonal: Tensor,
    p_indptr: Tensor,
    p_indices: Tensor,
    p_values: Tensor,
    r_indptr: Tensor,
    r_indices: Tensor,
    r_values: Tensor,
    rounding: float,
) -> Rows:
    """Return A_c = R A P in float64, R = P^T; rows that are nothing but rounding are set to zero.

    These have (A_c)_II <= rounding sum_i P_iI^2 a_ii: what a region without a way out leaves once it has
    shrunk to one unknown.

    Parameters
    ----------
    indptr, indices, values : A, (n, n)
    diagonal : (n,), of A
    p_indptr, p_indices, p_values, r_indptr, r_indices, r_values : P, (n, m), and its transpose
    rounding : float
    """
    A, P = _entries(indptr, indices, values), _entries(p_indptr, p_indices, p_values)
    d = diagonal.tolist()
    made: list[dict[int, float]] = []
    for coarse, column in enumerate(_entries(r_indptr, r_indices, r_values)):
        new: dict[int, float] = {}
        for i, w in column:
            for j, a in A[i]:
                for k, p in P[j]:
                    new[k] = new.get(k, 0.0) + w * a * p
        if new.get(coarse, 0.0) <= rounding * sum(w * w * d[i] for i, w in column):
            new = dict.fromkeys(new, 0.0)
        made.append(new)
    return _matrix(made, torch.float64)
