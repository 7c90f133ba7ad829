"""What the state-space layers share: their checks, starts, parameters, precision and learning rates.

A layer keeps one of each conjugate pair of eigenvalues, with the weight 2, and the unpaired real ones, with
the weight 1: y = Re sum_n weight_n C_n x_n + D u. Eigenvalues are kept as log(-Re) and Im, so that they stay
in the left half-plane; complex parameters are pairs of real numbers. The mathematics of a step, and states,
are in float64 whatever the precision of the sequences: a step is repeated thousands of times.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuralsolve.errors import OptionError, ShapeError, check_known
from neuralsolve.ssm.starts import Start, start

MODES = ("auto", "convolution", "scan")


class StateSpaceLayer(nn.Module, ABC):
    """A linear map of sequences (batch, length, channels) that can also be taken step by step.

    Parameters
    ----------
    channels : H
    step_range : (smallest, largest)
        Delta is drawn log-uniformly between them.
    bidirectional : whether outputs depend on what comes later too
    """

    slow: tuple[str, ...] = ()  # names of parameters that want a small learning rate and no weight decay
    complex_state = True

    def __init__(self, channels: int, step_range: Sequence[float], bidirectional: bool):
        super().__init__()
        low, high = (float(value) for value in step_range)
        check_count("channels", channels)
        if not 0 < low <= high < math.inf:
            msg = f"got step_range = {(low, high)}, need 0 < smallest <= largest, for example (1e-3, 1e-1)"
            raise OptionError(msg)
        self.channels, self.step_range, self.bidirectional = channels, (low, high), bidirectional
        self.D = nn.Parameter(torch.randn(channels))
        self._remembered: tuple[float, list[Tensor], Any] | None = None

    @abstractmethod
    def forward(self, u: Tensor, state: Tensor | None = None, return_state: bool = False) -> Any:
        """Return y, the shape and dtype of u (batch, length, channels), and the last state if asked for."""

    @abstractmethod
    def step(self, u: Tensor, state: Tensor | None = None, rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return the output (batch, channels) for one sample u (batch, channels), and the next state.

        Without a state it is the first sample of a sequence.
        """

    @abstractmethod
    def initial_state(self, batch: int) -> Tensor:
        """Return the state of rest."""

    def slow_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that want a small learning rate and no weight decay: lambda, B and Delta."""
        adapted = getattr(self, "parametrizations", {})  # those of an adapter come with its numbers
        return [
            p
            for name in self.slow
            for p in (adapted[name].parameters() if name in adapted else [getattr(self, name)])
        ]

    def _drawn_steps(self, count: int) -> nn.Parameter:
        low, high = (math.log(value) for value in self.step_range)
        return nn.Parameter(low + (high - low) * torch.rand(count))

    def _frozen(self, make: Any, rate: float) -> Any:
        """Return make(rate), remembered while no parameter changes; with gradients it is always made anew.

        Values are compared: a write through `.data` leaves no other trace. D is no part of what is made.
        """
        if torch.is_grad_enabled():
            return make(rate)
        names = [*self._parameters, *getattr(self, "parametrizations", {})]
        now = [p for name in names if name != "D" and (p := getattr(self, name)) is not None]
        if self._remembered is not None:
            known, values, made = self._remembered
            if known == rate and all(map(_same, now, values)):
                return made
        made = make(rate)
        self._remembered = rate, [p.detach().clone() for p in now], made
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_remembered": None}  # copies of a layer form it for themselves

    def _check(self, u: Tensor, state: Tensor | None, state_shape: tuple[int, ...], mode: str) -> None:
        check_known("mode =", mode, MODES)
        check_tensor(u)
        if u.ndim != 3 or u.shape[2] != self.channels:
            msg = (
                f"got a sequence {tuple(u.shape)}, need (batch, length, channels) with {self.channels} "
                "channels; add an axis with u[None], or transpose"
            )
            raise ShapeError(msg)
        self._check_kind(u)
        self._check_state(state, (u.shape[0], *state_shape))

    def _state_before(self, u: Tensor, state: Tensor | None, state_shape: tuple[int, ...]) -> Tensor:
        """Return the state before a sample, that of rest where there is none, or raise what does not fit."""
        if self.bidirectional:
            msg = "a bidirectional layer needs the whole sequence; make it with bidirectional=False to step"
            raise OptionError(msg)
        check_tensor(u)
        if u.ndim != 2 or u.shape[1] != self.channels:
            msg = f"got a sample {tuple(u.shape)}, need (batch, channels) with {self.channels} channels"
            raise ShapeError(msg)
        self._check_kind(u)
        self._check_state(state, (u.shape[0], *state_shape))
        return self.initial_state(len(u)) if state is None else state

    def _check_kind(self, u: Tensor) -> None:
        if not u.is_floating_point():
            msg = f"got numbers of {u.dtype}, need real floating-point numbers; call u.float()"
            raise OptionError(msg)

    def _check_state(self, state: Tensor | None, shape: tuple[int, ...]) -> None:
        if state is None:
            return
        if self.bidirectional:
            msg = "a bidirectional layer has no state to start from; make it with bidirectional=False"
            raise OptionError(msg)
        if not isinstance(state, Tensor) or state.is_complex() is not self.complex_state:
            kind = "complex" if self.complex_state else "real"
            given = state.dtype if isinstance(state, Tensor) else type(state).__name__
            msg = f"got a state of {given}, need a {kind} tensor; initial_state(batch) gives one"
            raise OptionError(msg)
        if tuple(state.shape) != shape:
            msg = f"got a state {tuple(state.shape)}, need {shape}; initial_state(batch) gives one"
            raise ShapeError(msg)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)


def made_start(init: str | Start, n: int) -> Start:
    """Return the start of a name, or the one given, all its eigenvalues in the left half-plane.

    Raises
    ------
    OptionError
    """
    made = init if isinstance(init, Start) else start(init, n)
    if not bool((made.eigenvalues.real < 0).all()):
        msg = "the start has eigenvalues with Re >= 0; a layer keeps log(-Re), so that all must have Re < 0"
        raise OptionError(msg)
    if made.P is not None:
        msg = "the start has a rank-one part, that a diagonal layer leaves out; S4 keeps it, or use 'legs'"
        raise OptionError(msg)
    if made.V.shape[0] != n:
        msg = f"the start is one of {made.V.shape[0]} states, the layer has {n}"
        raise OptionError(msg)
    return made


def pairs(x: Tensor) -> nn.Parameter:
    """Return complex numbers (...) as a parameter (..., 2) of the default precision."""
    return nn.Parameter(torch.view_as_real(x.resolve_conj()).to(torch.get_default_dtype()).contiguous())


def joined(x: Tensor) -> Tensor:
    """Return pairs of real numbers (..., 2) as complex128 (...)."""
    return torch.view_as_complex(x.double().contiguous())


def working(u: Tensor) -> Tensor:
    """Return u as contiguous float32, or float64 where it is."""
    return u.to(torch.promote_types(u.dtype, torch.float32)).contiguous()


def check_tensor(u: object, name: str = "sequence") -> None:
    """Raise OptionError where something is no tensor."""
    if not isinstance(u, Tensor):
        msg = f"got a {type(u).__name__} for {name}, need a tensor: torch.as_tensor({name})"
        raise OptionError(msg)


def check_count(name: str, count: object, least: int = 1) -> None:
    """Raise OptionError unless a number of things is a whole one, and not too small."""
    if not isinstance(count, int) or isinstance(count, bool) or count < least:
        msg = f"got {name} = {count!r}, need a whole number, at least {least}"
        raise OptionError(msg)


def check_rate(rate: float) -> None:
    """Raise OptionError unless the factor of the sampling rate is positive and finite."""
    if not isinstance(rate, int | float) or not 0 < rate < math.inf:
        msg = f"got rate = {rate!r}, need a factor > 0: 2 where there are twice as many samples a second"
        raise OptionError(msg)


def check_length(length: int) -> None:
    """Raise ShapeError where a kernel has no entry."""
    if length < 1:
        msg = f"got a kernel of length {length}, need at least 1"
        raise ShapeError(msg)


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float = 0.01, slow_lr: float = 1e-3
) -> list[dict[str, Any]]:
    """Return two groups for an optimiser: all parameters, and those of state-space layers that want care.

    Eigenvalues, B and step sizes take the rate min(lr, slow_lr) without weight decay: decay would move
    log(-Re lambda) and log(Delta) towards 0, that is, -Re lambda and Delta towards 1.

    Parameters
    ----------
    model : holds layers of this package anywhere inside
    lr, weight_decay : of all other parameters
    slow_lr : the largest rate of the others

    Examples
    --------
    >>> from neuralsolve.models.s5 import S5
    >>> groups = parameter_groups(S5(4, state=8, init="legs"), lr=1e-2)
    >>> [(group["lr"], len(group["params"])) for group in groups]
    [(0.01, 2), (0.001, 4)]
    """
    slow = [
        p for layer in model.modules() if isinstance(layer, StateSpaceLayer) for p in layer.slow_parameters()
    ]
    names = {id(p) for p in slow}
    rest = [p for p in model.parameters() if id(p) not in names]
    return [
        {"params": rest, "lr": lr, "weight_decay": weight_decay},
        {"params": slow, "lr": min(lr, slow_lr), "weight_decay": 0.0},
    ]
