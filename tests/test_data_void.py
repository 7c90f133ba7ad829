"""Voids: meshes that never fold, Poisson's equation to second order, elasticity by patch test and balance."""

import math
from dataclasses import replace

import numpy as np
import pytest

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError, StructureError
from neuralsolve.fem import elasticity, poisson, von_mises
from neuralsolve.fem.elasticity import areas, lame
from neuralsolve.io.mesh import Mesh, boundary_nodes, grid_mesh
from neuralsolve.pde.equation import stream
from neuralsolve.pde.void import VoidElasticity, VoidPoisson
from neuralsolve.pde.void_mesh import CODES, cells, mesh, radii
from neuralsolve.solvers.solve import solve

SEED = 6401
SHAPE = VoidPoisson()
SMALL = VoidPoisson(around=24, layers=4)


def codes(number, shape=SHAPE):
    return radii(shape, stream(SEED, number))


def signed_areas(points, cells):
    corner = points[cells]
    (ax, ay), (bx, by) = (corner[:, 1] - corner[:, 0]).T, (corner[:, 2] - corner[:, 0]).T
    return (ax * by - ay * bx) / 2


def refined(shape, times):
    """The same geometry with `times` as many points along each direction."""
    return replace(shape, around=shape.around * times, layers=(shape.layers - 1) * times + 1)


def square(n=4):
    """Triangles of the unit square whose inner points are moved about, with groups per side."""
    quads = grid_mesh((n, n), (1 / n, 1 / n), np.ones(n * n, bool))
    triangles = np.concatenate([quads.cells[:, [0, 1, 2]], quads.cells[:, [0, 2, 3]]])
    points = quads.points.copy()
    inner = np.setdiff1d(np.arange(len(points)), boundary_nodes(triangles, "triangle"))
    points[inner] += np.random.default_rng(SEED).uniform(-0.2 / n, 0.2 / n, (len(inner), 2))
    sides = {"left": (0, 0.0), "right": (0, 1.0), "bottom": (1, 0.0), "top": (1, 1.0)}
    groups = {name: np.flatnonzero(points[:, axis] == at) for name, (axis, at) in sides.items()}
    return Mesh(points, triangles, "triangle", groups)


def test_no_triangle_is_flat_or_turned_over():
    """Two corners lie on one ray: area >= (1/2 - outer) / (layers - 1) inner sin(turn) / 2 for any void."""
    shape = replace(SHAPE, spread=6.0, tau=30.0, alpha=1.0)  # much rougher than by default
    smallest = (0.5 - 0.4) / 8 * 0.2 * math.sin(2 * math.pi / 108) / 2
    for equation in (SHAPE, shape):
        for number in range(150):
            made = mesh(equation, codes(number, equation))
            found = signed_areas(made.points, made.cells)
            assert found.min() >= smallest
            assert math.isclose(found.sum(), areas(made).sum(), rel_tol=1e-12)


def test_the_mesh_fills_the_square_outside_the_void():
    made = mesh(SHAPE, np.full(CODES, 0.3))
    polygon = 108 / 2 * math.sin(2 * math.pi / 108) * 0.3**2
    assert math.isclose(areas(made).sum(), 1 - polygon, rel_tol=1e-12)
    assert made.points.shape == (972, 2)
    assert np.array_equal(np.sort(made.groups["boundary"]), boundary_nodes(made.cells, "triangle"))
    for name, (axis, at) in {"left": (0, 0), "right": (0, 1), "bottom": (1, 0), "top": (1, 1)}.items():
        assert np.array_equal(made.groups[name], np.flatnonzero(made.points[:, axis] == at))
        assert len(made.groups[name]) == 28


def test_codes_are_the_radii_of_the_void():
    given = codes(7)
    made = mesh(replace(SHAPE, around=4 * CODES), given)  # every fourth ray is that of a code
    on_void = made.points[made.groups["void"]] - 0.5
    assert np.allclose(np.hypot(*on_void.T)[::4], given, rtol=1e-12)
    assert np.allclose(np.degrees(np.arctan2(on_void[0, 1], on_void[0, 0])), -45)
    every = np.stack([codes(number) for number in range(200)])
    assert 0.2 < every.min() < 0.25
    assert 0.35 < every.max() < 0.4
    assert abs(every.mean() - 0.3) < 0.005
    g = np.log((every - 0.2) / (0.4 - every))
    assert abs((g**2).mean() - SHAPE.spread**2) <= 0.1 * SHAPE.spread**2


def test_second_order_around_a_void():
    """u = sin(pi x) cos(2 y), its values held on the boundary."""
    errors = []
    for times in (1, 2, 4):
        made = mesh(refined(SMALL, times), codes(3))
        x, y = made.points.T
        u = np.sin(np.pi * x) * np.cos(2 * y)
        groups = {str(k): np.array([k]) for k in made.groups["boundary"]}
        system = poisson(
            Mesh(made.points, made.cells, "triangle", groups),
            {name: u[k[0]] for name, k in groups.items()},
            source=(np.pi**2 + 4) * u,
        )
        error = system.expand(solve(system.A, system.b, rtol=1e-11).x) - u
        errors.append(math.sqrt((system.mass * error**2).sum()))
    order = -np.polyfit(range(3), np.log2(errors), 1)[0]
    assert abs(order - 2) < 0.15


def test_the_torsion_of_refined_meshes_converges_to_second_order():
    """The integral of u, -Laplace u = 1: errors of the energy and of the polygon are both O(h^2)."""
    found = []
    for times in (1, 2, 4):
        system = SMALL.system(mesh(refined(SMALL, times), codes(5)))
        found.append(system.b @ solve(system.A, system.b, rtol=1e-11).x)
    assert 3.2 < (found[1] - found[0]) / (found[2] - found[1]) < 4.8


@pytest.mark.parametrize("equation", [VoidPoisson(), VoidElasticity(), VoidElasticity(plane="stress")])
def test_samples_obey_their_equation(equation):
    data = equation.samples(range(2), SEED)
    assert data.points.shape == (2, 972, 2)
    assert data.codes.shape == (2, CODES)
    assert np.array_equal(data.inputs, data.points.swapaxes(1, 2).astype(np.float32))
    assert np.array_equal(data.cells, cells(equation))
    assert (data.residuals <= 1e-8).all()
    assert (equation.residual(data.inputs, data.outputs) <= 1e-4).all()
    assert (abs(equation.residual(data.inputs, 1.1 * data.outputs) - 0.1) <= 1e-3).all()
    assert data.outputs.min() >= 0


def test_every_stored_solution_of_the_holed_square(data):
    """Of another code, in float32; about half of the triangles are clockwise."""
    import torch

    stored = torch.load(data / "poisson_holed" / "holed_poisson.pt", weights_only=True)
    triangles = stored["triang"].numpy()
    points = np.stack([stored["x"].double().numpy(), stored["y"].double().numpy()], axis=-1)
    assert 0.4 < (signed_areas(points[:, 60], triangles) < 0).mean() < 0.6
    for column in range(0, 121, 10):
        made = Mesh(points[:, column], triangles, "triangle", {"wall": boundary_nodes(triangles, "triangle")})
        system = poisson(made, {"wall": 0.0}, coefficient=0.1)
        found = system.expand(solve(system.A, system.b, rtol=1e-10).x)
        u = stored["u"][:, column].double().numpy()
        assert np.linalg.norm(found - u) <= 1e-6 * np.linalg.norm(u)


def test_even_tension_is_found_exactly():
    """Patch test: with ratio 0 the square is pulled evenly, u = (0, y / young), stress 1 along y."""
    made = square()
    system = elasticity(made, ["bottom"], {"top": (0.0, 1.0)}, young=3.0, ratio=0.0)
    u = system.expand(solve(system.A, system.b, rtol=1e-13).x)
    assert abs(u[::2]).max() <= 1e-11
    assert abs(u[1::2] - made.points[:, 1] / 3).max() <= 1e-11
    assert abs(von_mises(made, u, young=3.0, ratio=0.0) - 1).max() <= 1e-10


@pytest.mark.parametrize("plane", ["strain", "stress"])
def test_stress_of_even_strain(plane):
    """Simple tension of plane stress has the von Mises stress of its pull; a turn has none."""
    made, ratio = square(), 0.3
    x, y = made.points.T
    pull = (
        np.stack([-ratio * x, y], axis=1) if plane == "stress" else np.stack([-ratio * x, (1 - ratio) * y], 1)
    )
    expected = 1.0 if plane == "stress" else math.sqrt(1 - ratio + ratio**2) / (1 + ratio)
    assert np.allclose(von_mises(made, pull.ravel(), ratio=ratio, plane=plane), expected, rtol=1e-12)
    turn = np.stack([-y, x], axis=1).ravel()
    assert von_mises(made, turn, ratio=ratio, plane=plane).max() <= 1e-14
    shear = von_mises(made, np.stack([y, 0 * y], axis=1).ravel(), ratio=ratio, plane=plane)
    assert np.allclose(shear, math.sqrt(3) * lame(1.0, ratio, plane)[1], rtol=1e-12)


@pytest.mark.parametrize("force", [(0.0, 1.0), (0.7, -0.2)])
def test_the_loads_add_up_to_the_traction(force):
    system = elasticity(mesh(SMALL, codes(2, SMALL)), ["bottom"], {"top": force})
    load = system.values.copy()
    load[system.free] = system.b
    assert np.allclose(load.reshape(-1, 2).sum(0), force, atol=1e-13)


def test_stiffness_is_positive_definite_and_knows_no_rigid_motion():
    made = mesh(SMALL, codes(4, SMALL))
    system = elasticity(made, ["bottom"], {"top": (0.0, 1.0)})
    A = system.A.toarray()
    assert np.array_equal(A, A.T)
    assert np.linalg.eigvalsh(A)[0] > 0
    x, y = made.points.T
    inside = np.setdiff1d(
        np.arange(len(x)), np.unique(made.cells[np.isin(made.cells, made.groups["bottom"]).any(1)])
    )
    rows = np.isin(system.free, np.concatenate([2 * inside, 2 * inside + 1]))
    for motion in ((1 + 0 * x, 0 * x), (0 * x, 1 + 0 * x), (-y, x)):
        force = A @ np.stack(motion, axis=1).ravel()[system.free]
        assert abs(force[rows]).max() <= 1e-12 * abs(A).max()


def test_the_compliance_of_refined_meshes_converges():
    found = []
    for times in (1, 2, 4):
        system = elasticity(mesh(refined(SMALL, times), codes(5)), ["bottom"], {"top": (0.0, 1.0)})
        found.append(system.b @ solve(system.A, system.b, rtol=1e-10).x)
    # corners between clamped and free sides are singular: more than first order, less than second
    assert 2 < (found[1] - found[0]) / (found[2] - found[1]) < 5


def test_stress_is_in_units_of_the_traction_and_has_no_modulus():
    made = mesh(SMALL, codes(6, SMALL))
    stresses = []
    for young, pull in ((1.0, 1.0), (5.0, 1.0), (1.0, 3.0)):
        system = elasticity(made, ["bottom"], {"top": (0.0, pull)}, young=young)
        u = system.expand(solve(system.A, system.b, rtol=1e-12).x)
        stresses.append(von_mises(made, u, young=young) / pull)
    assert np.allclose(stresses[1:], stresses[0], rtol=1e-8)


def test_what_elasticity_cannot_use_is_refused():
    made = square()
    for clamped, traction, needed in (
        ([], {}, "nothing is clamped"),
        (["botom"], {}, "did you mean 'bottom'"),
        (["bottom"], {"tip": (0, 1)}, "did you mean 'top'"),
    ):
        with pytest.raises(OptionError, match=needed):
            elasticity(made, clamped, traction)
    with pytest.raises(NonFiniteError, match="two finite numbers"):
        elasticity(made, ["bottom"], {"top": (0.0, math.nan)})
    flat = Mesh(made.points * [1.0, 0.0], made.cells, "triangle", made.groups)
    with pytest.raises(StructureError, match="without area"):
        elasticity(flat, ["left"], {"right": (1.0, 0.0)})
    with pytest.raises(StructureError, match="triangles in the plane"):
        elasticity(grid_mesh((2, 2), (1, 1), np.ones(4, bool)), ["bottom"], {})


def test_codes_out_of_range_are_refused():
    for given in (np.full(41, 0.3), np.full(CODES, 0.4)):
        with pytest.raises(ShapeError, match="42 radii are needed"):
            mesh(SHAPE, given)


@pytest.mark.parametrize("equation", [VoidPoisson, VoidElasticity])
@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"around": 54}, "a multiple of 4"),
        ({"layers": 2}, "3 layers"),
        ({"outer": 0.5}, "inner < outer < 0.5"),
        ({"spread": 0.0}, "positive"),
        ({"rtol": math.inf}, "finite"),
    ],
)
def test_parameters_out_of_range_are_refused(equation, options, needed):
    with pytest.raises(OptionError, match=needed):
        equation(**options)


def test_materials_out_of_range_are_refused():
    with pytest.raises(OptionError, match="ratio < 1/2"):
        VoidElasticity(ratio=0.5)
    with pytest.raises(OptionError, match="did you mean 'stress'"):
        VoidElasticity(plane="stres")
