"""GaLore as its paper writes it, in twenty lines and, where it is installed, as its authors released it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neuralsolve.lowrank.factors import canonical_signs
from neuralsolve.lowrank.optim import GaLore, ProjectedOptimizer

STEPS = 7


def gradients(shape, generator):
    return torch.randn(STEPS, *shape, generator=generator, dtype=torch.float64)


def ours(W, given, gap, side, eps=1e-8):
    method = GaLore(space="exact", transport="keep", scale=0.25)
    group = {"params": [W], "rank": 3, "update_proj_gap": gap, "scale": 0.25, "proj_type": side}
    optimizer = ProjectedOptimizer([group], lr=0.1, eps=eps, plan=method.plan())
    for G in given:
        W.grad = G.clone()
        optimizer.step()
    return W.detach()


def written(W, given, gap, side, rank=3, scale=0.25, lr=0.1):
    """Algorithm 2 of the paper; the signs of singular vectors, which it leaves open, are those of our SVD."""
    W, M, V = W.clone(), 0.0, 0.0
    left = {
        "left": True,
        "right": False,
        "std": W.shape[0] < W.shape[1],
        "reverse_std": W.shape[0] >= W.shape[1],
    }
    for t, G in enumerate(given):
        A = G if left[side] else G.T
        if t % gap == 0:
            U, _, Vh = torch.linalg.svd(A, full_matrices=False)
            P = canonical_signs(U, Vh)[0][:, :rank]
        R = P.T @ A
        M, V = 0.9 * M + 0.1 * R, 0.999 * V + 0.001 * R**2
        N = M / (1 - 0.9 ** (t + 1)) / ((V / (1 - 0.999 ** (t + 1))).sqrt() + 1e-8)
        step = scale * P @ N
        W -= lr * (step if left[side] else step.T)
    return W


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (12, 12)])
@pytest.mark.parametrize("side", ["std", "left", "right", "reverse_std"])
@pytest.mark.parametrize("gap", [3, 100])
def test_it_is_the_algorithm_of_the_paper(shape, side, gap, generator):
    given, start = gradients(shape, generator), torch.randn(shape, generator=generator, dtype=torch.float64)
    expected = written(start, given, gap, side)
    assert torch.allclose(ours(nn.Parameter(start.clone()), given, gap, side), expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (12, 12)])
@pytest.mark.parametrize("side", ["std", "left", "right", "reverse_std"])
def test_it_agrees_with_the_released_optimizer(shape, side, generator):
    # Within one basis: moments kept over a refresh depend on the free signs of singular vectors. And
    # eps = 0, which that code adds before the correction of bias; its SVD is in single precision. Of two
    # sides the first core is diagonal: without eps, Adam's step is made of the noise beside it.
    peer = pytest.importorskip("galore_torch", reason="galore-torch is not installed", exc_type=ImportError)
    given, start = gradients(shape, generator), torch.randn(shape, generator=generator, dtype=torch.float64)
    W = nn.Parameter(start.clone())
    group = {"params": [W], "rank": 3, "update_proj_gap": 100, "scale": 0.25, "proj_type": side}
    theirs = peer.GaLoreAdamW([group], lr=0.1, eps=0.0, weight_decay=0.0, no_deprecation_warning=True)
    for G in given:
        W.grad = G.clone()
        theirs.step()
    found = ours(nn.Parameter(start.clone()), given, 100, side, eps=0.0)
    assert torch.allclose(found, W.detach(), atol=1e-5)
