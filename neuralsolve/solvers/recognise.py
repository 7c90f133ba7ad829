"""Recognises a CSR matrix that *is* the stencil of a constant-coefficient box: it can be solved as one.

The first row belongs to a corner of the box: its columns are the strides of the axes and, where an axis is
periodic, the way round it, which gives the shape. Its values give the couplings, and the diagonal at seven
cells what the walls add. All that costs nothing; then the number of nonzeros must agree, and every entry is
compared with the one that this box has there, to `ROUNDINGS` units of rounding. The comparison reads the
matrix once, as a product does, and stops at the first difference, so a matrix that is not a box is told at
once, and never taken for one.
"""

from __future__ import annotations

import math
from itertools import product

import torch

from neuralsolve.kernels import table
from neuralsolve.operators.csr import CSROperator
from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil

ROUNDINGS = 64  # assembled values differ by a few units of rounding from cell to cell
WALLS = (0, 1, 2)  # what a wall adds to the diagonal, in couplings: Neumann, Dirichlet, face Dirichlet

Walls = list[tuple[int, int] | None]  # per axis, fastest first; None is periodic


def box_stencil(A: CSROperator) -> tuple[PoissonStencil, float] | None:
    """Return (stencil, multiple) with A = multiple * stencil, or None where A is no such matrix.

    Recognised are boxes of one, two and three axes, any coupling per axis, any wall per side (Neumann,
    Dirichlet in the ghost cell or on the wall face, periodic), in C or Fortran order, and multiples, negative
    ones too. A chain of n cells becomes a (1, n) grid. In one and two dimensions a positive shift of the
    diagonal is recognised too: it becomes Dirichlet walls of a further axis of one cell.

    Parameters
    ----------
    A : CSROperator
        Any; explicit zeros are looked over.

    Examples
    --------
    >>> import pyamg
    >>> from neuralsolve.operators.convert import as_operator
    >>> stencil, multiple = box_stencil(as_operator(-3 * pyamg.gallery.poisson((4, 6), format="csr")))
    >>> stencil.grid, multiple
    (Grid(shape=(4, 6), spacing=(1.0, 1.0), walls=(('dirichlet', 'dirichlet'), ('dirichlet', 'dirichlet'))),
    -3.0)
    """
    if A.shape[0] != A.shape[1] or A.shape[0] < 2:
        return None
    box = _shape_and_couplings(A)
    if box is None:
        return None
    shape, couplings, periodic = box
    n = A.shape[0]
    nonzeros = n + sum(2 * (n // m) * (m - (not p)) for m, p in zip(shape, periodic, strict=True))
    if len(A.values) < nonzeros or int(A.values.detach().count_nonzero()) != nonzeros:
        return None
    found = _walls(A, shape, couplings, periodic)
    if found is None:
        return None
    walls, shift = found
    if not _agrees(A, shape, couplings, walls, shift):
        return None
    return _stencil(A, shape, couplings, walls, shift)


def _row(A: CSROperator, i: int) -> dict[int, float]:
    """Return the nonzeros of a row by column."""
    entries = slice(int(A.indptr[i]), int(A.indptr[i + 1]))
    columns, values = A.indices[entries].tolist(), A.values.detach()[entries].tolist()
    return {j: a for j, a in zip(columns, values, strict=True) if a != 0}


def _shape_and_couplings(A: CSROperator) -> tuple[list[int], list[float], list[bool]] | None:
    """Read the box from its corner, fastest axis first: sides, couplings (of one sign), periodic or not.

    An axis of stride s and side m couples cell 0 to s and, where it is periodic, to s (m - 1); the next axis
    has the stride s m. So the column c after s belongs to the same axis exactly where c + s is the next
    stride, or n.
    """
    n, corner = A.shape[0], _row(A, 0)
    columns = sorted(j for j in corner if j > 0)
    if not 1 <= len(columns) <= 6 or columns[0] != 1 or len({corner[j] > 0 for j in columns}) != 1:
        return None
    shape: list[int] = []
    couplings: list[float] = []
    periodic: list[bool] = []
    while columns:
        stride = columns.pop(0)
        around = bool(columns) and columns[0] + stride == (columns[1] if len(columns) > 1 else n)
        if around:
            columns.pop(0)
        upper = columns[0] if columns else n
        if upper % stride or len(shape) == 3:
            return None
        shape.append(upper // stride)
        couplings.append(-corner[stride])
        periodic.append(around)
    return shape, couplings, periodic


def _walls(
    A: CSROperator, shape: list[int], couplings: list[float], periodic: list[bool]
) -> tuple[Walls, float] | None:
    """Read the walls and the shift of the diagonal (in first couplings) from cells against the walls.

    Along an axis of three cells or more the middle cell is at no wall. One of two cells leaves a constant
    open: taken are the walls that explain the diagonal with the least shift.
    """
    strides = [math.prod(shape[:a]) for a in range(len(shape))]
    middle = sum(n // 2 * s for n, s in zip(shape, strides, strict=True))
    inside = _row(A, middle).get(middle, 0.0)
    options: list[list[tuple[int, int] | None]] = []
    for n, c, stride, around in zip(shape, couplings, strides, periodic, strict=True):
        ends = [middle - n // 2 * stride, middle + (n - 1 - n // 2) * stride]
        low, high = (_whole((_row(A, i).get(i, 0.0) - inside) / c) for i in ends)
        if around:
            options.append([None])
        elif n > 2:
            options.append([(low + 1, high + 1)])
        else:
            options.append([pair for pair in product(WALLS, WALLS) if pair[0] - pair[1] == low])
    total = 2 * sum(couplings)
    best: tuple[Walls, float] | None = None
    for walls in product(*options):
        if any(pair is not None and not set(pair) <= set(WALLS) for pair in walls):
            continue
        shift = inside - total
        for n, c, pair in zip(shape, couplings, walls, strict=True):
            if n == 2 and pair is not None:
                shift -= c * (pair[1] - 1)
        shift /= couplings[0]
        if abs(shift) <= ROUNDINGS * torch.finfo(A.dtype).eps * total / couplings[0]:
            return list(walls), 0.0
        if shift > 0 and len(shape) < 3 and (best is None or shift < best[1]):
            best = list(walls), shift
    return best


def _whole(ratio: float) -> int:
    """Return the nearest integer; one that is no wall where there is none."""
    return round(ratio) if abs(ratio) < 10 else 10


def _agrees(A: CSROperator, shape: list[int], couplings: list[float], walls: Walls, shift: float) -> bool:
    """Whether every entry of A is that of the box, to rounding."""
    missing = 3 - len(shape)
    pairs = zip(couplings, walls, strict=True)
    ends = [(0, 0) if w is None else ((w[0] - 1) * c, (w[1] - 1) * c) for c, w in pairs]
    first = table().csr_box_difference(
        A.indptr,
        A.indices,
        A.values.detach(),
        [1] * missing + shape[::-1],
        torch.tensor([0.0] * missing + couplings[::-1], dtype=torch.float64),
        torch.tensor([(0, 0)] * missing + ends[::-1], dtype=torch.float64),
        torch.tensor([False] * missing + [w is None for w in walls[::-1]]),
        2 * sum(couplings) + shift * couplings[0],
        ROUNDINGS * torch.finfo(A.dtype).eps,
    )
    return first < 0


def _stencil(
    A: CSROperator, shape: list[int], couplings: list[float], walls: Walls, shift: float
) -> tuple[PoissonStencil, float]:
    """Return the stencil whose first axis has coupling one, and its multiple."""
    multiple = couplings[0]
    sides, weights = shape[::-1], [c / multiple for c in couplings[::-1]]
    pairs = walls[::-1]
    if shift or len(shape) == 1:
        sides, weights, pairs = (
            [1, *sides],
            [shift / 2 or 1.0, *weights],
            [(1, 1) if shift else (0, 0), *pairs],
        )
    words = ["periodic" if w is None else [("dirichlet" if e else "neumann") for e in w] for w in pairs]
    grid = Grid(sides, [1 / math.sqrt(c) for c in weights], words)
    if not any(w is not None and 2 in w for w in pairs):
        return PoissonStencil(grid, dtype=A.dtype), multiple
    return PoissonStencil(grid, [_faces(sides, a, w, A.dtype) for a, w in enumerate(pairs)]), multiple


def _faces(sides: list[int], a: int, walls: tuple[int, int] | None, dtype: torch.dtype) -> torch.Tensor:
    """Return face coefficients of one along an axis, of two on a wall face that has the value zero."""
    layers = torch.ones(sides[a] + 1, dtype=dtype)
    if walls is not None:
        layers[0], layers[-1] = (2.0 if w == 2 else 1.0 for w in walls)
    flat = [1] * len(sides)
    flat[a] = -1
    return layers.reshape(flat).expand(*sides[:a], -1, *sides[a + 1 :])
