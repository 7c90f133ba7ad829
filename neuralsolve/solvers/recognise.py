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
from dataclasses import dataclass
from itertools import product

import torch

from neuralsolve.kernels import table
from neuralsolve.operators.csr import CSROperator
from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil

ROUNDINGS = 64  # assembled values differ by a few units of rounding from cell to cell
WALLS = (0, 1, 2)  # what a wall adds to the diagonal, in couplings: Neumann, Dirichlet, face Dirichlet


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
    corner = _read_corner(A)
    if corner is None:
        return None
    n, (shape, couplings, periodic) = A.shape[0], corner
    nonzeros = n + sum(2 * (n // m) * (m - (not p)) for m, p in zip(shape, periodic, strict=True))
    if len(A.values) < nonzeros or int(A.values.detach().count_nonzero()) != nonzeros:
        return None
    box = _read_walls(A, shape, couplings, periodic)
    return _stencil(box, A.dtype) if box is not None and _agrees(A, box) else None


@dataclass(frozen=True)
class _Box:
    """Per axis, fastest first: cells, couplings, walls as in `WALLS` or None for periodic.

    `shift` of the diagonal and its `centre` (the diagonal of a cell at no wall) are in units of the matrix.
    """

    shape: list[int]
    couplings: list[float]
    walls: list[tuple[int, int] | None]
    shift: float

    @property
    def centre(self) -> float:
        return 2 * sum(self.couplings) + self.shift


def _row(A: CSROperator, i: int) -> dict[int, float]:
    """Return the nonzeros of a row by column."""
    entries = slice(int(A.indptr[i]), int(A.indptr[i + 1]))
    columns, values = A.indices[entries].tolist(), A.values.detach()[entries].tolist()
    return {j: a for j, a in zip(columns, values, strict=True) if a != 0}


def _read_corner(A: CSROperator) -> tuple[list[int], list[float], list[bool]] | None:
    """Read the box from its first cell, fastest axis first: sides, couplings (of one sign), periodic or not.

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


def _read_walls(
    A: CSROperator, shape: list[int], couplings: list[float], periodic: list[bool]
) -> _Box | None:
    """Read walls and shift from the diagonal of the middle cell and of those between it and the walls.

    Along an axis of three cells or more the middle cell is at no wall. One of two cells leaves a constant
    open: the walls that explain the diagonal with the least shift are taken, face Dirichlet ones last.
    """
    strides = [math.prod(shape[:a]) for a in range(len(shape))]
    middle = sum(m // 2 * s for m, s in zip(shape, strides, strict=True))
    inside, total = _row(A, middle).get(middle, 0.0), 2 * sum(couplings)
    rounding = ROUNDINGS * torch.finfo(A.dtype).eps
    if not min(abs(c) for c in couplings) > rounding * max(abs(inside), abs(total)):
        return None  # the diagonal cannot tell the walls of so weak an axis
    options: list[list[tuple[int, int] | None]] = []
    for m, c, stride, around in zip(shape, couplings, strides, periodic, strict=True):
        ends = [middle - m // 2 * stride, middle + (m - 1 - m // 2) * stride]
        low, high = (round((_row(A, i).get(i, 0.0) - inside) / c) for i in ends)
        if around:
            options.append([None])
        elif m > 2:
            options.append([(low + 1, high + 1)])
        else:
            options.append([pair for pair in product(WALLS, WALLS) if pair[0] - pair[1] == low])
    found: list[tuple[float, int, _Box]] = []
    for walls in product(*options):
        if any(pair is not None and not set(pair) <= set(WALLS) for pair in walls):
            continue
        of_two = [
            c * (pair[1] - 1) for m, c, pair in zip(shape, couplings, walls, strict=True) if m == 2 and pair
        ]
        shift = inside - total - sum(of_two)
        if abs(shift) <= rounding * abs(total):
            shift = 0.0
        relative = shift / couplings[0]
        if relative == 0 or (relative > 0 and len(shape) < 3):
            faces = sum(pair is not None and 2 in pair for pair in walls)
            found.append((relative, faces, _Box(shape, couplings, list(walls), shift)))
    return min(found, key=lambda entry: entry[:2])[2] if found else None


def _agrees(A: CSROperator, box: _Box) -> bool:
    """Whether every entry of A is that of the box, to rounding."""
    missing = 3 - len(box.shape)
    ends = [
        (0.0, 0.0) if pair is None else ((pair[0] - 1) * c, (pair[1] - 1) * c)
        for c, pair in zip(box.couplings, box.walls, strict=True)
    ]
    first = table().csr_box_difference(
        A.indptr,
        A.indices,
        A.values.detach(),
        [1] * missing + box.shape[::-1],
        torch.tensor([0.0] * missing + box.couplings[::-1], dtype=torch.float64),
        torch.tensor([(0.0, 0.0)] * missing + ends[::-1], dtype=torch.float64),
        torch.tensor([False] * missing + [pair is None for pair in box.walls[::-1]]),
        box.centre,
        ROUNDINGS * torch.finfo(A.dtype).eps,
    )
    return first < 0


def _stencil(box: _Box, dtype: torch.dtype) -> tuple[PoissonStencil, float]:
    """Return the stencil whose last axis has spacing one, and its multiple."""
    multiple = box.couplings[0]
    sides, weights, walls = box.shape[::-1], [c / multiple for c in box.couplings[::-1]], box.walls[::-1]
    if box.shift:
        sides, weights, walls = [1, *sides], [box.shift / multiple / 2, *weights], [(1, 1), *walls]
    elif len(sides) == 1:
        sides, weights, walls = [1, *sides], [1.0, *weights], [(0, 0), *walls]
    words = [
        "periodic" if pair is None else [("neumann", "dirichlet", "dirichlet")[w] for w in pair]
        for pair in walls
    ]
    grid = Grid(sides, [1 / math.sqrt(c) for c in weights], words)
    if not any(pair is not None and 2 in pair for pair in walls):
        return PoissonStencil(grid, dtype=dtype), multiple
    return PoissonStencil(grid, [_faces(sides, a, pair, dtype) for a, pair in enumerate(walls)]), multiple


def _faces(sides: list[int], a: int, walls: tuple[int, int] | None, dtype: torch.dtype) -> torch.Tensor:
    """Return face coefficients of one along an axis, of two on a wall face that has the value zero."""
    layers = torch.ones(sides[a] + 1, dtype=dtype)
    if walls is not None:
        layers[0], layers[-1] = (2.0 if w == 2 else 1.0 for w in walls)
    flat = [1] * len(sides)
    flat[a] = -1
    return layers.reshape(flat).expand(*sides[:a], -1, *sides[a + 1 :])
