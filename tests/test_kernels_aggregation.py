"""Laws of the kernels of smoothed aggregation and of Gauss-Seidel within blocks, by dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_laws import COLUMNS, csr, normal, spd

N = 61
THETA, OMEGA = 0.25, 1.6
F64, F32 = torch.float64, torch.float32
TYPES = pytest.mark.parametrize("dtype", [F64, F32], ids=["f64", "f32"])


def dense(indptr, indices, values, columns):
    """The matrix of CSR arrays in any order, explicit zeros and all."""
    out = torch.zeros((len(indptr) - 1, columns), dtype=F64)
    rows = torch.repeat_interleave(torch.arange(len(indptr) - 1), torch.diff(indptr))
    return out.index_put_((rows, indices.long()), values.to(F64), accumulate=True)


def graph(generator, share=0.05):
    """A sparse SPD matrix with couplings of both signs, an isolated row and a row of zeros."""
    A = spd(generator, N, share)
    signs = torch.sign(torch.rand((N, N), generator=generator, dtype=F64) - 0.15)
    A = A * torch.triu(signs, 1).add(torch.triu(signs, 1).T).fill_diagonal_(1)
    for i in (7, 30):
        A[i, :] = A[:, i] = 0
    A[7, 7] = 2.0
    return A


def sizes(kernels, A):
    diagonal, scale = torch.empty(len(A), dtype=F64), torch.empty(len(A), dtype=F64)
    kernels.csr_row_sizes(*csr(A), diagonal, scale)
    return diagonal, scale


def aggregates(kernels, A, theta=THETA):
    labels = torch.empty(len(A), dtype=torch.int32)
    count = kernels.csr_aggregate(*csr(A), sizes(kernels, A)[1], theta, labels)
    return labels, count


def strong(A, theta=THETA):
    off = A - torch.diag(A.diagonal())
    scale = off.abs().max(1).values.sqrt()
    return off.abs() > theta * scale[:, None] * scale[None, :]


def test_sizes_are_the_diagonal_and_the_largest_coupling(all_kernels, generator):
    A = graph(generator)
    diagonal, scale = sizes(all_kernels, A)
    torch.testing.assert_close(diagonal, A.diagonal(), rtol=0.0, atol=0.0)
    off = A - torch.diag(A.diagonal())
    torch.testing.assert_close(scale**2, off.abs().max(1).values, rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("theta", [0.0, 0.25, 0.9])
def test_aggregates_partition_the_coupled_rows_and_are_connected(all_kernels, generator, theta):
    A = graph(generator)
    labels, count = aggregates(all_kernels, A, theta)
    links = strong(A, theta)
    assert torch.equal(labels >= 0, links.any(1))  # all rows with a strong coupling, no others
    assert torch.equal(torch.unique(labels[labels >= 0]).long(), torch.arange(count))
    assert torch.bincount(labels[labels >= 0]).min() >= 2
    for c in range(count):
        inside = links[labels == c][:, labels == c].double() + torch.eye(int((labels == c).sum()))
        assert bool((torch.linalg.matrix_power(inside, len(inside)) > 0).all())


def test_both_rooms_cut_the_same_aggregates(generator):
    from neuralsolve.kernels import cpu, reference

    A = graph(generator, 0.1)
    (one, m), (other, k) = aggregates(reference, A), aggregates(cpu, A)
    assert m == k
    assert torch.equal(one, other)


def smoothed(A, labels, count):
    """P = (I - W A_F) T from its definition."""
    weak = ~strong(A) & ~torch.eye(len(A), dtype=torch.bool)
    dropped = torch.where(weak, A, 0.0)
    filtered = A - dropped + torch.diag(dropped.sum(1))
    row = filtered.abs().sum(1)
    W = torch.where(row > 0, OMEGA / row, 0.0)
    T = (labels[:, None] == torch.arange(count)).to(F64)
    return T - W[:, None] * (filtered @ T)


def level(kernels, A, longest=N):
    diagonal, scale = sizes(kernels, A)
    labels, count = aggregates(kernels, A)
    P = kernels.csr_smoothed_aggregates(*csr(A), scale, THETA, OMEGA, labels, count, longest)
    return diagonal, labels, count, P


def test_prolongation_is_its_formula(all_kernels, generator):
    A = graph(generator)
    _, labels, count, P = level(all_kernels, A)
    assert P[2].dtype == F32
    torch.testing.assert_close(
        dense(*P, count), smoothed(A, labels, count), rtol=0.0, atol=4 * torch.finfo(F32).eps
    )


def test_long_rows_are_not_smoothed(all_kernels, generator):
    A = graph(generator)
    lengths = (A != 0).sum(1)
    longest = int(lengths.median())
    _, labels, count, P = level(all_kernels, A, longest)
    expected = smoothed(A, labels, count)
    expected[lengths > longest] = (labels[:, None] == torch.arange(count)).to(F64)[lengths > longest]
    torch.testing.assert_close(dense(*P, count), expected, rtol=0.0, atol=4 * torch.finfo(F32).eps)
    assert len(P[2]) == int((expected != 0).sum())


def test_prolongation_keeps_the_constant_of_a_laplacian(all_kernels, generator):
    """Rows of A sum to zero, so those of A_F do, and P 1 = 1."""
    A = spd(generator, N)
    A -= torch.diag(A.sum(1))
    _, _, count, P = level(all_kernels, A)
    torch.testing.assert_close(
        dense(*P, count).sum(1), torch.ones(N, dtype=F64), rtol=0.0, atol=8 * torch.finfo(F32).eps
    )


def test_transpose_is_the_transpose(all_kernels, generator):
    A = graph(generator)[:, :40].contiguous()
    T = all_kernels.csr_transpose(*csr(A), 40)
    assert torch.equal(dense(*T, N), A.T)
    assert bool((torch.diff(T[1]) > 0)[torch.diff(torch.repeat_interleave(torch.diff(T[0]))) == 0].all())


@pytest.mark.parametrize("room", [4, 1])
def test_galerkin_is_the_triple_product(all_kernels, generator, room, monkeypatch):
    monkeypatch.setattr("neuralsolve.kernels.cpu.aggregation.ROOM", room)  # of 1 there is not enough
    A = graph(generator)
    diagonal, _, count, P = level(all_kernels, A)
    R = all_kernels.csr_transpose(*P, count)
    got = dense(*all_kernels.csr_galerkin(*csr(A), diagonal, *P, *R, 1e-12), count)
    whole = dense(*P, count)
    expected = whole.T @ A @ whole
    torch.testing.assert_close(got, expected, rtol=0.0, atol=1e-13 * float(expected.abs().max()))


def test_a_region_that_has_shrunk_to_one_unknown_is_zero(all_kernels):
    """Two triangles of weights that do not sum to zero exactly: P^T A P is zero but for rounding."""
    triangle = torch.tensor([[0.1 + 0.7, -0.1, -0.7], [-0.1, 0.1 + 0.3, -0.3], [-0.7, -0.3, 1.0]], dtype=F64)
    A = torch.block_diag(triangle, 1e5 * triangle)
    diagonal, _, count, P = level(all_kernels, A)
    R = all_kernels.csr_transpose(*P, count)
    coarse = all_kernels.csr_galerkin(*csr(A), diagonal, *P, *R, 1e-12)
    assert count == 2
    assert not coarse[2].any()


# Gauss-Seidel within blocks


def parts_of(A, starts):
    """D, L and E = A - D - L of the definition, dense; zero where the diagonal is not positive."""
    n = len(A)
    block = torch.bucketize(torch.arange(n), starts, right=True)
    same = block[:, None] == block
    between = torch.where(same, 0.0, A).abs().sum(1)
    D = torch.maximum(A.diagonal(), 0.75 * A.diagonal() + 0.5 * between)
    L = torch.where(same, torch.tril(A, -1), 0.0)
    return D, L, same


STARTS = pytest.mark.parametrize(
    "starts", [[0, N], [0, 20, 45, N], [0, 0, 1, N], list(range(N + 1))], ids=["one", "three", "empty", "all"]
)


@STARTS
def test_split_is_its_definition(all_kernels, generator, starts):
    A, starts = graph(generator), torch.tensor(starts)
    *parts, divisor, inverse = all_kernels.csr_block_split(*csr(A), starts, 0.5, F64)
    L, E = dense(*parts[:3], N), dense(*parts[3:], 2 * N)
    D, lower, same = parts_of(A, starts)
    used = D > 0
    torch.testing.assert_close(divisor, 0.5 * D, rtol=1e-15, atol=0.0)
    torch.testing.assert_close(inverse[used], 1 / divisor[used], rtol=1e-15, atol=0.0)
    assert not inverse[~used].any()
    assert not E[:, :N][~same].any()  # other blocks are seen in the second half alone
    assert not E[:, N:][same].any()
    torch.testing.assert_close(D[:, None] * L, lower, rtol=1e-14, atol=0.0)
    whole = D[:, None] * (L + E[:, :N] + E[:, N:]) + torch.diag(D)
    torch.testing.assert_close(whole, A, rtol=1e-14, atol=1e-14)


@STARTS
@COLUMNS
@TYPES
def test_sweeps_are_their_formulas(all_kernels, generator, starts, columns, dtype):
    A, starts = graph(generator), torch.tensor(starts)
    A[30, 30] = 1.0
    *parts, divisor, inverse = all_kernels.csr_block_split(*csr(A), starts, 1.0, dtype)
    D, L, _ = parts_of(A, starts)
    B = L + torch.diag(D)
    close = {"rtol": 0.0, "atol": 100 * torch.finfo(dtype).eps}
    b, x = normal(generator, N, *columns, dtype=dtype), torch.full((2 * N, *columns), torch.nan, dtype=dtype)
    all_kernels.csr_block_forward(*parts[:3], inverse, starts, b, x)
    expected = torch.linalg.solve(B, b.double())
    torch.testing.assert_close(x.double(), torch.cat([expected, expected]), **close)
    r = torch.empty_like(b)
    all_kernels.csr_block_residual(*parts[3:], divisor, x, r)
    torch.testing.assert_close(r.double(), b.double() - A @ expected, **close)
    P = torch.triu(A)[:, :9].contiguous()
    e = normal(generator, 9, *columns, dtype=dtype)
    all_kernels.csr_block_correct(*all_kernels.csr_padded(*csr(P), dtype), e, x)
    expected += P @ e.double()
    torch.testing.assert_close(x.double(), torch.cat([expected, expected]), **close)
    all_kernels.csr_block_backward(*parts, inverse, starts, b, x)
    expected += torch.linalg.solve(B.T, b.double() - A @ expected)
    torch.testing.assert_close(x[:N].double(), expected, **close)


@STARTS
def test_a_sweep_contracts_for_every_spd_matrix(all_kernels, generator, starts):
    """B + B^T - A >= diag(A) / 2: no dominance is needed, nor any sign of the couplings."""
    F = normal(generator, N, 12)
    A, starts = F @ F.T + 0.01 * torch.eye(N, dtype=F64), torch.tensor(starts)
    D, L, _ = parts_of(A, starts)
    *_, divisor, _ = all_kernels.csr_block_split(*csr(A), starts, 1.0, F64)
    torch.testing.assert_close(divisor, D, rtol=1e-15, atol=0.0)
    B = L + torch.diag(D)
    assert torch.linalg.eigvalsh(B + B.T - A - torch.diag(A.diagonal()) / 2).min() >= -1e-12


@TYPES
def test_padding_changes_nothing_but_the_length(all_kernels, generator, dtype):
    A = graph(generator)
    padded = all_kernels.csr_padded(*csr(A), dtype)
    assert padded[2].dtype == dtype
    torch.testing.assert_close(dense(*padded, N), A.to(dtype).double(), rtol=0.0, atol=0.0)
    assert np.all(np.diff(padded[0]) >= (A != 0).sum(1).numpy())
