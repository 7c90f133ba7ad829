"""Navier-Stokes as data: exact decay, balances of energy and enstrophy, order in time, self-convergence."""

from dataclasses import replace

import numpy as np
import pytest

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError
from neuralsolve.pde.navier_stokes import NavierStokes, Scheme

EPS = np.finfo(np.float64).eps
SEED = 6203
FREE = NavierStokes(grid=32, nu=2e-3, dt=0.02, forcing=0.0, interval=0.1)


def vorticity(flow, count=2):
    """Smooth fields that the scheme carries as they are."""
    scheme = Scheme(flow, count, flow.grid)
    return scheme.backward(scheme.forward(np.stack([flow.initial(k, SEED) for k in range(count)])))


def integral(w, weight):
    """Of |k|^(2 weight) |w_k|^2 over the unit square: 0 enstrophy (twice), -1 energy, 1 palinstrophy."""
    modes = np.fft.fft2(w) / w.shape[-1] ** 2
    k = np.fft.fftfreq(w.shape[-1], 1 / w.shape[-1])
    square = 4 * np.pi**2 * (k[:, None] ** 2 + k**2)
    square[0, 0] = 1.0
    return (square**weight * abs(modes) ** 2).sum((-2, -1))


@pytest.mark.parametrize(("p", "q"), [(1, 1), (2, 3), (4, 0)])
def test_taylor_green_vortices_decay_as_one_mode(p, q):
    """All modes of one |k|: no advection, w = w_0 exp(-nu |k|^2 t); Crank-Nicolson is exact to dt^2."""
    x = 2 * np.pi * np.arange(32) / 32
    w = (np.cos(p * x)[:, None] * np.cos(q * x) + np.sin(q * x)[:, None] * np.cos(p * x))[None]
    rate = FREE.nu * 4 * np.pi**2 * (p * p + q * q)
    errors = []
    for dt in (0.05, 0.025):
        frames = replace(FREE, dt=dt, interval=0.5).frames(w, 2)
        factor = (1 - rate * dt / 2) / (1 + rate * dt / 2)
        assert abs(frames[0, 1] - w[0] * factor ** round(1 / dt)).max() <= 1e3 * EPS
        errors.append(abs(frames[0, 1] - w[0] * np.exp(-rate)).max())
    assert 3.9 < errors[0] / errors[1] < 4.1


def test_advection_keeps_energy_and_enstrophy():
    flow = replace(FREE, nu=1e-300)
    scheme = Scheme(flow, 2, 32)
    w = vorticity(flow)
    change = scheme.backward(scheme.advection(scheme.forward(w)).copy().view(complex))
    for weight in (0, -1):  # <w, N> and <psi, N>, by polarisation
        inner = (integral(w + change, weight) - integral(w - change, weight)) / 4
        size = np.sqrt(integral(w, weight) * integral(change, weight))
        assert (abs(inner) <= 1e3 * EPS * size).all()
        assert (size > 0).all()


def test_the_advection_term_is_minus_u_grad_w():
    flow = replace(FREE, nu=1e-300, grid=64)
    coarse = vorticity(replace(flow, grid=16))
    fine = np.zeros((2, 64, 64), complex)
    kept = np.r_[0:6, 59:64]  # the modes of the coarse fields: their products alias nowhere on 64 nodes
    modes = np.fft.fft2(coarse)
    fine[np.ix_([0, 1], kept, kept)] = 16 * modes[np.ix_([0, 1], np.r_[0:6, 11:16], np.r_[0:6, 11:16])]
    k = 2j * np.pi * np.fft.fftfreq(64, 1 / 64)
    ky, kx = k[:, None], k[None]
    square = -(ky**2 + kx**2).real
    square[0, 0] = 1.0
    u, v, w_y, w_x, w = (
        np.fft.ifft2(fine * factor).real for factor in (ky / square, -kx / square, ky, kx, 1.0)
    )
    scheme = Scheme(flow, 2, 64)
    found = scheme.backward(scheme.advection(scheme.forward(w)).copy().view(complex)) / (1.5 * flow.dt)
    expected = -(u * w_x + v * w_y)
    assert abs(found - expected).max() <= 1e4 * EPS * abs(expected).max()
    assert abs(np.fft.ifft2(fine * (kx * kx + ky * ky) / square).real + w).max() <= 1e3 * EPS * abs(w).max()


@pytest.mark.parametrize("forcing", [0.0, 0.1])
def test_energy_and_enstrophy_balance(forcing):
    """d/dt of half the sum of |k|^2m |w_k|^2 is -nu times that of m + 1, plus the work of the force."""
    flow = NavierStokes(grid=32, nu=5e-3, dt=2.5e-3, interval=0.025, forcing=forcing)
    w0 = vorticity(flow)
    w = np.concatenate([w0[:, None], flow.frames(w0, 40)], axis=1)
    phase = 2 * np.pi * (np.arange(32)[:, None] + np.arange(32)) / 32
    f = forcing * (np.sin(phase) + np.cos(phase))
    simpson = np.array([1] + [4, 2] * 19 + [4, 1]) * 0.025 / 3
    for weight in (0, -1):
        work = (integral(w + f, weight) - integral(w - f, weight)) / 4
        rate = work - flow.nu * integral(w, weight + 1)
        gained = (integral(w[:, -1], weight) - integral(w[:, 0], weight)) / 2
        assert (abs(gained - rate @ simpson) <= 4e-5 * integral(w[:, 0], weight)).all()
        assert (abs(gained) > 0.01 * integral(w[:, 0], weight)).all()


def test_second_order_in_time():
    flow = NavierStokes(grid=32, nu=1e-3, interval=1.0)
    w = vorticity(flow)
    exact = replace(flow, dt=1 / 800).frames(w, 1)
    errors = [np.linalg.norm(replace(flow, dt=dt).frames(w, 1) - exact) for dt in (1 / 25, 1 / 50, 1 / 100)]
    order = -np.polyfit(range(3), np.log2(errors), 1)[0]
    assert abs(order - 2) < 0.1


def test_a_flow_and_its_mirror_image_stay_so():
    """Exchange of x and y turns the sign of vorticity."""
    w = vorticity(FREE)
    frames, mirrored = FREE.frames(w, 3), FREE.frames(-w.swapaxes(1, 2), 3)
    assert abs(mirrored + frames.swapaxes(2, 3)).max() <= 1e-11 * abs(w).max()


def test_the_default_meets_a_thousandth_against_half_the_step_and_twice_the_grid():
    flow = NavierStokes(frames_in=1, frames_out=1)
    assert max(flow.self_convergence([5], SEED)) <= 1e-3


def test_frames_follow_one_another():
    flow = replace(FREE, interval=0.5, forcing=0.1)
    data = replace(flow, frames_in=2, frames_out=3).samples(range(2), SEED)
    longer = replace(flow, frames_in=4, frames_out=1, stride=2).samples(range(2), SEED)
    every = np.concatenate([data.inputs, data.outputs], axis=1)
    assert np.array_equal(longer.inputs, every[:, :4, ::2, ::2])
    assert data.layout.outputs == ("w(t=1.5)", "w(t=2)", "w(t=2.5)")
    assert (data.residuals <= 1e-4).all()
    wrong = flow.residual(data.inputs, 1.1 * data.outputs)
    assert (abs(wrong - 0.1) < 1e-3).all()


def test_blowing_up_is_reported():
    with pytest.raises(NonFiniteError, match=r"dt = 0\.5 is too large for side = 32; try dt = 0\.25"):
        replace(FREE, dt=0.5, nu=1e-6, interval=50.0).frames(50 * vorticity(FREE), 1)


def test_fields_that_are_no_squares_are_refused():
    with pytest.raises(ShapeError, match=r"\(n, side, side\)"):
        FREE.frames(np.zeros((2, 16, 17)), 1)


@pytest.mark.parametrize("given", [0.03, 3e-3, 7e-4, 0.0123])
def test_the_step_that_is_advised_is_taken_and_divides_the_interval(given):
    with pytest.raises(OptionError, match="try dt") as refused:
        NavierStokes(dt=given)
    advised = float(str(refused.value).split("try dt = ")[1])
    flow = NavierStokes(dt=advised, grid=16)
    assert 0 < given - advised < given / flow.steps
    exact = NavierStokes(dt=1 / flow.steps, grid=16)
    if flow.steps < 100:
        w = flow.initial(0, 77)[None]
        assert np.array_equal(flow.frames(w, 1), exact.frames(w, 1))


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"grid": 33}, "an even grid"),
        ({"stride": 3}, "divides it"),
        ({"frames_in": 0}, "at least 1"),
        ({"nu": 0.0}, "nu = 0.0"),
        ({"forcing": np.inf}, "finite"),
        ({"dt": 0.3}, r"does not divide .* try dt = 0.25"),
        ({"dt": 3.0}, "try dt = 1"),
    ],
)
def test_parameters_out_of_range_are_refused(options, needed):
    with pytest.raises(OptionError, match=needed):
        NavierStokes(**options)
