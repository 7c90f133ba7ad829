"""Correction of the means of conductors for CUDA. Definition: `neuralsolve.kernels.reference.conductors`.

Three launches. Programs share the runs and the edges out and leave one sum per conductor each; one program
adds these up, in their order, and applies the inverse; programs share the runs once more to add the change.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.launch import block_for, blocks, launch

RUNS, SPAN = 32, 16  # runs, and cells of each, that a program looks at together
PARTS = 64  # programs that sum, at most


@triton.jit(do_not_specialize=["b", "runs", "edges", "couplings", "x", "parts", "r", "edge_count", "steps"])
def _flows(
    b,
    runs,
    edges,
    couplings,
    x,
    parts,
    r,
    edge_count,
    steps,
    MOST: tl.constexpr,
    RUNS: tl.constexpr,
    SPAN: tl.constexpr,
):
    """Store sums of b - A x over the conductors, (parts, MOST): of this program's runs and edges."""
    conductor = tl.arange(0, MOST)[None, :]
    total = tl.zeros((RUNS, MOST), tl.float64)
    for step in range(steps):
        i = (tl.program_id(0) * steps + step) * RUNS + tl.arange(0, RUNS)
        of = tl.load(runs + i, mask=i < r, other=-1)
        begin = tl.load(runs + r + i, mask=i < r, other=0)
        end = tl.load(runs + 2 * r + i, mask=i < r, other=0)
        sums = tl.zeros((RUNS,), tl.float64)
        for start in range(0, tl.max(end - begin, 0), SPAN):  # type: ignore[arg-type]
            at = begin[:, None] + start + tl.arange(0, SPAN)[None, :]
            sums += tl.sum(tl.load(b + at, mask=at < end[:, None], other=0.0).to(tl.float64), 1)
        own = tl.load(edges + i, mask=i < edge_count, other=-1)
        here = tl.load(edges + edge_count + i, mask=i < edge_count, other=0)
        there = tl.load(edges + 2 * edge_count + i, mask=i < edge_count, other=-1)
        g = tl.load(couplings + i, mask=i < edge_count, other=0.0)
        beyond = tl.load(x + there, mask=there >= 0, other=0.0)
        out = (g * (tl.load(x + here, mask=i < edge_count, other=0.0) - beyond)).to(tl.float64)
        total += tl.where(of[:, None] == conductor, sums[:, None], 0.0)
        total -= tl.where(own[:, None] == conductor, out[:, None], 0.0)
    place = parts + tl.program_id(0).to(tl.int64) * MOST + tl.arange(0, MOST)
    tl.store(place, tl.sum(total, 0))


@triton.jit(do_not_specialize=["parts", "inverse", "change", "k", "count"])
def _changes(parts, inverse, change, k, count, MOST: tl.constexpr, ROWS: tl.constexpr):
    """Store ROWS entries of the inverse times the sums of all programs."""
    j = tl.arange(0, MOST)
    rest = tl.zeros((MOST,), tl.float64)
    for part in range(count):
        rest += tl.load(parts + part * MOST + j)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    E = tl.load(
        inverse + row[:, None] * k + j[None, :], mask=(row < k)[:, None] & (j < k)[None, :], other=0.0
    )
    tl.store(change + row, tl.sum(E.to(tl.float64) * rest[None, :], 1), mask=row < k)


@triton.jit(do_not_specialize=["runs", "change", "x", "r"])
def _add(runs, change, x, r, RUNS: tl.constexpr, SPAN: tl.constexpr):
    i = tl.program_id(0) * RUNS + tl.arange(0, RUNS)
    step = tl.load(change + tl.load(runs + i, mask=i < r, other=0), mask=i < r, other=0.0).to(tl.float32)
    begin = tl.load(runs + r + i, mask=i < r, other=0)
    end = tl.load(runs + 2 * r + i, mask=i < r, other=0)
    for start in range(0, tl.max(end - begin, 0), SPAN):  # type: ignore[arg-type]
        at = begin[:, None] + start + tl.arange(0, SPAN)[None, :]
        there = at < end[:, None]
        tl.store(x + at, tl.load(x + at, mask=there, other=0.0) + step[:, None], mask=there)


def conductor_correct(
    b: Tensor, runs: Tensor, edges: Tensor, couplings: Tensor, inverse: Tensor, x: Tensor
) -> None:
    """Add Z E Z^T (b - A x) to x: Z the indicators of the conductors, E `inverse` (k, k)."""
    k, r, e = len(inverse), runs.shape[1], edges.shape[1]
    rows = block_for(RUNS)
    steps = blocks(max(r, e), rows * PARTS)
    count = blocks(max(r, e), rows * steps)
    most = triton.next_power_of_2(k)
    parts = torch.empty((count, most), dtype=torch.float64, device=x.device)
    change = torch.empty(k, dtype=torch.float64, device=x.device)
    tile = {"RUNS": rows, "SPAN": block_for(SPAN)}
    launch(_flows, (count,), b, runs, edges, couplings, x, parts, r, e, steps, MOST=most, **tile)
    few = block_for(k, 16)
    launch(_changes, (blocks(k, few),), parts, inverse, change, k, count, MOST=most, ROWS=few)
    launch(_add, (blocks(r, rows),), runs, change, x, r, **tile)
