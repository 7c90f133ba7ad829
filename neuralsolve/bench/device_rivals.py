"""Other people's conjugate gradients on a GPU: CuPy's, and a plain one on torch's sparse products.

Both take the assembled matrix in CSR, float64, on the device before the clock runs; the residual of what they
return is formed by the harness, as for all.
"""

from __future__ import annotations

import importlib.util
import inspect
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.bench.baselines import Attempt, SetUp, Solve
from neuralsolve.bench.system import System

TORCH, CUPY = "torch CSR cg", "CuPy cg"
Steps = Callable[[int, float], tuple[Any, int]]  # steps at most, rtol: x and the steps that were taken


def device_rivals(system: System, device: torch.device) -> dict[str, SetUp]:
    """Return the rivals on the device that suit A, by name: none where A is not SPD."""
    if not system.structure.maybe_spd:
        return {}
    makers = {TORCH: torch_cg} | ({} if cupy_missing() else {CUPY: cupy_cg})
    return {name: _set_up(make, device) for name, make in makers.items()}


def cupy_missing() -> str:
    """Return why CuPy does not take part; nothing where it does."""
    return "" if importlib.util.find_spec("cupy") else "CuPy is not installed: pip install cupy-cuda12x"


def _set_up(make: Callable[..., Steps], device: torch.device) -> SetUp:
    kept: list[Steps] = []  # the matrix is brought to the device once

    def set_up(system: System, rtol: float, seconds: float) -> Solve:
        if not kept:
            kept.append(make(system.matrix, system.rhs, device, seconds))
        limit = min(max(1000, 10 * len(system.rhs)), 20_000)  # as ours

        def solve() -> Attempt:
            x, steps = kept[0](limit, rtol)
            return Attempt(x, steps, steps + 1)

        return solve

    return set_up


def torch_cg(matrix: Any, rhs: np.ndarray, device: torch.device, seconds: float = np.inf) -> Steps:
    """Return conjugate gradients on torch's sparse CSR product (Saad 2003, alg. 6.18).

    The host reads the norm once a step, as a plain program does.
    """
    A = torch_matrix(matrix, device)
    b = torch.from_numpy(rhs).to(device)

    def run(limit: int, rtol: float) -> tuple[Tensor, int]:
        end = time.perf_counter() + seconds
        x, r, p = torch.zeros_like(b), b.clone(), b.clone()
        rr, taken = torch.dot(r, r), 0
        target = (rtol**2) * float(rr)
        while float(rr) > target and taken < limit and time.perf_counter() < end:
            Ap = A @ p
            alpha = rr / torch.dot(p, Ap)
            x.addcmul_(p, alpha)
            r.addcmul_(Ap, -alpha)
            before, rr = rr, torch.dot(r, r)
            p.mul_(rr / before).add_(r)
            taken += 1
        return x, taken

    return run


def torch_matrix(matrix: Any, device: torch.device) -> Tensor:
    """Return a SciPy CSR matrix as torch's sparse CSR tensor on a device."""
    parts = (torch.from_numpy(each).to(device) for each in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # its CSR layout calls itself a beta
        return torch.sparse_csr_tensor(*parts, size=matrix.shape)


def cupy_cg(matrix: Any, rhs: np.ndarray, device: torch.device, seconds: float = np.inf) -> Steps:
    """Return CuPy's `cg` on its own CSR matrix."""
    import cupy  # type: ignore[import-not-found]
    from cupyx.scipy.sparse import csr_matrix  # type: ignore[import-not-found]
    from cupyx.scipy.sparse.linalg import cg  # type: ignore[import-not-found]

    word = "rtol" if "rtol" in inspect.signature(cg).parameters else "tol"  # older ones say "tol"
    with cupy.cuda.Device(device.index):
        parts = tuple(cupy.asarray(each) for each in (matrix.data, matrix.indices, matrix.indptr))
        A, b = csr_matrix(parts, shape=matrix.shape), cupy.asarray(rhs)

    def run(limit: int, rtol: float) -> tuple[Any, int]:
        count, end = [0], time.perf_counter() + seconds
        found: list[Any] = []

        def callback(x: Any) -> None:
            count[0] += 1
            if time.perf_counter() > end:
                found.append(x.copy())
                raise StopIteration

        with cupy.cuda.Device(device.index):
            try:
                x, _ = cg(A, b, maxiter=limit, callback=callback, atol=0.0, **{word: rtol})
            except StopIteration:
                x = found[0]
        return x, count[0]

    return run
