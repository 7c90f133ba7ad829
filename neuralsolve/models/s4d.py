"""S4D: one diagonal system with one input and one output for each channel, taken by a convolution.

    x' = lambda x + B u,   y = Re(C x) + D u,     K_l = Re sum_n C_n gain_n B_n exp(l z_n),   y = K * u + D u

Source: Gu, Gupta, Goel & Re (NeurIPS 2022, arXiv 2206.11893). The kernel costs H N L products and 2 H N
sqrt(L) exponentials, its memory is H N sqrt(L); the convolution O(B H L log L). A state to start from adds
B H N L products, and so does the state to end with.
"""

from __future__ import annotations

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
from neuralsolve.models.steppers import ChannelStepper
from neuralsolve.ssm.convolve import convolve
from neuralsolve.ssm.discretise import check_method, discretise
from neuralsolve.ssm.scan import diagonal_scan
from neuralsolve.ssm.starts import Start
from neuralsolve.ssm.vandermonde import vandermonde, vandermonde_adjoint

STATES = 1 << 21  # states that the mode "scan" forms at once


class _System(NamedTuple):
    """A step of all systems: (H, N) complex128; C (directions, H, N) with the weights."""

    factors: Tensor
    exponents: Tensor
    B: Tensor
    C: Tensor


class S4D(StateSpaceLayer):
    """S4D on sequences (batch, length, channels), the same out.

    Parameters
    ----------
    channels : H
    state : real states n of each channel
    init : name of a start, or a `Start` of `state` states, the same for all channels. "ptd" ships for 8, 16,
        32, 64 and 128 states; for others it is computed, once a process, in minutes ("legs": no time)
    discretisation : {"zoh", "bilinear"}
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
    >>> layer = S4D(3, state=8, init="legs")
    >>> u = torch.ones(2, 5, 3)
    >>> layer(u).shape
    torch.Size([2, 5, 3])
    >>> y, state = layer.step(u[:, 0], layer.initial_state(2))
    >>> torch.allclose(y, layer(u)[:, 0], atol=1e-5)
    True
    """

    slow = ("log_decay", "frequency", "log_step", "B")
    matrix_views: ClassVar = {  # channels by states; eigenvalues are no matrix
        "log_decay": None,
        "frequency": None,
        "B": MatrixView(rows=(0,), columns=(1,), pairs=True),
        "C": MatrixView(rows=(1,), columns=(2,), pairs=True),
    }

    def __init__(
        self,
        channels: int,
        state: int = 64,
        init: str | Start = "ptd",
        discretisation: str = "zoh",
        bidirectional: bool = False,
        step_range: Sequence[float] = (1e-3, 1e-1),
    ):
        super().__init__(channels, step_range, bidirectional)
        check_count("state", state)
        check_method(discretisation)
        self.discretisation, self.state = discretisation, state
        made = made_start(init, state)
        eigenvalues = made.eigenvalues.expand(channels, -1)
        self.log_decay = nn.Parameter(torch.log(-eigenvalues.real).to(self.D.dtype))
        self.frequency = nn.Parameter(eigenvalues.imag.to(self.D.dtype).clone())
        self.log_step = self._drawn_steps(channels)
        self.B = pairs(made.B.expand(channels, -1))
        directions = 2 if bidirectional else 1
        drawn = torch.randn(directions, channels, state, dtype=torch.float64)
        self.C = pairs(drawn.to(torch.complex128) @ made.V)
        self.weights: Tensor
        self.register_buffer("weights", made.weights.to(self.D.dtype))

    @property
    def eigenvalues(self) -> Tensor:
        """Lambda (channels, N) complex128, one of each pair."""
        return torch.complex(-torch.exp(self.log_decay.double()), self.frequency.double())

    def initial_state(self, batch: int) -> Tensor:
        """Return zeros (batch, channels, N) complex128."""
        check_count("batch", batch, least=0)
        return torch.zeros(batch, *self.log_decay.shape, dtype=torch.complex128, device=self.D.device)

    def kernel(self, length: int, rate: float = 1.0) -> Tensor:
        """Return the kernels (directions, channels, length) float64, lag 0 first.

        Examples
        --------
        >>> S4D(3, state=8, init="legs").kernel(5).shape
        torch.Size([1, 3, 5])
        """
        check_length(length)
        check_rate(rate)
        return self._kernel(self._system(rate), length, torch.float64)

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
        state : (batch, channels, N) complex, optional
            Before the first sample, as `initial_state` gives it.
        mode : {"auto", "convolution", "scan"}
            "auto" is "convolution"; "scan" forms the states, and holds them all while gradients are recorded.
        rate : samples per unit of time, relative to those in training: Delta is divided by it
        """
        self._check(u, state, tuple(self.log_decay.shape), mode)
        check_rate(rate)
        if return_state and self.bidirectional:
            msg = "a bidirectional layer has no last state; make it with bidirectional=False"
            raise OptionError(msg)
        with torch.autocast(u.device.type, enabled=False):
            given = working(u)
            if not u.numel():
                y, last = self.D * given, self.initial_state(len(u)) if state is None else state
            else:
                act = self._scanned if mode == "scan" else self._convolved
                y, last = act(self._system(rate), given, state, return_state)
        return (y.to(u.dtype), last) if return_state else y.to(u.dtype)

    def step(self, u: Tensor, state: Tensor | None = None, rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return y (batch, channels) for u (batch, channels), and the next state (batch, channels, N)."""
        state = self._state_before(u, state, tuple(self.log_decay.shape))
        check_rate(rate)
        factors, inputs, outputs = self._frozen(self._maps, rate)
        given = u.double()
        state = torch.addcmul(inputs * given[..., None], factors, state)
        y = (torch.view_as_real(state).flatten(2) * outputs).sum(2)
        return torch.addcmul(y, self.D.double(), given).to(u.dtype), state

    def stepper(self, batch: int | None = None, rate: float = 1.0) -> ChannelStepper:
        """Return a NumPy object that does `step` with the parameters as they are now: some microseconds."""
        if self.bidirectional:
            msg = "a bidirectional layer needs the whole sequence; make it with bidirectional=False to step"
            raise OptionError(msg)
        check_rate(rate)
        with torch.no_grad():
            system = self._system(rate)
        arrays = [t.cpu().numpy() for t in (system.factors, system.B, system.C[0], self.D.detach().double())]
        return ChannelStepper(*arrays, batch=batch)

    def _system(self, rate: float) -> _System:
        step = torch.exp(self.log_step.double()) / rate
        made = discretise(self.eigenvalues, step[:, None], self.discretisation)
        return _System(
            made.factors, made.exponents, made.gain * joined(self.B), joined(self.C) * self.weights
        )

    def _maps(self, rate: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return a and B (H, N), and the real part of C (H, 2 N) as a map of pairs of real numbers."""
        system = self._system(rate)
        return system.factors, system.B, torch.view_as_real(system.C[0].conj().resolve_conj()).flatten(1)

    def _kernel(self, system: _System, length: int, dtype: torch.dtype) -> Tensor:
        w = (system.C * system.B).transpose(0, 1)
        return vandermonde(w, system.exponents, length, dtype).transpose(0, 1)

    def _convolved(
        self, system: _System, u: Tensor, state: Tensor | None, wanted: bool
    ) -> tuple[Tensor, Tensor]:
        length, z = u.shape[1], system.exponents
        first, *others = self._kernel(system, length, u.dtype)
        through = torch.nn.functional.pad(self.D.to(u.dtype)[:, None], (0, length - 1))  # D is at lag 0
        y, last = convolve(u, first + through, *others), self.initial_state(0)
        if state is not None:
            w = (system.C[0] * system.factors * state).transpose(0, 1)  # (H, batch, N)
            y = y + vandermonde(w, z, length, u.dtype).permute(1, 2, 0)
        if wanted:
            turned = u.flip(1).permute(2, 0, 1).contiguous()
            last = vandermonde_adjoint(turned, z).transpose(0, 1) * system.B
            if state is not None:
                last = last + torch.exp(length * z) * state
        return y, last

    def _scanned(
        self, system: _System, u: Tensor, state: Tensor | None, wanted: bool
    ) -> tuple[Tensor, Tensor]:
        y, last = self._by_blocks(system, system.C[0], u, state)
        if self.bidirectional:
            y = y + self._by_blocks(system, system.C[1], u.flip(1), None)[0].flip(1)
        return y + self.D.to(u.dtype) * u, last

    def _by_blocks(
        self, system: _System, C: Tensor, u: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return outputs and the last state of the recurrence, a block of samples after the other."""
        batch, length, _ = u.shape
        kind = torch.complex64 if u.dtype == torch.float32 else torch.complex128
        B, C, a = system.B.to(kind), C.to(kind), system.factors.flatten()
        state = self.initial_state(batch) if state is None else state
        size, found, last = max(1, STATES // (batch * C.numel())), [], state.flatten(1)
        for k in range(0, length, size):
            v = (u[:, k : k + size, :, None] * B).flatten(2)
            x, last = diagonal_scan(a, v, last)
            found.append((x.unflatten(2, C.shape) * C).sum(3).real)
        return torch.cat(found, 1), last.unflatten(1, C.shape)
