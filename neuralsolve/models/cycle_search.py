"""Steps of smoothing and gains of a multigrid cycle for grids with coefficients, by search.

Where coefficients jump, levels correct the means of conductors, which `models.cycle` does not have; so the
compiled cycle itself is run, and roots and gains are sought by the simplex of Nelder and Mead: they make the
mean of log10(||b - A x_K|| / ||b||) / K of CG small. Roots that do not contract on (0, 2] are refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from neuralsolve.kernels.reference.learned import INPUTS
from neuralsolve.models.cycle_training import chebyshev_roots
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.preconditioners.grid_cycle import GridCycle
from neuralsolve.preconditioners.learned import LARGEST, Knowledge, reach_of
from neuralsolve.preconditioners.multigrid import Multigrid

UNROLLED = 7
FIRST_STEP = 0.12  # of the simplex, in logarithms
REFUSED = 10.0

Vector = np.ndarray


def search_steps(
    operators: Sequence[PoissonStencil],
    steps: Sequence[int],
    evaluations: int,
    seed: int,
    report: Callable[[float], None] = lambda loss: None,
) -> tuple[Knowledge, dict[str, float]]:
    """Search roots and gains for operators of one kind; return them and what they reached.

    Parameters
    ----------
    steps : of smoothing on the levels, the finest first; the last one serves all below
    evaluations : of the loss
    seed : of the right sides
    report : called with every loss that was evaluated
    """
    from scipy.optimize import minimize

    start, rng = time.perf_counter(), np.random.default_rng(seed)
    built = [
        (A, Multigrid("V").build(A), torch.from_numpy(rng.standard_normal(A.shape[0]))) for A in operators
    ]

    def loss(x: Vector) -> float:
        known = _knowledge(x, steps)
        missing = sum(max(0.0, LARGEST - reach) for reach in known.reach)
        if missing > 0:
            return REFUSED * missing
        total = 0.0
        for A, M, b in built:
            M.retune(known)
            total += _digits(A, M, b, UNROLLED)
        return total / len(built)

    def told(x: Vector) -> float:
        found = loss(x)
        report(found)
        return found

    roots = [np.log(chebyshev_roots(count)) for count in steps]
    first = np.concatenate([*roots, np.zeros(len(steps))])
    simplex = np.vstack([first, first + FIRST_STEP * np.eye(len(first))])
    found = minimize(
        told, first, method="Nelder-Mead", options={"maxfev": evaluations, "initial_simplex": simplex}
    )
    reached = {"before": loss(first), "after": float(found.fun), "seconds": time.perf_counter() - start}
    return _knowledge(found.x, steps), reached


def tensors_of(known: Knowledge, kind: str) -> dict[str, Tensor]:
    """Return what `neuralsolve.preconditioners.learned` reads, without networks."""
    named = {
        f"{kind}.roots.{k}": torch.tensor(sorted(w), dtype=torch.float64) for k, w in enumerate(known.roots)
    }
    named[f"{kind}.gains"] = torch.tensor(known.gains, dtype=torch.float64)
    return named | {f"{kind}.faces": known.faces, f"{kind}.cells": known.cells}


def _knowledge(x: Vector, steps: Sequence[int]) -> Knowledge:
    parts = np.split(np.exp(x), np.cumsum(steps))
    roots = tuple(tuple(part.tolist()) for part in parts[:-1])
    nothing = torch.zeros((0, INPUTS + 4, 1)), torch.zeros((0, INPUTS + 5, 1))
    return Knowledge(roots, tuple(reach_of(each) for each in roots), tuple(parts[-1].tolist()), *nothing)


def _digits(A: PoissonStencil, M: GridCycle, b: Tensor, steps: int) -> float:
    """Return log10(||b - A x||/||b||)/steps of CG from zero."""
    r, z = b.clone(), M.apply(b)
    p, rz = z.clone(), torch.dot(b, z)
    for k in range(steps):
        Ap = A.matvec(p)
        r = r - rz / torch.dot(p, Ap) * Ap
        if k + 1 < steps:
            z = M.apply(r)
            new = torch.dot(r, z)
            p, rz = z + new / rz * p, new
    return float(torch.log10(r.norm() / b.norm())) / steps
