"""Transfer functions G(it) = C (it - A)^-1 B on the imaginary axis, and where they stand out.

A dense system is taken to Schur form once, A = Q T Q^*, and then costs n^2 a frequency: one back
substitution that runs over all frequencies at a time. A diagonal one costs n. A frequency t is angular, per
unit of time, and may be negative; B is (n,) or (n, p), C (n,) or (q, n), and what has no p or q has no axis
for it in the result. Without C the answer is the state's, (..., n).

A real diagonal system is kept as one of each conjugate pair with weight 2 and its real eigenvalues with
weight 1, y = Re sum_m weight_m C_m x_m, and then

    G(it) = sum_m (weight_m/2) (C_m B_m/(it - l_m) + conj(C_m B_m)/(it - conj l_m))

A *spike* is a local maximum of |G| at an eigenvalue close to the axis: it lies within |Re l| of Im l, where
its half width is |Re l|, so a grid must hold those points or it will miss it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from scipy.optimize import minimize_scalar

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.ssm import hippo
from neuralsolve.ssm.hippo import Array, finite

CHUNK = 2_000_000  # numbers of a block of responses
Response = Callable[[Array], Array]


class DenseResolvent:
    """(sI - A)^-1 B for many s, from one Schur form: calls take s (T,) and return (T, n, p).

    The answer is exact for a matrix within about n eps ||A|| of A.

    Parameters
    ----------
    A : (n, n), real or complex
    B : (n, p)
    """

    def __init__(self, A: Array, B: Array):
        self.T, self.Q = scipy.linalg.schur(np.asarray(A, complex), output="complex")
        self.QB = self.Q.conj().T @ B

    def __call__(self, s: Array) -> Array:
        """Solve for each s; frequencies (rows of the state) stay together, so that BLAS does the sums."""
        (n, p), s = self.QB.shape, np.asarray(s, complex)
        x = np.empty((n, p, len(s)), complex)
        for i in range(n - 1, -1, -1):  # (s - T_ii) x_i = (Q^* B)_i + sum_(j > i) T_ij x_j
            known = np.tensordot(self.T[i, i + 1 :], x[i + 1 :], 1)
            x[i] = (self.QB[i][:, None] + known) / (s - self.T[i, i])
        return np.moveaxis(np.tensordot(self.Q, x, 1), 2, 0)


def dense_transfer(A: Any, B: Any, C: Any = None, frequencies: Any = ()) -> Array:
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
    A, B, C, t = _system(A, B, C, frequencies)
    states = DenseResolvent(A, B.reshape(len(A), -1))
    return _in_blocks(lambda s: _read(C, states(s)), t, B, C)


def diagonal_transfer(
    eigenvalues: Any, B: Any, C: Any = None, frequencies: Any = (), weights: Any = None
) -> Array:
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
    _, B, C, t = _system(np.empty((len(values),) * 2), B, C, frequencies)
    b = B.reshape(len(values), -1).astype(complex)
    if weights is None:
        return _in_blocks(lambda s: _read(C, b / (s[:, None, None] - values[:, None])), t, B, C)
    if C is None:
        msg = "got weights and no C; a real system is read by C: C=np.ones(N), or pass all eigenvalues"
        raise OptionError(msg)
    half = finite(weights, "weights") / 2
    if half.shape != values.shape:
        msg = f"got weights of shape {half.shape} for {len(values)} eigenvalues; {values.shape} is needed"
        raise ShapeError(msg)
    both = np.concatenate([half * C, half * C.conj()], -1)
    values, b = np.concatenate([values, values.conj()]), np.concatenate([b, b.conj()])
    return _in_blocks(lambda s: _read(both, b / (s[:, None, None] - values[:, None])), t, B, C)


def hippo_transfer(n: int, C: Any = None, frequencies: Any = ()) -> Array:
    """Return C (it - A)^-1 B of HiPPO-LegS by its closed form: (T,) or (T, q); (T, n) without C.

    >>> G = hippo_transfer(16, frequencies=[0.0, 16.0])
    >>> np.linalg.norm(G, axis=1).round(6).tolist()  # n / sqrt(t^2 + n^2)
    [1.0, 0.707107]
    """
    _, B, C, t = _system(np.empty((n, n)), np.empty(n), C, frequencies)
    return _in_blocks(lambda s: _read(C, hippo.resolvent(n, s)[:, :, None]), t, B, C)


class Spike(NamedTuple):
    """A resonance: where |G| has a local maximum, how high it is and which eigenvalue made it."""

    frequency: float
    height: float
    index: int


def spikes(eigenvalues: Any, B: Any, C: Any = None, weights: Any = None) -> list[Spike]:
    """Return the resonances of a diagonal system, highest first; of equal frequencies one.

    |G| is maximised within 2 |Re l| of each Im l; where the maximum is at the rim of that window there is
    no peak of this eigenvalue, another one's slope passes. |G| is the norm over inputs and outputs.

    Parameters
    ----------
    eigenvalues, B, C, weights : as in `diagonal_transfer`; without C the norm of the states counts

    Examples
    --------
    >>> eigenvalues, V = hippo.normal_eigenvectors(32)
    >>> highest = spikes(eigenvalues, V.conj().T @ hippo.legs(32)[1] / 2)[0]
    >>> round(abs(highest.frequency), 2), round(highest.height, 2)
    (325.43, 20.39)
    """
    values = finite(eigenvalues, "eigenvalues").astype(complex)

    def height(t: Any) -> Array:
        return magnitude(diagonal_transfer(values, B, C, np.atleast_1d(t), weights))

    found: list[Spike] = []
    for index, value in enumerate(values):
        width = 2 * abs(value.real) + 1e-12 * (1 + abs(value))
        grid = value.imag + width * np.linspace(-1, 1, 33)
        best = int(height(grid).argmax())
        if best in (0, len(grid) - 1):
            continue
        bracket = (grid[best - 1], grid[best + 1])
        peak = minimize_scalar(
            lambda t: -float(height(t)[0]), bounds=bracket, method="bounded", options={"xatol": 1e-9 * width}
        )
        if all(abs(peak.x - other.frequency) > 1e-6 * width for other in found):
            found.append(Spike(float(peak.x), -float(peak.fun), index))
    return sorted(found, key=lambda spike: -spike.height)


def magnitude(G: Array) -> Array:
    """Return |G|, the Frobenius norm over all axes but the first: (T,)."""
    return np.linalg.norm(G.reshape(len(G), -1), axis=1)


def frequency_grid(low: float, high: float, eigenvalues: Any = (), points: int = 20_000) -> Array:
    """Return 0, `points` logarithmic ones of [low, high], and |Im l| with up to 2 |Re l| to both sides.

    >>> frequency_grid(0.1, 10.0, [-0.5 + 3j], points=3).round(3).tolist()
    [0.0, 0.1, 1.0, 2.0, 2.5, 2.75, 3.0, 3.25, 3.5, 4.0, 10.0]
    """
    values = np.asarray(eigenvalues, complex).reshape(-1, 1)
    near = np.abs(values.imag) + np.abs(values.real) * np.array([-2, -1, -0.5, 0, 0.5, 1, 2])
    return np.unique(np.concatenate([[0], np.geomspace(low, high, points), np.abs(near).ravel()]))


def largest(height: Response, grid: Array) -> tuple[float, float]:
    """Return the frequency and the value of the maximum of `height` (T,) -> (T,), grid ascending.

    The ten highest points are refined on 401 points between their neighbours, and the best of them by a
    bounded search, so a maximum is missed only where the grid shows nothing of it.
    """
    values = height(grid)
    best: tuple[float, float] = (float(grid[values.argmax()]), float(values.max()))
    for i in np.argsort(values)[-10:]:
        fine = np.linspace(grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)], 401)
        heights = height(fine)
        j = int(heights.argmax())
        ends = (fine[max(j - 1, 0)], fine[min(j + 1, 400)])
        if heights[j] > best[1]:
            best = (float(fine[j]), float(heights[j]))
            peak = minimize_scalar(lambda t: -float(height(np.array([t]))[0]), bounds=ends, method="bounded")
            if -peak.fun > best[1]:
                best = (float(peak.x), -float(peak.fun))
    return best


def legs_error(eigenvalues: Any, V: Any, B: Any, points: int = 20_000) -> tuple[float, float]:
    """Return where and how far V (it - diag(l))^-1 B is from HiPPO at most, over all frequencies t >= 0.

    It is the transfer error for the worst unit C, with B_H unscaled, sup_t ||(it-A_H)^-1 B_H - V (it-l)^-1
    B||, on 0, a logarithmic grid from 1e-2 to 10 n^2, points about w_m of `hippo.normal_frequencies` and
    about every eigenvalue, and then refined about the maximum.

    Parameters
    ----------
    eigenvalues : (n,), all of them
    V : (n, n), eigenvectors
    B : (n,), the input of the diagonal system, V^-1 B_H or what stands for it

    Returns
    -------
    frequency, error

    Examples
    --------
    >>> eigenvalues, V = hippo.normal_eigenvectors(16)
    >>> t, error = legs_error(eigenvalues, V, V.conj().T @ hippo.legs(16)[1] / 2)
    >>> round(t, 3), round(error, 4)
    (80.966, 10.0246)
    """
    values, V, B = (
        finite(x, name).astype(complex) for x, name in ((eigenvalues, "eigenvalues"), (V, "V"), (B, "B"))
    )
    n = len(V)
    resonances = np.concatenate([values, -0.5 + 1j * hippo.normal_frequencies(n)])
    grid = frequency_grid(1e-2, 10.0 * n * n, resonances, points)

    def height(t: Array) -> Array:
        blocks = np.array_split(t, len(t) * n // CHUNK + 1)
        return np.concatenate(
            [
                np.linalg.norm(hippo.resolvent(n, 1j * s) - (B / (1j * s[:, None] - values)) @ V.T, axis=1)
                for s in blocks
            ]
        )

    return largest(height, grid)


def worst_gain(
    eigenvalues: Any, B: Any, V: Any = None, length: float | None = None, points: int = 20_000
) -> tuple[float, float]:
    """Return where and how large sup_t ||V (it - diag(l))^-1 B|| / length is, V = I if none is given.

    The gain from a sinusoid to the state in the coordinates of V, for the worst unit read-out, over the
    length of the input vector (default: ||V B||, that of the system itself). Against ||B_H|| = n, S4D has
    2/pi = 0.637 at every n, HiPPO 1/n.

    >>> eigenvalues, V = hippo.normal_eigenvectors(32)
    >>> t, gain = worst_gain(eigenvalues, V.conj().T @ hippo.legs(32)[1] / 2, length=32)
    >>> round(abs(t), 2), round(gain, 4)
    (325.43, 0.6371)
    """
    values, b = finite(eigenvalues, "eigenvalues").astype(complex), finite(B, "B").astype(complex)
    basis = np.eye(len(values)) if V is None else finite(V, "V").astype(complex)
    fastest = np.abs(values).max()
    grid = frequency_grid(1e-4 * fastest, 10 * fastest, values, points)

    def height(t: Array) -> Array:
        blocks = np.array_split(t, len(t) * len(values) // CHUNK + 1)
        return np.concatenate(
            [np.linalg.norm((b / (1j * s[:, None] - values)) @ basis.T, axis=1) for s in blocks]
        )

    t, top = largest(height, np.union1d(-grid, grid))
    return t, top / (float(np.linalg.norm(basis @ b)) if length is None else length)


def pseudospectrum(A: Any, x: Any, y: Any) -> Array:
    """Return the least singular value of zI - A at z = x + iy: (len(y), len(x)), float64.

    The eps-pseudospectrum is where it is at most eps: what some perturbation of norm eps can make an
    eigenvalue (Trefethen & Embree, Spectra and Pseudospectra, 2005, thm. 2.1). One Schur form, then an SVD
    of an upper triangular matrix at each point; values below about n eps ||A|| are rounding.

    Raises
    ------
    ShapeError, NonFiniteError

    Examples
    --------
    >>> pseudospectrum(np.diag([1.0, 4.0]), [0.0, 2.0], [0.0]).tolist()  # normal: the distance
    [[1.0, 1.0]]
    """
    A = square(A)
    x, y = finite(x, "x").ravel(), finite(y, "y").ravel()
    T = np.asarray(scipy.linalg.schur(A.astype(complex), output="complex")[0])
    z = (x + 1j * y[:, None]).ravel()
    blocks = np.array_split(z, z.size * A.size // CHUNK + 1)
    least = [
        np.linalg.svd(part[:, None, None] * np.eye(len(A)) - T, compute_uv=False)[:, -1] for part in blocks
    ]
    return np.concatenate(least).reshape(len(y), len(x))


def square(A: Any, name: str = "A") -> Array:
    """Return A as a float64 or complex128 array, square and finite, of at least one row."""
    A = finite(A, name)
    if A.ndim != 2 or A.shape[0] != A.shape[1] or not A.size:
        msg = f"got {name} of shape {A.shape}; (n, n) with n >= 1 is needed"
        raise ShapeError(msg)
    return A.astype(complex if np.iscomplexobj(A) else float)


def _system(A: Any, B: Any, C: Any, frequencies: Any) -> tuple[Array, Array, Any, Array]:
    A, B = square(A), finite(B, "B")
    n, t = len(A), finite(frequencies, "frequencies").astype(float).ravel()
    if B.ndim not in (1, 2) or len(B) != n:
        msg = f"got B of shape {B.shape} for {n} states; ({n},) or ({n}, p) is needed"
        raise ShapeError(msg)
    if C is not None:
        C = finite(C, "C")
        if C.ndim not in (1, 2) or C.shape[-1] != n:
            msg = f"got C of shape {C.shape} for {n} states; ({n},) or (q, {n}) is needed"
            raise ShapeError(msg)
    return A, B, C, t


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
