"""Muon: all directions of a matrix move alike, rotations go through, and torch's own goes the same way."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neuralsolve.lowrank.optim import Muon, ProjectedOptimizer

REAL = torch.float64
KINDS = pytest.mark.parametrize("dtype", [REAL, torch.complex128], ids=str)
SHAPES = pytest.mark.parametrize("shape", [(8, 20), (20, 8), (12, 12)], ids=str)


def moved(W, given, lr=0.1):
    """Return a matrix after steps with gradients."""
    parameter = nn.Parameter(W.clone())
    optimizer = ProjectedOptimizer([{"params": [parameter], "rank": 1.0}], lr=lr, plan=Muon().plan())
    for G in given:
        parameter.grad = G.clone()
        optimizer.step()
    return parameter.detach()


@SHAPES
@KINDS
def test_all_directions_move_alike(shape, dtype, generator):
    # singular values from 0.01 of the norm on come into about [0.7, 1.2], times 0.2 of the longer side's root
    G = torch.randn(shape, generator=generator, dtype=dtype)
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    s = torch.logspace(0, -1.5, min(shape), dtype=REAL).to(dtype)
    step = moved(torch.zeros(shape, dtype=dtype), [U * s @ Vh]) / -(0.1 * 0.2 * max(shape) ** 0.5)
    gains = torch.diagonal(U.mH @ step @ Vh.mH)
    assert torch.allclose(U * gains @ Vh, step, atol=1e-12)
    assert gains.imag.abs().max() < 1e-12 if dtype.is_complex else True
    assert ((gains.real > 0.65) & (gains.real < 1.25)).all()


@SHAPES
@KINDS
def test_rotations_of_rows_and_columns_go_through(shape, dtype, generator):
    given = torch.randn(4, *shape, generator=generator, dtype=dtype)
    Q, Z = (torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=dtype)).Q for n in shape)
    plain = moved(torch.zeros(shape, dtype=dtype), given)
    turned = moved(torch.zeros(shape, dtype=dtype), [Q @ G @ Z for G in given])
    assert torch.allclose(turned, Q @ plain @ Z, atol=1e-10)


@SHAPES
def test_it_goes_the_way_of_torch(shape, generator):
    # which multiplies in bfloat16: each of fifteen products errs by about 2^-8 of the singular values, near 1
    given, start = torch.randn(3, *shape, generator=generator), torch.zeros(shape)
    theirs = nn.Parameter(start.clone())
    optimizer = torch.optim.Muon([theirs], 0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for G in given:
        theirs.grad = G.clone()
        optimizer.step()
    ours = moved(start, given)
    assert (ours - theirs.detach()).norm() <= 15 * 2**-8 * ours.norm()


def test_factors_and_kernels_are_matrices_and_vectors_take_adamw():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(8, 2), nn.BatchNorm2d(4))
    groups = Muon().optimizer(net).param_groups
    assert [("rank" in group, group["param_names"]) for group in groups] == [
        (True, ["0.weight", "1.weight"]),
        (False, ["0.bias", "1.bias", "2.weight", "2.bias"]),
    ]
