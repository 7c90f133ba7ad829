"""What is trained of an adapted model, what it costs, and the model without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.adapters.delta import Penalised
from neuralsolve.lowrank.adapters.record import base_of, deltas_of, record_of
from neuralsolve.lowrank.views import real_numbers


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Let the weights be what they were before `attach` for a while, but for those of `also`.

    Examples
    --------
    >>> from neuralsolve.lowrank.adapters import LoRA, attach
    >>> net = attach(nn.Linear(4, 4), LoRA(rank=2))
    >>> with disabled(net):
    ...     y = net(torch.ones(4))
    """
    deltas = deltas_of(model).values()
    before = [delta.enabled for delta in deltas]
    try:
        for delta in deltas:
            delta.enabled = False
        yield
    finally:
        for delta, enabled in zip(deltas, before, strict=True):
            delta.enabled = enabled


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return what is trained of a model with an adapter: for the optimiser."""
    record_of(model)
    return [p for p in model.parameters() if p.requires_grad]


@dataclass(frozen=True)
class Summary:
    """How much is trained, in real numbers: a complex one counts twice.

    Attributes
    ----------
    trained, total : of the adapter and what is trained as it is, and of the model without adapter; with it,
        where adapted weights are trained themselves
    free : of those trained, what is left where some say the same change over again: `Delta.free`
    layers : by the path of a weight, the trained numbers of its adapter
    """

    trained: int
    free: int
    total: int
    layers: dict[str, int]

    @property
    def share(self) -> float:
        """Of the free numbers in those of the model; an optimiser holds moments of all `trained` ones."""
        return self.free / self.total

    def __str__(self) -> str:
        what = f"{self.free} of {self.total} numbers are "
        how = "trained" if self.free == self.trained else f"free, by {self.trained} that are trained"
        return f"{what}{how}: {100 * self.share:.2f} %"


def summary(model: nn.Module) -> Summary:
    """Return how much of an adapted model is trained.

    Examples
    --------
    >>> from neuralsolve.lowrank.adapters import LoRA, attach
    >>> print(summary(attach(nn.Linear(8, 8), LoRA(rank=1))))
    16 of 72 numbers are trained: 22.22 %
    """
    deltas = deltas_of(model)
    layers = {name: sum(map(real_numbers, delta.trained().values())) for name, delta in deltas.items()}
    trained = free = sum(map(real_numbers, trainable_parameters(model)))
    total = sum(map(real_numbers, model.parameters()))
    if not any(base_of(model, name).requires_grad for name in layers):
        total -= sum(real_numbers(p) for delta in deltas.values() for p in delta.parameters())
        free -= sum(layers[name] - delta.free() for name, delta in deltas.items())
    return Summary(trained, free, total, layers)


def penalty(model: nn.Module) -> Tensor:
    """Return the mean penalty of the adapted weights, to be added to the loss times a weight.

    Raises
    ------
    OptionError
        A method without one.
    """
    each = [delta.penalty() for delta in deltas_of(model).values() if isinstance(delta, Penalised)]
    if not each:
        msg = f"{type(record_of(model).adapter).__name__} has no penalty; SALT, OSF and Effort have one"
        raise OptionError(msg)
    return torch.stack(each).mean()
