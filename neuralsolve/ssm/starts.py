"""Initial values of state-space layers: eigenvalues, input vector, and the way to the outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuralsolve.errors import OptionError, nearest


@dataclass(frozen=True)
class Start:
    """One of each conjugate pair of eigenvalues of a real system of n states, and the unpaired ones.

    Attributes
    ----------
    eigenvalues : (N,) complex
    weights : (N,)
        2 for one of a pair, 1 for an eigenvalue that stands alone: y = Re sum_n weight_n C_n x_n.
    B : (N,) complex
    V : (n, N) complex
        The outputs of a real row C are those of C V.
    P : (N,) complex, optional
        Of a system that is diagonal minus the rank one P P^*.
    """

    eigenvalues: Tensor
    weights: Tensor
    B: Tensor
    V: Tensor
    P: Tensor | None = None


def start(name: str, n: int) -> Start:
    """Return the start of a name with n states.

    Raises
    ------
    OptionError
        For a name that is none, and for n < 1.
    """
    if n < 1:
        msg = f"got {n} states, need at least one"
        raise OptionError(msg)
    made = {"legs": _legs, "s4d-lin": _linear}
    if name not in made:
        msg = f"got the start {name!r}, which does not exist{nearest(name, made)}"
        raise OptionError(msg)
    return made[name](n)


def _legs(n: int) -> Start:
    index = torch.arange(n, dtype=torch.float64)
    P = torch.sqrt(index + 0.5)
    K = torch.triu(P[:, None] * P, 1)
    K = K - K.T
    frequencies, V = torch.linalg.eigh(-1j * K)  # K = V (i w) V^*, ascending
    kept = slice(n // 2, n)  # the middle one of an odd number is zero
    frequencies, V = frequencies[kept].clone(), V[:, kept].clone()
    weights = torch.full_like(frequencies, 2.0)
    if n % 2:
        frequencies[0], weights[0] = 0.0, 1.0
        V[:, 0] = V[:, 0] * (V[0, 0].abs() / V[0, 0])  # a real vector
    B = V.conj().T @ torch.sqrt(2 * index + 1).to(V.dtype) / 2
    return Start(torch.complex(torch.full_like(frequencies, -0.5), frequencies), weights, B, V)


def _linear(n: int) -> Start:
    N = (n + 1) // 2
    frequencies = torch.pi * torch.arange(N, dtype=torch.float64)
    V = torch.zeros(n, N, dtype=torch.complex128)
    weights = torch.full((N,), 2.0, dtype=torch.float64)
    for m in range(N):
        if 2 * m + 1 < n:
            V[2 * m, m], V[2 * m + 1, m] = 0.5**0.5, 0.5**0.5 * 1j
        else:
            V[2 * m, m], weights[m] = 1.0, 1.0
    B = torch.ones(N, dtype=torch.complex128)
    return Start(torch.complex(torch.full_like(frequencies, -0.5), frequencies), weights, B, V)
