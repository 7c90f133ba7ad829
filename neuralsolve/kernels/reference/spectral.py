"""What a fast Poisson solver does between its transforms, plain torch: the definition.

Along the transformed axes the box Laplacian is diagonal. What is left is a division by sums of
eigenvalues, or, where one axis is kept as it is, one tridiagonal system per mode.
"""

from __future__ import annotations

from torch import Tensor


def divide_by_eigenvalues(lam0: Tensor, lam1: Tensor, lam2: Tensor, gain: float, v: Tensor) -> None:
    """v_ijl = gain v_ijl / (lam0_i + lam1_j + lam2_l), 0 where that sum is 0, in place.

    Parameters
    ----------
    lam0, lam1, lam2 : (n0,), (n1,), (n2,) >= 0
        Eigenvalues along each axis; a zero is an exact zero.
    gain : float
    v : (n0, n1, n2, w)
        w numbers of every mode: right sides, real and imaginary parts.
    """
    total = lam0[:, None, None] + lam1[:, None] + lam2
    v *= (gain / total).masked_fill_(total == 0, 0.0)[..., None]


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
