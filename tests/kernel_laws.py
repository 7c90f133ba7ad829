"""What the tests of kernels share: both implementations, test matrices, the law on rounding errors."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

COLUMNS = pytest.mark.parametrize("columns", [(), (3,)], ids=["n", "nk"])


def normal(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def exactly(*tensors: Tensor) -> list[np.ndarray]:
    """The same numbers in extended precision, where the machine has it."""
    return [tensor.numpy().astype(np.longdouble) for tensor in tensors]


def assert_kernel_law(got: Tensor, plain: Tensor, exact: np.ndarray, bound: np.ndarray) -> None:
    """Each entry errs at most twice as much as plain torch in the same dtype, or within the derived bound."""
    error = np.abs(got.numpy() - exact)
    allowed = np.maximum(2 * np.abs(plain.numpy() - exact), bound)
    assert np.isfinite(error).all()
    assert (error <= allowed).all(), float((error - allowed).max())


def assert_close(got: Tensor, expected: Tensor, bound: float) -> None:
    """Norm of the difference relative to that of `expected`; the same entries are NaN."""
    assert torch.equal(got.isnan(), expected.isnan())
    distance = (got - expected).nan_to_num().norm()
    assert distance <= bound * expected.nan_to_num().norm()


def sparse_pattern(generator: torch.Generator, m: int, n: int, share: float) -> Tensor:
    """Random 0-1 matrix with some empty rows."""
    pattern = torch.rand((m, n), generator=generator).lt(share)
    pattern[torch.rand(m, generator=generator) < 0.2] = False
    return pattern


def csr(dense: Tensor, index: torch.dtype = torch.int32) -> tuple[Tensor, Tensor, Tensor]:
    """CSR arrays of the nonzeros of a dense matrix, columns sorted."""
    keep = dense != 0
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), keep.sum(1).cumsum(0)]).to(index)
    return indptr, torch.nonzero(keep)[:, 1].to(index), dense[keep]


def spd(generator: torch.Generator, n: int, share: float = 0.15) -> Tensor:
    """Sparse symmetric, diagonally dominant M-matrix, (n, n): its incomplete factorisations exist."""
    B = torch.rand((n, n), generator=generator, dtype=torch.float64)
    B = torch.triu(B * B.lt(share) / share, 1)
    B = B + B.T
    return torch.diag(B.sum(1) + 0.5 + torch.rand(n, generator=generator, dtype=torch.float64)) - B


# Sides of one and two cells, flat boxes, and walls of every kind: 0 Neumann, 1 Dirichlet, 2 periodic.
_SHAPES = [(1, 1, 1), (1, 1, 2), (2, 1, 1), (1, 7, 9), (3, 4, 5), (5, 2, 2), (4, 3, 1), (2, 2, 2), (4, 6, 4)]
WALLS = [(0,) * 6, (2,) * 6, (0, 1, 2, 2, 1, 0), (1, 0, 0, 1, 2, 2), (1,) * 6]
GRIDS = pytest.mark.parametrize(
    ("shape", "walls"),
    [(shape, WALLS[(i + turn) % 5]) for i, shape in enumerate(_SHAPES) for turn in (1, 3)]
    + [((4, 6, 4), (2,) * 6), ((3, 5, 4), (2,) * 6), ((1, 6, 4), (0, 0, 2, 2, 2, 2))],
    ids=str,
)


def random_cells(generator: torch.Generator, shape: tuple[int, int, int]) -> Tensor:
    """FLUID in two cells of three, SOLID or AIR in the others."""
    other = torch.rand(shape, generator=generator) < 1 / 3
    return other * torch.randint(1, 3, shape, generator=generator, dtype=torch.uint8)


def neighbours(
    shape: tuple[int, int, int], walls: tuple[int, ...], index: tuple[int, int, int]
) -> list[tuple[int, int, tuple[int, int, int] | str]]:
    """(axis, side, neighbour) of a cell for its six sides; a wall's name where there is no neighbour."""
    found: list[tuple[int, int, tuple[int, int, int] | str]] = []
    for axis, up in product(range(3), (0, 1)):
        wall = walls[2 * axis + up]
        at = list(index)
        at[axis] += 2 * up - 1
        if 0 <= at[axis] < shape[axis]:
            found.append((axis, up, (at[0], at[1], at[2])))
        elif wall == 2 and shape[axis] > 1:
            at[axis] %= shape[axis]
            found.append((axis, up, (at[0], at[1], at[2])))
        else:
            found.append((axis, up, "open" if wall == 1 else "closed"))
    return found


def dense_stencil(cells: Tensor, walls: tuple[int, ...], scale: tuple[float, float, float]) -> Tensor:
    """The matrix that a stencil stands for, written out from its definition, (n, n)."""
    shape = (cells.shape[0], cells.shape[1], cells.shape[2])
    number = np.arange(cells.numel()).reshape(shape)
    A = torch.zeros((cells.numel(), cells.numel()), dtype=torch.float64)
    for index in product(*map(range, shape)):
        if cells[index] != 0:
            continue
        i = number[index]
        for axis, _, there in neighbours(shape, walls, index):
            kind = (2 if there == "open" else 1) if isinstance(there, str) else int(cells[there])
            if kind != 1:
                A[i, i] += scale[axis]
            if kind == 0:
                A[i, number[there]] -= scale[axis]
    return A


def random_faces(
    generator: torch.Generator, cells: Tensor, walls: tuple[int, ...], wrap: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Diagonal (n,), lower couplings (3, n) and the dense matrix of a random symmetric M-matrix on a grid.

    Couplings go between FLUID cells, round periodic walls too unless `wrap` is False.
    """
    shape = (cells.shape[0], cells.shape[1], cells.shape[2])
    number = np.arange(cells.numel()).reshape(shape)
    n = cells.numel()
    lower = torch.zeros((3, n), dtype=torch.float64)
    A = torch.zeros((n, n), dtype=torch.float64)
    for index in product(*map(range, shape)):
        for axis, up, there in neighbours(shape, walls, index):
            if up or isinstance(there, str) or cells[index] != 0 or cells[there] != 0:
                continue
            if index[axis] == 0 and not wrap:
                continue
            coupling = float(torch.rand((), generator=generator)) + 0.1
            i, j = number[index], number[there]
            lower[axis, i] = coupling
            A[i, j] -= coupling
            A[j, i] -= coupling
    inside = cells.reshape(-1) == 0
    diagonal = torch.where(inside, -A.sum(1) + 0.3 + torch.rand(n, generator=generator), 0.0)
    return diagonal, lower, A + torch.diag(diagonal)
