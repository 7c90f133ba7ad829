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
from neuralsolve.solvers.prepared import Prepared
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

    forcing = 1e-3  # a set-up costs more than the iterations of one digit

    def __init__(self, preconditioner: Preconditioner | None, cap: int):
        self.preconditioner, self.cap = preconditioner, cap
        self.shifts = Shifts()
        self.name = "MINRES with the problem's preconditioner" if preconditioner else "MINRES"
        self._made: tuple[Matrix, Matrix, float, float, Prepared] | None = None

    def step(
        self, H: Matrix, G: Matrix, slope: Vector, c: Vector, shift: float, damping: float, accuracy: float
    ) -> Step | None:
        n, right = len(slope), -np.concatenate([slope, c])
        inner = 0
        for tried in self.shifts.tried(shift, float(np.abs(H.diagonal()).max()) or 1.0):
            result = self._prepared(H, G, tried, damping).solve(right, rtol=accuracy, throw=False)
            inner += result.iterations
            if result.status is Status.MAXITER:
                raise InnerCap
            d = np.asarray(result.x)
            if np.isfinite(d).all() and curved(H, tried, d[:n]):
                self.shifts.took(tried, shift)
                reached = result.residual_norms[-1] / max(float(np.linalg.norm(right)), 1e-300)
                return Step(d[:n], d[n:], tried, damping, inner, reached)
        return None

    def _prepared(self, H: Matrix, G: Matrix, shift: float, damping: float) -> Prepared:
        """Return the set-up of the system; the last one where nothing has changed, as of a quadratic."""
        if self._made is not None:
            *matrices, last_shift, last_damping, prepared = self._made
            if (last_shift, last_damping) == (shift, damping) and all(map(_same, matrices, (H, G))):
                return prepared
        K = as_operator(kkt_matrix(H, G, shift, damping, "csr"), props={"symmetric"})
        shifted = H + shift * sp.eye_array(H.shape[0]) if shift else H
        M = None if self.preconditioner is None else self.preconditioner(shifted, G)
        prepared = prepare(K, MINRES(), M=M, maxiter=self.cap, null_space=False)
        self._made = H.copy(), G.copy(), shift, damping, prepared
        return prepared


def _same(a: Matrix, b: Matrix) -> bool:
    """Return whether two matrices are the same, entry by entry."""
    if not (sp.issparse(a) and sp.issparse(b)):
        return sp.issparse(a) == sp.issparse(b) and np.array_equal(a, b)
    parts = ("indptr", "indices", "data")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in parts)
