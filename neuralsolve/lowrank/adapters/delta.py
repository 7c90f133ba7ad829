"""What is added to a weight: the parametrisation that every adapter registers.

    W = W0 + Delta,   Delta = L (scale core - start) R,   in the matrices of a view

W0 stays as it is, so that an adapter comes off without a trace. `start` is what the core was at first where
the weight shall begin as W0: at that moment the difference is zero exactly, in every precision.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from neuralsolve.errors import ShapeError
from neuralsolve.lowrank.views import MatrixView, real_numbers

HALF = (torch.float16, torch.bfloat16)


class Delta(nn.Module, ABC):
    """A change of a weight, for `torch.nn.utils.parametrize`.

    Attributes
    ----------
    view, shape : how the weight is seen as matrices, and its shape
    enabled : whether it acts; see `disabled`
    """

    def __init__(self, view: MatrixView, shape: torch.Size):
        super().__init__()
        self.view, self.shape, self.enabled = view, shape, True

    def forward(self, weight: Tensor) -> Tensor:
        """Return W0 + Delta, in the dtype of W0."""
        if not self.enabled:
            return weight
        return weight + self.view.from_matrix(self.matrix(), self.shape).to(weight.dtype)

    @abstractmethod
    def matrix(self) -> Tensor:
        """Return Delta (..., m, n)."""

    def hold(self, name: str, tensor: Tensor, *, trained: bool) -> None:
        """Keep a tensor as a parameter or, frozen, as a buffer."""
        tensor = tensor.detach().clone(memory_format=torch.contiguous_format)
        if trained:
            self.register_parameter(name, nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Take a state; raise ShapeError of one of another rank. What else does not fit, torch tells."""
        sides = {*self.shape, *self.view.sizes(self.shape)}
        for name, held in (*self.named_parameters(), *self.named_buffers()):
            given = state_dict.get(prefix + name)
            if not isinstance(given, Tensor) or given.ndim != held.ndim:
                continue
            other = [
                (there, here) for there, here in zip(given.shape, held.shape, strict=True) if there != here
            ]
            if other and not any(here in sides for _, here in other):  # otherwise the weight is another
                there, here = other[0]
                msg = (
                    f"{prefix}{name} of the state is {tuple(given.shape)}, of rank {there}, here "
                    f"{tuple(held.shape)}, of rank {here}; attach the adapter of that state, or "
                    "load_adapter(model, file)"
                )
                raise ShapeError(msg)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def trained(self) -> dict[str, Tensor]:
        """Return what is trained, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def free(self) -> int:
        """Return how many of the trained real numbers are free: no more than the weight itself has."""
        trained = self.trained().values()
        twice = any(value.is_complex() for value in trained) and not self.view.pairs
        return min(sum(map(real_numbers, trained)), self.shape.numel() * (2 if twice else 1))


class LowRankDelta(Delta):
    """Delta = L (scale core - start) R.

    Parameters
    ----------
    left, right : L (..., m, k) and R (..., k, n)
    core : (..., k) a diagonal, (..., k, k) a matrix, None the identity
    start : of the shape of the core, what is taken off; None: nothing
    scale : in front of the core
    trained : names among "left", "right", "core" and "scale"

    Examples
    --------
    >>> L, R, core = torch.eye(4, 2), torch.eye(2, 3), torch.tensor([2.0, 1.0])
    >>> delta = LowRankDelta(MatrixView((0,), (1,)), torch.Size((4, 3)), L, R, core, start=core)
    >>> W = torch.ones(4, 3)
    >>> torch.equal(delta(W), W), [name for name, _ in delta.named_parameters()]
    (True, ['core'])
    """

    left: Tensor
    right: Tensor
    core: Tensor | None
    start: Tensor | None
    scale: Tensor

    def __init__(
        self,
        view: MatrixView,
        shape: torch.Size,
        left: Tensor,
        right: Tensor,
        core: Tensor | None = None,
        *,
        start: Tensor | None = None,
        scale: float = 1.0,
        trained: tuple[str, ...] = ("core",),
    ):
        super().__init__(view, shape)
        self.full = core is not None and core.ndim == right.ndim
        self.hold("left", left, trained="left" in trained)
        self.hold("right", right, trained="right" in trained)
        factor = torch.tensor(scale, dtype=left.real.dtype, device=left.device)
        self.hold("scale", factor, trained="scale" in trained)
        for name, tensor in {"core": core, "start": start}.items():
            if tensor is None:
                setattr(self, name, None)
            else:
                self.hold(name, tensor, trained=name in trained)

    def matrix(self) -> Tensor:
        if self.core is None:
            return (self.scale * self.left) @ self.right
        core = self.scale * self.core
        if self.start is not None:
            core = core - self.start
        return (self.left @ core if self.full else self.left * core[..., None, :]) @ self.right


class Penalised(Delta):
    """A change that training may be told to keep small or straight."""

    @abstractmethod
    def penalty(self) -> Tensor:
        """Return what to add to the loss, times a weight: at least 0, 0 before the first step."""


def working(matrix: Tensor) -> Tensor:
    """Return matrices in the precision that factors are kept in: that of the weight, float32 of half ones."""
    return matrix.float() if matrix.dtype in HALF else matrix
