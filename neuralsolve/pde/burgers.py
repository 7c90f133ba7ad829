"""Viscous Burgers' equation on [0, 1), periodic: one of the benchmarks of Li et al. (2021).

    u_t + (u^2 / 2)_x = nu u_xx,    u at t = 0 from N(0, sigma^2 (-d^2/dx^2 + tau^2)^-alpha), without a mean

Data: u at t = 0 in; u at `final` out, or a trajectory of frames at equal times up to `final`. Nodes are
i / grid.
Scheme: `neuralsolve.pde.exponential`, pseudo-spectral, of fourth order in time, viscosity exactly.
Exact answer: `cole_hopf`. With phi = exp(-U / (2 nu)), U_x = u, phi obeys the heat equation.

Differs from the source: u has no mean, which N(...) leaves random.

Sources: Z. Li et al., "Fourier neural operator for parametric partial differential equations", ICLR 2021
(arXiv 2010.08895), sec. 5.1; E. Hopf, Comm. Pure Appl. Math. 3 (1950); J. D. Cole, Quart. Appl. Math. 9
(1951).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np
from scipy.fft import irfft, rfft

from neuralsolve.data.samples import Layout, Samples
from neuralsolve.errors import OptionError
from neuralsolve.pde.equation import described, distance, stream
from neuralsolve.pde.exponential import trajectory
from neuralsolve.pde.random_fields import periodic

BATCH = 8  # samples stepped together


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
            part, found = slice(start, start + BATCH), self.solve(u).astype(np.float32)
            inputs[part, 0], outputs[part] = u[:, :: self.stride], found[:, :, :: self.stride]
            # on all nodes: those that a stride leaves may not resolve the solution
            residuals[part] = self.residual(u[:, None].astype(np.float32), found)
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
        following = trajectory(u, lambda k: -self.nu * k**2, 1.0, self.dt, self.final / self.frames)
        return np.stack(list(islice(following, self.frames)), 1)

    def residual(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return how far the frames are from those that this scheme makes of the input, relative in L2.

        It runs on the nodes that are given. Our own fields miss it by what float32 and the stride left out.
        """
        found = [
            distance(outputs[k : k + BATCH], self.solve(inputs[k : k + BATCH, 0].astype(float)))
            for k in range(0, len(inputs), BATCH)
        ]
        return np.concatenate(found)


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
