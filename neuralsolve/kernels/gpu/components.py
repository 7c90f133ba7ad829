"""Means over the components of a grid or graph, in Triton. Definition: `kernels.reference.vector`.

Several components are the rows of a matrix of ones, whose product with the vector are their sums.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.csr import product
from neuralsolve.kernels.gpu.launch import launch
from neuralsolve.kernels.gpu.patterns import groups_of
from neuralsolve.kernels.gpu.tiles import add_partials, new_partials, put_partial, shared, tile, tiles, total


@triton.jit
def _sum_labelled(
    labels, v, partial, n, k, turns, ROWS: tl.constexpr, COLS: tl.constexpr, EVEN: tl.constexpr
):
    """Add the rows whose label is not negative."""
    sums = tl.zeros([ROWS, COLS], tl.float64)
    for turn in range(turns):
        first = (turn * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * ROWS
        _, at, there = tile(first, n, k, ROWS, COLS, EVEN)
        row = (first + tl.arange(0, ROWS))[:, None]
        label = tl.load(labels + row, mask=row < n, other=-1)
        sums += tl.where(label >= 0, tl.load(v + at, mask=there, other=0.0), 0.0)
    put_partial(tl.sum(sums, 0), partial, tl.program_id(1) * COLS + tl.arange(0, COLS), k)


@triton.jit
def _subtract(labels, counts, sums, v, n, k, ROWS: tl.constexpr, COLS: tl.constexpr, EVEN: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) * ROWS
    column, at, there = tile(first, n, k, ROWS, COLS, EVEN)
    row = (first + tl.arange(0, ROWS))[:, None]
    label = tl.load(labels + row, mask=row < n, other=-1)
    used = label >= 0
    size = tl.maximum(tl.load(counts + label, mask=used, other=1).to(tl.float64), 1.0)
    at_sum = sums + label.to(tl.int64) * k + column[None, :]
    mean = tl.load(at_sum, mask=there & used, other=0.0) / size
    u = tl.load(v + at, mask=there, other=0.0)
    tl.store(v + at, tl.where(used, u - mean, u), mask=there)


@triton.jit
def _squares(counts, sums, partial, n, k, turns, ROWS: tl.constexpr, COLS: tl.constexpr, EVEN: tl.constexpr):
    """Add count x mean^2."""
    total = tl.zeros([ROWS, COLS], tl.float64)
    for turn in range(turns):
        first = (turn * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * ROWS
        _, at, there = tile(first, n, k, ROWS, COLS, EVEN)
        row = first + tl.arange(0, ROWS)
        size = tl.maximum(tl.load(counts + row, mask=row < n, other=1).to(tl.float64), 1.0)[:, None]
        s = tl.load(sums + at, mask=there, other=0.0)
        total += s * (s / size)
    put_partial(tl.sum(total, 0), partial, tl.program_id(1) * COLS + tl.arange(0, COLS), k)


def _component_sums(labels: Tensor, v: Tensor, sums: Tensor) -> None:
    """Set sums (components, k) to those of v."""
    if len(sums) > 1:
        starts, places = groups_of(labels, len(sums))
        product(starts, places, None, v, sums)
        return
    cut = tiles(v)
    programs, turns = shared(cut)
    partial = new_partials(programs, cut.k, v)
    launch(_sum_labelled, (programs, cut.grid[1]), labels, v, partial, cut.n, cut.k, turns, **cut.constants)
    add_partials(partial, sums)


def subtract_means(labels: Tensor, counts: Tensor, v: Tensor) -> Tensor:
    """Subtract from v its mean over every component, in place; returns the 2-norm of what was removed."""
    cut = tiles(v)
    sums = torch.empty((len(counts), *v.shape[1:]), dtype=torch.float64, device=v.device)
    if len(counts):
        _component_sums(labels, v, sums)
        launch(_subtract, cut.grid, labels, counts, sums, v, cut.n, cut.k, **cut.constants)
    squares = tiles(sums)
    programs, turns = shared(squares)
    partial = new_partials(programs, cut.k, v)
    launch(
        _squares,
        (programs, cut.grid[1]),
        counts,
        sums,
        partial,
        len(counts),
        cut.k,
        turns,
        **squares.constants,
    )
    return total(partial, sums).sqrt_().to(v.dtype)
