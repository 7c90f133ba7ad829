"""Laws of the projected optimizer: what it is at full rank, what it moves, what it keeps, how it goes on."""

from __future__ import annotations

import copy
import io
import warnings
from itertools import pairwise

import pytest
import torch
from torch import nn

from neuralsolve.errors import OptionError
from neuralsolve.lowrank.optim import METHODS, Frugal, GaLore, Plan, ProjectedOptimizer, build_param_groups
from neuralsolve.lowrank.optim.complements import Factored, Scaled, Sign
from neuralsolve.lowrank.optim.projectors import Identity, RandomProjector, SVDProjector
from neuralsolve.lowrank.optim.refresh import Every, Lazy
from neuralsolve.lowrank.optim.rules import Adam, Lion, Momentum, Orthogonal
from neuralsolve.lowrank.optim.rules import Sign as SignRule
from neuralsolve.lowrank.optim.selections import BasisSelect, BlockSelect
from neuralsolve.lowrank.optim.tucker import TuckerProjector
from neuralsolve.lowrank.views import MatrixView
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


def test_the_projection_of_complex_gradients_is_that_of_their_real_form(generator):
    # z -> [[Re, -Im], [Im, Re]] is multiplicative, and takes adjoints to transposes: projections stay such
    A = torch.randn(10, 14, generator=generator, dtype=torch.complex128)
    A = A * 0.5 ** torch.arange(14)  # a gap after every singular value
    projector = SVDProjector("exact")
    basis = projector.refresh(A, 3, None, place())
    found = projector.up(projector.down(A, basis), basis, A.shape)
    real = torch.cat([torch.cat([A.real, -A.imag], 1), torch.cat([A.imag, A.real], 1)])
    basis = projector.refresh(real, 6, None, place())
    there = projector.up(projector.down(real, basis), basis, real.shape)
    assert torch.allclose(torch.complex(there[:10, :14], there[10:, :14]), found, atol=1e-12)
    s = torch.linalg.svdvals(A)
    assert abs(float((A - found).norm() - s[3:].norm())) < 1e-12


def place(step=0):
    from neuralsolve.lowrank.optim.projectors import Place

    return Place(seed=71, step=step)


def test_pairs_of_reals_go_as_the_complex_numbers_they_are(generator):
    z = torch.randn(5, 12, 12, generator=generator, dtype=torch.complex128)
    pairs, whole = nn.Parameter(torch.view_as_real(z).clone()), nn.Parameter(z.clone())
    view = MatrixView((2,), (1, 0), pairs=True)
    one_of, other = (
        ProjectedOptimizer([{"params": [p], "rank": 4, "views": [v], "update_proj_gap": 2}], 0.1)
        for p, v in ((pairs, view), (whole, MatrixView((2,), (1, 0))))
    )
    for _ in range(5):
        G = torch.randn(z.shape, generator=generator, dtype=torch.complex128)
        pairs.grad, whole.grad = torch.view_as_real(G).clone(), G.clone()
        one_of.step()
        other.step()
    assert torch.allclose(torch.view_as_complex(pairs.detach()), whole.detach(), atol=1e-10)


@pytest.mark.parametrize("transport", ["keep", "rotate", "reset"])
def test_moments_are_carried_over(transport, generator):
    W = nn.Parameter(torch.randn(8, 20, generator=generator, dtype=torch.float64))
    optimizer = one(W, Plan(SVDProjector("exact"), transport=transport), 3, update_proj_gap=2, lr=0.0)
    for k in range(3):
        W.grad = torch.randn(8, 20, generator=generator, dtype=torch.float64)
        if k == 2:
            before = {key: value.clone() for key, value in optimizer.state[W].items()}
        optimizer.step()
    state, P, Q = optimizer.state[W], before["to.basis"], optimizer.state[W]["to.basis"]
    C = Q.mT @ P
    matrices = {"keep": (torch.eye(3).double(),) * 2, "rotate": (C, C**2), "reset": (0 * C, 0 * C)}[transport]
    g = Q.mT @ W.grad
    assert torch.allclose(state["exp_avg"], 0.9 * matrices[0] @ before["exp_avg"] + 0.1 * g, atol=1e-13)
    assert torch.allclose(state["exp_avg_sq"], 0.999 * matrices[1] @ before["exp_avg_sq"] + 0.001 * g**2)
    assert int(state["age"]) == (1 if transport == "reset" else 3)


def test_the_first_moment_that_is_rotated_keeps_what_both_subspaces_hold(generator):
    P = torch.linalg.qr(torch.randn(12, 4, generator=generator, dtype=torch.float64)).Q
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    m = torch.randn(4, 9, generator=generator, dtype=torch.float64)
    there = SVDProjector().carry(m, {"basis": P @ turn}, {"basis": P}, squared=False)
    assert torch.allclose(P @ turn @ there, P @ m, atol=1e-13)
    v = SVDProjector().carry(m.square(), {"basis": P @ turn}, {"basis": P}, squared=True)
    assert v.min() >= 0
    assert torch.allclose(v.sum(), m.square().sum())  # |C|^2 is doubly stochastic


def test_a_warm_basis_follows_the_gradients(generator):
    U = torch.linalg.qr(torch.randn(30, 30, generator=generator, dtype=torch.float64)).Q
    A = U @ torch.diag(0.6 ** torch.arange(30.0).double()) @ torch.linalg.qr(U + 1).Q
    exact, warm = SVDProjector("exact"), SVDProjector("warm")
    best = exact.refresh(A, 5, None, place())
    basis = {"basis": torch.linalg.qr(best["basis"] + 0.1 * U[:, 7:12]).Q}
    assert exact.alignment(best, basis) < 0.995
    for _ in range(12):  # angles shrink by (s_6/s_5)^2 = 0.36 a step
        basis = warm.refresh(A, 5, basis, place())
    assert 1 - exact.alignment(best, basis) < 1e-9
    assert (basis["basis"].mT @ basis["basis"] - torch.eye(5)).abs().max() < 30 * EPS


def test_a_subspace_that_stays_is_refreshed_ever_more_rarely(generator):
    A = torch.randn(10, 2, generator=generator) @ torch.randn(2, 15, generator=generator)
    W = nn.Parameter(torch.zeros(10, 15))
    optimizer = one(W, Plan(SVDProjector("exact"), refresh=Lazy(0.4, window=2)), 2, update_proj_gap=2)
    due = []
    for _ in range(60):
        W.grad = A * torch.rand(1, generator=generator)
        before = optimizer.state[W].get("due")
        optimizer.step()
        due += [before] * (before is None or int(before) != int(optimizer.state[W]["due"]))
    assert len(due) < 60 / 2 / 2
    changing = one(W, Plan(SVDProjector("exact"), refresh=Lazy(0.9, window=2)), 2, update_proj_gap=2)
    for _ in range(12):
        W.grad = torch.randn(10, 15, generator=generator)
        changing.step()
    assert int(changing.state[W]["gap"]) == 2


@pytest.mark.parametrize(
    "plan",
    [
        Plan(complement=Scaled()),
        Plan(SVDProjector("exact"), transport="keep"),
        Plan(BasisSelect(), feedback=True),
        Plan(complement=Factored(), transport="reset"),
    ],
)
def test_matrices_of_one_shape_step_together_as_each_by_itself(plan, generator):
    def made():
        return [nn.Parameter(torch.ones(shape, dtype=torch.float64)) for shape in [(8, 20)] * 3 + [(20, 8)]]

    together, alone = made(), made()
    one_for_all = ProjectedOptimizer([{"params": together, "rank": 3, "update_proj_gap": 2}], 0.1, plan=plan)
    each = [one(W, plan, 3, update_proj_gap=2) for W in alone]
    for k in range(5):
        for which, (p, q) in enumerate(zip(together, alone, strict=True)):
            G = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            late = which == 1 and k < 2  # one that joins later is of another age
            p.grad, q.grad = (None, None) if late else (G, G.clone())
        one_for_all.step()
        for optimizer in each:
            optimizer.step()
    for p, q in zip(together, alone, strict=True):
        assert torch.allclose(p, q, atol=1e-11)
        assert one_for_all.state[p].keys() == each[0].state[alone[0]].keys()


# complements


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


# what is refused, and what is not


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


# Tucker


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_tucker_of_full_ranks_is_adam_in_a_rotated_basis(dtype, generator):
    A, projector = torch.randn(4, 5, 6, generator=generator, dtype=dtype), TuckerProjector()
    basis = projector.refresh(A, (4, 5, 6), None, place())
    for Q in basis.values():
        assert torch.allclose(Q.mH @ Q, torch.eye(len(Q), dtype=dtype), atol=1e-13)
    assert torch.allclose(projector.up(projector.down(A, basis), basis, A.shape), A, atol=1e-12)
    W = nn.Parameter(torch.zeros(4, 5, 6, dtype=dtype))
    optimizer = one(W, Plan(projector), (4, 5, 6))
    W.grad = A.clone()
    optimizer.step()  # the first step of Adam: every entry of the core by its phase
    core = projector.down(W.detach(), basis) if dtype == torch.float64 else None
    if core is not None:
        assert torch.allclose(core.abs(), torch.full_like(core, 0.1), atol=1e-5)


def test_tucker_factors_are_refreshed_and_counted(generator):
    W = nn.Parameter(torch.zeros(8, 9, 10))
    optimizer = one(W, Plan(TuckerProjector()), (2, 3, 4), update_proj_gap=2)
    seen = []
    for _ in range(5):
        W.grad = torch.randn(W.shape, generator=generator)
        optimizer.step()
        seen.append(optimizer.state[W]["to.factor0"].clone())
    changes = [not torch.equal(a, b) for a, b in pairwise(seen)]
    assert changes == [False, True, False, True]
    assert optimizer.state_elements() == 8 * 2 + 9 * 3 + 10 * 4 + 2 * 24
