"""Attention between points and tokens of patches, numba. Definitions: `neuralsolve.kernels.reference.tokens`.

Heads are the lanes of a vector. What sums over patches is cut into parts whose number depends on the size
of the problem alone, so that results are the same whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.lanes import LANES, exp_lanes, load, store, turn_lanes, where_less
from neuralsolve.kernels.cpu.prefetch import prefetch
from neuralsolve.kernels.cpu.threads import ordered, side_by_side, thread_count

PARTS = 16
LINE = 16  # float32 of a cache line
PART = 40_000  # numbers of a part at least: about 50 us


def _in_parts(count: int, entries: int, kernel: Callable[[int, int, int], Any]) -> None:
    """Call `kernel(part, lo, hi)` on ranges that cover 0..count."""
    parts = parts_of(count, entries)
    side_by_side(
        parts, lambda c: kernel(c, count * c // parts, count * (c + 1) // parts), min(parts, thread_count())
    )


def parts_of(count: int, entries: int) -> int:
    """Return into how many parts a loop over `count` things with so many numbers is cut."""
    return max(1, min(PARTS, count, entries // PART))


def _sides(shape: Sequence[int]) -> tuple[int, int, int]:
    z, y, x = (1,) * (3 - len(shape)) + tuple(int(n) for n in shape)
    return z, y, x


@ordered
def _find_points(number, shape, patch, places):
    """Set the places of the points of a patch in the field."""
    (_, ny, nx), (pz, py, px) = shape, patch
    across, number = number % (nx // px), number // (nx // px)
    down, number = number % (ny // py), number // (ny // py)
    first = (number * pz * ny + down * py) * nx + across * px
    m = 0
    for z in range(pz):
        for y in range(py):
            start = first + (z * ny + y) * nx
            for x in range(px):
                places[m] = start + x
                m += 1


@ordered
def _ask_for(number, shape, patch, rows):
    """Ask for the rows (n, F) of a patch before they are needed: short pieces far from each other."""
    (_, ny, nx), (pz, py, px), F = shape, patch, rows.shape[1]
    across, number = number % (nx // px), number // (nx // px)
    down, number = number % (ny // py), number // (ny // py)
    first = (number * pz * ny + down * py) * nx + across * px
    flat = rows.reshape(-1)
    for z in range(pz):
        for y in range(py):
            start = (first + (z * ny + y) * nx) * F
            for i in range(start, start + px * F, LINE):
                prefetch(flat, i)


@ordered
def _encode(points, shape, patch, latent, tokens, lo, hi):
    _, G, T, D, _ = tokens.shape
    F, flat, out, learned = points.shape[1], points.reshape(-1), tokens.reshape(-1), latent.reshape(-1)
    M, size = patch[0] * patch[1] * patch[2], G * T * D * LANES
    places = np.empty(M, np.int64)
    for number in range(lo, hi):
        _find_points(number, shape, patch, places)
        for g in range(G):
            for t in range(T):
                at = (g * T + t) * LANES
                top = load(flat, places[0] * F + at)
                for m in range(1, M):
                    s = load(flat, places[m] * F + at)
                    top = where_less(top, s, s, top)
                total = top - top
                for m in range(M):
                    e = exp_lanes(load(flat, places[m] * F + at) - top)
                    store(e, flat, places[m] * F + at)
                    total = total + e
                share = 1.0 / total
                for m in range(M):
                    store(load(flat, places[m] * F + at) * share, flat, places[m] * F + at)
            for t in range(T):
                at = (g * T + t) * LANES
                for d in range(D):
                    value, to = (G * T + g * D + d) * LANES, ((g * T + t) * D + d) * LANES
                    pooled = load(learned, to)
                    for m in range(M):
                        pooled = pooled + load(flat, places[m] * F + at) * load(flat, places[m] * F + value)
                    store(pooled, out, number * size + to)


@ordered
def _encode_backward(points, shape, patch, grad, out, sums, lo, hi):
    _, G, T, D, _ = grad.shape
    F, flat, given, to = points.shape[1], points.reshape(-1), grad.reshape(-1), out.reshape(-1)
    M, size = patch[0] * patch[1] * patch[2], G * T * D * LANES
    places = np.empty(M, np.int64)
    for number in range(lo, hi):
        _find_points(number, shape, patch, places)
        _ask_for(number + 1, shape, patch, points)
        _ask_for(number + 1, shape, patch, out)
        for i in range(0, size, LANES):
            store(load(sums, i) + load(given, number * size + i), sums, i)
        for g in range(G):
            for t in range(T):
                at, token = (g * T + t) * LANES, number * size + (g * T + t) * D * LANES
                total = load(given, token) * 0.0
                for m in range(M):
                    value = places[m] * F + (G * T + g * D) * LANES
                    slope = load(given, token) * load(flat, value)
                    for d in range(1, D):
                        slope = slope + load(given, token + d * LANES) * load(flat, value + d * LANES)
                    slope = slope * load(flat, places[m] * F + at)
                    total = total + slope
                    store(slope, to, places[m] * F + at)
                for m in range(M):
                    i = places[m] * F + at
                    store(load(to, i) - load(flat, i) * total, to, i)
            for m in range(M):
                weight, value = places[m] * F + g * T * LANES, places[m] * F + (G * T + g * D) * LANES
                for d in range(D):
                    token = number * size + (g * T * D + d) * LANES
                    s = load(flat, weight) * load(given, token)
                    for t in range(1, T):
                        s = s + load(flat, weight + t * LANES) * load(given, token + t * D * LANES)
                    store(s, to, value + d * LANES)


@ordered
def _weigh(queries, query, tokens, token, T, D, weights):
    """Set weights (T, lanes) to the softmax of the scores of one query."""
    top = load(queries, query) * load(tokens, token)
    for d in range(1, D):
        top = top + load(queries, query + d * LANES) * load(tokens, token + d * LANES)
    store(top, weights, 0)
    for t in range(1, T):
        at = token + t * D * LANES
        s = load(queries, query) * load(tokens, at)
        for d in range(1, D):
            s = s + load(queries, query + d * LANES) * load(tokens, at + d * LANES)
        store(s, weights, t * LANES)
        top = where_less(top, s, s, top)
    total = exp_lanes(load(weights, 0) - top)
    store(total, weights, 0)
    for t in range(1, T):
        e = exp_lanes(load(weights, t * LANES) - top)
        store(e, weights, t * LANES)
        total = total + e
    share = 1.0 / total
    for t in range(T):
        store(load(weights, t * LANES) * share, weights, t * LANES)


@ordered
def _decode(x, queries, shape, patch, order, tokens, out, lo, hi):
    _, G, T, D, _ = tokens.shape
    asked, z, C = queries.reshape(-1), tokens.reshape(-1), x.shape[1]
    M, row, size = patch[0] * patch[1] * patch[2], G * D * LANES, G * T * D * LANES
    places, weights, found = np.empty(M, np.int64), np.empty(T * LANES, x.dtype), np.empty(row, x.dtype)
    for number in range(lo, hi):
        _find_points(number, shape, patch, places)
        for m in range(M):
            place = places[m]
            for g in range(G):
                token = number * size + g * T * D * LANES
                _weigh(asked, place * row + g * D * LANES, z, token, T, D, weights)
                for d in range(D):
                    at = token + d * LANES
                    s = load(weights, 0) * load(z, at)
                    for t in range(1, T):
                        s = s + load(weights, t * LANES) * load(z, at + t * D * LANES)
                    store(s, found, (g * D + d) * LANES)
            for c in range(C):
                out[place, c] = x[place, c] + found[order[c]]


@ordered
def _decode_backward(grad, queries, shape, patch, order, tokens, queries_grad, tokens_grad, lo, hi):
    _, G, T, D, _ = tokens.shape
    asked, z, C = queries.reshape(-1), tokens.reshape(-1), grad.shape[1]
    to, slopes = queries_grad.reshape(-1), tokens_grad.reshape(-1)
    M, row, size = patch[0] * patch[1] * patch[2], G * D * LANES, G * T * D * LANES
    places, weights = np.empty(M, np.int64), np.empty(T * LANES, grad.dtype)
    given, scores = np.zeros(row, grad.dtype), np.empty(T * LANES, grad.dtype)
    for number in range(lo, hi):
        _find_points(number, shape, patch, places)
        _ask_for(number + 1, shape, patch, queries)
        _ask_for(number + 1, shape, patch, grad)
        _ask_for(number + 1, shape, patch, queries_grad)
        slopes[number * size : number * size + size] = 0
        for m in range(M):
            place = places[m]
            for c in range(C):
                given[order[c]] = grad[place, c]
            for g in range(G):
                token, query, found = (
                    (number * size + g * T * D * LANES),
                    place * row + g * D * LANES,
                    g * D * LANES,
                )
                _weigh(asked, query, z, token, T, D, weights)
                total = load(weights, 0) * 0.0
                for t in range(T):
                    at = token + t * D * LANES
                    s = load(given, found) * load(z, at)
                    for d in range(1, D):
                        s = s + load(given, found + d * LANES) * load(z, at + d * LANES)
                    s = s * load(weights, t * LANES)
                    total = total + s
                    store(s, scores, t * LANES)
                for t in range(T):
                    store(load(scores, t * LANES) - load(weights, t * LANES) * total, scores, t * LANES)
                for d in range(D):
                    q, y = load(asked, query + d * LANES), load(given, found + d * LANES)
                    total = q * 0.0
                    for t in range(T):
                        at = token + (t * D + d) * LANES
                        w, s = load(weights, t * LANES), load(scores, t * LANES)
                        total = total + s * load(z, at)
                        store(load(slopes, at) + w * y + s * q, slopes, at)
                    store(total, to, query + d * LANES)


@ordered
def _series(z, sines, cosines, out, lo, hi):
    _, G, T, D, _ = z.shape
    K, flat, to, a, b = sines.shape[1], z.reshape(-1), out.reshape(-1), sines.reshape(-1), cosines.reshape(-1)
    step, row = 1.0 / K, D * LANES
    for number in range(lo, hi):
        for g in range(G):
            for t in range(T):
                for d in range(D):
                    at = ((number * G + g) * T + t) * row + d * LANES
                    k = g * K * row + d * LANES
                    x = load(flat, at)
                    s1, c1 = turn_lanes(x * step)
                    s, c = s1, c1
                    total = x + load(b, k)
                    for _ in range(1, K):
                        k += row
                        total = total + load(a, k) * s + load(b, k) * c
                        s, c = s * c1 + c * s1, c * c1 - s * s1
                    store(total, to, at)


@ordered
def _series_backward(z, grad, sines, cosines, out, sines_sums, cosines_sums, lo, hi):
    _, G, T, D, _ = z.shape
    K, flat, given, to = sines.shape[1], z.reshape(-1), grad.reshape(-1), out.reshape(-1)
    a, b = sines.reshape(-1), cosines.reshape(-1)
    step, row = 1.0 / K, D * LANES
    for number in range(lo, hi):
        for g in range(G):
            for t in range(T):
                for d in range(D):
                    at = ((number * G + g) * T + t) * row + d * LANES
                    k = g * K * row + d * LANES
                    y = load(given, at)
                    s1, c1 = turn_lanes(load(flat, at) * step)
                    s, c = s1, c1
                    slope = y * 0.0
                    frequency = slope
                    store(load(cosines_sums, k) + y, cosines_sums, k)
                    for _ in range(1, K):
                        k += row
                        frequency = frequency + np.pi * step
                        slope = slope + frequency * (load(a, k) * c - load(b, k) * s)
                        store(load(sines_sums, k) + y * s, sines_sums, k)
                        store(load(cosines_sums, k) + y * c, cosines_sums, k)
                        s, c = s * c1 + c * s1, c * c1 - s * s1
                    store(y + y * slope, to, at)


def token_encode(
    points: Tensor, shape: Sequence[int], patch: Sequence[int], latent: Tensor, tokens: Tensor
) -> None:
    """Set tokens to softmax_M(scores) values + latent; scores become their softmax."""
    p, n, sides, learned, out = points.numpy(), _sides(shape), _sides(patch), latent.numpy(), tokens.numpy()
    _in_parts(len(out), p.size, lambda _, lo, hi: _encode(p, n, sides, learned, out, lo, hi))


def token_encode_backward(
    points: Tensor, shape: Sequence[int], patch: Sequence[int], grad: Tensor, out: Tensor, latent: Tensor
) -> None:
    """Set out and latent to the gradients of `token_encode`, given that of its tokens."""
    p, n, sides, g, to = points.numpy(), _sides(shape), _sides(patch), grad.numpy(), out.numpy()
    sums = np.zeros((parts_of(len(g), p.size), latent.numel()), g.dtype)
    _in_parts(len(g), p.size, lambda part, lo, hi: _encode_backward(p, n, sides, g, to, sums[part], lo, hi))
    np.add.reduce(sums, 0, out=latent.numpy().reshape(-1))


def token_decode(
    x: Tensor,
    queries: Tensor,
    shape: Sequence[int],
    patch: Sequence[int],
    order: Tensor,
    tokens: Tensor,
    out: Tensor,
) -> None:
    """Set out to x + softmax_T(queries tokens^T) tokens."""
    given, q, places, z, to = x.numpy(), queries.numpy(), order.numpy(), tokens.numpy(), out.numpy()
    n, sides = _sides(shape), _sides(patch)
    _in_parts(len(z), 3 * q.size, lambda _, lo, hi: _decode(given, q, n, sides, places, z, to, lo, hi))


def token_decode_backward(
    grad: Tensor,
    queries: Tensor,
    shape: Sequence[int],
    patch: Sequence[int],
    order: Tensor,
    tokens: Tensor,
    queries_grad: Tensor,
    tokens_grad: Tensor,
) -> None:
    """Set the gradients of queries and tokens of `token_decode`, given that of its result."""
    given, q, places, z = grad.numpy(), queries.numpy(), order.numpy(), tokens.numpy()
    n, sides, dq, dz = _sides(shape), _sides(patch), queries_grad.numpy(), tokens_grad.numpy()
    _in_parts(
        len(z), 3 * q.size, lambda _, lo, hi: _decode_backward(given, q, n, sides, places, z, dq, dz, lo, hi)
    )


def token_series(z: Tensor, sines: Tensor, cosines: Tensor, out: Tensor) -> None:
    """Set out to z + sum_k a_k sin(pi k z / K) + b_k cos(pi k z / K)."""
    x, a, b, to = z.numpy(), sines.numpy(), cosines.numpy(), out.numpy()
    _in_parts(len(x), 2 * x.size, lambda _, lo, hi: _series(x, a, b, to, lo, hi))


def token_series_backward(
    z: Tensor,
    grad: Tensor,
    sines: Tensor,
    cosines: Tensor,
    z_grad: Tensor,
    sines_grad: Tensor,
    cosines_grad: Tensor,
) -> None:
    """Set the gradients of `token_series`, given that of its result."""
    x, g, a, b, to = z.numpy(), grad.numpy(), sines.numpy(), cosines.numpy(), z_grad.numpy()
    parts = parts_of(len(x), 2 * x.size)
    da, db = np.zeros((parts, a.size), a.dtype), np.zeros((parts, a.size), a.dtype)
    _in_parts(
        len(x), 2 * x.size, lambda part, lo, hi: _series_backward(x, g, a, b, to, da[part], db[part], lo, hi)
    )
    np.add.reduce(da, 0, out=sines_grad.numpy().reshape(-1))
    np.add.reduce(db, 0, out=cosines_grad.numpy().reshape(-1))
