"""S5: one diagonal system with many inputs and outputs, taken by a scan.

    x' = lambda x + B u,   y = Re(C x) + D u,   a step Delta for each state

Source: Smith, Warrington & Linderman (ICLR 2023, arXiv 2208.04933); only one of each pair of states is kept.
Length L, B sequences: 16 B L P H flops forward, memory of the outputs and of the states before each block of
some thousand steps. With steps of varying length all states are held.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.lowrank.views import MatrixView
from neuralsolve.models.state_space import (
    StateSpaceLayer,
    check_count,
    check_rate,
    check_tensor,
    joined,
    made_start,
    pairs,
    working,
)
from neuralsolve.models.steppers import DiagonalStepper
from neuralsolve.ssm.convolve import convolve_states
from neuralsolve.ssm.discretise import check_method, discretise
from neuralsolve.ssm.mapped_scan import mapped_scan
from neuralsolve.ssm.scan import diagonal_scan
from neuralsolve.ssm.starts import Start


class _System(NamedTuple):
    """A step of the system: a (P,), B (P, H) with the gain, C (directions, H, P) with the weights."""

    factors: Tensor
    exponents: Tensor
    B: Tensor
    C: Tensor


class S5(StateSpaceLayer):
    """S5 on sequences (batch, length, channels), the same out.

    Parameters
    ----------
    channels : H
    state : real states n, those of all blocks
    blocks : copies of the start along the diagonal, dividing `state`
    init : name of a start, or a `Start` of state / blocks states. "ptd" ships for 8, 16, 32, 64 and 128 of
        them; for others it is computed, once a process, in minutes ("legs": no time)
    discretisation : {"zoh", "bilinear"}
    bidirectional : a second scan from the end, with a C of its own
    step_range : Delta is drawn log-uniformly from it, one for each state

    Raises
    ------
    OptionError
        For options that do not exist or do not fit.
    ShapeError
        At a call, for shapes that do not fit.

    Examples
    --------
    >>> layer = S5(3, state=8, init="legs")
    >>> u = torch.ones(2, 5, 3)
    >>> layer(u).shape
    torch.Size([2, 5, 3])
    >>> y, state = layer.step(u[:, 0], layer.initial_state(2))
    >>> torch.allclose(y, layer(u)[:, 0], atol=1e-5)
    True
    """

    slow = ("log_decay", "frequency", "log_step", "B")
    matrix_views: ClassVar = {
        "B": MatrixView(rows=(0,), columns=(1,), pairs=True),
        "C": MatrixView(rows=(1,), columns=(2,), pairs=True),
    }

    def __init__(
        self,
        channels: int,
        state: int = 64,
        blocks: int = 1,
        init: str | Start = "ptd",
        discretisation: str = "zoh",
        bidirectional: bool = False,
        step_range: Sequence[float] = (1e-3, 1e-1),
    ):
        super().__init__(channels, step_range, bidirectional)
        check_method(discretisation)
        check_count("state", state)
        check_count("blocks", blocks)
        if state % blocks:
            msg = f"got state = {state} and blocks = {blocks}; blocks >= 1 that divide state are needed"
            raise OptionError(msg)
        self.discretisation, self.state = discretisation, state
        made = made_start(init, state // blocks)
        eigenvalues = made.eigenvalues.repeat(blocks)
        self.log_decay = nn.Parameter(torch.log(-eigenvalues.real).to(self.D.dtype))
        self.frequency = nn.Parameter(eigenvalues.imag.to(self.D.dtype))
        self.log_step = self._drawn_steps(len(eigenvalues))
        self.B = pairs(_drawn_inputs(made, blocks, channels))
        directions = 2 if bidirectional else 1
        drawn = torch.randn(directions, channels, blocks, state // blocks, dtype=torch.float64)
        self.C = pairs((drawn.to(torch.complex128) @ made.V).flatten(2) / math.sqrt(state))
        self.weights: Tensor
        self.register_buffer("weights", made.weights.repeat(blocks).to(self.D.dtype))

    @property
    def eigenvalues(self) -> Tensor:
        """Lambda (P,) complex128, one of each pair."""
        return torch.complex(-torch.exp(self.log_decay.double()), self.frequency.double())

    def initial_state(self, batch: int) -> Tensor:
        """Return zeros (batch, P) complex128."""
        check_count("batch", batch, least=0)
        return torch.zeros(batch, len(self.weights), dtype=torch.complex128, device=self.D.device)

    def forward(
        self,
        u: Tensor,
        state: Tensor | None = None,
        return_state: bool = False,
        mode: str = "auto",
        rate: float = 1.0,
        steps: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Any:
        """Return y, and the last state if `return_state`.

        Parameters
        ----------
        u : (batch, length, channels)
        state : (batch, P) complex, optional
            Before the first sample, as `initial_state` gives it.
        mode : {"auto", "scan", "convolution"}
            "auto" is "scan"; "convolution" does each state by FFT, and holds all of them.
        rate : samples per unit of time, relative to those in training: Delta is divided by it
        steps : (batch, length), optional
            Factors > 0 of Delta: the time from the sample before to this one.
        mask : (batch, length) bool, optional
            False where a sample is missing: it gives no input, and time goes on.
        """
        self._check(u, state, (len(self.weights),), mode)
        self._check_return(return_state)
        check_rate(rate)
        check_steps(u, steps, mask, mode)
        if mask is not None:
            u = torch.where(mask[..., None], u, 0)
        with torch.autocast(u.device.type, enabled=False):
            y, last = self._mapped(working(u), state, mode, rate, steps)
        return (y.to(u.dtype), last) if return_state else y.to(u.dtype)

    def step(self, u: Tensor, state: Tensor | None = None, rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return y (batch, channels) for u (batch, channels), and the next state (batch, P).

        A sample that came after c times Delta has rate = 1 / c; a missing one is a sample of zeros.
        """
        state = self._state_before(u, state, (len(self.weights),))
        check_rate(rate)
        factors, inputs, outputs = self._frozen(self._maps, rate)
        given = u.double()
        v = torch.view_as_complex((given @ inputs).unflatten(1, (-1, 2)))
        state = torch.addcmul(v, factors, state)
        y = torch.view_as_real(state).flatten(1) @ outputs
        return torch.addcmul(y, self.D.double(), given).to(u.dtype), state

    def stepper(self, batch: int | None = None, rate: float = 1.0) -> DiagonalStepper:
        """Return a NumPy object that does `step` with the parameters as they are now: some microseconds."""
        if self.bidirectional:
            msg = "a bidirectional layer needs the whole sequence; make it with bidirectional=False to step"
            raise OptionError(msg)
        check_rate(rate)
        with torch.no_grad():
            system = self._system(rate)
        arrays = [t.cpu().numpy() for t in (system.factors, system.B, system.C[0], self.D.detach().double())]
        return DiagonalStepper(*arrays, batch=batch)

    def _system(self, rate: float) -> _System:
        step = torch.exp(self.log_step.double()) / rate
        factors = discretise(self.eigenvalues, step, self.discretisation)
        C = joined(self.C) * self.weights
        return _System(factors.factors, factors.exponents, factors.gain[:, None] * joined(self.B), C)

    def _maps(self, rate: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return a, and B (H, 2 P) and the real part of C (2 P, H) as maps of pairs of real numbers."""
        system = self._system(rate)
        inputs = torch.view_as_real(system.B).permute(1, 0, 2).flatten(1)
        outputs = torch.view_as_real(system.C[0].conj().resolve_conj()).flatten(1).T
        return system.factors, inputs, outputs.contiguous()

    def _mapped(
        self, u: Tensor, state: Tensor | None, mode: str, rate: float, steps: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        D = self.D.to(u.dtype)
        if u.shape[1] == 0 or u.shape[0] == 0:
            return u * D, self.initial_state(len(u)) if state is None else state
        if steps is not None:
            return self._unequal(u, state, rate, steps)
        system, kind = self._system(rate), torch.complex64 if u.dtype == torch.float32 else torch.complex128
        if mode == "convolution":
            v = u.to(kind) @ system.B.to(kind).T
            states = [convolve_states(v, system.exponents, state)]
            if self.bidirectional:
                states.append(convolve_states(v.flip(1), system.exponents).flip(1))
            y = sum((x @ C.to(kind).T).real for x, C in zip(states, system.C, strict=True))
            return y + D * u, states[0][:, -1].to(torch.complex128)
        y, last = mapped_scan(system.factors, system.B, system.C[0], u, state, D)
        if self.bidirectional:
            y = y + mapped_scan(system.factors, system.B, system.C[1], u, reverse=True)[0]
        return y, last

    def _unequal(self, u: Tensor, state: Tensor | None, rate: float, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs and last state where each sample has a step of its own."""
        kind = torch.complex64 if u.dtype == torch.float32 else torch.complex128
        factors = steps.double()[..., None] * (torch.exp(self.log_step.double()) / rate)
        step = discretise(self.eigenvalues, factors, self.discretisation)  # (batch, length, P)
        v = (step.gain * (u.to(kind) @ joined(self.B).to(kind).T)).to(kind)
        C = (joined(self.C) * self.weights).to(kind)
        x, last = diagonal_scan(step.factors, v, state)
        y = (x @ C[0].T).real
        if self.bidirectional:
            # from the end, the time from this sample to the next one, which is none for the last sample
            later = torch.cat([step.factors[:, 1:], torch.ones_like(step.factors[:, :1])], 1)
            y = y + (diagonal_scan(later, v, reverse=True)[0] @ C[1].T).real
        return y + self.D.to(u.dtype) * u, last

    def _check_return(self, return_state: bool) -> None:
        if return_state and self.bidirectional:
            msg = "a bidirectional layer has no last state; make it with bidirectional=False"
            raise OptionError(msg)


def check_steps(u: Tensor, steps: Tensor | None, mask: Tensor | None, mode: str) -> None:
    """Raise where steps or a mask do not fit a sequence, or a step is not positive."""
    for name, given in (("steps", steps), ("mask", mask)):
        if given is not None:
            check_tensor(given, name)
        if given is not None and given.shape != u.shape[:2]:
            msg = f"got {name} of shape {tuple(given.shape)}, need (batch, length) = {tuple(u.shape[:2])}"
            raise ShapeError(msg)
    if mask is not None and mask.dtype != torch.bool:
        msg = f"got a mask of {mask.dtype}, need bool, True where there is a sample; call mask.bool()"
        raise OptionError(msg)
    if steps is None:
        return
    if mode == "convolution":
        msg = 'steps of varying length are no convolution; call with mode="scan" or "auto"'
        raise OptionError(msg)
    if not bool(((steps > 0) & (steps < math.inf)).all()):
        msg = "steps hold factors that are not positive and finite; each must be > 0, 1 for a step of Delta"
        raise OptionError(msg)


def _drawn_inputs(made: Start, blocks: int, channels: int) -> Tensor:
    """Return B = V^-1 N, N (n, H) normal of variance 1 / H for each block, (P, H): one of each pair."""
    n, N = made.V.shape
    whole = torch.cat([made.V, made.V[:, made.weights == 2].conj()], 1)
    drawn = torch.randn(blocks, n, channels, dtype=torch.float64) / math.sqrt(channels)
    return torch.linalg.solve(whole, drawn.to(whole.dtype))[:, :N].flatten(0, 1)
