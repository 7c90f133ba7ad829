"""The package's own measures on a GPU: ratios to torch on the same card, and to a copy of as many bytes.

What says nothing of a card is left to the measures of the CPU: import and first solve, iteration counts, and
incomplete Cholesky, which runs there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from neuralsolve.bench.clock import interleaved
from neuralsolve.bench.device import COPY, LAUNCHES, copying, seconds_each
from neuralsolve.bench.device_rivals import torch_cg, torch_matrix
from neuralsolve.bench.measures import SEED, Measure
from neuralsolve.bench.traffic import traffic
from neuralsolve.kernels import table
from neuralsolve.operators.convert import as_operator
from neuralsolve.operators.grid import Grid
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.solvers.fast_poisson import FastPoisson
from neuralsolve.solvers.krylov import CG
from neuralsolve.solvers.solve import prepare

SHARE = 1 / 0.7  # of the time of a copy of as many bytes: seven tenths of its bandwidth
STEPS = (20, 60)  # iterations of two runs, whose difference is free of what comes before and after


def take_measures_on(
    device: torch.device,
    repeats: int = 7,
    scale: float = 1.0,
    progress: Callable[[str], object] | None = None,
) -> list[Measure]:
    """Take all measures of a CUDA device; see `measures.take_measures`."""
    tell = progress or (lambda name: None)
    side, plane = max(8, round(256 * scale)), max(8, round(1024 * scale))
    rows: list[Measure] = []
    for name, take in (
        ("kernels", lambda: _kernels(side, device, repeats)),
        ("time per iteration of CG", lambda: _iterations(side, device, repeats)),
        ("fast Poisson", lambda: _transforms((plane, plane), device, repeats)),
        ("memory", lambda: _memory(side // 2, device)),
    ):
        tell(name)
        rows += take()
    return rows


def box(side: int) -> PoissonStencil:
    """Return the 7-point Laplacian on side^3 cells, Dirichlet walls."""
    return PoissonStencil(Grid((side,) * 3, walls="dirichlet"))


def noise(n: int, device: torch.device) -> Tensor:
    """Return white noise (n,), the same on every device."""
    return torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(SEED)).to(device)


def kernel_calls(A: PoissonStencil, b: Tensor) -> dict[str, tuple[Callable[[], Any], int]]:
    """Return calls of the kernels of a step of CG on vectors of their own, and the bytes that each moves.

    A is a stencil without coefficients, on the device of b (n,).
    """
    K, code, (scale, shape) = table(b.device), A.code, (A.scale, A.shape3)
    x, r, p, q, Ap = (b.clone() for _ in range(5))
    one = torch.ones((), dtype=b.dtype, device=b.device)
    half = torch.full_like(one, 1e-3)
    arguments: dict[str, tuple[Any, ...]] = {
        "stencil_matvec": (code, scale, shape, x, Ap),
        "stencil_matvec_dot": (code, scale, shape, x, Ap),
        "stencil_direction_dot": (code, scale, shape, r, half, p, q, Ap),
        "cg_update": (half, p, Ap, x, r),
        "xpby": (r, half, p),
        "dot": (r, p),
    }
    return {
        name: (lambda name=name, given=given: getattr(K, name)(*given), traffic(name, given))
        for name, given in arguments.items()
    }


def _kernels(side: int, device: torch.device, repeats: int) -> Iterator[Measure]:
    """Time every kernel beside a copy, and the products beside torch's CSR product."""
    A, few = box(side), 2 if side < 64 else LAUNCHES
    b = noise(A.shape[0], device)
    S = A.to_scipy()
    C, T = as_operator(S).to(device), torch_matrix(S, device)
    out = torch.empty_like(b)
    known = kernel_calls(A.to(device), b)
    calls = {name: call for name, (call, _) in known.items()}
    calls |= {
        COPY: copying(len(b), device),
        "CSR product": lambda: C.matvec(b, out),
    }
    times = seconds_each(calls, device, repeats, few)
    speed = 16 * len(b) / times[COPY]
    what = f"{side}^3, float64, {few} in a CUDA graph"
    yield Measure("bandwidth of a copy", speed / 1e9, None, "GB/s", times[COPY], None, what)
    for name, (_, moved) in known.items():
        floor = moved / speed
        bar = SHARE if name in ("stencil_matvec_dot", "cg_update") else None
        note = f"{what}; {moved / len(b):.3g} bytes a cell"
        yield Measure(
            f"{name} / copy of as many bytes", times[name] / floor, bar, "x", times[name], floor, note
        )
    several = {"torch": lambda: [T @ b for _ in range(few)]}  # no graph: cuSPARSE need not allow one
    other = interleaved(several, repeats, device=device)["torch"] / few
    for name, ours in (("stencil", "stencil_matvec"), ("CSR", "CSR product")):
        ratio = times[ours] / other
        yield Measure(f"{name} product / torch CSR product", ratio, None, "x", times[ours], other, what)


def step_seconds(
    A: Any, b: Tensor, device: torch.device, repeats: int, M: Any = None, every: int = 10, steps: Any = STEPS
) -> float:
    """Return the seconds of a step of CG on the device: what a long run takes beyond a short one.

    A and b are there. Steps are started `every` at once, as graphs after the first run; those that come
    after the tolerance is met count too, as they are taken.
    """
    prepared = prepare(A, CG(), M=M, rtol=1e-14, check_every=every)
    norms = prepared.solve(b, maxiter=steps[1], throw=False).residual_norms
    rtols = [1.0001 * min(norms[: count + 1]) / norms[0] for count in steps]
    taken = [-(-prepared.solve(b, rtol=rtol).iterations // every) * every for rtol in rtols]
    calls = {str(rtol): lambda rtol=rtol: prepared.solve(b, rtol=rtol) for rtol in rtols}
    times = interleaved(calls, repeats, device=device)
    short, long = (times[str(rtol)] for rtol in rtols)
    return (long - short) / max(1, taken[1] - taken[0])


def _iterations(side: int, device: torch.device, repeats: int) -> Iterator[Measure]:
    A = box(side)
    S, b = A.to_scipy(), noise(A.shape[0], device)
    ours = {
        name: step_seconds(each.to(device), b, device, repeats)
        for name, each in (("stencil", A), ("CSR", as_operator(S)))
    }
    plain, (short, long) = torch_cg(S, b.cpu().numpy(), device), STEPS
    runs = {str(count): lambda count=count: plain(count, 0.0) for count in STEPS}
    times = interleaved(runs, repeats, device=device)
    other = (times[str(long)] - times[str(short)]) / (long - short)
    what = f"7-point Laplacian, {side}^3, steps {short} to {long}; torch: a plain CG, its CSR product"
    for name, seconds in ours.items():
        measure = f"CG on the {name}, per iteration / torch CSR cg"
        yield Measure(measure, seconds / other, None, "x", seconds, other, what)


def _transforms(shape: tuple[int, ...], device: torch.device, repeats: int) -> Iterator[Measure]:
    """Time the direct solver beside a bare pair of real Fourier transforms of twice the sides."""
    A = PoissonStencil(Grid(shape, walls="dirichlet"))
    b = noise(A.shape[0], device)
    solver = prepare(A.to(device), FastPoisson())
    wide = torch.zeros([2 * side for side in shape], dtype=b.dtype, device=device)
    calls = {
        "solve": lambda: solver.solve(b),
        "pair": lambda: torch.fft.irfftn(torch.fft.rfftn(wide), s=list(wide.shape)),
    }
    times = interleaved(calls, repeats, device=device)
    size, what = " x ".join(map(str, shape)), f"{solver.explanation}; torch.fft of the odd extension"
    name = f"whole solve by FastPoisson, {size} / transform pair"
    ratio = times["solve"] / times["pair"]
    yield Measure(name, ratio, None, "x", times["solve"], times["pair"], what)


def _memory(side: int, device: torch.device) -> Iterator[Measure]:
    """Count the most memory that set-up and solve hold on the device beyond A and b, in vectors."""
    A = box(side).to(device)
    b = noise(A.shape[0], device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    prepare(A, CG()).solve(b)
    held = (torch.cuda.max_memory_allocated(device) - before) / b.nbytes
    what = f"largest memory held on the device beyond A and b, {side}^3"
    yield Measure("vectors of a stencil solve: CG, box", held, 12.0, "vectors", held, None, what)
