"""Kernels of attention between points and tokens: both implementations agree, within the law on rounding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from kernel_laws import assert_close, normal
from torch import Tensor

from neuralsolve.kernels import use
from neuralsolve.kernels.reference.tokens import cut, joined

LANES = 8
# fields, sides, sides of a patch, heads, channels of a head, tokens, functions of a series
CASES = pytest.mark.parametrize(
    ("batch", "shape", "patch", "heads", "width", "tokens", "basis"),
    [
        (2, (8, 12), (4, 3), 8, 4, 4, 12),
        (3, (10,), (5,), 2, 3, 1, 5),
        (1, (4, 2, 6), (2, 1, 3), 11, 2, 3, 4),
        (1, (1, 1), (1, 1), 1, 1, 2, 1),
        (2, (7, 5), (7, 5), 16, 1, 5, 3),
    ],
    ids=str,
)
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


def given(generator, dtype, batch, shape, patch, heads, width, tokens, basis) -> dict[str, Any]:
    """Arguments of all kernels, by name."""
    G, n = -(-heads // LANES), batch * math.prod(shape)
    P, c = n // math.prod(patch), torch.arange(heads * width)
    order = ((c // width // LANES) * width + c % width) * LANES + c // width % LANES
    arrays = {
        "points": (n, G * (tokens + width) * LANES),
        "latent": (G, tokens, width, LANES),
        "z": (P, G, tokens, width, LANES),
        "of_z": (P, G, tokens, width, LANES),
        "x": (n, heads * width),
        "of_x": (n, heads * width),
        "queries": (n, G * width * LANES),
        "sines": (G, basis, width, LANES),
        "cosines": (G, basis, width, LANES),
    }
    made = {name: normal(generator, *sides, dtype=dtype) for name, sides in arrays.items()}
    return made | {"order": order, "shape": shape, "patch": patch}


def results(kernels, v) -> dict[str, Tensor]:
    """What all kernels write, by name."""
    sides, like, out = (v["shape"], v["patch"]), torch.empty_like, {}
    points = out["weights"] = v["points"].clone()
    out["tokens"] = like(v["z"])
    kernels.token_encode(points, *sides, v["latent"], out["tokens"])
    out["of_points"], out["of_latent"] = like(points), like(v["latent"])
    kernels.token_encode_backward(points, *sides, v["of_z"], out["of_points"], out["of_latent"])
    out["found"] = like(v["x"])
    kernels.token_decode(v["x"], v["queries"], *sides, v["order"], v["z"], out["found"])
    out["of_queries"], out["of_z"] = like(v["queries"]), like(v["z"])
    kernels.token_decode_backward(
        v["of_x"], v["queries"], *sides, v["order"], v["z"], out["of_queries"], out["of_z"]
    )
    out["series"] = like(v["z"])
    kernels.token_series(v["z"], v["sines"], v["cosines"], out["series"])
    out["of_seen"], out["of_sines"], out["of_cosines"] = like(v["z"]), like(v["sines"]), like(v["sines"])
    kernels.token_series_backward(
        v["z"], v["of_z"], v["sines"], v["cosines"], out["of_seen"], out["of_sines"], out["of_cosines"]
    )
    return out


@CASES
def test_kernels_equal_their_definition(
    all_kernels, generator, batch, shape, patch, heads, width, tokens, basis
):
    v = given(generator, torch.float64, batch, shape, patch, heads, width, tokens, basis)
    with use("reference") as reference:
        expected = results(reference, v)
    for name, got in results(all_kernels, v).items():
        # norms of sums of at most a hundred terms of size one
        distance = (got - expected[name]).norm()
        assert distance <= 200 * torch.finfo(torch.float64).eps * (1 + expected[name].norm()), name


@CASES
def test_errors_in_float32_are_at_most_twice_those_of_torch(
    kernels, generator, batch, shape, patch, heads, width, tokens, basis
):
    v = given(generator, torch.float32, batch, shape, patch, heads, width, tokens, basis)
    exact = {
        name: t.double() if isinstance(t, Tensor) and t.is_floating_point() else t for name, t in v.items()
    }
    with use("reference") as reference:
        truth, plain = results(reference, exact), results(reference, v)
    for name, got in results(kernels, v).items():
        error, theirs = (got - truth[name]).norm(), (plain[name] - truth[name]).norm()
        assert error <= 2 * theirs + 2 * torch.finfo(torch.float32).eps * truth[name].norm(), name


def test_backward_kernels_are_the_gradients_of_the_definitions(kernels, generator):
    from neuralsolve.kernels.reference.tokens import decoded, encoded, series

    v = given(generator, torch.float64, 2, (4, 6), (2, 3), 9, 2, 3, 5)
    got, eps = results(kernels, v), 100 * torch.finfo(torch.float64).eps
    names = ("points", "latent", "queries", "z", "sines", "cosines")
    leaves = {name: v[name].clone().requires_grad_() for name in names}
    sides = v["shape"], v["patch"]
    tokens = encoded(leaves["points"], *sides, leaves["latent"])
    for name, grad in zip(
        ("of_points", "of_latent"),
        torch.autograd.grad(tokens, (leaves["points"], leaves["latent"]), v["of_z"]),
        strict=True,
    ):
        assert_close(got[name], grad, eps)
    found = decoded(v["x"], leaves["queries"], *sides, v["order"], leaves["z"])
    for name, grad in zip(
        ("of_queries", "of_z"),
        torch.autograd.grad(found, (leaves["queries"], leaves["z"]), v["of_x"]),
        strict=True,
    ):
        assert_close(got[name], grad, eps)
    whole = series(leaves["z"], leaves["sines"], leaves["cosines"])
    for name, grad in zip(
        ("of_seen", "of_sines", "of_cosines"),
        torch.autograd.grad(whole, (leaves["z"], leaves["sines"], leaves["cosines"]), v["of_z"]),
        strict=True,
    ):
        assert_close(got[name], grad, eps)


def test_patches_are_cut_and_joined(generator):
    rows = normal(generator, 2 * 4 * 6, 3)
    points = cut(rows, (4, 6), (2, 3))
    field = rows.view(2, 4, 6, 3)
    assert torch.equal(points[1 * 4 + 1 * 2 + 0].view(2, 3, 3), field[1, 2:4, 0:3])
    assert torch.equal(joined(points, (4, 6), (2, 3)), rows)


@DTYPES
def test_weights_of_large_scores_sum_to_one(kernels, generator, dtype):
    v = given(generator, dtype, 2, (4, 4), (2, 2), 8, 2, 3, 4)
    v["points"] *= 300  # most weights vanish
    got = results(kernels, v)["weights"][:, : 3 * LANES]
    assert torch.isfinite(got).all()
    sums = cut(got, (4, 4), (2, 2)).sum(1)
    assert (sums - 1).abs().max() <= 8 * torch.finfo(dtype).eps


@DTYPES
def test_the_series_has_the_period_of_its_angles(kernels, generator, dtype):
    """f(z + 2 K) - (z + 2 K) = f(z) - z; quarters of a turn are met exactly."""
    K = 4
    z = torch.arange(-32, 32, dtype=dtype).view(1, 1, 4, 2, LANES)
    sines, cosines = (normal(generator, 1, K, 2, LANES, dtype=dtype) for _ in range(2))
    out, later = torch.empty_like(z), torch.empty_like(z)
    kernels.token_series(z, sines, cosines, out)
    kernels.token_series(z + 2 * K, sines, cosines, later)
    # rounding of pi k z / K, at most 3 pi / 4 * 40, in up to six terms
    assert ((later - 2 * K) - out).abs().max() <= 2000 * torch.finfo(dtype).eps


@DTYPES
def test_numbers_that_are_none_stay_visible(kernels, generator, dtype):
    for bad in (torch.nan, torch.inf):
        v = given(generator, dtype, 2, (4, 4), (2, 2), 8, 2, 3, 4)
        v["points"][5, 3] = v["queries"][5, 3] = v["z"][0, 0, 0, 0, 0] = bad
        got = results(kernels, v)
        for name in ("tokens", "found", "series", "of_seen"):
            assert not torch.isfinite(got[name]).all(), name
            assert torch.isfinite(got[name][-1]).all(), name


def test_any_number_of_threads_gives_the_same_numbers(generator, monkeypatch):
    v = given(generator, torch.float32, 4, (48, 48), (3, 3), 8, 2, 4, 12)
    with use("cpu") as cpu:
        found = []
        for threads in (1, 2, 5):
            monkeypatch.setattr("torch.get_num_threads", lambda threads=threads: threads)
            found.append(results(cpu, v))
    with use("reference") as reference:
        expected = results(reference, v)
    for name, first in found[0].items():
        assert_close(first, expected[name], 1e-5)  # sums over all patches, in parts
        assert all(np.array_equal(first.numpy(), other[name].numpy()) for other in found[1:]), name
