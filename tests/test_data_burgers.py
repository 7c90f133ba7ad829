"""Burgers' equation as data: the exact answer by Cole and Hopf, order in time, and data of another code."""

import math
from dataclasses import replace

import numpy as np
import pytest

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError
from neuralsolve.pde.burgers import Burgers, cole_hopf
from neuralsolve.pde.equation import distance

EPS = np.finfo(np.float64).eps
SEED = 6301


def initial(equation, count=4):
    return np.stack([equation.initial(k, SEED) for k in range(count)])


@pytest.mark.parametrize(("nu", "grid"), [(0.1, 512), (0.03, 1024), (0.01, 2048)])
def test_it_is_the_exact_solution(nu, grid):
    equation = Burgers(grid=grid, nu=nu, frames=4, dt=2e-3)
    u = initial(equation)
    frames = equation.solve(u)
    for k, time in enumerate((0.25, 0.5, 0.75, 1.0)):
        assert distance(frames[:, k], cole_hopf(u, nu, time)).max() <= 1e-6


def test_the_default_errs_by_less_than_the_rounding_of_what_is_stored():
    equation = Burgers(grid=1024, stride=1)
    u = initial(equation)
    assert distance(equation.solve(u)[:, 0], cole_hopf(u, 0.1, 1.0)).max() <= 1e-5


def test_fourth_order_in_time():
    u = np.sin(2 * np.pi * np.arange(128) / 128)[None] + 0.3
    exact = cole_hopf(u, 0.05, 0.5)
    equation = Burgers(nu=0.05, final=0.5)
    errors = [abs(replace(equation, dt=dt).solve(u)[:, 0] - exact).max() for dt in (1 / 20, 1 / 40, 1 / 80)]
    order = -np.polyfit(range(3), np.log2(errors), 1)[0]
    assert abs(order - 4) < 0.25


def test_cole_and_hopf_solve_the_equation():
    """The known answer for U = -2 nu log(2 + cos(2 pi x)): one wave of phi decays."""
    x, nu, time = np.arange(96) / 96, 0.08, 0.7

    def u(weight, at):
        return 4 * np.pi * nu * weight * np.sin(2 * np.pi * at) / (2 + weight * np.cos(2 * np.pi * at))

    decay = math.exp(-nu * 4 * math.pi**2 * time)
    assert abs(cole_hopf(u(1.0, x), nu, time) - u(decay, x)).max() <= 1e3 * EPS
    moved = cole_hopf(u(1.0, x) + 0.4, nu, time)  # a mean carries it along
    assert abs(moved - 0.4 - u(decay, x - 0.4 * time)).max() <= 1e3 * EPS


def test_the_mean_stays_and_the_energy_falls_by_what_viscosity_takes():
    equation = Burgers(grid=512, nu=0.02, frames=40, dt=2e-3)
    u = initial(equation)
    frames = np.concatenate([u[:, None], equation.solve(u)], axis=1)[:, 10:]  # rough at first
    assert abs(frames.mean(-1)).max() <= 64 * EPS * abs(u).max()
    slope = np.fft.irfft(2j * np.pi * np.arange(257) * np.fft.rfft(frames), n=512)
    simpson = np.array([1] + [4, 2] * 14 + [4, 1]) / 120
    lost = ((frames[:, 0] ** 2).mean(-1) - (frames[:, -1] ** 2).mean(-1)) / 2
    assert (abs(lost - 0.02 * (slope**2).mean(-1) @ simpson) <= 1e-4 * lost).all()


def test_the_initial_state_has_the_variance_it_is_named_for():
    equation, count = Burgers(grid=256), 400
    squares = np.mean(initial(equation, count) ** 2, axis=1)
    expected = 2 * sum(625 / (4 * np.pi**2 * k * k + 25) ** 2 for k in range(1, 128))
    assert abs(squares.mean() - expected) <= 5 * squares.std() / math.sqrt(count)


def test_reflection_turns_the_sign():
    """u(x) -> -u(-x) maps solutions to solutions."""
    equation = Burgers(grid=256, nu=0.02)
    u = initial(equation)
    mirrored = -np.roll(u[:, ::-1], 1, axis=1)
    found = equation.solve(mirrored)[:, 0]
    assert abs(found + np.roll(equation.solve(u)[:, 0, ::-1], 1, axis=1)).max() <= 1e-12


def test_the_trajectories_of_another_code(data):
    """16 of 256 nodes or so are stored: 1 to 2 percent are lost by that, and no more is missed here."""
    import torch

    stored = torch.load(data / "burgers_1d_small" / "burgers_test_16.pt", weights_only=True)
    u, y = stored["x"][:100].numpy(), stored["y"][:100].numpy()
    modes = np.fft.rfft(u)
    modes[:, 8] /= 2  # the last wave is two on a finer grid
    fine = np.fft.irfft(modes, n=256) * 16
    equation = Burgers(nu=float(stored["visc"]), frames=16)
    missed = distance(equation.solve(fine)[:, :, ::16], y[:, 1:])
    assert missed.max() < 0.03
    assert 0.005 < missed.mean() < 0.02
    half = distance(replace(equation, final=0.5).solve(fine)[:, :, ::16], y[:, 1:])
    assert half.mean() > 0.1


def test_samples_hold_what_solve_says_on_every_so_many_nodes():
    equation = Burgers(grid=512, stride=4, nu=0.02, frames=2)
    data = equation.samples([2, 3], SEED)
    u = np.stack([equation.initial(k, SEED) for k in (2, 3)])
    assert np.array_equal(data.inputs[:, 0], u[:, ::4].astype(np.float32))
    assert np.array_equal(data.outputs, equation.solve(u)[:, :, ::4].astype(np.float32))
    assert data.layout.outputs == ("u(t=0.5)", "u(t=1)")
    assert (data.residuals < 1e-5).all()
    coarse = Burgers(grid=128, stride=4).samples([2, 3], SEED)
    assert (coarse.residuals < 1e-5).all()  # of the grid that is solved on, whatever is kept of it
    assert (abs(equation.residual(data.inputs, 1.1 * data.outputs) - 0.1) < 1e-2).all()


def test_blowing_up_is_reported():
    x = np.arange(1024) / 1024
    with pytest.raises(NonFiniteError, match=r"dt = 0\.1 is too large .* try dt = 0\.025"):
        Burgers(nu=1e-5, dt=0.1, final=10.0).solve(20 * np.sin(2 * np.pi * x)[None])


def test_fields_of_an_odd_number_of_nodes_are_refused():
    with pytest.raises(ShapeError, match="side even"):
        Burgers().solve(np.zeros((2, 33)))


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"grid": 511, "stride": 1}, "an even grid"),
        ({"stride": 3}, "divides it"),
        ({"grid": 32, "stride": 8}, "8 at least"),
        ({"nu": -0.1}, "nu = -0.1"),
        ({"final": np.inf}, "finite"),
        ({"frames": 0}, "frames = 0"),
    ],
)
def test_parameters_out_of_range_are_refused(options, needed):
    with pytest.raises(OptionError, match=needed):
        Burgers(**options)
