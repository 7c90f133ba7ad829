"""What is done with a projected gradient: the step that the optimizer takes there.

A rule keeps moments of the shape of the gradient, plain tensors by name, and changes them in place. Of
complex gradients the second moment is that of |g|, real: half the memory of one for each part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from neuralsolve.lowrank.orthonormal import newton_schulz

Moments = dict[str, Tensor]


class Rule(ABC):
    """A kind of step: frozen options, no state.

    Attributes
    ----------
    linear, quadratic : names of moments that are sums of gradients, and of their squares
    """

    linear: ClassVar[tuple[str, ...]] = ()
    quadratic: ClassVar[tuple[str, ...]] = ()

    def start(self, g: Tensor) -> Moments:
        """Return the moments before the first gradient."""
        of_squares = {name: torch.zeros_like(g.real) for name in self.quadratic}
        return {name: torch.zeros_like(g) for name in self.linear} | of_squares

    @abstractmethod
    def step(self, g: Tensor, moments: Moments, age: int, group: dict[str, Any]) -> Tensor:
        """Return the step for a gradient, the `age`-th that these moments see, from 1."""


def squared(g: Tensor) -> Tensor:
    """Return |g|^2, real."""
    return torch.view_as_real(g).square().sum(-1) if g.is_complex() else g.square()


@dataclass(frozen=True)
class Adam(Rule):
    """Adam with bias correction (Kingma & Ba, ICLR 2015), as torch's: `betas` and `eps` of the group."""

    linear = ("exp_avg",)
    quadratic = ("exp_avg_sq",)

    def step(self, g: Tensor, moments: Moments, age: int, group: dict[str, Any]) -> Tensor:
        first, second = group["betas"]
        m, v = moments["exp_avg"], moments["exp_avg_sq"]
        m.lerp_(g, 1 - first)
        v.mul_(second).add_(squared(g), alpha=1 - second)
        below = v.sqrt().div_((1 - second**age) ** 0.5).add_(group["eps"])
        return (m / (1 - first**age)).div_(below)


@dataclass(frozen=True)
class Lion(Rule):
    """The sign of an average of gradients (Chen et al., NeurIPS 2023, arXiv 2302.06675): one moment."""

    linear = ("exp_avg",)

    def step(self, g: Tensor, moments: Moments, age: int, group: dict[str, Any]) -> Tensor:
        first, second = group["betas"]
        m = moments["exp_avg"]
        found = torch.lerp(m, g, 1 - first).sgn_()
        m.lerp_(g, 1 - second)
        return found


@dataclass(frozen=True)
class Momentum(Rule):
    """Gradient descent with momentum, as torch's SGD; of momentum 0 there is no moment."""

    momentum: float = 0.9
    linear = ("exp_avg",)

    def start(self, g: Tensor) -> Moments:
        return super().start(g) if self.momentum else {}

    def step(self, g: Tensor, moments: Moments, age: int, group: dict[str, Any]) -> Tensor:
        return moments["exp_avg"].mul_(self.momentum).add_(g).clone() if self.momentum else g


@dataclass(frozen=True)
class Sign(Rule):
    """The sign of the gradient, of complex ones its phase; no moments."""

    def step(self, g: Tensor, moments: Moments, age: int, group: dict[str, Any]) -> Tensor:
        return torch.sgn(g)


@dataclass(frozen=True)
class Orthogonal(Rule):
    """The momentum with all singular values near 1, as Muon (Jordan et al., 2024) takes it."""

    momentum: float = 0.95
    linear = ("exp_avg",)

    def step(self, g: Tensor, moments: Moments, age: int, group: dict[str, Any]) -> Tensor:
        m = moments["exp_avg"].mul_(self.momentum).add_(g)
        return newton_schulz(g.add(m, alpha=self.momentum)) * 0.2 * max(g.shape[-2:]) ** 0.5
