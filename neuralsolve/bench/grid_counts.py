"""Iterations of SOR, and of CG with SSOR for many omegas at once, on small grids, in numba.

A is a 5-point matrix: `diagonal` (ny, nx), and the couplings of neighbours, `across` (ny, nx + 1) and `down`
(ny + 1, nx), one for each face, zero on the boundary; entries of A are their negatives. A point outside of
the domain has the diagonal 1, no couplings, and b = 0. Rows are swept in order, as `SOR` and `SSOR` have it
and counts are theirs.

In CG with SSOR the omegas are lanes, a last axis of all vectors, which hides the latency of the sweeps.
Vectors are flat there, and indices unsigned: numba would else look for negative ones, and not use SIMD.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np

TOLERANCE, CAP = 1e-8, 10_000
LANES = 20
THREADS = 2


@dataclass(frozen=True)
class FivePoint:
    """A grid matrix; see the head of this file."""

    diagonal: np.ndarray
    across: np.ndarray
    down: np.ndarray

    @classmethod
    def laplacian(cls, points: int, scale: float = 1.0, shift: float = 0.0) -> FivePoint:
        """Return scale L + shift I, L the Laplacian with the diagonal 4."""
        across, down = np.zeros((points, points + 1)), np.zeros((points + 1, points))
        across[:, 1:-1] = down[1:-1] = scale
        return cls(np.full((points, points), 4 * scale + shift), across, down)

    def dense(self) -> np.ndarray:
        """Return A (n, n)."""
        number = np.arange(self.diagonal.size).reshape(self.diagonal.shape)
        A = np.diag(self.diagonal.ravel())
        for coupling, one, other in (
            (self.across[:, 1:-1], number[:, :-1], number[:, 1:]),
            (self.down[1:-1], number[:-1], number[1:]),
        ):
            A[one.ravel(), other.ravel()] = A[other.ravel(), one.ravel()] = -coupling.ravel()
        return A


def sor_count(
    A: FivePoint,
    c: float,
    b: np.ndarray,
    omega: float,
    norms: np.ndarray,
    tolerance: float = TOLERANCE,
    cap: int = CAP,
) -> int:
    """Return the sweeps of SOR from 0 on (A + c I) x = b; `norms` get ||b - A x||, as far as they reach."""
    sides = b.reshape(A.diagonal.shape)
    return _sor(A.diagonal, A.across, A.down, c, sides, omega, tolerance, cap, norms)


def sor_table(A: FivePoint, c: np.ndarray, b: np.ndarray, omegas: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the sweeps (T, d) of SOR from 0 on (A + c_t I) x = b_t; c (T,), b (T, n), omegas (d,)."""
    omegas, b = np.asarray(omegas, dtype=np.float64), b.reshape(len(c), *A.diagonal.shape)
    out = np.empty((len(c), len(omegas)))

    def part(rows: slice) -> None:
        _sor_rows(A.diagonal, A.across, A.down, c[rows], b[rows], omegas, TOLERANCE, CAP, out[rows])

    with ThreadPoolExecutor(THREADS) as pool:
        cuts = np.linspace(0, len(c), THREADS + 1).astype(int)
        list(pool.map(part, map(slice, cuts[:-1], cuts[1:])))
    return out


def ssor_cg_counts(
    A: FivePoint, b: np.ndarray, start: np.ndarray, omegas: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the iterations (d,) of CG with SSOR from `start` (n,), and x (n,) of the last omega."""
    shape, x = A.diagonal.shape, np.empty(A.diagonal.shape)
    counts = np.empty(-(-len(omegas) // LANES) * LANES)
    padded = np.concatenate([omegas, np.repeat(omegas[-1:], len(counts) - len(omegas))])
    for first in range(0, len(counts), LANES):
        lanes, sides = slice(first, first + LANES), (b.reshape(shape), start.reshape(shape))
        matrix = A.diagonal, A.across, A.down
        _ssor_cg(*matrix, *sides, padded[lanes], TOLERANCE, CAP, counts[lanes], x)
    return counts[: len(omegas)], x.ravel()


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _sor(diagonal, across, down, c, b, omega, tolerance, cap, norms):
    ny, nx = diagonal.shape
    x, scale, base = np.zeros((ny + 2, nx + 2)), omega / (diagonal + c), np.empty(nx)
    first = np.sum(b * b)
    if norms.size:
        norms[0] = np.sqrt(first)
    for sweep in range(1, cap + 1):
        for i in range(ny):
            above, here, below = x[i, 1:-1], x[i + 1, 1:-1], x[i + 2, 1:-1]
            right = x[i + 1, 2:]
            north, south, west, east = down[i], down[i + 1], across[i], across[i, 1:]
            rhs, factor = b[i], scale[i]
            for j in range(nx):
                around = north[j] * above[j] + south[j] * below[j] + east[j] * right[j]
                base[j] = (1 - omega) * here[j] + factor[j] * (rhs[j] + around)
            last = 0.0
            for j in range(nx):
                last = base[j] + factor[j] * west[j] * last
                here[j] = last
        total = _square_norm(diagonal, across, down, c, b, x)
        if sweep < norms.size:
            norms[sweep] = np.sqrt(total)
        if total <= tolerance * tolerance * first:
            return sweep
    return cap


@numba.njit(cache=True, nogil=True, fastmath=True)
def _square_norm(diagonal, across, down, c, b, x):
    """Return ||b - (A + c I) x||^2; x with its frame."""
    ny, nx = diagonal.shape
    total = 0.0
    for i in range(ny):
        above, here, below = x[i, 1:-1], x[i + 1, 1:-1], x[i + 2, 1:-1]
        left, right = x[i + 1, :-2], x[i + 1, 2:]
        north, south, west, east = down[i], down[i + 1], across[i], across[i, 1:]
        rhs, d = b[i], diagonal[i]
        for j in range(nx):
            around = north[j] * above[j] + south[j] * below[j] + west[j] * left[j] + east[j] * right[j]
            r = rhs[j] + around - (d[j] + c) * here[j]
            total += r * r
    return total


@numba.njit(cache=True, nogil=True)
def _sor_rows(diagonal, across, down, c, b, omegas, tolerance, cap, out):
    none = np.empty(0)
    for t in range(len(c)):
        for k in range(len(omegas)):
            out[t, k] = _sor(diagonal, across, down, c[t], b[t], omegas[k], tolerance, cap, none)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _ssor_cg(diagonal, across, down, b, start, omegas, tolerance, cap, counts, out):
    """Write iterations to counts (lanes,), x of the last lane to out (ny, nx)."""
    ny, nx = diagonal.shape
    size, lanes = (ny + 2) * (nx + 2) * LANES, np.uint64(LANES)
    x, r, z, p, q = np.zeros(size), np.zeros(size), np.zeros(size), np.zeros(size), np.zeros(size)
    total, rz, before = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    alpha, beta = np.zeros(LANES), np.zeros(LANES)
    limit = tolerance * np.sqrt(np.sum(b * b))
    for i in range(ny):
        for j in range(nx):
            at = ((i + 1) * (nx + 2) + j + 1) * LANES
            x[at : at + LANES] = start[i, j]
            r[at : at + LANES] = b[i, j]
    _product(diagonal, across, down, x, q, total)
    r -= q
    _dots(r, r, total)
    counts[:] = -1.0
    left = LANES
    for step in range(cap + 1):
        for k in range(LANES):
            if counts[k] < 0 and (np.sqrt(total[k]) <= limit or step == cap):
                counts[k] = step
                left -= 1
        if left == 0:
            break
        _precondition(diagonal, across, down, r, omegas, z)
        before[:] = rz
        _dots(r, z, rz)
        for k in range(LANES):
            beta[k] = rz[k] / before[k] if step > 0 and counts[k] < 0 else 0.0
        for at in range(np.uint64(0), np.uint64(size), lanes):
            for k in range(lanes):
                p[at + k] = z[at + k] + beta[k] * p[at + k]
        _product(diagonal, across, down, p, q, total)
        for k in range(LANES):
            alpha[k] = rz[k] / total[k] if counts[k] < 0 else 0.0
        total[:] = 0.0
        for at in range(np.uint64(0), np.uint64(size), lanes):
            for k in range(lanes):
                x[at + k] += alpha[k] * p[at + k]
                r[at + k] -= alpha[k] * q[at + k]
                total[k] += r[at + k] * r[at + k]
    for i in range(ny):
        for j in range(nx):
            out[i, j] = x[((i + 1) * (nx + 2) + j + 2) * LANES - 1]


@numba.njit(cache=True, nogil=True)
def _dots(x, y, out):
    """Set out (lanes,) = x . y, lane by lane."""
    lanes = np.uint64(LANES)
    out[:] = 0.0
    for at in range(np.uint64(0), np.uint64(x.size), lanes):
        for k in range(lanes):
            out[k] += x[at + k] * y[at + k]


@numba.njit(cache=True, nogil=True)
def _product(diagonal, across, down, x, out, total):
    """Set out = A x, total (lanes,) = x . A x."""
    ny, nx = diagonal.shape
    row, one = np.uint64((nx + 2) * LANES), np.uint64(LANES)
    total[:] = 0.0
    for i in range(ny):
        for j in range(nx):
            north, south, d = down[i, j], down[i + 1, j], diagonal[i, j]
            west, east = across[i, j], across[i, j + 1]
            p = np.uint64(((i + 1) * (nx + 2) + j + 1) * LANES)
            for k in range(one):
                q = p + k
                y = d * x[q] - north * x[q - row] - west * x[q - one] - east * x[q + one] - south * x[q + row]
                out[q] = y
                total[k] += x[q] * y


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _precondition(diagonal, across, down, r, omegas, z):
    """Set z = (2 - omega) omega (D + omega U)^-1 D (D + omega L)^-1 r."""
    ny, nx = diagonal.shape
    row, one = np.uint64((nx + 2) * LANES), np.uint64(LANES)
    for i in range(ny):
        for j in range(nx):
            north, west, inverse = down[i, j], across[i, j], 1 / diagonal[i, j]
            p = np.uint64(((i + 1) * (nx + 2) + j + 1) * LANES)
            for k in range(one):
                q = p + k
                z[q] = inverse * (r[q] + omegas[k] * (north * z[q - row] + west * z[q - one]))
    for i in range(ny - 1, -1, -1):
        for j in range(nx - 1, -1, -1):
            south, east, inverse = down[i + 1, j], across[i, j + 1], 1 / diagonal[i, j]
            p = np.uint64(((i + 1) * (nx + 2) + j + 1) * LANES)
            for k in range(one):
                q = p + k
                z[q] += omegas[k] * inverse * (east * z[q + one] + south * z[q + row])
    for at in range(np.uint64(0), np.uint64(z.size), one):
        for k in range(one):
            z[at + k] *= omegas[k] * (2 - omegas[k])
