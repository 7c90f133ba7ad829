"""Pictures of solutions on grids and meshes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from neuralsolve.io import Mesh
from neuralsolve.io.mesh import outer_facets
from neuralsolve.operators.grid import AIR, FLUID, SOLID, Grid
from neuralsolve.plot.style import INK, draw_history, new_figure, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from neuralsolve.cases import Problem
    from neuralsolve.solvers.result import SolveResult

SIGNED, UNSIGNED = "RdBu_r", "viridis"
_LIGHT = np.array([0.35, 0.75, 0.55])  # right, up, towards the viewer


def solution_figure(problem: Problem, result: SolveResult) -> Figure:
    """Return the solution on its grid or mesh beside the residual history; of a bare matrix only that."""
    x = np.asarray(result.x)
    u = problem.field(x if x.ndim == 1 else x[:, 0])
    history = len(result.residual_norms) > 2
    if problem.grid is None and problem.system is None:
        figure = new_figure(5.6, 3.9)
        draw_history(figure.add_subplot(), result.residual_norms)
    elif problem.grid is not None and len(problem.grid.shape) == 3:
        figure = new_figure(14.2 if history else 10.6, 3.8)
        axes = figure.subplots(1, 4 if history else 3)
        _slices(figure, axes[:3], u, problem.grid)
        if history:
            draw_history(axes[3], result.residual_norms)
    else:
        figure = _field_and_history(problem, u, result.residual_norms if history else None)
    status = "converged" if result.converged else f"not converged ({result.status.name})"
    steps = "1 iteration" if result.iterations == 1 else f"{result.iterations} iterations"
    line = f"{steps}, {status}; n = {len(x):,}"
    figure.suptitle(f"{problem.name}\n{line}", fontsize=10, color=INK)
    return figure


def _field_and_history(problem: Problem, u: np.ndarray, norms: Sequence[float] | None) -> Figure:
    """Lay the two panels side by side, or one above the other where the domain is long."""
    low, high = _extent(problem)
    ratio = (high[0] - low[0]) / max(high[1] - low[1], 1e-300)
    wide = bool(ratio > 2.2)
    strip = 1.0 + 8.2 / ratio if wide else 0.0  # inches: its labels and colour bar, and its own height
    if wide:
        figure = new_figure(9.0, 0.6 + strip + (2.6 if norms else 0.0))
    else:
        figure = new_figure(10.4 if norms else 5.8, 4.6)
    if norms is None:
        axes, beside = figure.add_subplot(), None
    elif wide:
        axes, beside = figure.subplots(2, 1, height_ratios=[strip, 2.6])
    else:
        axes, beside = figure.subplots(1, 2, width_ratios=[1.25, 1.0])
    if problem.grid is not None:
        image = _image(axes, u.reshape(problem.grid.shape), problem.grid)
    else:
        image = _mesh(axes, problem.system.mesh, u)  # type: ignore[union-attr]
    _colour_bar(figure, image, axes, below=wide)
    if beside is not None and norms is not None:
        draw_history(beside, norms)
    return figure


def _extent(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    if problem.system is None and problem.grid is not None:
        sides = [n * h for n, h in zip(problem.grid.shape, problem.grid.spacing, strict=True)]
        return np.zeros(2), np.array(sides[::-1])
    points = problem.system.mesh.points if problem.system is not None else np.zeros((1, 2))
    return points.min(axis=0), points.max(axis=0)


def colour_scale(values: np.ndarray, signed: bool | None = None) -> tuple[Any, str]:
    """Return norm and colour map: diverging about zero where both signs matter; lone peaks are cut off.

    `signed` says of both signs whether they matter, for several panels that are to have one map.
    """
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    if len(values) > 1000:
        bulk = np.quantile(values, [0.001, 0.999])
        low, high = max(low, 5 * bulk[0] - 4 * bulk[1]), min(high, 5 * bulk[1] - 4 * bulk[0])
    matter = low < 0 < high and min(-low, high) > 0.05 * max(-low, high)
    if matter if signed is None else signed:
        size = max(abs(low), abs(high)) or 1.0
        return TwoSlopeNorm(0.0, -size, size), SIGNED
    return Normalize(low, high if high > low else low + 1.0), UNSIGNED


def _colour_bar(figure: Figure, image: Any, axes: Any, below: bool = False) -> None:
    place: dict[str, Any] = {"location": "bottom", "aspect": 50, "shrink": 0.6} if below else {"shrink": 0.85}
    bar = figure.colorbar(image, ax=axes, pad=0.02, **place)
    bar.set_label("solution u", fontsize=8, color=INK)
    bar.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]
    bar.ax.yaxis.get_offset_text().set_fontsize(7)
    bar.ax.tick_params(labelsize=7, colors=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _image(axes: Axes, u: np.ndarray, grid: Grid) -> Any:
    cells = grid.cells.numpy()
    norm, colours = colour_scale(u[cells == FLUID])
    image = _panel(axes, u, cells, grid.spacing, norm, colours)
    axes.set_xlabel("x", fontsize=8)
    axes.set_ylabel("y", fontsize=8)
    return image


def _panel(
    axes: Axes, u: np.ndarray, cells: np.ndarray, spacing: Sequence[float], norm: Any, colours: str
) -> Any:
    """Draw one plane of cells: solids dark, air pale."""
    extent = (0, u.shape[1] * spacing[1], 0, u.shape[0] * spacing[0])
    backdrop = np.where(cells == SOLID, 0.38, 0.93)
    if (cells == SOLID).any() or (cells == AIR).any():
        axes.imshow(backdrop, origin="lower", extent=extent, cmap="gray", vmin=0, vmax=1)
    shown = np.ma.masked_array(u, cells != FLUID)
    image = axes.imshow(shown, origin="lower", extent=extent, norm=norm, cmap=colours)
    axes.tick_params(labelsize=7, colors=INK)
    return image


def _slices(figure: Figure, panels: Any, u: np.ndarray, grid: Grid) -> None:
    """Draw the three planes through the cell where the solution is largest."""
    field, cells = u.reshape(grid.shape), grid.cells.numpy()
    norm, colours = colour_scale(field[cells == FLUID])
    largest = np.unravel_index(np.abs(np.where(cells == FLUID, field, 0)).argmax(), grid.shape)
    image = None
    for axis, axes in enumerate(panels):
        middle = int(largest[axis])
        rows, columns = (name for i, name in enumerate("zyx") if i != axis)
        spacing = [h for i, h in enumerate(grid.spacing) if i != axis]
        plane, mask = np.take(field, middle, axis), np.take(cells, middle, axis)
        image = _panel(axes, plane, mask, spacing, norm, colours)
        axes.set_title(f"{'zyx'[axis]} = {(middle + 0.5) * grid.spacing[axis]:.3g}", fontsize=9, color=INK)
        axes.set_xlabel(columns, fontsize=8)
        axes.set_ylabel(rows, fontsize=8)
    _colour_bar(figure, image, panels)


def _mesh(axes: Axes, mesh: Mesh, u: np.ndarray) -> Any:
    norm, colours = colour_scale(u)
    if mesh.points.shape[1] == 3:
        image = _shaded(axes, mesh, u, norm, colours)
    else:
        triangles = mesh.cells if mesh.kind == "triangle" else _halves(mesh.cells)
        flat = Triangulation(mesh.points[:, 0], mesh.points[:, 1], triangles)
        image = axes.tripcolor(flat, u, norm=norm, cmap=colours, shading="gouraud")
        edges = outer_facets(mesh.cells, mesh.kind)
        axes.add_collection(LineCollection(mesh.points[edges].tolist(), colors=INK, linewidths=0.7))
        axes.set_xlabel("x", fontsize=8)
        axes.set_ylabel("y", fontsize=8)
        axes.autoscale_view()
        plain_axes(axes)
    axes.set_aspect("equal")
    return image


def _halves(quads: np.ndarray) -> np.ndarray:
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _shaded(axes: Axes, mesh: Mesh, u: np.ndarray, norm: Any, colours: str) -> Any:
    """Draw a surface, or a solid cut open, seen from the front right and above; far faces first."""
    right, up, ahead = _view()
    if mesh.surface:  # surfaces stand on y, solids on z
        points, faces = mesh.points, mesh.cells
    else:
        points = mesh.points[:, [1, 2, 0]]
        towards = points[mesh.cells].mean(axis=1) @ (ahead * [1, 0, 1])
        faces = outer_facets(mesh.cells[towards <= np.median(towards)], mesh.kind)
    triangles = _halves(faces) if faces.shape[1] == 4 else faces
    corners = points[triangles]
    depth = (corners.mean(axis=1) @ ahead).argsort()
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-300
    normals *= np.where(normals @ ahead < 0, -1, 1)[:, None]  # whichever way a file turns its faces
    lamp = np.stack([right, up, ahead], axis=1) @ (_LIGHT / np.linalg.norm(_LIGHT))
    image = axes.scatter([], [], c=[], norm=norm, cmap=colours)
    shade = image.to_rgba(u[triangles].mean(axis=1))
    shade[:, :3] *= (0.45 + 0.55 * np.clip(normals @ lamp, 0, 1))[:, None]
    flat = corners @ np.stack([right, up], axis=1)
    patches = list(flat[depth])
    axes.add_collection(PolyCollection(patches, facecolors=shade[depth], edgecolors="face", linewidths=0.2))
    low, high = flat.min(axis=(0, 1)), flat.max(axis=(0, 1))
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_axis_off()
    return image


def _view(azimuth: float = 25.0, elevation: float = 18.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the directions right, up and towards the viewer; y stands upright."""
    a, e = np.radians(azimuth), np.radians(elevation)
    ahead = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    right = np.array([np.cos(a), 0.0, -np.sin(a)])
    return right, np.cross(ahead, right), ahead
