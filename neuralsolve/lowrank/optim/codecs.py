"""How numbers of an optimizer are kept: as they are, as bfloat16, or blockwise in 8 or 4 bits.

A codec turns a tensor into plain tensors by suffix and back. In a block of numbers, the largest modulus, or
the range, is kept in float32 beside the codes. Plain torch on any device; complex numbers are pairs of real
ones. On a CPU codes cost time, a few passes over the numbers: what is won is memory.

    Full          4 B a number            Int8      1 B + 4 B a block of 256
    Brain         2 B                     Int4      1/2 B + 8 B a block

Sources: Dettmers et al., ICLR 2022 (arXiv 2110.02861) for blocks and the dynamic code; Q-GaLore (arXiv
2407.08296) for Int4 bases and weights in 8 bits with stochastic rounding; Kuipers and Niederreiter, Uniform
Distribution of Sequences (1974), ch. 2, for the golden rotation. Differences: the zero point of Int4 is a
float, so that blocks of one sign are not clipped; scales of weights are powers of two, so that a weight that
takes no step is not rounded again; its draws of successive steps are no independent ones, see `Int8Weights`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.views import real_numbers

Parts = dict[str, Tensor]
BLOCK = 256
GOLDEN = (5**0.5 - 1) / 2  # whose multiples, modulo 1, leave no wide gap however many they are


class Codec(ABC):
    """Frozen options of one way to keep numbers."""

    @abstractmethod
    def encode(self, x: Tensor, signed: bool = True) -> Parts:
        """Return plain tensors by suffix; `signed` is False for numbers of which none is below 0."""

    @abstractmethod
    def decode(self, parts: Parts, dtype: torch.dtype) -> Tensor:
        """Return numbers of a dtype."""

    def elements(self, parts: Parts) -> int:
        """Return how many real numbers are kept, what describes the blocks apart."""
        return real_numbers(parts[""])


@dataclass(frozen=True)
class Full(Codec):
    """The tensor itself."""

    def encode(self, x: Tensor, signed: bool = True) -> Parts:
        return {"": x}

    def decode(self, parts: Parts, dtype: torch.dtype) -> Tensor:
        return parts[""]


@dataclass(frozen=True)
class Brain(Codec):
    """bfloat16: 8 bits of a mantissa, of which squares below 2^-133 are 0."""

    def encode(self, x: Tensor, signed: bool = True) -> Parts:
        return {"": _real(x).bfloat16()}

    def decode(self, parts: Parts, dtype: torch.dtype) -> Tensor:
        return _as(parts[""], dtype)


@dataclass(frozen=True)
class Int8(Codec):
    """256 levels, dense towards 0, times the largest modulus of a block.

    Examples
    --------
    >>> x = torch.linspace(-1, 1, 1000)
    >>> parts = Int8().encode(x)
    >>> parts[""].dtype, bool((Int8().decode(parts, x.dtype) - x).abs().max() < 0.008)
    (torch.uint8, True)
    """

    block: int = BLOCK

    def __post_init__(self) -> None:
        _check(self.block)

    def encode(self, x: Tensor, signed: bool = True) -> Parts:
        x = _real(x)
        rows = _blocks(x.float(), self.block)
        highest = rows.abs().amax(1)
        _, middles = _levels(signed, x.device)
        part = rows / highest.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
        codes = torch.bucketize(part, middles, out_int32=True).to(torch.uint8)
        parts = {"": codes.view(-1)[: x.numel()].view(x.shape), ".high": highest}
        return parts if signed else parts | {".unsigned": torch.ones((), dtype=torch.uint8)}

    def decode(self, parts: Parts, dtype: torch.dtype) -> Tensor:
        codes = parts[""]
        levels, _ = _levels(".unsigned" not in parts, codes.device)
        rows = _blocks(levels[codes.int()], self.block)
        return _as(_cut(rows * parts[".high"][:, None], codes.shape), dtype)


@dataclass(frozen=True)
class Int4(Codec):
    """16 even levels between the least and the largest number of a block, two codes a byte."""

    block: int = BLOCK

    def __post_init__(self) -> None:
        _check(self.block)

    def encode(self, x: Tensor, signed: bool = True) -> Parts:
        x = _real(x)
        rows = _blocks(x.float(), self.block, repeat=True)
        low, high = rows.amin(1), rows.amax(1)
        step = ((high - low) / 15).clamp(min=torch.finfo(torch.float32).tiny)
        codes = ((rows - low[:, None]) / step[:, None]).round().to(torch.uint8).view(-1)
        kept = codes[: x.numel() + x.numel() % 2].view(-1, 2)
        shape = torch.tensor(x.shape)
        return {"": kept[:, 0] << 4 | kept[:, 1], ".low": low, ".step": step, ".shape": shape}

    def decode(self, parts: Parts, dtype: torch.dtype) -> Tensor:
        codes = torch.stack([parts[""] >> 4, parts[""] & 15], 1).view(-1).float()
        rows = _blocks(codes, self.block) * parts[".step"][:, None] + parts[".low"][:, None]
        return _as(_cut(rows, torch.Size(parts[".shape"].tolist())), dtype)

    def elements(self, parts: Parts) -> int:
        return math.prod(parts[".shape"].tolist()) if ".shape" in parts else super().elements(parts)


@dataclass(frozen=True)
class Int8Weights:
    """Weights on a grid of 255 levels a block, rounded at random so that the mean is the number itself.

        x -> floor(x + u_t),      u_t = u_0 + t g mod 1,      u_0 uniform on [0, 1), one a weight, g golden

    With independent draws, a weight that takes n steps of a part a of a level would be off by
    sqrt(n a (1 - a)) levels. Here u_t is uniform as well, at every t, but a weight is up on time: n even
    steps leave it off by 1 + log n or so, by no more than 2 where n is a Fibonacci number (Denjoy and
    Koksma). Nothing is remembered for it.

    `rounded` is what the optimizer writes; the parameter itself stays a tensor of floats, whose values
    `encode` turns into one byte each, and `decode` back, without loss.

    Examples
    --------
    >>> grid = Int8Weights()
    >>> W = grid.rounded(torch.linspace(-1, 1, 300), torch.Generator().manual_seed(7))
    >>> torch.equal(grid.decode(grid.encode(W), W.dtype), W)
    True
    """

    block: int = BLOCK

    def __post_init__(self) -> None:
        _check(self.block)

    def rounded(self, W: Tensor, generator: torch.Generator, turn: int = 0) -> Tensor:
        """Return the weights on their grid; E of it is W.

        Parameters
        ----------
        generator : of u_0: to be in the same state for all steps of a weight
        turn : t, which step it is
        """
        rows = _blocks(_real(W).float(), self.block)
        scale = self._scale(rows)[:, None]
        drawn = torch.rand(rows.shape, generator=generator).add_(turn * GOLDEN % 1).remainder_(1).to(W.device)
        return _as(_cut((rows / scale + drawn).floor_().mul_(scale), _real(W).shape), W.dtype)

    def encode(self, W: Tensor) -> Parts:
        """Return one byte a weight, and a scale a block."""
        real = _real(W)
        rows = _blocks(real.float(), self.block)
        scale = self._scale(rows)
        codes = (rows / scale[:, None]).round().to(torch.int8)
        return {"": _cut(codes, real.shape), ".scale": scale}

    def decode(self, parts: Parts, dtype: torch.dtype) -> Tensor:
        """Return the weights."""
        rows = _blocks(parts[""].float(), self.block)
        return _as(_cut(rows * parts[".scale"][:, None], parts[""].shape), dtype)

    def _scale(self, rows: Tensor) -> Tensor:
        highest = rows.abs().amax(1)
        return torch.where(highest > 0, torch.exp2(torch.ceil(torch.log2(highest / 127))), 1.0)


def _check(block: int) -> None:
    if block < 2 or block % 2:
        msg = f"block = {block}; an even number of at least 2 is needed, as 256"
        raise OptionError(msg)


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def _as(x: Tensor, dtype: torch.dtype) -> Tensor:
    if not dtype.is_complex:
        return x.to(dtype)
    real = torch.float64 if dtype == torch.complex128 else torch.float32
    return torch.view_as_complex(x.to(real).contiguous())


def _blocks(x: Tensor, block: int, repeat: bool = False) -> Tensor:
    """Return rows of a block each, the last filled up with zeros, or with the last number."""
    flat = x.reshape(-1)
    missing = -flat.numel() % block
    if not missing:
        return flat.view(-1, block)
    more = flat[-1:].expand(missing) if repeat else flat.new_zeros(missing)
    return torch.cat([flat, more]).view(-1, block)


def _cut(rows: Tensor, shape: torch.Size) -> Tensor:
    return rows.reshape(-1)[: shape.numel()].view(shape)


@lru_cache(maxsize=16)
def _levels(signed: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the levels, ascending, and the places half-way between them.

    A dynamic code: decade by decade from 1 down, each with half as many even steps as the one above.
    """
    positive = [
        10.0**-decade * (0.1 + 0.9 * (k + 1) / 2 ** (top - decade))
        for top in [6 if signed else 7]
        for decade in range(top + 1)
        for k in range(2 ** (top - decade))
    ]
    levels = sorted([-x for x in positive if signed] + [0.0, *positive])
    made = torch.tensor(levels, dtype=torch.float32)
    return made.to(device), ((made[1:] + made[:-1]) / 2).to(device)
