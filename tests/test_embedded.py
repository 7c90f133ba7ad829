"""The box inverse as a preconditioner for obstacles: spectrum, grid independence, exactness, refusals."""

import numpy as np
import pytest
import torch
from kernel_laws import normal
from recipe_laws import masked_2d
from simulated_gpu import CUDA, Device, gpu

import neuralsolve as ns
from neuralsolve.pde.shapes import obstacle
from neuralsolve.solvers.embedded import EmbeddedBox

__all__ = ["gpu"]  # a fixture


def bunny_stencil(shape, walls, spacing=1.0):
    solid = obstacle("bunny", shape, center=(0.5,) * len(shape), size=0.5, source="analytic")
    return ns.PoissonStencil(ns.Grid(solid.to(torch.uint8), spacing=spacing, walls=walls))


@pytest.mark.parametrize("walls", ["neumann", "dirichlet", "periodic"])
@pytest.mark.parametrize("shape", [(12, 14), (5, 8, 6)])
def test_eigenvalues_lie_in_zero_one_and_m_is_symmetric(shape, walls):
    cells = torch.zeros(shape, dtype=torch.uint8)
    cells[..., 3:6, 2:5] = ns.SOLID
    A = ns.PoissonStencil(ns.Grid(cells, spacing=0.25, walls=walls))
    M = EmbeddedBox().build(A)
    fluid = A.grid.fluid.reshape(-1)
    columns = M.apply(torch.eye(A.shape[0], dtype=torch.float64)[:, fluid].contiguous())
    assert torch.count_nonzero(columns[~fluid]) == 0
    inverse = columns[fluid].numpy()
    scale = np.abs(inverse).max()
    assert np.abs(inverse - inverse.T).max() <= 1e-13 * scale
    # the pencil A v = mu M^-1 v, through the symmetric A^(1/2) M A^(1/2)
    dense = A.to_scipy().toarray()[fluid][:, fluid]
    size, vectors = np.linalg.eigh(dense)
    root = vectors * np.sqrt(np.maximum(size, 0))
    mu = np.linalg.eigvalsh(root.T @ inverse @ root)
    assert mu[-1] <= 1 + 1e-12
    kernel = int(A.null_space is not None)
    assert mu[kernel] > 0.05


@pytest.mark.parametrize("walls", ["neumann", ("neumann", ("neumann", "dirichlet"))])
def test_steps_do_not_grow_with_the_grid(walls):
    walls = walls if isinstance(walls, str) else (walls[1], walls[0])
    counts = []
    for n in (32, 128):
        A = bunny_stencil((n, n), walls, 1 / n)
        x = torch.randn(n * n, dtype=torch.float64, generator=torch.Generator().manual_seed(841))
        counts.append(ns.solve(A, A.matvec(x), ns.CG(), M=EmbeddedBox()).iterations)
    assert counts[1] <= counts[0] + 4  # unpreconditioned CG takes four times as many on the second grid


def test_without_obstacles_it_is_the_inverse():
    A = ns.PoissonStencil(ns.Grid((9, 7), walls="dirichlet"))
    x = torch.randn(63, dtype=torch.float64, generator=torch.Generator().manual_seed(842))
    assert torch.allclose(EmbeddedBox().build(A).apply(A.matvec(x)), x, atol=1e-13)


def test_a_next_grid_is_followed():
    grids = [bunny_stencil((24, 24), walls) for walls in ("dirichlet", "neumann")]
    M = EmbeddedBox().build(grids[0])
    M.update(grids[1])
    r = torch.where(grids[1].active, torch.linspace(-1, 1, 576, dtype=torch.float64), 0.0)
    assert torch.equal(M.apply(r), EmbeddedBox().build(grids[1]).apply(r))


def test_other_operators_are_refused():
    with pytest.raises(ns.StructureError, match="grid=cells"):
        EmbeddedBox().build(ns.as_operator(np.eye(3)))


@pytest.mark.parametrize("walls", ["neumann", "dirichlet"])
def test_the_spectrum_spreads_no_more_than_the_coefficients(walls):
    grid = ns.Grid((9, 11), spacing=(0.5, 1.0), walls=walls)
    rng = np.random.default_rng(5077)
    faces = [torch.from_numpy(rng.uniform(1, 1.8, shape)) for shape in ((10, 11), (9, 12))]
    A = ns.PoissonStencil(grid, faces)
    M = EmbeddedBox().build(A).apply(torch.eye(99, dtype=torch.float64)).numpy()
    size, vectors = np.linalg.eigh(A.to_scipy().toarray())
    root = vectors * np.sqrt(np.maximum(size, 0))
    mu = np.linalg.eigvalsh(root.T @ M @ root)[int(A.null_space is not None) :]
    # c_a in [1, 1.8] over its mean, per axis
    least = min(float(c.min() / c.mean()) for c in faces)
    largest = max(float(c.max() / c.mean()) for c in faces)
    assert mu[0] >= least - 1e-12
    assert mu[-1] <= largest + 1e-12


def test_on_a_gpu_it_is_the_same_map(gpu: Device, generator):
    A = masked_2d()
    M = ns.EmbeddedBox().build(A)
    moved = M.to(CUDA)
    assert moved.stays
    for columns in ((), (2,)):
        r = A @ normal(generator, A.shape[0], *columns)
        there = r.to(CUDA)
        gpu.reads = 0
        z = moved.apply(there)
        assert gpu.reads == 0
        torch.testing.assert_close(z.cpu(), M.apply(r), rtol=0, atol=1e-13 * float(M.apply(r).abs().max()))
