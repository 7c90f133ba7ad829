"""Chebyshev's iteration as a smoother: weights and momenta of its steps (Saad 2003, alg. 12.1)."""

from __future__ import annotations

Steps = list[tuple[float, float]]


def chebyshev_steps(largest: float, band: float, count: int) -> Steps:
    """Return (weight, momentum) of the steps that damp eigenvalues from largest / band to largest best.

    A step is d <- momentum d + weight D^-1 (b - A x), x <- x + d.

    Examples
    --------
    >>> chebyshev_steps(2.0, 6.0, 1)
    [(0.857..., 0.0)]
    """
    middle, half = largest * (1 + 1 / band) / 2, largest * (1 - 1 / band) / 2
    sigma = middle / half
    rho, steps = 1 / sigma, [(1 / middle, 0.0)]
    while len(steps) < count:
        following = 1 / (2 * sigma - rho)
        steps.append((2 * following / half, following * rho))
        rho = following
    return steps[:count]
