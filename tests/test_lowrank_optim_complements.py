"""What a projected optimizer does beside its subspace: complements, feedback, constraints, rules."""

from __future__ import annotations

import pytest
import torch
from lowrank_optim_models import give, one
from torch import nn

from neuralsolve.lowrank.optim import Frugal, Plan
from neuralsolve.lowrank.optim.complements import Factored, Scaled, Sign
from neuralsolve.lowrank.optim.refresh import Every
from neuralsolve.lowrank.optim.rules import Adam, Lion, Momentum, Orthogonal
from neuralsolve.lowrank.optim.rules import Sign as SignRule
from neuralsolve.lowrank.optim.selections import BasisSelect, BlockSelect


def test_a_split_gradient_is_the_gradient_and_density_one_is_adam(generator):
    W, twin = (nn.Parameter(torch.ones(8, 20, dtype=torch.float64)) for _ in range(2))
    ours = one(W, Plan(BasisSelect("identity"), complement=Sign()), 8, update_proj_gap=100)
    adam = torch.optim.AdamW([twin], 0.1, weight_decay=0)
    for _ in range(5):
        W.grad = torch.randn(8, 20, generator=generator, dtype=torch.float64)
        twin.grad = W.grad.clone()
        ours.step()
        adam.step()
    assert torch.allclose(W, twin, atol=1e-13)


def test_density_zero_is_sign_descent_bit_for_bit(generator):
    W = nn.Parameter(torch.randn(8, 20, generator=generator))
    ours = one(W, Plan(BlockSelect(), complement=Sign(), transport="reset"), 0.0)
    expected = W.detach().clone()
    for _ in range(3):
        W.grad = torch.randn(8, 20, generator=generator)
        ours.step()
        expected.add_(torch.sgn(W.grad), alpha=-0.1)
    assert torch.equal(W.detach(), expected)
    assert ours.state_elements() == 0 + ours.state[W]["to.active"].numel()


@pytest.mark.parametrize("complement", [Sign(), Scaled(), Factored()])
def test_with_a_complement_every_direction_moves(complement, generator):
    W = nn.Parameter(torch.zeros(8, 20, dtype=torch.float64))
    optimizer = one(W, Plan(complement=complement), 2)
    W.grad = torch.randn(8, 20, generator=generator, dtype=torch.float64)
    optimizer.step()
    assert torch.linalg.matrix_rank(W.detach()) == 8


def test_blocks_take_turns_within_their_share(generator):
    model = nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(8)))
    optimizer = Frugal(rank=0.25, gap=1, space="blocks", transport="reset").optimizer(model)
    seen = set()
    for _ in range(20):
        give(model, generator)
        optimizer.step()
        active = {k for k, p in enumerate(model.parameters()) if bool(optimizer.state[p]["to.active"])}
        assert len(active) == 2
        assert optimizer.state_elements() == 2 * 2 * 256 + 8
        seen |= active
    assert seen == set(range(8))


def test_error_feedback_conserves_the_sum_of_gradients(generator):
    W = nn.Parameter(torch.zeros(8, 20, dtype=torch.float64))
    plan = Plan(BasisSelect(), rule=Momentum(0.0), refresh=Every(), feedback=True)
    optimizer = one(W, plan, 2, update_proj_gap=1, lr=1.0)
    total = torch.zeros_like(W)
    for _ in range(10):
        W.grad = torch.randn(8, 20, generator=generator, dtype=torch.float64)
        total += W.grad
        optimizer.step()
    assert torch.allclose(optimizer.state[W]["feedback"] - W.detach(), total, atol=1e-12)


def test_a_constraint_is_kept_exactly_under_adam(generator):
    M = torch.linalg.qr(torch.randn(12, 4, generator=generator, dtype=torch.float64)).Q
    W = nn.Parameter(torch.zeros(12, 20, dtype=torch.float64))
    plan = Plan(constraint=lambda parameter, G: G - M @ (M.mT @ G))
    for side in ("left", "right"):
        optimizer = one(W, plan, 3, update_proj_gap=2, proj_type=side)
        for _ in range(6):
            W.grad = torch.randn(12, 20, generator=generator, dtype=torch.float64)
            optimizer.step()
    assert (M.mT @ W.detach()).norm() <= 1e-12 * W.detach().norm()


@pytest.mark.parametrize("rule", [Adam(), Lion(), Momentum(), SignRule(), Orthogonal()], ids=repr)
def test_every_rule_descends(rule, generator):
    W = nn.Parameter(torch.randn(10, 16, generator=generator))
    optimizer = one(W, Plan(rule=rule), 10, update_proj_gap=5, lr=1e-2)
    first = float(W.detach().norm())
    for _ in range(20):
        W.grad = W.detach().clone()
        optimizer.step()
    assert float(W.detach().norm()) < first
