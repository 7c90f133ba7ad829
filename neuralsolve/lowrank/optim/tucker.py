"""Gradients of three and more axes in their own axes: a Tucker basis, a unitary matrix for each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.optim.projectors import Basis, Place, Projector, Rank
from neuralsolve.lowrank.tucker import along, hooi
from neuralsolve.lowrank.views import MatrixView


@dataclass(frozen=True)
class TuckerProjector(Projector):
    """The core of the gradient's Tucker decomposition, by higher-order orthogonal iteration.

    The rank of the group is a part of all entries, which every axis shares in alike; a whole number, for each
    axis that has so many; or a tuple, one for each axis.

    Parameters
    ----------
    iterations : of the first decomposition; one from then on, started from the factors before
    """

    iterations: int = 10

    def seen(self, value: Tensor, view: MatrixView | None, turned: bool) -> Tensor:
        pairs = view is not None and view.pairs
        return torch.view_as_complex(value.contiguous()) if pairs else value

    def unseen(self, A: Tensor, view: MatrixView | None, turned: bool, shape: torch.Size) -> Tensor:
        return A if A.shape == shape else torch.view_as_real(A.resolve_conj())

    def fit(self, rank: Rank, shape: torch.Size, what: str) -> Rank:
        if isinstance(rank, tuple):
            if len(rank) != len(shape) or not all(1 <= r <= n for r, n in zip(rank, shape, strict=True)):
                msg = f"rank = {rank} of {what}; one for each axis is needed, from 1 to {tuple(shape)}"
                raise OptionError(msg)
            return rank
        if isinstance(rank, float):
            if not 0 < rank <= 1:
                msg = f"rank = {rank} of {what}; a part is more than 0 and at most 1"
                raise OptionError(msg)
            part = rank ** (1 / len(shape))
            return _possible([min(n, math.ceil(part * n - 1e-9)) for n in shape])
        if rank < 1:
            msg = f"rank = {rank} of {what}; at least 1 is needed"
            raise OptionError(msg)
        return _possible([min(rank, n) for n in shape])

    def refresh(self, A: Tensor, rank: Rank, old: Basis | None, place: Place) -> dict[str, Tensor]:
        assert isinstance(rank, tuple)
        fits = old is not None and all(Q.shape[1] == r for Q, r in zip(_factors(old), rank, strict=True))
        if old is not None and fits:
            found = hooi(A, rank, warm=_factors(old), iterations=1)
        else:
            found = hooi(A, rank, iterations=self.iterations)
        return {f"factor{axis}": Q.contiguous() for axis, Q in enumerate(found.factors)}

    def down(self, A: Tensor, basis: Basis) -> Tensor:
        return _along(A, [Q.mH for Q in _factors(basis)])

    def up(self, g: Tensor, basis: Basis, shape: torch.Size) -> Tensor:
        return _along(g, _factors(basis))

    def carry(self, x: Tensor, new: Basis, old: Basis, *, squared: bool) -> Tensor:
        turns = self._turns(new, old)
        return _along(x, [(C * C.conj()).real for C in turns] if squared else turns)

    def alignment(self, new: Basis, old: Basis) -> float:
        return math.prod(float((C * C.conj()).real.sum()) / min(C.shape) for C in self._turns(new, old))

    def _turns(self, new: Basis, old: Basis) -> list[Tensor]:
        return [Q.mH @ P for Q, P in zip(_factors(new), _factors(old), strict=True)]


def _possible(ranks: list[int]) -> tuple[int, ...]:
    """Return the ranks, none above the product of the others: a core has no more."""
    for axis, rank in enumerate(ranks):
        ranks[axis] = min(rank, math.prod(ranks[:axis] + ranks[axis + 1 :]))
    return tuple(ranks)


def _factors(basis: Basis) -> list[Tensor]:
    return [basis[f"factor{axis}"] for axis in range(len(basis))]


def _along(T: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    for axis, M in enumerate(matrices):
        T = along(T, M, axis)
    return T.contiguous()
