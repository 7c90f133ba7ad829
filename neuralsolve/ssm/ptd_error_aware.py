"""Error-aware perturb-then-diagonalise: a small E that makes A + E well conditioned and moves no transfer.

Minimises `ptd_objective.Weighing` over all E of at most the given size by L-BFGS, from a Gaussian start, in
rounds. In a round the frequencies are fixed, so that the function is smooth; between rounds they are chosen
anew (the Remez idea): 0, a logarithmic grid, the eigenvalues of A + E and the midpoints between them, and the
highest local maxima of the error on a fine grid. From round to round the smooth maxima get sharper. Where a
condition number is the goal, the first third of the steps minimises the weighted sum and the rest the error
alone, under a penalty that grows.

Cost of a step: an eigendecomposition and an SVD of an n x n matrix and about (100 + 2 n) n^2 products.
Deterministic for a seed, on one machine and thread count.

Differences from Yu et al. (ICLR 2024): their objective is the condition number and the Frobenius norm of E
alone, so that the transfer function may move anywhere; theirs is `ptd_faithful`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize

from neuralsolve.ssm.arrays import Array
from neuralsolve.ssm.diagonalised import Reference
from neuralsolve.ssm.ptd_objective import Sharpness, Sized, Weighing

GRID, FINE, ROUND, MEMORY = 60, 3000, 150, 30
SHARP = (8.0, 8.0, 16.0, 32.0, 64.0, 96.0)  # powers over the course of the steps
PENALTIES = (10.0, 10.0, 30.0, 100.0, 300.0)


def error_aware(
    reference: Reference,
    size: float,
    steps: int,
    generator: np.random.Generator,
    mu: float = 1.0,
    goal: float | None = None,
    start: Array | None = None,
    told: Callable[[int, Array], Any] | None = None,
) -> Array:
    """Return E (n, n), ||E||_2 <= size.

    Parameters
    ----------
    reference : A, B and the resolvent
    size : absolute
    steps : of L-BFGS, altogether
    generator : of the start
    mu : weight of the error against the logarithm of the condition number
    goal : condition number that shall not be exceeded, or None
    start : E to begin with in the place of a Gaussian; its size does not matter
    told : called after each round with the steps done and E
    """
    n, real = len(reference.A), not np.iscomplexobj(reference.A)
    E = gaussian(n, real, generator) if start is None else start
    X, floor, done = E, reference.abscissa / 2, 0
    first = 0 if start is not None or goal is None else max(1, steps // (3 * ROUND))
    rounds = max(1, -(-steps // ROUND))
    for k in range(rounds):
        part = k / max(1, rounds - 1)
        power = SHARP[min(int(part * len(SHARP)), len(SHARP) - 1)]
        summed = goal is None or not mu or k < first
        stage = min(int((k - first) / max(1, rounds - first) * len(PENALTIES)), len(PENALTIES) - 1)
        stage = len(PENALTIES) - 1 if k == rounds - 1 else stage
        weighing = Weighing(mu, 1.0, None if summed else goal, PENALTIES[max(stage, 0)] * mu, floor)
        sized = Sized(n, size, power, real)
        iterations = min(ROUND, steps - done) if steps > done else 1
        X = _round(reference, sized, weighing, X, Sharpness(power, power), iterations)
        E, done = sized.E(sized.vector(X))[0], done + iterations
        if told is not None:
            told(done, E)
    return E


def gaussian(n: int, real: bool, generator: np.random.Generator) -> Array:
    """Return a Ginibre matrix, entries N(0, 1/n), complex ones of that variance in all."""
    if real:
        return generator.standard_normal((n, n)) / np.sqrt(n)
    parts = generator.standard_normal((2, n, n)) / np.sqrt(2 * n)
    return parts[0] + 1j * parts[1]


def _round(
    reference: Reference, sized: Sized, weighing: Weighing, X: Array, sharp: Sharpness, iterations: int
) -> Array:
    x0 = sized.vector(X / np.linalg.norm(X) * np.sqrt(len(X)))
    t = frequencies(reference, sized.E(x0)[0])
    known = reference(t)

    def value(x: Array) -> tuple[float, Array]:
        E, back = sized.E(x)
        try:
            J, G = weighing(reference.shifted + E, reference.B, t, known, sharp)
        except np.linalg.LinAlgError:
            return np.inf, np.zeros_like(x)
        return J, back(G)

    options = {
        "maxiter": iterations,
        "maxfun": 2 * iterations,
        "maxcor": MEMORY,
        "ftol": 1e-13,
        "gtol": 1e-10,
    }
    return sized.X(minimize(value, x0, jac=True, method="L-BFGS-B", options=options).x)


def frequencies(reference: Reference, E: Array) -> Array:
    """Return the frequencies of a round, about 60 + 4n: where the error of A + E is or may become large."""
    grid = reference.grid(GRID)
    M = reference.shifted + E
    eigenvalues, V = np.linalg.eig(M)
    w = np.unique(np.imag(eigenvalues))
    near = np.concatenate([w, (w[1:] + w[:-1]) / 2])
    fine = np.unique(np.concatenate([reference.grid(max(8 * len(E), FINE // len(reference.B.T))), near]))
    b = np.linalg.solve(V, reference.B.astype(complex))
    height = reference.error(eigenvalues + reference.line, V, b, fine, spectral=False)
    inner = np.flatnonzero((height[1:-1] >= height[:-2]) & (height[1:-1] >= height[2:])) + 1
    highest = inner[np.argsort(height[inner])[::-1][: 2 * len(E)]]
    chosen = np.concatenate([near, fine[highest]])
    if grid[0] >= 0:  # a real system: the negative side mirrors the positive one
        chosen = np.abs(chosen)
    return np.union1d(grid, chosen)
