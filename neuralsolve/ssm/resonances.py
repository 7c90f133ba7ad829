"""Where a transfer function stands out: spikes, largest errors, worst gains, found on all frequencies.

A *spike* is a local maximum of |G| at an eigenvalue close to the axis: it lies within |Re l| of Im l, where
its half width is |Re l|. So a grid that shall not miss one holds the imaginary parts of all eigenvalues and
points beside them; about the highest points of the grid the maximum is then refined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from neuralsolve.ssm import hippo
from neuralsolve.ssm.arrays import Array, finite
from neuralsolve.ssm.transfer import CHUNK, diagonal_transfer, magnitude

Response = Callable[[Array], Array]


class Spike(NamedTuple):
    """A resonance: where |G| has a local maximum, how high it is and the place of its eigenvalue."""

    frequency: float
    height: float
    place: int


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
    for place, value in enumerate(values):
        width = 2 * abs(value.real) + 1e-12 * (1 + abs(value))
        grid = value.imag + width * np.linspace(-1, 1, 33)
        best = int(height(grid).argmax())
        if best in (0, len(grid) - 1):
            continue
        bracket = (grid[best - 1], grid[best + 1])
        peak: Any = minimize_scalar(
            lambda t: -float(height(t)[0]), bounds=bracket, method="bounded", options={"xatol": 1e-9 * width}
        )
        if all(abs(peak.x - other.frequency) > 1e-6 * width for other in found):
            found.append(Spike(float(peak.x), -float(peak.fun), place))
    return sorted(found, key=lambda spike: -spike.height)


def frequency_grid(low: float, high: float, eigenvalues: Any = (), points: int = 20_000) -> Array:
    """Return 0, `points` logarithmic ones of [low, high], and |Im l| with up to 2 |Re l| to both sides.

    >>> frequency_grid(0.1, 10.0, [-0.5 + 3j], points=3).round(3).tolist()
    [0.0, 0.1, 1.0, 2.0, 2.5, 2.75, 3.0, 3.25, 3.5, 4.0, 10.0]
    """
    values = np.asarray(eigenvalues, complex).reshape(-1, 1)
    near = np.abs(np.imag(values)) + np.abs(np.real(values)) * np.array([-2, -1, -0.5, 0, 0.5, 1, 2])
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
            peak: Any = minimize_scalar(
                lambda t: -float(height(np.array([t]))[0]), bounds=ends, method="bounded"
            )
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
