"""LAPACK's decompositions of dense matrices, with what to do where the first driver gives up.

torch's divide-and-conquer SVD fails to converge for some finite matrices. Then the QR iteration (gesvd) is
tried, then the eigenvalues of [[0, A], [A^H, 0]], which are +-s: backward stable, as eigenvalue problems of
Hermitian matrices are, at about eight times the work.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuralsolve.errors import NonFiniteError


def dense_svd(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the thin U, s, Vh of A (..., m, n), s descending; autograd goes through all three."""
    try:
        return torch.linalg.svd(A, full_matrices=False)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        return _again(A)


def dense_singular_values(A: Tensor) -> Tensor:
    """Return s (..., min(m, n)) of A (..., m, n), descending."""
    try:
        return torch.linalg.svdvals(A)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        return _again(A)[1]


def dense_eigh(C: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, descending, and eigenvectors of Hermitian C (..., n, n)."""
    values, vectors = torch.linalg.eigh(C)
    return values.flip(-1), vectors.flip(-1)


def check_finite(A: Tensor, name: str = "A") -> None:
    """Refuse NaN and infinity, and say where the first of them stands."""
    if bool(torch.isfinite(A.detach().sum())):
        return
    bad = ~torch.isfinite(A.detach())
    if bool(bad.any()):  # else the sum alone overflowed
        place = tuple(int(index) for index in bad.nonzero()[0])
        msg = (
            f"{name} has {int(bad.sum())} NaN or infinite entries of {A.numel()}, the first at {place}; mend "
            f"them first: torch.isfinite({name}) finds them"
        )
        raise NonFiniteError(msg)


def _again(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the SVD by other drivers: slower, and harder to defeat."""
    try:
        if A.is_cuda:
            return torch.linalg.svd(A, full_matrices=False, driver="gesvd")
        return _by_qr_iteration(A.detach())
    except (RuntimeError, ValueError):  # the LinAlgErrors of torch and of SciPy
        return _by_eigenvalues(A.detach())


def _by_qr_iteration(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    import scipy.linalg

    matrices = A.reshape(-1, *A.shape[-2:])
    parts = [
        scipy.linalg.svd(matrix.numpy(), full_matrices=False, lapack_driver="gesvd") for matrix in matrices
    ]
    U, s, Vh = (torch.stack([torch.from_numpy(part[i]) for part in parts]) for i in range(3))
    batch = A.shape[:-2]
    return U.reshape(*batch, *U.shape[1:]), s.reshape(*batch, -1), Vh.reshape(*batch, *Vh.shape[1:])


def _by_eigenvalues(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    m, n = A.shape[-2:]
    p = min(m, n)
    H = A.new_zeros((*A.shape[:-2], m + n, m + n))
    H[..., :m, m:], H[..., m:, :m] = A, A.mH
    values, vectors = dense_eigh(H)
    # an eigenvector of s > 0 is (u, v)/sqrt(2); those of s = 0 mix with the null space: made orthonormal
    U = torch.linalg.qr(vectors[..., :m, :p] * 2**0.5).Q
    V = torch.linalg.qr(vectors[..., m:, :p] * 2**0.5).Q
    core = U.mH @ A @ V  # diagonal up to phases, and nearly so
    s = core.diagonal(dim1=-2, dim2=-1)
    phase = torch.where(s.abs() > 0, s / s.abs().clamp_min(torch.finfo(s.dtype).tiny), torch.ones_like(s))
    return U * phase[..., None, :], values[..., :p].clamp_min(0), V.mH
