"""What can be seen of A before it is solved: symmetry, sign, null space, dominance, size.

Everything here costs a few products with A. Only what is proved is claimed: a positive diagonal is necessary
for definiteness, diagonal dominance is sufficient, between the two CG is tried and its verdict believed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError, StructureError
from neuralsolve.operators.base import LinearOperator
from neuralsolve.operators.csr import CSROperator
from neuralsolve.operators.nullspace import NullSpace, from_components, from_vectors
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.operators.structured import Block, CallableOperator, DenseOperator
from neuralsolve.solvers.grid_matrix import read_on_grid
from neuralsolve.solvers.numbering import Numbering
from neuralsolve.solvers.recognise import box_stencil
from neuralsolve.solvers.transforms import is_constant_box

ROUNDING = 1e-12  # relative size below which a difference of entries, or a row sum, counts as zero


@dataclass(frozen=True)
class Structure:
    """A as the solvers take it, and what is known of it.

    Attributes
    ----------
    A : float64 operator; `signs` * (the caller's A)
    signs : (n,) of +1 and -1, or -1 for all, or None: rows of components that are negative (semi-)definite
        are flipped
    symmetric : A = A^T to rounding
    positive_diagonal : None where no diagonal is at hand
    dominant : |a_ii| >= sum_j |a_ij| in every row and the diagonal is positive: A is positive semi-definite
    m_matrix : no positive off-diagonal entry
    nnz : stored entries, None for functions
    box : A is the stencil of a box with one coefficient per axis, or a multiple of it
    numbering : how the caller's rows lie on the cells of A, where A is a stencil read from a matrix
    note : why a grid that was given is not used
    """

    A: LinearOperator
    signs: Tensor | None
    symmetric: bool
    positive_diagonal: bool | None
    dominant: bool = False
    m_matrix: bool = False
    nnz: int | None = None
    box: bool = False
    numbering: Numbering | None = None
    note: str = ""

    @property
    def n(self) -> int:
        """Number of unknowns."""
        return self.A.shape[0]

    @property
    def maybe_spd(self) -> bool:
        """Whether nothing seen speaks against A being positive (semi-)definite."""
        return "spd" in self.A.props or (self.symmetric and self.positive_diagonal is not False)

    def describe(self) -> str:
        """One phrase on what was seen."""
        words = ["symmetric" if self.symmetric else "nonsymmetric"]
        if self.symmetric and self.positive_diagonal is False:
            words = ["symmetric indefinite"]
        elif self.symmetric and (self.dominant or "spd" in self.A.props):
            words = [
                "symmetric positive semi-definite" if self.A.null_space else "symmetric positive definite"
            ]
        if self.signs is not None:
            words.append("sign flipped (A or part of it is negative definite)")
        if self.A.null_space is not None:
            words.append(self.A.null_space.describe())
        if self.A.active is not None and not self.A.active.numpy().any():
            words = ["no fluid cell, so x = 0"]
        if self.numbering is not None:
            words.append(self.numbering.describe())
        return f"n = {self.n}, " + ", ".join(words)


def placed(structure: Structure, device: torch.device) -> Structure:
    """Return the structure with the A that is iterated with on a device."""
    if structure.A.device == device:
        return structure
    signs = None if structure.signs is None else structure.signs.to(device)
    return replace(structure, A=structure.A.to(device), signs=signs)


def probe(source: LinearOperator, null_space: object = None, grid: object = None) -> Structure:
    """Look at A, on the CPU; `null_space` is "constant", vectors, None (find it) or False (assume none)."""
    source = source.to("cpu")
    if source.shape[0] != source.shape[1]:
        msg = (
            f"A is {source.shape[0]} x {source.shape[1]}; a square matrix is needed; for least squares solve "
            "the normal equations A^T A x = A^T b or use scipy.sparse.linalg.lsmr"
        )
        raise ShapeError(msg)
    if null_space is True:
        null_space = None
    note = ""
    if grid is not None:
        found = _probe_grid(source, grid, null_space)
        if isinstance(found, Structure):
            return found
        note = found
    A = copy.copy(source.to(dtype=torch.float64))
    # sums of rounded entries vanish to their own precision only
    rounding = max(ROUNDING, 16 * torch.finfo(source.dtype).eps if source.dtype != torch.float64 else 0.0)
    if isinstance(A, CallableOperator):
        structure = _probe_function(A)
    elif isinstance(A, CSROperator | DenseOperator | Block):
        structure = _probe_box(A) or _probe_matrix(A, null_space, rounding)
    else:
        box = isinstance(A, PoissonStencil) and is_constant_box(A)
        structure = Structure(
            A, None, A.symmetric, True if "spd" in A.props else None, m_matrix=True, box=box
        )
    _declare(structure.A, null_space)
    return replace(structure, note=note) if note else structure


def _probe_grid(source: LinearOperator, grid: object, null_space: object) -> Structure | str:
    """Return the structure of a matrix that is a stencil on the grid, or why it is none."""
    if isinstance(source, PoissonStencil):
        if grid is source.grid:
            return ""
        msg = "A is a PoissonStencil, which has a grid of its own, and another is given; leave grid= out"
        raise OptionError(msg)
    found = read_on_grid(source, grid)
    if isinstance(found, str):
        return f"grid= not used: {found}"
    A, sign, numbering = found
    signs = None if sign > 0 else torch.tensor([sign], dtype=torch.float64)
    if null_space is False and len(numbering.empty_rows()):
        return "grid= not used: A has empty rows, and null_space=False"
    if null_space is not None and not isinstance(null_space, bool | str | NullSpace):
        from_vectors(null_space, source.shape[0])  # refuses what cannot be one
        null_space = numbering.to_grid(torch.as_tensor(null_space).detach().to("cpu", torch.float64))
    _declare(A, null_space)
    nnz = len(source.values) if isinstance(source, CSROperator) else None
    return Structure(A, signs, True, True, True, True, nnz, is_constant_box(A), numbering)


def _probe_box(A: LinearOperator) -> Structure | None:
    """Return all there is to know of a CSR matrix that is a box stencil, at a tenth of a full look's cost."""
    found = box_stencil(A) if isinstance(A, CSROperator) else None
    if found is None:
        return None
    assert isinstance(A, CSROperator)
    stencil, multiple = found
    signs = None
    if multiple < 0:
        A, signs = A.with_values(-A.values.detach()), torch.full((A.shape[0],), -1.0, dtype=torch.float64)
    A.null_space, A.props = stencil.null_space, A.props | {"spd", "symmetric"}
    return Structure(A, signs, True, True, dominant=True, m_matrix=True, nnz=len(A.values), box=True)


def _probe_matrix(A: LinearOperator, null_space: object, rounding: float) -> Structure:
    import scipy.sparse
    from scipy.sparse.csgraph import connected_components

    S: Any = scipy.sparse.csr_array(A.to_scipy())
    if not S.data.all():
        S = S.copy()  # the caller's zeros stay where they are
        S.eliminate_zeros()
    diagonal = S.diagonal()
    symmetric = A.symmetric or _is_symmetric(S)
    n = S.shape[0]
    off_sum = abs(S) @ np.ones(n) - abs(diagonal)
    signs = None
    if symmetric:
        count, labels = connected_components(
            S, directed=True, connection="strong"
        )  # one pass: S is symmetric
        negative = np.bincount(labels, diagonal < 0, count) > 0
        positive = np.bincount(labels, diagonal > 0, count) > 0
        flip = negative & ~positive
        if flip.any():
            signs = np.where(flip[labels], -1.0, 1.0)
            diagonal = diagonal * signs
            A = _flipped(A, S, signs)
        if null_space is None:
            row_sums = abs(S @ np.ones(n))
            regular = np.bincount(labels, row_sums > rounding * (off_sum + abs(diagonal)), count) > 0
            A.null_space = from_components(labels, ~regular)
    A.props |= {"symmetric"} if symmetric else frozenset()
    empty = off_sum + abs(diagonal) == 0
    positive_diagonal = bool((diagonal > 0)[~empty].all())
    dominant = positive_diagonal and bool((diagonal >= off_sum * (1 - rounding)).all())
    m_matrix = symmetric and not _has_positive_coupling(S, signs)
    signs_t = None if signs is None else torch.from_numpy(signs)
    return Structure(A, signs_t, symmetric, positive_diagonal, dominant, m_matrix, S.nnz)


def _has_positive_coupling(S: Any, signs: np.ndarray | None) -> bool:
    rows = np.repeat(np.arange(S.shape[0]), np.diff(S.indptr))
    off = rows != S.indices
    couplings = S.data[off] if signs is None else S.data[off] * signs[rows[off]]
    return bool((couplings > ROUNDING * abs(S.data).max(initial=0.0)).any())


def _is_symmetric(S: Any) -> bool:
    T = S.T.tocsr()
    T.sort_indices()
    if np.array_equal(S.indptr, T.indptr) and np.array_equal(S.indices, T.indices):
        difference = abs(S.data - T.data)
        return bool((difference <= 1e-10 * np.maximum(abs(S.data), abs(T.data)) + _floor(S)).all())
    return bool(abs(S - T).max() <= _floor(S))


def _floor(S: Any) -> float:
    return 1e-14 * float(abs(S.data).max(initial=0.0))


def _flipped(A: LinearOperator, S: Any, signs: np.ndarray) -> LinearOperator:
    """Return diag(signs) A; constant on components, so symmetry is kept."""
    scale = torch.from_numpy(signs)
    if isinstance(A, CSROperator):
        return A.with_values(A.values.detach() * scale[A.rows()])
    if isinstance(A, DenseOperator):
        return DenseOperator(A.values.detach() * scale[:, None], A.props)
    from neuralsolve.operators.convert import as_operator

    flipped = S.copy()
    flipped.data = S.data * np.repeat(signs, np.diff(S.indptr))
    return as_operator(flipped, A.props)


def _probe_function(A: CallableOperator) -> Structure:
    """Test a function for symmetry, and its sign, on two random vectors: two products."""
    generator = torch.Generator().manual_seed(271828)
    u, v = (torch.randn(A.shape[0], dtype=torch.float64, generator=generator) for _ in range(2))
    Au, Av = A.matvec(u), A.matvec(v)
    size = float(Au.norm() * v.norm() + Av.norm() * u.norm())
    symmetric = A.symmetric or abs(float(v @ Au - u @ Av)) <= 1e-10 * size
    energies = float(u @ Au), float(v @ Av)
    signs = None
    if symmetric and max(energies) < 0 and "spd" not in A.props:
        function = A.function
        diagonal = None if A.known_diagonal is None else -A.known_diagonal
        A = CallableOperator(lambda x: -function(x), A.shape, A.takes, None, A.props, A.block, diagonal).to(  # type: ignore[assignment]
            dtype=torch.float64
        )
        signs = torch.full((A.shape[0],), -1.0, dtype=torch.float64)
        energies = -energies[0], -energies[1]
    A.props |= {"symmetric"} if symmetric else frozenset()
    return Structure(A, signs, symmetric, min(energies) > 0 if symmetric else None)


def _declare(A: LinearOperator, null_space: object) -> None:
    if null_space is None:
        return
    if A.columns is not None and null_space is not False:
        msg = "A holds several systems, each of which knows its own null space; leave null_space out"
        raise StructureError(msg)
    if null_space is False:
        A.null_space = None
    elif isinstance(null_space, NullSpace):
        A.null_space = null_space
    elif isinstance(null_space, str):
        if null_space != "constant":
            msg = (
                f"null_space={null_space!r} is unknown; pass 'constant', an array (n,) or (n, m), None or "
                "False"
            )
            raise OptionError(msg)
        A.null_space = _constants(A)
    else:
        vectors = torch.as_tensor(null_space)
        if A.active is not None and len(vectors) == A.shape[0]:  # outside the fluid x is zero
            vectors = vectors * (A.active if vectors.ndim == 1 else A.active[:, None])
        A.null_space = from_vectors(vectors, A.shape[0])
    if A.null_space is not None:
        _check_null_space(A, A.null_space)


def _constants(A: LinearOperator) -> NullSpace | None:
    """Return the constant vector of every connected component that the caller declared null."""
    from scipy.sparse.csgraph import connected_components

    if A.active is not None or A.null_space is not None:  # a stencil knows its own regions
        return A.null_space
    if isinstance(A, CallableOperator):
        return from_components(np.zeros(A.shape[0], np.int64), np.array([True]))
    count, labels = connected_components(A.to_scipy(), directed=False)
    # a single entry is a component without a null space unless its row is zero
    sums = np.bincount(labels, abs(A.to_scipy() @ np.ones(A.shape[0])), count)
    sizes = np.bincount(labels, minlength=count)
    return from_components(labels, (sizes > 1) | (sums == 0))


def _check_null_space(A: LinearOperator, Z: NullSpace) -> None:
    """Refuse declared null vectors that A does not annihilate: the answer would be wrong in silence."""
    generator = torch.Generator().manual_seed(161803)
    v = torch.randn(A.shape[0], dtype=torch.float64, generator=generator)
    inside = v.clone()
    Z.project(inside)
    inside = v - inside  # the part of v in the span of Z
    if A.active is not None:
        inside *= A.active
    image, whole = float(A.matvec(inside).norm()), float(A.matvec(v).norm())
    if image > 1e-6 * whole:
        msg = (
            f"A does not annihilate the declared null space: ||A z|| = {image:.2g} where ||A v|| = "
            f"{whole:.2g} for a random v; pass null_space=None to have it found"
        )
        raise StructureError(msg)
