"""Perturb-then-diagonalise as published: condition number and size alone, by Adam through the eigenproblem.

    min over dense complex E of  kappa_2(V)^2 + weight ||E||_F,   A + E = V diag(l) V^-1, unit columns

Start: real and imaginary parts of E uniform in [0, 0.1); Adam (0.9, 0.999), rate 0.1, 3000 steps, without
decay, as in the stand-alone layer of the released code; the best iterate by the loss is returned. Nothing
here protects the transfer function, and eigenvalues may lie right of the axis.

One difference: the released code then replaces Re l by -|Re l|. That is another system than A + E, so it is
not done here; `Diagonalised.abscissa` tells.

Source: Yu, Nigmetov, Morozov, Mahoney, Erichson, ICLR 2024 (arXiv 2310.01698), eq. 4, and the released code,
whose loss has the square and the Frobenius norm that eq. 4 has not.
"""

from __future__ import annotations

import numpy as np

from neuralsolve.ssm.arrays import Array
from neuralsolve.ssm.ptd_objective import Eigen

RATE, SPREAD = 0.1, 0.1
BETA1, BETA2, TINY = 0.9, 0.999, 1e-8


def loss(A: Array, E: Array, weight: float) -> tuple[float, Array]:
    """Return kappa^2 + weight ||E||_F and its gradient by E, complex, Re tr(G^* dE) its differential.

    >>> value, G = loss(np.array([[0.0, 1.0], [0.0, 2.0]]), np.zeros((2, 2), complex), 1.0)
    >>> round(value, 6)  # eigenvectors (1, 0) and (1, 2)/sqrt 5: kappa^2 = (sqrt 5 + 1)/(sqrt 5 - 1)
    2.618034
    """
    eigen = Eigen(A + E.astype(complex))
    log_kappa, G = eigen.log_condition(np.inf)
    square, length = float(np.exp(2 * log_kappa)), float(np.linalg.norm(E))
    return square + weight * length, 2 * square * G + weight * E / max(length, 1e-300)


def faithful(A: Array, weight: float, steps: int, generator: np.random.Generator) -> Array:
    """Return the best of the iterates E (n, n), complex128."""
    n = len(A)
    parts = SPREAD * generator.random((2, n, n))
    E = parts[0] + 1j * parts[1]
    first, second = np.zeros_like(E), np.zeros((2, n, n))
    best, lowest = E, np.inf
    for k in range(1, steps + 1):
        value, G = loss(A, E, weight)
        if value < lowest:
            best, lowest = E, value
        first = BETA1 * first + (1 - BETA1) * G
        second = BETA2 * second + (1 - BETA2) * np.stack([np.real(G) ** 2, np.imag(G) ** 2])
        mean, spread = first / (1 - BETA1**k), np.sqrt(second / (1 - BETA2**k)) + TINY
        E = E - RATE * (np.real(mean) / spread[0] + 1j * np.imag(mean) / spread[1])
    return best
