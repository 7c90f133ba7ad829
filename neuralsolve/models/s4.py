"""S4: the exact HiPPO-LegS system for each channel, normal plus rank one, by its generating function.

    A = V (Lambda - P P^*) V^*,   x' = A x + B u,   y = C x + D u,      bilinear transform, step Delta

With z on the L-th roots of unity and g = 2 (1 - z) / (1 + z), the kernel's generating function is

    sum_l K_l z^l = 2 Delta / (1 + z) (k(C', B) - k(C', P) k(P^*, B) / (1 + k(P^*, P))),
    k(a, b) = sum_n a_n b_n / (g - Delta lambda_n) over all n, pairs and single ones,   C' = C (1 - Ab^L),

P scaled by sqrt(Delta) in k; an inverse FFT gives K. Source: Gu, Goel & Re (ICLR 2022, arXiv 2111.00396),
app. C; there C' is the parameter, here it is C, so that a layer may be used at any length. Kernels are formed
in float64. Cost H N L for the sums and H n^3 log L for Ab^L. States are those of the real system, (H, 2 N)
real and imaginary parts, and the scan is a loop over samples: this layer is the reference for exact HiPPO.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.views import MatrixView
from neuralsolve.models.state_space import (
    StateSpaceLayer,
    check_count,
    check_length,
    check_rate,
    joined,
    made_start,
    pairs,
    working,
)
from neuralsolve.ssm.cauchy import cauchy
from neuralsolve.ssm.convolve import convolve


class _System(NamedTuple):
    """A step of the real systems: A (H, 2N, 2N), B (H, 2N) and C (directions, H, 2N), float64."""

    A: Tensor
    B: Tensor
    C: Tensor


class S4(StateSpaceLayer):
    """S4 on sequences (batch, length, channels), the same out.

    Parameters
    ----------
    channels : H
    state : real states n of each channel
    bidirectional : a second kernel for what comes later, with a C of its own
    step_range : Delta is drawn log-uniformly from it, one for each channel

    Raises
    ------
    OptionError
        For options that do not exist or do not fit.
    ShapeError
        At a call, for shapes that do not fit.

    Examples
    --------
    >>> layer = S4(3, state=8)
    >>> u = torch.ones(2, 5, 3)
    >>> layer(u).shape
    torch.Size([2, 5, 3])
    >>> y, state = layer.step(u[:, 0], layer.initial_state(2))
    >>> torch.allclose(y, layer(u)[:, 0], atol=1e-5)
    True
    """

    complex_state = False
    slow = ("log_decay", "frequency", "log_step", "P", "B")
    matrix_views: ClassVar = {  # channels by states; eigenvalues are no matrix
        "log_decay": None,
        "frequency": None,
        "P": None,
        "B": MatrixView(rows=(0,), columns=(1,), pairs=True),
        "C": MatrixView(rows=(1,), columns=(2,), pairs=True),
    }

    def __init__(
        self,
        channels: int,
        state: int = 64,
        bidirectional: bool = False,
        step_range: Sequence[float] = (1e-3, 1e-1),
    ):
        super().__init__(channels, step_range, bidirectional)
        check_count("state", state)
        self.state = state
        made = made_start("legs", state)  # its input vector is V^* B_H / 2, and P = B_H / sqrt(2)
        eigenvalues = made.eigenvalues.expand(channels, -1)
        self.log_decay = nn.Parameter(torch.log(-eigenvalues.real).to(self.D.dtype))
        self.frequency = nn.Parameter(eigenvalues.imag.to(self.D.dtype).clone())
        self.log_step = self._drawn_steps(channels)
        self.P = pairs(math.sqrt(2) * made.B.expand(channels, -1))
        self.B = pairs(2 * made.B.expand(channels, -1))
        drawn = torch.randn(2 if bidirectional else 1, channels, state, dtype=torch.float64)
        self.C = pairs(drawn.to(torch.complex128) @ made.V)
        self.weights: Tensor
        self.register_buffer("weights", made.weights.to(self.D.dtype))

    @property
    def eigenvalues(self) -> Tensor:
        """Lambda (channels, N) complex128 of the normal part, one of each pair."""
        return torch.complex(-torch.exp(self.log_decay.double()), self.frequency.double())

    def initial_state(self, batch: int) -> Tensor:
        """Return zeros (batch, channels, 2 N) float64."""
        check_count("batch", batch, least=0)
        H, N = self.log_decay.shape
        return torch.zeros(batch, H, 2 * N, dtype=torch.float64, device=self.D.device)

    def kernel(self, length: int, rate: float = 1.0) -> Tensor:
        """Return the kernels (directions, channels, length) float64, lag 0 first.

        Examples
        --------
        >>> S4(3, state=8).kernel(5).shape
        torch.Size([1, 3, 5])
        """
        check_length(length)
        step = torch.exp(self.log_step.double())[:, None] / rate
        system = self._system(rate)
        power = torch.linalg.matrix_power(system.A, length)
        cut = self._complex_rows(system.C - torch.einsum("dhi,hij->dhj", system.C, power))
        P, B = torch.sqrt(step) * joined(self.P), joined(self.B)
        rows = torch.cat([P.conj()[None], cut])  # those of P^* and of every C'
        half = self.weights.double() / 2
        v = torch.stack([half * row * column for row in rows for column in (P, B)], 1)
        angles = -2 * math.pi / length * torch.arange(length // 2 + 1, dtype=torch.float64, device=P.device)
        z = torch.polar(torch.ones_like(angles), angles)
        middle = length % 2 == 0  # the last z is -1 there, where g is infinite
        z = z[:-1] if middle else z
        k = cauchy(v, step * self.eigenvalues, 2 * (1 - z) / (1 + z))
        k = k.unflatten(1, (len(rows), 2)).transpose(0, 1)  # (rows, H, column, points)
        own, outputs = k[0], k[1:]
        found = outputs[:, :, 1] - outputs[:, :, 0] * (own[:, 1] / (1 + own[:, 0]))
        found = 2 * step / (1 + z) * found
        if middle:  # 2 / (1 + z) k(C', B) tends to C' B / 2, the rest vanishes
            limit = (half * cut * B).sum(2, keepdim=True).real * step
            found = torch.cat([found, limit.to(found.dtype)], 2)
        return torch.fft.irfft(found, length)

    def forward(
        self,
        u: Tensor,
        state: Tensor | None = None,
        return_state: bool = False,
        mode: str = "auto",
        rate: float = 1.0,
    ) -> Any:
        """Return y, and the last state if `return_state`.

        Parameters
        ----------
        u : (batch, length, channels)
        state : (batch, channels, 2 N) float64, optional
            Before the first sample, as `initial_state` gives it.
        mode : {"auto", "convolution", "scan"}
            "auto" is "convolution" without states, else "scan", the only one that has them.
        rate : samples per unit of time, relative to those in training: Delta is divided by it
        """
        self._check(u, state, (self.channels, 2 * self.log_decay.shape[1]), mode)
        check_rate(rate)
        asked = state is not None or return_state
        if asked and (self.bidirectional or mode == "convolution"):
            msg = 'a state needs a layer with bidirectional=False and mode="scan" or "auto"'
            raise OptionError(msg)
        with torch.autocast(u.device.type, enabled=False):
            given, last = working(u), self.initial_state(len(u)) if state is None else state.double()
            y = self.D.to(given.dtype) * given
            if u.numel() and (asked or mode == "scan"):
                more, last = self._scanned(given, last, rate)
                y = y + more
            elif u.numel():
                y = y + convolve(given, *self.kernel(u.shape[1], rate).to(given.dtype))
        return (y.to(u.dtype), last) if return_state else y.to(u.dtype)

    def step(self, u: Tensor, state: Tensor | None = None, rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return y (batch, channels) for u (batch, channels), and the next state (batch, channels, 2 N)."""
        before = self._state_before(u, state, (self.channels, 2 * self.log_decay.shape[1]))
        check_rate(rate)
        system = self._frozen(self._system, rate)
        after = torch.einsum("hij,bhj->bhi", system.A, before.double()) + system.B * u.double()[..., None]
        y = (system.C[0] * after).sum(2) + self.D.double() * u.double()
        return y.to(u.dtype), after

    def _system(self, rate: float) -> _System:
        """Return the dense step: (1 - Delta A / 2)^-1 (1 + Delta A / 2) and (1 - Delta A / 2)^-1 Delta B."""
        step = torch.exp(self.log_step.double())[:, None, None] / rate
        s, P, B = self.eigenvalues, joined(self.P), joined(self.B)
        re, im = torch.diag_embed(s.real), torch.diag_embed(s.imag)
        A = torch.cat([torch.cat([re, -im], 2), torch.cat([im, re], 2)], 1)
        column, weights = torch.cat([P.real, P.imag], 1), self.weights.double().repeat(2)
        A = step / 2 * (A - column[:, :, None] * (weights * column)[:, None])
        one = torch.eye(A.shape[1], dtype=A.dtype, device=A.device)
        inputs = step * torch.cat([B.real, B.imag], 1)[:, :, None]
        made = torch.linalg.solve(one - A, torch.cat([one + A, inputs], 2))
        C = joined(self.C)
        return _System(made[:, :, :-1], made[:, :, -1], weights * torch.cat([C.real, -C.imag], 2))

    def _complex_rows(self, rows: Tensor) -> Tensor:
        """Return real rows (..., 2 N) as complex C (..., N): the way back from those of a system."""
        re, im = rows.unflatten(-1, (2, -1)).unbind(-2)
        return torch.complex(re, -im) / self.weights.double()

    def _scanned(self, u: Tensor, state: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        system, found = self._system(rate), []
        y, state = self._looped(system, system.C[0], u, state)
        found.append(y)
        if self.bidirectional:
            found.append(self._looped(system, system.C[1], u.flip(1), self.initial_state(len(u)))[0].flip(1))
        return sum(found[1:], found[0]).to(u.dtype), state

    def _looped(self, system: _System, C: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        inputs, found = system.B * u.double()[..., None], []
        for k in range(u.shape[1]):
            state = torch.einsum("hij,bhj->bhi", system.A, state) + inputs[:, k]
            found.append((C * state).sum(2))
        return torch.stack(found, 1), state
