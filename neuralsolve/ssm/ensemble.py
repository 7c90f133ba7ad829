"""Random perturb-then-diagonalise: the best of several Ginibre matrices of a given size.

The regularisation of Davies' conjecture: for ||A|| <= 1 a Gaussian E of norm eps makes kappa_2(V) of A + E
at most of the order n^(3/2)/eps with constant probability (Banks, Kulkarni, Mukherjee, Srivastava, CPAM 74
(2021) 2114-2131, thm. 1.1; arXiv 1906.11819). No optimisation, one eigenproblem a draw: the baseline that
the optimised ones must beat.
"""

from __future__ import annotations

import numpy as np

from neuralsolve.ssm.arrays import Array
from neuralsolve.ssm.diagonalised import eigenpairs
from neuralsolve.ssm.ptd_error_aware import gaussian


def best_of_ensemble(A: Array, size: float, draws: int, generator: np.random.Generator) -> Array:
    """Return the E, ||E||_2 = size, with the lowest kappa_2(V) among `draws`; real for a real A.

    >>> E = best_of_ensemble(np.diag(np.ones(7), 1), 1e-3, 5, np.random.default_rng(3))
    >>> float(np.linalg.norm(E, 2)).__round__(9)
    0.001
    """
    best, lowest = None, np.inf
    for _ in range(draws):
        E = gaussian(len(A), not np.iscomplexobj(A), generator)
        E *= size / np.linalg.norm(E, 2)
        condition = float(np.linalg.cond(eigenpairs(A + E)[1]))
        if best is None or condition < lowest:
            best, lowest = E, condition
    assert best is not None
    return best
