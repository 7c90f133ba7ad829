"""What is done with the part of a gradient that no projected step sees: nothing, or a step without memory.

Sources: FRUGAL (Zmushko et al., ICML 2025, arXiv 2411.07837) for `Sign` and `Descent`; Fira (Chen et al.,
2024, arXiv 2410.01623) for `Scaled`, here without its limiter; `Factored` takes the second moment of
Adafactor (Shazeer & Stern, ICML 2018, arXiv 1804.04235), a row and a column of numbers, for a step that has
no first moment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.optim.rules import Moments, squared


@dataclass(frozen=True)
class Complement(ABC):
    """A kind of step for the rest of a gradient, times `rate`."""

    names: ClassVar[tuple[str, ...]] = ()

    rate: float = 1.0

    def __post_init__(self) -> None:
        if not self.rate > 0:
            msg = f"rate = {self.rate}; more than 0 is needed, or complement=None"
            raise OptionError(msg)

    def start(self, A: Tensor) -> Moments:
        """Return what is kept before the first gradient."""
        return {}

    @abstractmethod
    def step(
        self, rest: Tensor, g: Tensor, u: Tensor, moments: Moments, age: int, group: dict[str, Any]
    ) -> Tensor:
        """Return the step for what is left; g and u are the projected gradient and its step."""


@dataclass(frozen=True)
class Sign(Complement):
    """The sign of every entry, of complex ones its phase."""

    def step(self, rest: Tensor, g: Tensor, u: Tensor, moments: Moments, age: int, group: Any) -> Tensor:
        return torch.sgn(rest).mul_(self.rate)


@dataclass(frozen=True)
class Descent(Complement):
    """The rest itself."""

    def step(self, rest: Tensor, g: Tensor, u: Tensor, moments: Moments, age: int, group: Any) -> Tensor:
        return self.rate * rest


@dataclass(frozen=True)
class Scaled(Complement):
    """The rest of a column, times what the projected step made of the length of its gradient there."""

    def step(self, rest: Tensor, g: Tensor, u: Tensor, moments: Moments, age: int, group: Any) -> Tensor:
        tiny = torch.finfo(u.dtype).tiny
        return rest * (self.rate * u.norm(dim=-2, keepdim=True) / g.norm(dim=-2, keepdim=True).clamp(tiny))


@dataclass(frozen=True)
class Factored(Complement):
    """The rest over the root of a second moment of rank one, from means of rows and of columns."""

    names = ("rows_sq", "columns_sq")

    def start(self, A: Tensor) -> Moments:
        return {
            "rows_sq": torch.zeros_like(A.real[..., :1]),
            "columns_sq": torch.zeros_like(A.real[..., :1, :]),
        }

    def step(
        self, rest: Tensor, g: Tensor, u: Tensor, moments: Moments, age: int, group: dict[str, Any]
    ) -> Tensor:
        decay, of = group["betas"][1], squared(rest)
        rows, columns = (moments[name] for name in self.names)
        rows.lerp_(of.mean(-1, keepdim=True), 1 - decay)
        columns.lerp_(of.mean(-2, keepdim=True), 1 - decay)
        past = 1 - decay**age
        mean = rows.mean(-2, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
        second = (rows / mean) * columns / past
        return self.rate * rest / second.sqrt_().add_(group["eps"])
