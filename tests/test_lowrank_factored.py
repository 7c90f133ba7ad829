"""Laws of factored layers: they are their dense product, in value and gradient; nothing else is stored."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from neuralsolve.errors import OptionError, ShapeError, StructureError
from neuralsolve.lowrank.compress import (
    FactoredConv,
    FactoredLinear,
    FactoredSpectral,
    restructure,
    structure_of,
)
from neuralsolve.lowrank.compress.spectral import break_even
from neuralsolve.lowrank.views import MatrixView
from neuralsolve.models.fourier_layer import FourierLayer
from neuralsolve.models.points import ModeWeights

EPS = torch.finfo(torch.float64).eps
CONVS = [
    (nn.Conv1d(5, 7, 3, padding=1, dtype=torch.float64), (5, 11), "channel"),
    (nn.Conv2d(5, 7, (3, 5), stride=(2, 1), dilation=(1, 2), dtype=torch.float64), (5, 11, 13), "channel"),
    (nn.Conv3d(3, 4, 2, padding_mode="circular", padding=1, dtype=torch.float64), (3, 4, 5, 6), "channel"),
    (nn.Conv2d(5, 7, (3, 5), stride=(2, 1), dilation=(1, 2), dtype=torch.float64), (5, 11, 13), "spatial"),
    (nn.Conv2d(5, 7, 3, padding="same", padding_mode="reflect", dtype=torch.float64), (5, 9, 8), "spatial"),
    (nn.Conv2d(5, 7, 3, padding=2, bias=False, dtype=torch.float64), (5, 9, 8), "spatial"),
]


def normal(generator, *shape, dtype=torch.float64):
    return torch.randn(shape, generator=generator, dtype=dtype)


def exact(layer, view):
    """Factors of full rank of a layer's weight, by its matrix times the identity."""
    W = view.to_matrix(layer.weight.detach())
    m, n = W.shape
    return (torch.eye(m, dtype=W.dtype), W) if m <= n else (W, torch.eye(n, dtype=W.dtype))


@pytest.mark.parametrize(("conv", "shape", "scheme"), CONVS)
def test_a_convolution_of_full_rank_is_the_dense_one(conv, shape, scheme, generator):
    x = normal(generator, 3, *shape)
    full = min(FactoredConv.like(conv, 1, scheme).view.to_matrix(conv.weight.detach()).shape)
    layer = FactoredConv.like(conv, full, scheme)
    layer.set_factors(*exact(conv, layer.view), conv.bias)
    assert layer.rank == full
    assert torch.equal(layer.to_dense(), conv.weight)
    y = conv(x)
    assert layer(x).shape == y.shape
    bound = 8 * conv.weight[0].numel() * EPS * x.abs().max() * conv.weight.abs().max()
    assert (layer(x) - y).abs().max() <= bound


@pytest.mark.parametrize(("conv", "shape", "scheme"), CONVS)
def test_a_factored_convolution_is_its_product(conv, shape, scheme, generator):
    layer, x = FactoredConv.like(conv, 2, scheme), normal(generator, 3, *shape)
    other = copy.deepcopy(conv)
    other.weight.data = layer.to_dense().detach()
    if other.bias is not None:
        other.bias.data = layer.bias.detach()
    bound = 16 * conv.weight[0].numel() * EPS * x.abs().max() * max(p.abs().max() for p in layer.parameters())
    assert (layer(x) - other(x)).abs().max() <= bound
    assert torch.linalg.matrix_rank(layer.view.to_matrix(layer.to_dense())) == 2


def test_a_factored_linear_layer_is_its_product(generator):
    layer, x = FactoredLinear(9, 5, 3, dtype=torch.float64), normal(generator, 2, 4, 9)
    y = nn.functional.linear(x, layer.weight, layer.bias)
    assert (layer(x) - y).abs().max() <= 64 * EPS * x.abs().max()
    assert sum(p.numel() for p in layer.parameters()) == 3 * (9 + 5) + 5


@pytest.mark.parametrize(
    "made", [lambda: FactoredLinear(9, 6, 4), lambda: FactoredConv.like(nn.Conv2d(4, 6, 3), 4)]
)
def test_truncation_is_the_nearest_of_its_rank_and_keeps_the_bias(made):
    layer = made()
    shorter, W = layer.truncate(2), layer.view.to_matrix(layer.to_dense().detach())
    tail = torch.linalg.svdvals(W.double())[2:].square().sum().sqrt()
    lost = (layer.view.to_matrix(shorter.to_dense().detach()) - W).double().norm()
    assert abs(lost - tail) <= 64 * torch.finfo(torch.float32).eps * W.norm()
    assert torch.equal(shorter.bias, layer.bias)
    assert shorter.rank == 2
    assert torch.allclose(layer.truncate(4).to_dense(), layer.to_dense(), atol=1e-6)


@pytest.mark.parametrize("scheme", ["channel", "spatial"])
def test_products_are_those_of_the_formula(scheme):
    conv, x = nn.Conv2d(6, 8, 3, padding=1), torch.ones(2, 6, 10, 12)
    layer = FactoredConv.like(conv, 3, scheme)
    for each in (conv, layer):
        with FlopCounterMode(display=False) as counter:
            each(x)
        factors = layer.factors() if each is layer else [conv.weight]
        assert counter.get_total_flops() == 2 * 2 * 120 * sum(part.numel() for part in factors)


def weights(generator, pairs, shape=(3, 4, 6, 5)):
    """A dense parameter: neuraloperator's (in, out, *modes), or pairs (modes, in, out, 2), and its view."""
    i, o = shape[:2]
    if pairs:
        return normal(generator, 30, i, o, 2), MatrixView((2,), (1,), pairs=True)
    return normal(generator, *shape, dtype=torch.complex128), MatrixView((1,), (0,))


@pytest.mark.parametrize("pairs", [False, True])
def test_spectral_weights_keep_modes_by_their_own_rank(pairs, generator):
    dense, view = weights(generator, pairs)
    matrices = view.to_matrix(dense).reshape(30, 4, 3)
    ranks = [k % 4 for k in range(30)]
    layer = FactoredSpectral(view, dense.shape, ranks, dense.dtype)
    factors = []
    for k, W in enumerate(matrices):
        U, s, Vh = torch.linalg.svd(W, full_matrices=False)
        r = layer.ranks[k]
        factors.append(W if k in layer.kept else (U[:, :r] * s[:r], Vh[:r]))
    layer.set_matrices(factors)
    made = view.to_matrix(layer.to_dense()).reshape(30, 4, 3)
    assert layer.to_dense().shape == dense.shape
    assert layer.to_dense().dtype == dense.dtype
    assert break_even(4, 3) == 2
    for k, W in enumerate(matrices):
        tail = torch.linalg.svdvals(W)[layer.ranks[k] :]
        assert abs((made[k] - W).norm() - tail.norm()) <= 64 * EPS * W.norm()
    thin = sum(r for r in ranks if r < 2)
    count = sum(p.numel() * (2 if p.is_complex() else 1) for p in layer.parameters())
    assert count == 2 * (thin * 7 + sum(r >= 2 for r in ranks) * 12)
    assert torch.equal(layer[:, 1:2], layer.to_dense()[:, 1:2])
    layer.to_dense().abs().square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())
    assert max(layer.truncate(1).ranks) == 1


def test_spectral_weights_stand_in_for_those_of_a_fourier_layer(generator):
    for dim, nodes in ((1, (300,)), (1, (16,)), (2, (9, 12))):
        layer = FourierLayer(dim, channels=4, modes=3)
        z = torch.randn(2, *nodes, 4, generator=generator)
        dense: ModeWeights = layer.weights
        view = MatrixView((2,), (1,), pairs=True)
        made = FactoredSpectral(view, dense.pairs.shape, [4] * len(dense.pairs), torch.float32)
        made.set_matrices(list(view.to_matrix(dense.pairs.detach())))
        y = layer(z)
        layer.weights = made  # type: ignore[assignment]
        assert torch.allclose(layer(z), y, atol=1e-5)


def test_structures_round_trip(generator):
    net = nn.Sequential(
        FactoredLinear(9, 6, 2, bias=False),
        nn.Tanh(),
        FactoredConv.like(nn.Conv2d(4, 6, 3), 3, "spatial"),
        nn.Sequential(FactoredConv.like(nn.Conv1d(4, 6, 3), 2)),
    )
    dense = nn.Sequential(
        nn.Linear(9, 6, bias=False), nn.Tanh(), nn.Conv2d(4, 6, 3), nn.Sequential(nn.Conv1d(4, 6, 3))
    )
    made = restructure(dense, structure_of(net))
    made.load_state_dict(net.state_dict())
    assert structure_of(made) == structure_of(net)
    assert list(structure_of(net)) == ["0", "2", "3.0"]
    with pytest.raises(StructureError, match="'7'"):
        restructure(dense, {"7": {"kind": "linear", "rank": 1, "bias": True}})


def test_what_does_not_fit_is_told():
    with pytest.raises(OptionError, match="from 1 to 4"):
        FactoredLinear(9, 4, 5)
    with pytest.raises(OptionError, match="rank=0"):
        FactoredLinear(9, 4, 2).truncate(0)
    with pytest.raises(OptionError, match="groups"):
        FactoredConv.like(nn.Conv1d(4, 4, 3, groups=2), 1)
    with pytest.raises(OptionError, match="spatial"):
        FactoredConv.like(nn.Conv1d(4, 4, 3), 1, "spatial")
    layer = FactoredLinear(9, 4, 2, bias=False)
    with pytest.raises(ShapeError, match="are needed"):
        layer.set_factors(torch.ones(4, 3), torch.ones(3, 9))
    with pytest.raises(ShapeError, match="bias"):
        layer.set_factors(torch.ones(4, 2), torch.ones(2, 9), torch.ones(4))
    view = MatrixView((1,), (0,))
    with pytest.raises(ShapeError, match="one each"):
        FactoredSpectral(view, (3, 4, 2), [1], torch.complex64)
    with pytest.raises(OptionError, match="-1"):
        FactoredSpectral(view, (3, 4, 2), [1, -1], torch.complex64)
