"""What a recipe needs of A: its rows, and a diagonal that can be divided by."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError, StructureError
from neuralsolve.operators.base import LinearOperator
from neuralsolve.operators.batched import BatchedStencil
from neuralsolve.operators.csr import CSROperator, from_scipy
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.operators.structured import Block, DenseOperator


def matrix_of(A: LinearOperator, recipe: str) -> CSROperator:
    """Return the float64 rows of A, a matrix whose entries are at hand.

    Raises
    ------
    StructureError
        A is a function, or a sum or product of operators: its entries would cost n products.
    ShapeError
        A is not square.
    """
    if A.shape[0] != A.shape[1]:
        msg = f"{recipe} needs a square A, given {A.shape}; for least squares use scipy.sparse.linalg.lsmr"
        raise ShapeError(msg)
    if not has_entries(A):
        msg = (
            f"{recipe} needs the entries of A, and A is a {type(A).__name__}; pass a matrix (SciPy sparse, "
            "NumPy or torch), for example ns.as_operator(A.to_scipy())"
        )
        raise StructureError(msg)
    if isinstance(A, CSROperator):
        return A.to(dtype=torch.float64)
    return from_scipy(A.to_scipy().astype(float), A.props)


def has_entries(A: LinearOperator | None) -> bool:
    """Whether the entries of A are stored or follow from a grid."""
    if isinstance(A, Block):
        return all(has_entries(block) for row in A.blocks for block in row if block is not None)
    return isinstance(A, CSROperator | DenseOperator | PoissonStencil)


def divisors(A: LinearOperator, recipe: str) -> Tensor:
    """Return the diagonal of A in float64, zero only where the whole row is zero.

    Raises
    ------
    StructureError
        A row has a zero diagonal and other entries.
    """
    diagonal = A.diagonal().to(torch.float64)
    zero = diagonal == 0
    if isinstance(A, PoissonStencil | BatchedStencil) or not bool(
        zero.any()
    ):  # a stencil's diagonal bounds its row
        return diagonal
    rows = matrix_of(A, recipe)
    size = torch.zeros(rows.shape[0], dtype=torch.float64)
    size.index_add_(0, rows.rows(), rows.values.detach().abs())
    bad = torch.nonzero(zero & (size > 0))
    if len(bad):
        msg = (
            f"{recipe} divides by the diagonal of A, and {len(bad)} of its entries are zero (first: row "
            f"{int(bad[0])}); use ns.IncompleteLU(), or ns.MINRES() or ns.GMRES() without M"
        )
        raise StructureError(msg)
    return diagonal


def check_number(
    recipe: str, name: str, value: object, low: float, high: float, ends: str = "()", why: str = ""
) -> None:
    """Refuse an option that is not a number of the interval from `low` to `high`; `ends` are its brackets."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        above = low <= value if ends[0] == "[" else low < value
        below = value <= high if ends[1] == "]" else value < high
        if above and below:
            return
    msg = (
        f"{recipe}({name}={value!r}): {name} must be a number in {ends[0]}{low:g}, {high:g}{ends[1]}"
        f"{', ' + why if why else ''}; for example {recipe}({name}={_inside(low, high):g})"
    )
    raise OptionError(msg)


def check_count(recipe: str, name: str, value: object, low: int = 1, high: int | None = None) -> None:
    """Refuse an option that is not an integer of at least `low`, and at most `high` where there is one."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high or value) < value:
        most = "" if high is None else f" and at most {high}"
        msg = f"{recipe}({name}={value!r}): {name} must be an integer of at least {low}{most}, such as {low}"
        raise OptionError(msg)


def _inside(low: float, high: float) -> float:
    return (low + high) / 2 if high < float("inf") else low + 1
