"""What the projected optimizer is given: odd gradients, precisions, options and groups that cannot be."""

from __future__ import annotations

import pytest
import torch
from lowrank_optim_models import METHOD, method, mixed, one, walk
from torch import nn

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.lowrank.optim import GaLore, Plan, ProjectedOptimizer, build_param_groups


def test_a_gradient_that_is_not_finite_goes_through_as_in_torch():
    for first in (True, False):
        W = nn.Parameter(torch.ones(8, 20))
        optimizer = one(W, Plan(), 2, update_proj_gap=1)
        for bad in [True] if first else [False, True]:
            W.grad = torch.ones(8, 20)
            if bad:
                W.grad[0, 0] = torch.nan
            optimizer.step()
        assert W.isnan().any()
        assert optimizer.state[W]["to.basis"].isfinite().all()


def test_zero_gradients_move_nothing():
    W = nn.Parameter(torch.ones(8, 20))
    optimizer = one(W, Plan(), 2)
    W.grad = torch.zeros(8, 20)
    optimizer.step()
    assert torch.equal(W.detach(), torch.ones(8, 20))


def test_half_precision_weights_have_moments_in_single(generator):
    W = nn.Parameter(torch.ones(8, 20, dtype=torch.bfloat16))
    optimizer = one(W, Plan(), 2)
    W.grad = torch.randn(8, 20, generator=generator).bfloat16()
    optimizer.step()
    assert W.dtype == torch.bfloat16
    assert optimizer.state[W]["exp_avg"].dtype == torch.float32
    again = one(W, Plan(), 2)
    again.load_state_dict(optimizer.state_dict())
    assert again.state[W]["exp_avg"].dtype == torch.float32


def test_what_is_no_matrix_takes_adamw_with_one_warning():
    b, c, W = (nn.Parameter(torch.ones(shape)) for shape in ((5,), (7,), (8, 20)))
    with pytest.warns(UserWarning, match="no matrix") as told:
        optimizer = ProjectedOptimizer([{"params": [b, W], "rank": 2}, {"params": [c], "rank": 2}])
    assert len(told) == 1
    for p in (b, c, W):
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert all(float(p.detach().max()) < 1 for p in (b, c, W))


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"rank": 9}, "whose shorter side is 8"),
        ({"rank": 0}, "shorter side"),
        ({"rank": 1.5}, "at most 1"),
        ({"rank": "all"}, "whole number"),
        ({"rank": 2, "proj_type": "standard"}, "did you mean 'std'"),
        ({"rank": 2, "update_proj_gap": 0}, "at least 1"),
        ({"rank": 2, "views": []}, "one for each"),
    ],
)
def test_options_that_cannot_be_are_refused(group, message):
    with pytest.raises(OptionError, match=message):
        ProjectedOptimizer([{"params": [nn.Parameter(torch.ones(8, 20))]} | group])


def test_sparse_gradients_and_models_without_matrices_are_refused():
    table = nn.Embedding(20, 16, sparse=True)
    optimizer = GaLore(rank=2).optimizer(table)
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(OptionError, match="sparse"):
        optimizer.step()
    with pytest.raises(OptionError, match="nothing of LayerNorm is for GaLore"):
        GaLore().optimizer(nn.LayerNorm(32))
    with pytest.raises(OptionError, match="betas"):
        ProjectedOptimizer([nn.Parameter(torch.ones(2))], betas=(0.9, 1.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: GaLore(rank=2).optimizer(net, lr="a"), "lr = 'a'"),
        (lambda net: GaLore(rank=2).optimizer(net, betas=0.9), "a pair for betas"),
        (lambda net: GaLore(rank=2).optimizer(net.parameters()), "the model itself"),
        (lambda net: build_param_groups(net, "galore"), "got 'galore'"),
        (lambda net: build_param_groups(net, GaLore), "the class GaLore"),
    ],
)
def test_what_is_no_model_method_or_number_is_refused(call, message):
    with pytest.raises(OptionError, match=message):
        call(nn.Linear(32, 32))


def test_groups_without_names_are_taken_later():
    net, more = nn.Linear(32, 32), nn.Linear(32, 32)
    optimizer = GaLore(rank=2).optimizer(net, lr=0.1)
    optimizer.add_param_group({"params": more.parameters()})
    before = more.weight.detach().clone()
    more(net(torch.ones(32))).sum().backward()
    optimizer.step()
    assert bool((more.weight != before).any())


def test_groups_hold_every_parameter_once_with_its_options():
    model = mixed()
    first = [model.dense.weight, model.dense.bias]
    rest = [p for p in model.parameters() if not any(p is q for q in first)]
    given = [{"params": first, "lr": 1.0}, {"params": rest, "lr": 2.0}]
    groups = build_param_groups(model, GaLore(rank=4), groups=given)
    assert [(group["lr"], group.get("rank")) for group in groups] == [
        (1.0, 4),
        (1.0, None),
        (2.0, 4),
        (2.0, None),
    ]
    held = [p for group in groups for _, p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    assert {name for name, _ in groups[2]["params"]} == {"spectral", "conv.weight", "modes.pairs"}


@METHOD
def test_a_state_of_another_rank_is_refused_and_nothing_is_touched(name):
    model, other = mixed(), mixed()
    if name == "adam8bit":  # has the whole parameter
        pytest.skip("has no rank")
    first, second = method(name).optimizer(model), method(name, rank=0.5).optimizer(other)
    walk(model, first, 2)
    with pytest.raises(
        ShapeError, match=rf"rank {first.param_groups[0]['rank']}, .* rank 0\.5; make the opt"
    ):
        second.load_state_dict(first.state_dict())
    assert not second.state
    assert second.param_groups[0]["rank"] == 0.5
    plain = torch.optim.AdamW(other.parameters())
    with pytest.raises(ShapeError, match=r"rank None, that of this optimizer rank 0\.5"):
        second.load_state_dict(plain.state_dict())
