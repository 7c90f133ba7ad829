"""Laws of the advection schemes."""

import math

import pytest
import torch

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError
from neuralsolve.pde.advection import SCHEMES, advect, courant, sample, trace

EPS = torch.finfo(torch.float64).eps
SHAPES = [(9, 12), (5, 7, 6)]


def uniform_flow(shape, velocity):
    return tuple(
        torch.full([n + (a == axis) for a, n in enumerate(shape)], v, dtype=torch.float64)
        for axis, v in enumerate(velocity)
    )


def random_flow(shape, generator, periodic=False):
    faces = []
    for axis in range(len(shape)):
        u = torch.randn(
            [n + (a == axis) for a, n in enumerate(shape)], dtype=torch.float64, generator=generator
        )
        if periodic:
            u.select(axis, -1).copy_(u.select(axis, 0))
        faces.append(u)
    return tuple(faces)


@pytest.mark.parametrize("shape", SHAPES)
def test_interpolation_reproduces_multilinear_functions(shape):
    generator = torch.Generator().manual_seed(811)
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
    points = [torch.rand(50, dtype=torch.float64, generator=generator) * (n - 1) for n in shape]

    def f(coordinates):
        return 2.0 - math.prod(c + 1 for c in coordinates) + 3 * coordinates[0]

    exact = f(points)
    assert (sample(f(axes), points) - exact).abs().max() <= 8 * len(shape) * EPS * f(axes).abs().max()


def test_interpolation_beyond_the_ends_is_constant_or_periodic():
    field = torch.tensor([2.0, 3.0, 5.0, 7.0], dtype=torch.float64)
    points = [torch.tensor([-2.0, 4.5, 3.5], dtype=torch.float64)]
    assert sample(field, points).tolist() == [2.0, 7.0, 7.0]
    assert sample(field, points, [True]).tolist() == [5.0, 2.5, 4.5]


def test_one_coordinate_per_axis_is_required():
    with pytest.raises(ShapeError, match="one coordinate per axis"):
        sample(torch.zeros(3, 3), [torch.zeros(2)])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("face_axis", [None, 0, 1])
def test_constants_are_kept_exactly(scheme, shape, face_axis):
    flow = random_flow(shape, torch.Generator().manual_seed(812))
    sides = [n + (a == face_axis) for a, n in enumerate(shape)]
    field = torch.full(sides, 0.7, dtype=torch.float64)
    moved = advect(field, flow, 0.8, (1.0,) * len(shape), face_axis=face_axis, scheme=scheme)
    assert torch.equal(moved, field)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("face_axis", [None, 1])
def test_translation_by_whole_cells_is_exact_on_a_periodic_box(scheme, shape, face_axis):
    shift = (2.0, -3.0, 1.0)[: len(shape)]
    flow = uniform_flow(shape, shift)
    field = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(813))
    expected = torch.roll(field, [int(s) for s in shift], list(range(len(shape))))
    if face_axis is not None:  # faces of a periodic axis: the first one again at the end
        field = torch.cat([field, field.narrow(face_axis, 0, 1)], face_axis)
        expected = torch.cat([expected, expected.narrow(face_axis, 0, 1)], face_axis)
    options = {"periodic": (True,) * len(shape), "face_axis": face_axis, "scheme": scheme, "cfl": 4.0}
    moved = advect(field, flow, 0.5, (0.5,) * len(shape), **options)
    assert torch.equal(moved, expected)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_new_extremum_at_any_time_step(scheme, periodic, shape):
    generator = torch.Generator().manual_seed(814)
    flow = random_flow(shape, generator, periodic)
    field = torch.rand(shape, dtype=torch.float64, generator=generator)
    for dt in (0.3, 3.0):
        moved = advect(field, flow, dt, (1.0,) * len(shape), periodic=(periodic,) * len(shape), scheme=scheme)
        assert field.min() <= moved.min()
        assert moved.max() <= field.max()
        assert not torch.equal(moved, field)


@pytest.mark.parametrize(("scheme", "order"), [("semi-lagrangian", 1), ("maccormack", 2)])
def test_order_of_accuracy_in_a_smooth_uniform_flow(scheme, order):
    errors = []
    for n in (32, 64):
        x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        field = torch.sin(2 * math.pi * x).expand(4, n).contiguous()
        flow = uniform_flow((4, n), (0.0, 1.0))
        steps = n // 4  # up to time 0.65 at a Courant number of 2.6, a fixed fraction of a cell from a node
        for _ in range(steps):
            field = advect(field, flow, 2.6 / n, (1.0, 1 / n), periodic=(True, True), scheme=scheme, cfl=3.0)
        exact = torch.sin(2 * math.pi * (x - 2.6 / n * steps))
        errors.append((field[0] - exact).abs().mean())  # the clamp costs an order at the two crests only
    assert abs(math.log2(errors[0] / errors[1]) - order) <= 0.25


def test_midpoint_paths_are_second_order_and_pieces_refine_them():
    """On u = (-y, x) the exact path is a circle; the radius error of the midpoint rule is O(dt^3) a piece."""
    n = 32
    middle = (n - 1) / 2
    nodes = torch.arange(n, dtype=torch.float64) - middle
    faces = torch.arange(n + 1, dtype=torch.float64)  # velocities depend on the other coordinate only
    flow = (nodes.expand(len(faces), n), -nodes[:, None].expand(n, len(faces)))  # u_y = x, u_x = -y
    start = [torch.tensor([middle], dtype=torch.float64), torch.tensor([middle + 8.0], dtype=torch.float64)]
    errors = []
    for pieces in (4, 8):
        y, x = trace(start, flow, (1.0, 1.0), (False, False), pieces)
        errors.append(float(torch.hypot(x - middle - 8 * math.cos(1.0), y - middle - 8 * math.sin(1.0))))
    assert abs(math.log2(errors[0] / errors[1]) - 2) <= 0.15


def test_courant_number_counts_cells_and_refuses_nan():
    flow = uniform_flow((6, 8), (0.5, -3.0))
    assert courant(flow, (0.25, 0.5), 0.1) == pytest.approx(0.6, rel=4 * EPS)
    flow[1][2, 3] = math.nan
    with pytest.raises(NonFiniteError, match="NaN"):
        courant(flow, (0.25, 0.5), 0.1)


def test_unknown_scheme_is_named_with_its_neighbour():
    with pytest.raises(OptionError, match="did you mean 'maccormack'"):
        advect(torch.zeros(4, 4), uniform_flow((4, 4), (0.0, 0.0)), 0.1, (1.0, 1.0), scheme="maccormac")
