"""The slow tier: orders and iteration counts at sizes where they show (pytest -m slow)."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scenes import free_surface

import neuralsolve as ns

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("dim", [2, 3])
def test_order_two_on_a_manufactured_solution(dim):
    """-lap u = dim pi^2 u for u = prod sin(pi x): the error falls as h^2, u being zero on the walls."""
    errors = []
    sides = [31, 63, 127] if dim == 3 else [127, 255, 511]
    for n in sides:
        h = 1 / (n + 1)
        x = np.sin(math.pi * h * np.arange(1, n + 1))
        u = x
        for _ in range(dim - 1):
            u = np.multiply.outer(u, x)
        A = ns.PoissonStencil(ns.Grid((n,) * dim, spacing=h, walls="dirichlet"))
        found = ns.solve(A, dim * math.pi**2 * u.ravel(), rtol=1e-9).x
        errors.append(abs(found - u.ravel()).max())
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(abs(order - 2) < 0.05 for order in orders)


@pytest.mark.parametrize(("shape", "table"), [((512, 512), 266), ((96, 96, 96), 84)])
def test_mic_needs_the_known_number_of_iterations_on_large_grids(shape, table):
    """MIC(0), omega 0.97, relative residual 1e-6, free surfaces with four balls: median of three scenes."""
    counts = []
    for seed in (2003, 2011, 2017):
        A = ns.PoissonStencil(free_surface(shape, np.random.default_rng(seed)))
        b = torch.randn(A.shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        counts.append(ns.solve(A, b, ns.CG(), M=ns.IncompleteCholesky(0.97), rtol=1e-6).iterations)
    assert sorted(counts)[1] == pytest.approx(table, rel=0.1)


@pytest.mark.parametrize("M", [ns.EmbeddedBox(), ns.AMG()], ids=["EmbeddedBox", "AMG"])
def test_iterations_do_not_grow_with_the_grid(M):
    """An obstacle of fixed shape on grids of 64^2 to 512^2: at most half as many steps again."""
    counts = []
    for n in (64, 512):
        y, x = (np.indices((n, n)) + 0.5) / n
        cells = np.where((x - 0.4) ** 2 + (y - 0.6) ** 2 < 0.04, ns.SOLID, ns.FLUID)
        A = ns.PoissonStencil(ns.Grid(cells))
        b = np.random.default_rng(1999).standard_normal(A.shape[0])
        counts.append(ns.solve(A, b, ns.CG(), M=M).iterations)
    assert counts[1] <= 1.5 * counts[0]


def test_plain_cg_needs_iterations_in_proportion_to_the_side():
    """kappa ~ n^2, so CG's steps to a fixed tolerance double with the side, on a right side of all modes."""
    counts = []
    for n in (64, 128, 256):
        A = ns.PoissonStencil(ns.Grid((n, n), walls="dirichlet"))
        b = np.random.default_rng(1997).standard_normal(n * n)
        counts.append(ns.solve(A, b, ns.CG(), rtol=1e-6).iterations)
    assert all(1.7 < b / a < 2.3 for a, b in pairwise(counts))
