"""Networks of scattered points: non-uniform Fourier modes, the deformation, LSM between them, models."""

from __future__ import annotations

import math

import meshio
import numpy as np
import pytest
import torch

from neuralsolve.cases import load_case
from neuralsolve.data.samples import Layout, Samples
from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.io import read_mesh
from neuralsolve.models.deformation import Deformation
from neuralsolve.models.evaluation import errors, evaluated
from neuralsolve.models.field_training import FieldTrainer, FieldTraining
from neuralsolve.models.networks import make_network, parameters_of
from neuralsolve.models.nonuniform import from_modes, grid_modes, grid_values, to_modes, waves
from neuralsolve.models.points import LatentSpectralPoints
from neuralsolve.models.surrogate import Surrogate

SMALL = {"width": 8, "levels": 2, "modes": 3, "latent": 8, "heads": 4}
GRIDS = [(9,), (8, 10), (6, 9, 8)]


def normal(generator, *shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=generator)


def nodes(shape):
    """Return the nodes j / n of a periodic grid, ``(1, N, dim)``."""
    lines = [torch.arange(n, dtype=torch.float64) / n for n in shape]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).reshape(1, -1, len(shape))


def net_of(generator, dim=2, **options):
    """Return a network whose every weight is drawn by the test, in evaluation mode and double precision."""
    net = LatentSpectralPoints(dim, 2, 1, **(SMALL | options)).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.copy_(normal(generator, *parameter.shape) / parameter.shape[-2] ** 0.5)
    return net


# non-uniform Fourier modes


@pytest.mark.parametrize("shape", GRIDS, ids=str)
def test_at_the_nodes_of_a_grid_modes_are_those_of_the_fast_transform(shape, generator):
    m, dim = 3, len(shape)
    u = normal(generator, 2, 4, *shape)
    wave = waves(nodes(shape), m)
    axes = tuple(range(2, 2 + dim))
    full = torch.fft.rfftn(u, dim=axes) / math.prod(shape)
    for axis in range(2, 1 + dim):
        full = full.index_select(axis, torch.tensor([*range(m), *range(-m, 0)]) % shape[axis - 2])
    modes = to_modes(u.flatten(2), wave)
    torch.testing.assert_close(modes, full[..., :m], rtol=0, atol=1e-10)
    torch.testing.assert_close(grid_modes(u, m), modes, rtol=0, atol=1e-10)
    values = from_modes(modes, wave).view_as(u)
    torch.testing.assert_close(values, grid_values(modes, shape), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_modes_are_the_sums_of_their_definition(dim, generator):
    m, x, u = 2, torch.rand(2, 7, dim, dtype=torch.float64, generator=generator), normal(generator, 2, 3, 7)
    k = torch.stack(torch.meshgrid(*[torch.arange(2 * m)] * (dim - 1), torch.arange(m), indexing="ij"), -1)
    k[..., :-1] -= 2 * m * (k[..., :-1] >= m).long()
    phase = torch.exp(-2j * math.pi * torch.einsum("...d,bnd->bn...", k.double(), x))
    modes = to_modes(u, waves(x, m))
    torch.testing.assert_close(modes, torch.einsum("bcn,bn...->bc...", u + 0j, phase) / 7)
    twice = 1.0 + (k[..., -1] > 0)
    direct = torch.einsum("bc...,bn...->bcn", modes * twice, phase.conj()).real
    torch.testing.assert_close(from_modes(modes, waves(x, m)), direct)


def test_the_pair_is_adjoint_up_to_its_weights(generator):
    """<to_modes u, V> counting conjugate modes = <u, from_modes V> / N."""
    x, u = torch.rand(2, 11, 2, dtype=torch.float64, generator=generator), normal(generator, 2, 3, 11)
    V = torch.complex(normal(generator, 2, 3, 6, 3), normal(generator, 2, 3, 6, 3))
    wave, twice = waves(x, 3), torch.tensor([1.0, 2.0, 2.0])
    inner = (twice * (to_modes(u, wave).conj() * V).real).sum()
    assert float(inner) == pytest.approx(float((u * from_modes(V, wave)).sum()) / 11)


def test_gradients_of_the_pair_in_fields_and_points(generator):
    x = torch.rand(1, 5, 2, dtype=torch.float64, generator=generator).requires_grad_()
    u = normal(generator, 2, 2, 5).requires_grad_()

    def there_and_back(u, x):
        wave = waves(x, 2)
        return from_modes(to_modes(u, wave), wave)

    assert torch.autograd.gradcheck(there_and_back, (u, x))


def test_points_given_twice_change_no_mode(generator):
    x, u = torch.rand(1, 9, 3, dtype=torch.float64, generator=generator), normal(generator, 1, 2, 9)
    once, twice = to_modes(u, waves(x, 2)), to_modes(torch.cat([u, u], 2), waves(torch.cat([x, x], 1), 2))
    torch.testing.assert_close(once, twice)


# deformation


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_deformation_keeps_its_fixed_corner_and_has_gradients(dim, generator):
    net = Deformation(dim, code_length=2).double()
    x = torch.rand(2, 4, dim, dtype=torch.float64, generator=generator)
    codes = normal(generator, 2, 2)
    assert torch.equal(net(torch.zeros_like(x), codes), torch.zeros_like(x))
    assert not torch.allclose(net(x, codes), net(x, 2 * codes))
    assert torch.autograd.gradcheck(net, (x.requires_grad_(), codes.requires_grad_()))
    with pytest.raises(ShapeError, match="code_length = 2"):
        net(x, codes[:, :1])
    with pytest.raises(ShapeError, match="code_length = 2"):
        net(x)


# the network


def test_the_published_size():
    """5 992 609 + 63 746: the released deformation also has the layer 96 -> 128 that it never uses."""
    net = LatentSpectralPoints(2, 2, 1, code_length=42)
    deformation = parameters_of(net.deformation)
    assert parameters_of(net) - deformation == 5_992_609
    assert deformation + 96 * 128 + 128 == 63_746


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_order_of_the_points_does_not_matter(dim, generator):
    net = net_of(generator, dim)
    x, points = normal(generator, 2, 2, 23), torch.rand(2, 23, dim, dtype=torch.float64, generator=generator)
    order = torch.randperm(23, generator=generator)
    y = net(x, points)
    assert y.shape == (2, 1, 23)
    assert float(y.detach().std()) > 1e-3
    torch.testing.assert_close(net(x[..., order], points[:, order]), y[..., order])


def test_a_mesh_twice_as_dense_changes_nothing(generator):
    net = net_of(generator)
    x, points = normal(generator, 1, 2, 23), torch.rand(1, 23, 2, dtype=torch.float64, generator=generator)
    y = net(x, points)
    torch.testing.assert_close(
        net(torch.cat([x, x], 2), torch.cat([points, points], 1)), torch.cat([y, y], 2)
    )


def test_a_finer_grid_of_points_gives_nearly_the_same_field(generator):
    net = net_of(generator, deform=False)

    def seen(n):
        points = nodes((n, n))
        return net(torch.sin(2 * math.pi * points).mT, points).view(n, n)

    torch.testing.assert_close(seen(24)[::2, ::2], seen(12), rtol=1e-10, atol=1e-10)


def test_points_shared_by_all_samples_are_given_once(generator):
    net = net_of(generator, code_length=2)
    x, points = normal(generator, 3, 2, 23), torch.rand(1, 23, 2, dtype=torch.float64, generator=generator)
    codes = normal(generator, 3, 2)
    torch.testing.assert_close(net(x, points, codes), net(x, points.expand(3, -1, -1), codes))
    torch.testing.assert_close(net(x, points, codes)[1:2], net(x[1:2], points, codes[1:2]))


def test_units_of_length_do_not_matter(generator):
    x, points = normal(generator, 2, 2, 23), torch.rand(2, 23, 2, dtype=torch.float64, generator=generator)
    net = net_of(generator)
    y = net(x, points)
    net.bounds.copy_(torch.tensor([[-5.0, 100.0], [-3.0, 140.0]]))
    moved = points * torch.tensor([2.0, 40.0]) + torch.tensor([-5.0, 100.0])
    torch.testing.assert_close(net(x, moved), y)


def test_every_weight_has_a_gradient(generator):
    net = net_of(generator, code_length=2, norm="instance").train()
    x, points = normal(generator, 2, 2, 23), torch.rand(2, 23, 2, dtype=torch.float64, generator=generator)
    net(x, points, normal(generator, 2, 2)).square().mean().backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in silent if "keys_values.bias" not in name]


def test_half_precision_leaves_the_transforms_alone(generator):
    net = net_of(generator).float()
    x, points = normal(generator, 2, 2, 23).float(), torch.rand(2, 23, 2, generator=generator)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        y = net(x, points)
    with torch.no_grad():
        full = net(x, points)
    assert float((y.float() - full).norm() / full.norm()) < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 4}, "dim 1 to 3"),
        ({"norm": "layer"}, "norm one of"),
        ({"latent": 10}, "multiple of 2\\^levels = 4"),
        ({"modes": 5}, "at least 2 modes = 10"),
        ({"bounds": [[0, 0], [1, 0]]}, "lowest and highest"),
    ],
)
def test_networks_that_cannot_be_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        make_network("lsm-points", **({"dim": 2, "inputs": 1, "outputs": 1} | SMALL | options))


@pytest.mark.parametrize(
    ("x", "points", "message"),
    [
        ((2, 2, 9), None, "model.predict"),
        ((2, 2, 9), (2, 8, 2), r"\(2, 8, 2\)"),
        ((2, 2, 9), (3, 9, 2), r"\(3, 9, 2\)"),
        ((2, 1, 9), (2, 9, 2), r"\(2, 1, 9\)"),
        ((2, 2, 3, 3), (2, 9, 2), "are needed"),
    ],
)
def test_fields_that_do_not_fit_are_refused(x, points, message):
    net = LatentSpectralPoints(2, 2, 1, **SMALL)
    with pytest.raises(ShapeError, match=message):
        net(torch.zeros(x), None if points is None else torch.zeros(points))


# models of meshes


def family(count=12, points=60, shared=False, seed=4711):
    """Return samples whose output is a smooth function of place and code, at random points."""
    random = np.random.default_rng(seed)
    places = random.uniform(-1, 3, (points, 2) if shared else (count, points, 2)).astype(np.float32)
    codes = random.uniform(1, 2, (count, 2)).astype(np.float32)
    inputs = np.broadcast_to(places, (count, points, 2)).transpose(0, 2, 1).copy()
    outputs = 3 + np.sin(inputs[:, :1] + codes[:, :1, None]) * codes[:, 1:, None]
    return Samples(inputs, outputs, Layout((), ("x", "y"), ("u",)), points=places, codes=codes)


def model_of(samples, normaliser="channel", **options):
    with torch.random.fork_rng():
        torch.manual_seed(61)
        return Surrogate.of({"name": "lsm-points"} | SMALL | options, samples, normaliser)


@pytest.mark.parametrize("shared", [False, True])
def test_a_model_of_meshes_learns_and_survives_its_file(shared, tmp_path):
    train, rest = family(shared=shared).split(8)
    model = model_of(train, norm="group", code_length=2)
    before = evaluated(model, rest)["l2"]
    trainer = FieldTrainer(model, train, rest, FieldTraining(epochs=12, batch=4, learning_rate=5e-3, seed=9))
    while trainer.step < trainer.steps:
        trainer.advance()
    best = trainer.best_model()
    row = evaluated(best, rest)
    assert row["l2"] < 0.5 * before
    assert "h1" not in row
    best.save(tmp_path / "model.safetensors")
    again = Surrogate.load(tmp_path / "model.safetensors")
    assert np.array_equal(again.predict(rest), best.predict(rest))
    alone = again.predict(rest.take([1]))
    np.testing.assert_allclose(alone, best.predict(rest)[1:2], rtol=1e-5, atol=1e-5)
    plain = again.predict(rest.inputs, points=rest.points, codes=rest.codes, batch=3)
    np.testing.assert_allclose(plain, best.predict(rest), rtol=1e-5, atol=1e-5)


def test_a_cut_training_goes_on_bit_for_bit():
    train, rest = family().split(8)
    options = FieldTraining(epochs=3, batch=4, ema=0.9, seed=9)
    whole, first, second = (FieldTrainer(model_of(train), train, rest, options) for _ in range(3))
    for _ in range(6):
        whole.advance()
    for _ in range(3):
        first.advance()
    second.restore(*first.state())
    for _ in range(3):
        second.advance()
    assert np.array_equal(whole.best_model().predict(rest), second.best_model().predict(rest))


def mesh_file(folder):
    """Write the triangles of a grid of 5 x 6 nodes with meshio."""
    points = np.stack(np.meshgrid(np.arange(5.0) / 4, np.arange(6.0) / 5, indexing="ij"), -1).reshape(-1, 2)
    at = np.arange(30).reshape(5, 6)
    lower = np.stack([at[:-1, :-1], at[1:, :-1], at[:-1, 1:]], -1).reshape(-1, 3)
    upper = np.stack([at[1:, 1:], at[:-1, 1:], at[1:, :-1]], -1).reshape(-1, 3)
    flat = np.column_stack([points, np.zeros(30)])
    meshio.Mesh(flat, [("triangle", np.concatenate([lower, upper]))]).write(folder / "plate.vtu")
    return folder / "plate.vtu"


def test_points_of_any_mesh_are_taken(tmp_path):
    model = model_of(family())
    mesh = read_mesh(mesh_file(tmp_path))
    inputs = mesh.points.T[None].astype(np.float32)
    found = model.predict(inputs, points=mesh.points)
    assert found.shape == (1, 1, len(mesh.points))
    assert np.isfinite(found).all()


def test_the_box_is_that_of_the_training():
    data = family()
    low, high = model_of(data).net.bounds.numpy()
    np.testing.assert_allclose(low, data.points.reshape(-1, 2).min(0))
    np.testing.assert_allclose(high, data.points.reshape(-1, 2).max(0))


def test_what_does_not_fit_a_mesh_is_refused():
    data = family()
    with pytest.raises(OptionError, match="pointwise normaliser"):
        model_of(data, "pointwise")
    with pytest.raises(OptionError, match="'unet' cannot"):
        Surrogate.of({"name": "unet"}, data)
    grid = Samples(np.ones((2, 1, 4, 4)), np.ones((2, 1, 4, 4)), Layout((np.arange(4) / 4,) * 2))
    with pytest.raises(OptionError, match="'lsm-points' cannot"):
        Surrogate.of({"name": "lsm-points"}, grid)
    with pytest.raises(ShapeError, match="points= of the inputs"):
        model_of(data).predict(data.inputs)
    with pytest.raises(ShapeError, match="code_length = 3"):
        model_of(data, code_length=3).predict(data)
    with pytest.raises(ShapeError, match="no points are needed"):
        Surrogate.of({"name": "unet", "width": 8, "levels": 1}, grid).predict(
            data.inputs[:, :1], points=data.points
        )
    with pytest.raises(OptionError, match="units of length"):
        model_of(data).predict(data.inputs, points=1000 * data.points)
    held = model_of(family(shared=True), "pointwise")
    other = family(count=3, points=50)
    with pytest.raises(ShapeError, match="the 60 points of its training"):
        held.predict(other)


def test_parts_spread_evenly_are_a_checkerboard_of_eleven_columns():
    places = np.arange(121.0).reshape(121, 1, 1)
    data = Samples(places, places, Layout((np.zeros(1),)))
    train, validation, test = (part.inputs.ravel().astype(int) for part in data.spread(53, 8, 60))
    assert np.array_equal(test, np.arange(1, 121, 2))
    assert ((test // 11 + test % 11) % 2 == 1).all()
    assert np.array_equal(np.sort(np.concatenate([train, validation, test])), np.arange(121))
    assert np.diff(validation).max() <= 18
    assert [len(part) for part in data.spread(5, 2)] == [5, 2, 114]


def test_the_packaged_case_is_complete():
    case = load_case("train_holed")
    assert case.network == "lsm-points"
    assert case.data.split == "spread"


@pytest.mark.slow
def test_a_minute_of_training_beats_the_mean_of_the_geometries_tenfold(data, tmp_path, one_thread):
    """The baseline knows which node is which: the mean of u at every node over the training."""
    case = load_case("train_holed")
    case = case.with_steps(case.steps * 40 // case.plan().epochs)
    samples, validation, tests = case.sets(tmp_path, lambda step, note: None)
    test, trainer = tests["test"][0], case.trainer(samples, validation)
    while trainer.step < trainer.steps:
        trainer.advance()
    mean = np.broadcast_to(samples.outputs.mean(0), test.outputs.shape)
    baseline = float(errors(mean, test.outputs)["l2"].mean())
    assert evaluated(trainer.best_model(), test)["l2"] < 0.1 * baseline
