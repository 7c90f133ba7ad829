"""Solves on a device: the answers of the CPU, and nothing read by the host but norms."""

from __future__ import annotations

import pytest
import torch
from recipe_laws import box_2d, convection, graph, masked_2d, masked_3d, pockets_2d
from simulated_gpu import CUDA, Device, There, gpu

import neuralsolve as ns

__all__ = ["gpu"]  # a fixture
RECIPES = {
    "none": None,
    "Jacobi": ns.Jacobi(),
    "SSOR": ns.SSOR(order="multicolor"),
    "lexicographic": ns.SSOR(),
    "IC": ns.IncompleteCholesky(),
    "AMG": ns.AMG(max_coarse=8),
    "aggregation": ns.AMG("aggregation", max_coarse=8),
}


def right_side(A: ns.LinearOperator, *columns: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(12)
    return A @ torch.randn(A.shape[0], *columns, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("scene", [box_2d, graph, masked_3d, pockets_2d], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", RECIPES)
def test_cg_on_the_device(gpu: Device, scene, name):
    A = scene()
    b = right_side(A)
    expected = ns.solve(A, b, ns.CG(), M=RECIPES[name], rtol=1e-9)
    result = ns.solve(A.to("cuda:0"), b.to(CUDA), ns.CG(), M=RECIPES[name], rtol=1e-9)
    assert isinstance(result.x, There)
    assert result.converged
    assert result.iterations <= 1.5 * expected.iterations + 3  # AMG has other smoothers there
    x = result.x.cpu()
    assert (b - A @ x).norm() <= 1.01e-9 * b.norm()
