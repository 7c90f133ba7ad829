"""How many numbers each layer gets: ranks of all layers within a budget.

    uniform     the same share of every layer
    energy      the least ranks that keep the same part of the output's, or weight's, energy in every layer
    value       every singular value >= t
    threshold   every (s_j - s_min) / (s_max - s_min) >= t; flat spectra stay whole (WeLore)
    greedy      least sum of relative errors, weighed: on the lower hull of error over cost of each layer,
                what gains most for its cost first. Optimal wherever the budget falls on a corner of the hulls

All but the last are families of one number, which is found by bisection over the values at which a rank
changes; the largest total within the budget is taken. A layer costs ``unit`` a rank while that is less than
what it costs ``whole``, and stays whole otherwise.

Sources: WeLore: Jaiswal et al., From GaLore to WeLore (arXiv 2407.11239); hulls: Dyer, Math. Programming 29
(1984) 57-63, of the knapsack with choices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from neuralsolve.errors import OptionError

FLAT = 1e-3  # spread of the singular values, relative to the largest, below which a spectrum is flat


@dataclass(frozen=True)
class Offer:
    """A matrix that may be factored.

    Parameters
    ----------
    squares : (q,) what each direction adds to the squared error where it is left out, descending
    total : squares of the layer, of all its matrices together: errors are relative to it
    unit, extra : cost of a rank, and what factors cost besides
    whole : cost of the matrix as it is
    least : the lowest rank, 0 or 1
    every : ranks are multiples of it
    matrices : of the layer
    weight : of its error in the sum that `Greedy` makes small
    """

    squares: np.ndarray
    total: float
    unit: float
    whole: float
    extra: float = 0.0
    least: int = 1
    every: int = 1
    matrices: int = 1
    weight: float = 1.0

    @cached_property
    def ranks(self) -> list[int]:
        """Ranks at which factors cost less than the matrix, ascending; none where it stays whole."""
        known = [self.least] if self.every > 1 and self.least == 0 else []
        known += range(self.every if self.every > 1 else self.least, len(self.squares) + 1, self.every)
        return [rank for rank in known if self.cost(rank) < self.whole]

    def cost(self, rank: int | None) -> float:
        """Return what factors cost, or the matrix as it is (None)."""
        return self.whole if rank is None else self.unit * rank + (self.extra if rank else 0.0)

    def error(self, rank: int | None) -> float:
        """Return the squared error, relative to the layer."""
        if rank is None or self.total <= 0:
            return 0.0
        return float(self.squares[rank:].sum()) / self.total

    def loss(self, rank: int | None) -> float:
        """Return the error, weighed."""
        return self.weight * self.error(rank)

    def at_least(self, rank: int) -> int | None:
        """Return the lowest allowed rank from `rank` on; None: the matrix as it is."""
        return next((each for each in self.ranks if each >= rank), None)


Ranks = list[int | None]


class Allocator(ABC):
    """Ranks within a budget."""

    def allocate(self, offers: Sequence[Offer], budget: float) -> Ranks:
        """Return a rank for each matrix, None where it stays as it is; costs add up to the budget at most.

        Raises
        ------
        OptionError
            Less than the least that factors cost.
        """
        least = sum(offer.cost(offer.ranks[0] if offer.ranks else None) for offer in offers)
        if least > budget:
            msg = (
                f"a budget of {max(budget, 0):.0f} for layers that cost {least:.0f} at the lowest ranks; "
                "keep more, or exclude fewer"
            )
            raise OptionError(msg)
        return self._allocate(offers, budget)

    @abstractmethod
    def _allocate(self, offers: Sequence[Offer], budget: float) -> Ranks: ...


class Level(Allocator):
    """One number for all layers."""

    falls: ClassVar[bool] = False  # whether ranks fall as the level rises

    @abstractmethod
    def at(self, offer: Offer, level: float) -> int | None:
        """Return the rank of a matrix at a level."""

    @abstractmethod
    def steps(self, offer: Offer) -> np.ndarray:
        """Return levels at which the rank of a matrix changes."""

    def _allocate(self, offers: Sequence[Offer], budget: float) -> Ranks:
        levels = np.unique(np.concatenate([self.steps(offer) for offer in offers] or [np.zeros(1)]))
        levels = levels[::-1] if self.falls else levels
        ranks = _largest(
            lambda k: [self.at(offer, levels[k]) for offer in offers], len(levels), offers, budget
        )
        return [offer.ranks[0] if offer.ranks else None for offer in offers] if ranks is None else ranks


def _largest(
    made: Callable[[int], Ranks], count: int, offers: Sequence[Offer], budget: float
) -> Ranks | None:
    """Return the last of `count` allocations of growing cost that fits, by bisection; None: none of them."""
    low, high, found = 0, count, None
    while low < high:
        middle = (low + high) // 2
        ranks = made(middle)
        if total(offers, ranks) <= budget:
            low, found = middle + 1, ranks
        else:
            high = middle
    return found


def total(offers: Sequence[Offer], ranks: Sequence[int | None]) -> float:
    """Return what an allocation costs."""
    return sum(offer.cost(rank) for offer, rank in zip(offers, ranks, strict=True))


@dataclass(frozen=True)
class Uniform(Level):
    """The same share of every layer."""

    def at(self, offer: Offer, level: float) -> int | None:
        if level >= 1:
            return None
        fits = [rank for rank in offer.ranks if offer.cost(rank) <= level * offer.whole]
        return fits[-1] if fits else offer.at_least(0)

    def steps(self, offer: Offer) -> np.ndarray:
        return np.array([offer.cost(rank) / offer.whole for rank in offer.ranks] + [1.0])


@dataclass(frozen=True)
class Energy(Level):
    """The same part of the energy of every layer, at least; the rest is shared among a layer's matrices."""

    def at(self, offer: Offer, level: float) -> int | None:
        if level >= 1:
            return None
        allowed = (1 - level) / offer.matrices
        return next((rank for rank in offer.ranks if offer.error(rank) <= allowed), None)

    def steps(self, offer: Offer) -> np.ndarray:
        return np.array([1 - offer.matrices * offer.error(rank) for rank in offer.ranks] + [1.0])


@dataclass(frozen=True)
class Value(Level):
    """Every singular value from a threshold on, the same in all layers."""

    falls: ClassVar[bool] = True

    def at(self, offer: Offer, level: float) -> int | None:
        return offer.at_least(int((self.values(offer) >= level).sum()))

    def steps(self, offer: Offer) -> np.ndarray:
        return np.append(self.values(offer), 0.0)

    def values(self, offer: Offer) -> np.ndarray:
        """Return what is compared with the threshold, (q,)."""
        return np.sqrt(np.maximum(offer.squares, 0.0))


@dataclass(frozen=True)
class Threshold(Value):
    """Every normalised singular value from a threshold on; unlike `Value`, no matter the layer's scale."""

    def values(self, offer: Offer) -> np.ndarray:
        s = np.sqrt(np.maximum(offer.squares, 0.0))
        spread = s[0] - s[-1]
        return np.ones_like(s) if spread <= FLAT * s[0] else (s - s[-1]) / spread


@dataclass(frozen=True)
class Greedy(Allocator):
    """What lowers the sum of relative errors most for its cost first; see the head of this file."""

    def _allocate(self, offers: Sequence[Offer], budget: float) -> Ranks:
        paths = [hull(offer) for offer in offers]
        moves = [
            ((errors[k] - errors[k + 1]) / (costs[k + 1] - costs[k]), costs[k + 1] - costs[k], n, k)
            for n, (_, costs, errors) in enumerate(paths)
            for k in range(len(costs) - 1)
        ]
        at, left = [0] * len(offers), budget - sum(costs[0] for _, costs, _ in paths)
        for _, cost, n, k in sorted(moves, key=lambda move: (-move[0], move[2], move[3])):
            if at[n] == k and cost <= left:  # a move that does not fit holds the later ones of its layer
                at[n], left = k + 1, left - cost
        ranks = [path[0][k] for path, k in zip(paths, at, strict=True)]
        return _filled(offers, ranks, left)


def _filled(offers: Sequence[Offer], ranks: Ranks, left: float) -> Ranks:
    """Spend what is left of a budget, where errors are largest first, off the hulls too."""
    ranks = list(ranks)
    for n in sorted(range(len(offers)), key=lambda n: -offers[n].loss(ranks[n])):
        offer, now = offers[n], ranks[n]
        if now is None:
            continue
        room = offer.cost(now) + left
        more = [rank for rank in (*offer.ranks, None) if offer.cost(rank) <= room]
        best = more[-1] if more else now
        if offer.error(best) < offer.error(now):
            left -= offer.cost(best) - offer.cost(now)
            ranks[n] = best
    return ranks


def hull(offer: Offer) -> tuple[Ranks, list[float], list[float]]:
    """Return the ranks on the lower hull of error over cost, from the cheapest to the whole, and both.

    >>> hull(Offer(np.array([4.0, 1.0, 1.0]), 6.0, unit=1, whole=2.5))
    ([1, None], [1.0, 2.5], [0.3333333333333333, 0.0])
    """
    points = [(offer.cost(rank), offer.loss(rank), rank) for rank in (*offer.ranks, None)]
    kept: list[tuple[float, float, int | None]] = []
    for point in points:
        while len(kept) > 1 and _above(kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    return [rank for _, _, rank in kept], [cost for cost, _, _ in kept], [error for _, error, _ in kept]


def _above(a: tuple, b: tuple, c: tuple) -> bool:
    """Return whether b lies on or above the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])


ALLOCATORS: dict[str, Allocator] = {
    "greedy": Greedy(),
    "uniform": Uniform(),
    "energy": Energy(),
    "value": Value(),
    "threshold": Threshold(),
}
