"""Steps by MINRES on the KKT matrix: inexact, and as exact as a step of descent needs.

Each solve goes on from the last, to a residual ten times smaller. Source of the test: the adaptive accuracy
of Hong et al. (ICML 2023, arXiv 2305.18379), whose sketches MINRES stands for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from neuralsolve.operators.convert import as_operator
from neuralsolve.optimize.kkt import InnerCap, Shifts, Step, curved, kkt_matrix
from neuralsolve.optimize.problem import Matrix, Vector
from neuralsolve.solvers.minres import MINRES
from neuralsolve.solvers.result import Status
from neuralsolve.solvers.solve import prepare

Preconditioner = Callable[[Matrix, Matrix], Callable[[Vector], Vector]]


class MinresKKT:
    """Steps by MINRES, with the problem's own preconditioner where it has one.

    Parameters
    ----------
    preconditioner : H, G -> M; None for none
    cap : iterations a step
    """

    def __init__(self, preconditioner: Preconditioner | None, cap: int):
        self.preconditioner, self.cap = preconditioner, cap
        self.shifts = Shifts()
        self.name = "MINRES with the problem's preconditioner" if preconditioner else "MINRES"

    def step(
        self, H: Matrix, G: Matrix, slope: Vector, c: Vector, shift: float, damping: float, accuracy: float
    ) -> Step | None:
        n, right = len(slope), -np.concatenate([slope, c])
        inner = 0
        for tried in self.shifts.tried(shift, float(np.abs(H.diagonal()).max()) or 1.0):
            K = as_operator(sp.csr_array(kkt_matrix(H, G, tried, damping)), props={"symmetric"})
            shifted = H + tried * sp.eye_array(n) if tried else H
            M = None if self.preconditioner is None else self.preconditioner(shifted, G)
            prepared = prepare(K, MINRES(), M=M, rtol=accuracy, maxiter=self.cap, null_space=False)
            result = prepared.solve(right, throw=False)
            inner += result.iterations
            if result.status is Status.MAXITER:
                raise InnerCap
            d = np.asarray(result.x)
            if np.isfinite(d).all() and curved(H, tried, d[:n]):
                self.shifts.took(tried, shift)
                accuracy = result.residual_norms[-1] / max(float(np.linalg.norm(right)), 1e-300)
                return Step(d[:n], d[n:], tried, damping, inner, accuracy)
        return None
