"""Viscous Burgers' equation on [0, 1), periodic: one of the benchmarks of Li et al. (2021).

    u_t + (u^2 / 2)_x = nu u_xx,    u at t = 0 from N(0, sigma^2 (-d^2/dx^2 + tau^2)^-alpha), without a mean

Data: u at t = 0 in; u at `final` out, or a trajectory of frames at equal times up to `final`. Nodes are
i / grid.
Scheme: Fourier pseudo-spectral in float64, modes k < grid / 3 alone, so that u^2 is free of aliases; in time
the exponential Runge-Kutta method of fourth order (ETDRK4), viscosity exactly. Its coefficients are means
over circles in the complex plane, which no cancellation spoils. Cost per step: eight transforms.
Exact answer: `cole_hopf`. With phi = exp(-U / (2 nu)), U_x = u, phi obeys the heat equation.

Differs from the source: u has no mean, which N(...) leaves random.

Sources: Z. Li et al., "Fourier neural operator for parametric partial differential equations", ICLR 2021
(arXiv 2010.08895), sec. 5.1; A.-K. Kassam, L. N. Trefethen, "Fourth-order time-stepping for stiff PDEs", SIAM
J. Sci. Comput. 26 (2005); E. Hopf, Comm. Pure Appl. Math. 3 (1950); J. D. Cole, Quart. Appl. Math. 9 (1951).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.fft import irfft, rfft

from neuralsolve.data.samples import Layout, Samples
from neuralsolve.errors import NonFiniteError, OptionError, ShapeError
from neuralsolve.pde.equation import described, distance, stream
from neuralsolve.pde.random_fields import periodic

BATCH = 8  # samples stepped together
CIRCLE = 32  # points on the upper half of the circle of a coefficient


@dataclass(frozen=True)
class Burgers:
    """Burgers' equation from a random initial state; see the head of this file.

    Parameters
    ----------
    grid : nodes that are solved on, even
    stride : every so many nodes are kept; 8 of 8192 leave 1024
    nu : viscosity
    final : time of the last frame
    frames : channels of the output, at final / frames, 2 final / frames, ..., final
    dt : longest time step; the next shorter one that divides the time between frames is taken
    sigma, alpha, tau : of the Gaussian field

    Raises
    ------
    OptionError

    Examples
    --------
    >>> burgers = Burgers(grid=256, stride=2, nu=0.01, frames=4)
    >>> data = burgers.samples(range(3), seed=7)
    >>> data.inputs.shape, data.outputs.shape, bool(data.residuals.max() < 1e-3)
    ((3, 1, 128), (3, 4, 128), True)
    """

    name: ClassVar[str] = "burgers"

    grid: int = 8192
    stride: int = 8
    nu: float = 0.1
    final: float = 1.0
    frames: int = 1
    dt: float = 1e-2
    sigma: float = 25.0
    alpha: float = 2.0
    tau: float = 5.0

    def __post_init__(self) -> None:
        kept = self.grid / max(self.stride, 1)
        if not (self.stride >= 1 and self.grid % 2 == 0 and kept >= 8 and kept % 2 == 0):
            msg = (
                f"grid = {self.grid}, stride = {self.stride}; an even grid is needed, and a stride that "
                "divides it and leaves an even number of nodes, 8 at least"
            )
            raise OptionError(msg)
        positive = {each: getattr(self, each) for each in ("nu", "final", "dt", "sigma", "alpha", "tau")}
        if not (all(0 < value < math.inf for value in positive.values()) and self.frames >= 1):
            given = ", ".join(f"{each} = {value}" for each, value in positive.items())
            msg = f"{given}, frames = {self.frames}; all must be positive and finite"
            raise OptionError(msg)

    def layout(self) -> Layout:
        axis = np.arange(0, self.grid, self.stride) / self.grid
        names = tuple(f"u(t={self.final * k / self.frames:.6g})" for k in range(1, self.frames + 1))
        units = {"x": "1"} | dict.fromkeys(("u(t=0)", *names), "1")
        return Layout((axis,), ("u(t=0)",), names, units, ("periodic",), described(self))

    def initial(self, number: int, seed: int) -> np.ndarray:
        """Return u at t = 0 ``(grid,)`` of one sample."""
        field = periodic((self.grid,), self.alpha, self.tau, stream(seed, number))
        return field * (self.sigma / (math.sqrt(2) * self.tau ** (self.alpha - 0.5)))

    def samples(self, numbers: Sequence[int], seed: int) -> Samples:
        side = self.grid // self.stride
        inputs = np.empty((len(numbers), 1, side), np.float32)
        outputs = np.empty((len(numbers), self.frames, side), np.float32)
        residuals = np.empty(len(numbers))
        for start in range(0, len(numbers), BATCH):
            u = np.stack([self.initial(number, seed) for number in numbers[start : start + BATCH]])
            part, frames = slice(start, start + BATCH), self.solve(u).astype(np.float32)
            inputs[part, 0], outputs[part] = u[:, :: self.stride], frames[:, :, :: self.stride]
            # on all nodes: those that a stride leaves may not resolve the solution
            residuals[part] = self.residual(u[:, None].astype(np.float32), frames)
        return Samples(inputs, outputs, self.layout(), residuals)

    def solve(self, u: np.ndarray) -> np.ndarray:
        """Return the frames ``(n, frames, side)`` that follow u at t = 0 ``(n, side)``, on the nodes of u.

        Raises
        ------
        ShapeError
            u is no batch of fields with an even number of nodes.
        NonFiniteError
            The solution blew up: dt is too large.

        Examples
        --------
        >>> x = np.arange(128) / 128
        >>> u = np.sin(2 * np.pi * x)[None]
        >>> exact = cole_hopf(u, nu=0.1, time=0.5)
        >>> float(abs(Burgers(final=0.5).solve(u)[:, 0] - exact).max()) < 1e-6
        True
        """
        if u.ndim != 2 or u.shape[1] % 2 or u.shape[1] < 8:
            msg = f"u has the shape {u.shape}; (n, side) is needed, side even and >= 8"
            raise ShapeError(msg)
        side, columns = u.shape[1], (u.shape[1] - 1) // 3 + 1
        between = self.final / self.frames
        steps = max(1, math.ceil(between / self.dt * (1 - 1e-9)))
        scheme = _Exponential(self.nu, between / steps, columns, side)
        modes: Any = np.asarray(rfft(np.asarray(u, np.float64)))[:, :columns]
        found = np.empty((len(u), self.frames, side))
        for k in range(self.frames):
            with np.errstate(over="ignore", invalid="ignore"):  # looked for below
                for _ in range(steps):
                    modes = scheme.step(modes)
            found[:, k] = _values(modes, side)
            if not np.isfinite(found[:, k]).all():
                msg = (
                    f"the solution blew up before t = {(k + 1) * between:g}: dt = {self.dt} is too large for "
                    f"{side} nodes and nu = {self.nu}; try dt = {self.dt / 4:g}"
                )
                raise NonFiniteError(msg)
        return found

    def residual(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return how far the frames are from those that this scheme makes of the input, relative in L2.

        It runs on the nodes that are given. Our own fields miss it by what float32 and the stride left out.
        """
        found = [
            distance(outputs[k : k + BATCH], self.solve(inputs[k : k + BATCH, 0].astype(float)))
            for k in range(0, len(inputs), BATCH)
        ]
        return np.concatenate(found)


class _Exponential:
    """ETDRK4 on modes ``(n, columns)`` (Kassam and Trefethen 2005, eq. 26-29)."""

    def __init__(self, nu: float, dt: float, columns: int, side: int):
        self.side = side
        k = 2 * np.pi * np.arange(columns)
        linear = -nu * k**2 * dt
        self.whole, self.half = np.exp(linear), np.exp(linear / 2)
        z = linear[:, None] + np.exp(1j * np.pi * (np.arange(CIRCLE) + 0.5) / CIRCLE)
        e = np.exp(z)
        self.q = dt * ((np.exp(z / 2) - 1) / z).real.mean(1)
        self.first = dt * ((-4 - z + e * (4 - 3 * z + z**2)) / z**3).real.mean(1)
        self.middle = dt * 2 * ((2 + z + e * (z - 2)) / z**3).real.mean(1)
        self.last = dt * ((-4 - 3 * z - z**2 + e * (4 - z)) / z**3).real.mean(1)
        self.flux = -0.5j * k  # of u^2

    def step(self, modes: np.ndarray) -> np.ndarray:
        now = self._advection(modes)
        decayed = self.half * modes
        a = decayed + self.q * now
        at_a = self._advection(a)
        at_b = self._advection(decayed + self.q * at_a)
        at_c = self._advection(self.half * a + self.q * (2 * at_b - now))
        return self.whole * modes + self.first * now + self.middle * (at_a + at_b) + self.last * at_c

    def _advection(self, modes: np.ndarray) -> np.ndarray:
        u = _values(modes, self.side)
        u *= u
        return self.flux * np.asarray(rfft(u))[:, : len(self.flux)]


def cole_hopf(u: np.ndarray, nu: float, time: float) -> np.ndarray:
    """Return the exact solution of Burgers' equation at a time, from values at the nodes ``(..., side)``.

    Exact up to what the nodes resolve of exp(-U / (2 nu)), U_x = u, and up to rounding, which grows with the
    range of that: about 1e-9 where U / (2 nu) spans 16. A mean of u carries the solution along.

    Examples
    --------
    >>> u = np.sin(2 * np.pi * np.arange(64) / 64)
    >>> later = cole_hopf(cole_hopf(u, 0.1, 0.2), 0.1, 0.3)
    >>> bool(abs(later - cole_hopf(u, 0.1, 0.5)).max() < 1e-12)
    True
    """
    side = u.shape[-1]
    k = 2 * np.pi * np.arange(side // 2 + 1)
    slope = 1j * np.where(
        np.arange(len(k)) * 2 == side, 0.0, k
    )  # the last mode of an even grid has no derivative
    modes: Any = rfft(u)
    mean = modes[..., :1].real / side
    potential = _values(np.divide(modes, slope, out=np.zeros_like(modes), where=slope != 0), side)
    exponent = -potential / (2 * nu)
    heat: Any = rfft(np.exp(exponent - exponent.max(-1, keepdims=True)))
    heat = heat * np.exp(-nu * k**2 * time - slope * mean * time)
    return mean - 2 * nu * _values(slope * heat, side) / _values(heat, side)


def _values(modes: np.ndarray, side: int) -> Any:
    """Return the values at the nodes, from the lowest modes."""
    return irfft(modes, n=side)
