"""A layer that was made smaller in another way, rounded or pruned, and a low-rank residual beside it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from neuralsolve.lowrank.compress.factored import Factored, FactoredConv, FactoredLinear


class Compensated(nn.Module):
    """x -> base(x) + B (A x), the base frozen; made by `like`.

    Examples
    --------
    >>> import torch
    >>> layer = Compensated.like(nn.Linear(6, 4), rank=2)
    >>> layer(torch.ones(5, 6)).shape, [name for name, p in layer.named_parameters() if p.requires_grad]
    (torch.Size([5, 4]), ['residual.first.weight', 'residual.last.weight'])
    """

    def __init__(self, base: nn.Module, residual: Factored):
        super().__init__()
        self.base: Any = base.requires_grad_(False)
        self.residual = residual
        for name in ("in_features", "out_features", "in_channels", "out_channels"):
            if hasattr(residual, name):
                setattr(self, name, getattr(residual, name))

    @classmethod
    def like(cls, base: Any, rank: int) -> Compensated:
        """Return one of a linear layer or a convolution; its residual is drawn."""
        linear = isinstance(base, nn.Linear | FactoredLinear)
        kind = FactoredLinear if linear else FactoredConv
        return cls(base, kind.like(base, rank, bias=False))

    @property
    def bias(self) -> Tensor | None:
        """That of the base."""
        return self.base.bias

    @property
    def weight(self) -> Tensor:
        """The sum, of the shape of the dense layer's weight."""
        return self.to_dense()

    @property
    def rank(self) -> int:
        """Of the residual."""
        return self.residual.rank

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.residual(x)

    def to_dense(self) -> Tensor:
        """Return the weight as the dense layer has it; differentiable, formed at every call."""
        return self.base.weight + self.residual.to_dense()
