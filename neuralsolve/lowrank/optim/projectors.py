"""Where an optimizer keeps its state: subspaces of few directions, and how gradients go there and back.

A projector sees the gradient of a parameter as A (..., m, n), its rows the side that is projected, and keeps
a basis P (..., m, r) with orthonormal columns:

    down   g = P^H A  (..., r, n)         up   P u  (..., m, n)

When the basis changes from P to Q, moments of Adam are carried over by C = Q^H P: the first as C m, the
second as |C|^2 v, entry by entry squared, so that it stays positive and is exact where the coordinates of g
are uncorrelated. Adjoints of complex matrices are conjugate.

Sources: GaLore (Zhao et al., ICML 2024, arXiv 2403.03507), alg. 2, for `SVDProjector("exact")`; a warm start
by one step of subspace iteration, the rotation of moments and the conjugate are ours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from neuralsolve.errors import OptionError, check_known
from neuralsolve.lowrank.orthonormal import orthonormalize
from neuralsolve.lowrank.range_finder import range_basis
from neuralsolve.lowrank.svd import svd
from neuralsolve.lowrank.views import MatrixView

Basis = Mapping[str, Tensor]
Rank = int | float | tuple[int, ...]
FIRST = "basis"


class Place(NamedTuple):
    """Which refresh this is: everything drawn at random is a function of it.

    Attributes
    ----------
    seed, step : of the optimizer, and steps that the parameter has taken
    which, sizes : the number of the parameter among the projected ones, and the entries of all of these
    """

    seed: int
    step: int
    which: int = 0
    sizes: tuple[int, ...] = ()

    def generator(self, shared: bool = False) -> torch.Generator:
        """Return random numbers of this place; `shared`: the same for all parameters."""
        mixed = 1_000_003 * self.seed + 7919 * self.step + (0 if shared else 104_729 * (self.which + 1))
        return torch.Generator().manual_seed(mixed % 2**63)


class Projector(ABC):
    """A kind of subspace: frozen options, no state; bases are plain tensors by name."""

    ordered = False  # whether it wants an axis of points of a line
    stacked = False  # whether it takes a batch of gradients as it takes each of them

    def takes(self, parameter: Tensor, view: MatrixView | None) -> bool:
        """Say whether a parameter can be projected; others take AdamW."""
        return view is not None

    def seen(self, value: Tensor, view: MatrixView | None, turned: bool) -> Tensor:
        """Return a gradient as the projector takes it: (..., m, n), rows the side that is projected."""
        assert view is not None
        matrix = view.to_matrix(value)
        return matrix.mT if turned else matrix

    def unseen(self, A: Tensor, view: MatrixView | None, turned: bool, shape: torch.Size) -> Tensor:
        """Return the parameter of that shape; `seen` undone."""
        assert view is not None
        return view.from_matrix(A.mT if turned else A, shape)

    def fit(self, rank: Rank, shape: torch.Size, what: str) -> Rank:
        """Return the rank for a gradient of a shape: a part of min(m, n) as a number.

        Raises
        ------
        OptionError
            A rank that the matrix cannot have; a part is rounded up and always fits.
        """
        return fitting_rank(rank, min(shape[-2:]), what)

    @abstractmethod
    def refresh(self, A: Tensor, rank: Rank, old: Basis | None, place: Place) -> dict[str, Tensor]:
        """Return the basis for a gradient; `old` is the one before."""

    @abstractmethod
    def down(self, A: Tensor, basis: Basis) -> Tensor:
        """Return the coordinates of A."""

    @abstractmethod
    def up(self, g: Tensor, basis: Basis, shape: torch.Size) -> Tensor:
        """Return what has these coordinates, of the shape of A."""

    @abstractmethod
    def carry(self, x: Tensor, new: Basis, old: Basis, *, squared: bool) -> Tensor:
        """Return a moment in the new coordinates; `squared` says it is a second one."""

    @abstractmethod
    def alignment(self, new: Basis, old: Basis) -> float:
        """Return the mean squared cosine of the principal angles between two subspaces, in [0, 1]."""


def fitting_rank(rank: Rank, most: int, what: str) -> int:
    """Return a whole rank of at most `most`; see `Projector.fit`.

    >>> fitting_rank(0.25, 30, "weight"), fitting_rank(8, 30, "weight")
    (8, 8)
    """
    if isinstance(rank, bool) or not isinstance(rank, int | float):
        msg = f"rank = {rank!r} of {what}; a whole number, or a part of its {most} as 0.25, is needed"
        raise OptionError(msg)
    if isinstance(rank, float):
        if not 0 < rank <= 1:
            msg = f"rank = {rank} of {what}; a part is more than 0 and at most 1"
            raise OptionError(msg)
        return max(1, -int(-rank * most // 1))
    if not 1 <= rank <= most:
        msg = f"rank = {rank} of {what}, whose shorter side is {most}; rank = 1 to {most}, or a part as 0.25"
        raise OptionError(msg)
    return rank


class Orthonormal(Projector):
    """A basis P (..., m, r) that is kept as it is; kinds differ in how they choose it."""

    def down(self, A: Tensor, basis: Basis) -> Tensor:
        return basis[FIRST].mH @ A

    def up(self, g: Tensor, basis: Basis, shape: torch.Size) -> Tensor:
        return basis[FIRST] @ g

    def carry(self, x: Tensor, new: Basis, old: Basis, *, squared: bool) -> Tensor:
        C = new[FIRST].mH @ old[FIRST]
        return (C * C.conj()).real @ x if squared else C @ x

    def alignment(self, new: Basis, old: Basis) -> float:
        C = new[FIRST].mH @ old[FIRST]
        return float((C * C.conj()).real.sum((-2, -1)).mean() / min(C.shape[-2:]))


@dataclass(frozen=True)
class SVDProjector(Orthonormal):
    """The leading left singular vectors of the gradient at hand.

    Parameters
    ----------
    method : "exact"; "randomized"; "warm": one or more steps of subspace iteration, from the basis before
    iterations : of "warm" and "randomized"

    Examples
    --------
    >>> A = torch.outer(torch.tensor([3.0, 0.0, 4.0]), torch.ones(5))
    >>> projector = SVDProjector("exact")
    >>> basis = projector.refresh(A, 1, None, Place(seed=7, step=0))
    >>> torch.allclose(projector.up(projector.down(A, basis), basis, A.shape), A)
    True
    """

    method: str = "warm"
    iterations: int = 1

    def __post_init__(self) -> None:
        check_known("method =", self.method, ("exact", "randomized", "warm"))
        if self.iterations < 1:
            msg = f"iterations = {self.iterations}; at least 1 is needed"
            raise OptionError(msg)

    @property
    def stacked(self) -> bool:  # type: ignore[override]
        """All but random starts."""
        return self.method != "randomized"

    def refresh(self, A: Tensor, rank: Rank, old: Basis | None, place: Place) -> dict[str, Tensor]:
        assert isinstance(rank, int)
        if self.method == "warm" and old is not None and old[FIRST].shape[-1] == rank:
            found = old[FIRST]
            for _ in range(self.iterations):
                found = orthonormalize(A @ (A.mH @ found))
        elif self.method == "randomized":
            generator, turns = place.generator(), self.iterations
            found = range_basis(A, rank, side="left", iterations=turns, generator=generator)
        else:
            found = svd(A, rank, method="exact").U
        return {FIRST: found.contiguous()}


@dataclass(frozen=True)
class RandomProjector(Orthonormal):
    """Directions drawn at random, no gradient asked."""

    def refresh(self, A: Tensor, rank: Rank, old: Basis | None, place: Place) -> dict[str, Tensor]:
        assert isinstance(rank, int)
        drawn = torch.randn((*A.shape[:-1], rank), generator=place.generator(), dtype=A.dtype)
        return {FIRST: orthonormalize(drawn).to(A.device)}


@dataclass(frozen=True)
class TwoSided(Projector):
    """Both sides at once, g = P^H A Q: a core of r x r numbers."""

    one: Projector

    def refresh(self, A: Tensor, rank: Rank, old: Basis | None, place: Place) -> dict[str, Tensor]:
        before = (None, None) if old is None else self._sides(old)
        rows = self.one.refresh(A, rank, before[0], place)
        columns = self.one.refresh(A.mT, rank, before[1], place)
        return rows | {f"other_{name}": value for name, value in columns.items()}

    def down(self, A: Tensor, basis: Basis) -> Tensor:
        rows, columns = self._sides(basis)
        return self.one.down(self.one.down(A, rows).mT, columns).mT

    def up(self, g: Tensor, basis: Basis, shape: torch.Size) -> Tensor:
        rows, columns = self._sides(basis)
        tall = self.one.up(g, rows, torch.Size((*shape[:-1], g.shape[-1])))
        return self.one.up(tall.mT, columns, torch.Size((*shape[:-2], shape[-1], shape[-2]))).mT

    def carry(self, x: Tensor, new: Basis, old: Basis, *, squared: bool) -> Tensor:
        rows, columns = zip(self._sides(new), self._sides(old), strict=True)
        moved = self.one.carry(x, *rows, squared=squared)
        return self.one.carry(moved.mT, *columns, squared=squared).mT.contiguous()

    def alignment(self, new: Basis, old: Basis) -> float:
        rows, columns = zip(self._sides(new), self._sides(old), strict=True)
        return min(self.one.alignment(*rows), self.one.alignment(*columns))

    def _sides(self, basis: Basis) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        other = {name[6:]: value for name, value in basis.items() if name.startswith("other_")}
        return {name: value for name, value in basis.items() if not name.startswith("other_")}, other


@dataclass(frozen=True)
class Identity(Projector):
    """The whole parameter in its own coordinates; complex ones as pairs of real numbers.

    Parameters
    ----------
    matrices : whether matrices alone are taken, and as such
    """

    matrices: bool = False

    def takes(self, parameter: Tensor, view: MatrixView | None) -> bool:
        if self.matrices:
            return super().takes(parameter, view)
        return parameter.is_floating_point() or parameter.is_complex()

    def seen(self, value: Tensor, view: MatrixView | None, turned: bool) -> Tensor:
        if self.matrices:
            return super().seen(value, view, turned)
        return torch.view_as_real(value.resolve_conj()) if value.is_complex() else value

    def unseen(self, A: Tensor, view: MatrixView | None, turned: bool, shape: torch.Size) -> Tensor:
        if self.matrices:
            return super().unseen(A, view, turned, shape)
        return A if A.shape == shape else torch.view_as_complex(A.contiguous())

    def fit(self, rank: Rank, shape: torch.Size, what: str) -> Rank:
        return rank

    def refresh(self, A: Tensor, rank: Rank, old: Basis | None, place: Place) -> dict[str, Tensor]:
        return {}

    def down(self, A: Tensor, basis: Basis) -> Tensor:
        return A

    def up(self, g: Tensor, basis: Basis, shape: torch.Size) -> Tensor:
        return g

    def carry(self, x: Tensor, new: Basis, old: Basis, *, squared: bool) -> Tensor:
        return x

    def alignment(self, new: Basis, old: Basis) -> float:
        return 1.0
