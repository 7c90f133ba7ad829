"""Vector kernels, plain torch: the definition.

Sums over float32 vectors accumulate in float64 and are rounded once, so their relative error is about
one eps of float32, whatever n; over float64 vectors |error| <= n eps sum|x_i y_i| in any order (Higham
2002, sec. 3.1).
"""

from __future__ import annotations

import torch
from torch import Tensor


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner product x.y, () for vectors (n,), column by column (k,) for (n, k)."""
    return (x.double() * y.double()).sum(0).to(x.dtype)


def axpy(alpha: Tensor | float, x: Tensor, y: Tensor) -> None:
    """Add in place: y += alpha x; alpha a number or () for (n,), () or (k,) for (n, k)."""
    y += alpha * x


def xpby(x: Tensor, beta: Tensor | float, y: Tensor) -> None:
    """Scale and add in place: y = x + beta y; beta a number or () for (n,), () or (k,) for (n, k)."""
    y.copy_(x + beta * y)


def scaled_copy(alpha: Tensor | float, x: Tensor, out: Tensor) -> None:
    """Out = alpha x, in the dtype of out; alpha a number or () for (n,), () or (k,) for (n, k)."""
    out.copy_(alpha * x)


def transposed_copy(x: Tensor, out: Tensor) -> None:
    """Set out (k, n) to the transpose of x (n, k)."""
    out.copy_(x.T)


def cg_update(alpha: Tensor, p: Tensor, Ap: Tensor, x: Tensor, r: Tensor) -> Tensor:
    """Step in place: x += alpha p, r -= alpha Ap; returns the new r.r.

    The two updates and the inner product of one step of conjugate gradients (Saad 2003, alg. 6.18). Where
    alpha is 0 a column stands still, whatever p and Ap hold.
    """
    x += torch.where(alpha == 0, 0.0, alpha * p)
    r -= torch.where(alpha == 0, 0.0, alpha * Ap)
    return dot(r, r)


def subtract_means(labels: Tensor, counts: Tensor, v: Tensor) -> Tensor:
    """Subtract from v its mean over every component, in place; column by column.

    Parameters
    ----------
    labels : (n,) int32
        Component of each entry, -1 for an entry in none (left untouched).
    counts : (n_components,) int32 or int64
        Entries per component.
    v : (n,) or (n, k)

    Returns
    -------
    () or (k,)
        2-norm of what was removed: the norm of the projection of v on the components' indicator vectors.
    """
    inside = labels >= 0
    component = labels[inside].long()
    size = counts.double().clamp(min=1)
    size = size if v.ndim == 1 else size[:, None]
    sums = torch.zeros((len(counts), *v.shape[1:]), dtype=torch.float64, device=v.device)
    sums.index_add_(0, component, v[inside].double())
    means = sums / size
    v[inside] = (v[inside].double() - means[component]).to(v.dtype)
    return (means.square() * size).sum(0).sqrt().to(v.dtype)


def largest(x: Tensor) -> float:
    """Largest absolute entry of x (n,) or (n, k), not empty; NaN where one is NaN."""
    return float(x.abs().max())


def masked_copy(active: Tensor, x: Tensor, out: Tensor) -> float:
    """Copy the rows of x (n,) or (n, k) that are `active` (n,) bool; the others of `out` become 0.

    Returns the largest absolute entry of `out`, NaN where one is NaN; what is not active is never read.
    """
    rows = active if x.ndim == 1 else active[:, None]
    out.copy_(torch.where(rows, x, 0.0))
    return largest(out)
