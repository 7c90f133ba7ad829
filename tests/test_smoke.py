"""The main job: every step divergence-free to the tolerance, smoke within bounds, true timings."""

import csv
import io
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

import neuralsolve as ns
from neuralsolve.errors import NonFiniteError, OptionError, ShapeError, SolveError
from neuralsolve.pde import MACGrid, Plume, SmokeCase, simulate
from neuralsolve.pde.comparison import OURS, PYAMG, SCIPY, PressureTiming, TimingTable
from neuralsolve.pde.render import colours, picture, strip

FLAT = SmokeCase(shape=(40, 40), dt=0.03, steps=12, obstacle_source="analytic", frames=3, rtol=1e-8)
SOLID = replace(FLAT, shape=(16, 16, 16), steps=6)
EPS = torch.finfo(torch.float64).eps


@pytest.fixture(scope="module")
def compared():
    return simulate(FLAT)


@pytest.mark.parametrize("walls", ["open", "closed", "periodic"])
@pytest.mark.parametrize("case", [FLAT, SOLID], ids=["2D", "3D"])
def test_every_step_is_divergence_free_to_the_tolerance(case, walls):
    case = replace(case, walls=walls, inflow=0.0 if walls == "closed" else 0.5)
    plume = Plume(case)
    for _ in range(case.steps):
        record = plume.advance()
        left = plume.mac.divergence(plume.velocity)
        allowed = case.rtol * float(plume.projection.b.norm()) + plume.mac.rounding(plume.projection)
        assert float(left.norm()) <= allowed
        assert record.divergence_after == float(left.abs().max())
        assert torch.isfinite(plume.density).all()
    assert record.energy > 0


@pytest.mark.parametrize("advection", ["maccormack", "semi-lagrangian"])
@pytest.mark.parametrize("case", [FLAT, SOLID], ids=["2D", "3D"])
def test_density_stays_between_zero_and_one_and_out_of_solids(case, advection):
    plume = Plume(replace(case, advection=advection))
    for _ in range(case.steps):
        plume.advance()
        assert float(plume.density.min()) >= 0
        assert float(plume.density.max()) <= 1
        assert torch.count_nonzero(plume.density[~plume.mac.fluid]) == 0
    assert float(plume.density.sum()) > 0


def test_still_air_stays_still():
    case = replace(FLAT, noise=0.0, inflow=0.0, source_rate=0.0)
    result = simulate(case, compare=False)
    assert all(torch.count_nonzero(u) == 0 for u in result.velocity)
    assert torch.count_nonzero(result.density) == 0
    assert result.records[-1].relative_divergence == 0


def test_an_even_draught_in_an_empty_channel_stays_even():
    """u = (0, U) solves the equations with any dt: inflow below, outflow above, slip along the sides."""
    case = replace(FLAT, obstacle="none", noise=0.0, source_rate=0.0, inflow=0.5)
    result = simulate(case, compare=False)
    up, across = result.velocity
    error = 100 * case.rtol * 0.5  # each of 12 solves to rtol, through the inverse of A
    assert (up - 0.5).abs().max() <= error
    assert across.abs().max() <= error


def test_smoke_without_forces_keeps_its_mass_within_the_transport_error():
    """With div u = 0 and closed walls mass is an invariant; second-order transport nearly keeps it."""
    case = replace(
        FLAT, walls="closed", inflow=0.0, obstacle="none", source_center=(0.4, 0.5), source_radius=0.15
    )
    plume = Plume(replace(case, source_rate=1e3))
    mass = plume.advance().mass
    plume.case = replace(case, source_rate=0.0)
    for _ in range(10):
        record = plume.advance()
    assert record.mass == pytest.approx(mass, rel=0.05)
    assert record.mass != mass


def test_heavier_forcing_rises_faster_and_none_does_not_rise():
    def height(buoyancy):
        result = simulate(
            replace(FLAT, obstacle="none", inflow=0.0, noise=0.0, buoyancy=buoyancy), compare=False
        )
        rows = torch.arange(40, dtype=torch.float64)[:, None]
        return float((rows * result.density).sum() / result.density.sum())

    still, slow, fast = height(0.0), height(1.0), height(4.0)
    assert still < slow < fast


def test_a_mirrored_case_has_the_mirrored_solution():
    """Without an obstacle: inside one, cells with two closest fluid cells break the tie by their order."""
    case = replace(FLAT, obstacle="none", noise=0.0, source_center=(0.1, 0.5), rtol=1e-10)
    result = simulate(case, compare=False)
    assert torch.allclose(result.density, result.density.flip(1), atol=1e-6)
    up, across = result.velocity
    assert torch.allclose(up, up.flip(1), atol=1e-6)
    assert torch.allclose(across, -across.flip(1), atol=1e-6)


def test_the_same_seed_repeats_the_run_and_another_does_not():
    first, again, other = (
        simulate(replace(FLAT, steps=3, seed=seed), compare=False).density for seed in (77, 77, 78)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_solver_meets_the_tolerance_on_the_same_systems(compared):
    rows = compared.timings.rows
    assert [(row.step, row.solver) for row in rows] == [
        (step, solver) for step in range(1, FLAT.steps + 1) for solver in (OURS, SCIPY, PYAMG)
    ]
    # SciPy stops on its recurrence; the true residual may exceed it by the rounding of the recurrence
    assert max(row.residual for row in rows) <= FLAT.rtol * (1 + 1e-4)
    ours = [row for row in rows if row.solver == OURS]
    for row, record in zip(ours, compared.records, strict=True):
        assert row.residual == pytest.approx(record.relative_divergence, rel=1e-3, abs=64 * EPS)
        assert row.iterations == record.iterations


def test_a_warm_start_is_given_to_every_solver(compared):
    """The baseline started from our last pressure needs no more steps than from zero."""
    from neuralsolve.pde.comparison import PressureComparison

    plume = Plume(FLAT)
    race = PressureComparison(plume.A, FLAT.rtol)
    for _ in range(4):
        start = plume.pressure
        plume.advance()
    b = plume.projection.b
    warm, cold = race.solve(4, b, start), race.solve(4, b, None)
    exact = race.solve(4, b, plume.pressure)
    assert all(w.iterations <= c.iterations for w, c in zip(warm, cold, strict=True))
    assert [row.iterations for row in exact] == [0, 0]


def test_totals_add_the_rows_up():
    rows = (
        PressureTiming(1, OURS, 4, 0.5, 1e-9),
        PressureTiming(1, SCIPY, 40, 2.0, 2e-9),
        PressureTiming(2, OURS, 6, 1.5, 3e-9),
        PressureTiming(2, SCIPY, 60, 4.0, 1e-9),
    )
    table = TimingTable(rows, {OURS: 0.25, SCIPY: 0.0, PYAMG: 0.1})
    ours, scipy = table.totals()
    assert (ours["solve_s"], ours["median_ms"], ours["iterations"], ours["ratio"]) == (2.0, 1000.0, 5.0, 1.0)
    assert (scipy["setup_s"], scipy["solve_s"], scipy["worst_residual"], scipy["ratio"]) == (
        0.0,
        6.0,
        2e-9,
        3.0,
    )
    assert table.markdown().splitlines()[2].startswith("| neuralsolve | 0.250 | 2.000 |")
    back = list(csv.DictReader(io.StringIO(table.csv())))
    assert [(int(r["step"]), r["solver"], float(r["seconds"])) for r in back] == [
        (row.step, row.solver, row.seconds) for row in rows
    ]


def test_frames_and_progress_follow_the_steps():
    seen = []
    result = simulate(replace(FLAT, steps=7, frames=3), compare=False, progress=lambda *a: seen.append(a))
    assert [(step, total) for step, total, _ in seen] == [(i, 7) for i in range(1, 8)]
    assert [record for *_, record in seen] == list(result.records)
    times = [time for time, _ in result.frames]
    assert times == pytest.approx([3 * 0.03, 5 * 0.03, 7 * 0.03])
    assert torch.equal(result.frames[-1][1], result.density)
    assert all(row.solver == OURS for row in result.timings.rows)


def test_a_divergence_over_its_bound_is_an_error():
    with pytest.raises(SolveError, match="max_divergence") as caught:
        simulate(replace(FLAT, max_divergence=1e-14), compare=False)
    assert caught.value.result.converged


def test_a_pressure_solver_that_lies_is_caught():
    plume = Plume(FLAT)
    honest = plume.prepared

    class Liar:
        def solve(self, b, *, x0=None):
            return replace(honest.solve(b), x=torch.zeros_like(b))

    plume.prepared = Liar()
    with pytest.raises(SolveError, match="divergence after the projection"):
        plume.advance()


def test_a_velocity_that_is_not_finite_is_an_error():
    plume = Plume(FLAT)
    plume.velocity[0][3, 3] = math.inf
    with pytest.raises(NonFiniteError, match="dt"):
        plume.advance()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (64,)}, "shape"),
        ({"shape": (64, 2)}, "shape"),
        ({"dt": 0.0}, "dt"),
        ({"dt": math.nan}, "dt"),
        ({"steps": 0}, "steps"),
        ({"rtol": -1e-8}, "rtol"),
        ({"buoyancy": math.inf}, "buoyancy"),
        ({"walls": "opne"}, "did you mean 'open'"),
        ({"obstacle": "bunni"}, "did you mean 'bunny'"),
        ({"advection": "upwind"}, "maccormack"),
        ({"source_center": (0.1, 0.2, 0.3)}, "source_center"),
        ({"walls": "closed"}, "nowhere to go"),
    ],
)
def test_a_case_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(OptionError, match=message):
        replace(FLAT, **change)


def test_a_case_cannot_be_changed_by_accident():
    with pytest.raises(FrozenInstanceError):
        FLAT.dt = 1.0


def test_an_obstacle_that_fills_the_source_leaves_no_smoke():
    case = replace(FLAT, obstacle="box", obstacle_center=(0.05, 0.48), obstacle_size=0.3, inflow=0.0)
    assert torch.count_nonzero(simulate(case, compare=False).density) == 0


def test_any_method_and_preconditioner_may_drive_the_projection():
    steps = [simulate(replace(FLAT, steps=2), compare=False, method=m) for m in (ns.SparseLU(), ns.CG())]
    assert torch.allclose(steps[0].density, steps[1].density, atol=1e-6)
    assert "CG" in steps[1].explanation


@pytest.mark.parametrize("case", [FLAT, SOLID], ids=["2D", "3D"])
def test_pictures_have_the_box_upright_and_the_obstacle_in_it(case):
    shape = case.shape
    solid = torch.zeros(shape, dtype=torch.bool)
    solid[..., 2:8, 4:10] = True
    clear = picture(torch.zeros(shape), torch.zeros(shape, dtype=torch.bool), scale=3)
    with_solid = picture(torch.zeros(shape), solid, scale=3)
    smoky = picture(torch.ones(shape), torch.zeros(shape, dtype=torch.bool), scale=3)
    assert clear.shape == (3 * shape[-2], 3 * shape[-1], 3)
    assert clear.dtype == np.uint8
    changed = np.abs(with_solid.astype(int) - clear).sum(-1) > 60
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert abs(rows[0] - 3 * (shape[-2] - 8)) <= 4  # rows count from the top
    assert abs(columns[0] - 12) <= 4
    assert smoky.mean() > clear.mean()


def test_a_strip_holds_its_pictures_in_order():
    solid = torch.zeros(10, 12, dtype=torch.bool)
    fields = [torch.full((10, 12), value) for value in (0.1, 0.9)]
    image = strip(fields, solid, scale=2, gap=3)
    assert image.shape == (20, 24 + 3 + 24, 3)
    assert np.array_equal(image[:, :24], picture(fields[0], solid, scale=2))
    assert np.array_equal(image[:, 27:], picture(fields[1], solid, scale=2))
    assert (image[:, 24:27] == 255).all()
    with pytest.raises(ShapeError, match="at least one"):
        strip([], solid)


def test_the_colour_scale_only_gets_brighter():
    scale = colours(np.linspace(0, 1, 200)) @ (0.2126, 0.7152, 0.0722)  # luminance of Rec. 709
    assert (np.diff(scale) > 0).all()


def test_the_grid_of_a_case_has_its_walls_and_spacing():
    grid = replace(SOLID, walls="periodic").grid()
    assert grid.walls == (("periodic",) * 2, ("neumann", "dirichlet"), ("periodic",) * 2)
    assert grid.spacing == (1 / 16,) * 3
    assert MACGrid(replace(FLAT, walls="closed", inflow=0.0).grid()).open[0][-1].sum() == 0
