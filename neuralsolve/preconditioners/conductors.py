"""Conductors on the levels of multigrid: an exact correction of the mean of each.

Where coefficients jump by c, an error that is constant on a conductor has about 1/c of the energy that its
size suggests. A level corrects it as long as the levels below have a cell for that conductor alone; once two
share a cell, each such pair leaves an eigenvalue of M A near 1/c. So every level of moderate size finds its
conductors and corrects their means before its first smoothing and after its last,

    x <- x + Z (Z^T A Z)^+ Z^T (b - A x),

columns of Z being their indicators: a projection in the A-norm, by which M stays symmetric and positive
definite and eigenvalues of M A do not grow. On the level above the one that ties conductors together,
indicators are close to the modes that it gets wrong. On the finest level alone they are not: the energy of an
indicator is that of its mode times radius/h, and a solve takes half as many iterations again.

Cost: reads of the conductors' cells, twice a visit, and of the faces around them. Source: Nicolaides, SIAM J.
Numer. Anal. 24, 1987; Vuik, Segal and Meijerink, J. Comput. Phys. 152, 1999 (layers of large contrast).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuralsolve.kernels import table

MOST = 128  # conductors of a level, the largest ones: the matrix of their couplings is inverted densely
SMALLEST = 2  # cells: single ones are what smoothing is good at
RANK_TOLERANCE = 1e-12  # of the largest eigenvalue of the matrix with a diagonal of ones


@dataclass(frozen=True)
class Conductors:
    """Conductors of a level: see `kernels.reference.conductors`.

    Attributes
    ----------
    runs : (3, r) int32, conductor, first place and one after the last
    edges : (3, e) int32, conductor, place of its cell and of the one beyond, -1 for a fixed value
    couplings : (e,) float32
    inverse : (k, k) float32, pseudo-inverse of Z^T A Z
    """

    runs: Tensor
    edges: Tensor
    couplings: Tensor
    inverse: Tensor


_places, _numbers = torch.empty((3, 0), dtype=torch.int32), torch.empty(0, dtype=torch.float32)
NO_CONDUCTORS = Conductors(_places, _places, _numbers, _numbers.view(0, 0))


def find_conductors(
    faces: Tensor,
    inverse: Tensor,
    nominal: Sequence[float],
    shape: tuple[int, int, int],
    periodic: Sequence[bool],
) -> Conductors:
    """Return the conductors of a level, from its couplings."""
    K, n = table(), shape[0] * shape[1] * shape[2]
    code = torch.from_numpy(np.empty(n, np.uint16))
    if not K.conductor_code(faces, inverse, nominal, shape, periodic, code):
        return NO_CONDUCTORS
    labels = torch.from_numpy(np.empty(n, np.int32))
    cells = K.stencil_regions(code, shape, labels).numpy()
    largest = np.argsort(-cells, kind="stable")[:MOST]
    largest = largest[cells[largest] >= SMALLEST]
    if not len(largest):
        return NO_CONDUCTORS
    numbers = np.full(len(cells), -1, np.int32)
    numbers[largest] = np.arange(len(largest))
    runs, edges, couplings = K.conductor_parts(faces, labels, torch.from_numpy(numbers), shape, periodic)
    if not len(couplings):  # a whole region: its mean is A's null space
        return NO_CONDUCTORS
    own, other, g = edges[0].numpy(), edges[3].numpy(), couplings.numpy()
    return Conductors(runs, edges[:3], couplings, _inverse(own, other, g, len(largest)))


def _inverse(own: np.ndarray, other: np.ndarray, g: np.ndarray, k: int) -> Tensor:
    """Return the pseudo-inverse of Z^T A Z from the couplings of conductors `own` to others, -1 for none.

    Some may be coupled to each other alone: then the matrix is singular. Rows are scaled, as conductors of
    all sizes are as important.
    """
    E = np.diag(np.bincount(own, g, k))
    both = other >= 0
    E -= np.bincount(own[both].astype(np.int64) * k + other[both], g[both], k * k).reshape(k, k)
    diagonal = E.diagonal()
    scale = np.where(diagonal > 0, 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1)), 0)
    values, vectors = np.linalg.eigh(scale[:, None] * E * scale)
    good = values > RANK_TOLERANCE * values.max()
    vectors = scale[:, None] * vectors[:, good]
    return torch.from_numpy((vectors / values[good] @ vectors.T).astype(np.float32))


def packed(parts: Sequence[Conductors]) -> tuple[Tensor, Tensor, Tensor]:
    """Lay the conductors of several levels into one piece, for `levels_cycle`.

    Returns places int32 (runs, then edges, of every level), numbers float32 (couplings, then the inverse) and
    a table (levels, 5): where places and numbers of a level begin; its runs, edges and conductors.
    """
    rows, places, numbers, at, at_number = [], [NO_CONDUCTORS.runs], [NO_CONDUCTORS.couplings], 0, 0
    for part in parts:
        r, e, k = part.runs.shape[1], part.edges.shape[1], len(part.inverse)
        rows.append([at, at_number, r, e, k])
        places += [part.runs, part.edges]
        numbers += [part.couplings, part.inverse]
        at, at_number = at + 3 * (r + e), at_number + e + k * k
    flat = torch.cat([each.reshape(-1) for each in places]), torch.cat([each.reshape(-1) for each in numbers])
    return *flat, torch.tensor(rows, dtype=torch.int64)
