"""Spectral weights, a matrix for every Fourier mode, each by factors of a rank of its own.

    W_k = B_k A_k,   B_k (out, r_k), A_k (r_k, in),   0 <= r_k;   W_k itself where factors would be larger

What a smooth operator does to high modes counts little: those get a low rank or none, and the low ones stay
whole, which one rank, or one Tucker core for all modes, cannot do. A layer that reads the weights gets them
formed anew: factors save storage, not time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.lowrank.svd import svd
from neuralsolve.lowrank.views import MatrixView


class FactoredSpectral(nn.Module):
    """The weights of a spectral layer, in the place of the module that held them.

    Parameters
    ----------
    view : how the dense parameter is a batch of matrices, one a mode
    shape : of the dense parameter
    ranks : of every mode, 0 for none; from `break_even` on the mode is kept whole
    dtype, device : of the dense parameter: complex, or real where the view has pairs

    Raises
    ------
    ShapeError
        Not one rank for each mode.
    OptionError
        A rank below 0.

    Examples
    --------
    >>> layer = FactoredSpectral(MatrixView((1,), (0,)), (8, 6, 3), [0, 2, 6], torch.complex64)
    >>> layer.to_dense().shape, layer.ranks
    (torch.Size([8, 6, 3]), [0, 2, 6])
    >>> torch.linalg.matrix_rank(layer.to_dense().detach().movedim(-1, 0)).tolist()
    [0, 2, 6]
    """

    matrix_views: ClassVar = {"left": None, "right": None, "whole": None}  # rows of them are of many matrices

    def __init__(
        self,
        view: MatrixView,
        shape: Sequence[int],
        ranks: Sequence[int],
        dtype: torch.dtype,
        device: Any = None,
    ):
        super().__init__()
        self.view, self.shape, self.dtype = view, tuple(shape), dtype
        *batch, self.outputs, self.inputs = _matrix_shape(view, shape)
        self.modes = math.prod(batch)
        if len(ranks) != self.modes:
            msg = f"got {len(ranks)} ranks for {self.modes} modes; one each is needed"
            raise ShapeError(msg)
        if min(ranks, default=0) < 0:
            msg = f"got a rank of {min(ranks)}; 0 for a mode that is left out, or more, is needed"
            raise OptionError(msg)
        most = min(self.outputs, self.inputs)
        even = break_even(self.outputs, self.inputs)
        self.ranks = [most if rank >= even else int(rank) for rank in ranks]
        thin = [0 if rank >= even else rank for rank in self.ranks]
        self.width = max(thin, default=0)
        places = [k * self.width + j for k, rank in enumerate(thin) for j in range(rank)]
        kept = [k for k, rank in enumerate(self.ranks) if rank >= even]
        self.places: Tensor
        self.kept: Tensor
        self.register_buffer("places", torch.tensor(places, dtype=torch.int64, device=device), False)
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.int64, device=device), False)
        size = 1 / math.sqrt(self.inputs)
        self.left = self._drawn(size, len(places), self.outputs, device=device)
        self.right = self._drawn(size, len(places), self.inputs, device=device)
        self.whole = self._drawn(size, len(kept), self.outputs, self.inputs, device=device)

    def _drawn(self, size: float, *shape: int, device: Any) -> nn.Parameter:
        last = (2,) if self.view.pairs else ()
        return nn.Parameter(size * torch.randn(*shape, *last, dtype=self.dtype, device=device))

    @property
    def rank(self) -> float:
        """Mean over the modes."""
        return sum(self.ranks) / max(1, self.modes)

    @property
    def pairs(self) -> Tensor:
        """The dense parameter, of real and imaginary parts, where the view has pairs."""
        return self.to_dense()

    def to_dense(self) -> Tensor:
        """Return the dense parameter; differentiable, formed at every call."""
        return self.view.from_matrix(self.matrices(), self.shape)

    def matrices(self) -> Tensor:
        """Return the matrices (modes, out, in), complex."""
        left, right, whole = (self._joined(part) for part in (self.left, self.right, self.whole))
        padded = (
            part.new_zeros(self.modes * self.width, part.shape[-1]).index_copy(0, self.places, part)
            for part in (left, right)
        )
        B, A = (part.view(self.modes, self.width, part.shape[-1]) for part in padded)
        return (B.mT @ A).index_copy(0, self.kept, whole)

    def forward(self, modes: Tensor) -> Tensor:
        """Return the products, of modes ``(batch, channels, *sides)`` of the same sides."""
        rows = modes.flatten(2).movedim(2, 0)
        return (rows @ self.matrices().mT).movedim(0, 2).reshape(len(modes), self.outputs, *modes.shape[2:])

    def __getitem__(self, index: Any) -> Tensor:
        return self.to_dense()[index]

    @torch.no_grad()
    def set_matrices(self, factors: Sequence[tuple[Tensor, Tensor] | Tensor]) -> None:
        """Take, for every mode, B (out, r) and A (r, in), or the whole matrix (out, in) where it is kept."""
        thin = [each for each in factors if isinstance(each, tuple)]
        whole = [each for each in factors if isinstance(each, Tensor)]
        if thin and len(self.places):
            self.left.copy_(self._split(torch.cat([B.mT for B, _ in thin])))
            self.right.copy_(self._split(torch.cat([A for _, A in thin])))
        if whole:
            self.whole.copy_(self._split(torch.stack(whole)))

    def truncate(self, rank: int) -> FactoredSpectral:
        """Return the weights with no mode of a higher rank; whole ones of a higher rank are factored.

        Raises
        ------
        OptionError
        """
        ranks = [min(rank, each) for each in self.ranks]
        made = FactoredSpectral(self.view, self.shape, ranks, self.dtype, self.left.device)
        kept = set(made.kept.tolist())
        made.set_matrices(
            [
                W if k in kept else svd(W, made.ranks[k]).balanced() if made.ranks[k] else _nothing(W)
                for k, W in enumerate(self.matrices().detach())
            ]
        )
        return made

    def _joined(self, part: Tensor) -> Tensor:
        return torch.view_as_complex(part) if self.view.pairs else part

    def _split(self, part: Tensor) -> Tensor:
        return torch.view_as_real(part.resolve_conj()) if self.view.pairs else part


def break_even(outputs: int, inputs: int) -> int:
    """Return the smallest rank whose factors are no smaller than the matrix.

    >>> break_even(20, 20), break_even(8, 72)
    (10, 8)
    """
    return -(-outputs * inputs // (outputs + inputs))


def _nothing(W: Tensor) -> tuple[Tensor, Tensor]:
    return W[:, :0], W[:0]


def _matrix_shape(view: MatrixView, shape: Sequence[int]) -> torch.Size:
    kind = torch.float32 if view.pairs else torch.complex64
    return view.to_matrix(torch.empty(tuple(shape), dtype=kind, device="meta")).shape
