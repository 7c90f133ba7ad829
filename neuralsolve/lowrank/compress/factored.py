"""Layers whose weight is a product of two thin factors, and nothing else is stored.

    FactoredLinear    x -> B (A x) + b                  A (r, in), B (out, r)
    FactoredConv      "channel": k-tap convolution to r channels, then one of a single tap
                      "spatial": taps of the first axis to r channels, then those of the second (2-d alone)

Both are two layers of torch, `first` and `last`, so that they cost what two layers cost, on every device. Who
reads `weight` instead of calling the layer gets the product, formed anew.

Sources: Zhang, Zou, He, Sun, IEEE TPAMI 38 (2016) 1943-1955 (channel); Jaderberg, Vedaldi, Zisserman, BMVC
2014 (spatial).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.lowrank.updates import recompress
from neuralsolve.lowrank.views import MatrixView

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SCHEMES = ("channel", "spatial")


class Factored(nn.Module, ABC):
    """What the two kinds share; `first` and `last` are layers, `view` says how the weight is a matrix B A."""

    first: Any
    last: Any
    view: MatrixView

    @property
    @abstractmethod
    def rank(self) -> int:
        """Columns of B and rows of A."""

    @property
    def bias(self) -> Tensor | None:
        """That of the layer, (out,)."""
        return self.last.bias

    @property
    def weight(self) -> Tensor:
        """The product, of the shape of the dense layer's weight; differentiable, formed at every call."""
        return self.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))

    @abstractmethod
    def factors(self) -> tuple[Tensor, Tensor]:
        """Return B (m, r) and A (r, n)."""

    def to_dense(self) -> Tensor:
        """Return the weight as the dense layer has it."""
        B, A = self.factors()
        return self.view.from_matrix(B @ A, self._shape())

    @abstractmethod
    def _shape(self) -> tuple[int, ...]: ...

    @abstractmethod
    def _like(self, rank: int) -> Factored: ...

    @abstractmethod
    def _assign(self, B: Tensor, A: Tensor) -> None: ...

    @torch.no_grad()
    def set_factors(self, B: Tensor, A: Tensor, bias: Tensor | None = None) -> None:
        """Take factors B (m, r), A (r, n) and, where the layer has one, its bias (out,); None is zero.

        Raises
        ------
        ShapeError
        """
        mine, given = [tuple(part.shape) for part in self.factors()], [tuple(B.shape), tuple(A.shape)]
        if mine != given:
            msg = f"got factors of shapes {given[0]} and {given[1]}; {mine[0]} and {mine[1]} are needed"
            raise ShapeError(msg)
        if bias is not None and self.last.bias is None:
            msg = f"got a bias {tuple(bias.shape)} for a layer without one; make it with bias=True"
            raise ShapeError(msg)
        self._assign(B, A)
        if self.last.bias is not None:
            self.last.bias.copy_(torch.zeros_like(self.last.bias) if bias is None else bias)

    def truncate(self, rank: int) -> Factored:
        """Return the layer of the nearest weight of a lower rank.

        Raises
        ------
        OptionError
            A rank below 1 or above that of the layer.
        """
        check_rank(rank, self.rank)
        left, right = recompress(*(part.detach() for part in self.factors()), rank=rank).balanced()
        layer = self._like(rank)
        layer.set_factors(left, right, self.bias)
        return layer


class FactoredLinear(Factored):
    """A linear map through r numbers.

    Parameters
    ----------
    inputs, outputs, rank : sizes; rank at least 1 and at most the smaller of the others
    bias : whether there is one
    device, dtype : of the weights, which are drawn as torch draws those of its layers

    Raises
    ------
    OptionError

    Examples
    --------
    >>> layer = FactoredLinear(6, 4, rank=2)
    >>> layer(torch.ones(5, 6)).shape, layer.to_dense().shape, layer.truncate(1).rank
    (torch.Size([5, 4]), torch.Size([4, 6]), 1)
    """

    view = MatrixView((0,), (1,))

    def __init__(
        self, inputs: int, outputs: int, rank: int, bias: bool = True, device: Any = None, dtype: Any = None
    ):
        super().__init__()
        check_rank(rank, min(inputs, outputs))
        self.in_features, self.out_features = inputs, outputs
        self.first = nn.Linear(inputs, rank, bias=False, device=device, dtype=dtype)
        self.last = nn.Linear(rank, outputs, bias=bias, device=device, dtype=dtype)

    @classmethod
    def like(cls, layer: Any, rank: int, bias: bool | None = None) -> FactoredLinear:
        """Return one of the sizes of a linear layer, dense or factored; its numbers are drawn."""
        weight = getattr(layer, "last", layer).weight
        has_bias = layer.bias is not None if bias is None else bias
        return cls(layer.in_features, layer.out_features, rank, has_bias, weight.device, weight.dtype)

    @property
    def rank(self) -> int:
        return self.first.out_features

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.last.weight, self.first.weight

    def _shape(self) -> tuple[int, ...]:
        return self.out_features, self.in_features

    def _like(self, rank: int) -> FactoredLinear:
        return FactoredLinear.like(self, rank)

    def _assign(self, B: Tensor, A: Tensor) -> None:
        self.last.weight.copy_(B)
        self.first.weight.copy_(A)


class FactoredConv(Factored):
    """A convolution on one to three axes through r channels; made by `like`, of a dense convolution.

    Parameters
    ----------
    first, last : convolutions, the second takes the channels of the first
    scheme : "channel" or "spatial"; see the head of this file

    Examples
    --------
    >>> dense = nn.Conv2d(3, 8, 5, padding=2, stride=2)
    >>> layer = FactoredConv.like(dense, rank=4, scheme="spatial")
    >>> layer(torch.ones(1, 3, 9, 9)).shape == dense(torch.ones(1, 3, 9, 9)).shape
    True
    >>> layer.to_dense().shape == dense.weight.shape
    True
    """

    def __init__(self, first: nn.Module, last: nn.Module, scheme: str):
        super().__init__()
        self.first, self.last, self.scheme = first, last, scheme
        self.in_channels, self.out_channels = self.first.in_channels, self.last.out_channels
        self.view = conv_view(len(self.first.kernel_size), scheme)

    @classmethod
    def like(cls, layer: Any, rank: int, scheme: str = "channel", bias: bool | None = None) -> FactoredConv:
        """Return one of the sizes of a convolution, dense or factored by channels; its numbers are drawn.

        Raises
        ------
        OptionError
            Groups, an unknown scheme, "spatial" on other than two axes, or a rank that does not fit.
        """
        factored = isinstance(layer, Factored)
        source, bias = layer.first if factored else layer, layer.bias is not None if bias is None else bias
        outputs, taps = (layer.last if factored else layer).out_channels, source.kernel_size
        view = conv_view(len(taps), scheme)
        if source.groups != 1 or (factored and layer.scheme != "channel"):
            msg = f"{source.groups} groups of channels, or factored in space; dense convolutions are needed"
            raise OptionError(msg)
        sizes = view.to_matrix(torch.empty((outputs, source.in_channels, *taps), device="meta")).shape
        check_rank(rank, min(sizes[-2:]))
        kind: Any = next(each for each in CONVOLUTIONS if isinstance(source, each))
        where = {"device": source.weight.device, "dtype": source.weight.dtype}
        names = ("kernel_size", "stride", "padding", "dilation")
        parts: list[dict[str, Any]] = [{}, {}]
        for name in names:
            value = getattr(source, name)
            if scheme == "channel":
                neutral = 0 if name == "padding" else 1
                parts[0][name], parts[1][name] = value, neutral
            elif isinstance(value, str):
                parts[0][name] = parts[1][name] = value
            else:
                neutral = 0 if name == "padding" else 1
                parts[0][name], parts[1][name] = (value[0], neutral), (neutral, value[1])
        mode = source.padding_mode
        first = kind(source.in_channels, rank, bias=False, padding_mode=mode, **parts[0], **where)
        last = kind(
            rank,
            outputs,
            bias=bias,
            padding_mode=mode if scheme == "spatial" else "zeros",
            **parts[1],
            **where,
        )
        return cls(first, last, scheme)

    @property
    def rank(self) -> int:
        return self.first.out_channels

    def factors(self) -> tuple[Tensor, Tensor]:
        B, A = self.last.weight, self.first.weight
        return B.movedim(1, -1).reshape(-1, self.rank), A.flatten(1)

    def _shape(self) -> tuple[int, ...]:
        taps = tuple(a * b for a, b in zip(self.first.kernel_size, self.last.kernel_size, strict=True))
        return self.last.out_channels, self.first.in_channels, *taps

    def _like(self, rank: int) -> FactoredConv:
        if self.scheme == "channel":
            return FactoredConv.like(self, rank)
        return FactoredConv(_narrowed(self.first, "out", rank), _narrowed(self.last, "in", rank), self.scheme)

    def _assign(self, B: Tensor, A: Tensor) -> None:
        outputs, taps = self.last.out_channels, self.last.kernel_size
        self.last.weight.copy_(B.reshape(outputs, *taps, self.rank).movedim(-1, 1))
        self.first.weight.copy_(A.reshape(self.first.weight.shape))


def conv_view(dim: int, scheme: str) -> MatrixView:
    """Return how a kernel (out, in, *taps) is the matrix that a scheme factors.

    >>> conv_view(2, "spatial")
    MatrixView(rows=(0, 3), columns=(1, 2), pairs=False, ordered=None)

    Raises
    ------
    OptionError
    """
    if scheme not in SCHEMES or (scheme == "spatial" and dim != 2):
        msg = f'got scheme={scheme!r} on {dim} axes; "channel", or on two axes "spatial", is needed'
        raise OptionError(msg)
    return MatrixView((0, 3), (1, 2)) if scheme == "spatial" else MatrixView((0,), tuple(range(1, dim + 2)))


def check_rank(rank: int, most: int) -> None:
    """Raise OptionError unless 1 <= rank <= most."""
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= most:
        msg = f"got rank={rank!r}; a whole number from 1 to {most} is needed"
        raise OptionError(msg)


def _narrowed(conv: Any, side: str, rank: int) -> nn.Module:
    """Return a convolution of the same taps with `rank` channels on one side."""
    channels = (conv.in_channels, rank) if side == "out" else (rank, conv.out_channels)
    names = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    same = {name: getattr(conv, name) for name in names}
    has_bias, weight = conv.bias is not None, conv.weight
    return type(conv)(*channels, bias=has_bias, device=weight.device, dtype=weight.dtype, **same)
