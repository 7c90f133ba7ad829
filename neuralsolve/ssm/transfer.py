"""Transfer functions G(it) = C (it - A)^-1 B on the imaginary axis.

A dense system is taken to Schur form once, A = Q T Q^*, and then costs n^2 a frequency: one back
substitution that runs over all frequencies at a time. A diagonal one costs n. A frequency t is angular, per
unit of time, and may be negative; B is (n,) or (n, p), C (n,) or (q, n), and what has no p or q has no axis
for it in the result. Without C the answer is the state's, (..., n).

A real diagonal system is kept as one of each conjugate pair with weight 2 and its real eigenvalues with
weight 1, y = Re sum_m weight_m C_m x_m, and then

    G(it) = sum_m (weight_m/2) (C_m B_m/(it - l_m) + conj(C_m B_m)/(it - conj l_m))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.ssm import hippo
from neuralsolve.ssm.arrays import Array, finite, like, square

CHUNK = 2_000_000  # numbers of a block of responses


class DenseResolvent:
    """(sI - A)^-1 B for many s, from one Schur form: calls take s (T,) and return (T, n, p).

    The answer is exact for a matrix within about n eps ||A|| of A.

    Parameters
    ----------
    A : (n, n), real or complex
    B : (n, p)
    """

    def __init__(self, A: Array, B: Array):
        self.T, self.Q = scipy.linalg.schur(np.asarray(A, complex), output="complex")[:2]
        self.QB = self.Q.conj().T @ B

    def __call__(self, s: Array) -> Array:
        """Solve for each s; frequencies (rows of the state) stay together, so that BLAS does the sums."""
        (n, p), s = self.QB.shape, np.asarray(s, complex)
        x = np.empty((n, p, len(s)), complex)
        for i in range(n - 1, -1, -1):  # (s - T_ii) x_i = (Q^* B)_i + sum_(j > i) T_ij x_j
            known = np.tensordot(self.T[i, i + 1 :], x[i + 1 :], 1)
            x[i] = (self.QB[i][:, None] + known) / (s - self.T[i, i])
        return np.moveaxis(np.tensordot(self.Q, x, 1), 2, 0)


def dense_transfer(A: Any, B: Any, C: Any = None, frequencies: Any = ()) -> Any:
    """Return C (it - A)^-1 B for a dense A (n, n): (T,), (T, p), (T, q) or (T, q, p), complex128.

    Raises
    ------
    ShapeError, NonFiniteError

    Examples
    --------
    >>> A, B = hippo.legs(4)
    >>> G = dense_transfer(A, B, frequencies=[3.0])
    >>> bool(np.allclose(G[0], hippo.resolvent(4, 3j)))
    True
    """
    given, A = A, square(A)
    B, C, t = _checked(len(A), B, C, frequencies)
    states = DenseResolvent(A, B.reshape(len(A), -1))
    return like(_in_blocks(lambda s: _read(C, states(s)), t, B, C), given)


def diagonal_transfer(
    eigenvalues: Any, B: Any, C: Any = None, frequencies: Any = (), weights: Any = None
) -> Any:
    """Return C (it - diag(eigenvalues))^-1 B, or the real system's G where `weights` are given.

    Parameters
    ----------
    eigenvalues : (N,)
    B, C : (N,) or (N, p), (N,) or (q, N); C = None (without weights) gives the states
    weights : (N,), 2 for one of a pair and 1 for a real eigenvalue, or None: all eigenvalues are there

    Raises
    ------
    ShapeError, NonFiniteError
    OptionError
        Weights without C: a state of half the pairs is no state of the real system.

    Examples
    --------
    >>> G = diagonal_transfer([-0.5 + 3j], [1.0], [1.0], [0.0, 3.0], weights=[2])
    >>> abs(G).round(4).tolist()
    [0.1081, 2.0206]
    """
    values = finite(eigenvalues, "eigenvalues").astype(complex)
    if values.ndim != 1 or not len(values):
        msg = f"got eigenvalues of shape {values.shape}; (N,) with N >= 1 is needed"
        raise ShapeError(msg)
    B, C, t = _checked(len(values), B, C, frequencies)
    b = B.reshape(len(values), -1).astype(complex)
    if weights is None:
        G = _in_blocks(lambda s: _read(C, b / (s[:, None, None] - values[:, None])), t, B, C)
        return like(G, eigenvalues)
    if C is None:
        msg = "got weights and no C; a real system is read by C: C=np.ones(N), or pass all eigenvalues"
        raise OptionError(msg)
    half = finite(weights, "weights") / 2
    if half.shape != values.shape:
        msg = f"got weights of shape {half.shape} for {len(values)} eigenvalues; {values.shape} is needed"
        raise ShapeError(msg)
    both = np.concatenate([half * C, half * C.conj()], -1)
    values, b = np.concatenate([values, values.conj()]), np.concatenate([b, b.conj()])
    G = _in_blocks(lambda s: _read(both, b / (s[:, None, None] - values[:, None])), t, B, C)
    return like(G, eigenvalues)


def hippo_transfer(n: int, C: Any = None, frequencies: Any = ()) -> Array:
    """Return C (it - A)^-1 B of HiPPO-LegS by its closed form: (T,) or (T, q); (T, n) without C.

    >>> G = hippo_transfer(16, frequencies=[0.0, 16.0])
    >>> np.linalg.norm(G, axis=1).round(6).tolist()  # n / sqrt(t^2 + n^2)
    [1.0, 0.707107]
    """
    B, C, t = _checked(n, hippo.legs(n)[1], C, frequencies)
    return _in_blocks(lambda s: _read(C, hippo.resolvent(n, s)[:, :, None]), t, B, C)


def magnitude(G: Array) -> Array:
    """Return |G|, the Frobenius norm over all axes but the first: (T,)."""
    return np.linalg.norm(G.reshape(len(G), -1), axis=1)


def _checked(n: int, B: Any, C: Any, frequencies: Any) -> tuple[Array, Any, Array]:
    B, t = finite(B, "B"), finite(frequencies, "frequencies").astype(float).ravel()
    if B.ndim not in (1, 2) or len(B) != n:
        msg = f"got B of shape {B.shape} for {n} states; ({n},) or ({n}, p) is needed"
        raise ShapeError(msg)
    if C is not None:
        C = finite(C, "C")
        if C.ndim not in (1, 2) or C.shape[-1] != n:
            msg = f"got C of shape {C.shape} for {n} states; ({n},) or (q, {n}) is needed"
            raise ShapeError(msg)
    return B, C, t


def _read(C: Any, states: Array) -> Array:
    return states if C is None else np.atleast_2d(C) @ states


def _in_blocks(answer: Callable[[Array], Array], t: Array, B: Array, C: Any) -> Array:
    """Evaluate at s = it, as many frequencies at a time as fit, and drop the axes that B and C lack."""
    states = B.size
    G = [answer(1j * part) for part in np.array_split(t, t.size * states // CHUNK + 1)]
    out = np.concatenate(G)
    if B.ndim == 1:
        out = out[..., 0]
    if C is not None and C.ndim == 1:
        out = out[:, 0]
    return out
