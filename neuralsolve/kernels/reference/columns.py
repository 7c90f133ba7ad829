"""Products of the columns of two arrays of rows, plain torch: the definition."""

from __future__ import annotations

from torch import Tensor


def columns_axpy(d: Tensor, x: Tensor, out: Tensor) -> None:
    """Add d_j times column j of x to that of out: d (n,), x and out (rows, n), contiguous."""
    out.addcmul_(x, d)


def columns_dot(x: Tensor, y: Tensor, out: Tensor) -> None:
    """Add the sum of x y over the rows (rows, n) to out (n,) float64, sums taken in float64."""
    out += (x * y).sum(0, dtype=out.dtype)
