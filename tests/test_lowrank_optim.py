"""Laws of the projected optimizer: what it is at full rank, what it moves, what it keeps, how it goes on."""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch
from lowrank_optim_models import METHOD, method, mixed, one, walk
from torch import nn

from neuralsolve.lowrank.optim import Plan, ProjectedOptimizer
from neuralsolve.lowrank.optim.projectors import Identity, RandomProjector, SVDProjector
from neuralsolve.lowrank.optim.selections import BasisSelect


@METHOD
def test_a_training_that_goes_on_is_the_one_that_was_never_cut_off(name, generator):
    whole, cut = mixed(), mixed()
    gradients = [[torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in whole.parameters()]] * 2
    gradients = [[g * (1 + k) for g in gradients[k % 2]] for k in range(9)]
    made = method(name, seed=7).optimizer(whole, lr=1e-2)
    for each in gradients:
        for p, g in zip(whole.parameters(), each, strict=True):
            p.grad = g.clone()
        made.step()
    first = method(name, seed=7).optimizer(cut, lr=1e-2)
    for k, each in enumerate(gradients):
        if k == 4:
            file = io.BytesIO()
            torch.save(first.state_dict(), file)
            file.seek(0)
            first = method(name, seed=7).optimizer(cut, lr=1e-2)
            first.load_state_dict(torch.load(file, weights_only=True))
        for p, g in zip(cut.parameters(), each, strict=True):
            p.grad = g.clone()
        first.step()
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), cut.parameters(), strict=True))


@METHOD
def test_a_copy_goes_the_same_way(name):
    model = mixed()
    optimizer = method(name).optimizer(model)
    walk(model, optimizer, 2)
    twin, its = copy.deepcopy((model, optimizer))
    walk(model, optimizer, 3, seed=6)
    walk(twin, its, 3, seed=6)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


@METHOD
def test_steps_within_backward_are_the_same(name):
    plain, at_once = mixed(dtype=torch.float64), mixed(dtype=torch.float64)
    found = [method(name).optimizer(each, lr=1e-2) for each in (plain, at_once)]
    found[1].step_in_backward()
    for k in range(4):
        for model in (plain, at_once):
            sum(((k + 1) * p.abs().square() + p.real).sum() for p in model.parameters()).backward()
        assert all(p.grad is None for p in at_once.parameters())
        found[0].step()
        found[0].zero_grad()
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), at_once.parameters(), strict=True))


@METHOD
def test_every_weight_is_trained_and_none_is_lost(name):
    model = mixed()
    before = [p.clone() for p in model.parameters()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = method(name).optimizer(model, lr=1e-2)
    walk(model, optimizer, 2)
    assert all(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert len(optimizer.state) == len(before)


@METHOD
def test_the_loss_of_a_least_squares_problem_falls(name, generator):
    net = nn.Linear(32, 24, dtype=torch.float64)
    x = torch.randn(200, 32, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(32, 24, generator=generator, dtype=torch.float64)
    optimizer = method(name, rank=0.5).optimizer(net, lr=5e-2)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150)

    def closure():
        optimizer.zero_grad()
        loss = (net(x) - y).square().mean()
        loss.backward()
        return loss

    first = float(closure().detach())
    for _ in range(150):
        optimizer.step(closure)
        rates.step()
    assert optimizer.param_groups[0]["lr"] < 1e-6
    assert float(closure().detach()) < 0.5 * first


def test_in_its_own_coordinates_it_is_adamw(generator):
    model, twin = mixed(), mixed()
    plan = Plan(projector=Identity())
    ours = ProjectedOptimizer([{"params": list(model.parameters()), "rank": 1.0}], 1e-2, plan=plan)
    ours.param_groups[0]["weight_decay"] = 0.1
    theirs = torch.optim.AdamW(twin.parameters(), 1e-2, weight_decay=0.1)
    walk(model, ours, 6)
    walk(twin, theirs, 6)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.view_as_real(p.detach() + 0j).allclose(torch.view_as_real(q.detach() + 0j), atol=1e-6)


@pytest.mark.parametrize("projector", [SVDProjector("exact"), RandomProjector(), BasisSelect()])
def test_of_full_rank_it_is_adam_in_a_rotated_basis(projector, generator):
    W = nn.Parameter(torch.randn(6, 9, generator=generator, dtype=torch.float64))
    start, optimizer = W.detach().clone(), one(W, Plan(projector=projector), 6, update_proj_gap=100)
    gradients = torch.randn(4, 6, 9, generator=generator, dtype=torch.float64)
    for G in gradients:
        W.grad = G.clone()
        optimizer.step()
    basis = {key[3:]: value for key, value in optimizer.state[W].items() if key.startswith("to.")}
    turned = nn.Parameter(projector.down(start, basis))
    adam = torch.optim.Adam([turned], 0.1)
    for G in gradients:
        turned.grad = projector.down(G, basis)
        adam.step()
    assert torch.allclose(projector.up(turned.detach(), basis, W.shape), W, atol=1e-12)


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (12, 12), (1, 9)])
@pytest.mark.parametrize("side", ["std", "left", "right", "full", "reverse_std"])
def test_what_moves_between_refreshes_is_of_low_rank(shape, side, generator):
    W = nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
    rank = min(3, min(shape))
    optimizer, before = one(W, Plan(), rank, proj_type=side), W.detach().clone()
    for _ in range(5):
        W.grad = torch.randn(shape, generator=generator, dtype=torch.float64)
        optimizer.step()
    assert torch.linalg.matrix_rank(W.detach() - before, rtol=1e-10) <= rank


@pytest.mark.parametrize("shape", [(8, 20), (20, 8)])
def test_state_is_counted_exactly(shape, generator):
    m, n, r = *shape, 3
    W = nn.Parameter(torch.randn(shape, generator=generator))
    for side, rows in (("left", m), ("right", n), ("std", 8), ("reverse_std", 20)):
        optimizer = one(W, Plan(), r, proj_type=side)
        W.grad = torch.ones(shape)
        optimizer.step()
        assert optimizer.state_elements() == rows * r + 2 * r * (m * n // rows)
    optimizer = one(W, Plan(), r, proj_type="full")
    optimizer.step()
    assert optimizer.state_elements() == r * (m + n) + 2 * r * r


def test_complex_state_counts_both_parts_and_one_square(generator):
    W = nn.Parameter(torch.randn(8, 20, generator=generator, dtype=torch.complex64))
    optimizer = one(W, Plan(), 3)
    W.grad = W.detach().clone()
    optimizer.step()
    assert optimizer.state_elements() == 2 * 8 * 3 + (2 + 1) * 3 * 20
    assert optimizer.state[W]["exp_avg_sq"].dtype == torch.float32
