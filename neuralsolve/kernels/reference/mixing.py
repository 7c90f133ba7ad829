"""Random mixtures of the rows of a matrix, plain torch: the definition.

The rows of A are taken by eights. Eight rows with signs d are turned by the orthonormal Walsh-Hadamard matrix
H/8^(1/2), which spreads each of them over eight mixtures, and each mixture is added to a row of the result of
its own. So S has eight entries +-8^(-1/2) in each column, as a sparse sign matrix has (Nelson & Nguyen, OSNAP,
FOCS 2013, 117-126), and columns of the same eight are orthogonal; but three additions for each entry of A, and
one to the result, do what would take eight.
"""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 8  # rows that are turned together


def hadamard_sketch(A: Tensor, signs: Tensor, places: Tensor, out: Tensor) -> float:
    """Out = S A; returns ||A||_F^2, summed in float64.

    A (m, n) and out (l, n), contiguous, out float32 and overwritten; signs (m,) +-1 float32; places
    (ceil(m/8), 8) int64, different in each row, below l. Row 8 g + i of A, times its sign, is added to the
    rows places[g, k] of out with the factors H_ki 8^(-1/2), H_ki = (-1)^(number of bits that k and i share).
    Rows beyond m count as zero. Entries of out err by at most about (rows that meet there + 5) eps of float32
    times the sum of their absolute values over 8^(1/2).
    """
    m, n = A.shape
    mixed = torch.zeros((len(places) * GROUP, n), dtype=torch.float32, device=A.device)
    mixed[:m] = A.float() * signs[:, None]
    turned = _hadamard(A.device) @ mixed.reshape(-1, GROUP, n)
    out.zero_().index_add_(0, places.reshape(-1), turned.reshape(-1, n))
    return float(torch.linalg.vector_norm(A, dtype=torch.float64).square())


def _hadamard(device: torch.device) -> Tensor:
    """Return H/8^(1/2)."""
    H = torch.ones((1, 1), device=device)
    while len(H) < GROUP:
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)])
    return H / GROUP**0.5
