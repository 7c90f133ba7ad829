"""Matrices with prescribed singular values, and what holds of every decomposition."""

from __future__ import annotations

import torch

TYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def orthonormal(generator, *shape, dtype=torch.float64):
    return torch.linalg.qr(torch.randn(shape, generator=generator, dtype=dtype)).Q


def matrix(generator, m, n, s, dtype=torch.float64, batch=()):
    """A (*batch, m, n) with the singular values s, and random vectors."""
    U = orthonormal(generator, *batch, m, len(s), dtype=dtype)
    V = orthonormal(generator, *batch, n, len(s), dtype=dtype)
    return (U * torch.as_tensor(s).to(dtype)) @ V.mH


def decaying(p, power=1.0):
    return torch.arange(1, p + 1, dtype=torch.float64) ** -power


def eps(dtype):
    return torch.finfo(dtype).eps


def identity_error(Q):
    """||Q^H Q - I||_F, the largest of a batch."""
    eye = torch.eye(Q.shape[-1], dtype=Q.dtype)
    return float(torch.linalg.matrix_norm(Q.mH @ Q - eye).max())


def assert_svd(found, A):
    """Orthonormal U and Vh, s real and descending, the sign rule, and an error that is true."""
    U, s, Vh = found.U, found.s, found.Vh
    m, n, r = *A.shape[-2:], found.rank
    assert found.shape == tuple(A.shape)
    assert (U.shape[-2:], s.shape[-1:], Vh.shape[-2:]) == ((m, r), (r,), (r, n))
    assert not s.is_complex()
    assert (s >= 0).all()
    assert (s[..., :-1] >= s[..., 1:]).all()
    e = eps(A.dtype)
    assert identity_error(U) <= 400 * r * e
    assert identity_error(Vh.mH) <= 400 * r * e
    top = U.gather(-2, U.abs().argmax(-2, keepdim=True))
    assert (top.real > 0).all()
    assert (torch.view_as_real(top)[..., 1].abs() <= 8 * e).all() if U.is_complex() else True
    norm = torch.linalg.matrix_norm(A)
    true = torch.linalg.matrix_norm(A - found.to_dense())
    # LAPACK's backward error is a few (m + n) eps ||A||; that of ||A||^2 - sum s^2 is divided by the error
    by_norms = true > 9 * e**0.5 * norm
    rounding = 4 * (m + n) * e * norm * torch.where(by_norms, norm / true, torch.ones_like(norm))
    assert ((found.error - true).abs() <= rounding).all()
