"""Latent Spectral Models: sizes, the block and its definition, any grid, equal to the plain transcription."""

from __future__ import annotations

import math
from itertools import product
from typing import Any, TypeVar

import pytest
import torch
from kernel_laws import normal
from torch.nn import functional as F

from neuralsolve.bench.plain_lsm import PARTS, PlainLSM, same_weights
from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.kernels import use
from neuralsolve.models.lsm import LatentSpectral
from neuralsolve.models.pointwise_head import two_layers
from neuralsolve.models.spectral_block import SpectralBlock
from neuralsolve.models.unet import DoubleConv, UNet

Block = TypeVar("Block", bound=torch.nn.Module)


def randomised(module: Block, generator: torch.Generator, size: float = 0.5) -> Block:
    """Every parameter normal, so that nothing is small by its initial value."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(size * normal(generator, *p.shape, dtype=p.dtype))
    return module


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ((2, 1, 1, 32), 4812801),
        ((2, 10, 1, 64), 19188033),
        ((2, 1, 1, 64), 19187457),
        ((2, 2, 1, 32), 4812833),
        ((2, 2, 1, 48), 10804913),
        ((3, 1, 4, 32), 13457828),
    ],
)
def test_as_many_parameters_as_the_published_model(sizes, count):
    with torch.device("meta"):
        model = LatentSpectral(*sizes)
    assert sum(p.numel() for p in model.parameters()) == count


def by_loops(block: SpectralBlock, x: torch.Tensor, patch: tuple[int, int], scale: float) -> torch.Tensor:
    """The block without its series, patch by patch, head by head, point by point."""
    C, h, T = block.channels, block.heads, block.tokens
    d, out = C // h, x.clone()
    keys, values = block.keys_values.weight.split(C)
    _, value_bias = block.keys_values.bias.split(C)
    for sample, i, j in product(
        range(len(x)), range(0, x.shape[2], patch[0]), range(0, x.shape[3], patch[1])
    ):
        points = [(a, b) for a in range(i, i + patch[0]) for b in range(j, j + patch[1])]
        for head in range(h):
            own, tokens = slice(head * d, head * d + d), []
            for t in range(T):
                z0 = block.latent[head, t]
                scores = torch.stack([scale * z0 @ (keys[own] @ x[sample, :, a, b]) for a, b in points])
                seen = torch.stack([values[own] @ x[sample, :, a, b] + value_bias[own] for a, b in points])
                tokens.append(scores.softmax(0) @ seen + z0)
            z = torch.stack(tokens)
            for a, b in points:
                q = block.queries.weight[own] @ x[sample, :, a, b] + block.queries.bias[own]
                out[sample, own, a, b] = x[sample, own, a, b] + (scale * z @ q).softmax(0) @ z
    return out


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("channels", "heads"), [(16, 8), (6, 3), (18, 9)])
def test_without_its_series_the_block_is_attention_written_as_loops(generator, channels, heads, scaled):
    block = randomised(SpectralBlock(channels, 3, 5, heads, scaled=scaled).double(), generator)
    x = normal(generator, 2, channels, 4, 6)
    with torch.no_grad():
        block.sines.zero_()
        block.cosines.zero_()
        expected = by_loops(block, x, (2, 3), math.sqrt(heads / channels) if scaled else 1.0)
        got = block(x, (2, 3))
    assert (got - expected).abs().max() <= 1e-12


@pytest.mark.parametrize("bounded", [False, True])
def test_the_series_is_a_function_of_every_number_by_its_channel(generator, bounded):
    """With no queries all tokens count the same; of one point they are its value plus the latent token."""
    block = randomised(SpectralBlock(4, 2, 5, 2, bounded=bounded).double(), generator)
    x = normal(generator, 3, 4, 5)
    with torch.no_grad():
        block.queries.weight.zero_()
        block.queries.bias.zero_()
        value = torch.einsum("oc,bcn->bno", block.keys_values.weight[4:], x) + block.keys_values.bias[4:]
        z = value[..., None] + block.latent.transpose(1, 2).reshape(4, 2)  # (batch, n, C, T)
        k = torch.arange(5, dtype=x.dtype) * math.pi / 5
        span = 2 * 5
        seen = span * torch.tanh(z / span) if bounded else z
        angle = seen[..., None] * k
        new = z + (block.sines[:, None] * angle.sin() + block.cosines[:, None] * angle.cos()).sum(-1)
        expected = x + new.mean(-1).transpose(1, 2)
        assert (block(x, (1,)) - expected).abs().max() <= 1e-12


@pytest.mark.parametrize(
    "options", [(), ("scaled",), ("bounded",), ("mixing",), ("scaled", "bounded", "mixing")], ids=str
)
def test_gradients_of_the_block(generator, options):
    block = randomised(SpectralBlock(6, 2, 4, 3, **dict.fromkeys(options, True)).double(), generator)
    x = normal(generator, 2, 6, 4, 2).requires_grad_()
    names, leaves = zip(*block.named_parameters(), strict=True)

    def output(x, *values):
        named = dict(zip(names, values, strict=True))
        return torch.func.functional_call(block, named, (x, (2, 2)))

    assert torch.autograd.gradcheck(output, (x, *leaves))
    if not options:
        assert torch.autograd.gradgradcheck(output, (x, *leaves), fast_mode=True)


@pytest.mark.parametrize("options", [(), ("scaled", "bounded", "mixing")], ids=str)
@pytest.mark.parametrize("heads", [8, 11])  # a whole vector of heads, and more than one that is not full
@pytest.mark.parametrize(("shape", "patch"), [((6,), (3,)), ((4, 6), (2, 3)), ((4, 2, 6), (2, 1, 3))])
def test_kernels_and_plain_torch_give_the_same_block(generator, shape, patch, heads, options):
    block = SpectralBlock(2 * heads, 3, 4, heads, **dict.fromkeys(options, True)).double()
    block = randomised(block, generator, 0.3)
    x, weight = (normal(generator, 2, 2 * heads, *shape) for _ in range(2))
    found = []
    for name in ("cpu", "reference"):
        with use(name):
            given = x.clone().requires_grad_()
            y = block(given, patch)
            found.append([y, *torch.autograd.grad((weight * y).sum(), [given, *block.parameters()])])

    def loss(given):
        return (weight * block(given, patch)).sum()

    assert (torch.func.grad(loss)(x) - found[0][1]).abs().max() <= 1e-11  # the path without kernels
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() <= 1e-12 * (1 + theirs.norm())


def test_a_batch_of_functions_by_vmap(generator):
    block = randomised(SpectralBlock(8, 2, 3, 4), generator)
    x = normal(generator, 3, 2, 8, 4, 4, dtype=torch.float32)
    got = torch.func.vmap(lambda v: block(v, (2, 2)))(x)
    expected = torch.stack([block(v, (2, 2)) for v in x])
    assert (got - expected).abs().max() <= 1e-5


def test_patches_permuted_are_results_permuted(generator):
    block = randomised(SpectralBlock(8, heads=4), generator)
    x = normal(generator, 2, 8, 6, 6, dtype=torch.float32)

    def moved(v):
        cut = v.reshape(2, 8, 2, 3, 2, 3).flip(2)  # rows of patches change places
        return cut.roll(1, 4).reshape(2, 8, 6, 6)

    assert torch.equal(block(moved(x), (3, 3)), moved(block(x, (3, 3))))


def test_autocast_keeps_the_block_in_float32(generator):
    block = randomised(SpectralBlock(8, heads=4), generator, 0.3)
    x = normal(generator, 2, 8, 4, 4, dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        half = block(x.bfloat16(), (2, 2))
        y = block(x, (2, 2))
    assert (half.dtype, y.dtype) == (torch.bfloat16, torch.float32)
    (slope,) = torch.autograd.grad(y.square().sum(), x)
    plain = block(x, (2, 2))
    (expected,) = torch.autograd.grad(plain.square().sum(), x)
    # weights are put together in bfloat16
    assert (y - plain).norm() <= 0.02 * plain.norm()
    assert (slope - expected).norm() <= 0.05 * expected.norm()


@pytest.mark.parametrize(("width", "side"), [(16, 16), (8, 43)])
def test_the_fast_model_equals_its_transcription(generator, width, side):
    torch.manual_seed(8143)
    plain, fast = PlainLSM(2, 1, width, side), LatentSpectral(2, 2, 1, width)
    same_weights(plain, fast)
    x, weight = normal(generator, 3, 2, side, side), normal(generator, 3, 1, side, side)
    ours, theirs = fast(x.float()), plain(x.float())
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
    plain, fast = plain.double(), fast.double()  # in float32 a rounding turns ReLUs over, and so gradients
    (fast(x) * weight).sum().backward()
    (plain(x) * weight).sum().backward()
    whole = math.sqrt(sum(float(p.grad.square().sum()) for p in plain.parameters() if p.grad is not None))
    named = [(name.split(".")[0], p) for name, p in plain.named_parameters()]
    expected = [p.grad for part in PARTS for name, p in named if name == part]
    for p, grad in zip(fast.parameters(), expected, strict=True):
        assert p.grad is not None
        assert grad is not None
        assert (p.grad - grad.reshape(p.shape)).norm() <= 1e-9 * (grad.norm() + 1e-3 * whole)


@pytest.mark.parametrize(
    ("n", "levels"), [(5, 4), (7, 2), (16, 3), (29, 4), (43, 2), (61, 3), (97, 2), (130, 4)]
)
def test_any_side_is_padded_and_cut_off_again(generator, n, levels):
    line = LatentSpectral(1, 2, 3, 8, levels, tokens=2, basis=3).eval()
    with torch.no_grad():
        assert line(normal(generator, 2, 2, n, dtype=torch.float32)).shape == (2, 3, n)
        if n <= 61:
            plane = LatentSpectral(2, 1, 1, 8, levels, tokens=2, basis=3).eval()
            assert plane(normal(generator, 1, 1, n, n + 4, dtype=torch.float32)).shape == (1, 1, n, n + 4)


def test_boxes_and_given_patches(generator):
    box = LatentSpectral(3, 1, 2, 8, 2, tokens=2, basis=3, patch=(1, 2, 1), norm="group")
    x = normal(generator, 2, 1, 5, 11, 7, dtype=torch.float32)
    y = box(x)
    assert y.shape == (2, 2, 5, 11, 7)
    y.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in box.parameters())


def test_a_grid_of_fewer_nodes_than_coarsenings(generator):
    model = LatentSpectral(2, 1, 1, 8, levels=4, tokens=2, basis=3).eval()
    with torch.no_grad():
        assert torch.isfinite(model(normal(generator, 1, 1, 2, 3, dtype=torch.float32))).all()


def test_more_levels_than_a_grid_can_have_are_refused():
    with pytest.raises(OptionError, match="levels 1 to 8"):
        UNet(2, 1, 1, 8, levels=12)
    with pytest.raises(ShapeError, match="levels <= 5"):
        UNet(1, 1, 1, 8, levels=6)(torch.zeros(1, 1, 5))


@pytest.mark.parametrize("kind", [LatentSpectral, UNet])
def test_a_sample_does_not_depend_on_the_others(generator, kind):
    model = kind(2, 1, 1, 16, 3).double()
    x = normal(generator, 20, 1, 24, 24)
    model(x)  # fills the running means
    model.eval()
    with torch.no_grad():
        whole, alone = model(x), torch.cat([model(v[None]) for v in x])
    assert (whole - alone).abs().max() <= 1e-11 * whole.abs().max()


def test_threads_do_not_change_the_block(generator, one_thread):
    block = randomised(SpectralBlock(16), generator, 0.3)
    x = normal(generator, 8, 16, 48, 48, dtype=torch.float32)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        given = x.clone().requires_grad_()
        y = block(given, (3, 3))
        found.append([y, *torch.autograd.grad(y.square().sum(), [given, *block.parameters()])])
    for first, second in zip(*found, strict=True):
        # only the products with the weights are the library's, which may sum in another order
        assert (first - second).norm() <= 1e-5 * first.norm()


def test_bad_options_are_refused():
    bad: list[tuple[str, Any]] = [("heads", 5), ("tokens", 0), ("basis", 0), ("width", 0), ("norm", "layer")]
    for name, value in [*bad, ("dim", 4)]:
        sizes: dict[str, Any] = {"dim": 2, "inputs": 1, "outputs": 1, "width": 16}
        with pytest.raises(OptionError):
            LatentSpectral(**(sizes | {name: value}))
    with pytest.raises(OptionError):
        LatentSpectral(2, 1, 1, 16, patch=(3,))
    block = SpectralBlock(8)
    with pytest.raises(ShapeError):
        block(torch.zeros(1, 8, 4, 5), (2, 2))
    with pytest.raises(ShapeError):
        block(torch.zeros(1, 16, 4, 4), (2, 2))
    with pytest.raises(ShapeError):
        LatentSpectral(2, 1, 1, 16)(torch.zeros(1, 2, 8, 8))


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_head_in_pieces_is_two_linear_maps(generator, monkeypatch, outputs):
    monkeypatch.setattr("neuralsolve.models.pointwise_head.PIECE", 28)  # four rows of 11
    given = [normal(generator, *sides) for sides in ((11, 3), (7, 3), (7,), (outputs, 7), (outputs,))]
    leaves = [v.requires_grad_() for v in given]
    x, first, bias, second, offset = leaves
    expected = F.linear(F.gelu(F.linear(x, first, bias)), second, offset)
    assert (two_layers(x, first, bias, second, offset) - expected).abs().max() <= 1e-14
    assert torch.autograd.gradcheck(two_layers, leaves)
    assert torch.autograd.gradgradcheck(two_layers, leaves, fast_mode=True)


def test_small_pieces_do_not_change_the_model(generator, monkeypatch):
    model = LatentSpectral(2, 1, 2, 8, 2).double()
    x = normal(generator, 2, 1, 13, 9)
    found = []
    for piece in (10, 10**6):
        monkeypatch.setattr("neuralsolve.models.pointwise_head.PIECE", piece)
        y = model(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(model.parameters()))])
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() <= 1e-12 * (1 + theirs.norm())


def test_gradients_by_torch_func_are_those_of_autograd(generator):
    model = LatentSpectral(2, 1, 1, 8, 2, tokens=2, basis=3, norm="group").double()
    x = normal(generator, 2, 1, 7, 6).requires_grad_()
    (expected,) = torch.autograd.grad(model(x).square().sum(), x)
    got = torch.func.grad(lambda v: model(v).square().sum())(x.detach())
    assert (got - expected).norm() <= 1e-12 * (1 + expected.norm())


@pytest.mark.parametrize("periodic", [(True, True), (True, False)])
def test_convolutions_around_a_periodic_axis_commute_with_shifts(generator, periodic):
    conv = randomised(DoubleConv(3, 4, "instance", periodic).double(), generator)
    x = normal(generator, 2, 3, 8, 6)
    for axis, around in zip((2, 3), periodic, strict=True):
        apart = (conv(x.roll(3, axis)) - conv(x).roll(3, axis)).abs().max()
        assert (apart <= 1e-12) == around


def test_a_periodic_network_has_the_same_parameters_and_whole_coarse_cells():
    nets = [LatentSpectral(2, 1, 1, width=8, levels=2, periodic=periodic) for periodic in (False, True)]
    assert len({sum(p.numel() for p in net.parameters()) for net in nets}) == 1
    nets[1].load_state_dict(nets[0].state_dict())
    assert nets[1](torch.zeros(1, 1, 8, 12)).shape == (1, 1, 8, 12)
    with pytest.raises(ShapeError, match="multiples of 4"):
        nets[1](torch.zeros(1, 1, 8, 10))
    with pytest.raises(OptionError, match="periodic"):
        LatentSpectral(2, 1, 1, width=8, levels=2, periodic=(True,))
