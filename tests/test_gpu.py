"""What only a CUDA device can tell: the CPU's answers there, recorded steps, reads of the host."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from recipe_laws import convection, graph, masked_2d, masked_3d, pockets_2d

import neuralsolve as ns
from neuralsolve.solvers.unseen import Unseen

pytestmark = pytest.mark.gpu
SOR = {"order": "multicolor"}
METHODS = {
    "CG": (ns.CG(), None),
    "SingleReductionCG": (ns.SingleReductionCG(), None),
    "FlexibleCG": (ns.FlexibleCG(), ns.Jacobi()),
    "MINRES": (ns.MINRES(), None),
    "GMRES": (ns.GMRES(), ns.Jacobi()),
    "BiCGStab": (ns.BiCGStab(), ns.Jacobi()),
    "DCDM": (ns.DCDM(), ns.Jacobi()),
    "Richardson": (ns.Richardson(), ns.SSOR(**SOR)),
}
ON_GRIDS = {
    "Multigrid": ns.Multigrid(),
    "Multigrid V": ns.Multigrid("V", smoother="red-black"),
    "NeuralMultigrid": ns.NeuralMultigrid(),
    "red-black": ns.SSOR(order="red-black"),
}
EVERYWHERE = {
    "Jacobi": ns.Jacobi(),
    "SSOR": ns.SSOR(**SOR),
    "AMG": ns.AMG(max_coarse=8),
    "aggregation": ns.AMG("aggregation", max_coarse=8),
    "function": lambda r: 0.1 * r,
}
SEQUENTIAL = {"lexicographic": ns.SSOR(), "IC": ns.IncompleteCholesky()}
EVERY = 5


@pytest.fixture
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps that nobody looks at may not wait for the device; counts the looks between them."""
    looks, steps, told = [0], Unseen._steps, Unseen._told

    def without_reads(self: Unseen, state: Any, count: int) -> Any:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return steps(self, state, count)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def counted(state: Any, norms: torch.Tensor) -> Any:
        looks[0] += 1
        return told(state, norms)

    monkeypatch.setattr(Unseen, "_steps", without_reads)
    monkeypatch.setattr(Unseen, "_told", staticmethod(counted))
    return looks


def right_side(A: ns.LinearOperator, *columns: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(15)
    return A @ torch.randn(A.shape[0], *columns, generator=g, dtype=torch.float64)


def check(A: ns.LinearOperator, b: torch.Tensor, method: Any, M: Any, device: torch.device) -> ns.SolveResult:
    """Solve on the device and on the CPU; both meet the tolerance, by the CPU's product."""
    expected = ns.solve(A, b, method, M=M, rtol=1e-9)
    result = ns.solve(A.to(device), b.to(device), method, M=M, rtol=1e-9)
    assert result.x.device == device
    x = result.x.cpu()
    assert ((b - A @ x).norm(dim=0) <= 1.01e-9 * b.norm(dim=0)).all()
    assert result.iterations <= 1.5 * expected.iterations + 3  # AMG has other smoothers there
    return result


@pytest.mark.parametrize("columns", [(), (3,)], ids=["n", "nk"])
@pytest.mark.parametrize("scene", [graph, masked_3d, pockets_2d], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", METHODS)
def test_methods_agree_with_the_cpu(cuda, name, scene, columns):
    if name == "Richardson" and scene is pockets_2d:
        pytest.skip("pockets without a way out take it thousands of sweeps")
    A = scene()
    check(A, right_side(A, *columns), *METHODS[name], cuda)


@pytest.mark.parametrize("name", ["GMRES", "BiCGStab"])
def test_matrices_that_are_not_symmetric(cuda, name):
    A = convection()
    check(A, right_side(A), *METHODS[name], cuda)


@pytest.mark.parametrize("scene", [masked_2d, masked_3d, graph], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", [*EVERYWHERE, *ON_GRIDS, *SEQUENTIAL])
def test_recipes_agree_with_the_cpu_and_say_where_they_are(cuda, name, scene):
    if scene is graph and name in ON_GRIDS:
        pytest.skip("no grid")
    A, M = scene(), (EVERYWHERE | ON_GRIDS | SEQUENTIAL)[name]
    result = check(A, right_side(A), ns.FlexibleCG(), M, cuda)
    assert ("applied on the CPU" in result.explanation) == (name in SEQUENTIAL)


def test_fast_poisson_and_networks(cuda):
    A = ns.PoissonStencil(ns.Grid((30, 33), walls=("dirichlet", "periodic")))
    check(A, right_side(A), ns.FastPoisson(), None, cuda)
    for precision in ("float32", "bfloat16"):
        M = ns.NeuralDirection("dcdm2d", precision=precision)
        result = check(A, right_side(A), ns.DCDM(), M, cuda)
        assert "applied on the CPU" not in result.explanation


@pytest.mark.parametrize("M", [None, ns.Jacobi(), ns.Multigrid()], ids=["none", "Jacobi", "Multigrid"])
def test_a_graph_replayed_is_the_steps_one_by_one(cuda, monkeypatch, M):
    A = masked_3d()
    b = right_side(A)
    replayed = ns.prepare(A.to(cuda), ns.CG(), M=M, rtol=1e-10, check_every=EVERY)
    first, again = (replayed.solve(b.to(cuda)) for _ in range(2))
    monkeypatch.setattr(Unseen, "_record", lambda self, state: setattr(self, "_recordable", False))
    eager = ns.solve(A.to(cuda), b.to(cuda), ns.CG(), M=M, rtol=1e-10, check_every=EVERY)
    for result in (first, again):
        assert torch.equal(result.x, eager.x)  # the same kernels in the same order: the same bits
        assert result.iterations == eager.iterations
        np.testing.assert_array_equal(result.residual_norms[:-1], eager.residual_norms[:-1])


@pytest.mark.parametrize("M", [None, ns.Jacobi(), ns.SSOR(**SOR), ns.Multigrid()], ids=str)
@pytest.mark.parametrize("columns", [(), (3,)], ids=["n", "nk"])
def test_the_host_reads_nothing_between_looks(cuda, strict, columns, M):
    A = masked_2d()
    b = right_side(A, *columns).to(cuda)
    prepared = ns.prepare(A.to(cuda), ns.CG(), M=M, rtol=1e-8, check_every=EVERY)
    prepared.solve(b)
    strict[0] = 0
    result = prepared.solve(b)
    assert result.converged
    assert strict[0] <= math.ceil(result.iterations / EVERY) + 1


def test_a_large_grid_meets_its_tolerance_on_the_device(cuda):
    shape = (96, 128, 80)
    cells = np.full(shape, ns.FLUID)
    cells[20:60, 40:70, 30:50], cells[-9:] = ns.SOLID, ns.AIR
    A = ns.PoissonStencil(ns.Grid(cells, spacing=1 / 128))
    result = check(A, right_side(A), ns.CG(), ns.Multigrid(), cuda)
    assert result.iterations <= 12
