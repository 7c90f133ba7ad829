"""Laws that every preconditioner recipe obeys, and the operators they are tried on."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

import neuralsolve as ns
from neuralsolve.operators.base import LinearOperator
from neuralsolve.preconditioners.base import Preconditioner, Recipe

EPS = torch.finfo(torch.float64).eps


def graph(n: int = 61, seed: int = 8128) -> LinearOperator:
    """Return an SPD M-matrix on a random graph, diagonals of very different size."""
    rng = np.random.default_rng(seed)
    W = sp.random_array((n, n), density=0.08, rng=rng, data_sampler=lambda size: rng.uniform(0.1, 3, size))
    W = sp.csr_array(W + W.T)
    W.setdiag(0)
    W.eliminate_zeros()
    return ns.as_operator(sp.diags_array(W.sum(1) + rng.uniform(0.01, 1, n)) - W, props={"spd"})


def convection(n: int = 8, speed: float = 3.0, seed: int = 8129) -> LinearOperator:
    """Return an upwind convection-diffusion matrix on n^2 points, rows scaled: nonsymmetric."""
    along = sp.diags_array([-1.0 - speed, 2.0 + speed, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    eye = sp.eye_array(n)
    scale = sp.diags_array(np.random.default_rng(seed).uniform(0.5, 2, n * n))
    return ns.as_operator(sp.csr_array(scale @ (sp.kron(eye, along) + sp.kron(along, eye))))


def with_empty_rows() -> LinearOperator:
    """Return the matrix of a masked grid: rows and columns of zeros where no fluid is."""
    A = masked_2d()
    rows = ns.as_operator(A.to_scipy(), props={"spd"})
    rows.null_space = A.null_space
    return rows


def box_2d() -> LinearOperator:
    return ns.PoissonStencil(ns.Grid((7, 9), spacing=0.3, walls="dirichlet"))


def masked_2d() -> LinearOperator:
    cells = np.zeros((9, 8), np.uint8)
    cells[3:5, 2:5] = ns.SOLID
    cells[7:, 5:] = ns.AIR
    cells[6:8, 0] = ns.SOLID  # cuts the corner (8, 0) off but for its neighbour
    cells[8, 1] = ns.SOLID  # an isolated cell: a row of zeros
    return ns.PoissonStencil(ns.Grid(cells, spacing=(0.5, 0.25), walls="neumann"))


def periodic_2d() -> LinearOperator:
    """Return a singular system that wraps along both axes."""
    return ns.PoissonStencil(ns.Grid((6, 8), walls="periodic"))


def odd_periodic_2d() -> LinearOperator:
    return ns.PoissonStencil(ns.Grid((5, 6), walls=("periodic", "dirichlet")))


def masked_3d() -> LinearOperator:
    """Return a 3D grid with obstacles, a periodic axis, an outlet and coefficients of contrast 100."""
    rng = np.random.default_rng(8131)
    cells = np.where(rng.random((4, 5, 6)) < 0.2, ns.SOLID, ns.FLUID).astype(np.uint8)
    cells[:, 0] = ns.AIR
    grid = ns.Grid(cells, walls=("periodic", "neumann", ("neumann", "dirichlet")))
    values = 10 ** rng.uniform(-1, 1, cells.shape)
    return ns.PoissonStencil(grid, ns.face_coefficients(values, grid))


def pockets_2d() -> LinearOperator:
    """Return a singular system of two regions of fluid and an isolated cell, no way out of any."""
    cells = np.full((6, 9), ns.SOLID, np.uint8)
    cells[1:5, 0:3] = cells[0:6, 4:7] = cells[2, 8] = ns.FLUID
    return ns.PoissonStencil(ns.Grid(cells))


SYMMETRIC = [graph, with_empty_rows, box_2d, masked_2d, periodic_2d, masked_3d, pockets_2d]
SCENES = [*SYMMETRIC, convection]


def dense(M: Preconditioner, n: int) -> Tensor:
    return M.apply(torch.eye(n, dtype=torch.float64))


def active(A: LinearOperator) -> Tensor:
    """Return the rows of A that are not zero."""
    return torch.from_numpy(abs(A.to_scipy()).sum(axis=1) > 0)


def smallest_energy(M: Tensor, A: LinearOperator) -> float:
    """Return the minimum of r.Mr over unit r orthogonal to the null space and zero in the empty rows."""
    n = A.shape[0]
    inside = torch.eye(n, dtype=torch.float64)[:, active(A)]
    if A.null_space is not None:
        A.null_space.project(inside)
    directions, size, _ = torch.linalg.svd(inside, full_matrices=False)
    directions = directions[:, size > 0.5]  # singular values are 1, or 0 for the null space
    return float(torch.linalg.eigvalsh(directions.T @ M @ directions).min())


def check_laws(recipe: Recipe, A: LinearOperator, generator: torch.Generator) -> Tensor:
    """Check M against its own dense form, which is returned; to 1e-5 where M works in float32."""
    n = A.shape[0]
    before = A.to_scipy().copy()
    M = recipe.build(A)
    whole = dense(M, n)
    size = float(whole.abs().max())
    rounding = 1e-5 if getattr(M, "dtype", None) is torch.float32 else 1000 * n * EPS
    close = {"rtol": 0.0, "atol": rounding * size}  # a few n^2 operations on numbers of that size

    r = torch.randn((n, 3), dtype=torch.float64, generator=generator)
    kept = r.clone()
    torch.testing.assert_close(M.apply(r), whole @ r, **close)  # linear, (n, k)
    torch.testing.assert_close(M.apply(r[:, 0].contiguous()), whole @ r[:, 0], **close)  # (n,)
    torch.testing.assert_close(M.apply(r[:, :1].contiguous()), whole @ r[:, :1], **close)  # (n, 1)
    torch.testing.assert_close(M.apply_transpose(r), whole.T @ r, **close)
    torch.testing.assert_close(M.apply_transpose(r[:, 1].contiguous()), whole.T @ r[:, 1], **close)
    for shape in ((n,), (n, 3)):
        out = torch.full(shape, float("nan"), dtype=torch.float64)
        given = r if len(shape) == 2 else r[:, 0].contiguous()
        assert M.apply(given, out) is out
        torch.testing.assert_close(out, M.apply(given), rtol=0.0, atol=0.0)
    assert torch.equal(r, kept)
    after = A.to_scipy()
    assert np.array_equal(before.data, after.data)
    assert np.array_equal(before.indices, after.indices)

    rows = active(A)
    assert not whole[~rows].any()
    assert not whole[:, ~rows].any()
    if M.symmetric:
        torch.testing.assert_close(whole, whole.T, **close)
        assert smallest_energy(whole, A) > 0
    M.update(A)
    torch.testing.assert_close(dense(M, n), whole, **close)
    assert M.describe()
    return whole


def check_update(recipe: Recipe, A: LinearOperator, A_next: LinearOperator) -> None:
    """Check that an updated M is the M that would be built anew, and is not the old one."""
    M = recipe.build(A)
    old = dense(M, A.shape[0])
    M.update(A_next)
    new = dense(recipe.build(A_next), A.shape[0])
    size = float(new.abs().max())
    rounding = 1e-5 if getattr(M, "dtype", None) is torch.float32 else 1000 * A.shape[0] * EPS
    torch.testing.assert_close(dense(M, A.shape[0]), new, rtol=0.0, atol=rounding * size)
    assert float((old - new).abs().max()) > 1e-3 * size
