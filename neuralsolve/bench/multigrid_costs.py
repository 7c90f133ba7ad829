"""What else multigrid costs: a new A on the same grid, several right sides, memory."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import numpy as np

from neuralsolve.bench.bars import BarRow, Bars, Settings, listed, named, row
from neuralsolve.bench.clock import settle, timed
from neuralsolve.bench.footprint import vectors_of_a_solve
from neuralsolve.bench.rivals import stencil_system
from neuralsolve.operators.coefficients import face_coefficients
from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.pde.scenes import free_surface, inclusions
from neuralsolve.preconditioners.multigrid import Multigrid
from neuralsolve.solvers.krylov import CG
from neuralsolve.solvers.prepared import Prepared
from neuralsolve.solvers.solve import prepare

RTOL = 1e-8
COLUMNS = 8


def updates(settings: Settings) -> Iterator[BarRow]:
    """Yield `update(A_next)` over the first `prepare`, for a new mask and for new coefficients."""
    shape, seeds = settings.cells(128, 128, 128), settings.seeds(3)
    for what, make in (("new mask", _mask), ("new coefficients", _balls)):
        shares, first, following = [], [], []
        _prepare(make(shape, seeds[0])).update(make(shape, seeds[-1]))  # compiles
        for seed in seeds:
            firsts, nexts = [], []
            for _ in range(settings.repeats):
                A, A_next = make(shape, seed), make(shape, seed + 500)  # neither is charged
                settle()
                seconds, prepared = timed(lambda A=A: _prepare(A))
                firsts.append(seconds)
                nexts.append(timed(lambda p=prepared, A=A_next: p.update(A))[0])
            first.append(statistics.median(firsts))
            following.append(statistics.median(nexts))
            shares.append(following[-1] / first[-1])
        yield row(
            "updates",
            f"{what}, {named(shape)}",
            "update / first set-up",
            "x",
            Bars(0.5),
            shares,
            setup_s=statistics.median(following),
            baseline="first set-up",
            baseline_s=statistics.median(first),
            repeats=settings.repeats,
            seeds=listed(seeds),
            note="times of prepare and of update, A made beforehand",
        )


def right_sides(settings: Settings) -> Iterator[BarRow]:
    """Yield the time of one of eight right sides over that of a single one."""
    for full in ((512, 512), (64, 64, 64), (128, 128, 128)):
        shape, seeds = settings.cells(*full), settings.seeds(1)
        A = _mask(shape, seeds[0])
        B = np.random.default_rng(seeds[0] + 500).standard_normal((A.shape[0], COLUMNS))
        b = B[:, 0].copy()
        result = _prepare(A).solve(B)
        times: dict[str, list[float]] = {name: [] for name in ("set-up", "one", "eight")}
        for _ in range(settings.repeats):
            settle()
            seconds, prepared = timed(lambda shape=shape, seed=seeds[0]: _prepare(_mask(shape, seed)))
            times["set-up"].append(seconds)
            times["one"].append(timed(lambda p=prepared, b=b: p.solve(b))[0])
            seconds, result = timed(lambda p=prepared, B=B: p.solve(B))
            times["eight"].append(seconds)
        system = stencil_system("columns", A, b)
        size = np.linalg.norm(B[system.active], axis=0)
        left = np.linalg.norm(B[system.active] - system.matrix @ result.x[system.active], axis=0)
        setup, one, eight = (statistics.median(times[name]) for name in ("set-up", "one", "eight"))
        for part, charged in (("set-up and solve", setup), ("solve", 0.0)):
            yield row(
                "right_sides",
                f"masked {named(shape)}, {COLUMNS} right sides",
                f"{part} per right side / of a single one",
                "x",
                Bars(0.6),
                [(charged + eight) / COLUMNS / (charged + one)],
                setup_s=setup,
                solve_s=eight,
                baseline="one right side",
                baseline_s=charged + one,
                iterations=result.iterations,
                residual=float((left / size).max()),
                repeats=settings.repeats,
                seeds=listed(seeds),
            )


def memory(settings: Settings) -> Iterator[BarRow]:
    """Yield the vectors held at most by A, set-up and solve, beyond x, b and the cells."""
    side = settings.cells(128)[0]
    # blocks that live too short may be missed: the largest of several counts
    counts = [vectors_of_a_solve(side, True, "ns.CG()", "ns.Multigrid()", count_A=True) - 1 for _ in range(3)]
    what = "largest amount held at once, set-up and A's own 16 bits a cell included; a new process"
    yield row(
        "memory",
        f"masked {side}^3",
        "memory beyond x and b",
        "vectors",
        Bars(14, 9),
        [max(counts)],
        note=what,
        repeats=3,
    )


def _prepare(A: PoissonStencil) -> Prepared:
    return prepare(A, CG(), M=Multigrid(), rtol=RTOL)


def _mask(shape: tuple[int, ...], seed: int) -> PoissonStencil:
    return PoissonStencil(free_surface(shape, np.random.default_rng(seed)))


def _balls(shape: tuple[int, ...], seed: int) -> PoissonStencil:
    grid = Grid(shape, walls="dirichlet")
    return PoissonStencil(
        grid, face_coefficients(inclusions(shape, np.random.default_rng(seed), 100.0), grid)
    )
