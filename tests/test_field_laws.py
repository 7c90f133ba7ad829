"""Laws of what a training of fields is made of: norms, losses, symmetries, rates, resampling, metrics."""

import itertools

import numpy as np
import pytest
import torch

from neuralsolve.data import Layout
from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.models import symmetry
from neuralsolve.models.evaluation import errors
from neuralsolve.models.field_losses import FIELD_LOSSES, derivative, h1, l2
from neuralsolve.models.normaliser import KINDS, Normaliser
from neuralsolve.models.rates import END, SCHEDULES, START, rate
from neuralsolve.models.resampling import Resampling
from neuralsolve.pde.darcy import Darcy
from neuralsolve.pde.navier_stokes import NavierStokes

rng = np.random.default_rng(2603)
EPS = torch.finfo(torch.float32).eps


def fields(generator, *shape):
    return torch.randn(*shape, generator=generator)


# normalisers


@pytest.mark.parametrize("kind", KINDS)
def test_a_normaliser_is_undone_and_gives_mean_zero_and_size_one(kind, generator):
    u = 5 + 3e-3 * fields(generator, 40, 2, 6, 5)
    to_unit = Normaliser.of(kind, u)
    v = to_unit(u)
    assert torch.allclose(to_unit.back(v), u, rtol=4 * EPS, atol=0)
    if kind != "none":
        over = [0] if kind == "pointwise" else [0, 2, 3]
        size = 5 / 3e-3 * EPS  # to which the mean of numbers of size 5 is known in units of the deviation
        assert v.mean(over).abs().max() < 4 * size
        assert (v.std(over, unbiased=False) - 1).abs().max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 1.1, -3e7])
def test_constant_fields_and_nodes_stay_finite(kind, value, generator):
    constant = torch.full((5, 1, 4), value)
    to_unit = Normaliser.of(kind, constant)
    assert torch.isfinite(to_unit(constant + 1)).all()
    assert to_unit(constant).abs().max() == 0 or kind == "none"
    wall = fields(generator, 8, 1, 6)
    wall[..., 0] = value  # a wall whose value is held
    assert torch.isfinite(Normaliser.of(kind, wall)(wall)).all()


def test_normalisers_that_cannot_be_are_refused():
    with pytest.raises(OptionError, match="did you mean 'pointwise'"):
        Normaliser.of("pointwize", torch.ones(3, 1, 4))
    with pytest.raises(OptionError, match="two samples"):
        Normaliser.of("pointwise", torch.ones(1, 1, 4))


# losses


@pytest.mark.parametrize("name", FIELD_LOSSES)
def test_losses_are_zero_at_the_truth_and_blind_to_scale(name, generator):
    u, t = (fields(generator, 3, 2, 7, 5).double() for _ in range(2))
    loss, spacing = FIELD_LOSSES[name], (0.1, 0.25)
    assert loss(t, t, spacing).abs().max() == 0
    assert torch.allclose(loss(3.7 * u, 3.7 * t, spacing), loss(u, t, spacing), rtol=1e-12)
    assert torch.allclose(loss(2 * t, t, spacing), torch.ones(3, dtype=t.dtype), rtol=1e-12)
    at_truth = t.clone().requires_grad_()
    loss(at_truth, t, spacing).sum().backward()
    assert torch.isfinite(at_truth.grad).all()


def test_h1_lies_between_the_errors_of_values_and_of_slopes(generator):
    u, t = (fields(generator, 20, 1, 9, 6).double() for _ in range(2))
    values, slopes = l2(u, t), derivative(u, t, (0.1, 0.2))
    both = h1(u, t, (0.1, 0.2))
    assert (both >= torch.minimum(values, slopes) - 1e-12).all()
    assert (both <= torch.maximum(values, slopes) + 1e-12).all()


def test_h1_of_a_line_is_what_it_is_by_hand():
    truth = torch.zeros(1, 1, 3).double() + torch.tensor([0.0, 1.0, 2.0])
    off = truth + torch.tensor([0.0, 0.0, 1.0])
    # values 1 of 0 + 1 + 4, slopes (1 / h)^2 of 2 (1 / h)^2, h = 0.5
    assert float(h1(off, truth, (0.5,))) == pytest.approx(((1 + 4) / (5 + 8)) ** 0.5)


# symmetries


@pytest.mark.parametrize(("dim", "count"), [(1, 2), (2, 8), (3, 48)])
def test_motions_are_a_group_that_acts(dim, count, generator):
    u = fields(generator, 1, 1, *[4] * dim)
    known = symmetry.motions("square", (4,) * dim)
    moved = [m(u) for m in known]
    assert len(known) == count
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(moved, 2))

    def place(v):
        (where,) = [k for k, w in enumerate(moved) if torch.equal(v, w)]
        return where

    some = range(0, count, max(1, count // 8))
    table = [[place(known[a](moved[b])) for b in some] for a in some]  # closed, or `place` fails
    assert all(len(set(row)) == len(row) for row in table)  # none of them merges two
    assert any(torch.equal(m(u), u) for m in known)
    if dim < 3:
        assert all(any(torch.equal(n(m(u)), u) for n in known) for m in known)  # inverses


@pytest.mark.parametrize("motion", symmetry.motions("square", (9, 9)))
def test_the_residual_of_darcy_flow_does_not_see_a_motion(motion):
    equation = Darcy(grid=9)
    data = equation.samples(range(2), seed=31)
    a, u = (torch.from_numpy(v).double() for v in (data.inputs, data.outputs))
    u = u + 0.01 * torch.from_numpy(rng.standard_normal(u.shape))
    kept, moved = equation.residual_of(a, u), equation.residual_of(motion(a), motion(u))
    assert torch.allclose(kept, moved, rtol=1e-10)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
def test_glides_carry_forced_flow_to_forced_flow(turned, mirrored):
    flow = NavierStokes(grid=16, dt=0.02, frames_in=1, frames_out=2)
    data = flow.samples(range(2), seed=33)
    motion = symmetry.glide(16, 5, turned, mirrored)
    moved = [motion(torch.from_numpy(v)).numpy() for v in (data.inputs, data.outputs)]
    np.testing.assert_allclose(
        flow.residual(*moved), flow.residual(data.inputs, data.outputs), rtol=0.2, atol=1e-6
    )
    aside = symmetry.Motion((0, 1), (False, False), (5, 3))  # no symmetry: the force stays behind
    assert (
        flow.residual(*(aside(torch.from_numpy(v)).numpy() for v in (data.inputs, data.outputs))).min() > 0.1
    )


def test_drawn_glides_are_a_group_of_4_n():
    generator = torch.Generator().manual_seed(92)
    met = {symmetry.drawn("glides", (8, 8), generator) for _ in range(600)}
    assert len(met) == 32
    u = torch.arange(64.0).view(1, 1, 8, 8)
    fields = {tuple(motion(u).flatten().tolist()) for motion in met}
    assert {tuple(b(a(u)).flatten().tolist()) for a in list(met)[:6] for b in list(met)[:6]} <= fields


def test_drawn_motions_are_all_met_and_shifts_wrap():
    generator = torch.Generator().manual_seed(91)
    met = {symmetry.drawn("square", (5, 5), generator) for _ in range(200)}
    assert len(met) == 8
    u = torch.arange(6.0).view(1, 1, 6)
    shifted = {tuple(symmetry.drawn("shifts", (6,), generator)(u).flatten().tolist()) for _ in range(100)}
    assert shifted == {tuple(np.roll(np.arange(6.0), k)) for k in range(6)}


def test_symmetries_that_a_grid_does_not_have_are_refused():
    closed, open_ = np.linspace(0, 1, 8), np.arange(8) / 8
    with pytest.raises(ShapeError, match="equal sides"):
        symmetry.fits("square", Layout((closed, closed[:5])), (8, 5))
    with pytest.raises(OptionError, match="a flip moves the walls"):
        symmetry.fits("square", Layout((open_,) * 2, boundary=("dirichlet",) * 2), (8, 8))
    with pytest.raises(OptionError, match='must be declared "periodic"'):
        symmetry.fits("shifts", Layout((closed,), boundary=("dirichlet",)), (8,))
    for kind in ("square", "shifts"):  # nobody told the boundary
        with pytest.raises(OptionError, match=r"Layout\(boundary="):
            symmetry.fits(kind, Layout((open_,) * 2), (8, 8))
    symmetry.fits("swaps", Layout((open_,) * 2), (8, 8))
    symmetry.fits("square", Layout((closed,) * 2), (8, 8))
    symmetry.fits("shifts", Layout((open_,), boundary=("periodic",)), (8,))
    forced = NavierStokes(grid=8).layout()
    symmetry.fits("glides", forced, (8, 8))
    symmetry.fits("shifts", NavierStokes(grid=8, forcing=0.0).layout(), (8, 8))
    with pytest.raises(OptionError, match="the force differs from place to place"):
        symmetry.fits("shifts", forced, (8, 8))
    with pytest.raises(ShapeError, match="4 dividing n"):
        symmetry.fits("glides", forced, (10, 10))
    with pytest.raises(OptionError, match="did you mean 'square'"):
        symmetry.fits("sqare", Layout((closed,)), (8,))
    symmetry.fits("square", Layout((open_,) * 2, boundary=("periodic",) * 2), (8, 8))
    symmetry.fits("square", Layout((closed,) * 2, boundary=("dirichlet",) * 2), (8, 8))


# rates


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rates_are_parts_of_the_highest(schedule):
    rates = [rate(schedule, k, 100, 0.3, 40, 0.5) for k in range(100)]
    assert 0 < min(rates) <= max(rates) <= 1
    assert rates[30] == pytest.approx(1, abs=1e-12)
    assert all(a >= b for a, b in itertools.pairwise(rates[30:]))
    if schedule == "step":
        assert rates[39:41] == [1, 0.5]
        assert rates[99] == 0.25
    if schedule == "onecycle":
        assert rates[0] == pytest.approx(START)
        assert rate(schedule, 100, 100, 0.3, 1, 0.5) == pytest.approx(END)
    if schedule in ("onecycle", "cosine"):
        assert all(a < b for a, b in itertools.pairwise(rates[:31]))
        assert rate(schedule, 0, 10, 0.0, 1, 0.5) == 1


# resampling


def test_cubics_are_kept_exactly_between_any_grids():
    coarse, fine = np.linspace(0, 1, 9), np.linspace(0, 1, 23)
    cubic = lambda x: 2 * x**3 - x**2 + 0.3 * x - 7  # noqa: E731
    found = Resampling([coarse], [fine])(torch.from_numpy(cubic(coarse))).numpy()
    assert np.allclose(found, cubic(fine), rtol=0, atol=1e-12)


def test_axes_are_resampled_one_by_one():
    x, y, onto = np.linspace(0, 1, 6), np.linspace(0, 1, 7), np.linspace(0, 1, 11)
    u = torch.from_numpy(np.outer(x**2, y**3))[None, None]
    found = Resampling([x, y], [onto, y[::2]])(u)
    assert np.allclose(found[0, 0], np.outer(onto**2, y[::2] ** 3), atol=1e-12)


@pytest.mark.parametrize("n", [16, 32])
def test_periodic_waves_are_met_to_fourth_order_beyond_the_last_node_too(n):
    axis, fine = np.arange(n) / n, np.arange(8 * n) / (8 * n)
    wave = lambda x: np.sin(2 * np.pi * x)  # noqa: E731
    found = Resampling([axis], [fine], ["periodic"])(torch.from_numpy(wave(axis))).numpy()
    assert np.abs(found - wave(fine)).max() < (2 * np.pi / n) ** 4 / 100


def test_periodic_axes_may_begin_anywhere():
    axis, onto = (np.arange(32) + 0.5) / 32, np.arange(32) / 32
    found = Resampling([axis], [onto], ["periodic"])(torch.from_numpy(np.cos(2 * np.pi * axis))).numpy()
    assert np.abs(found - np.cos(2 * np.pi * onto)).max() < 1e-4


def test_walls_beyond_the_last_node_hold_zero():
    onto = np.linspace(0, 1, 41)
    for axis in (np.arange(16) / 16, np.arange(1, 16) / 16, (np.arange(16) + 0.5) / 16):
        found = Resampling([axis], [onto], ["dirichlet"])(torch.from_numpy(axis * (1 - axis))).numpy()
        assert np.abs(found - onto * (1 - onto)).max() < 1e-12
        assert abs(float(found[-1])) < 1e-14


def test_the_same_grid_changes_nothing():
    axis = np.linspace(0, 1, 7)
    u = torch.from_numpy(rng.standard_normal((2, 1, 7)))
    assert torch.equal(Resampling([axis], [axis])(u), u)
    one = Resampling([np.array([0.5])], [axis])(torch.ones(2, 1, 1))
    assert one.shape == (2, 1, 7)
    assert bool((one == 1).all())


# metrics


@pytest.mark.parametrize("shape", [(31,), (16, 40), (6, 7, 8)])
def test_the_bands_of_an_error_add_up_to_it(shape):
    truth, made = rng.standard_normal((2, 3, 2, *shape))
    found = errors(made, truth, [0.1] * len(shape))
    total = sum(found[name] ** 2 for name in ("low", "middle", "high"))
    assert np.allclose(np.sqrt(total), found["l2"], rtol=1e-10)  # Parseval


def test_errors_of_known_fields():
    x = np.arange(64) / 64
    truth = np.sin(2 * np.pi * x)[None, None]
    fast = truth + 0.1 * np.sin(2 * np.pi * 20 * x)
    found = {name: float(value[0]) for name, value in errors(fast, truth, [1 / 64]).items()}
    assert found["l2"] == pytest.approx(0.1)
    assert found["high"] == pytest.approx(0.1)
    assert found["low"] == pytest.approx(0, abs=1e-12)
    assert found["mean"] == pytest.approx(0, abs=1e-12)
    assert found["vrmse"] == pytest.approx(0.1)
    shifted = {name: float(value[0]) for name, value in errors(truth + 0.2, truth, [1 / 64]).items()}
    assert shifted["mean"] == pytest.approx(0.2 * 2**0.5)
    assert shifted["max"] == pytest.approx(0.2)
    assert shifted["boundary"] == pytest.approx(0.2 * 2**0.5)
    assert set(errors(truth, truth)) == {"l2", "max", "mean", "vrmse"}  # on a mesh
