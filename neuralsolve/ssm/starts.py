"""Initial values of diagonal state-space layers: eigenvalues, input vector, and how a read-out is drawn.

    "ptd"      a diagonalised neighbour of HiPPO-LegS (`ptd_legs`): l, V^-1 B_H, C V
    "legs"     the normal part of HiPPO-LegS (S4D-LegS, S5): -1/2 +- i w, V^* B_H / 2, C V
    "s4d-lin"  -1/2 + i pi j, j = 0, 1, ...; B = 1
    "s4d-inv"  -1/2 + i (n/pi) (n/(2j+1) - 1); B = 1
    "lru"      exp(l) uniform on a ring in the unit disc, for a step of one; gain sqrt(1 - |exp l|^2)
    "hippo"    HiPPO-LegS itself, diag(l) - P P^*: as "legs", with P, and B not halved

A real system of n states keeps one of each conjugate pair, weight 2, and its unpaired real eigenvalues,
weight 1; the weights sum to n. y = Re sum_m weight_m (C V)_m x_m is then C x
of the real system for real C (n,). The two of S4D and the ring know no such system: their V makes N(0, 1)
numbers C into complex ones of variance one, C_m = (C_m + i C_(N+m))/sqrt 2.

Sources: Yu et al., ICLR 2024 (arXiv 2310.01698); Gu, Gupta, Goel, Re, S4D, NeurIPS 2022 (arXiv 2206.11893),
sec. 4; Orvieto et al., LRU, ICML 2023 (arXiv 2303.06349), sec. 3.2 and lemma 3.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import OptionError, nearest
from neuralsolve.ssm import hippo
from neuralsolve.ssm.arrays import Array
from neuralsolve.ssm.ptd_legs import ptd_legs


@dataclass(frozen=True)
class Start:
    """Initial values of a diagonal system of n real states, N of whose modes are kept; tensors, on the CPU.

    Attributes
    ----------
    eigenvalues : (N,) complex128, continuous time, Im >= 0, Re < 0
    weights : (N,) float64, 2 for one of a pair, 1 for a real eigenvalue
    B : (N,) complex128, the input vector
    V : (n, N) complex128; a real read-out C (..., n) of the states becomes C @ V
    P : (N,) complex128 of "hippo", whose A is diag(eigenvalues) - P P^* over all pairs; else None
    """

    eigenvalues: Tensor
    weights: Tensor
    B: Tensor
    V: Tensor
    P: Tensor | None = None


def start(
    name: str,
    n: int,
    *,
    seed: int = 1905,
    ring: tuple[float, float] = (0.9, 0.999),
    phase: float = math.pi,
) -> Start:
    """Return the initial values of that name for n real states.

    Parameters
    ----------
    name : "ptd", "legs", "s4d-lin", "s4d-inv", "lru" or "hippo"
    n : state size, at least 1; of "ptd" others than 8, 16, 32, 64 and 128 are computed, which takes minutes
    seed : of the draws of "lru"; the others are deterministic
    ring : 0 < r_min < r_max < 1, of |exp l| in "lru"
    phase : the largest |Im l| of "lru", at most pi

    Raises
    ------
    OptionError
        Another name, n, ring or phase.

    Examples
    --------
    >>> one = start("s4d-lin", 4)
    >>> one.eigenvalues.imag.tolist(), one.weights.tolist(), tuple(one.V.shape)
    ([0.0, 3.141592653589793], [2.0, 2.0], (4, 2))
    """
    makers = {"ptd": _ptd, "legs": _legs, "s4d-lin": _linear, "s4d-inv": _inverse, "hippo": _hippo}
    hippo.checked_size(n)
    if name == "lru":
        return _ring(n, seed, ring, phase)
    if name not in makers:
        known = [*makers, "lru"]
        msg = f"got start {name!r}, need one of {known}{nearest(str(name), known)}"
        raise OptionError(msg)
    return makers[name](n)


def _ptd(n: int) -> Start:
    near = ptd_legs(n)
    places, weights = near.pairs()
    return _start(near.eigenvalues[places], weights, near.B[places], near.V[:, places])


def _half(n: int) -> tuple[Array, Array, Array]:
    """Return the eigenvalues with Im >= 0 of the normal part, weights, vectors; a real one is exact."""
    eigenvalues, V = hippo.normal_eigenvectors(n)
    places = np.arange(n // 2, n)
    eigenvalues, V, weights = eigenvalues[places], V[:, places], np.full(len(places), 2.0)
    if n % 2:  # -1/2 with a real vector, but for a phase
        largest = V[np.abs(V[:, 0]).argmax(), 0]
        eigenvalues[0], V[:, 0], weights[0] = -0.5, (V[:, 0] * (largest.conj() / abs(largest))).real, 1.0
    return eigenvalues, weights, V


def _legs(n: int) -> Start:
    eigenvalues, weights, V = _half(n)
    return _start(eigenvalues, weights, V.conj().T @ hippo.legs(n)[1] / 2, V)


def _hippo(n: int) -> Start:
    eigenvalues, weights, V = _half(n)
    return _start(
        eigenvalues, weights, V.conj().T @ hippo.legs(n)[1], V, V.conj().T @ hippo.legs_normal(n)[1]
    )


def _linear(n: int) -> Start:
    j = np.arange((n + 1) // 2)
    return _free(n, -0.5 + 1j * np.pi * j, np.ones(len(j), complex))


def _inverse(n: int) -> Start:
    j = np.arange(n // 2)
    high = (n / np.pi) * (n / (2 * j + 1) - 1)
    imaginary = np.concatenate([[0.0], high] if n % 2 else [high])
    return _free(n, -0.5 + 1j * imaginary, np.ones(len(imaginary), complex))


def _ring(n: int, seed: int, ring: tuple[float, float], phase: float) -> Start:
    low, high = ring
    if not 0 < low < high < 1 or not 0 < phase <= math.pi:
        msg = f"got ring={ring}, phase={phase}; 0 < r_min < r_max < 1 and 0 < phase <= pi are needed"
        raise OptionError(msg)
    generator = np.random.default_rng(seed)
    u, v = generator.random((2, (n + 1) // 2))
    radius = np.sqrt(u * (high**2 - low**2) + low**2)  # uniform on the ring (LRU, lemma 3.2)
    angle = phase * v
    if n % 2:
        angle[0] = 0.0
    eigenvalues = np.log(radius) + 1j * angle
    # ZOH at step one multiplies by (exp l - 1)/l: afterwards the input has the gain sqrt(1 - |exp l|^2)
    B = np.sqrt(1 - radius**2) * eigenvalues / np.expm1(eigenvalues)
    return _free(n, eigenvalues, B)


def _free(n: int, eigenvalues: Array, B: Array) -> Start:
    """Modes that come from no real system: V makes complex read-outs; for odd n the first mode is real."""
    N, pairs = len(eigenvalues), n // 2
    V, weights, first = np.zeros((n, N), complex), np.full(N, 2.0), N - pairs
    V[range(first, N), range(first, N)] = 1 / math.sqrt(2)
    V[range(N, n), range(first, N)] = 1j / math.sqrt(2)
    if first:
        V[0, 0], weights[0] = 1, 1
    return _start(eigenvalues, weights, B, V)


def _start(*arrays: Array) -> Start:
    return Start(*(torch.from_numpy(np.ascontiguousarray(x)) for x in arrays))
