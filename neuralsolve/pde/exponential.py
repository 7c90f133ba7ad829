"""u_t + (u^2 / 2)_x = L u on a periodic line, L diagonal and real in Fourier modes: ETDRK4.

Pseudo-spectral in float64, modes k < side / 3 alone, so that u^2 is free of aliases; in time the exponential
Runge-Kutta method of fourth order, the linear part exactly. Its coefficients are means over circles in the
complex plane, which no cancellation spoils. Cost per step: eight transforms.

Source: A.-K. Kassam, L. N. Trefethen, "Fourth-order time-stepping for stiff PDEs", SIAM J. Sci. Comput. 26
(2005), eq. 26-29.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.fft import irfft, rfft

from neuralsolve.errors import NonFiniteError, ShapeError

CIRCLE = 32  # points on the upper half of the circle of a coefficient


class Exponential:
    """ETDRK4 on the lowest modes ``(n, columns)`` of fields of `side` nodes.

    Parameters
    ----------
    linear : k (columns,) -> L (columns,), of the wave numbers k
    length : of the line
    dt : a step
    side : nodes, even

    Examples
    --------
    >>> scheme = Exponential(lambda k: -(k**2), length=2 * np.pi, dt=0.1, side=32)
    >>> x = 2 * np.pi * np.arange(32) / 32
    >>> u = scheme.values(scheme.step(scheme.modes(1e-9 * np.sin(3 * x)[None])))
    >>> bool(np.allclose(u, 1e-9 * np.exp(-0.9) * np.sin(3 * x), rtol=0, atol=1e-16))
    True
    """

    def __init__(self, linear: Callable[[np.ndarray], np.ndarray], length: float, dt: float, side: int):
        self.side, self.columns = side, (side - 1) // 3 + 1
        k = 2 * np.pi * np.arange(self.columns) / length
        exponent = linear(k) * dt
        self.whole, self.half = np.exp(exponent), np.exp(exponent / 2)
        z = exponent[:, None] + np.exp(1j * np.pi * (np.arange(CIRCLE) + 0.5) / CIRCLE)
        e = np.exp(z)
        self.q = dt * ((np.exp(z / 2) - 1) / z).real.mean(1)
        self.first = dt * ((-4 - z + e * (4 - 3 * z + z**2)) / z**3).real.mean(1)
        self.middle = dt * 2 * ((2 + z + e * (z - 2)) / z**3).real.mean(1)
        self.last = dt * ((-4 - 3 * z - z**2 + e * (4 - z)) / z**3).real.mean(1)
        self.flux = -0.5j * k  # of u^2

    def modes(self, u: np.ndarray) -> Any:
        """Return the modes that are kept, of values at the nodes ``(n, side)``."""
        return np.asarray(rfft(np.asarray(u, np.float64)))[:, : self.columns]

    def values(self, modes: np.ndarray) -> Any:
        """Return the values at the nodes."""
        return irfft(modes, n=self.side)

    def step(self, modes: np.ndarray) -> Any:
        now = self._advection(modes)
        decayed = self.half * modes
        a = decayed + self.q * now
        at_a = self._advection(a)
        at_b = self._advection(decayed + self.q * at_a)
        at_c = self._advection(self.half * a + self.q * (2 * at_b - now))
        return self.whole * modes + self.first * now + self.middle * (at_a + at_b) + self.last * at_c

    def _advection(self, modes: np.ndarray) -> np.ndarray:
        u = self.values(modes)
        u *= u
        return self.flux * np.asarray(rfft(u))[:, : self.columns]


def trajectory(
    u: np.ndarray, linear: Callable[[np.ndarray], np.ndarray], length: float, dt: float, between: float
) -> Iterator[np.ndarray]:
    """Yield the fields ``(n, side)`` at the times `between`, 2 `between`, ... after u, without an end.

    Parameters
    ----------
    u : values at the nodes, (n, side), side even and at least 8
    linear, length : as of `Exponential`
    dt : longest step; the next shorter one that divides `between` is taken

    Raises
    ------
    ShapeError
        u is no batch of fields with an even number of nodes.
    NonFiniteError
        The solution blew up: dt is too large.
    """
    if u.ndim != 2 or u.shape[1] % 2 or u.shape[1] < 8:
        msg = f"u has the shape {u.shape}; (n, side) is needed, side even and >= 8"
        raise ShapeError(msg)
    steps = max(1, math.ceil(between / dt * (1 - 1e-9)))
    scheme, number = Exponential(linear, length, between / steps, u.shape[1]), 0
    modes = scheme.modes(u)
    while True:
        with np.errstate(over="ignore", invalid="ignore"):  # looked for below
            for _ in range(steps):
                modes = scheme.step(modes)
            found, number = scheme.values(modes), number + 1
        if not np.isfinite(found).all():
            msg = (
                f"the solution blew up before t = {number * between:g}: dt = {dt} is too large for "
                f"{u.shape[1]} nodes; try dt = {dt / 4:g}"
            )
            raise NonFiniteError(msg)
        yield found
