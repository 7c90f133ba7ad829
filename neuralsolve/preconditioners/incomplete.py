"""Incomplete factorisations on the pattern of A: IC(0), MIC(0) and ILU(0).

    IC(0)   A ~ L L^T, (L L^T)_ij = a_ij wherever a_ij != 0           Meijerink and van der Vorst (1977)
    MIC(0)  the dropped fill, times `modified`, is taken from the
            diagonal: with 1, M^-1 and A have the same row sums       Gustafsson (1978)
    ILU(0)  A ~ L U, L unit lower                                     Saad (2003), algorithm 10.4

For the model problem cond(M A) is O(h^-2) with IC(0), O(h^-1) with MIC(0). Among walls and obstacles full
modification makes some pivots small, which costs iterations: 0.97 of it, and pivots below a quarter of
their diagonal entry replaced by that entry, are the usual remedy (Bridson 2015, sec. 5.4). M-matrices have
positive pivots; elsewhere one may vanish or turn negative, and the diagonal is then shifted, a_ii (1 +
alpha), alpha doubling until all pivots are good (Manteuffel 1980). `describe` says so.

Cost: a factorisation is a few products, an application about one product; both are serial. On a grid only
the pivots are stored, M = (D + L) D^-1 (D + L)^T, and couplings across a periodic seam are left out of M.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralsolve.errors import StructureError
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator, output_like
from neuralsolve.operators.csr import CSROperator, from_scipy
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.preconditioners.base import Preconditioner, Recipe
from neuralsolve.preconditioners.matrix import check_number, divisors, matrix_of

FIRST_SHIFT = 1e-3  # of the diagonal, after a bad pivot (Lin and More 1999)
FIRST_SINGULAR_SHIFT = 1e-6  # where the null vector alone makes the last pivot vanish
LARGEST_SHIFT = 1e6  # beyond it M is the diagonal, and something else is wrong
PIVOT_FLOOR = 1e-14  # relative to the diagonal: below it a pivot is rounding
SINGULAR_PIVOT_FLOOR = 1e-10  # the same where exact elimination ends in zero


@dataclass(frozen=True)
class IncompleteCholesky(Recipe):
    """IC(0), or MIC(0) with `modified` > 0: a symmetric positive definite M for CG and MINRES.

    Parameters
    ----------
    modified : in [0, 1], share of the dropped fill that is taken from the diagonal; 0.97 suits pressure
    shift : >= 0, relative shift of the diagonal before the factorisation; grows by itself after a bad pivot
    floor : in [0, 1), with `modified` > 0: a pivot below this share of its diagonal entry becomes that entry
        0 keeps all pivots; 0.25 (Bridson 2015) suits walls and obstacles.

    Raises
    ------
    OptionError
    StructureError
        From `build`: A is not symmetric, is a function, or has a diagonal entry that is not positive.

    Examples
    --------
    >>> import neuralsolve as ns, numpy as np
    >>> A = ns.PoissonStencil(ns.Grid((48, 48), walls="dirichlet"))
    >>> b = np.ones(48 * 48)
    >>> recipes = None, ns.IncompleteCholesky(), ns.IncompleteCholesky(modified=0.97)
    >>> none, ic, mic = (ns.solve(A, b, ns.CG(), M=M).iterations for M in recipes)
    >>> none > 2 * ic > 2 * mic
    True
    """

    modified: float = 0.0
    shift: float = 0.0
    floor: float = 0.25

    def __post_init__(self) -> None:
        check_number("IncompleteCholesky", "modified", self.modified, 0, 1, "[]")
        check_number("IncompleteCholesky", "shift", self.shift, 0, float("inf"), "[)")
        check_number("IncompleteCholesky", "floor", self.floor, 0, 1, "[)")

    def build(self, A: LinearOperator) -> Preconditioner:
        """Factorise A on its own pattern."""
        kind = _GridCholesky if isinstance(A, PoissonStencil) else _MatrixCholesky
        return kind(A, self)


class _Cholesky(Preconditioner):
    symmetric = True
    shift: float

    def __init__(self, A: LinearOperator, recipe: IncompleteCholesky):
        self.recipe = recipe
        self.floor = recipe.floor if recipe.modified else 0.0
        self.update(A)

    def describe(self) -> str:
        kind = f"MIC(0), omega {self.recipe.modified:g}" if self.recipe.modified else "IC(0)"
        if self.shift == 0:
            return kind
        why = "" if self.shift == self.recipe.shift else " after a pivot that was not positive"
        return f"{kind}, diagonal shifted by {self.shift:.2g}{why}"


class _GridCholesky(_Cholesky):
    """The pivots of a grid's factor; its off-diagonal entries are those of A."""

    def update(self, A_next: LinearOperator) -> None:
        assert isinstance(A_next, PoissonStencil)
        diagonal, self.lower = (part.to(torch.float64) for part in A_next.faces())
        self.shape3 = A_next.shape3
        self.inverse_pivot = torch.empty_like(diagonal)
        floor = SINGULAR_PIVOT_FLOOR if A_next.null_space is not None else PIVOT_FLOOR

        def attempt(shift: float) -> bool:
            shifted = diagonal if shift == 0 else diagonal * (1 + shift)
            parts = (shifted, self.lower, self.shape3, self.recipe.modified, self.inverse_pivot, self.floor)
            if table(diagonal.device).faces_ic0_factor(*parts) != 0:
                return False
            return bool((self.inverse_pivot * diagonal).max() < 1 / floor)

        self.shift = _first_good_shift(attempt, self.recipe.shift, A_next, "IncompleteCholesky")

    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        out = output_like(r, len(r), out)
        table(r.device).faces_ic0_solve(self.inverse_pivot, self.lower, self.shape3, r, out)
        return out


class _MatrixCholesky(_Cholesky):
    """The lower factor as a matrix, the diagonal last in each row."""

    def update(self, A_next: LinearOperator) -> None:
        rows = matrix_of(A_next, "IncompleteCholesky")
        if not rows.symmetric:
            msg = (
                f"IncompleteCholesky needs a symmetric A, A declares {sorted(rows.props)}; if you know it "
                "is, pass ns.as_operator(A, props={'spd'}), otherwise use ns.IncompleteLU()"
            )
            raise StructureError(msg)
        diagonal = divisors(A_next, "IncompleteCholesky")
        if bool((diagonal < 0).any()):
            msg = (
                f"IncompleteCholesky needs a positive diagonal, and {int((diagonal < 0).sum())} entries of "
                "it are negative: A is not positive definite; use ns.MINRES() or ns.IncompleteLU()"
            )
            raise StructureError(msg)
        self.idle = _idle(diagonal)
        self.indptr, self.indices, values, on_diagonal = _lower_triangle(rows)
        self.values = torch.empty_like(values)
        floor = SINGULAR_PIVOT_FLOOR if A_next.null_space is not None else PIVOT_FLOOR

        def attempt(shift: float) -> bool:
            values[on_diagonal] = torch.where(diagonal == 0, 1.0, diagonal * (1 + shift))
            parts = (self.indptr, self.indices, values, self.recipe.modified, self.values, self.floor)
            if table(values.device).csr_ic0_factor(*parts) != 0:
                return False
            return bool((self.values[on_diagonal] ** 2 > floor * diagonal).all())

        self.shift = _first_good_shift(attempt, self.recipe.shift, A_next, "IncompleteCholesky")

    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        out = output_like(r, len(r), out)
        K = table(r.device)
        K.csr_lower_solve(self.indptr, self.indices, self.values, r, out)
        K.csr_lower_transpose_solve(self.indptr, self.indices, self.values, out, out)
        return _clear(out, self.idle)


@dataclass(frozen=True)
class IncompleteLU(Recipe):
    """ILU(0): an unsymmetric M for GMRES and BiCGStab (Saad 2003, algorithm 10.4).

    A pivot that vanishes is mended by shifting the diagonal by alpha times the largest entry of its row,
    away from zero, alpha doubling from 1e-3; `describe` says so.

    Raises
    ------
    StructureError
        From `build`: A is a function.

    Examples
    --------
    >>> import neuralsolve as ns, numpy as np, scipy.sparse as sp
    >>> A = sp.diags_array([-1.5, 2.0, -0.5], offsets=[-1, 0, 1], shape=(500, 500))
    >>> ns.solve(A, np.ones(500), ns.GMRES(), M=ns.IncompleteLU()).iterations  # no fill: exact
    1
    """

    def build(self, A: LinearOperator) -> Preconditioner:
        """Factorise A on its own pattern."""
        return _MatrixLU(A)


class _MatrixLU(Preconditioner):
    def __init__(self, A: LinearOperator):
        self.update(A)

    def update(self, A_next: LinearOperator) -> None:
        rows = _with_full_diagonal(matrix_of(A_next, "IncompleteLU"))
        self.indptr, self.indices = rows.indptr, rows.indices
        row = rows.rows()
        self.diagonal_at = torch.nonzero(row == rows.indices).reshape(-1).to(rows.indices.dtype)
        at = self.diagonal_at.long()
        values = rows.values.detach().clone()
        size = torch.zeros(rows.shape[0], dtype=torch.float64)
        size.scatter_reduce_(0, row, values.abs(), "amax")
        self.idle = _idle(size)
        diagonal = torch.where(size == 0, 1.0, values[at])
        away = torch.where(diagonal < 0, -size, size)
        self.factor = torch.empty_like(values)

        def attempt(shift: float) -> bool:
            values[at] = diagonal + shift * away
            parts = (self.indptr, self.indices, values, self.diagonal_at, self.factor)
            if table(values.device).csr_ilu0_factor(*parts) != 0:
                return False
            return bool(
                (self.factor[at].abs() > PIVOT_FLOOR * size).all() and torch.isfinite(self.factor).all()
            )

        self.shift = _first_good_shift(attempt, 0.0, A_next, "IncompleteLU")
        self._transposed: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        return self._solve((self.indptr, self.indices, self.factor, self.diagonal_at), r, out)

    def apply_transpose(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        if self._transposed is None:
            self._transposed = _transposed_factor(self.indptr, self.indices, self.factor)
        return self._solve(self._transposed, r, out)

    def describe(self) -> str:
        if self.shift == 0:
            return "ILU(0)"
        return f"ILU(0), diagonal shifted by {self.shift:.2g} of the rows' largest entries after a zero pivot"

    def _solve(self, factor: tuple[Tensor, Tensor, Tensor, Tensor], r: Tensor, out: Tensor | None) -> Tensor:
        out = output_like(r, len(r), out)
        table(r.device).csr_ilu0_solve(*factor, r, out)
        return _clear(out, self.idle)


def _first_good_shift(
    attempt: Callable[[float], bool], shift: float, A: LinearOperator, recipe: str
) -> float:
    """Return the first shift of the diagonal with which the factorisation succeeds (Manteuffel 1980)."""
    if attempt(shift):
        return shift
    first = FIRST_SHIFT if A.null_space is None else FIRST_SINGULAR_SHIFT
    shift = max(2 * shift, first)
    while shift < LARGEST_SHIFT:
        if attempt(shift):
            return shift
        shift *= 2
    msg = (
        f"{recipe} finds no usable pivots even with the diagonal enlarged {LARGEST_SHIFT:g} times: the "
        "entries of A differ too much in size; rescale A to a unit diagonal, or use ns.SparseLU()"
    )
    raise StructureError(msg)


def _idle(size: Tensor) -> Tensor | None:
    """Return the rows of zeros, where M is zero too; None where there are none."""
    rows = torch.nonzero(size == 0).reshape(-1)
    return rows if len(rows) else None


def _clear(out: Tensor, idle: Tensor | None) -> Tensor:
    if idle is not None:
        out[idle] = 0.0
    return out


def _lower_triangle(A: CSROperator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the lower triangle, the diagonal stored last in every row, and where that is."""
    row, n = A.rows(), A.shape[0]
    strict = A.indices < row
    counts = torch.bincount(row[strict], minlength=n) + 1
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    on_diagonal = indptr[1:] - 1
    off = torch.ones(int(indptr[-1]), dtype=torch.bool)
    off[on_diagonal] = False
    indices = torch.empty(len(off), dtype=A.indices.dtype)
    indices[on_diagonal] = torch.arange(n, dtype=A.indices.dtype)
    indices[off] = A.indices[strict]
    values = torch.zeros(len(off), dtype=torch.float64)
    values[off] = A.values.detach()[strict]
    return indptr.to(A.indptr.dtype), indices, values, on_diagonal


def _with_full_diagonal(A: CSROperator) -> CSROperator:
    """Return A with every diagonal entry stored, zero where it was not."""
    import scipy.sparse

    n = A.shape[0]
    row, column = A.rows(), A.indices
    if int((row == column).sum()) == n:
        return A
    everywhere = torch.arange(n)
    entries = torch.cat([A.values.detach(), torch.zeros(n, dtype=torch.float64)]).numpy()
    places = torch.cat([row, everywhere]).numpy(), torch.cat([column.long(), everywhere]).numpy()
    return from_scipy(scipy.sparse.coo_array((entries, places), shape=A.shape).tocsr(), A.props)


def _transposed_factor(
    indptr: Tensor, indices: Tensor, factor: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the ILU form of (L U)^T = (U^T D^-1) (D L^T), D = diag(U): unit lower and upper."""
    import scipy.sparse

    n = len(indptr) - 1
    T = scipy.sparse.csr_array((factor.numpy(), indices.numpy(), indptr.numpy()), shape=(n, n)).T.tocsr()
    T.sort_indices()
    indptr, indices, values = (torch.from_numpy(part) for part in (T.indptr, T.indices, T.data))
    row = torch.repeat_interleave(torch.arange(n), torch.diff(indptr))
    diagonal_at = torch.nonzero(row == indices).reshape(-1)
    pivot = values[diagonal_at]
    lower, upper = indices < row, indices > row
    values[lower] /= pivot[indices[lower].long()]
    values[upper] *= pivot[row[upper]]
    return indptr, indices, values, diagonal_at.to(indices.dtype)
