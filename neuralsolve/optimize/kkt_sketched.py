"""Steps by randomised sketch and project, to the accuracy that a step of descent needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from neuralsolve.optimize.kkt import InnerCap, Shifts, Step, curved, kkt_matrix
from neuralsolve.optimize.problem import Matrix, Vector
from neuralsolve.optimize.sketch_and_project import (
    BlockSketch,
    GaussianVector,
    RandomizedKaczmarz,
    SketchAndProject,
)

SWEEPS = 20  # over all rows between two looks at the accuracy


class SketchedKKT:
    """Steps by a sketch solver.

    Parameters
    ----------
    solver : matrix, right side -> what solves it step by step
    name : of it
    cap : inner iterations a step
    """

    forcing = 0.1  # digits are dear

    def __init__(self, solver: Callable[[Matrix, Vector], SketchAndProject], name: str, cap: int):
        self.solver, self.name, self.cap = solver, name, cap
        self.shifts = Shifts()

    def step(
        self, H: Matrix, G: Matrix, slope: Vector, c: Vector, shift: float, damping: float, accuracy: float
    ) -> Step | None:
        n, right, inner = len(slope), -np.concatenate([slope, c]), 0
        size = float(np.linalg.norm(right))
        for tried in self.shifts.tried(shift, float(np.abs(H.diagonal()).max()) or 1.0):
            solver = self.solver(kkt_matrix(H, G, tried, damping), right)
            while solver.residual > accuracy * size:
                if solver.iterations >= self.cap:
                    raise InnerCap
                solver.advance(min(SWEEPS * len(right), self.cap - solver.iterations))
            inner += solver.iterations
            d = solver.d
            if np.isfinite(d).all() and curved(H, tried, d[:n]):
                self.shifts.took(tried, shift)
                # the updated residual drifts from the true one, which is what is told
                reached = solver.true_residual() / max(size, 1e-300)
                return Step(d[:n].copy(), d[n:].copy(), tried, damping, inner, reached)
        return None


def sketch_solver(kind: str, block: int, seed: int) -> Callable[[Matrix, Vector], SketchAndProject]:
    """Return what makes solvers of a kind of `method.SKETCHED`, all on one stream of random numbers."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "kaczmarz":
        return lambda Gamma, right: RandomizedKaczmarz(Gamma, right, generator)
    if kind == "gaussian-vector":
        return lambda Gamma, right: GaussianVector(Gamma, right, generator)
    return lambda Gamma, right: BlockSketch(Gamma, right, generator, kind=kind, rows=min(block, len(right)))
