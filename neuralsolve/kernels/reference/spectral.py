"""What a fast Poisson solver does between its transforms, plain torch: the definition.

Along the transformed axes the box Laplacian is diagonal. The axis that is kept leaves one tridiagonal
system per mode, or a cyclic one where it is periodic.
"""

from __future__ import annotations

import torch
from torch import Tensor


def tridiagonal_factor(shift: Tensor, low: float, high: float, out: Tensor) -> None:
    """Reciprocal pivots of tridiag(-1, 2 + shift, -1) with its own ends, one matrix per mode.

    Parameters
    ----------
    shift : (outer, inner) >= 0
        Eigenvalue of the other axes, over the coupling of this one.
    low, high : float >= 1
        First and last diagonal, without the shift.
    out : (outer, n, inner), n >= 2
        1 / pivot; 0 for the last pivot of a singular mode (shift 0, low = high = 1), which is exactly 0.

    Notes
    -----
    Thomas algorithm (Golub and Van Loan, Matrix Computations, 4th ed., algorithm 4.3.6): the pivots of a
    diagonally dominant matrix lie in (0, 2 + shift], so nothing grows.
    """
    out[:, 0] = 1 / (low + shift)
    for i in range(1, out.shape[1] - 1):
        out[:, i] = 1 / (2 + shift - out[:, i - 1])
    pivot = high + shift - out[:, -2]
    out[:, -1] = (1 / pivot).masked_fill_(pivot == 0, 0.0)


def tridiagonal_solve(reciprocal: Tensor, gain: float, v: Tensor) -> None:
    """Solve T y = gain v for every mode in place, with the factors of `tridiagonal_factor`.

    Parameters
    ----------
    reciprocal : (outer, n, inner)
    v : (outer, n, inner, w)
        w right sides of every mode.

    Notes
    -----
    Where the last reciprocal is 0 the last unknown becomes 0: one solution of the singular system, if it
    has any.
    """
    p = reciprocal[..., None]
    n = v.shape[1]
    v[:, 0] *= gain * p[:, 0]
    for i in range(1, n):
        v[:, i] = (gain * v[:, i] + v[:, i - 1]) * p[:, i]
    for i in range(n - 2, -1, -1):
        v[:, i] += p[:, i] * v[:, i + 1]


def cyclic_solve(decay: Tensor, around: Tensor, gain: float, v: Tensor) -> None:
    """Solve C y = gain v for every mode in place, C the cyclic tridiag(-1, 2 + shift, -1).

    Parameters
    ----------
    decay : (outer, inner), in (0, 1)
        rho = exp(-2 arsinh(sqrt(shift) / 2)), the root of rho^2 - (2 + shift) rho + 1 inside the unit circle.
    around : (outer, inner)
        1 / (1 - rho^n); 0 for a singular mode (shift 0, rho 1), whose y is then no solution.
    v : (outer, n, inner)

    Notes
    -----
    C = (I - rho S) (I - rho S^T) / rho, S the cyclic shift: a recurrence forth and one back, each begun
    with its periodic sum. Both decay, so rounding does not grow; the residual errs by a few eps of |v|.
    """
    n = v.shape[1]
    forth = torch.zeros_like(decay)
    for i in range(n):
        forth = decay * forth + v[:, i]
    y, back, power = gain * decay * around * forth, torch.zeros_like(decay), torch.ones_like(decay)
    for i in range(n):
        y = v[:, i] = gain * decay * v[:, i] + decay * y
        back, power = back + power * y, power * decay
    x = around * back
    for i in range(n - 1, -1, -1):
        x = v[:, i] = v[:, i] + decay * x
