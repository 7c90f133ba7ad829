"""Laws of the random mixtures of rows and columns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_laws import assert_kernel_law, exactly, normal

from neuralsolve.kernels import reference

SHAPES = pytest.mark.parametrize(("m", "n"), [(1, 1), (8, 8), (5, 21), (33, 7), (61, 130), (300, 1100)])
ROWS = 12


def drawn(generator, count, groups):
    signs = 2.0 * torch.randint(2, (count,), generator=generator) - 1
    places = torch.stack([torch.randperm(ROWS, generator=generator)[:8] for _ in range(groups)])
    return signs, places


@SHAPES
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_mixtures_of_rows_obey_the_kernel_law(all_kernels, generator, dtype, m, n):
    A, (signs, places) = normal(generator, m, n, dtype=dtype), drawn(generator, m, -(-m // 8))
    plain, out = torch.empty((ROWS, n)), torch.full((ROWS, n), torch.nan)
    reference.hadamard_sketch(A, signs, places, plain)
    squares = all_kernels.hadamard_sketch(A, signs, places, out)
    S = torch.empty((ROWS, m))
    reference.hadamard_sketch(torch.eye(m), signs, places, S)
    entries = (
        S.sign().numpy()
        * np.round(8**0.5 * np.abs(S.numpy().astype(np.longdouble)))
        / 8 ** np.longdouble(0.5)
    )
    (exact,) = exactly(A)
    bound = (m + 5) * torch.finfo(torch.float32).eps * (np.abs(entries) @ np.abs(exact))
    assert_kernel_law(out, plain, entries @ exact, bound)
    assert abs(squares - float((exact**2).sum())) <= (m * n + 3) * torch.finfo(dtype).eps * squares


@SHAPES
def test_mixtures_of_columns_are_those_of_rows_of_each_class(all_kernels, generator, m, n):
    B, (signs, places) = normal(generator, m, n, dtype=torch.float32), drawn(generator, n, -(-n // 64))
    out = torch.full((m, 8 * ROWS), torch.nan)
    squares = all_kernels.hadamard_sketch_columns(B, signs, places, out)
    count = -(-n // 8)
    padded = torch.nn.functional.pad(B * signs, (0, 8 * count - n))
    for q in range(8):
        mixed = torch.empty((ROWS, m))
        reference.hadamard_sketch(padded[:, q::8].T.contiguous(), torch.ones(count), places, mixed)
        bound = (count + 5) * torch.finfo(torch.float32).eps * B.abs().sum(1)
        assert ((out[:, q::8] - mixed.T).abs() <= bound[:, None]).all()
    assert abs(squares - float(B.double().square().sum())) <= 1e-6 * squares


def test_rows_of_a_group_stay_orthogonal_and_each_keeps_its_length(all_kernels, generator):
    m, rows = 203, 40
    signs = 2.0 * torch.randint(2, (m,), generator=generator) - 1
    places = torch.stack([torch.randperm(rows, generator=generator)[:8] for _ in range(26)])
    S = torch.empty((rows, m))
    all_kernels.hadamard_sketch(torch.eye(m), signs, places, S)
    assert ((S != 0).sum(0) == 8).all()
    for group in (torch.arange(3, 200, 25), torch.arange(200, 203)):
        assert (S[:, group].T @ S[:, group] - torch.eye(len(group))).abs().max() <= 1e-6


def test_squares_of_small_numbers_are_not_lost_beside_those_of_large_ones(all_kernels, generator):
    m, n = 640, 1100
    signs, places = drawn(generator, m, m // 8)
    A = 3e-8 * normal(generator, m, n)
    A[0] = 1.0  # sums of n/8, to which squares of 1e-15 add nothing one by one
    small = float((exactly(A)[0][1:] ** 2).sum())
    squares = all_kernels.hadamard_sketch(A, signs, places, torch.empty((ROWS, n)))
    assert abs(squares - n - small) <= 0.05 * small


def test_a_number_that_is_none_shows_in_the_sum_of_squares(all_kernels, generator):
    signs, places = drawn(generator, 20, 3)
    for bad in (torch.nan, torch.inf):
        A = normal(generator, 20, 11)
        A[17, 9] = bad
        assert not np.isfinite(all_kernels.hadamard_sketch(A, signs, places, torch.empty((ROWS, 11))))
