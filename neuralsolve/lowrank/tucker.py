"""Tucker form of tensors with several axes: a small core and an orthonormal factor for each axis.

T[i, j, ...] ~ sum core[a, b, ...] U_1[i, a] U_2[j, b] ...; of convolution and spectral weights.
De Lathauwer, De Moor & Vandewalle, SIAM J. Matrix Anal. Appl. 21 (2000) 1253-1278 (HOSVD), 1324-1342 (HOOI).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.lowrank.decompositions import check_finite
from neuralsolve.lowrank.products import HALF, as_tensor
from neuralsolve.lowrank.range_finder import check_count
from neuralsolve.lowrank.svd import svd


@dataclass(frozen=True)
class Tucker:
    """A tensor as core times factors.

    Attributes
    ----------
    core : (r_1, ..., r_d)
    factors : (n_i, r_i) each, orthonormal columns
    error : ||T - core x U_1 x ... x U_d||_F
    """

    core: Tensor
    factors: tuple[Tensor, ...]
    error: Tensor

    @property
    def ranks(self) -> tuple[int, ...]:
        """Sizes of the core."""
        return tuple(self.core.shape)

    def to_dense(self) -> Tensor:
        """Return the tensor (n_1, ..., n_d)."""
        T = self.core
        for axis, U in enumerate(self.factors):
            T = along(T, U, axis)
        return T


def along(T: Tensor, M: Tensor, axis: int) -> Tensor:
    """Return T with M applied along an axis, (..., n, ...) -> (..., m, ...) for M (m, n).

    >>> along(torch.ones(2, 3), torch.ones(1, 3), 1)
    tensor([[3.],
            [3.]])
    """
    return torch.tensordot(T.movedim(axis, -1), M.mT, 1).movedim(-1, axis)


def hooi(
    T: Any,
    ranks: Sequence[int],
    warm: Tucker | Sequence[Tensor] | None = None,
    iterations: int = 10,
    tol: float = 1e-6,
) -> Tucker:
    """Return T in Tucker form of given ranks, by higher-order orthogonal iteration.

    Each sweep takes, axis by axis, the best factor for the others as they are: the error never grows. It
    starts from `warm`, or from the truncated HOSVD, which is within sqrt(d) of the best there is.

    Parameters
    ----------
    T : tensor or array (n_1, ..., n_d), d >= 1, real or complex
    ranks : one for each axis, 1 to n_i, and none above the product of the others
    warm : the form of a tensor nearby, or its factors (n_i, r_i)
    iterations : sweeps at most; 0 leaves the start as it is
    tol : a sweep that lowers the squared error by less than tol^2 ||T||^2 is the last

    Raises
    ------
    ShapeError, OptionError, NonFiniteError

    Examples
    --------
    >>> T = torch.arange(24.0).reshape(2, 3, 4)  # i + j + k in three digits: of ranks (2, 2, 2)
    >>> found = hooi(T, (2, 2, 2))
    >>> found.ranks, torch.allclose(found.to_dense(), T, atol=1e-4)
    ((2, 2, 2), True)
    """
    T = as_tensor(T).detach()
    T = T.float() if T.dtype in HALF else T
    _check(T, ranks)
    check_count("iterations", iterations, least=0)
    check_finite(T, "T")
    factors = _start(T, ranks, warm)
    core = _core(T, factors)
    for _ in range(iterations):
        before = core.abs().double().square().sum()
        for axis in range(T.ndim):
            rest = _core(T, factors, but=axis)
            factors[axis] = _leading(rest, axis, ranks[axis])
        core = _core(T, factors)
        if core.abs().double().square().sum() - before <= tol**2 * T.abs().double().square().sum():
            break
    found = Tucker(core, tuple(factors), core.new_zeros(()).real)
    return Tucker(found.core, found.factors, torch.linalg.vector_norm(T - found.to_dense()))


def _core(T: Tensor, factors: Sequence[Tensor], but: int | None = None) -> Tensor:
    """Return T x U_1^H x ... x U_d^H, one axis left out."""
    for axis, U in enumerate(factors):
        if axis != but:
            T = along(T, U.mH, axis)
    return T


def _leading(T: Tensor, axis: int, rank: int) -> Tensor:
    """Return the leading left singular vectors (n, rank) of the unfolding along an axis."""
    unfolded = T.movedim(axis, 0).reshape(T.shape[axis], -1)
    wide = unfolded.shape[1] >= 4 * unfolded.shape[0]
    return svd(unfolded, rank, method="gram" if wide else "auto").U


def _start(T: Tensor, ranks: Sequence[int], warm: Tucker | Sequence[Tensor] | None) -> list[Tensor]:
    if warm is None:
        return [_leading(T, axis, rank) for axis, rank in enumerate(ranks)]
    factors = list(warm.factors if isinstance(warm, Tucker) else warm)
    need = [(n, r) for n, r in zip(T.shape, ranks, strict=True)]
    if [tuple(U.shape) for U in factors] != need:
        msg = f"warm has factors of shapes {[tuple(U.shape) for U in factors]}; {need} are needed"
        raise ShapeError(msg)
    return [U.to(T.dtype) for U in factors]


def _check(T: Tensor, ranks: Sequence[int]) -> None:
    if T.ndim < 1 or 0 in T.shape:
        msg = f"got T of shape {tuple(T.shape)}; one axis at least, none of length 0, is needed"
        raise ShapeError(msg)
    if len(ranks) != T.ndim:
        msg = f"T {tuple(T.shape)} has {T.ndim} axes and got {len(ranks)} ranks; one for each is needed"
        raise OptionError(msg)
    for axis, rank in enumerate(ranks):
        others = 1
        for other, size in enumerate(ranks):
            others *= size if other != axis else 1
        most = T.shape[axis] if T.ndim == 1 else min(T.shape[axis], others)
        check_count(f"ranks[{axis}]", rank, most)
