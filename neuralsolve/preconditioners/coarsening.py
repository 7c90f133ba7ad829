"""The hierarchy of algebraic multigrid, made by PyAMG and kept as bare CSR tensors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from neuralsolve.errors import StructureError

DENSE_LIMIT = 1000  # rows up to which the coarsest matrix is inverted densely, in about a third of a second
WEIGHT_LIMIT = 1e3  # row sums of |P|: at most 1 for an M-matrix, far beyond where cancellation has struck
ROUNDING = 1e-12  # of the terms of a coarse diagonal entry, below which it is their rounding error
SEED = 271

Rows = tuple[Tensor, Tensor, Tensor]  # indptr, indices, values


@dataclass
class Level:
    """A on one level, and the way to the next: x += P (coarse correction of R (b - A x)).

    Attributes
    ----------
    A, P, R : CSR tensors of a (fine, fine), a (fine, coarse) and a (coarse, fine) matrix
    sizes : (fine, coarse)
    """

    A: Rows
    P: Rows
    R: Rows
    sizes: tuple[int, int]

    def transposed(self) -> Level:
        """Return the level of A^T."""
        fine, coarse = self.sizes
        return Level(
            transpose(self.A, (fine, fine)),
            transpose(self.R, (coarse, fine)),
            transpose(self.P, (fine, coarse)),
            self.sizes,
        )


@dataclass
class Hierarchy:
    """All levels, the coarsest matrix and its pseudo-inverse, None where that would be too large.

    `notes` tells what was done differently from what was asked, and why.
    """

    levels: list[Level]
    coarsest: Rows
    inverse: Tensor | None
    notes: list[str]

    @property
    def sizes(self) -> list[int]:
        """Number of stored entries of every level's matrix."""
        return [len(level.A[2]) for level in self.levels] + [len(self.coarsest[2])]

    def transposed(self) -> Hierarchy:
        """Return the hierarchy of A^T."""
        n = len(self.coarsest[0]) - 1
        inverse = None if self.inverse is None else self.inverse.T.contiguous()
        levels = [level.transposed() for level in self.levels]
        return Hierarchy(levels, transpose(self.coarsest, (n, n)), inverse, self.notes)


def classical(
    S: scipy.sparse.csr_array,
    symmetric: bool,
    singular: bool,
    interpolation: str | None,
    options: dict[str, Any],
) -> Hierarchy:
    """Coarsen after Ruge and Stueben; interpolation None is classical, or direct where that breaks down.

    Classical interpolation divides by sums of negative couplings. Where positive ones lead, these sums
    vanish; PyAMG prints a line for each and goes on with weights up to 1e13.
    """
    import pyamg

    used = interpolation or ("direct" if _positive_couplings_lead(S) else "classical")
    with _as_errors("rs"), _quiet_and_repeatable():
        levels = pyamg.ruge_stuben_solver(_int32(S), interpolation=used, **options).levels
        if interpolation is None and used == "classical" and _largest_weight(levels) > WEIGHT_LIMIT:
            used = "direct"
            levels = pyamg.ruge_stuben_solver(_int32(S), interpolation=used, **options).levels
    notes = []
    if interpolation is None and used == "direct":
        notes.append("direct interpolation because of positive couplings, which kind='sa' may suit better")
    return _hierarchy(levels, symmetric, singular, notes, "rs")


def smoothed_aggregation(
    S: scipy.sparse.csr_array,
    symmetric: bool,
    singular: bool,
    near: np.ndarray | None,
    options: dict[str, Any],
) -> Hierarchy:
    """Coarsen by smoothed aggregation, with near-null-space vectors (n, m); None is constants."""
    import pyamg

    symmetry = "hermitian" if symmetric else "nonsymmetric"
    with _as_errors("sa"), _quiet_and_repeatable():
        solver = pyamg.smoothed_aggregation_solver(_int32(S), B=near, symmetry=symmetry, **options)
    return _hierarchy(solver.levels, symmetric, singular, [], "sa")


def transpose(A: Rows, shape: tuple[int, int]) -> Rows:
    """Return A^T for A of a shape (m, n)."""
    indptr, indices, values = (part.numpy() for part in A)
    return _rows(scipy.sparse.csr_array((values, indices, indptr), shape=shape).T)


def _hierarchy(levels: list[Any], symmetric: bool, singular: bool, notes: list[str], kind: str) -> Hierarchy:
    if not all(np.isfinite(level.A.data).all() for level in levels):
        raise StructureError(_failure(kind, "its coarse matrices hold NaN or infinity"))
    for fine, coarse in pairwise(levels):
        _clear_rounding(fine, coarse)
    last = levels[-1].A.tocsr()
    inverse = pseudo_inverse(last, symmetric, (1e-10 if singular else 1e-14) * _rounding_scale(levels))
    if inverse is None:
        notes.append(f"coarsening stopped at {last.shape[0]} rows, which are relaxed only")
    made = [Level(_rows(fine.A), _rows(fine.P), _rows(fine.R), fine.P.shape) for fine in levels[:-1]]
    return Hierarchy(made, _rows(last), inverse, notes)


def _clear_rounding(fine: Any, coarse: Any) -> None:
    """Set the rows of a coarse matrix to zero that are nothing but rounding, so that no sweep divides by it.

    They stem from regions without a way out that have shrunk to one unknown: P^T A P of their constant.
    """
    size = _squared(fine.P).T @ abs(fine.A.diagonal())
    dead = abs(coarse.A.diagonal()) <= ROUNDING * size
    if dead.any():
        alive = scipy.sparse.diags_array((~dead).astype(float))
        coarse.A = (alive @ coarse.A.tocsr() @ alive).tocsr()
        coarse.A.eliminate_zeros()


def _rounding_scale(levels: list[Any]) -> float:
    """Return the size of the terms that cancel in the coarsest matrix, which may be zero but for rounding."""
    if len(levels) == 1:
        return float(abs(levels[0].A).max())
    fine = levels[-2]
    return float(abs(fine.A).max() * _squared(fine.P).sum(axis=0).max())


def _squared(P: Any) -> scipy.sparse.csr_array:
    """Return the squares of the entries; SciPy's `power` takes the blocks of a BSR matrix one by one."""
    P = P.tocsr()
    return scipy.sparse.csr_array((P.data**2, P.indices, P.indptr), shape=P.shape)


def pseudo_inverse(A: scipy.sparse.csr_array, symmetric: bool, cutoff: float) -> Tensor | None:
    """Return the pseudo-inverse of A, singular values up to `cutoff` left out; None where A is too large."""
    if A.shape[0] > DENSE_LIMIT:  # type: ignore[index]
        return None
    dense = A.toarray()
    if not symmetric:
        return torch.linalg.pinv(torch.from_numpy(dense), atol=cutoff, rtol=0.0)
    values, vectors = np.linalg.eigh((dense + dense.T) / 2)
    good = values > cutoff
    return torch.from_numpy(vectors[:, good] / values[good] @ vectors[:, good].T)


def _failure(kind: str, what: object) -> str:
    other = "sa" if kind == "rs" else "rs"
    return (
        f"PyAMG makes no hierarchy for AMG(kind={kind!r}): {what}; A is too far from elliptic, use "
        f"AMG(kind={other!r}), ns.IncompleteLU() or ns.IncompleteCholesky()"
    )


@contextmanager
def _as_errors(kind: str) -> Iterator[None]:
    """Turn what NumPy and SciPy raise on NaN, deep inside PyAMG, into an error about A."""
    try:
        yield
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as inside:
        raise StructureError(_failure(kind, inside)) from inside


@contextmanager
def _quiet_and_repeatable() -> Iterator[None]:
    """Silence PyAMG's warnings, and start its random numbers from one place; leave both as they were."""
    state = np.random.get_state()  # noqa: NPY002 - PyAMG draws from NumPy's global generator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.random.seed(SEED)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002


def _positive_couplings_lead(S: scipy.sparse.csr_array) -> bool:
    """Whether some row's largest positive off-diagonal entry exceeds its largest negative one."""
    diagonal = S.diagonal()
    if np.count_nonzero(S.data > 0) == np.count_nonzero(diagonal > 0):
        return False
    off = scipy.sparse.csr_array(S - scipy.sparse.diags_array(diagonal))
    return bool((off.max(axis=1).toarray() > -off.min(axis=1).toarray()).any())


def _largest_weight(levels: list[Any]) -> float:
    sums = [float(abs(level.P).sum(axis=1).max()) for level in levels[:-1]]
    return float("inf") if any(np.isnan(sums)) else max(sums, default=0.0)


def _int32(S: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Return S with the index type PyAMG takes, its values shared."""
    parts = S.data.astype(np.float64, copy=False), S.indices.astype(np.int32), S.indptr.astype(np.int32)
    return scipy.sparse.csr_array(parts, shape=S.shape)


def _rows(S: Any) -> Rows:
    S = S.tocsr()
    values = S.data.astype(np.float64, copy=False)
    return torch.from_numpy(S.indptr), torch.from_numpy(S.indices), torch.from_numpy(values)
