"""HiPPO-LegS: the state-space system that remembers its input as Legendre coefficients, in closed form.

    x' = A x + B u,   B_k = sqrt(2k+1),   A_ij = -sqrt(2i+1) sqrt(2j+1) (i > j),  -(i+1) (i = j),  0 (i < j)

A is lower triangular with the eigenvalues -1, ..., -n and far from normal: its eigenvectors have a condition
number of about (1 + sqrt 2)^(2n), so from n = 8 on it cannot be diagonalised in float32, from n = 24 in
float64. Three identities carry everything here:

    A = N - P P^T        N = -I/2 + K normal, K real skew-symmetric, P_k = sqrt(k + 1/2)
    A + A^T = -I - B B^T        hence Re x^* A x <= -|x|^2/2
    x_k(t) = sqrt(2k+1) e^-t P_k(2 e^-t - 1)        the impulse response, P_k Legendre's polynomial

The Laplace transform of the last is (sI - A)^-1 B in O(n) operations a frequency and without any
cancellation, which makes it the oracle of every approximation of A. N keeps the normal part alone (S4D-LegS,
with B/2 as its input); r_n(s) says how much that costs: N's resolvent is A's divided by 1 + r_n.

Indices count from 0; time has the unit of 1/|eigenvalue|, frequencies t are angular, s = i t.

Sources: Gu, Dao, Ermon, Rudra, Re, HiPPO, NeurIPS 2020 (arXiv 2008.07669), app. D; Gu, Goel, Re, S4, ICLR
2022 (arXiv 2111.00396), thm. 1; Gupta, Gu, Berant, DSS, NeurIPS 2022 (arXiv 2203.14343). The closed forms of
resolvent, r_n and eigenvalues follow from the matrix determinant lemma for N +- P P^T, whose eigenvalues are
0, ..., n-1 (it is -I - A^T) and -1, ..., -n.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from neuralsolve.errors import OptionError
from neuralsolve.ssm.arrays import Array, finite


def legs(n: int) -> tuple[Array, Array]:
    """Return A (n, n) and B (n,) of HiPPO-LegS, float64.

    Raises
    ------
    OptionError
        n that is no integer of at least 1.

    Examples
    --------
    >>> A, B = legs(2)
    >>> A.round(4).tolist(), B.round(4).tolist()
    ([[-1.0, 0.0], [-1.7321, -2.0]], [1.0, 1.7321])
    """
    B = np.sqrt(2.0 * np.arange(checked_size(n)) + 1)
    return np.tril(np.outer(B, -B), -1) - np.diag(np.arange(n) + 1.0), B


def legs_normal(n: int) -> tuple[Array, Array]:
    """Return the normal N (n, n) and P (n,) with A = N - P P^T, float64; N + I/2 is skew-symmetric.

    >>> N, P = legs_normal(3)
    >>> bool(np.allclose(N - np.outer(P, P), legs(3)[0]))
    True
    """
    P = np.sqrt(np.arange(checked_size(n)) + 0.5)
    lower = np.tril(np.outer(P, P), -1)
    return lower.T - lower - 0.5 * np.eye(n), P


def normal_eigenvectors(n: int) -> tuple[Array, Array]:
    """Return eigenvalues (n,) of N and unitary V (n, n), both complex128: N = V diag(eigenvalues) V^*.

    From the Hermitian -iK, so the real parts are -1/2 exactly; the imaginary parts ascend and come in pairs
    +-w, with a zero in the middle where n is odd. The vectors of a pair are conjugate to rounding.

    >>> eigenvalues, V = normal_eigenvectors(4)
    >>> eigenvalues.imag.round(4).tolist()
    [-4.6033, -0.5565, 0.5565, 4.6033]
    """
    N, _ = legs_normal(n)
    frequencies, V = np.linalg.eigh(-1j * (N + 0.5 * np.eye(n)))
    return -0.5 + 1j * frequencies, V


def normal_frequencies(n: int) -> Array:
    """Return w_0 > w_1 > ... > 0, the n // 2 positive imaginary parts of the eigenvalues of N.

    By bisection of their phase equation, sum_j arctan((j + 1/2)/w_m) = (m + 1/2) pi with m = 0, ...,
    n/2 - 1 (for odd n too), whose left side falls in w: 60 halvings in log w, O(n) each, no eigenproblem.
    They are where S4D resonates: w_m is about n^2 / ((2m + 1) pi).

    >>> normal_frequencies(16)[:3].round(6).tolist()
    [80.966081, 25.629226, 13.834342]
    """
    halves = np.arange(checked_size(n)) + 0.5
    m = np.arange(n // 2)
    low, high = np.full(len(m), math.log(0.05 / n)), np.full(len(m), math.log(2.0 * n * n))
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = np.arctan(halves / np.exp(middle)[:, None]).sum(1) > (m + 0.5) * math.pi
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.exp(0.5 * (low + high))


def impulse_response(n: int, t: Any) -> Array:
    """Return exp(t A) B for times t (...,) >= 0: (..., n), float64.

    Raises
    ------
    OptionError, NonFiniteError
        A negative time (it would grow as exp(n |t|)); NaN.

    Examples
    --------
    >>> impulse_response(3, 0.0).round(4).tolist()  # B
    [1.0, 1.7321, 2.2361]
    """
    checked_size(n)
    t = finite(t, "t").astype(float)
    if t.size and t.min() < 0:
        msg = f"got a time of {t.min():g}; times of 0 or later are needed"
        raise OptionError(msg)
    x = 2 * np.exp(-t) - 1
    values = np.empty((*t.shape, n))
    values[..., 0] = 1
    if n > 1:
        values[..., 1] = x
    for k in range(2, n):  # (k) P_k = (2k-1) x P_(k-1) - (k-1) P_(k-2)
        values[..., k] = ((2 * k - 1) * x * values[..., k - 1] - (k - 1) * values[..., k - 2]) / k
    return values * np.sqrt(2.0 * np.arange(n) + 1) * np.exp(-t)[..., None]


def resolvent(n: int, s: Any) -> Array:
    """Return (sI - A)^-1 B for complex s (...,): (..., n), complex128.

    Entry k is sqrt(2k+1) prod_(j<k) (s-j) / prod_(j<=k) (s+j+1); its relative error is a few k eps. At
    s = it its norm is n / sqrt(t^2 + n^2).

    >>> abs(resolvent(4, 3j)).round(6).tolist(), float(np.linalg.norm(resolvent(4, 3j)).round(12))
    ([0.316228, 0.455733, 0.438529, 0.374166], 0.8)
    """
    checked_size(n)
    s = finite(s, "s").astype(complex)[..., None]
    k = np.arange(n)
    factors = np.concatenate([np.ones_like(s), (s - k[:-1]) / (s + k[:-1] + 1)], -1)
    return np.sqrt(2.0 * k + 1) * np.cumprod(factors, -1) / (s + k + 1)


def resolvent_norm(n: int, t: Any) -> Array:
    """Return ||(itI - A)^-1 B|| = n / sqrt(t^2 + n^2) for frequencies t: the worst gain of HiPPO.

    >>> float(resolvent_norm(32, 24.0))
    0.8
    """
    return n / np.hypot(finite(t, "t"), checked_size(n))


def blaschke(n: int, s: Any) -> Array:
    """Return r_n(s) = prod_(j<n) (s-j)/(s+j+1) in the shape of s; |r_n(it)| = |t|/sqrt(t^2 + n^2).

    >>> abs(blaschke(3, 4j)).round(12)
    np.float64(0.8)
    """
    s = finite(s, "s").astype(complex)[..., None]
    j = np.arange(checked_size(n))
    return ((s - j) / (s + j + 1)).prod(-1)


def normal_resolvent(n: int, s: Any) -> Array:
    """Return (sI - N)^-1 B/2, what S4D-LegS makes of HiPPO: `resolvent` / (1 + `blaschke`), (..., n).

    Near an eigenvalue of N, 1 + r_n cancels: the relative error is eps / |1 + r_n|, at worst about
    n^2 eps for s = it.

    >>> N, _ = legs_normal(8)
    >>> direct = np.linalg.solve(5j * np.eye(8) - N, legs(8)[1] / 2)
    >>> bool(np.allclose(normal_resolvent(8, 5j), direct))
    True
    """
    return resolvent(n, s) / (1 + blaschke(n, s))[..., None]


def eigenvectors(n: int) -> tuple[Array, Array]:
    """Return V (n, n), unit columns, A V = V diag(-1, ..., -n), and V^-1: float64, each entry to rounding.

    Both lower triangular. V comes from the coefficients of Legendre's polynomials on [0, 1],
    (-1)^(i-k) C(i, k) C(i+k, k), V^-1 from those of powers in Legendre's polynomials,
    (2i+1) k!^2 / ((k-i)! (k+i+1)!): integers of Python, so nothing cancels.

    Raises
    ------
    OptionError
        n above 190, where the entries leave the range of float64.

    Examples
    --------
    >>> V, inverse = eigenvectors(8)
    >>> float(np.linalg.norm(V, 2) * np.linalg.norm(inverse, 2)).__round__(1)
    77032.4
    """
    if checked_size(n) > 190:
        msg = f"got n={n}; the eigenvectors of LegS leave float64 above n = 190"
        raise OptionError(msg)
    root = np.sqrt(2.0 * np.arange(n) + 1)
    V, inverse = np.zeros((n, n)), np.zeros((n, n))
    for k in range(n):
        for i in range(k, n):
            V[i, k] = (-1) ** (i - k) * math.comb(i, k) * math.comb(i + k, k)
        for i in range(k + 1):  # x^k = sum_i (2i+1) k!^2/((k-i)! (k+i+1)!) P_i(2x - 1)
            inverse[k, i] = (2 * i + 1) * math.comb(2 * k + 1, k - i) / ((2 * k + 1) * math.comb(2 * k, k))
    V *= root[:, None]
    length = np.linalg.norm(V, axis=0)
    return V / length, inverse / root * length[:, None]


def eigenvector_condition(n: int) -> float:
    """Return kappa_2 of the eigenvectors of A, unit columns: both norms are of matrices known to rounding.

    >>> f"{eigenvector_condition(64):.4e}"
    '3.2004e+47'
    """
    V, inverse = eigenvectors(n)
    return float(np.linalg.norm(V, 2) * np.linalg.norm(inverse, 2))


def checked_size(n: Any) -> int:
    """Return n where it is a state size, an integer of at least 1."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        msg = f"got n={n!r}; a state size is an integer of at least 1: n=64"
        raise OptionError(msg)
    return int(n)
