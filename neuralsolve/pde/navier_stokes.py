"""Incompressible flow on the periodic unit square, forced, as vorticity: the benchmark of Li et al. (2021).

    w_t + u . grad w = nu Laplace w + f,   w = dv/dx - du/dy,   f = 0.1 (sin 2 pi (x + y) + cos 2 pi (x + y))

Data: w at t = 1, 2, ... in, the frames after them out; w at t = 0 is a periodic Gaussian field (alpha = 2.5,
tau = 7). Axes are (y, x), u the velocity along x; nodes are i / grid.
Scheme: Fourier pseudo-spectral in float64, modes |k| < grid / 3 alone, so that products are free of aliases
(Orszag). Viscosity and forcing by Crank-Nicolson, advection by Adams-Bashforth of second order, the first
step by Euler's; second order in dt as a whole. The advection term is written with the two products that
suffice,

    -u . grad w = -(dxx - dyy) (u v) - dxy (v^2 - u^2)    (Basdevant 1983)

four transforms a step instead of five. `BATCH` samples are stepped together: their fields stay in the cache.

Differs from the source, which has 256^2 nodes, dt = 1e-4 and every fourth node kept: 64^2 and 5e-3 here.
`self_convergence` says what that costs; the bound is 1e-3 relative.

Sources: Z. Li et al., "Fourier neural operator for parametric partial differential equations", ICLR 2021
(arXiv 2010.08895), sec. 5.3 and A.3.3; C. Basdevant, "Technical improvements for direct numerical simulation
of homogeneous three-dimensional turbulence", J. Comput. Phys. 50 (1983); S. Orszag, J. Atmos. Sci. 28 (1971).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import fft

from neuralsolve.data.samples import Layout, Samples
from neuralsolve.errors import NonFiniteError, OptionError, ShapeError
from neuralsolve.kernels.cpu.threads import torch_on_one_thread
from neuralsolve.pde.equation import described, distance, stream
from neuralsolve.pde.random_fields import periodic

ROUNDED = 1e-5  # relative to dt: six digits of it are enough to divide an interval
BATCH = 4  # samples stepped together; 64^2 modes of so many and their products fit 1 MiB


class SelfConvergence(NamedTuple):
    """Relative L2 differences of all frames, the largest of the samples."""

    time: float  # from half the time step
    space: float  # from twice the grid


@dataclass(frozen=True)
class NavierStokes:
    """Vorticity of forced flow on the periodic unit square; see the head of this file.

    Parameters
    ----------
    grid : nodes a side that are solved on, even
    stride : every so many nodes are kept
    nu : viscosity; 1e-3 with frames up to t = 50, 1e-4 up to 30 and 1e-5 up to 20 in the source
    dt : time step; it divides `interval`, to five digits: what is taken divides it exactly
    frames_in, frames_out : channels of input and output
    interval : time between frames; the first is at t = interval
    forcing : amplitude of f; 0 for decaying flow
    alpha, tau : of the Gaussian field

    Raises
    ------
    OptionError

    Examples
    --------
    >>> flow = NavierStokes(grid=32, dt=0.02, frames_in=1, frames_out=2)
    >>> data = flow.samples(range(2), seed=7)
    >>> data.inputs.shape, data.outputs.shape, bool(data.residuals.max() < 1e-5)
    ((2, 1, 32, 32), (2, 2, 32, 32), True)
    """

    name: ClassVar[str] = "navier-stokes"

    grid: int = 64
    stride: int = 1
    nu: float = 1e-3
    dt: float = 5e-3
    frames_in: int = 10
    frames_out: int = 20
    interval: float = 1.0
    forcing: float = 0.1
    alpha: float = 2.5
    tau: float = 7.0

    def __post_init__(self) -> None:
        if not (self.grid >= 8 and self.grid % 2 == 0 and self.stride >= 1 and self.grid % self.stride == 0):
            msg = (
                f"grid = {self.grid}, stride = {self.stride}; an even grid of 8 nodes a side at least is "
                "needed, and a stride that divides it"
            )
            raise OptionError(msg)
        if min(self.frames_in, self.frames_out) < 1:
            msg = f"frames_in = {self.frames_in}, frames_out = {self.frames_out}; both must be at least 1"
            raise OptionError(msg)
        positive = {name: getattr(self, name) for name in ("nu", "dt", "interval", "alpha", "tau")}
        if not (all(0 < value < np.inf for value in positive.values()) and np.isfinite(self.forcing)):
            given = ", ".join(f"{name} = {value}" for name, value in positive.items())
            msg = f"{given}, forcing = {self.forcing}; all finite, and all but the forcing > 0, are needed"
            raise OptionError(msg)
        steps = self.interval / self.dt
        if round(steps) < 1 or abs(steps - round(steps)) > ROUNDED * steps:
            msg = (
                f"dt = {self.dt} does not divide the interval {self.interval} between frames; "
                f"try dt = {self.interval / max(1, np.ceil(steps)):.6g}"
            )
            raise OptionError(msg)

    @property
    def steps(self) -> int:
        """Time steps between frames."""
        return round(self.interval / self.dt)

    def layout(self) -> Layout:
        axis = np.arange(0, self.grid, self.stride) / self.grid
        times = [f"{self.interval * k:.6g}" for k in range(1, self.frames_in + self.frames_out + 1)]
        names = tuple(f"w(t={time})" for time in times)
        return Layout(
            (axis, axis),
            names[: self.frames_in],
            names[self.frames_in :],
            {"y": "1", "x": "1"} | dict.fromkeys(names, "1"),
            ("periodic", "periodic"),
            described(self),
        )

    def initial(self, number: int, seed: int) -> np.ndarray:
        """Return w at t = 0 ``(grid, grid)`` of one sample, before modes are cut off."""
        return periodic((self.grid,) * 2, self.alpha, self.tau, stream(seed, number))

    def samples(self, numbers: Sequence[int], seed: int) -> Samples:
        count, kept = self.frames_in + self.frames_out, slice(None, None, self.stride)
        side, residuals = self.grid // self.stride, np.empty(len(numbers))
        frames = np.empty((len(numbers), count, side, side), np.float32)
        for start in range(0, len(numbers), BATCH):
            chosen = numbers[start : start + BATCH]
            fields = np.stack([self.initial(number, seed) for number in chosen])
            part, whole = slice(start, start + BATCH), self.frames(fields, count)
            frames[part] = whole[:, :, kept, kept]
            # on all nodes: those that a stride leaves may not resolve the flow
            pair = whole[:, self.frames_in - 1 : self.frames_in + 1].astype(np.float32)
            residuals[part] = self.residual(pair[:, :1], pair[:, 1:])
        inputs, outputs = frames[:, : self.frames_in].copy(), frames[:, self.frames_in :].copy()
        return Samples(inputs, outputs, self.layout(), residuals)

    def frames(self, w: np.ndarray, count: int) -> np.ndarray:
        """Return the next `count` frames ``(n, count, side, side)`` after w ``(n, side, side)``.

        The grid is that of w; the modes that the scheme does not carry are dropped from w first.

        Raises
        ------
        ShapeError
            w is no batch of squares with an even number of nodes a side.
        NonFiniteError
            The solution blew up: dt is too large.
        """
        if w.ndim != 3 or w.shape[1] != w.shape[2] or w.shape[1] % 2 or w.shape[1] < 8:
            msg = f"w has the shape {w.shape}; (n, side, side) is needed, side even and >= 8"
            raise ShapeError(msg)
        scheme = Scheme(self, len(w), w.shape[1])
        modes = scheme.forward(np.asarray(w, np.float64))
        found = np.empty((len(w), count, *w.shape[1:]))
        for k in range(count):
            with np.errstate(over="ignore", invalid="ignore"), torch_on_one_thread():  # looked for below
                scheme.advance(modes, self.steps)
                found[:, k] = scheme.backward(modes)
            if not np.isfinite(found[:, k]).all():
                msg = (
                    f"the flow blew up before t = {(k + 1) * self.interval:g}: dt = {self.dt} is too large "
                    f"for side = {w.shape[1]}; try dt = {self.dt / 2:g}"
                )
                raise NonFiniteError(msg)
        return found

    def residual(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return how far the first output frame is from the last input frame, advanced by this scheme.

        Relative in L2, on the nodes that are given; one frame of the output alone is looked at. Fields of our
        own miss it by what float32 and a stride left out, and by the start of the scheme, O(dt^2).
        """
        found = np.empty(len(inputs))
        for start in range(0, len(inputs), BATCH):
            part = slice(start, start + BATCH)
            expected = self.frames(inputs[part, -1].astype(float), 1)[:, 0]
            found[part] = distance(outputs[part, 0], expected)
        return found

    def self_convergence(self, numbers: Sequence[int], seed: int) -> SelfConvergence:
        """Return by how much the frames of some samples change with half the time step, and twice the grid.

        Both start from the same field: the modes that this grid carries.

        Examples
        --------
        >>> flow = NavierStokes(grid=32, dt=0.02, frames_in=1, frames_out=1)
        >>> max(flow.self_convergence(range(2), seed=7)) < 1e-2
        True
        """
        count, side = self.frames_in + self.frames_out, self.grid
        fields = np.stack([self.initial(number, seed) for number in numbers])
        modes = Scheme(self, len(fields), side).forward(fields)
        fine = Scheme(self, len(fields), 2 * side)
        lifted = np.zeros((len(fields), fine.columns, 2 * side), complex)
        half, columns = side // 2, modes.shape[1]
        lifted[:, :columns, :half], lifted[:, :columns, -half:] = 4 * modes[..., :half], 4 * modes[..., half:]
        frames = self.frames(fields, count)
        shorter = replace(self, dt=self.dt / 2).frames(fields, count)
        finer = self.frames(fine.backward(lifted), count)[:, :, ::2, ::2]
        return SelfConvergence(float(distance(frames, shorter).max()), float(distance(frames, finer).max()))


class Scheme:
    """Multipliers and room of one batch. Modes are ``(n, columns, side)``: kx, cut off, and ky.

    The last axis is the one along which torch transforms fastest.

    Real multipliers are stored twice in a row: they meet modes viewed as pairs of reals, a third of the work.
    """

    def __init__(self, equation: NavierStokes, count: int, side: int):
        self.side = side
        self.columns = (side - 1) // 3 + 1  # k = 0, 1, ... < side / 3
        ky = np.fft.fftfreq(side, 1 / side)
        kx = np.arange(self.columns)[:, None]
        carried = (3 * np.abs(ky) < side) & (kx >= 0)
        square = (2 * np.pi) ** 2 * (kx**2 + ky**2)
        inverse = np.where(square > 0, carried / np.where(square > 0, square, 1.0), 0.0)
        # (u, v) = (dy psi, -dx psi), psi = w / |k|^2
        self.velocity = 2j * np.pi * np.stack([ky * inverse, -kx * inverse])
        dt = equation.interval / equation.steps  # `equation.dt`, but for its rounding
        implicit = 0.5 * dt * equation.nu * square
        weight = carried * dt / (1 + implicit)
        self.carried = np.repeat(carried, 2, axis=-1)
        self.keep = np.repeat(carried * (1 - implicit) / (1 + implicit), 2, axis=-1)
        # of u v and v^2 - u^2: -(dxx - dyy) and -dxy, times 3 dt / 2 over (1 + dt nu |k|^2 / 2)
        products = 1.5 * weight * (2 * np.pi) ** 2 * np.stack([kx**2 - ky**2, kx * ky])
        self.products = np.repeat(products, 2, axis=-1)
        phase = 2 * np.pi * (np.arange(side)[:, None] + np.arange(side)) / side
        force = self.forward(equation.forcing * (np.sin(phase) + np.cos(phase)))
        self.force = (weight * force).view(float)
        self.physical = np.empty((count, 2, side, side))
        self.before: Any = None  # minus a third of the advection of the step before

    def forward(self, field: np.ndarray) -> np.ndarray:
        """Return the carried modes of fields ``(..., side, side)``."""
        modes = self._transformed(field)
        modes.view(float)[...] *= self.carried
        return modes

    def _transformed(self, field: np.ndarray) -> np.ndarray:
        along_x = fft.rfft(torch.from_numpy(field))
        return fft.fft(along_x[..., : self.columns].transpose(-1, -2)).numpy()

    def backward(self, modes: np.ndarray) -> np.ndarray:
        """Return the fields of modes."""
        return fft.irfft(fft.ifft(torch.from_numpy(modes)).transpose(-1, -2), n=self.side).numpy()

    def advance(self, modes: np.ndarray, steps: int) -> None:
        """Take steps in place. The first ever has no advection of the step before: it is Euler's."""
        pairs = modes.view(float)
        for _ in range(steps):
            now = self.advection(modes)
            pairs *= self.keep
            pairs += self.force
            pairs += now
            third = now * (-1 / 3)
            pairs += third if self.before is None else self.before
            self.before = third

    def advection(self, modes: np.ndarray) -> np.ndarray:
        """Return 3/2 of the advection term over (1 + dt nu |k|^2 / 2), times dt, as pairs of reals."""
        fields = self.backward(modes[:, None] * self.velocity)
        u, v = fields[:, 0], fields[:, 1]
        np.multiply(u, v, out=self.physical[:, 0])
        difference = np.subtract(v, u, out=self.physical[:, 1])
        u += v
        difference *= u
        terms = self._transformed(self.physical).view(float)
        terms *= self.products
        terms[:, 0] += terms[:, 1]
        return terms[:, 0]
