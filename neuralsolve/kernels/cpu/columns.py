"""Products of the columns of two arrays of rows, numba. Definitions: `neuralsolve.kernels.reference.columns`.

On the caller's thread: the arrays are blocks that lie in its cache.
"""

from __future__ import annotations

from torch import Tensor

from neuralsolve.kernels.cpu.threads import bare, serial


@bare
def _axpy_row(d, x, out):
    for j in range(d.size):
        out[j] += d[j] * x[j]


@serial
def _axpy(d, x, out):
    for i in range(len(x)):
        _axpy_row(d, x[i], out[i])


@bare
def _dot_row(x, y, out):
    for j in range(out.size):
        out[j] += x[j] * y[j]


@serial
def _dot(x, y, out):
    for i in range(len(x)):
        _dot_row(x[i], y[i], out)


def columns_axpy(d: Tensor, x: Tensor, out: Tensor) -> None:
    """Add d_j times column j of x (rows, n) to that of out."""
    _axpy(d.numpy(), x.numpy(), out.numpy())


def columns_dot(x: Tensor, y: Tensor, out: Tensor) -> None:
    """Add the sum of x y over the rows (rows, n) to out (n,) float64."""
    _dot(x.numpy(), y.numpy(), out.numpy())
