"""What every diagonalised neighbour of a matrix must satisfy."""

from __future__ import annotations

import numpy as np
import pytest

EPS = np.finfo(float).eps


def check(near, A, relative_size=None):
    """A + E = V diag(l) V^-1 to its backward error, unit columns, sizes as told."""
    A, E, V, eigenvalues = (np.asarray(x) for x in (A, near.E, near.V, near.eigenvalues))
    n, kappa = len(A), np.linalg.cond(V)
    backward = np.linalg.norm((V * eigenvalues) @ np.linalg.inv(V) - A - E, 2)
    assert backward <= 50 * n * EPS * kappa * np.linalg.norm(A + E, 2)
    assert np.allclose(np.linalg.norm(V, axis=0), 1, rtol=1e-12)
    assert near.condition == pytest.approx(kappa, rel=1e-9)
    assert near.size == pytest.approx(np.linalg.norm(E, 2), rel=1e-12, abs=1e-300)
    assert near.relative_size * np.linalg.norm(A, 2) == pytest.approx(near.size)
    if relative_size is not None:
        assert near.relative_size <= relative_size * (1 + 1e-12)
    assert near.abscissa == eigenvalues.real.max()
    if near.stable:
        assert near.size < near.margin
        assert near.abscissa < 0
        rounding = 50 * n * EPS * kappa * np.linalg.norm(near.B if near.B is not None else np.eye(n), 2)
        assert near.transfer_error <= near.error_bound + rounding / near.margin
    else:
        assert near.error_bound is None


def check_pairs(near):
    places, weights = near.pairs()
    assert weights.sum() == len(near.eigenvalues)
    paired = places[weights == 2]
    others = np.setdiff1d(np.arange(len(near.eigenvalues)), places)
    # conjugate to the bit
    mirrored = {(z.real, -z.imag) for z in near.eigenvalues[paired]}
    assert mirrored == {(z.real, z.imag) for z in near.eigenvalues[others]}
    assert (near.eigenvalues[places[weights == 1]].imag == 0).all()
    columns = {tuple(column) for column in near.V[:, others].conj().T}
    assert columns == {tuple(column) for column in near.V[:, paired].T}
