"""Random mixtures of the rows or columns of a matrix, plain torch: the definition.

Rows are taken by eights, from far apart: neighbours are often alike. Eight rows with signs d are turned by
the orthonormal Walsh-Hadamard matrix H/8^(1/2), which spreads each of them over eight mixtures, and each
mixture is added to a row of the result of its own. So S has eight entries +-8^(-1/2) in each column, as a
sparse sign matrix has (Nelson & Nguyen, OSNAP, FOCS 2013, 117-126), and columns of the same eight are
orthogonal; but three additions for each entry of A, and one to the result, do what would take eight.

Columns are mixed likewise, but only with those at a distance of a multiple of eight: each of the eight
classes j mod 8 has mixtures of its own, in the same places with other signs.
"""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 8  # rows that are turned together
LANES = 8  # columns that are kept apart


def hadamard_sketch(A: Tensor, signs: Tensor, places: Tensor, out: Tensor) -> float:
    """Out = S A; returns ||A||_F^2, fours of squares in the precision of A, their sums in float64.

    A (m, n) and out (l, n), contiguous, out float32 and overwritten; signs (m,) +-1 float32; places
    (ceil(m/8), 8) int64, different in each row, below l. With G = m // 8 the rows g, G + g, ..., 7 G + g make
    group g, and the last m % 8 rows group G, filled up by zeros. Row i of a group, times its sign, is added
    to the rows places[g, k] of out with the factors H_ki 8^(-1/2), H_ki = (-1)^(bits that k and i share).
    Entries of out err by at most about (rows that meet there + 5) eps of float32 times the sum of their
    absolute values over 8^(1/2).
    """
    m, n = A.shape
    groups, mixed = m // GROUP, A.float() * signs[:, None]
    by_eights = mixed.new_zeros((len(places), GROUP, n))
    by_eights[:groups] = mixed[: groups * GROUP].reshape(GROUP, groups, n).transpose(0, 1)
    by_eights[groups:, : m % GROUP] = mixed[groups * GROUP :]
    turned = _hadamard(A.device) @ by_eights
    out.zero_().index_add_(0, places.reshape(-1), turned.reshape(-1, n))
    return float(A.double().square().sum())


def hadamard_sketch_columns(B: Tensor, signs: Tensor, places: Tensor, out: Tensor) -> float:
    """Out = B T^T, where T mixes the columns with the same j mod 8 as `hadamard_sketch` mixes rows.

    Returns ||B||_F^2. B (m, n) and out (m, 8 c), contiguous float32; signs (n,) +-1 float32; places
    (ceil(n/64), 8) int64 below c, as there, for ceil(n/8) columns of each class, zeros beyond n. The mixtures
    of the class q are in the columns q, q + 8, ... of out.
    """
    m, n = B.shape
    count = -(-n // LANES)
    padded = torch.zeros((m, count * LANES), device=B.device)
    padded[:, :n] = B * signs
    lines = padded.reshape(m, count, LANES).transpose(0, 1).reshape(count, -1)
    mixed = out.new_empty((out.shape[1] // LANES, m * LANES))
    squares = hadamard_sketch(lines, signs.new_ones(count), places, mixed)
    out.copy_(mixed.reshape(-1, m, LANES).transpose(0, 1).reshape(m, -1))
    return squares


def _hadamard(device: torch.device) -> Tensor:
    """Return H/8^(1/2)."""
    H = torch.ones((1, 1), device=device)
    while len(H) < GROUP:
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)])
    return H / GROUP**0.5
