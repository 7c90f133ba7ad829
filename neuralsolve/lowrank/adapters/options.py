"""What all adapters are told: which weights they change, and what else is trained."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuralsolve.errors import OptionError, check_known, nearest
from neuralsolve.lowrank.adapters.delta import Delta
from neuralsolve.lowrank.views import EXCLUDED, MatrixView

ALL = "all"
MODES = ("view", "unfold", "batch")


@dataclass(frozen=True)
class Site:
    """A weight that is to be adapted.

    Attributes
    ----------
    name : its path in the model
    view, shape : how it is seen as matrices, and its shape
    matrix : W0 (..., m, n), in working precision
    gradients : of every loss, in the same matrices, (losses, ..., m, n); one of zero where none was given
    generator : where random numbers come from
    """

    name: str
    view: MatrixView
    shape: torch.Size
    matrix: Tensor
    gradients: Tensor
    generator: torch.Generator

    @property
    def smaller(self) -> int:
        """The smaller side p = min(m, n) of its matrices."""
        return min(self.matrix.shape[-2:])

    def random(self, *shape: int) -> Tensor:
        """Return numbers uniform in (-1, 1), complex ones in the square, as the matrix is."""
        real = self.matrix.real.dtype
        sizes = (*shape, 2) if self.matrix.is_complex() else shape
        drawn = 2 * torch.rand(sizes, generator=self.generator, dtype=real) - 1
        drawn = torch.view_as_complex(drawn) if self.matrix.is_complex() else drawn
        return drawn.to(self.matrix.device)


@dataclass(frozen=True, kw_only=True)
class Adapter(ABC):
    """A way to adapt weights, and which ones; every method is one kind.

    Parameters
    ----------
    targets : "all" matrices of the model, a regular expression that a path matches as a whole, or a list of
        parts of paths: ["keys_values", "head.0"]
    exclude : parts of words in paths that "all" leaves out
    also : parts of paths whose parameters are trained as they are, whatever they are: ["head", "bias"]
    min_dim : rows and columns, at least, of what "all" takes
    modes : weights of convolutions and of Fourier modes have more than two axes. "view": as
        `lowrank.views` sees them, "unfold": one matrix, outputs by all else, "batch": an outputs by inputs
        matrix for every tap or mode, each with factors of its own
    seed : of random factors
    """

    saved: ClassVar[tuple[str, ...]] = ()  # frozen tensors that cannot be made again from the weight

    wants_losses: ClassVar[bool] = False  # one for each sample, where it begins with gradients

    targets: str | Sequence[str] = ALL
    exclude: Sequence[str] = EXCLUDED
    also: Sequence[str] = ()
    min_dim: int = 2
    modes: str = "view"
    seed: int = 1905

    def __post_init__(self) -> None:
        for name in ("exclude", "also"):
            if isinstance(getattr(self, name), str):
                msg = (
                    f"got {name}={getattr(self, name)!r}; a list is needed: {name}=[{getattr(self, name)!r}]"
                )
                raise OptionError(msg)
        if isinstance(self.targets, str):
            try:
                re.compile(self.targets)
            except re.error as error:
                msg = f"got targets={self.targets!r}, no regular expression ({error}); parts of paths: a list"
                raise OptionError(msg) from None
        check_known("modes =", self.modes, MODES)
        if self.min_dim < 1:
            msg = f"got min_dim={self.min_dim}; at least 1 is needed: min_dim=2"
            raise OptionError(msg)

    def wants_loss(self) -> bool:
        """Return whether it begins with gradients, so that `attach` needs a loss."""
        return False

    @abstractmethod
    def delta(self, site: Site) -> Delta:
        """Return the change of a weight, before its first step."""

    def fits(self, sites: Sequence[Site]) -> None:  # noqa: B027 - most methods fit all weights
        """Raise OptionError where an option fits none of the weights, or not one that was named."""


@dataclass(frozen=True)
class Ranked(Adapter):
    """An adapter of a rank.

    Parameters
    ----------
    rank : r, of every weight; of "all" weights, smaller ones take min(m, n)
    ranks : of single weights, by their path: {"lift.weight": 2}
    """

    rank: int = 8
    ranks: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, rank in {"rank": self.rank, **(self.ranks or {})}.items():
            positive(name, rank)

    def room(self, site: Site) -> int:
        """Return the highest rank that a weight can take."""
        return site.smaller

    def rank_of(self, site: Site) -> int:
        """Return the rank at a weight."""
        return min((self.ranks or {}).get(site.name, self.rank), self.room(site))

    def fits(self, sites: Sequence[Site]) -> None:
        sizes = {site.name: self.room(site) for site in sites}
        for name in self.ranks or {}:
            if name not in sizes:
                msg = f"ranks names {name!r}, which is not adapted{nearest(name, sizes)}"
                raise OptionError(msg)
        shapes = {site.name: site.matrix.shape for site in sites}
        large = {name: size for name, size in sizes.items() if (self.ranks or {}).get(name, self.rank) > size}
        named = self.targets != ALL or any(name in (self.ranks or {}) for name in large)
        if large and (named or len(large) == len(sizes)):
            name, size = next(iter(large.items()))
            asked = (self.ranks or {}).get(name, self.rank)
            msg = f"got rank {asked} for {name} {tuple(shapes[name])}, which takes {size} at most"
            raise OptionError(msg)


@dataclass(frozen=True)
class Scaled(Ranked):
    """An adapter of a rank whose change is scaled.

    Parameters
    ----------
    alpha : the change is scaled by alpha / r; None: not at all
    """

    alpha: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha is not None and not (math.isfinite(self.alpha) and self.alpha > 0):
            msg = f"got alpha={self.alpha!r}; a positive number is needed, or None for the rank"
            raise OptionError(msg)

    def scale_of(self, rank: int) -> float:
        """Return the factor of the change at a weight of a rank."""
        return 1.0 if self.alpha is None else self.alpha / rank


def positive(name: str, number: object) -> None:
    """Raise OptionError where something is no whole number from 1 on."""
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        msg = f"got {name}={number!r}; a whole number of at least 1 is needed: {name}=4"
        raise OptionError(msg)


def share(name: str, number: float) -> None:
    """Raise OptionError where something is no share: more than 0, less than 1."""
    if not isinstance(number, int | float) or not 0 < number < 1:
        msg = f"got {name}={number!r}; a share, more than 0 and less than 1, is needed: {name}=0.5"
        raise OptionError(msg)


def leading(site: Site, keep: float) -> int:
    """Return how many of p = min(m, n) a share is: at least 1, at most p - 1, of p = 1 none."""
    return min(max(1, round(keep * site.smaller)), site.smaller - 1)


def matches(path: str, patterns: str | Sequence[str]) -> bool:
    r"""Return whether a path is meant: "all", a regular expression, or parts of paths.

    >>> matches("net.head.0.weight", ["head.0"]), matches("net.header.weight", ["head"])
    (True, False)
    >>> matches("net.0.weight", r"net\.\d\.weight")
    True
    """
    if isinstance(patterns, str):
        return patterns == ALL or re.fullmatch(patterns, path) is not None
    return any(f".{part}." in f".{path}." for part in patterns)
