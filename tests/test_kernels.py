"""The kernel table, and the laws of the vector kernels."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch
from kernel_laws import COLUMNS, assert_close, assert_kernel_law, exactly, normal

from neuralsolve.errors import OptionError
from neuralsolve.kernels import table, use

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
SIZES = pytest.mark.parametrize("n", [1, 2, 201])
LARGE = 300_007  # above the size from which loops are shared between threads


def test_tables_offer_the_same_functions():
    with use("reference") as reference, use("cpu") as cpu:
        assert sorted(reference.__all__) == sorted(cpu.__all__)
        for name in cpu.__all__:
            theirs, ours = (inspect.signature(getattr(room, name)) for room in (reference, cpu))
            assert list(theirs.parameters) == list(ours.parameters), name


def test_use_lasts_for_its_block_only():
    assert table("cpu").__name__.endswith("cpu")
    with use("reference") as reference:
        assert table(torch.device("cpu")) is reference
        with pytest.raises(OptionError, match="use\\('reference'\\)"), use("fortran"):
            pass
    assert table("cpu").__name__.endswith("cpu")


def test_other_devices_are_served_by_plain_torch():
    assert table("meta").__name__.endswith("reference")


def test_the_room_opens_without_numba():
    code = "import sys, neuralsolve.kernels; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@DTYPES
@SIZES
@COLUMNS
def test_dot_obeys_the_kernel_law(every_room, generator, dtype, n, columns):
    x, y = normal(generator, n, *columns, dtype=dtype), normal(generator, n, *columns, dtype=dtype)
    X, Y = exactly(x, y)
    plain = (x * y).sum(0)
    # Float32 sums are kept in float64: one rounding at the end, and n in float64.
    eps, working = torch.finfo(dtype).eps, torch.finfo(torch.float64).eps
    exact = (X * Y).sum(0)
    bound = eps * np.abs(exact) + n * working * (np.abs(X) * np.abs(Y)).sum(0)
    got = every_room.dot(x, y)
    assert got.dtype == dtype
    assert got.shape == columns
    assert_kernel_law(got, plain, exact, bound)


@COLUMNS
def test_dot_of_large_vectors(all_kernels, generator, columns):
    x, y = normal(generator, LARGE, *columns), normal(generator, LARGE, *columns)
    X, Y = exactly(x, y)
    bound = LARGE * torch.finfo(torch.float64).eps * (np.abs(X) * np.abs(Y)).sum(0)
    assert_kernel_law(all_kernels.dot(x, y), (x * y).sum(0), (X * Y).sum(0), bound)


@DTYPES
@SIZES
@COLUMNS
def test_updates_obey_the_kernel_law(every_room, generator, dtype, n, columns):
    alpha = normal(generator, *columns, dtype=dtype)
    x, y = normal(generator, n, *columns, dtype=dtype), normal(generator, n, *columns, dtype=dtype)
    (a, X, Y), eps = exactly(alpha, x, y), torch.finfo(dtype).eps
    got = y.clone()
    every_room.axpy(alpha, x, got)
    assert_kernel_law(got, y + alpha * x, Y + a * X, 2 * eps * (np.abs(Y) + np.abs(a * X)))
    got = y.clone()
    every_room.xpby(x, alpha, got)
    assert_kernel_law(got, x + alpha * y, X + a * Y, 2 * eps * (np.abs(X) + np.abs(a * Y)))


@COLUMNS
def test_a_step_of_no_length_leaves_all_as_it_is(every_room, generator, columns):
    x, r = normal(generator, 40, *columns), normal(generator, 40, *columns)
    new_x, new_r, nan = x.clone(), r.clone(), torch.full_like(x, torch.nan)
    rr = every_room.cg_update(torch.zeros(columns, dtype=torch.float64), nan, nan, new_x, new_r)
    assert torch.equal(new_x, x)
    assert torch.equal(new_r, r)
    torch.testing.assert_close(rr, (r * r).sum(0), rtol=1e-14, atol=0)


def test_a_scalar_serves_every_column(every_room, generator):
    x, y = normal(generator, 20, 3), normal(generator, 20, 3)
    expected = y + 0.25 * x
    every_room.axpy(torch.tensor(0.25, dtype=torch.float64), x, y)
    assert_close(y, expected, torch.finfo(torch.float64).eps)


@DTYPES
@SIZES
@COLUMNS
def test_cg_update_is_two_updates_and_a_norm(every_room, generator, dtype, n, columns):
    p, Ap, x, r = (normal(generator, n, *columns, dtype=dtype) for _ in range(4))
    alpha, eps = normal(generator, *columns, dtype=dtype), torch.finfo(dtype).eps
    a, P, Q, X, R = exactly(alpha, p, Ap, x, r)
    new_x, new_r = x.clone(), r.clone()
    rr = every_room.cg_update(alpha, p, Ap, new_x, new_r)
    assert_kernel_law(new_x, x + alpha * p, X + a * P, 2 * eps * (np.abs(X) + np.abs(a * P)))
    assert_kernel_law(new_r, r - alpha * Ap, R - a * Q, 2 * eps * (np.abs(R) + np.abs(a * Q)))
    assert rr.dtype == dtype
    (R_new,) = exactly(new_r)
    exact = (R_new**2).sum(0)
    # The sum may be over the new r before it is rounded to the dtype: 2 eps more.
    assert_kernel_law(rr, (new_r**2).sum(0), exact, (n * torch.finfo(torch.float64).eps + 3 * eps) * exact)


def labelled(generator, n, components):
    """Labels that are both runs and scattered, with some entries in no component."""
    labels = torch.arange(n, dtype=torch.int32) * components // n
    scattered = torch.rand(n, generator=generator) < 0.3
    labels[scattered] = torch.randint(-1, components, (n,), generator=generator, dtype=torch.int32)[scattered]
    return labels, torch.bincount(labels[labels >= 0], minlength=components)


@DTYPES
@pytest.mark.parametrize("components", [1, 4])
@COLUMNS
def test_subtract_means_is_the_projection_off_the_components(
    every_room, generator, dtype, components, columns
):
    labels, counts = labelled(generator, 201, components)
    v = normal(generator, 201, *columns, dtype=dtype) + 1
    outside = labels < 0
    v[outside] = torch.nan
    before = v.clone()
    removed = every_room.subtract_means(labels, counts, v)
    eps = torch.finfo(dtype).eps
    assert v[outside].isnan().all()  # not touched, and not mixed into the others
    for c in range(components):
        part, old = v[labels == c].double(), before[labels == c].double()
        # Either mean errs by the rounding of its sum, kept in float64, and of the entries.
        slack = 2 * len(old) * torch.finfo(torch.float64).eps + 2 * eps
        assert (part.mean(0).abs() <= slack * (old.abs().mean(0) + part.abs().mean(0))).all()
        assert_close(part - part.mean(0), old - old.mean(0), 2 * slack)
    # Pythagoras: what was removed is orthogonal to what stays.
    norms = before[~outside].double().square().sum(0), v[~outside].double().square().sum(0)
    gap = (removed.double().square() - (norms[0] - norms[1])).abs()
    assert (gap <= 201 * eps * norms[0]).all()


def test_subtract_means_of_an_empty_component(every_room):
    v = torch.tensor([3.0, 5.0], dtype=torch.float64)
    removed = every_room.subtract_means(torch.tensor([0, 0], dtype=torch.int32), torch.tensor([2, 0]), v)
    assert v.tolist() == [-1.0, 1.0]
    assert removed.item() == pytest.approx(4 * 2**0.5, rel=1e-15)


@COLUMNS
def test_nan_and_infinity_stay_visible(every_room, generator, columns):
    one = torch.ones(columns, dtype=torch.float64)
    for bad in (torch.nan, torch.inf):
        x, y = normal(generator, 50, *columns), normal(generator, 50, *columns)
        x[17] = bad
        assert not every_room.dot(x, x).isfinite().any()
        every_room.axpy(one, x, y)
        assert not y[17].isfinite().any()
        assert y.isfinite().sum() == 49 * max(1, sum(columns))
        r = normal(generator, 50, *columns)
        assert not every_room.cg_update(one, y, x, torch.zeros_like(x), r).isfinite().any()


@pytest.mark.parametrize("k", [1, 257])
def test_one_column_and_more_columns_than_a_block(all_kernels, generator, k):
    by_columns_as_by_vectors(all_kernels, generator, k)


def test_more_columns_than_a_tile(every_room, generator):
    by_columns_as_by_vectors(every_room, generator, 37)


def by_columns_as_by_vectors(kernels, generator, k):
    n = 4
    alpha, columns = normal(generator, k), [normal(generator, n, k) for _ in range(4)]
    p, Ap, x, r = (v.clone() for v in columns)
    kernels.axpy(alpha, p, x)
    kernels.xpby(x, alpha, p)
    rr, xr = kernels.cg_update(alpha, p, Ap, x, r), kernels.dot(x, r)
    assert rr.shape == xr.shape == (k,)
    for j in range(0, k, 1 + k // 4):
        P, Q, X, R = (v[:, j].clone() for v in columns)
        kernels.axpy(alpha[j], P, X)
        kernels.xpby(X, alpha[j], P)
        one = kernels.cg_update(alpha[j], P, Q, X, R)
        eps = 4 * torch.finfo(torch.float64).eps
        for got, expected in ((p, P), (x, X), (r, R)):
            assert_close(got[:, j], expected, eps)
        assert_close(rr[j], one, n * eps)
        assert abs(float(xr[j] - X @ R)) <= n * eps * float(X.norm() * R.norm())


@DTYPES
@COLUMNS
@pytest.mark.parametrize("n", [1, 2, 201])
def test_masked_copies_and_the_largest_entry(every_room, generator, dtype, columns, n):
    masked_copies(every_room, generator, dtype, columns, n)


@DTYPES
@COLUMNS
def test_masked_copies_of_large_vectors(all_kernels, generator, dtype, columns):
    masked_copies(all_kernels, generator, dtype, columns, LARGE)


def masked_copies(kernels, generator, dtype, columns, n):
    x, active = normal(generator, n, *columns, dtype=dtype), torch.rand(n, generator=generator) < 0.7
    active[0] = True
    x[~active] = torch.nan  # never used
    expected = torch.where(active if x.ndim == 1 else active[:, None], x, 0.0)
    out = torch.full_like(x, torch.inf)
    assert kernels.masked_copy(active, x, out) == float(expected.abs().max())
    assert torch.equal(out, expected)
    assert kernels.largest(out) == float(expected.abs().max())
    for bad in (torch.inf, -torch.inf, torch.nan):
        x.view(-1)[0] = bad
        seen = [kernels.masked_copy(active, x, out), kernels.largest(out)]
        assert all(np.isnan(v) if np.isnan(bad) else v == np.inf for v in seen)
