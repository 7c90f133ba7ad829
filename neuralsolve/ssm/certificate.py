"""What can be proved of A + E from the numerical range of A alone.

With the margin m = -lambda_max((A + A^*)/2) > 0 and ||E|| < m: Re x^*(A+E)x <= -(m - ||E||) |x|^2, so A + E
is stable and ||(it - A - E)^-1|| <= 1/(m - ||E||) for all t. From

    (it-A)^-1 B - (it-A-E)^-1 B = -(it-A-E)^-1 E (it-A)^-1 B
    sup_t ||(it-A)^-1 B - (it-A-E)^-1 B|| <= g ||E|| / (m - ||E||),   g >= sup_t ||(it-A)^-1 B||

g = ||B||/m always holds. A sharper one comes from dissipation: where A + A^* <= -2 m_c I - c B B^* with
c, m_c > 0, f = (it-A)^-1 B u has m_c |f|^2 + (c/2) |B^* f|^2 <= Re f^* B u <= |B^* f| |u|, hence
|f|^2 <= |u|^2/(2 c m_c) and g = 1/sqrt(2 c m_c). HiPPO-LegS has c = 1, m_c = 1/2, g = 1: the error is at
most 2||E||/(1 - 2||E||), whatever n. The best c is sought; each one proves its own bound.

Eigenvalues in floating point are off by n eps ||A||, which is taken from the margins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neuralsolve.ssm.arrays import Array

EPS = float(np.finfo(float).eps)


class Certificate(NamedTuple):
    """What is proved; None where nothing is.

    Attributes
    ----------
    margin : -lambda_max of the Hermitian part of A; nothing is proved unless ||E|| is below it
    stable : True, or None
    error_bound : of sup_t ||(it-A)^-1 B - (it-A-E)^-1 B||, or None
    """

    margin: float
    stable: bool | None
    error_bound: float | None


def numerical_range_margin(A: Array, B: Array | None = None, c: float = 0.0) -> float:
    """Return -lambda_max((A + A^* + c B B^*)/2), rounded down: how far left the numerical range lies.

    >>> from neuralsolve.ssm import hippo
    >>> A, B = hippo.legs(32)
    >>> round(numerical_range_margin(A), 6), round(numerical_range_margin(A, B[:, None], 1.0), 6)
    (0.5, 0.5)
    """
    H = A + A.conj().T
    if B is not None:
        H = H + c * (B @ B.conj().T)
    H = H / 2
    return -float(np.linalg.eigvalsh(H)[-1]) - len(A) * EPS * float(np.linalg.norm(H, 2))


def gain_bound(A: Array, B: Array) -> float:
    """Return g >= sup_t ||(it-A)^-1 B||_2, infinite where the numerical range proves none.

    >>> from neuralsolve.ssm import hippo
    >>> A, B = hippo.legs(16)
    >>> round(gain_bound(A, B[:, None]), 6)
    1.0
    """
    margin, length = numerical_range_margin(A), float(np.linalg.norm(B, 2))
    if margin <= 0:
        return float("inf")
    best = length / margin
    if length == 0:
        return best
    # of HiPPO c = 1 is the largest; two decades to each side of what the units suggest, and 1 itself
    unit = float(np.linalg.norm(A, 2)) / length**2
    for c in (1.0, *(unit * np.geomspace(1e-3, 1e3, 25))):
        m = numerical_range_margin(A, B, c)
        if m > 0:
            best = min(best, 1 / float(np.sqrt(2 * c * m)))
    return best


def certify(A: Array, B: Array, perturbation: float) -> Certificate:
    """Return what ||E||_2 = `perturbation` lets one prove; B (n, p).

    >>> from neuralsolve.ssm import hippo
    >>> A, B = hippo.legs(16)
    >>> found = certify(A, B[:, None], 0.1)
    >>> found.stable, round(found.error_bound, 6)
    (True, 0.25)
    """
    margin = numerical_range_margin(A)
    if not perturbation < margin:
        return Certificate(margin, None, None)
    return Certificate(margin, True, gain_bound(A, B) * perturbation / (margin - perturbation))
