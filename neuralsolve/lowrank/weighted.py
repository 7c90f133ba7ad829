"""Low rank in the norm that counts: weights on the two sides, or several matrices with one basis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError, StructureError
from neuralsolve.lowrank.decompositions import check_finite, dense_eigh
from neuralsolve.lowrank.factors import SVD
from neuralsolve.lowrank.products import HALF, as_tensor
from neuralsolve.lowrank.svd import svd
from neuralsolve.lowrank.updates import recompress


@dataclass(frozen=True)
class PSD:
    """A Hermitian positive semi-definite matrix by its eigenvalues (..., n), descending, and vectors."""

    values: Tensor
    vectors: Tensor

    def sqrt(self) -> Tensor:
        """Return C^(1/2), (..., n, n), Hermitian."""
        return self.power(0.5)

    def inverse_sqrt(self) -> Tensor:
        """Return C^(-1/2), (..., n, n), Hermitian; the pseudo-inverse where eigenvalues are zero."""
        return self.power(-0.5)

    def power(self, exponent: float) -> Tensor:
        """Return C^exponent; zero eigenvalues stay zero."""
        positive = self.values > 0
        powers = torch.where(positive, self.values, 1.0) ** exponent * positive
        return (self.vectors * powers[..., None, :].to(self.vectors.dtype)) @ self.vectors.mH


def psd_eigh(C: Tensor, floor: float = 1e-8) -> PSD:
    """Return the eigenvalues and vectors of a covariance C (..., n, n), small eigenvalues raised.

    Of N < n samples C has n - N eigenvalues that are zero up to rounding, also below it: all are raised to
    `floor` times the largest, so that C^(-1/2) exists and is at most floor^(-1/2) times too large.

    Raises
    ------
    StructureError
        C that is not Hermitian, or has an eigenvalue below zero that is no rounding.
    ShapeError, NonFiniteError, OptionError

    Examples
    --------
    >>> psd_eigh(torch.diag(torch.tensor([4.0, 0.0])), floor=0.25).inverse_sqrt().tolist()
    [[0.5, 0.0], [0.0, 1.0]]
    """
    C = as_tensor(C)
    if C.ndim < 2 or C.shape[-1] != C.shape[-2] or 0 in C.shape:
        msg = f"got C of shape {tuple(C.shape)}; square (..., n, n) is needed: X.mH @ X of samples X (N, n)"
        raise ShapeError(msg)
    if not 0 <= floor < 1:
        msg = f"got floor={floor!r}, a part of the largest eigenvalue; 0 <= floor < 1 is needed: floor=1e-8"
        raise OptionError(msg)
    check_finite(C, "C")
    C = C.float() if C.dtype in HALF else C
    slack = torch.finfo(C.dtype).eps ** 0.5
    if bool((torch.linalg.matrix_norm(C - C.mH) > slack * torch.linalg.matrix_norm(C)).any()):
        msg = "C is not Hermitian; (C + C.mH)/2 is, if that is what is meant"
        raise StructureError(msg)
    values, vectors = dense_eigh((C + C.mH) / 2)
    if bool((values[..., -1] < -slack * values.abs().amax(-1)).any()):
        least = float(values.min())
        msg = f"C has the eigenvalue {least:.3g}: not positive semi-definite; a covariance X.mH @ X is"
        raise StructureError(msg)
    return PSD(values.clamp_min(0).maximum(floor * values[..., :1].clamp_min(0)), vectors)


def weighted_svd(A: Tensor, rank: int, left: Any = None, right: Any = None) -> SVD:
    """Return the X of a rank nearest to A (..., m, n) in ||left^(1/2) (A - X) right^(1/2)||_F, as its SVD.

    X = left^(-1/2) [left^(1/2) A right^(1/2)]_rank right^(-1/2): what is left is the tail of the singular
    values of left^(1/2) A right^(1/2), which `error` tells. For y = A x with covariance `right` of x that is
    the root of the mean square of what is wrong with y.

    Parameters
    ----------
    left, right : Hermitian positive semi-definite (..., m, m) and (..., n, n), or their `PSD`; identity
        where None

    Raises
    ------
    ShapeError, OptionError, StructureError, NonFiniteError

    Examples
    --------
    >>> A = torch.diag(torch.tensor([3.0, 2.0]))
    >>> seen = torch.diag(torch.tensor([1.0, 100.0]))  # x has little in its first entry
    >>> weighted_svd(A, 1, right=seen).to_dense().round().abs().tolist()
    [[0.0, 0.0], [0.0, 2.0]]
    """
    A = as_tensor(A)
    weights = [w if w is None or isinstance(w, PSD) else psd_eigh(w) for w in (left, right)]
    for name, weight, size in zip(("left", "right"), weights, A.shape[-2:], strict=True):
        if weight is not None and weight.values.shape[-1] != size:
            msg = f"A is {tuple(A.shape)}, {name} is of size {weight.values.shape[-1]}; {size} is needed"
            raise ShapeError(msg)
    left, right = weights
    B = A if left is None else left.sqrt().to(A.dtype) @ A
    B = B if right is None else B @ right.sqrt().to(A.dtype)
    found = svd(B, rank)
    if left is None and right is None:
        return found
    L, R = found.U * found.s[..., None, :].to(found.U.dtype), found.Vh
    L = L if left is None else left.inverse_sqrt().to(A.dtype) @ L
    R = R if right is None else R @ right.inverse_sqrt().to(A.dtype)
    back = recompress(L, R)
    return SVD(back.U, back.s, back.Vh, found.error, "weighted")


def joint_svd(matrices: Sequence[Tensor], rank: int, axis: str = "columns") -> tuple[SVD, list[Tensor]]:
    """Return the SVD of several matrices side by side, and the part of each.

    Parameters
    ----------
    matrices : (..., m, n_i) each for "columns", which get one U; (..., m_i, n) for "rows", which get one Vh
    rank : of the whole
    axis : "columns" or "rows", along which they are put together

    Returns
    -------
    SVD
        Of [W_1, W_2, ...], or of them one above the other.
    list of Tensor
        Vh_i (..., rank, n_i) with W_i ~ U diag(s) Vh_i, or U_i (..., m_i, rank) with W_i ~ U_i diag(s) Vh.

    Raises
    ------
    ShapeError, OptionError, NonFiniteError

    Examples
    --------
    >>> found, parts = joint_svd([torch.ones(3, 2), 2 * torch.ones(3, 4)], rank=1)
    >>> torch.allclose(found.U * found.s @ parts[1], 2 * torch.ones(3, 4))
    True
    """
    if axis not in ("columns", "rows"):
        msg = f"got axis={axis!r}; 'columns' (one U for all) or 'rows' (one Vh for all) is needed"
        raise OptionError(msg)
    along, shared = (-1, -2) if axis == "columns" else (-2, -1)
    tensors = [as_tensor(matrix) for matrix in matrices]
    sizes = {(*each.shape[:-2], each.shape[shared]) for each in tensors}
    if len(sizes) != 1:
        shapes = [tuple(each.shape) for each in tensors]
        need = "rows" if axis == "columns" else "columns"
        msg = f"got matrices of shapes {shapes}; one at least, of as many {need}, is needed"
        raise ShapeError(msg)
    found = svd(torch.cat(tensors, along), rank)
    lengths = [each.shape[along] for each in tensors]
    return found, list((found.Vh if axis == "columns" else found.U).split(lengths, along))
