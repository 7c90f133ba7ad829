"""The Kuramoto-Sivashinsky equation as data: linear growth, order in time, energy, symmetries, one chaos."""

from dataclasses import replace

import numpy as np
import pytest

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError
from neuralsolve.pde.equation import distance
from neuralsolve.pde.kuramoto_sivashinsky import KuramotoSivashinsky

SEED = 6329
EPS = np.finfo(np.float64).eps


@pytest.fixture(scope="module")
def chaos():
    """Developed waves on the nodes of the default grid, (4, 256)."""
    return (
        KuramotoSivashinsky(burn_in=60.0, final=1.0, frames=1)
        .samples(range(4), SEED)
        .outputs[:, 0]
        .astype(float)
    )


@pytest.mark.parametrize("mode", [5, 22, 32, 40])
def test_small_waves_grow_as_the_linear_equation_says(mode):
    equation = KuramotoSivashinsky(nu=1.3, final=3.0, frames=3)
    k = 2 * np.pi * mode / equation.length
    u = 1e-9 * np.cos(2 * np.pi * mode * np.arange(256) / 256)[None]
    frames = equation.solve(u)
    for j in range(3):
        expected = np.exp((j + 1) * (k**2 - 1.3 * k**4)) * u
        assert abs(frames[:, j] - expected).max() <= 1e-6 * 1e-9


def test_fourth_order_in_time(chaos):
    equation = KuramotoSivashinsky(final=2.0, frames=1)
    exact = replace(equation, dt=1 / 320).solve(chaos)
    errors = [abs(replace(equation, dt=dt).solve(chaos) - exact).max() for dt in (1 / 10, 1 / 20, 1 / 40)]
    order = -np.polyfit(range(3), np.log2(errors), 1)[0]
    assert abs(order - 4) < 0.3


def test_the_grid_resolves_it(chaos):
    """The same waves on twice and four times as many nodes: what is missed falls faster than any power."""
    modes = np.fft.rfft(chaos)[:, :86]
    equation, found = KuramotoSivashinsky(final=4.0, frames=1), []
    for times in (1, 2, 4):
        u = np.fft.irfft(times * modes, n=times * 256)
        found.append(replace(equation, grid=times * 256).solve(u)[:, 0, ::times])
    assert distance(found[0], found[2]).max() < 5e-3
    assert distance(found[1], found[2]).max() < 1e-6


def test_the_mean_stays_and_energy_is_fed_by_slopes_and_taken_by_curvature(chaos):
    """d/dt mean u^2 / 2 = mean u_x^2 - nu mean u_xx^2, by Simpson's rule over the frames."""
    equation = KuramotoSivashinsky(final=2.0, frames=40, dt=0.025)
    frames = np.concatenate([chaos[:, None], equation.solve(chaos)], 1)
    assert abs(frames.mean(-1) - chaos.mean(-1, keepdims=True)).max() <= 1e3 * EPS
    modes = np.fft.rfft(frames)
    modes[..., 86:] = 0.0
    k = 2 * np.pi * np.arange(129) / equation.length
    slope, curvature = (np.fft.irfft(w * modes, n=256) for w in (1j * k, -(k**2)))
    simpson = np.array([1] + [4, 2] * 19 + [4, 1]) * 2.0 / 120
    gained = ((slope**2).mean(-1) - (curvature**2).mean(-1)) @ simpson
    energy = (np.fft.irfft(modes, n=256) ** 2).mean(-1) / 2
    assert abs(energy[:, -1] - energy[:, 0] - gained).max() <= 1e-5 * energy.max()


def test_reflection_and_motion(chaos):
    """u(x) -> -u(-x) and u -> c + u(x - c t) map solutions to solutions."""
    equation = KuramotoSivashinsky(final=1.0, frames=1)
    found = equation.solve(chaos)[:, 0]
    mirrored = equation.solve(-np.roll(chaos[:, ::-1], 1, axis=1))[:, 0]
    assert abs(mirrored + np.roll(found[:, ::-1], 1, axis=1)).max() <= 1e-11
    node = equation.length / 256
    moved = replace(equation, dt=0.025).solve(chaos + 3 * node)[:, 0]
    assert (
        abs(moved - 3 * node - np.roll(replace(equation, dt=0.025).solve(chaos)[:, 0], 3, axis=1)).max()
        <= 1e-5
    )


def test_every_viscosity_is_the_first():
    one = KuramotoSivashinsky(final=5.0, frames=1, burn_in=0.0)
    other = replace(one, nu=0.1, length=one.length * 0.1**0.5, final=0.5, dt=0.01, amplitude=0.16 * 10**0.5)
    found = [each.solve(np.stack([each.start(k, SEED) for k in range(3)]))[:, 0] for each in (one, other)]
    assert np.allclose(found[1], found[0] * 10**0.5, rtol=0, atol=1e-9)


def test_it_forgets_its_start_and_keeps_its_size(chaos):
    """Mean squares of developed waves at nu = 1 are near 1.7, as in the literature, from other starts too."""
    other = KuramotoSivashinsky(burn_in=90.0, final=1.0, frames=1, amplitude=1.0, longest=20)
    assert abs((chaos**2).mean() - 1.7) < 0.3
    assert abs((other.samples(range(4), SEED).outputs ** 2).mean() - 1.7) < 0.3


def test_samples_hold_what_solve_says_on_every_so_many_nodes():
    equation = KuramotoSivashinsky(stride=8, burn_in=0.0, final=4.0, frames=2)
    data = equation.samples([2, 3], SEED)
    u = np.stack([equation.start(k, SEED) for k in (2, 3)])
    assert np.array_equal(data.inputs[:, 0], u[:, ::8].astype(np.float32))
    assert np.array_equal(data.outputs, equation.solve(u)[:, :, ::8].astype(np.float32))
    assert data.layout.outputs == ("u(t=2)", "u(t=4)")
    assert data.residuals is not None
    assert (data.residuals < 1e-6).all()
    assert np.isnan(equation.residual(data.inputs, data.outputs)).all()  # 32 nodes do not resolve it
    whole = replace(equation, stride=1).samples([2, 3], SEED)
    assert (abs(equation.residual(whole.inputs, 1.1 * whole.outputs) - 0.1) < 0.05).all()


def test_blowing_up_is_reported(chaos):
    with pytest.raises(NonFiniteError, match=r"dt = 5\.0 is too large .* try dt = 1\.25"):
        KuramotoSivashinsky(dt=5.0, final=500.0, frames=1).solve(50 * chaos)
    with pytest.raises(ShapeError, match="side even"):
        KuramotoSivashinsky().solve(np.zeros((2, 33)))


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"grid": 255}, "an even grid"),
        ({"stride": 3}, "divides it"),
        ({"stride": 64}, "8 at least"),
        ({"nu": -0.1}, "nu = -0.1"),
        ({"burn_in": -1.0}, "burn_in may be 0"),
        ({"final": np.inf}, "finite"),
        ({"frames": 0}, "frames = 0"),
        ({"nu": 0.1}, "grid >= "),
    ],
)
def test_parameters_out_of_range_are_refused(options, needed):
    with pytest.raises(OptionError, match=needed):
        KuramotoSivashinsky(**options)


def test_the_grid_that_is_asked_for_is_enough():
    with pytest.raises(OptionError) as caught:
        KuramotoSivashinsky(nu=0.1)
    least = int(str(caught.value).split("grid >= ")[1].split()[0])
    assert KuramotoSivashinsky(nu=0.1, grid=least).grid == least
