"""Laws of the staggered grid: div and grad are adjoint, div grad is the stencil, projections orthogonal."""

import math
from dataclasses import replace

import pytest
import torch

import neuralsolve as ns
from neuralsolve.errors import ShapeError, SolveError
from neuralsolve.pde.forces import buoyancy, confinement, to_faces
from neuralsolve.pde.mac import MACGrid

EPS = torch.finfo(torch.float64).eps
RTOL = 1e-9
WALLS = {
    "closed": "neumann",
    "open top": ((("neumann", "dirichlet"), "neumann"), ("neumann", ("neumann", "dirichlet"), "neumann")),
    "periodic": "periodic",
    "all open": "dirichlet",
}


def make_grid(ndim, walls, obstacle=True, air=False):
    shape = (10, 12) if ndim == 2 else (6, 7, 8)
    cells = torch.zeros(shape, dtype=torch.uint8)
    if obstacle:
        cells[(slice(2, 4), slice(3, 6), slice(4, 6))[3 - ndim :]] = ns.SOLID
    if air:
        cells[..., -2:, :] = ns.AIR
    given = WALLS[walls]
    return ns.Grid(cells, spacing=0.125, walls=given if isinstance(given, str) else given[ndim - 2])


def random_velocity(mac, seed):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(u.shape, dtype=u.dtype, generator=generator) for u in mac.zeros())


def inner(mac, u, v):
    return 0.25 * (
        mac.energy(tuple(a + b for a, b in zip(u, v, strict=True)))
        - mac.energy(tuple(a - b for a, b in zip(u, v, strict=True)))
    )


every_grid = pytest.mark.parametrize(
    ("ndim", "walls", "air"),
    [(d, w, False) for d in (2, 3) for w in WALLS] + [(2, "closed", True), (3, "open top", True)],
)


@every_grid
def test_gradient_is_minus_the_adjoint_of_divergence(ndim, walls, air):
    mac = MACGrid(make_grid(ndim, walls, air=air))
    u = mac.constrain(random_velocity(mac, 821))
    p = torch.randn(mac.grid.size, dtype=torch.float64, generator=torch.Generator().manual_seed(822))
    p *= mac.fluid.reshape(-1)
    left, right = float(mac.divergence(u).reshape(-1) @ p), -inner(mac, u, mac.gradient(p))
    scale = math.sqrt(mac.energy(u) * mac.energy(mac.gradient(p)))
    assert abs(left - right) <= 64 * EPS * scale


@every_grid
def test_minus_divergence_of_gradient_is_the_poisson_stencil(ndim, walls, air):
    grid = make_grid(ndim, walls, air=air)
    mac, A = MACGrid(grid), ns.PoissonStencil(grid)
    p = torch.randn(grid.size, dtype=torch.float64, generator=torch.Generator().manual_seed(823))
    p *= mac.fluid.reshape(-1)
    difference = A.matvec(p) + mac.divergence(mac.gradient(p)).reshape(-1)
    assert difference.abs().max() <= 16 * EPS * A.diagonal().max() * p.abs().max()


@every_grid
def test_what_divergence_is_left_is_the_residual_of_the_solve(ndim, walls, air):
    grid = make_grid(ndim, walls, air=air)
    mac, A = MACGrid(grid), ns.PoissonStencil(grid)
    prepared = ns.prepare(A, ns.CG(), rtol=1e-3)  # loose, so that the residual stands above rounding
    projection = mac.project(random_velocity(mac, 824), prepared)
    residual = projection.b - A.matvec(projection.pressure)
    left = mac.divergence(projection.velocity).reshape(-1)
    assert (left + residual).abs().max() <= mac.rounding(projection)
    assert projection.norm_after <= 1e-3 * projection.norm_before + mac.rounding(projection)
    mac.check(projection, 1e-3)


@every_grid
def test_the_projection_is_idempotent_and_orthogonal(ndim, walls, air):
    grid = make_grid(ndim, walls, air=air)
    mac = MACGrid(grid)
    prepared = ns.prepare(ns.PoissonStencil(grid), rtol=RTOL)
    u = mac.constrain(random_velocity(mac, 825))
    first = mac.project(u, prepared)
    again = mac.project(first.velocity, prepared)
    removed = mac.gradient(first.pressure)
    # <u_new, grad p> = -<div u_new, p>, and the solver bounds ‖div u_new‖
    slack = first.norm_after * float(first.pressure.norm()) + 64 * EPS * mac.energy(u)
    assert abs(inner(mac, first.velocity, removed)) <= slack
    assert mac.energy(first.velocity) <= mac.energy(u) + 2 * slack
    assert abs(mac.energy(u) - mac.energy(first.velocity) - mac.energy(removed)) <= 4 * slack
    # ‖grad p‖^2 = <p, A p> <= ‖b‖^2 / lambda_min; the walls of the box bound lambda_min from below
    smallest = torch.linalg.eigvalsh(torch.as_tensor(ns.PoissonStencil(grid).to_scipy().toarray()))
    gap = float(smallest[smallest > 1e-9 * smallest[-1]][0])
    change = mac.energy(tuple(a - b for a, b in zip(again.velocity, first.velocity, strict=True)))
    assert math.sqrt(change) <= 2 * (first.norm_after + mac.rounding(first)) / math.sqrt(gap)


def test_prescribed_faces_keep_their_inflow_and_solids_stop_the_flow():
    grid = make_grid(2, "open top")
    faces = MACGrid(grid).zeros()
    faces[0][0] = 0.5
    mac = MACGrid(grid, faces)
    projection = mac.project(random_velocity(mac, 826), ns.prepare(ns.PoissonStencil(grid), rtol=RTOL))
    mac.check(projection, RTOL)
    u_y, u_x = projection.velocity
    assert torch.equal(u_y[0], torch.full((12,), 0.5, dtype=torch.float64))
    assert torch.count_nonzero(u_x[:, [0, -1]]) == 0
    assert torch.count_nonzero(u_y[3:7, 4:6]) == 0
    assert torch.count_nonzero(u_x[3:6, 4:7]) == 0
    outflow, error = float(u_y[-1].sum()), projection.norm_after * 0.125 * math.sqrt(grid.size)
    assert abs(outflow - 12 * 0.5) <= error + 64 * EPS * 12  # what enters leaves through the top


def test_inflow_into_a_closed_box_is_reported():
    grid = make_grid(2, "closed")
    faces = MACGrid(grid).zeros()
    faces[0][0] = 0.5
    mac = MACGrid(grid, faces)
    projection = mac.project(mac.zeros(), ns.prepare(ns.PoissonStencil(grid), ns.CG(), rtol=RTOL))
    expected = 12 * 0.5 / 0.125 / math.sqrt(float(mac.fluid.sum()))  # |mean of div| sqrt(n)
    assert projection.norm_after == pytest.approx(expected, rel=1e-7)
    with pytest.raises(SolveError, match="inflow and outflow that cancel"):
        mac.check(projection, RTOL)


def test_nan_divergence_never_passes_the_check():
    grid = make_grid(2, "open top")
    mac = MACGrid(grid)
    good = mac.project(random_velocity(mac, 827), ns.prepare(ns.PoissonStencil(grid), rtol=RTOL))
    with pytest.raises(SolveError, match="divergence after the projection"):
        mac.check(replace(good, norm_after=math.nan), RTOL)


def test_inflow_must_have_the_shape_of_the_faces():
    grid = make_grid(2, "open top")
    with pytest.raises(ShapeError, match="start from zeros"):
        MACGrid(grid, [torch.zeros(3, 3), torch.zeros(3, 3)])


@pytest.mark.parametrize("ndim", [2, 3])
def test_filling_solids_keeps_fluid_values_and_invents_none(ndim):
    mac = MACGrid(make_grid(ndim, "closed"))
    field = torch.rand(mac.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(828))
    cells, faces = mac.nearest()
    filled = field.reshape(-1)[cells].view(mac.shape)
    assert torch.equal(filled[mac.fluid], field[mac.fluid])
    assert torch.isin(filled[~mac.fluid], field[mac.fluid]).all()
    for index, wet in zip(faces, mac.wet, strict=True):
        own = torch.arange(wet.numel()).view(wet.shape)
        assert torch.equal(index.view(wet.shape)[wet], own[wet])
        assert wet.reshape(-1)[index].all()


@pytest.mark.parametrize("ndim", [2, 3])
def test_even_buoyancy_in_a_closed_box_moves_nothing(ndim):
    """A constant lift is the gradient of height: the pressure takes all of it."""
    grid = make_grid(ndim, "closed")
    mac = MACGrid(grid)
    lift = buoyancy(mac, torch.ones(mac.shape, dtype=torch.float64), 2.0)
    projection = mac.project(lift, ns.prepare(ns.PoissonStencil(grid), rtol=RTOL))
    assert math.sqrt(mac.energy(projection.velocity)) <= 1e-6 * math.sqrt(mac.energy(lift))
    heights = projection.pressure.view(mac.shape).select(-2, -1) - projection.pressure.view(mac.shape).select(
        -2, 0
    )
    climb = 2.0 * 0.125 * (mac.shape[-2] - 1)
    assert torch.allclose(heights, torch.full_like(heights, climb), rtol=1e-6)


def test_cell_means_on_faces_wrap_on_a_periodic_axis():
    mac = MACGrid(ns.Grid((2, 4), walls="periodic"))
    faces = to_faces(mac, torch.tensor([[1.0, 2.0, 4.0, 8.0]] * 2, dtype=torch.float64), 1)
    assert faces[0].tolist() == [4.5, 1.5, 3.0, 6.0, 4.5]


@pytest.mark.parametrize("ndim", [2, 3])
def test_confinement_spins_a_vortex_up_and_leaves_rigid_flow_alone(ndim):
    mac = MACGrid(ns.Grid((24,) * ndim, spacing=1 / 24, walls="neumann"))
    nodes = [torch.arange(n, dtype=torch.float64) / 24 - 0.5 for n in (24, 25)]

    def swirl(profile):
        """A velocity (-y, x) * profile(r) in the x-y plane, given at the faces."""
        faces = mac.zeros()
        centres = nodes[0] + 0.5 / 24
        for axis, sign in ((ndim - 2, 1.0), (ndim - 1, -1.0)):
            y, x = torch.meshgrid(
                nodes[1] if axis == ndim - 2 else centres,
                nodes[1] if axis == ndim - 1 else centres,
                indexing="ij",
            )
            faces[axis].copy_(sign * (x if axis == ndim - 2 else y) * profile(torch.hypot(x, y)))
        return faces

    gauss = swirl(lambda r: torch.exp(-((r / 0.15) ** 2)))
    assert inner(mac, gauss, confinement(mac, gauss, 1.0)) > 0  # the force does positive work on the vortex
    rigid = swirl(torch.ones_like)
    assert max(float(f.abs().max()) for f in confinement(mac, rigid, 1.0)) <= 1e-5  # even curl: no direction
    twice = confinement(mac, gauss, 2.0)
    assert all(
        torch.allclose(a, 2 * b, rtol=8 * EPS)
        for a, b in zip(twice, confinement(mac, gauss, 1.0), strict=True)
    )
