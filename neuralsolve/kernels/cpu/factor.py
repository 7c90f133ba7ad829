"""Incomplete factors of CSR matrices, numba. Definitions: `neuralsolve.kernels.reference.factor`.

The solves are recurrences: a row waits for the rows before it. The row visited last is usually a neighbour,
so its value stays in a register and enters last, by one multiplication and addition; reciprocals wait for
nothing.
"""

from __future__ import annotations

import numpy as np
from numba import uint64
from torch import Tensor

from neuralsolve.kernels.cpu.prefetch import AHEAD, prefetch
from neuralsolve.kernels.cpu.threads import ordered
from neuralsolve.kernels.cpu.vector import numbers


@ordered
def _by_columns(indptr, indices):
    """Return the pattern by columns: starts (n + 1,), and of each entry its row and its place in CSR."""
    n = indptr.size - 1
    starts = np.zeros(n + 1, np.int64)
    for p in range(indices.size):
        starts[indices[p] + 1] += 1
    for j in range(n):
        starts[j + 1] += starts[j]
    rows, place, filled = (
        np.empty(indices.size, np.int64),
        np.empty(indices.size, np.int64),
        np.zeros(n, np.int64),
    )
    for i in range(n):
        for p in range(indptr[i], indptr[i + 1]):
            j = indices[p]
            q = starts[j] + filled[j]
            rows[q], place[q] = i, p
            filled[j] += 1
    return starts, rows, place


@ordered
def _ic0(indptr, indices, values, modified, floor, out):
    n = indptr.size - 1
    starts, rows, place = _by_columns(indptr, indices)
    L = np.empty(values.size, np.float64)
    for p in range(values.size):
        L[p] = values[p]
    for j in range(n):
        first, last = starts[j], starts[j + 1]
        pivot = L[place[first]] if first < last else 0.0  # the diagonal is the first entry of its column
        if first < last and floor > 0 and pivot < floor * values[place[first]]:
            pivot = values[place[first]]
        if not pivot > 0:
            return j + 1
        root = np.sqrt(pivot)
        L[place[first]] = root
        for q in range(first + 1, last):
            L[place[q]] /= root
        for q in range(first + 1, last):
            # Column j takes its products out of column k: the rows of both are sorted.
            k, factor = rows[q], L[place[q]]
            diagonal = starts[k]
            s = diagonal
            for r in range(q, last):
                i, product = rows[r], L[place[r]] * factor
                while s < starts[k + 1] and rows[s] < i:
                    s += 1
                if s < starts[k + 1] and rows[s] == i:
                    L[place[s]] -= product
                else:
                    L[place[diagonal]] -= modified * product
                    L[place[starts[i]]] -= modified * product
    for p in range(values.size):
        out[p] = L[p]
    return 0


def csr_ic0_factor(
    indptr: Tensor, indices: Tensor, values: Tensor, modified: float, out_values: Tensor, floor: float = 0.0
) -> int:
    """Factor A ~ L L^T on the lower triangle of A; 0, or 1 + the row of a pivot that is not positive."""
    A = indptr.numpy(), indices.numpy(), values.numpy()
    return int(_ic0(*A, float(modified), float(floor), out_values.numpy()))


@ordered
def _lower_solve(indptr, indices, values, b, out):
    fresh = np.float64(0)
    p = uint64(indptr[0])
    one = uint64(1)
    for i in range(uint64(b.size)):
        last = uint64(indptr[i + one]) - one
        inverse = 1 / values[last]
        rest, coupling = np.float64(b[i]), 0.0
        prefetch(values, p + uint64(AHEAD))
        prefetch(indices, p + uint64(AHEAD))
        while p < last:
            j = uint64(indices[p])
            if j + one == i:
                coupling += values[p]
            else:
                rest -= values[p] * out[j]
            p += one
        p = last + one
        fresh = rest * inverse - (coupling * inverse) * fresh
        out[i] = fresh


@ordered
def _lower_transpose_solve(indptr, indices, values, out):
    """`out` holds b at first; each row, once solved, takes its part out of the rows before it."""
    fresh, coupling = 0.0, 0.0  # of the row after this one
    one = uint64(1)
    n = uint64(out.size)
    end = uint64(indptr[n])
    for q in range(n):
        i = n - one - q
        last, first = end - one, uint64(indptr[i])
        end = first
        inverse = 1 / values[last]
        fresh = out[i] * inverse - (coupling * inverse) * fresh
        out[i] = fresh
        coupling = 0.0
        prefetch(values, first - uint64(AHEAD))
        prefetch(indices, first - uint64(AHEAD))
        for p in range(first, last):
            j = uint64(indices[p])
            if j + one == i:
                coupling += values[p]
            else:
                out[j] -= values[p] * fresh


@ordered
def _lower_solve_columns(indptr, indices, values, b, out):
    k = b.shape[1]
    for i in range(b.shape[0]):
        last = indptr[i + 1] - 1
        for c in range(k):
            out[i, c] = b[i, c]
        for p in range(indptr[i], last):
            j, a = uint64(indices[p]), values[p]
            for c in range(k):
                out[i, c] -= a * out[j, c]
        inverse = 1 / values[last]
        for c in range(k):
            out[i, c] *= inverse


@ordered
def _lower_transpose_solve_columns(indptr, indices, values, out):
    n, k = out.shape
    for i in range(n - 1, -1, -1):
        last = indptr[i + 1] - 1
        inverse = 1 / values[last]
        for c in range(k):
            out[i, c] *= inverse
        for p in range(indptr[i], last):
            j, a = uint64(indices[p]), values[p]
            for c in range(k):
                out[j, c] -= a * out[i, c]


def csr_lower_solve(indptr: Tensor, indices: Tensor, values: Tensor, b: Tensor, out: Tensor) -> None:
    """Solve L y = b for lower triangular L, the diagonal last in its row; b and out (n,) or (n, k)."""
    B, Y = numbers(b), numbers(out)
    kernel = _lower_solve if B.ndim == 1 else _lower_solve_columns
    kernel(indptr.numpy(), indices.numpy(), values.numpy(), B, Y)


def csr_lower_transpose_solve(
    indptr: Tensor, indices: Tensor, values: Tensor, b: Tensor, out: Tensor
) -> None:
    """Solve L^T y = b, the diagonal of L last in its row; b and out (n,) or (n, k)."""
    Y = numbers(out)
    kernel = _lower_transpose_solve if Y.ndim == 1 else _lower_transpose_solve_columns
    Y[:] = numbers(b)  # numpy, not torch: torch would wake its own threads, which then spin for a while
    kernel(indptr.numpy(), indices.numpy(), values.numpy(), Y)


@ordered
def _ilu0(indptr, indices, values, diag_ptr, out):
    n = indptr.size - 1
    U = np.empty(values.size, np.float64)
    for p in range(values.size):
        U[p] = values[p]
    place = np.full(n, -1, np.int64)  # where the columns of the current row are
    for i in range(n):
        for p in range(indptr[i], indptr[i + 1]):
            place[indices[p]] = p
        for p in range(indptr[i], diag_ptr[i]):
            k = indices[p]
            factor = U[p] / U[diag_ptr[k]]
            U[p] = factor
            for q in range(diag_ptr[k] + 1, indptr[k + 1]):
                s = place[indices[q]]
                if s >= 0:
                    U[s] -= factor * U[q]
        if not abs(U[diag_ptr[i]]) > 0:
            return i + 1
        for p in range(indptr[i], indptr[i + 1]):
            place[indices[p]] = -1
    for p in range(values.size):
        out[p] = U[p]
    return 0


def csr_ilu0_factor(
    indptr: Tensor, indices: Tensor, values: Tensor, diag_ptr: Tensor, out_values: Tensor
) -> int:
    """Factor A ~ L U on the pattern of A, L with unit diagonal; 0, or 1 + the row of a pivot 0 or NaN."""
    A = indptr.numpy(), indices.numpy(), values.numpy()
    return int(_ilu0(*A, diag_ptr.numpy(), out_values.numpy()))


@ordered
def _ilu0_solve(indptr, indices, values, diag_ptr, b, out):
    fresh = np.float64(0)
    one = uint64(1)
    n = uint64(b.size)
    for i in range(n):
        rest, coupling = np.float64(b[i]), 0.0
        prefetch(values, uint64(indptr[i]) + uint64(AHEAD))
        prefetch(indices, uint64(indptr[i]) + uint64(AHEAD))
        for p in range(uint64(indptr[i]), uint64(diag_ptr[i])):
            j = uint64(indices[p])
            if j + one == i:
                coupling += values[p]
            else:
                rest -= values[p] * out[j]
        fresh = rest - coupling * fresh
        out[i] = fresh
    fresh = 0.0
    for q in range(n):
        i = n - one - q
        middle = uint64(diag_ptr[i])
        inverse = 1 / values[middle]
        rest, coupling = np.float64(out[i]), 0.0
        prefetch(values, middle - uint64(AHEAD))
        prefetch(indices, middle - uint64(AHEAD))
        for p in range(middle + one, uint64(indptr[i + one])):
            j = uint64(indices[p])
            if j == i + one:
                coupling += values[p]
            else:
                rest -= values[p] * out[j]
        fresh = rest * inverse - (coupling * inverse) * fresh
        out[i] = fresh


@ordered
def _ilu0_solve_columns(indptr, indices, values, diag_ptr, b, out):
    n, k = b.shape
    for i in range(n):
        for c in range(k):
            out[i, c] = b[i, c]
        for p in range(indptr[i], diag_ptr[i]):
            j, a = uint64(indices[p]), values[p]
            for c in range(k):
                out[i, c] -= a * out[j, c]
    for i in range(n - 1, -1, -1):
        middle = diag_ptr[i]
        for p in range(middle + 1, indptr[i + 1]):
            j, a = uint64(indices[p]), values[p]
            for c in range(k):
                out[i, c] -= a * out[j, c]
        inverse = 1 / values[middle]
        for c in range(k):
            out[i, c] *= inverse


def csr_ilu0_solve(
    indptr: Tensor, indices: Tensor, values: Tensor, diag_ptr: Tensor, b: Tensor, out: Tensor
) -> None:
    """Solve L U out = b with the factors of `csr_ilu0_factor`; b and out (n,) or (n, k)."""
    B, Y = numbers(b), numbers(out)
    kernel = _ilu0_solve if B.ndim == 1 else _ilu0_solve_columns
    kernel(indptr.numpy(), indices.numpy(), values.numpy(), diag_ptr.numpy(), B, Y)
