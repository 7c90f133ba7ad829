"""Models, gradients and low-rank optimizers that several tests take."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neuralsolve.lowrank.optim import METHODS, ProjectedOptimizer
from neuralsolve.models.points import ModeWeights

EPS = torch.finfo(torch.float64).eps
METHOD = pytest.mark.parametrize("name", list(METHODS))
SMALL = {"rank": 4, "gap": 3}


class Mixed(nn.Module):
    """Weights of all kinds: a matrix, a convolution, complex spectral ones, pairs of reals, a vector."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.lift = nn.Linear(3, 16, dtype=dtype)
        self.dense = nn.Linear(16, 40, dtype=dtype)
        self.conv = nn.Conv2d(16, 24, 3, dtype=dtype)
        kind = torch.complex128 if dtype == torch.float64 else torch.complex64
        self.spectral = nn.Parameter(torch.randn(16, 18, 5, dtype=kind))
        self.modes = ModeWeights(1, 16, 6).to(dtype)

    def weights(self):
        return list(self.parameters())


def mixed(seed=311, dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Mixed(dtype)


def give(model, generator):
    """Give a model gradients drawn at random."""
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)


def walk(model, optimizer, steps, seed=5):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        give(model, generator)
        optimizer.step()


def method(name, **more):
    options = SMALL | {
        "tensor-galore": {"rank": 0.3},
        "frugal": {"space": "exact", "transport": "reset"},
    }.get(name, {})
    options |= {"rank": 1.0, "entries": 600} if name == "adam8bit" else {}
    return METHODS[name](**(options | more))


def one(W, plan, rank, **group):
    """An optimizer of one matrix."""
    options = {"params": [W], "rank": rank} | group
    return ProjectedOptimizer([options], lr=options.pop("lr", 0.1), plan=plan)
