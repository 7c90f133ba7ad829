"""When a subspace is chosen anew: every so many steps, once, or ever more rarely where it stays the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralsolve.errors import OptionError

State = dict[str, Tensor]


class Refresh(ABC):
    """A policy; `gap` comes from the group, what it remembers of a parameter are plain tensors."""

    def start(self, gap: int) -> State:
        """Return what is to be remembered before the first step."""
        return {}

    @abstractmethod
    def due(self, step: int, gap: int, state: State) -> bool:
        """Say whether the basis is chosen anew before this step, counted from 0."""

    def done(self, step: int, alignment: Callable[[], float], state: State) -> None:
        """Take notice of a refresh; `alignment` tells how much of the subspace before is in the new one."""
        return


@dataclass(frozen=True)
class Every(Refresh):
    """Every `gap` steps; of gap 1, always."""

    def due(self, step: int, gap: int, state: State) -> bool:
        return step % gap == 0


@dataclass(frozen=True)
class Once(Refresh):
    """From the first gradient, and never again."""

    def due(self, step: int, gap: int, state: State) -> bool:
        return step == 0


@dataclass(frozen=True)
class Lazy(Refresh):
    """Twice as rarely, each time that the last subspaces agreed (Q-GaLore, arXiv 2407.08296, sec. 3.2).

    Parameters
    ----------
    threshold : of the mean squared cosine between successive subspaces
    window : refreshes that it is the mean of; after a doubling they are counted anew

    Differences from the source: all principal angles count, where the cosine of one vector, whose sign is
    arbitrary, was looked at; and the window begins anew after a doubling.
    """

    threshold: float = 0.4
    window: int = 2

    def __post_init__(self) -> None:
        if not (0 <= self.threshold <= 1 and self.window >= 1):
            msg = f"threshold = {self.threshold}, window = {self.window}; 0 to 1, and at least 1 are needed"
            raise OptionError(msg)

    def start(self, gap: int) -> State:
        return {"gap": torch.tensor(gap), "due": torch.tensor(0), "cosines": torch.zeros(0)}

    def due(self, step: int, gap: int, state: State) -> bool:
        return step >= int(state["due"])

    def done(self, step: int, alignment: Callable[[], float], state: State) -> None:
        if step:
            found = state["cosines"].new_tensor([alignment()])
            state["cosines"] = torch.cat([state["cosines"], found])
        if len(state["cosines"]) >= self.window:
            if float(state["cosines"].mean()) >= self.threshold:
                state["gap"] = 2 * state["gap"]
                state["cosines"] = torch.zeros(0)
            else:
                state["cosines"] = state["cosines"][1:]
        state["due"] = step + state["gap"]
