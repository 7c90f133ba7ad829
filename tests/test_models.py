"""Networks, losses, training data and the training loop."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

import neuralsolve as ns
from neuralsolve.errors import FormatError, OptionError
from neuralsolve.models.direction import DirectionNet, padded
from neuralsolve.models.fields import Pool, Ritz, System, lanczos, smoothed
from neuralsolve.models.losses import best_step, dots, energy_loss, residual_loss, scaled_loss
from neuralsolve.models.npsdo import StencilNet, image, varying
from neuralsolve.models.training import Schedule, Trainer
from neuralsolve.models.training_loop import CHECKPOINT, LOG, read_log, train
from neuralsolve.pde.scenes import free_surface, noise, smooth_divergence
from neuralsolve.preconditioners.weights import read_tensors, write_tensors


def box(*shape, walls="dirichlet"):
    return ns.PoissonStencil(ns.Grid(shape, walls=walls))


def masked(side=16, seed=3001):
    return ns.PoissonStencil(free_surface((side, side), np.random.default_rng(seed)))


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator)


# networks


@pytest.mark.parametrize(
    ("net", "count"),
    [
        (DirectionNet(3), 97_457),
        (DirectionNet(3, "deep"), 152_881),
        (DirectionNet(2), 32_657),
        (DirectionNet(2, "deep"), 51_217),
        (StencilNet(3, 4), 20_582),
        (StencilNet(3, 5), 25_174),
        (StencilNet(2, 6), 13 * 252 + 12 * 28),
        (StencilNet(2, 3), 7 * 252 + 6 * 28),
    ],
    ids=repr,
)
def test_networks_have_the_parameters_of_their_papers(net, count):
    assert parameters(net) == count


def convolve(v, layer):
    return torch.nn.functional.conv2d(v, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)


def test_the_wiring_is_that_of_the_paper(generator):
    """The model for 64^3, written out from the table of the method card."""
    net = DirectionNet(2)
    r = normal(generator, 2, 1, 12, 8)
    relu = torch.relu
    a = relu(convolve(convolve(r, net.stem), net.enter))
    b = relu(convolve(a, net.fine.layers[0]))
    a = relu(convolve(b, net.fine.layers[1])) + a
    skip = relu(convolve(a, net.leave))
    a = torch.nn.functional.avg_pool2d(skip, 2)
    for k in range(0, 6, 2):
        b = relu(convolve(a, net.coarse.layers[k]))
        a = relu(convolve(b, net.coarse.layers[k + 1])) + a
    a = a.repeat_interleave(2, 2).repeat_interleave(2, 3) + skip
    for k in range(0, 4, 2):
        b = relu(convolve(a, net.last.layers[k]))
        a = relu(convolve(b, net.last.layers[k + 1])) + a
    torch.testing.assert_close(net(r), convolve(a, net.head), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("depth", "radius"), [("shallow", 21), ("deep", 33)])
def test_the_network_sees_as_far_as_the_card_says(depth, radius):
    net = DirectionNet(2, depth).double()
    side = 4 * radius + 8
    r = torch.zeros(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    middle = side // 2
    net(r)[0, 0, middle, middle].backward()
    seen = r.grad[0, 0].abs().sum(0).nonzero().flatten()
    far = max(middle - int(seen.min()), int(seen.max()) - middle)
    assert radius - 3 <= far <= radius + 3


def test_padding_adds_zeros_up_to_the_multiple(generator):
    v = normal(generator, 1, 1, 5, 8, 3)
    w = padded(v, 4)
    assert w.shape == (1, 1, 8, 8, 4)
    assert torch.equal(w[..., :5, :8, :3], v)
    assert float(w.abs().sum()) == pytest.approx(float(v.abs().sum()))
    assert padded(w, 4) is w


@pytest.mark.parametrize("dim", [2, 3])
def test_npsdo_is_linear_in_the_residual_and_zero_off_the_fluid(dim, generator):
    net, shape = StencilNet(dim, 2).double(), (9, 8, 5)[:dim]
    cells = torch.randint(0, 3, (2, 1, *shape), generator=generator, dtype=torch.uint8)
    u, v = (torch.randn(2, 1, *shape, dtype=torch.float64, generator=generator) for _ in range(2))
    frozen = net.float().freeze(cells)
    frozen = dataclasses.replace(frozen, **{k: [t.double() for t in v] for k, v in vars(frozen).items()})
    both = net.apply_frozen(frozen, 2 * u - 3 * v)
    torch.testing.assert_close(both, 2 * net.apply_frozen(frozen, u) - 3 * net.apply_frozen(frozen, v))
    z = net(u.float(), cells)
    assert not z[cells != ns.FLUID].any()
    with torch.no_grad():  # the in-place way of the solver
        torch.testing.assert_close(net(u.float(), cells), z)


@pytest.mark.parametrize(("shape", "depth"), [((64, 64), 6), ((65, 3), 7), ((1, 1), 0), ((5, 12, 33), 6)])
def test_npsdo_coarsens_down_to_one_cell(shape, depth):
    frozen = StencilNet(len(shape), 3).freeze(torch.full((1, 1, *shape), ns.FLUID, dtype=torch.uint8))
    assert len(frozen.post) == depth
    assert frozen.pre[-1].shape[2:] == (1,) * len(shape)


@pytest.mark.parametrize("dim", [2, 3])
def test_where_weights_are_shared_a_coarse_level_is_the_network_of_the_coarser_grid(dim, generator):
    net = StencilNet(dim, 1)
    coarse = torch.randint(0, 3, (1, 1, *[6] * dim), generator=generator, dtype=torch.uint8)
    fine = coarse
    for axis in range(dim):
        fine = fine.repeat_interleave(2, axis + 2)
    below, whole = vars(net.freeze(coarse)), vars(net.freeze(fine))
    for name, fields in below.items():
        for field, same in zip(fields, whole[name][1:], strict=True):
            torch.testing.assert_close(same, field)


def test_varying_stencils_reach_their_neighbours(generator):
    K, x = normal(generator, 1, 9, 4, 5), normal(generator, 1, 1, 4, 5)
    y = varying(K, x)
    around = torch.nn.functional.pad(x, (1, 1, 1, 1))[0, 0]
    for i in range(4):
        for j in range(5):
            direct = (K[0, :, i, j].reshape(3, 3) * around[i : i + 3, j : j + 3]).sum()
            torch.testing.assert_close(y[0, 0, i, j], direct)


def test_the_image_of_cells_reads_solid_as_zero():
    cells = torch.tensor([[[[ns.FLUID, ns.SOLID, ns.AIR]]]], dtype=torch.uint8)
    assert image(cells)[0, :, 0].tolist() == [[0, 0, 1], [1, 0, 0], [1, 0, 1]]


# losses


@pytest.fixture
def sample(generator):
    system = System([box(12, 10)])
    y = smoothed(system, 6, generator)
    return system, y, system.matvec(y), normal(generator, 6, 1, 12, 10)


@pytest.mark.parametrize("loss", [energy_loss, residual_loss])
@pytest.mark.parametrize("factor", [-1.0, 7.5, -1e-3])
def test_losses_are_blind_to_scale_and_sign(loss, factor, sample):
    system, y, b, f = sample
    g = factor * f
    torch.testing.assert_close(loss(g, system.matvec(g), b, y), loss(f, system.matvec(f), b, y))


def test_the_energy_loss_lies_between_zero_and_one(sample):
    system, y, b, f = sample
    for direction in (f, y, b, torch.relu(f), y + 0.01 * f):
        values = energy_loss(direction, system.matvec(direction), b, y)
        assert bool((values >= -1e-5).all() & (values <= 1 + 1e-5).all())
    torch.testing.assert_close(energy_loss(y, b, b, y), torch.zeros(6), rtol=0, atol=1e-5)
    assert float(scaled_loss(y, b, b).max()) < 1e-5


def test_the_closed_form_step_is_the_minimiser(sample):
    system, y, b, f = sample

    def energy(alpha):
        e = y - alpha * f
        return dots(e, system.matvec(e))

    alpha = best_step(f, system.matvec(f), b)
    at = energy(alpha)
    for change in (1e-2, -1e-2, 1.0):
        assert bool((energy(alpha * (1 + change)) >= at * (1 - 1e-5)).all())
    torch.testing.assert_close((at / energy(0.0)).flatten(), energy_loss(f, system.matvec(f), b, y))


def test_a_direction_of_nothing_has_no_step_and_a_finite_gradient(sample):
    system, y, b, f = sample
    zero = torch.zeros_like(f, requires_grad=True)
    loss = energy_loss(zero, system.matvec(zero), b, y)
    assert torch.equal(loss, torch.ones(6))
    loss.mean().backward()
    assert bool(torch.isfinite(zero.grad).all())


# training data


@pytest.mark.parametrize(
    "A",
    [box(9, 7), box(6, 5, 7, walls="neumann"), masked(), box(6, 8, walls=("periodic", "dirichlet"))],
    ids=repr,
)
def test_the_system_is_the_stencil(A, generator):
    system = System([A])
    u = torch.randn(2, 1, *A.grid.shape, generator=generator)
    u = torch.where(system.fluid, u, 0.0)
    expected = A.matvec(u.reshape(2, -1).T.double().contiguous()).T.reshape(u.shape) / max(A.scale)
    torch.testing.assert_close(system.matvec(u), expected.float())


def test_many_grids_at_once_are_each_their_own(generator):
    grids = [masked(seed=seed) for seed in (3001, 3002, 3003)]
    u = normal(generator, 2, 1, 16, 16)
    together = System(grids).take(torch.tensor([2, 0])).matvec(u)
    torch.testing.assert_close(together[0], System([grids[2]]).matvec(u[:1])[0])
    torch.testing.assert_close(together[1], System([grids[0]]).matvec(u[1:])[0])


def test_smoothed_errors_cover_the_spectrum(generator):
    system = System([box(32, 32)])
    y = smoothed(system, 200, generator)
    torch.testing.assert_close(dots(y, y), torch.ones(200, 1, 1, 1))
    roughness = dots(y, system.matvec(y)).flatten()  # Rayleigh quotients, of [0.018, 7.98]
    assert float(roughness.min()) < 0.1
    assert float(roughness.max()) > 3.0


def test_lanczos_finds_eigenvalues(generator):
    A = box(8, 9)
    system = System([A])
    start = torch.randn(72, generator=generator)
    W, T = lanczos(lambda v: system.matvec(v.reshape(1, 1, 8, 9)).reshape(-1), start, 72)
    torch.testing.assert_close(W @ W.T, torch.eye(len(W)), rtol=0, atol=1e-4)
    exact = torch.linalg.eigvalsh(torch.as_tensor(A.to_scipy().toarray()))
    found = torch.linalg.eigvalsh(T)
    assert float(found[0]) == pytest.approx(float(exact[0]), rel=1e-3)
    assert float(found[-1]) == pytest.approx(float(exact[-1]), rel=1e-5)


def test_ritz_right_sides_are_boosted_where_the_spectrum_is_low(generator):
    system = System([box(16, 16)])
    ritz = Ritz(system, 100, generator)
    b = system.matvec(ritz(400, generator)).reshape(400, -1)
    size = (b @ ritz.vectors.T).pow(2).mean(0).sqrt()
    assert float(size[:20].mean()) > 5 * float(size[-20:].mean())  # nine times, but for Ritz errors
    assert float(torch.linalg.vector_norm(b, dim=1).mean()) == pytest.approx(1.0, rel=0.05)


def test_the_pool_steps_as_the_solver_does(generator):
    """With the identity as the network its residuals are those of CG."""
    A = box(10, 12)
    system = System([A])
    y = normal(generator, 3, 1, 10, 12)
    pool = Pool(3, (10, 12))
    pool.put(torch.tensor([True, True, True]), y)
    for _ in range(8):
        pool.advance(system, pool.conjugate(system.matvec(pool.error)))
    for k in range(3):
        exact = y[k].double().reshape(-1)
        run = ns.solve(A, A @ exact, ns.CG(), rtol=0.0, maxiter=8, throw=False)
        left = exact - run.x
        torch.testing.assert_close(pool.error[k].reshape(-1).double(), left / left.norm(), rtol=0, atol=1e-5)
    assert pool.age.tolist() == [8, 8, 8]


@pytest.mark.parametrize("make", [noise, smooth_divergence])
def test_right_sides_of_scenes_lie_on_the_fluid(make):
    A = masked(24)
    b = make(A, np.random.default_rng(3010))
    assert not b[~A.active.numpy()].any()
    assert np.array_equal(b, make(A, np.random.default_rng(3010)))
    if make is smooth_divergence:
        assert abs(b.sum()) <= 1e-12 * abs(b).sum()


# training


def trainer(**options):
    schedule = Schedule(
        **({"steps": 12, "batch": 4, "on_policy_from": 0.25, "oldest": 3, "seed": 3020} | options)
    )
    with torch.random.fork_rng():
        torch.manual_seed(schedule.seed)
        net = DirectionNet(2, width=4)
    return Trainer(net, [System([box(8, 8)]), System([box(6, 12)])], smoothed, schedule)


@pytest.mark.parametrize("mixed", [0.0, 0.5])
def test_an_interrupted_training_goes_on_bit_for_bit(mixed, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    once = trainer(mixed_until=mixed)
    rows = train(once, whole)
    for stop in (5, 9, None):
        again = trainer(mixed_until=mixed)
        resumed = train(again, parts, stop_at=stop)
    for a, b in zip(once.net.parameters(), again.net.parameters(), strict=True):
        assert torch.equal(a, b)
    for row, expected in zip(read_log(parts / LOG), rows, strict=True):
        del row["seconds"], expected["seconds"]
        assert row == pytest.approx(expected, nan_ok=True)
    assert len(resumed) == 12


def test_steps_take_the_systems_in_turn():
    one = trainer(on_policy_from=0.0, on_policy=1.0)
    for _ in range(3):
        one.advance()
    assert [int(pool.age.max()) for pool in one.pools] == [2, 1]


def test_an_interrupt_saves_what_was_done(tmp_path):
    def stop(done, note):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(trainer(), tmp_path, stop)
    _, metadata = read_tensors(tmp_path / CHECKPOINT)
    assert json.loads(metadata["state"])["step"] == 7
    assert [row["step"] for row in read_log(tmp_path / LOG)] == [1, 2, 3, 4, 5, 6, 7]


def test_the_steps_of_a_resumed_log_are_whole_numbers(tmp_path):
    for stop in (3, None):
        train(trainer(), tmp_path, stop_at=stop)
    steps = [line.split(",")[0] for line in (tmp_path / LOG).read_text().splitlines()]
    assert steps == ["step", *map(str, range(1, 13))]


def test_a_checkpoint_of_other_options_is_refused(tmp_path):
    train(trainer(), tmp_path)
    with pytest.raises(OptionError, match="learning_rate"):
        train(trainer(learning_rate=0.5), tmp_path)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    write_tensors(tmp_path / CHECKPOINT, {"net.a": torch.zeros(2)}, {"state": "{}"})
    with pytest.raises(FormatError, match="no checkpoint of this training"):
        train(trainer(), tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"half a file")
    with pytest.raises(FormatError, match="no safetensors file"):
        train(trainer(), tmp_path)


def test_training_lowers_the_loss():
    one = trainer(steps=150, batch=8, learning_rate=3e-3)
    rows = [one.advance() for _ in range(150)]
    early, late = (np.mean([row["fresh"] for row in part]) for part in (rows[:10], rows[-10:]))
    assert late < 0.7 * early


def test_the_rate_rises_and_falls_to_zero():
    plain, cooled = Schedule(steps=1000), Schedule(steps=1000, horizon=4000, cool_down=0.2)
    for schedule in (plain, cooled):
        rates = np.array([schedule.rate(step) for step in range(1001)])
        assert rates[0] == pytest.approx(rates.max() / 100, rel=0.05)
        assert (np.diff(rates[100:]) < 0).all()
        assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    assert cooled.rate(700) == Schedule(steps=4000).rate(700)


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"loss": "l1"}, {"on_policy": 2.0}, {"clip": 0.0}, {"horizon": 9}]
)
def test_schedules_that_make_no_sense_are_refused(options):
    with pytest.raises(OptionError, match="needed"):
        Schedule(**options)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(FormatError, match="no safetensors file"):
        read_tensors(path)
    with pytest.raises(FileNotFoundError, match="neuralsolve train"):
        read_tensors(tmp_path / "y.safetensors")
    write_tensors(path, {"a": torch.ones(3)}, {"note": "n"})
    tensors, metadata = read_tensors(path)
    assert torch.equal(tensors["a"], torch.ones(3))
    assert metadata == {"note": "n"}
