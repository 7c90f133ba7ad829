"""Geometric multigrid on a GPU: launches that do several passes, whole cycles, and no read by the host."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from kernel_laws import normal
from recipe_laws import box_2d, masked_2d, masked_3d, odd_periodic_2d
from simulated_gpu import CUDA, Device, gpu

import neuralsolve as ns
from neuralsolve.kernels import reference, table, use
from neuralsolve.kernels.reference.padded import inside
from neuralsolve.preconditioners.levels import Level, build

pytest.importorskip("triton")

import triton
import triton.language as tl

from neuralsolve.kernels.gpu import smoothing, transfers
from neuralsolve.kernels.gpu.box import beside
from neuralsolve.kernels.gpu.launch import launch

__all__ = ["gpu"]  # a fixture
F32 = torch.float32
EPS = torch.finfo(F32).eps
THERE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def flattened() -> ns.PoissonStencil:
    """Return a box of two planes, whose second level has one, and of lines of more than one tile."""
    return ns.PoissonStencil(ns.Grid((2, 5, 19), walls=("periodic", "periodic", "dirichlet")))


def wrapping() -> ns.PoissonStencil:
    """Return a box with two odd sides that wrap."""
    return ns.PoissonStencil(ns.Grid((3, 4, 5), walls="periodic"))


def conducting(contrast: float = 1e4) -> ns.PoissonStencil:
    """Return a singular system with two regions that hardly anything couples to the rest."""
    values = np.ones((9, 10))
    values[1:4, 2:5] = values[6:8, 5:9] = contrast
    grid = ns.Grid((9, 10))
    return ns.PoissonStencil(grid, ns.face_coefficients(values, grid))


def random_on(level: Level, generator: torch.Generator) -> torch.Tensor:
    """Return a random vector of a level, zero around the box and where no cell takes part."""
    v = torch.zeros(level.plan.size, dtype=F32)
    inside(v, level.plan.shape).copy_(normal(generator, *level.plan.shape))
    return torch.where(level.inverse != 0, v, 0.0)


@pytest.mark.parametrize("scene", [masked_3d, flattened, wrapping, odd_periodic_2d])
def test_a_launch_does_what_passes_do_one_by_one(scene, generator, monkeypatch):
    """Residual and restriction; correction, a step and the next; two steps from zero; walls that wrap."""
    monkeypatch.setattr("neuralsolve.kernels.gpu.launch.LARGEST_BLOCK", 16)
    h = build(scene(), coarsest=4)
    (fine, coarse), around, shape = h.levels[:2], h.periodic, h.levels[0].plan.shape
    b, x, e = random_on(fine, generator), random_on(fine, generator), random_on(coarse, generator)
    transfer = fine.weights, shape, fine.plan.factors, coarse.plan.shape
    matrix = fine.inverse, h.scale, fine.faces, shape

    def wrapped(v: torch.Tensor, level: Level) -> torch.Tensor:
        v = v.clone()
        reference.level_wrap(v, level.plan.shape, around)
        return v

    def relaxed(x: torch.Tensor, step: tuple[float, float], past: torch.Tensor) -> torch.Tensor:
        out = past.clone()
        reference.level_relax(b, *matrix, step, wrapped(x, fine), out)
        return out

    def close(got: torch.Tensor, expected: torch.Tensor, level: Level) -> None:
        of_cells = [inside(v.cpu(), level.plan.shape) for v in (got, expected)]
        torch.testing.assert_close(*of_cells, rtol=0.0, atol=32 * EPS * float(of_cells[1].abs().max()))

    nothing, below = torch.zeros_like(x), torch.zeros(coarse.plan.size, dtype=F32)
    r, corrected = torch.zeros_like(x), x.clone()
    reference.level_residual(b, *matrix, wrapped(x, fine), r)
    reference.level_restrict(wrapped(r, fine), *transfer, 1.3, below)
    reference.level_prolong(wrapped(e, coarse), *transfer, corrected)
    first = relaxed(corrected, (0.7, 0.0), nothing)
    second = relaxed(first, (0.6, 0.3), corrected)
    start = relaxed(relaxed(nothing, (0.7, 0.0), nothing), (0.6, 0.3), nothing)

    b_, x_, e_, w_, d_, faces_ = (v.to(THERE) for v in (b, x, e, fine.weights, fine.inverse, fine.faces))
    got, out = below.to(THERE).zero_(), [x_.clone() for _ in range(3)]
    ends = tuple(transfers.WRAPS if p else transfers.WALLS for p in around)
    transfers.restrict(x_, w_, *transfer[1:], 1.3, got, ends, (b_, d_, h.scale, faces_))
    close(got, below, coarse)
    given, correction = (b_, d_, h.scale, faces_, shape), (e_, w_, fine.plan.factors, coarse.plan.shape)
    smoothing.relax(*given, (0.7, 0.0), x_, out[0], smoothing.NO_PAST, around, below=correction)
    close(out[0], first, fine)
    smoothing.relax(*given, (0.6, 0.3), out[0], out[1], smoothing.CORRECTED_PAST, around, below=correction)
    close(out[1], second, fine)
    smoothing.relax(*given, (0.6, 0.3), b_, out[2], smoothing.ZERO_PAST, around, started=(d_, 0.7))
    close(out[2], start, fine)


CYCLES = [
    pytest.param(ns.Multigrid(coarsest=20), masked_3d, True, id="W masked_3d"),
    pytest.param(
        ns.Multigrid(coarsest=20), conducting, False, id="W conductors, passes", marks=pytest.mark.slow
    ),
    pytest.param(ns.Multigrid(coarsest=30), conducting, True, id="W conductors"),
    pytest.param(
        ns.Multigrid("F", "red-black", (1, 2), coarsest=6),
        odd_periodic_2d,
        True,
        id="F red-black",
        marks=pytest.mark.slow,
    ),
    pytest.param(ns.Multigrid("full", sweeps=(0, 3), coarsest=6), box_2d, True, id="full"),
    pytest.param(ns.Multigrid("V", sweeps=3, coarsest=20), masked_2d, False, id="V three steps, passes"),
    pytest.param(ns.Multigrid("V", "jacobi", 1, coarsest=20), masked_2d, True, id="V one step"),
    pytest.param(ns.NeuralMultigrid(coarsest=20), masked_2d, True, id="learned"),
    pytest.param(ns.Multigrid(), masked_2d, True, id="one level"),
]


@pytest.mark.parametrize(("recipe", "scene", "fused"), CYCLES)
def test_a_moved_cycle_is_the_cycle_and_reads_nothing(gpu: Device, recipe, scene, fused, monkeypatch):
    if not fused:
        monkeypatch.setattr("neuralsolve.kernels.gpu.cycle.FUSED", 0)
    A = scene()
    r = normal(torch.Generator().manual_seed(8219), A.shape[0], 2)
    M = recipe.build(A)
    assert (scene is conducting) <= (int(M._hierarchy.table[0, -1]) == 2)  # conductors
    expected = M.apply(r)
    there = (1e-250 * r).to(CUDA)
    moved = M.to(CUDA)
    before, reads = moved._hierarchy.table.clone(), gpu.reads
    out = moved.apply(there)
    assert gpu.reads == reads
    assert torch.equal(moved._hierarchy.table, before)
    z = 1e250 * out.cpu()
    torch.testing.assert_close(z, expected, rtol=0.0, atol=1e-5 * float(expected.abs().max()))
    assert moved.symmetric == M.symmetric
    if M.symmetric:
        E = r.T @ z
        assert float((E - E.T).abs().max()) <= 1e-5 * float(E.abs().max())
        assert float(torch.linalg.eigvalsh(E).min()) > 0
    assert moved.describe() == M.describe()


@pytest.mark.parametrize("shape", [(1, 1 << 22), (1 << 22, 1)], ids=["to columns", "to rows"])
def test_long_vectors_are_turned_within_the_limits_of_a_grid(monkeypatch, shape):
    """CUDA takes at most 65535 programs along the second axis and the third."""
    grids = []
    monkeypatch.setattr("neuralsolve.kernels.gpu.launch._start", lambda kernel, grid, *_: grids.append(grid))
    with use("gpu") as room:
        room.transposed_copy(torch.empty(shape, dtype=F32), torch.empty(shape[::-1], dtype=F32))
    assert all(side <= 65535 for grid in grids for side in grid[1:])
    assert grids


def test_a_recorded_cycle_is_one_of_the_vector_that_is_there(gpu: Device):
    A = box_2d()
    first, second = normal(torch.Generator().manual_seed(8221), 2, A.shape[0])
    M = ns.Multigrid("V", sweeps=(1, 2), coarsest=20).build(A)
    moved, r = M.to(CUDA), first.to(CUDA)
    out = torch.empty_like(r)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        moved.apply(r, out)
    r.copy_(second)
    graph.replay()
    expected = M.apply(second)
    torch.testing.assert_close(out.cpu(), expected, rtol=0.0, atol=1e-5 * float(expected.abs().max()))


@triton.jit
def _offsets(out, side, stride):
    low, high = beside(tl.program_id(0), side, stride)
    tl.store(out, low)
    tl.store(out + 1, high)


@pytest.mark.parametrize(("side", "stride"), [(3, 1 << 30), (1, 7), (5, 1)])
def test_offsets_round_large_boxes_are_no_overflow(side, stride):
    out = torch.zeros(2, dtype=torch.int64, device=THERE)
    launch(_offsets, (1,), out, side, stride)
    assert out.tolist() == [(side - 1) * stride, stride if side > 1 else 0]


def test_grids_of_all_sizes_share_the_programs_that_scale(gpu: Device, monkeypatch):
    """What is compiled for a vector's largest entry does not depend on how many blocks it has."""
    started, start = [], gpu.start

    def noting(kernel: Any, grid: Any, arguments: Any, constants: dict[str, Any]) -> None:
        started.append((kernel.fn.__name__, tuple(constants.items())))
        start(kernel, grid, arguments, constants)

    monkeypatch.setattr("neuralsolve.kernels.gpu.launch._start", noting)
    for shape in ((1, 64, 70), (1, 64, 100)):
        v, out = (
            torch.ones(n, dtype=t).to(CUDA) for n, t in ((math.prod(shape), torch.float64), (9000, F32))
        )
        table(CUDA).level_load_scaled(v, shape, out, torch.ones((), dtype=torch.float64).to(CUDA))
    tops = {constants for name, constants in started if name == "_tops"}
    assert len(tops) == 1


@pytest.mark.slow
def test_cg_takes_as_many_iterations_there(gpu: Device):
    A = masked_2d()
    b = A @ normal(torch.Generator().manual_seed(8237), A.shape[0])
    M = ns.Multigrid("V", coarsest=20)
    expected = ns.solve(A, b, ns.CG(), M=M, rtol=1e-4)
    result = ns.solve(A.to("cuda:0"), b.to(CUDA), ns.CG(), M=M, rtol=1e-4)
    assert result.converged
    assert abs(result.iterations - expected.iterations) <= 1
    assert (b - A @ result.x.cpu()).norm() <= 1.01e-4 * b.norm()


def test_an_updated_moved_cycle_is_the_next_one(gpu: Device):
    recipe = ns.Multigrid("V", sweeps=1, coarsest=30)
    M = recipe.build(conducting())
    moved, A_next = M.to(CUDA), conducting(3.0)
    moved.update(A_next)
    r = normal(torch.Generator().manual_seed(8231), A_next.shape[0])
    expected = recipe.build(A_next).apply(r)
    torch.testing.assert_close(
        moved.apply(r.to(CUDA)).cpu(), expected, rtol=0.0, atol=1e-5 * float(expected.abs().max())
    )


@pytest.mark.parametrize("dtype", [torch.float64, F32], ids=["f64", "f32"])
def test_a_vector_is_brought_into_the_range_of_single_precision(every_room, dtype):
    """By a power of two: nothing is lost that float32 holds, and no size of v is too large or too small."""
    shape = (3, 4, 5)
    tops = [1.0, 3e-300, 7e300, 2.0**40, 0.0, float("inf"), float("nan")]
    for top in tops if dtype == torch.float64 else [1.0, 3e-30, 0.0]:
        v = normal(torch.Generator().manual_seed(8233), 60).to(dtype)
        v *= 0.5 / v.abs().max()
        v[41] = 1.0
        v *= top
        out, size = torch.zeros(5 * 6 * 7, dtype=F32), torch.zeros((), dtype=torch.float64)
        every_room.level_load_scaled(v, shape, out, size)
        if not np.isfinite(top):
            assert float(size) == 1.0
            continue
        assert np.frexp(float(size))[0] == 0.5
        if top:
            assert abs(float(v[41])) < float(size) <= 2 * abs(float(v[41]))
        assert torch.equal(inside(out, shape).reshape(-1), (v.double() / size).float())
        back = torch.zeros_like(v)
        every_room.level_store_scaled(out, size, 1.0, shape, back)
        torch.testing.assert_close(back, v, rtol=EPS, atol=0.0)


def test_many_runs_of_conductors_are_summed(every_room, generator):
    """Runs of 1 to 40 cells and edges, more than a block of each, against sums over a dense Z."""
    lengths, k, e = torch.arange(1, 41), 5, 70
    ends = (lengths + 1).cumsum(0)
    of = torch.randint(k, (40,), generator=generator)
    runs = torch.stack([of, ends - lengths, ends]).int()
    n = int(ends[-1]) + 1
    b, x = normal(generator, n, dtype=F32), normal(generator, n, dtype=F32)
    here, there = torch.randint(n, (2, e), generator=generator)
    own = torch.randint(k, (e,), generator=generator)
    there[::7] = -1
    g, E = normal(generator, e, dtype=F32).abs(), normal(generator, k, k, dtype=F32)
    Z = torch.zeros((n, k), dtype=torch.float64)
    for c, begin, end in runs.T.tolist():
        Z[begin:end, c] = 1
    beyond = torch.where(there >= 0, x[there.clamp(min=0)], 0.0)
    flows = torch.zeros(k, dtype=torch.float64).index_add_(0, own, (g * (x[here] - beyond)).double())
    expected = x.double() + Z @ (E.double() @ (Z.T @ b.double() - flows))
    every_room.conductor_correct(b, runs, torch.stack([own, here, there]).int(), g, E, x)
    torch.testing.assert_close(x.double(), expected, rtol=0.0, atol=16 * EPS * float(expected.abs().max()))


def test_set_up_says_where_it_runs():
    with use("gpu"), pytest.raises(ns.OptionError, match="runs on the CPU alone"):
        ns.Multigrid().build(box_2d())
