"""SOR sweeps over CSR rows, numba. Definitions: `neuralsolve.kernels.reference.sweeps`."""

from __future__ import annotations

import numpy as np
from numba import uint64
from torch import Tensor

from neuralsolve.kernels.cpu.prefetch import AHEAD, prefetch
from neuralsolve.kernels.cpu.threads import ordered, over_ranges
from neuralsolve.kernels.cpu.vector import numbers


@ordered
def _sor(indptr, indices, values, omega, b, x, reverse):
    # The row visited last is usually a neighbour: its new value is kept in a register, out of the long way
    # through memory, and enters last, so that a row waits for one multiplication and addition of the row
    # before.
    n = b.size
    step = -1 if reverse else 1
    i = n - 1 if reverse else 0
    fresh = np.float64(0)
    for _ in range(n):
        diagonal, coupling, rest = 0.0, 0.0, np.float64(b[uint64(i)])
        prefetch(values, indptr[uint64(i)] + step * AHEAD)
        prefetch(indices, indptr[uint64(i)] + step * AHEAD)
        for p in range(uint64(indptr[uint64(i)]), uint64(indptr[uint64(i + 1)])):
            j = indices[p]
            if j == i:
                diagonal += values[p]
            elif j == i - step:
                coupling += values[p]
            else:
                rest -= values[p] * x[uint64(j)]
        old = np.float64(x[uint64(i)])
        if diagonal != 0:
            scale = omega / diagonal
            fresh = (old + scale * (rest - diagonal * old)) - (scale * coupling) * fresh
            x[uint64(i)] = fresh
        else:
            fresh = old
        i += step


@ordered
def _update_row(i, indptr, indices, values, omega, b, x, residual):
    """One row for x (n, k); `residual` is scratch, (k,)."""
    diagonal = 0.0
    for c in range(residual.size):
        residual[c] = b[i, c]
    for p in range(uint64(indptr[i]), uint64(indptr[i + 1])):
        j, a = uint64(indices[p]), values[p]
        if j == uint64(i):
            diagonal += a
        for c in range(residual.size):
            residual[c] -= a * x[j, c]
    if diagonal != 0:
        scale = omega / diagonal
        for c in range(residual.size):
            x[i, c] += scale * residual[c]


@ordered
def _sor_columns(indptr, indices, values, omega, b, x, reverse):
    residual = np.empty(x.shape[1])
    n = b.shape[0]
    for q in range(n):
        _update_row(n - 1 - q if reverse else q, indptr, indices, values, omega, b, x, residual)


@ordered
def _rows(indptr, indices, values, omega, b, x, rows, lo, hi):
    """Rows of one colour: none of them reads another."""
    for q in range(uint64(lo), uint64(hi)):
        i = uint64(rows[q])
        diagonal, residual = 0.0, np.float64(b[i])
        for p in range(uint64(indptr[i]), uint64(indptr[i + uint64(1)])):
            j, a = uint64(indices[p]), values[p]
            if j == i:
                diagonal += a
            residual -= a * x[j]
        if diagonal != 0:
            x[i] += omega / diagonal * residual


@ordered
def _rows_columns(indptr, indices, values, omega, b, x, rows, lo, hi):
    residual = np.empty(x.shape[1])
    for q in range(lo, hi):
        _update_row(rows[q], indptr, indices, values, omega, b, x, residual)


def csr_sor_sweep(
    indptr: Tensor, indices: Tensor, values: Tensor, omega: float, b: Tensor, x: Tensor, reverse: bool
) -> None:
    """Sweep once over all rows in order, in place; from the last row to the first if `reverse`."""
    B, X = numbers(b), numbers(x)
    kernel = _sor if X.ndim == 1 else _sor_columns
    kernel(indptr.numpy(), indices.numpy(), values.numpy(), float(omega), B, X, bool(reverse))


def csr_color_sweep(
    indptr: Tensor,
    indices: Tensor,
    values: Tensor,
    omega: float,
    b: Tensor,
    x: Tensor,
    color_ptr: Tensor,
    color_rows: Tensor,
    reverse: bool,
) -> None:
    """Sweep once colour by colour, in place, the rows of one side by side; last first if `reverse`."""
    A = indptr.numpy(), indices.numpy(), values.numpy()
    B, X, rows, starts, factor = numbers(b), numbers(x), color_rows.numpy(), color_ptr.tolist(), float(omega)
    kernel = _rows if X.ndim == 1 else _rows_columns
    mean_row = values.numel() // max(len(B), 1) + 1
    colors = range(len(starts) - 1)
    for c in reversed(colors) if reverse else colors:
        chosen = rows[starts[c] : starts[c + 1]]
        over_ranges(
            len(chosen),
            lambda lo, hi, chosen=chosen: kernel(*A, factor, B, X, chosen, lo, hi),
            entries=len(chosen) * mean_row,
        )
