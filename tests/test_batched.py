"""Systems side by side: each column is solved as it is alone."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from kernel_laws import normal, random_cells
from simulated_gpu import CUDA, Device, fast_gpu, gpu

import neuralsolve as ns
from neuralsolve.errors import ShapeError, StructureError

__all__ = ["fast_gpu", "gpu"]  # fixtures


def stencils(generator: torch.Generator, shape: tuple[int, ...], walls: str) -> list[ns.PoissonStencil]:
    cells = [torch.zeros(shape, dtype=torch.uint8), *(random_cells(generator, shape) for _ in range(2))]
    return [ns.PoissonStencil(ns.Grid(each, 0.5, walls)) for each in cells]


SHAPES = pytest.mark.parametrize("shape", [(5, 6), (3, 4, 5)], ids=["2D", "3D"])
WALLS = pytest.mark.parametrize("walls", ["dirichlet", "neumann", "periodic"])


@SHAPES
@WALLS
def test_every_column_has_its_own_product(generator, shape, walls):
    many = stencils(generator, shape, walls)
    A = ns.BatchedStencil(many)
    x = normal(generator, A.shape[0], 3)
    expected = torch.stack([each @ x[:, j].contiguous() for j, each in enumerate(many)], 1)
    torch.testing.assert_close(A @ x, expected, rtol=1e-14, atol=1e-13)
    out = torch.empty_like(x)
    inner = A.matvec_dot(x, out)
    torch.testing.assert_close(inner, (x * expected).sum(0), rtol=1e-12, atol=1e-12)
    whole = torch.from_numpy(A.to_scipy() @ x.reshape(-1).numpy()).reshape(x.shape)
    torch.testing.assert_close(whole, expected, rtol=1e-14, atol=1e-13)
    torch.testing.assert_close(A.diagonal(), torch.stack([each.diagonal() for each in many], 1))


@SHAPES
@WALLS
@pytest.mark.parametrize("M", [None, ns.Jacobi()], ids=["plain", "Jacobi"])
def test_every_column_is_solved(generator, shape, walls, M):
    many = stencils(generator, shape, walls)
    A = ns.BatchedStencil(many)
    b = normal(generator, A.shape[0], 3)
    result = ns.solve(A, b, ns.CG(), M=M, rtol=1e-10)
    assert result.converged
    for j, each in enumerate(many):
        alone = ns.solve(each, b[:, j], ns.CG(), M=M, rtol=1e-10)
        torch.testing.assert_close(result.x[:, j], alone.x, rtol=1e-8, atol=1e-8)
        assert result.iterations >= alone.iterations
    assert ns.solve(A, b.numpy(), rtol=1e-8).converged


def test_on_a_device(fast_gpu: Device, generator):
    A = ns.BatchedStencil(stencils(generator, (4, 5), "dirichlet"))
    b = normal(generator, A.shape[0], 3)
    expected = ns.solve(A, b, rtol=1e-9).x
    found = ns.solve(A.to(CUDA), b.to(CUDA), rtol=1e-9)
    assert found.converged
    torch.testing.assert_close(found.x.cpu(), expected, rtol=1e-7, atol=1e-8)


def test_a_batch_is_pickled_and_moved(generator):
    A = ns.BatchedStencil(stencils(generator, (4, 5), "neumann"))
    x = normal(generator, 20, 3)
    assert torch.equal(pickle.loads(pickle.dumps(A)) @ x, A @ x)
    assert A.to("cpu") is A
    assert (A.to(dtype=torch.float32) @ x.float()).dtype == torch.float32


def test_wrong_input(generator):
    first = ns.PoissonStencil(ns.Grid((4, 5)))
    with pytest.raises(ShapeError, match="one or more"):
        ns.BatchedStencil([])
    with pytest.raises(ShapeError, match="stencil 1 has a grid"):
        ns.BatchedStencil([first, ns.PoissonStencil(ns.Grid((5, 4)))])
    with pytest.raises(StructureError, match="coefficients"):
        ns.BatchedStencil([ns.PoissonStencil(ns.Grid((4, 5)), [np.ones((5, 5)), np.ones((4, 6))])])
    with pytest.raises(StructureError, match="CSROperator"):
        ns.BatchedStencil([ns.as_operator(first.to_scipy())])
    A = ns.BatchedStencil([first, first])
    for b in (np.ones(20), np.ones((20, 3))):
        with pytest.raises(ShapeError, match=r"\(20, 2\) is needed"):
            ns.solve(A, b)
    with pytest.raises(StructureError, match="list of stencils"):
        ns.BatchedStencil(first)  # type: ignore[arg-type]
    b = normal(generator, 20, 2)
    for method in (ns.GMRES(), ns.BiCGStab(), ns.DCDM(), ns.SparseLU(), ns.FastPoisson()):
        with pytest.raises(StructureError, match=r"one system at a time.*ns\.CG"):
            ns.solve(A, b, method)
    for M in (ns.AMG(), ns.SSOR(), ns.Multigrid(), ns.EmbeddedBox(), ns.IncompleteCholesky()):
        with pytest.raises(StructureError, match=r"one system, .*ns\.Jacobi"):
            ns.solve(A, b, ns.CG(), M=M)
    for null_space in ("constant", np.ones(20)):
        with pytest.raises(StructureError, match="leave null_space out"):
            ns.solve(A, b, ns.CG(), null_space=null_space)
    with pytest.raises(ShapeError, match="side by side"):
        A @ torch.ones(20, dtype=torch.float64)


def test_regions_of_all_systems_are_told_apart_once(gpu: Device, generator):
    A = ns.BatchedStencil([ns.PoissonStencil(ns.Grid((5, 6)))] * 3)
    assert A.null_space is not None
    expected = normal(generator, A.shape[0], 3)
    first, second, Z = expected.to(CUDA).clone(), expected.to(CUDA).clone(), A.null_space.to(CUDA)
    A.null_space.project(expected)
    Z.project(first)
    reads = gpu.reads
    Z.project(second)
    assert gpu.reads == reads
    torch.testing.assert_close(second.cpu(), expected, rtol=1e-13, atol=1e-13)
