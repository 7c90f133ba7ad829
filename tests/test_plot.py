"""Pictures: what they show is the data, and they are files that nothing else depends on."""

import subprocess
import sys

import numpy as np
import pytest

import neuralsolve as ns
from neuralsolve import plot
from neuralsolve.cases import Problem, open_problem
from neuralsolve.fem import poisson
from neuralsolve.io import Mesh, grid_mesh
from neuralsolve.io.mesh import boundary_nodes
from neuralsolve.pde.smoke import simulate
from neuralsolve.pde.smoke_case import SmokeCase

rng = np.random.default_rng(811)


def solved(problem):
    return ns.solve(problem.A, problem.b, ns.CG(), throw=False)


def grid_problem(cells, walls="dirichlet"):
    A = ns.PoissonStencil(ns.Grid(cells, spacing=0.5, walls=walls))
    return Problem("grid", A, rng.standard_normal(A.shape[0]), grid=A.grid)


def mesh_problem(kind="quad"):
    sides = (4, 6) if kind == "quad" else (3, 4, 5)
    mesh = grid_mesh(sides, [0.5] * len(sides), np.ones(np.prod(sides), dtype=bool))
    mesh = Mesh(mesh.points, mesh.cells, mesh.kind, {"boundary": boundary_nodes(mesh.cells, mesh.kind)})
    system = poisson(mesh, {"boundary": 0.0})
    return Problem("mesh", system.A, system.b, system=system)


def png_size(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n")
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def test_a_grid_shows_its_solution_over_solids_and_its_history():
    cells = np.zeros((8, 10), dtype=np.uint8)
    cells[2:4, 3:5], cells[7] = ns.SOLID, ns.AIR
    problem = grid_problem(cells)
    result = solved(problem)
    figure = plot.solution_figure(problem, result)
    field, history = figure.axes[:2]
    shown = field.images[-1].get_array()
    assert np.array_equal(shown.mask, cells != ns.FLUID)
    assert np.array_equal(shown.data, result.x.reshape(8, 10))
    assert field.images[-1].get_extent() == [0, 5, 0, 4]  # 10 x 8 cells of 0.5, x along the width
    assert (field.get_xlabel(), field.get_ylabel()) == ("x", "y")
    (line,) = history.lines
    assert np.allclose(line.get_ydata(), np.array(result.residual_norms) / result.residual_norms[0])
    assert history.get_yscale() == "log"
    assert history.get_xlabel() == "iteration"
    assert "80" in figure.get_suptitle()


def test_three_slices_pass_through_the_largest_value():
    problem = grid_problem(np.zeros((5, 6, 7), dtype=np.uint8))
    result = solved(problem)
    figure = plot.solution_figure(problem, result)
    u = result.x.reshape(5, 6, 7)
    largest = np.abs(u).max()
    panels = [axes for axes in figure.axes if axes.images]
    assert [panel.images[-1].get_array().shape for panel in panels] == [(6, 7), (5, 7), (5, 6)]
    assert all(np.abs(panel.images[-1].get_array()).max() == largest for panel in panels)
    assert [(p.get_xlabel(), p.get_ylabel()) for p in panels] == [("x", "y"), ("x", "z"), ("y", "z")]


def test_a_bare_matrix_shows_its_history_only():
    A = np.diag(np.linspace(1, 50, 30))
    problem = Problem("matrix", A, np.ones(30))
    result = solved(problem)
    (axes,) = plot.solution_figure(problem, result).axes
    assert len(axes.lines[0].get_xdata()) == result.iterations + 1


def test_signed_solutions_have_white_at_zero_and_others_use_the_full_range():
    signed, positive = np.linspace(-1, 3, 50), np.linspace(2, 3, 50)
    from neuralsolve.plot.solution import SIGNED, UNSIGNED, colour_scale

    norm, colours = colour_scale(signed)
    assert colours == SIGNED
    assert norm(0.0) == 0.5
    norm, colours = colour_scale(positive)
    assert colours == UNSIGNED
    assert (norm(2.0), norm(3.0)) == (0.0, 1.0)
    norm, _ = colour_scale(np.full(5, 4.0))
    assert norm(4.0) == 0.0
    with_a_peak = np.append(rng.random(20_000), 1e9)
    assert colour_scale(with_a_peak)[0].vmax < 10


@pytest.mark.parametrize("kind", ["quad", "hexahedron"])
def test_meshes_are_drawn_to_files(kind, tmp_path):
    problem = mesh_problem(kind)
    figure = plot.solution_figure(problem, solved(problem))
    plot.save(figure, tmp_path / "m.png")
    width, height = png_size(tmp_path / "m.png")
    assert min(width, height) > 400


def test_real_surfaces_are_drawn(tmp_path, data):
    for name in ("spot.obj", "skfem_annulus.msh"):
        problem = open_problem(data / "meshes" / name, rhs="random")
        plot.save(plot.solution_figure(problem, ns.solve(problem.A, problem.b)), tmp_path / f"{name}.png")
        assert min(png_size(tmp_path / f"{name}.png")) > 400


def test_files_are_replaced_only_on_demand(tmp_path):
    figure = plot.history_figure({"cg": [1.0, 0.1, 0.01], "none": [1.0, 0.5, 0.0]}, "two methods")
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["cg", "none"]
    target = tmp_path / "h.png"
    target.write_text("precious")
    with pytest.raises(FileExistsError):
        plot.save(figure, target)
    assert target.read_text() == "precious"
    plot.save(figure, target, overwrite=True)
    assert png_size(target)[0] > 400
    assert len(list(tmp_path.iterdir())) == 1


def row(**more):
    base = {"problem": "p", "n": 1000, "method": "cg", "ours": True, "converged": True, "iterations": 7}
    return base | {"setup_s": 0.5, "solve_s": 1.0} | more


def test_bars_have_the_lengths_of_the_times_and_misses_come_last():
    rows = [
        row(),
        row(method="slow", setup_s=3.0, ours=False),
        row(method="bad", setup_s=0.1, converged=False),
    ]
    figure = plot.bench_figure([*rows, row(problem="q")])
    first, second = figure.axes
    widths = [bar.get_width() for bar in first.patches]
    assert widths == [0.5, 1.0, 3.0, 1.0, 0.1, 1.0]
    assert [text.get_text() for text in first.get_yticklabels()] == ["cg", "slow", "bad"]
    assert any("NOT converged" in text.get_text() for text in first.texts)
    assert first.get_title(loc="left") == "p, n = 1,000"
    assert second.get_title(loc="left") == "q, n = 1,000"
    assert "seconds" in second.get_xlabel()


def test_measures_show_what_is_within_its_bar():
    rows = [
        {"measure": "product", "value": 0.2, "bar": 0.25, "unit": "x"},
        {"measure": "import", "value": 0.6, "bar": 0.3, "unit": "s"},
    ]
    (axes,) = plot.measures_figure(rows).axes
    assert [bar.get_width() for bar in axes.patches] == [0.8, 2.0]
    within, short = (bar.get_facecolor() for bar in axes.patches)
    assert within != short


def test_smoke_shows_its_frames_and_the_solvers(tmp_path):
    result = simulate(SmokeCase(shape=(16, 16), steps=4, frames=2, obstacle="sphere"))
    figure = plot.smoke_figure(result)
    assert [axes.get_title() for axes in figure.axes[:2]] == [f"t = {time:.2f}" for time, _ in result.frames]
    bars = figure.axes[2].patches
    assert [bar.get_width() for bar in bars] == [t["median_ms"] for t in result.timings.totals()]
    assert (
        len(plot.smoke_figure(simulate(SmokeCase(shape=(16, 16), steps=1, frames=1), compare=False)).axes)
        == 1
    )
    plot.save(figure, tmp_path / "s.png")
    assert min(png_size(tmp_path / "s.png")) > 300


def test_pictures_need_no_display_and_no_pyplot():
    code = "import sys, neuralsolve.plot; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_the_title_of_a_smoke_picture_fits_into_it(steps):
    result = simulate(SmokeCase(shape=(16, 16), steps=steps, obstacle="sphere"), compare=False)
    figure = plot.smoke_figure(result)
    figure.draw_without_rendering()
    title = figure._suptitle.get_window_extent()
    assert figure.bbox.x0 <= title.x0
    assert title.x1 <= figure.bbox.x1
