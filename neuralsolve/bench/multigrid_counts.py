"""How many iterations multigrid takes: by size, contrast and anisotropy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, named, row
from neuralsolve.bench.baselines import SLACK
from neuralsolve.bench.rivals import stencil_system
from neuralsolve.operators.coefficients import face_coefficients
from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.pde.scenes import free_surface, inclusions
from neuralsolve.preconditioners.multigrid import Multigrid
from neuralsolve.solvers.krylov import CG
from neuralsolve.solvers.solve import prepare

# iterations on free surfaces, white noise, relative 1e-6: must and aim, and geometries
BY_SIZE = {
    (64, 64): (Bars(8, 6), 20),
    (512, 512): (Bars(13, 8), 20),
    (64, 64, 64): (Bars(11, 8), 10),
    (96, 96, 96): (Bars(12, 8), 10),
}
GROWTH = ((64, 64), (1024, 1024), 10), ((32, 32, 32), (128, 128, 128), 5)


@dataclass(frozen=True)
class Count:
    """Iterations of a solve, infinitely many where it missed the tolerance, and its true residual."""

    iterations: float
    residual: float


def count(A: PoissonStencil, b: np.ndarray, rtol: float) -> Count:
    """Solve and recompute the residual from the assembled matrix."""
    result = prepare(A, CG(), M=Multigrid(), rtol=rtol).solve(b, throw=False)
    residual = stencil_system("count", A, b).residual(np.asarray(result.x))
    return Count(result.iterations if residual <= SLACK * rtol else math.inf, residual)


def iterations(settings: Settings) -> Iterator[BarRow]:
    """Yield iterations on free surfaces of four sizes."""
    for full, (bars, geometries) in BY_SIZE.items():
        shape, seeds = settings.cells(*full), settings.seeds(geometries)
        counts = [_free_surface(shape, seed, 1e-6) for seed in seeds]
        yield _row("iterations", f"masked {named(shape)}", 1e-6, bars, counts, seeds)


def growth(settings: Settings) -> Iterator[BarRow]:
    """Yield iterations on a fine grid over those on a coarse one, of the same geometry."""
    for coarse, fine, geometries in GROWTH:
        seeds = settings.seeds(geometries)
        few, many = (
            [_free_surface(settings.cells(*shape), seed, 1e-6) for seed in seeds] for shape in (coarse, fine)
        )
        problem = f"masked {named(settings.cells(*coarse))} to {named(settings.cells(*fine))}"
        yield _ratio("growth", problem, "growth of iterations", Bars(1.5, 1.15), many, few, seeds, 1e-6)


def contrast(settings: Settings) -> Iterator[BarRow]:
    """Yield iterations with balls and boxes of another coefficient over those without."""
    for full in ((256, 256), (64, 64, 64)):
        shape, seeds = settings.cells(*full), settings.seeds(5)
        plain = [_inclusions(shape, seed, 1.0) for seed in seeds]
        for jump in (1e4, 1e6):
            counts = [_inclusions(shape, seed, jump) for seed in seeds]
            problem = f"12 inclusions of {jump:.0e}, {named(shape)}".replace("e+0", "e")
            yield _ratio(
                "contrast", problem, "iterations / contrast 1", Bars(2.5, 1.5), counts, plain, seeds, 1e-8
            )


def anisotropy(settings: Settings) -> Iterator[BarRow]:
    """Yield iterations on cells a hundred times as long as wide."""
    shape, seeds = settings.cells(256, 256), settings.seeds(5)
    for spacing in ((1.0, 100.0), (100.0, 1.0)):
        for scene in ("Dirichlet box", "masked"):
            counts = []
            for seed in seeds:
                generator = np.random.default_rng(seed)
                grid = Grid(shape, spacing, walls="dirichlet")
                if scene == "masked":
                    grid = Grid(free_surface(shape, generator).cells.numpy(), spacing, walls="neumann")
                counts.append(count(PoissonStencil(grid), generator.standard_normal(grid.size), 1e-8))
            problem = f"{scene} {named(shape)}, spacing {spacing[0]:g} : {spacing[1]:g}"
            yield _row("anisotropy", problem, 1e-8, Bars(20, 12), counts, seeds)


def _free_surface(shape: tuple[int, ...], seed: int, rtol: float) -> Count:
    generator = np.random.default_rng(seed)
    A = PoissonStencil(free_surface(shape, generator))
    return count(A, generator.standard_normal(A.shape[0]), rtol)


def _inclusions(shape: tuple[int, ...], seed: int, jump: float) -> Count:
    generator, grid = np.random.default_rng(seed), Grid(shape, walls="dirichlet")
    A = PoissonStencil(grid, face_coefficients(inclusions(shape, generator, jump), grid))
    return count(A, generator.standard_normal(A.shape[0]), 1e-8)


def _row(
    group: str, problem: str, rtol: float, bars: Bars, counts: Sequence[Count], seeds: Sequence[int]
) -> BarRow:
    values = [each.iterations for each in counts]
    return row(
        group,
        problem,
        f"iterations to {rtol:g}",
        "its",
        bars,
        values,
        iterations=statistics.median(values),
        residual=max(each.residual for each in counts),
        seeds=listed(seeds),
        note=_missed(counts, rtol),
    )


def _ratio(
    group: str,
    problem: str,
    quantity: str,
    bars: Bars,
    counts: Sequence[Count],
    few: Sequence[Count],
    seeds: Sequence[int],
    rtol: float,
) -> BarRow:
    # where the easy problem is missed there is nothing to compare with
    pairs = [(a.iterations, b.iterations) for a, b in zip(counts, few, strict=True)]
    values = [a / b if b < math.inf else math.inf for a, b in pairs]
    ours, other = (", ".join(f"{each.iterations:g}" for each in some) for some in (counts, few))
    missed = _missed([*counts, *few], rtol)
    return row(
        group,
        problem,
        quantity,
        "x",
        bars,
        values,
        iterations=statistics.median(each.iterations for each in counts),
        residual=max(each.residual for each in (*counts, *few)),
        seeds=listed(seeds),
        note=f"to {rtol:g}: {ours} over {other}" + (f"; {missed}" if missed else ""),
    )


def _missed(counts: Sequence[Count], rtol: float) -> str:
    missed = sum(each.iterations == math.inf for each in counts)
    return f"{missed} of {len(counts)} missed {rtol:g}" if missed else ""
