"""Null spaces: found per connected component, or declared; projected out of b and x.

A symmetric A with zero row sums on a connected component annihilates the constant on it: a pure Neumann
pressure system has one such vector for every pocket of fluid. The projection is orthogonal, v - Z (Z^T v)
with orthonormal Z, so a consistent right side is left alone and an inconsistent one becomes the least-squares
problem's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import ShapeError, StructureError
from neuralsolve.kernels import table


@dataclass(frozen=True)
class NullSpace:
    """Constants on disjoint components (`labels`, `counts`), or a general orthonormal `basis`.

    Attributes
    ----------
    labels : (n,) int32, component of every entry, -1 where no null vector lives; (n, k) where every column is
        a system of its own; None with a basis
    counts : (m,) float64, entries of every component
    basis : (n, m) float64, orthonormal columns; None with labels
    """

    labels: Tensor | None = None
    counts: Tensor | None = None
    basis: Tensor | None = None

    @property
    def dimension(self) -> int:
        """Number of independent null vectors."""
        known = self.counts if self.basis is None else self.basis.T
        return 0 if known is None else len(known)

    @cached_property
    def _flat_labels(self) -> Tensor:
        """The labels (n k,): one tensor, by which kernels remember how its entries are grouped."""
        assert self.labels is not None
        return self.labels.reshape(-1)

    def project(self, v: Tensor) -> Tensor:
        """Take the null space out of v ``(n,)`` or ``(n, k)`` in place.

        Return the 2-norm removed, per column.
        """
        if self.basis is not None:
            part = self.basis.T @ v
            v -= self.basis @ part
            return torch.linalg.vector_norm(part, dim=0)
        assert self.labels is not None
        if self.labels.ndim == 1:
            return table(v.device).subtract_means(self.labels, self.counts, v)
        before = v.clone()
        table(v.device).subtract_means(self._flat_labels, self.counts, v.view(-1))
        return torch.linalg.vector_norm(before - v, dim=0)

    def to(self, device: torch.device) -> NullSpace:
        """Return the null space on another device."""
        parts = (self.labels, self.counts, self.basis)
        if all(part is None or part.device == device for part in parts):
            return self
        return NullSpace(*(None if part is None else part.to(device) for part in parts))

    def describe(self) -> str:
        """One phrase for a solve's explanation."""
        if self.basis is not None:
            return f"null space of dimension {self.dimension} (given) projected out"
        if self.dimension == 1:
            return "constant null space projected out"
        return f"constant null space of {self.dimension} components projected out"


def from_components(labels: np.ndarray, singular: np.ndarray) -> NullSpace | None:
    """Build the null space from component labels ``(n,)`` (-1.

    None) and a flag per component, singular or not.
    """
    kept = np.flatnonzero(singular)
    if len(kept) == 0:
        return None
    renumber = np.full(len(singular) + 1, -1, np.int32)  # the last entry serves the label -1
    renumber[kept] = np.arange(len(kept), dtype=np.int32)
    labels = renumber[labels]
    counts = np.bincount(labels[labels >= 0], minlength=len(kept)).astype(np.float64)
    return NullSpace(torch.from_numpy(labels), torch.from_numpy(counts))


def from_vectors(vectors: object, n: int) -> NullSpace:
    """Build the null space spanned by ``(n,)`` or ``(n, m)`` vectors, NumPy or torch.

    Orthonormalised here.
    """
    Z = vectors if isinstance(vectors, Tensor) else torch.from_numpy(np.array(vectors, np.float64))
    Z = Z.detach().to("cpu", torch.float64)
    Z = Z[:, None] if Z.ndim == 1 else Z
    if Z.ndim != 2 or len(Z) != n or not 1 <= Z.shape[1] <= n:
        msg = f"null_space is {tuple(Z.shape)}; it must be ({n},) or ({n}, m), m vectors that A maps to zero"
        raise ShapeError(msg)
    Q, R = torch.linalg.qr(Z)
    size = R.diagonal().abs()
    if (
        not bool(torch.isfinite(Z).all())
        or bool((size <= 1e-12 * size.max()).any())
        or float(size.max()) == 0
    ):
        msg = (
            "null_space has dependent, zero or non-finite vectors; pass independent ones (scipy.linalg.orth "
            "mends)"
        )
        raise StructureError(msg)
    return NullSpace(basis=Q.contiguous())
