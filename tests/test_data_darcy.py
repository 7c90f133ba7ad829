"""Darcy flow as data: order, symmetry, a direct solve, laws of the face means; and the Gaussian fields."""

import math

import numpy as np
import pytest
import scipy.sparse.linalg

import neuralsolve as ns
from neuralsolve.data import Layout
from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.pde.burgers import Burgers
from neuralsolve.pde.darcy import MEANS, Darcy
from neuralsolve.pde.equation import equation_of, equations
from neuralsolve.pde.kuramoto_sivashinsky import KuramotoSivashinsky
from neuralsolve.pde.navier_stokes import NavierStokes
from neuralsolve.pde.random_fields import neumann, periodic
from neuralsolve.pde.void import VoidElasticity, VoidPoisson

EPS = np.finfo(np.float64).eps
SEED = 6107
SMALL = {
    "darcy": Darcy(grid=33),
    "navier-stokes": NavierStokes(grid=16, dt=0.05, frames_in=2, frames_out=2),
    "burgers": Burgers(grid=128, stride=2, frames=3),
    "kuramoto-sivashinsky": KuramotoSivashinsky(stride=4, burn_in=5.0, final=2.0, frames=2),
    "poisson-void": VoidPoisson(around=24, layers=4),
    "elasticity-void": VoidElasticity(around=24, layers=4),
}


def fitted_order(errors):
    """The order of errors at spacings that halve each time."""
    return -np.polyfit(np.arange(len(errors)), np.log2(errors), 1)[0]


@pytest.mark.parametrize("faces", MEANS)
def test_second_order_where_the_permeability_is_smooth(faces):
    errors = []
    for side in (17, 33, 65, 129):
        y, x = np.meshgrid(*(np.linspace(0, 1, side),) * 2, indexing="ij")
        a, a_y, a_x = 2 + np.sin(2 * y) * x, 2 * np.cos(2 * y) * x, np.sin(2 * y)
        sy, cy, sx, cx = np.sin(np.pi * y), np.cos(np.pi * y), np.sin(2 * np.pi * x), np.cos(2 * np.pi * x)
        u = sy * sx
        f = -np.pi * (a_y * cy * sx + 2 * a_x * sy * cx) + 5 * np.pi**2 * a * u  # -div(a grad u)
        A = Darcy(grid=side, faces=faces).operator(a)
        found = ns.solve(A, f[1:-1, 1:-1].ravel(), rtol=1e-11).x
        errors.append(abs(found - u[1:-1, 1:-1].ravel()).max())
    assert abs(fitted_order(errors) - 2) < 0.1


@pytest.mark.parametrize("faces", MEANS)
def test_it_is_the_answer_of_a_direct_solve(faces):
    darcy = Darcy(grid=97, faces=faces, rtol=1e-10)
    a = darcy.permeability(3, SEED)
    u, residual = darcy.solve(a)
    exact = scipy.sparse.linalg.spsolve(darcy.operator(a).to_scipy().tocsc(), darcy.right_side(a))
    assert np.linalg.norm(u[1:-1, 1:-1].ravel() - exact) <= 1e-7 * np.linalg.norm(exact)
    assert residual <= 1e-10


def test_a_transposed_gives_u_transposed():
    darcy = Darcy(grid=65, rtol=1e-12)
    a = darcy.permeability(2, SEED)
    u, turned = darcy.solve(a)[0], darcy.solve(a.T.copy())[0]
    assert abs(turned - u.T).max() <= 1e-9 * u.max()


def test_u_is_positive_and_scales_with_one_over_a():
    darcy = Darcy(grid=65, rtol=1e-12)
    a = darcy.permeability(4, SEED)
    u, third = darcy.solve(a)[0], darcy.solve(3 * a)[0]
    assert (u[1:-1, 1:-1] > 0).all()
    assert abs(third - u / 3).max() <= 1e-9 * u.max()


def test_harmonic_faces_conduct_less():
    """They lie below arithmetic ones, so A does in the order of SPD matrices, and b.u lies above."""
    a = Darcy(grid=65).permeability(5, SEED)
    arithmetic, harmonic = (Darcy(grid=65, faces=faces).solve(a)[0].sum() for faces in MEANS)
    assert 1.0005 * arithmetic < harmonic < 1.1 * arithmetic


def test_permeability_is_of_two_values_or_log_normal():
    darcy, smooth = Darcy(grid=65, high=20.0, low=1.0), Darcy(grid=65, lognormal=True)
    a, g = darcy.permeability(6, SEED), np.log(smooth.permeability(6, SEED))
    assert np.array_equal(a, np.where(g >= 0, 20.0, 1.0))
    assert 0.2 < (a == 20.0).mean() < 0.8


def test_stride_and_far_wall_choose_nodes():
    whole = Darcy(grid=33).samples([8], SEED)
    parts = Darcy(grid=33, stride=4, far_wall=False).samples([8], SEED)
    assert np.array_equal(parts.outputs, whole.outputs[:, :, :-1:4, :-1:4])
    assert parts.layout.axes[0].tolist() == [k / 8 for k in range(8)]


def test_the_residual_sees_a_wrong_field():
    for darcy in (Darcy(grid=33), Darcy(grid=33, far_wall=False)):
        data = darcy.samples(range(2), SEED)
        wrong = darcy.residual(data.inputs, 1.01 * data.outputs)
        assert (abs(wrong - 0.01) < 1e-4).all()
        assert (darcy.residual(data.inputs, 0 * data.outputs) == 1).all()
        for wrong in (data.outputs[:1], data.outputs[:, 0], data.outputs[..., ::2]):
            with pytest.raises(ShapeError, match="on the same vertices"):
                darcy.residual(data.inputs, wrong)


def test_a_permeability_that_is_no_square_is_refused():
    with pytest.raises(ShapeError, match=r"\(side, side\) vertices"):
        Darcy().solve(np.ones((5, 6)))


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_sample_is_the_same_whatever_is_made_beside_it(name):
    equation = SMALL[name]
    together, alone = equation.samples(range(3, 14), SEED), equation.samples([9], SEED)
    assert np.array_equal(together.inputs[6], alone.inputs[0])
    scale = abs(alone.outputs).max()
    assert abs(together.outputs[6] - alone.outputs[0]).max() <= np.finfo(np.float32).eps * scale
    assert abs(together.outputs[5] - alone.outputs[0]).max() > 1e-3 * scale
    assert abs(equation.samples([9], SEED + 1).outputs - alone.outputs).max() > 1e-3 * scale


@pytest.mark.parametrize("name", sorted(SMALL))
def test_data_know_their_equation(name):
    assert sorted(equations()) == sorted(SMALL)
    assert equation_of(SMALL[name].layout()) == SMALL[name]


def test_an_equation_that_nobody_knows_is_named():
    with pytest.raises(OptionError, match="did you mean 'darcy'"):
        equation_of(Layout(equation={"name": "darcie"}))
    with pytest.raises(OptionError, match="of another version"):
        equation_of(Layout(equation={"name": "darcy", "colour": "red"}))


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"grid": 4}, "5 vertices"),
        ({"grid": 33, "stride": 5}, "divides grid - 1"),
        ({"low": 0.0}, "positive"),
        ({"rtol": -1.0}, "positive"),
        ({"faces": "geometric"}, "arithmetic, harmonic"),
    ],
)
def test_parameters_out_of_range_are_refused(options, needed):
    with pytest.raises(OptionError, match=needed):
        Darcy(**options)


@pytest.mark.parametrize(
    ("shape", "alpha", "tau"), [((40,), 2.0, 3.0), ((16, 24), 2.0, 3.0), ((16, 16), 2.5, 7.0)]
)
def test_gaussian_fields_have_the_variance_of_their_spectrum(shape, alpha, tau):
    dim, count = len(shape), 400
    scale = tau ** (2 * alpha - dim)

    def spectrum(waves, period):
        square = sum(k**2 for k in np.meshgrid(*waves, indexing="ij", sparse=True))
        density = scale * (period**2 * np.pi**2 * square + tau**2) ** -alpha
        density.flat[0] = 0.0
        return density

    expected = {  # of the mean square over the box, and of its scatter
        neumann: (spectrum([np.arange(side) for side in shape], 1), 1),
        periodic: (spectrum([np.fft.fftfreq(side, 1 / side) for side in shape], 2), 2),
    }
    for make, (density, factor) in expected.items():
        fields = [make(shape, alpha, tau, np.random.default_rng([SEED, k])) for k in range(count)]
        found = np.mean([(field**2).mean() for field in fields])
        scatter = factor * math.sqrt(2 * factor * (density**2).sum() / count)
        assert abs(found - factor * density.sum()) <= 5 * scatter
        assert max(abs(field.mean()) for field in fields) <= 64 * EPS * max(
            abs(field).max() for field in fields
        )
