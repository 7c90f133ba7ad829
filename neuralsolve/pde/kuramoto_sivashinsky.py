"""The Kuramoto-Sivashinsky equation on a periodic line: waves that grow, steepen and become chaos.

    u_t + (u^2 / 2)_x + u_xx + nu u_xxxx = 0

Waves of k^2 < 1 / nu grow, those of k^2 = 1 / (2 nu) fastest, at the rate 1 / (4 nu). At nu = 1, the Lyapunov
time is about 10 and the length of that wave 2 pi sqrt 2 = 8.9. By x = sqrt(nu) x', t = nu t', u = u' /
sqrt(nu) every nu is nu = 1: the benchmark nu = 0.1, length 64, a frame each 0.1 of Buitrago Ruiz et al. is
nu = 1, length 64 pi, a frame each 1.

Data: u at `burn_in` in, a trajectory of frames at equal times after it out. The start, `burn_in` time before,
is a sum of long waves, as in Brandstetter et al.: sum_j a_j sin(2 pi m_j x / length + p_j), a_j uniform in
+- amplitude, m_j in 1 .. longest, p_j any. Nodes are i / grid, in units of the length. A `stride` keeps every
so many: with 32 of 256 nodes of the length 64 pi the wave that grows fastest is seen as another, longer one.
Scheme: `neuralsolve.pde.exponential`, pseudo-spectral, of fourth order in time.

Sources: Y. Kuramoto, Prog. Theor. Phys. Suppl. 64 (1978); G. Sivashinsky, Acta Astronautica 4 (1977); A.-K.
Kassam, L. N. Trefethen, SIAM J. Sci. Comput. 26 (2005), sec. 5; J. Brandstetter, M. Welling, D. Worrall, ICML
2022 (arXiv 2202.07643); R. Buitrago Ruiz, T. Marwah, A. Gu, A. Risteski, ICLR 2025 (arXiv 2409.02313).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np

from neuralsolve.data.samples import Layout, Samples
from neuralsolve.errors import OptionError
from neuralsolve.pde.equation import described, distance, stream
from neuralsolve.pde.exponential import trajectory

BATCH = 16  # samples stepped together
RESOLVED = 1.5  # times the shortest wave that grows: how short the waves that are kept must be


@dataclass(frozen=True)
class KuramotoSivashinsky:
    """The Kuramoto-Sivashinsky equation from random long waves; see the head of this file.

    Parameters
    ----------
    grid : nodes that are solved on, even
    stride : every so many nodes are kept; 8 of 256 leave 32
    nu : of the fourth derivative
    length : of the line
    burn_in : time before the first frame, which is the input; 0: the start itself
    final : time from there to the last frame
    frames : channels of the output, at final / frames, 2 final / frames, ..., final after the input
    dt : longest time step; the next shorter one that divides the time between frames is taken
    amplitude, waves, longest : of the start

    Raises
    ------
    OptionError

    Examples
    --------
    >>> waves = KuramotoSivashinsky(burn_in=20.0, final=4.0, frames=4, stride=8)
    >>> data = waves.samples(range(3), seed=7)
    >>> data.inputs.shape, data.outputs.shape, bool(data.residuals.max() < 1e-5)
    ((3, 1, 32), (3, 4, 32), True)
    """

    name: ClassVar[str] = "kuramoto-sivashinsky"

    grid: int = 256
    stride: int = 1
    nu: float = 1.0
    length: float = 64 * math.pi
    burn_in: float = 100.0
    final: float = 25.0
    frames: int = 25
    dt: float = 0.1
    amplitude: float = 0.16
    waves: int = 20
    longest: int = 8

    def __post_init__(self) -> None:
        kept = self.grid / max(self.stride, 1)
        if not (self.stride >= 1 and self.grid % 2 == 0 and kept >= 8 and kept % 2 == 0):
            msg = (
                f"grid = {self.grid}, stride = {self.stride}; an even grid is needed, and a stride that "
                "divides it and leaves an even number of nodes, 8 at least"
            )
            raise OptionError(msg)
        positive = {each: getattr(self, each) for each in ("nu", "length", "final", "dt", "amplitude")}
        counts = {each: getattr(self, each) for each in ("frames", "waves", "longest")}
        good = all(0 < value < math.inf for value in positive.values()) and min(counts.values()) >= 1
        if not (good and 0 <= self.burn_in < math.inf):
            told = positive | counts | {"burn_in": self.burn_in}
            given = ", ".join(f"{each} = {value}" for each, value in told.items())
            msg = f"{given}; burn_in may be 0, all others must be positive, and finite"
            raise OptionError(msg)
        if not self._resolved(self.grid):
            least = 2 * math.ceil(1.5 * RESOLVED * self.length / (2 * math.pi * math.sqrt(self.nu)) + 1)
            msg = (
                f"grid = {self.grid} does not resolve the waves of nu = {self.nu} and length = "
                f"{self.length:g}; grid >= {least} is needed"
            )
            raise OptionError(msg)

    def layout(self) -> Layout:
        axis = np.arange(0, self.grid, self.stride) / self.grid
        names = tuple(f"u(t={self.final * k / self.frames:.6g})" for k in range(1, self.frames + 1))
        units = {"x": "1"} | dict.fromkeys(("u(t=0)", *names), "1")
        return Layout((axis,), ("u(t=0)",), names, units, ("periodic",), described(self))

    def start(self, number: int, seed: int) -> np.ndarray:
        """Return u `burn_in` before the input ``(grid,)``, of one sample."""
        generator = stream(seed, number)
        a = generator.uniform(-self.amplitude, self.amplitude, self.waves)
        m = generator.integers(1, self.longest + 1, self.waves)
        p = generator.uniform(0, 2 * np.pi, self.waves)
        x = np.arange(self.grid) / self.grid
        return a @ np.sin(2 * np.pi * m[:, None] * x + p[:, None])

    def samples(self, numbers: Sequence[int], seed: int) -> Samples:
        side = self.grid // self.stride
        inputs = np.empty((len(numbers), 1, side), np.float32)
        outputs = np.empty((len(numbers), self.frames, side), np.float32)
        residuals = np.empty(len(numbers))
        for first in range(0, len(numbers), BATCH):
            u = np.stack([self.start(number, seed) for number in numbers[first : first + BATCH]])
            if self.burn_in:
                u = next(trajectory(u, self.growth, self.length, self.dt, self.burn_in))
            part, found = slice(first, first + BATCH), self.solve(u).astype(np.float32)
            inputs[part, 0], outputs[part] = u[:, :: self.stride], found[:, :, :: self.stride]
            # on all nodes: those that a stride leaves do not resolve the solution
            residuals[part] = self.residual(u[:, None].astype(np.float32), found)
        return Samples(inputs, outputs, self.layout(), residuals)

    def growth(self, k: np.ndarray) -> np.ndarray:
        """Return the rates at which waves of the wave numbers k grow while they are small."""
        return k**2 - self.nu * k**4

    def solve(self, u: np.ndarray) -> np.ndarray:
        """Return the frames ``(n, frames, side)`` that follow u ``(n, side)``, on the nodes of u.

        Raises
        ------
        ShapeError
            u is no batch of fields with an even number of nodes.
        NonFiniteError
            The solution blew up: dt is too large, or the nodes are too few.

        Examples
        --------
        A small wave grows at the rate of `growth`.

        >>> waves = KuramotoSivashinsky(final=2.0, frames=1)
        >>> k = 2 * np.pi * 20 / waves.length
        >>> u = 1e-9 * np.sin(2 * np.pi * 20 * np.arange(256) / 256)[None]
        >>> bool(np.allclose(waves.solve(u)[:, 0], np.exp(2 * waves.growth(k)) * u, rtol=1e-6, atol=1e-15))
        True
        """
        following = trajectory(u, self.growth, self.length, self.dt, self.final / self.frames)
        return np.stack(list(islice(following, self.frames)), 1)

    def residual(self, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return how far each frame is from that which the scheme makes of the one before, relative in L2.

        Of the frame before, since chaos multiplies what is missed. It runs on the nodes that are given; NaN
        where they do not resolve the solution, as after a stride: nothing can be said then.
        """
        if not self._resolved(outputs.shape[-1]):
            return np.full(len(outputs), np.nan)
        before = np.concatenate([inputs[:, -1:], outputs[:, :-1]], 1).reshape(-1, outputs.shape[-1])
        following = trajectory(before, self.growth, self.length, self.dt, self.final / self.frames)
        return distance(outputs, next(following).reshape(outputs.shape))

    def _resolved(self, side: int) -> bool:
        """Return whether the modes that are kept reach beyond those that grow."""
        shortest = self.length / (2 * math.pi * math.sqrt(self.nu))  # mode that neither grows nor decays
        return (side - 1) // 3 >= RESOLVED * shortest
