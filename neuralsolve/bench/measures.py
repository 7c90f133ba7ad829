"""The package's own measures of speed and memory: ratios to a baseline of the same run, and their bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from neuralsolve.bench.clock import interleaved
from neuralsolve.bench.footprint import compile_seconds, import_seconds, vectors_of_a_solve
from neuralsolve.operators.convert import as_operator
from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.pde.scenes import free_surface
from neuralsolve.preconditioners.incomplete import IncompleteCholesky
from neuralsolve.solvers.fast_poisson import FastPoisson
from neuralsolve.solvers.krylov import CG
from neuralsolve.solvers.solve import prepare

SEED = 1906
STEPS = (5, 35)  # iterations of the two runs whose difference gives the time of one
# CG with MIC(0) on free-surface scenes, white noise, relative 1e-6: iterations measured elsewhere, one scene
MIC_ITERATIONS = {(256, 256): 141, (64, 64, 64): 58}


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes
    ----------
    measure : str
    value : what is compared with the bar, in `unit`
    bar : largest value allowed, or None where there is none
    unit : str
    ours, other : the two times in seconds (or counts) behind a ratio, where there are two
    what : how it was measured
    """

    measure: str
    value: float
    bar: float | None
    unit: str
    ours: float | None
    other: float | None
    what: str

    def as_dict(self) -> dict[str, Any]:
        """Return the measure as a dictionary, in the order of its fields."""
        return asdict(self)


def take_measures(
    repeats: int = 7, scale: float = 1.0, progress: Callable[[str], object] | None = None
) -> list[Measure]:
    """Take all measures.

    Parameters
    ----------
    repeats : rounds of every timing; the median counts
    scale : of the grids' sides; 1 for the sizes of the bars
    progress : called with the name of what runs next
    """
    tell = progress or (lambda name: None)
    rows: list[Measure] = []
    for name, take in (
        ("products", lambda: _products(_side(128, scale), repeats)),
        ("time per iteration of CG", lambda: _iterations(_side(128, scale), repeats)),
        ("fast Poisson 1024^2", lambda: _transforms((_side(1024, scale),) * 2, repeats)),
        ("fast Poisson 128^3", lambda: _transforms((_side(128, scale),) * 3, repeats)),
        ("incomplete Cholesky", lambda: _incomplete(_side(64, scale), min(repeats, 3))),
        ("iterations of MIC(0)", lambda: _mic_iterations(scale)),
        ("import", lambda: [_import_measure(*import_seconds(repeats))]),
        ("first solves", lambda: _first_solves(*compile_seconds())),
        ("memory", lambda: _memory(_side(64, scale))),
    ):
        tell(name)
        rows += take()
    return rows


def _side(side: int, scale: float) -> int:
    return max(8, round(side * scale))


def _vector(n: int) -> torch.Tensor:
    return torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(SEED))


def _cube(side: int) -> PoissonStencil:
    return PoissonStencil(Grid((side,) * 3, walls="dirichlet"))


def _ratio(
    measure: str, times: dict[str, float], ours: str, other: str, bar: float | None, what: str
) -> Measure:
    return Measure(measure, times[ours] / times[other], bar, "x", times[ours], times[other], what)


def _products(side: int, repeats: int) -> Iterator[Measure]:
    A = _cube(side)
    S = A.to_scipy()
    C = as_operator(S)
    x = _vector(A.shape[0])
    out, x_np = torch.empty_like(x), x.numpy()
    times = interleaved(
        {
            "stencil": lambda: A.matvec(x, out),
            "csr": lambda: C.matvec(x, out),
            "SciPy": lambda: S @ x_np,
        },
        3 * repeats,
    )
    what = f"7-point Laplacian, {side}^3, float64"
    yield _ratio("stencil product / SciPy CSR product", times, "stencil", "SciPy", 1 / 3, what)
    yield _ratio("CSR product / SciPy CSR product", times, "csr", "SciPy", 1.0, what)


def _iterations(side: int, repeats: int) -> Iterator[Measure]:
    """Time one step of CG: what a long run takes beyond a short one, so that no fixed cost counts."""
    from scipy.sparse.linalg import cg

    A = _cube(side)
    S = A.to_scipy()
    b = _vector(A.shape[0])
    short, long = STEPS
    by_stencil, by_csr = (prepare(each, CG()) for each in (A, S))
    norms = by_stencil.solve(b, maxiter=long, throw=False).residual_norms
    calls: dict[str, Callable[[], Any]] = {}
    for steps in STEPS:
        rtol = (
            1.0001 * norms[steps] / norms[0]
        )  # reached after `steps`: a run that misses is examined further
        calls |= {
            f"stencil {steps}": lambda r=rtol: by_stencil.solve(b, rtol=r),
            f"csr {steps}": lambda r=rtol: by_csr.solve(b, rtol=r),
            f"SciPy {steps}": lambda n=steps: cg(S, b.numpy(), rtol=1e-14, maxiter=n),
        }
    times = interleaved(calls, repeats)
    names = ("stencil", "csr", "SciPy")
    per_step = {name: (times[f"{name} {long}"] - times[f"{name} {short}"]) / (long - short) for name in names}
    what = f"7-point Laplacian, {side}^3, steps {short} to {long}"
    yield _ratio("CG on CSR, per iteration / SciPy cg", per_step, "csr", "SciPy", 0.5, what)
    yield _ratio("CG on the stencil, per iteration / SciPy cg", per_step, "stencil", "SciPy", 0.25, what)


def _transforms(shape: tuple[int, ...], repeats: int) -> Iterator[Measure]:
    """Time the direct solver beside the bare pair of sine transforms of SciPy, two workers."""
    import scipy.fft

    A = PoissonStencil(Grid(shape, walls="dirichlet"))
    b = _vector(A.shape[0])
    M = FastPoisson().build(A)
    out, field = torch.empty_like(b), b.numpy().reshape(shape)
    solver = prepare(A, FastPoisson())
    times = interleaved(
        {
            "apply": lambda: M.apply(b, out),
            "solve": lambda: solver.solve(b),
            "pair": lambda: scipy.fft.idstn(scipy.fft.dstn(field, 1, workers=2), 1, workers=2),
        },
        repeats,
    )
    size = " x ".join(map(str, shape))
    name = f"FastPoisson {size} / transform pair"
    yield _ratio(
        name, times, "apply", "pair", 1.3, "the direct solver alone; Dirichlet walls, DST-I, 2 workers"
    )
    what = "prepared.solve: with checks of b and the true residual"
    yield _ratio(f"whole solve, {size} / transform pair", times, "solve", "pair", None, what)


def _incomplete(side: int, repeats: int) -> Iterator[Measure]:
    """Time factor and solve beside SciPy's cg with its incomplete LU.

    At its defaults spilu reorders and pivots, which makes a preconditioner with which CG does not converge;
    the options below gave the least total time of a dozen that do (symmetric mode, 122 steps at 64^3; smaller
    drop tolerances take fewer steps and several times the set-up).
    """
    from scipy.sparse.linalg import LinearOperator, cg, spilu

    A = _cube(side)
    S, b = A.to_scipy(), _vector(A.shape[0])

    def scipy_cg() -> None:
        factors = spilu(
            S.tocsc(),
            drop_tol=0.1,
            fill_factor=3,
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        M = LinearOperator(S.shape, matvec=factors.solve, dtype=np.float64)  # type: ignore[call-arg]
        cg(S, b.numpy(), rtol=1e-8, maxiter=500, M=M)

    def ours(modified: float) -> None:
        prepare(A, CG(), M=IncompleteCholesky(modified=modified), rtol=1e-8).solve(b)

    runs = {"IC(0)": lambda: ours(0.0), "MIC(0)": lambda: ours(0.97), "spilu": scipy_cg}
    times = interleaved(runs, repeats)
    what = f"{side}^3, Dirichlet, rtol 1e-8; spilu(drop_tol=0.1, fill_factor=3, SymmetricMode)"
    for name in ("IC(0)", "MIC(0)"):
        yield _ratio(f"CG + {name}, factor and solve / SciPy cg + spilu", times, name, "spilu", 0.5, what)


def _mic_iterations(scale: float) -> Iterator[Measure]:
    """Compare iteration counts with the table, one random scene per size there; here the mean of three."""
    for shape, table in MIC_ITERATIONS.items() if scale == 1.0 else ():
        counts = []
        for seed in (2111, 2112, 2113):
            generator = np.random.default_rng(seed)
            A = PoissonStencil(free_surface(shape, generator))
            b = generator.standard_normal(A.shape[0])
            M = IncompleteCholesky(modified=0.97)
            counts.append(prepare(A, CG(), M=M, rtol=1e-6).solve(b).iterations)
        mean = float(np.mean(counts))
        what = f"free surface with four balls, three scenes: {counts}; table {table}"
        name = f"iterations of CG + MIC(0), {' x '.join(map(str, shape))} / table"
        yield Measure(name, mean / table, 1.1, "x", mean, float(table), what)


def _import_measure(ours: float, torch_alone: float) -> Measure:
    what = "import neuralsolve less import torch, new processes"
    return Measure("import time beyond torch", ours - torch_alone, 0.3, "s", ours, torch_alone, what)


def _first_solves(compiling: float, cached: float) -> Iterator[Measure]:
    what = "import, a 64 x 64 system by CG + MIC(0); kernels {}; a new process"
    for name, value, kernels in (("empty", compiling, "compiled and stored"), ("full", cached, "loaded")):
        yield Measure(
            f"first solve, {name} kernel cache", value, None, "s", value, None, what.format(kernels)
        )


def _memory(side: int) -> Iterator[Measure]:
    for name, obstacles, method, M in (
        ("CG, box", False, "ns.CG()", "None"),
        ("CG + MIC(0), free surface", True, "ns.CG()", "ns.IncompleteCholesky(modified=0.97)"),
        ("the automatic choice, box", False, "None", "None"),
        ("the automatic choice, free surface", True, "None", "None"),
    ):
        count = max(vectors_of_a_solve(side, obstacles, method, M) for _ in range(3))  # it may miss blocks
        what = f"largest memory held beyond A and b, set-up included, {side}^3"
        yield Measure(f"vectors of a stencil solve: {name}", count, 12.0, "vectors", count, None, what)
