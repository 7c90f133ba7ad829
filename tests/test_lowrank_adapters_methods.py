"""Each adapter by itself: its formula, its start, and the subspaces that it leaves alone."""

from __future__ import annotations

import pytest
import torch
from lowrank_adapter_models import METHODS, Single, drawn, m, n, p, put, r, train
from lowrank_laws import eps
from torch import nn

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.adapters import (
    GPM,
    OSF,
    SALT,
    Effort,
    LoLDU,
    LoRA,
    LoRASB,
    attach,
    deltas_of,
    penalty,
    trainable_parameters,
)
from neuralsolve.lowrank.adapters.loldu import ldu
from neuralsolve.lowrank.adapters.record import base_of


@pytest.mark.parametrize("name", ["svfit", "svfit of a rank"])
def test_svfit_changes_singular_values_alone(name, generator):
    W = drawn(generator, m, n)
    model = put(Single(W), METHODS[name][0], generator)
    train(model, 20, generator)
    U, _, Vh = torch.linalg.svd(W, full_matrices=False)
    core = U.mH @ (model.weight - W) @ Vh.mH
    off = core - torch.diag(core.diagonal())
    assert off.norm() <= 100 * eps(W.dtype) * W.norm()


def test_salt_keeps_its_blocks_apart(generator):
    W = drawn(generator, m, n)
    model = put(Single(W), SALT(rank=2, keep=5 / 9), generator)
    delta = deltas_of(model)["weight"]
    (model.weight * drawn(generator, m, n)).sum().backward()
    assert not delta.X.grad.any()  # Y = 0
    assert delta.Y.grad.norm() > 0.1
    train(model, 20, generator)
    U, _, Vh = torch.linalg.svd(W, full_matrices=False)
    core = U.mH @ (model.weight - W) @ Vh.mH
    bound = 100 * eps(W.dtype) * W.norm()
    assert core[:5, 5:].norm() <= bound
    assert core[5:, :5].norm() <= bound
    assert (core[:5, :5] - torch.diag(core.diagonal()[:5])).norm() <= bound
    assert torch.linalg.matrix_rank(core[5:, 5:], tol=1e-8) == 2


def test_salt_cuts_singular_values_at_zero_where_asked(generator):
    W = drawn(generator, m, n)
    model = put(Single(W), SALT(rank=1, keep=5 / 9, nonnegative=True), generator)
    delta = deltas_of(model)["weight"]
    with torch.no_grad():
        delta.shift[0] = -2 * delta.s[0]
    U, s, Vh = torch.linalg.svd(W, full_matrices=False)
    assert abs(U[:, 0].dot(model.weight @ Vh[0])) <= 100 * eps(W.dtype) * s[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_lora_sb_begins_with_the_best_low_rank_step(dtype, generator):
    W, G = drawn(generator, m, n, dtype=dtype), drawn(generator, m, n, dtype=dtype)
    model = Single(W)
    attach(model, LoRASB(rank=r, step=0.01), lambda: (G.conj() * model.weight).real.sum())
    sign = torch.complex(G.real.sign(), G.imag.sign()) if dtype.is_complex else G.sign()
    U, s, Vh = torch.linalg.svd(-0.01 * sign, full_matrices=False)
    best = (U[:, :r] * s[:r]) @ Vh[:r]
    assert (model.weight - W - best).norm() <= 100 * eps(dtype) * W.norm()
    assert (G.conj() * (model.weight - W)).real.sum() < 0  # the loss falls
    delta = deltas_of(model)["weight"]
    eye = torch.eye(r, dtype=dtype)
    assert (delta.left.mH @ delta.left - eye).norm() <= 50 * eps(dtype)
    assert (delta.right @ delta.right.mH - eye).norm() <= 50 * eps(dtype)
    (G.conj() * model.weight).real.sum().backward()  # and its gradient is the projected one
    through = delta.left @ delta.core.grad @ delta.right
    wanted = delta.left @ (delta.left.mH @ G @ delta.right.mH) @ delta.right
    assert (through - wanted).norm() <= 50 * eps(dtype) * G.norm()


@pytest.mark.parametrize("pivot", ["partial", "rank-revealing"])
@pytest.mark.parametrize("shape", [(m, n), (n, m), (1, 5), (4, m, n), (6, 6)])
def test_ldu_is_the_matrix(pivot, shape, generator):
    for dtype in (torch.float64, torch.complex128):
        W = drawn(generator, *shape, dtype=dtype)
        for each in (W, torch.zeros_like(W), (W[..., :1] @ W[..., :1, :])):
            left, pivots, right = ldu(each, pivot)
            made = (left * pivots[..., None, :]) @ right
            # growth of elimination with partial pivoting is at most 2^(p - 1), in practice about p
            assert (made - each).norm() <= 100 * eps(dtype) * max(float(each.norm()), 1.0)


def test_a_pivoted_order_makes_leading_pivots_count(generator):
    decay = torch.logspace(0, -4, 20, dtype=torch.float64)
    Q, P = (torch.linalg.qr(drawn(generator, 20, 20)).Q for _ in range(2))
    W = (Q * decay) @ P
    lost = {}
    for pivot in ("partial", "rank-revealing"):
        left, pivots, right = ldu(W, pivot)
        lost[pivot] = float((W - (left[:, :6] * pivots[:6]) @ right[:6]).norm())
    assert lost["rank-revealing"] <= 10 * float(decay[6:].norm())
    assert lost["rank-revealing"] < lost["partial"]


@pytest.mark.parametrize("start", ["lu", "uniform", "normal", "constant", "ones", "zeros"])
def test_loldu_begins_with_the_weight_whatever_its_pivots_are(start, generator):
    W = drawn(generator, m, n)
    model = put(Single(W), LoLDU(rank=r, start=start), generator)
    assert torch.equal(model.weight, W)
    train(model, 3, generator)
    assert not torch.equal(model.weight, W)


HARD = pytest.mark.parametrize("adapter", [OSF(keep=4 / 9), Effort(tail=5)], ids=["osf", "effort"])


@HARD
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
@pytest.mark.parametrize("shape", [(m, n), (n, m)])
def test_nothing_leaks_into_the_protected_subspaces(adapter, dtype, shape, generator):
    # under AdamW, whose steps are turned out of any subspace by their scaling of single entries
    W = drawn(generator, *shape, dtype=dtype)
    model = put(Single(W), adapter, generator)
    train(model, 60, generator)
    change = model.weight - W
    U, s, Vh = torch.linalg.svd(W, full_matrices=False)
    assert change.norm() > 0.3 * W.norm()
    bound = 4 * p * eps(dtype) * change.norm()
    assert (U[:, :4].mH @ change).norm() <= bound
    assert (change @ Vh[:4].mH).norm() <= bound
    assert (U[:, :4].mH @ model.weight - s[:4, None] * Vh[:4]).norm() <= bound  # triplets stay triplets


def test_a_projected_gradient_would_leak():
    """Why the map itself projects: the same training with projected gradients alone."""
    generator = torch.Generator().manual_seed(11)
    W = drawn(generator, 40, 30)
    model = attach(Single(W), Effort(tail=20, hard=False))
    delta = deltas_of(model)["weight"]
    optimizer = torch.optim.Adam(trainable_parameters(model), 0.02)
    goal = drawn(generator, 40, 30)
    for _ in range(50):
        optimizer.zero_grad()
        (model.weight - goal).square().sum().backward()
        delta.left.grad -= delta.U @ (delta.U.mH @ delta.left.grad)
        delta.right.grad -= (delta.right.grad @ delta.Vh.mH) @ delta.Vh
        optimizer.step()
    change = model.weight - W
    assert (delta.U.mH @ change).norm() > 0.01 * change.norm()


@HARD
def test_projecting_in_the_map_is_projecting_after_every_step(adapter, generator):
    W, goal = drawn(generator, m, n), drawn(generator, m, n)
    ways = []
    for after in (False, True):
        model = attach(Single(W), adapter)
        delta = deltas_of(model)["weight"]
        optimizer = torch.optim.AdamW(trainable_parameters(model), 0.02, weight_decay=0.1)
        for _ in range(20):
            optimizer.zero_grad()
            (model.weight - goal).square().sum().backward()
            optimizer.step()
            if after:
                with torch.no_grad():
                    for held, projected in zip((delta.left, delta.right), delta.outside(), strict=True):
                        held.copy_(projected)
        ways.append(model.weight.detach())
    # rounding may turn the sign of an entry of Adam's first step where a gradient is zero: none is
    assert (ways[0] - ways[1]).norm() <= 1e-9 * W.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
def test_gpm_leaves_an_older_task_alone(dtype, generator):
    old = drawn(generator, 40, 3, dtype=dtype) @ drawn(generator, 3, n, dtype=dtype)  # few kinds of inputs
    model = Single(drawn(generator, m, n, dtype=dtype))
    W, before = model.weight.detach().clone(), model(old).detach()
    aim = drawn(generator, 40, m, dtype=dtype)
    attach(model, GPM(keep=4 / 9), lambda: (model(old) - aim).abs().square().sum(1))
    assert torch.equal(model.weight, W)
    assert deltas_of(model)["weight"].protected.norm() ** 2 == pytest.approx(3, abs=1e-4)  # no more are used
    train(model, 60, generator)
    change = model.weight - W
    assert change.norm() > 0.3 * W.norm()
    assert (model(old) - before).norm() <= 100 * eps(dtype) * old.norm() * (W.norm() + change.norm())


def test_penalties_are_zero_at_first_and_positive_after(generator):
    for adapter in (SALT(rank=2), OSF(), Effort(tail=2), Effort(tail=2, hard=False)):
        model = put(Single(drawn(generator, n, n)), adapter, generator)
        first = float(penalty(model).detach())
        assert abs(first) <= 200 * eps(torch.float64) * n**2
        train(model, 5, generator)
        assert float(penalty(model).detach()) > 0.01
    with pytest.raises(OptionError, match="LoRA has no penalty"):
        penalty(attach(nn.Linear(4, 4), LoRA(rank=1)))


def test_the_soft_penalty_draws_back(generator):
    W, goal = drawn(generator, n, n), drawn(generator, n, n)
    leaks = {}
    for weight in (0.0, 30.0):
        model = attach(Single(W), Effort(tail=3, hard=False))
        delta = deltas_of(model)["weight"]
        optimizer = torch.optim.Adam(trainable_parameters(model), 0.01)
        for _ in range(150):
            optimizer.zero_grad()
            ((model.weight - goal).square().sum() + weight * penalty(model)).backward()
            optimizer.step()
        leaks[weight] = float((delta.U.mH @ delta.left.detach()).norm())
    assert leaks[30.0] < 0.3 * leaks[0.0]


def test_lora_is_its_formula_and_begins_as_torch_does(generator):
    model = attach(nn.Linear(n, m), LoRA(rank=r, alpha=6.0, seed=77))
    delta = deltas_of(model)["weight"]
    A = nn.init.kaiming_uniform_(torch.empty(r, n), a=5**0.5, generator=torch.Generator().manual_seed(77))
    assert torch.allclose(delta.right, A, atol=4 * eps(torch.float32))
    train(model, 3, generator)
    assert torch.allclose(model.weight, base_of(model, "weight") + 6.0 / r * delta.left @ delta.right)
