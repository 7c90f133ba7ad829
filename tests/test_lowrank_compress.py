"""Laws of compression: optimal errors, equal maps, budgets kept, models left alone, and what is refused."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError
from neuralsolve.lowrank.compress import (
    AFM,
    FactoredConv,
    FactoredLinear,
    Moments,
    PlainSVD,
    Plan,
    Whitened,
    calibrate,
    compensate,
    compress,
    latency,
    moments_of,
    refit,
    structure_of,
    targets,
)
from neuralsolve.lowrank.compress.allocators import ALLOCATORS, Offer, hull, total
from neuralsolve.lowrank.compress.refit import RIDGE
from neuralsolve.lowrank.compress.structure import real_parameters

EPS = torch.finfo(torch.float64).eps
OUTPUTS, INPUTS, N = 12, 20, 200  # and samples


def normal(generator, *shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def skewed(generator, count=N, width=INPUTS):
    """Inputs with a mean and a spectrum that falls: unlike weights."""
    return (1 + normal(generator, count, width)) * torch.arange(1, width + 1).double() ** -1.0


def seen(x, y):
    moments = Moments()
    for part in torch.arange(len(x)).split(64):
        moments.add(x[part], y[part], len(part))
    return moments


def layer_of(W, bias):
    layer = nn.Linear(W.shape[1], W.shape[0], bias=bias is not None, dtype=torch.float64)
    layer.weight.data = W
    if bias is not None:
        layer.bias.data = bias
    return layer


def net(generator, width=48):
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        return nn.Sequential(
            nn.Linear(INPUTS, width),
            nn.Tanh(),
            nn.Linear(width, width, bias=False),
            nn.Tanh(),
            nn.Linear(width, 3),
        ).double()


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("rank", [1, 5, OUTPUTS])
@pytest.mark.parametrize("bias", [True, False])
def test_the_error_of_afm_is_the_tail_of_the_eigenvalues(center, rank, bias, generator):
    W, b, x = (
        normal(generator, OUTPUTS, INPUTS),
        normal(generator, OUTPUTS) if bias else None,
        skewed(generator),
    )
    y = x @ W.T + (0 if b is None else b)
    moments, method = seen(x, y), AFM(center)
    found = method.factors(W, b, moments, rank)
    made = x @ (found.B @ found.A).T + (0 if found.bias is None else found.bias)
    squares = method.squares(W, b, moments)
    assert abs((made - y).square().sum() - N * squares[rank:].sum()) <= 16 * N * EPS * y.square().sum()
    centred = y - y.mean(0) if center else x @ W.T
    tail = torch.linalg.svdvals(centred)[rank:].square().sum()  # Eckart-Young of the features
    assert abs((made - y).square().sum() - tail) <= 16 * N * EPS * y.square().sum()


def test_no_other_affine_map_of_the_rank_is_better_than_afm(generator):
    W, x = normal(generator, OUTPUTS, INPUTS), skewed(generator)
    y = x @ W.T
    moments = seen(x, y)
    best = N * AFM().squares(W, None, moments)[3:].sum()
    for method in (AFM(center=False), Whitened(), PlainSVD()):
        other = method.factors(W, None, moments, 3)
        rest = y - x @ (other.B @ other.A).T
        assert (rest - rest.mean(0)).square().sum() >= best * (1 - 1e-12)  # with the best bias there is


@pytest.mark.parametrize("rank", [1, 6])
def test_uncentred_afm_whitened_svd_and_eora_of_nothing_are_one_map(rank, generator):
    W, x = normal(generator, OUTPUTS, INPUTS), skewed(generator)
    moments = seen(x, x @ W.T)
    maps = [method.factors(W, None, moments, rank) for method in (AFM(center=False), Whitened())]
    first, second = (each.B @ each.A for each in maps)
    assert (first - second).norm() <= 1e-10 * W.norm()
    dense = layer_of(W, None)
    nothing = copy.deepcopy(dense)
    nothing.weight.data.zero_()
    third = compensate(nn.Sequential(dense), nn.Sequential(nothing), x, rank=rank)[0].to_dense()
    assert (first - third).norm() <= 1e-10 * W.norm()


def test_eora_leaves_the_tail_of_what_is_lost_where_the_inputs_are(generator):
    W, x, rank = normal(generator, OUTPUTS, INPUTS), skewed(generator), 4
    dense, rounded = layer_of(W, None), layer_of(W.round(), None)
    made = compensate(nn.Sequential(dense), nn.Sequential(rounded), x, rank=rank)[0]
    lost = W - W.round()
    tail = torch.linalg.svdvals(x @ lost.T)[rank:].norm()
    assert abs((made(x) - dense(x)).norm() - tail) <= 1e-7 * (x @ lost.T).norm()  # the floor of C is 1e-8
    plain = PlainSVD().factors(lost, None, None, rank)
    assert (made(x) - dense(x)).norm() < (x @ (lost - plain.B @ plain.A).T).norm()
    assert [name for name, p in made.named_parameters() if not p.requires_grad] == ["base.weight"]
    assert list(structure_of(nn.Sequential(made))["0"]) == ["kind", "rank"]


def test_white_inputs_make_eora_the_plain_svd(generator):
    W, rank = normal(generator, OUTPUTS, INPUTS), 3
    x = torch.linalg.qr(normal(generator, N, INPUTS)).Q
    found, plain = (
        Whitened().factors(W, None, seen(x, x @ W.T), rank),
        PlainSVD().factors(W, None, None, rank),
    )
    assert (found.B @ found.A - plain.B @ plain.A).norm() <= 1e-10 * W.norm()


@pytest.mark.parametrize("method", [AFM(), AFM(False), Whitened()], ids=repr)
def test_fewer_samples_than_inputs(method, generator):
    W, x = normal(generator, OUTPUTS, INPUTS), skewed(generator, count=7)
    moments = seen(x, x @ W.T)
    found = method.factors(W, None, moments, 7)
    bias = 0 if found.bias is None else found.bias
    assert (x @ (found.B @ found.A).T + bias - x @ W.T).norm() <= 1e-6 * (x @ W.T).norm()  # all that was seen
    assert bool(torch.isfinite(found.A).all())
    squares = method.squares(W, None, moments)
    assert squares[7:].sum() <= 1e-7 * squares.sum()


@pytest.mark.parametrize("method", [AFM(), AFM(False), Whitened(), PlainSVD()], ids=repr)
def test_a_zero_matrix_has_zero_factors(method, generator):
    x = skewed(generator)
    W = torch.zeros(OUTPUTS, INPUTS, dtype=torch.float64)
    found = method.factors(W, None, seen(x, x @ W.T), 2)
    assert not (found.B @ found.A).any()
    assert not method.squares(W, None, seen(x, x @ W.T)).any()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_moments_of_convolutions_are_those_of_their_patches(dim, generator):
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dim - 1]
    conv = kind(3, 4, 3, stride=2, padding=1, padding_mode="circular", dilation=1).double()
    x = normal(generator, 5, 3, *[7, 6, 5][:dim])
    found, _ = targets(nn.Sequential(conv))
    moments = calibrate(nn.Sequential(conv), x, found, {"inputs", "outputs"}, batch=2).moments["0"]
    y = conv(x).detach().movedim(1, -1).reshape(-1, 4)
    assert moments.count == moments.rows == len(y)
    assert torch.allclose(moments.output_moment(), y.T @ y / len(y))
    assert torch.allclose(moments.mean(), y.mean(0))
    W, b = conv.weight.detach().flatten(1), conv.bias.detach()
    seen_outputs = W @ moments.input_moment() @ W.T  # E[(W p)(W p)^T] of patches p
    assert torch.allclose(seen_outputs, moments.output_moment(b), atol=1e-12)


@pytest.mark.parametrize("factoriser", ["afm", "afm-uncentred", "whitened", "svd"])
@pytest.mark.parametrize("allocator", list(ALLOCATORS))
def test_budgets_are_kept_and_models_left_alone(factoriser, allocator, generator):
    model, x = net(generator), skewed(generator)
    before, state = copy.deepcopy(model), model.training
    kept = []
    for part, every in itertools.product((0.35, 0.6, 0.9), (1, 4)):
        plan = Plan(factoriser, allocator, part, round_to=every)
        made = compress(model, x, plan)
        kept.append((part, made.report.kept))
        assert made.report.kept <= part
        assert made.report.parameters == real_parameters(made.model)
        for row in made.report.layers:
            (m, n), rank = row.shape, row.rank
            assert rank is None or (rank * (m + n) < m * n and rank % every == 0)
        assert (made.model(x) - model(x)).norm() < 1.5 * model(x).norm()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))
    assert model.training is state
    assert not any(module._forward_hooks for module in model.modules())
    assert all(value >= 0.6 * part for part, value in kept)


def test_all_kept_is_the_model_and_full_rank_its_outputs(generator):
    model, x = net(generator), skewed(generator)
    same = compress(model, x, Plan(kept=1.0))
    assert structure_of(same.model) == {}
    assert torch.equal(same.model(x), model(x))
    W, b, y = model[0].weight.detach(), model[0].bias.detach(), model[0](x).detach()
    for method in (AFM(), AFM(False), Whitened(), PlainSVD()):
        found = method.factors(W, b, seen(x, y), min(W.shape))
        made = x @ (found.B @ found.A).T + found.bias
        assert (made - y).norm() <= 1e-11 * y.norm()


def test_products_that_are_reported_are_those_that_are_done(generator):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 8, 3), nn.Flatten(2), nn.Linear(36, 9)
    )
    x = torch.randn(6, 3, 8, 8, generator=generator)
    made = compress(model, x, Plan(kept=0.6, measure="macs"))
    for each, name in ((model, "macs_before"), (made.model, "macs")):
        with FlopCounterMode(display=False) as counter:
            each(x)
        assert counter.get_total_flops() == 2 * len(x) * sum(getattr(row, name) for row in made.report.layers)
    assert made.report.macs_kept <= 0.6
    assert "products" in made.report.table()[-1]
    assert len(latency([model, made.model], x, repeats=1)) == 2


def test_greedy_is_the_best_of_all_allocations_at_the_corners_of_its_hulls(generator):
    rng = np.random.default_rng(5)
    offers = [
        Offer(s := np.sort(rng.random(5) ** 4)[::-1], float(s.sum()), unit=float(u), whole=4.5 * u)
        for u in (3, 7, 5)
    ]
    choices = [[*offer.ranks, None] for offer in offers]
    every = list(itertools.product(*choices))

    def error(ranks):
        return sum(offer.error(rank) for offer, rank in zip(offers, ranks, strict=True))

    paths = [hull(offer) for offer in offers]
    for ranks in itertools.product(*(path[0] for path in paths)):
        budget = total(offers, ranks)
        found = ALLOCATORS["greedy"].allocate(offers, budget)
        assert total(offers, found) <= budget
        if total(offers, found) == budget:  # a corner of the joint hull
            least = min(error(each) for each in every if total(offers, each) <= budget)
            slack = max(p[2][k] - p[2][k + 1] for p in paths for k in range(len(p[2]) - 1))
            assert error(found) <= least + slack
    assert ALLOCATORS["greedy"].allocate(offers, 1e9) == [None] * 3


def test_thresholds_look_at_shapes_of_spectra_alone(generator):
    W = normal(generator, OUTPUTS, INPUTS) * torch.arange(1, INPUTS + 1).double() ** -1.5
    Q = torch.linalg.qr(normal(generator, OUTPUTS, OUTPUTS)).Q

    def ranks(*matrices, allocator="threshold"):
        model = nn.ModuleList([layer_of(each, None) for each in matrices])
        made = compress(model, None, Plan("svd", allocator, 0.6))
        return [row.rank for row in made.report.layers]

    other = normal(generator, OUTPUTS, INPUTS)
    assert ranks(W, other) == ranks(50 * W, other) == ranks(Q @ W, other)
    assert ranks(W, W) != ranks(50 * W, W, allocator="value")
    flat = torch.eye(OUTPUTS, INPUTS).double()
    steep = (
        torch.diag(torch.logspace(0, -6, OUTPUTS)).double()
        @ torch.linalg.qr(normal(generator, INPUTS, INPUTS)).Q[:OUTPUTS]
    )
    assert ranks(flat, steep)[0] is None


def test_gradients_reach_both_factors_and_states_round_trip(generator):
    model, x = net(generator), skewed(generator)
    made = compress(model, x, Plan(kept=0.5)).model
    made(x).square().mean().backward()
    factored = [each for each in made.modules() if isinstance(each, FactoredLinear)]
    assert factored
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for each in factored for p in each.parameters())
    other = compress(net(generator), x, Plan(kept=0.5)).model
    if structure_of(other) != structure_of(made):
        other = copy.deepcopy(made)
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(x), made(x))


def test_what_is_compressed_twice_is_compressed_further(generator):
    model, x = net(generator), skewed(generator)
    once = compress(model, x, Plan(kept=0.6))
    twice = compress(once.model, x, Plan(kept=0.7))
    assert twice.report.parameters_before == once.report.parameters
    assert twice.report.kept <= 0.7
    assert not any(".first" in path or ".last" in path for path in structure_of(twice.model))
    conv = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)).double()
    image = normal(generator, 4, 8, 9, 9)
    once = compress(conv, image, Plan(kept=0.6))
    twice = compress(once.model, image, Plan(kept=0.6, propagate=True))
    assert all(isinstance(each, FactoredConv) for each in twice.model)
    assert twice.report.parameters < 0.4 * once.report.parameters_before


def test_propagated_factors_are_of_what_the_layers_before_send_on(generator):
    model, x = net(generator), skewed(generator)
    made = compress(model, x, Plan(kept=0.4, propagate=True))
    first = next(k for k, each in enumerate(made.model) if isinstance(each, FactoredLinear))
    last = max(k for k, each in enumerate(made.model) if isinstance(each, FactoredLinear))
    assert last > first
    sent = made.model[:last](x).detach()
    y, rank = model[last](sent).detach(), made.model[last].rank
    centred = y - y.mean(0)
    tail = torch.linalg.svdvals(centred)[rank:].norm()
    assert abs((made.model[last](sent) - y).norm() - tail) <= 1e-9 * y.norm()
    with pytest.raises(OptionError, match="calibration=inputs"):
        compress(model, moments_of(model, x), Plan(propagate=True))


@pytest.mark.parametrize("factoriser", ["afm", "svd"])
def test_refitted_factors_leave_what_no_map_of_the_rank_can_mend(factoriser, generator):
    model, x = net(generator), skewed(generator)
    small = compress(model, x, Plan(factoriser, kept=0.4)).model
    before = copy.deepcopy(small.state_dict())
    made = refit(model, small, x)
    assert structure_of(made) == structure_of(small)
    factored = [k for k, each in enumerate(made) if isinstance(each, FactoredLinear)]
    assert len(factored) > 1
    for k in factored:
        given, y, bias = made[:k](x).detach(), model[: k + 1](x).detach(), made[k].bias is not None
        given, y = (each - each.mean(0) if bias else each for each in (given, y))
        ridge = (RIDGE * given.square().mean() * len(given)).sqrt()
        given = torch.cat([given, ridge * torch.eye(given.shape[1])])  # the ridge as rows more
        y = torch.cat([y, ridge * model[k].weight.detach().T])
        fitted = given @ torch.linalg.lstsq(given, y).solution
        tail = torch.linalg.svdvals(fitted)[made[k].rank :]
        got = (given @ made[k].to_dense().detach().T - y).square().sum()
        least = (y - fitted).square().sum() + tail.square().sum()
        assert abs(got - least) <= 1e-9 * y.square().sum()
        if bias:
            lost = made[: k + 1](x) - model[: k + 1](x)
            assert lost.mean(0).norm() <= 1e-12 * y.norm()
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert not any(each._forward_hooks for whole in (model, small, made) for each in whole.modules())


def test_the_first_layer_that_is_refitted_is_that_of_afm(generator):
    model, x = net(generator), skewed(generator)
    small = compress(model, x, Plan(kept=0.5, include=("2",))).model
    assert torch.allclose(refit(model, small, x)(x), small(x), atol=1e-5)


def test_refits_of_convolutions_and_of_what_is_compressed_twice(generator):
    conv = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 3, stride=2)).double()
    x = normal(generator, 40, 4, 9, 9)
    once = compress(conv, x, Plan(kept=0.7)).model
    twice = compress(once, x, Plan(kept=0.7)).model
    for dense, small in ((conv, once), (once, twice), (conv, twice)):
        errors = [(each(x) - dense(x)).norm() for each in (refit(dense, small, x), small)]
        assert errors[0] <= (1 + 10 * RIDGE) * errors[1]  # of the last layer alone the two are one map
    with pytest.raises(OptionError, match="has no layer '2'"):
        refit(conv[:2], once, x)


def test_moments_serve_several_plans(generator):
    model, x = net(generator), skewed(generator)
    moments = moments_of(model, x)
    for part in (0.4, 0.7):
        one, other = compress(model, x, Plan(kept=part)), compress(model, moments, Plan(kept=part))
        assert torch.equal(one.model(x), other.model(x))


def test_shared_weights_stay_and_a_layer_used_twice_is_one(generator):
    a, b = nn.Linear(16, 16), nn.Linear(16, 16)
    b.weight = a.weight
    model = nn.Sequential(a, b, nn.Linear(16, 16))
    made = compress(model, torch.randn(50, 16, generator=generator), Plan(kept=0.9))
    assert made.model[0].weight is made.model[1].weight
    assert set(made.report.left.values()) == {"weights shared with another layer"}
    one = nn.Linear(16, 16)
    made = compress(
        nn.Sequential(one, nn.Tanh(), one), torch.randn(50, 16, generator=generator), Plan(kept=0.5)
    )
    assert isinstance(made.model[0], FactoredLinear)
    assert made.model[0] is made.model[2]


def test_layers_that_are_not_called_stay(generator):
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.called, self.read = nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, x):
            return self.called(x) @ self.read.weight.T

    model, x = Reads(), torch.randn(50, 16, generator=generator)
    made = compress(model, x, Plan(kept=0.8))
    assert made.report.left == {"read": "not called in the calibration"}
    plain = compress(model, None, Plan("svd", "uniform", kept=0.5)).model
    assert isinstance(plain.read, FactoredLinear)
    assert plain(x).shape == (50, 16)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kept": 0.0}, "kept"),
        ({"kept": 1.5}, "kept"),
        ({"kept": ".5"}, "kept"),
        ({"kept": None}, "kept"),
        ({"kept": float("nan")}, "kept"),
        ({"factoriser": "amf"}, "did you mean 'afm'"),
        ({"allocator": "greed"}, "did you mean 'greedy'"),
        ({"measure": "flops"}, "macs"),
        ({"round_to": 0}, "round_to"),
        ({"include": "down"}, r"\('down',\)"),
        ({"scheme": "spatial"}, "svd"),
    ],
)
def test_plans_that_cannot_be_are_refused(options, told):
    with pytest.raises(OptionError, match=told):
        Plan(**options)


def test_what_cannot_be_calibrated_or_compressed_is_told(generator):
    model, x = net(generator), skewed(generator)
    with pytest.raises(ShapeError, match=r"\(5, 4\)"):
        compress(model, torch.ones(5, 4, dtype=torch.float64))
    for bad, told in ((x[:0], "no sample"), ([], "no sample"), (x[0], "needed")):
        with pytest.raises(ShapeError, match=told):
            compress(model, bad)
    for bad in (3, ["a"], [()]):
        with pytest.raises(OptionError):
            compress(model, bad)
    with pytest.raises(NonFiniteError, match="layer '0'"):
        compress(model, torch.full_like(x, torch.nan))
    with pytest.raises(OptionError, match='"svd" alone'):
        compress(model)
    with pytest.raises(OptionError, match="macs"):
        compress(model, None, Plan("svd", measure="macs"))
    with pytest.raises(OptionError, match="no layer to compress"):
        compress(nn.Sequential(nn.Tanh(), nn.BatchNorm1d(3)), x)
    with pytest.raises(OptionError, match="excluded"):
        compress(model, x, Plan(include=("nothing",)))
    with pytest.raises(OptionError, match="keep more"):
        compress(model, x, Plan(kept=0.01))
    with pytest.raises(OptionError, match="Sequential"):
        compress(model[0], x)
    broken = copy.deepcopy(model)
    broken[0].weight.data[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="'0'"):
        compress(broken, None, Plan("svd"))
    with pytest.raises(OptionError, match="a residual is smaller than"):
        compensate(nn.Linear(1, 5).double(), nn.Linear(1, 5).double(), x[:, :1], rank=1000)
    with pytest.raises(ShapeError, match="in the other"):
        compensate(model, nn.Sequential(nn.Linear(INPUTS, 30)).double(), x, rank=2)


def test_complex_layers_stay_whole(generator):
    class Real(nn.Module):
        def forward(self, x):
            return x.real

    model = nn.Sequential(nn.Linear(16, 64, dtype=torch.cfloat), Real(), nn.Linear(64, 64))
    made = compress(model, torch.randn(50, 16, generator=generator).cfloat(), Plan(kept=0.8))
    assert made.report.left == {"0": "complex weights"}
    assert isinstance(made.model[2], FactoredLinear)


def test_half_precision_and_other_devices_of_weights_are_kept(generator):
    model, x = net(generator).to(torch.bfloat16), skewed(generator).to(torch.bfloat16)
    made = compress(model, x, Plan(kept=0.6)).model
    assert {p.dtype for p in made.parameters()} == {torch.bfloat16}
    assert made(x).dtype == torch.bfloat16
