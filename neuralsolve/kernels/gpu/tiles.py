"""How vectors (n,) and (n, k), k fastest, are cut into tiles of rows and columns, and sums over the rows.

A sum runs in two stages: every program adds what it has seen into a row of partial sums, in float64, and one
small program adds those. The order never depends on which program comes first: the same input, the same bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.launch import block_for, blocks, launch

PROGRAMS = 2048  # that share a sum, at most: their partial sums are read by one program
FEW = 128  # programs that add more partial sums than one can
WIDE = 32  # columns of a tile, at most
NARROW = 4  # columns of a tile of partial sums, at most: more programs then share them


class Tiles(NamedTuple):
    """Rows and columns of a vector and of its tiles."""

    n: int
    k: int
    rows: int
    columns: int

    @property
    def grid(self) -> tuple[int, int]:
        """Programs down and across, a tile each."""
        return blocks(self.n, self.rows), blocks(self.k, self.columns)

    @property
    def constants(self) -> dict[str, Any]:
        """Return what `tile` needs to know when it is compiled."""
        return {"ROWS": self.rows, "COLS": self.columns, "EVEN": self.columns == self.k}


def tiles(x: Tensor, widest: int = WIDE) -> Tiles:
    """Cut x (n,) or (n, k)."""
    n, k = len(x), 1 if x.ndim == 1 else x.shape[1]
    columns = block_for(k, widest)
    return Tiles(n, k, max(1, block_for(n * columns) // columns), columns)


@triton.jit
def tile(first, n, k, ROWS: tl.constexpr, COLS: tl.constexpr, EVEN: tl.constexpr):
    """Return this program's columns (COLS,), offsets (ROWS, COLS) of a tile from row `first`, and its mask.

    EVEN: the k columns are COLS, so that the compiler sees that rows are adjacent, and loads them together.
    """
    row = first + tl.arange(0, ROWS)
    if EVEN:
        column = tl.arange(0, COLS)
        at = row[:, None] * COLS + column[None, :]
        there = (row < n)[:, None] & (column >= 0)[None, :]
    else:
        column = tl.program_id(1) * COLS + tl.arange(0, COLS)
        at = row[:, None] * k + column[None, :]
        there = (row < n)[:, None] & (column < k)[None, :]
    return column, at, there


@triton.jit
def put_partial(sums, partial, column, k):
    """Store a program's sums of its columns, (COLS,)."""
    tl.store(partial + tl.program_id(0).to(tl.int64) * k + column, sums, mask=column < k)


@triton.jit
def _add(x, partial, n, k, turns, ROWS: tl.constexpr, COLS: tl.constexpr, EVEN: tl.constexpr):
    total = tl.zeros([ROWS, COLS], tl.float64)
    for turn in range(turns):
        first = (turn * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * ROWS
        _, at, there = tile(first, n, k, ROWS, COLS, EVEN)
        total += tl.load(x + at, mask=there, other=0.0)
    put_partial(tl.sum(total, 0), partial, tl.program_id(1) * COLS + tl.arange(0, COLS), k)


@triton.jit
def _finish(
    partial, out, n, k, turns, MORE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, EVEN: tl.constexpr
):
    total = tl.zeros([ROWS, COLS], tl.float64)
    for turn in range(turns):
        _, at, there = tile(turn * ROWS, n, k, ROWS, COLS, EVEN)
        total += tl.load(partial + at, mask=there, other=0.0)
    sums = tl.sum(total, 0)
    column = tl.program_id(1) * COLS + tl.arange(0, COLS)
    if MORE:
        sums += tl.load(out + column, mask=column < k, other=0.0)
    tl.store(out + column, sums, mask=column < k)


def shared(cut: Tiles, most: int = PROGRAMS) -> tuple[int, int]:
    """Return by how many programs a sum over the rows is shared, and how many tiles each of them takes."""
    programs = min(max(1, cut.grid[0]), most)
    return programs, blocks(cut.grid[0], programs)


def new_partials(programs: int, k: int, x: Tensor) -> Tensor:
    """Return room for partial sums, (programs, k) float64."""
    return torch.empty((programs, k), dtype=torch.float64, device=x.device)


def add_partials(partial: Tensor, out: Tensor, more: bool = False) -> None:
    """Set `out`, () or (k,), to the sums over the rows of partial (programs, k), or add them to it."""
    if len(partial) > PROGRAMS:
        cut = tiles(partial)
        programs, turns = shared(cut, FEW)
        fewer = new_partials(programs, cut.k, partial)
        launch(_add, (programs, cut.grid[1]), partial, fewer, cut.n, cut.k, turns, **cut.constants)
        partial = fewer
    cut = tiles(partial, NARROW)
    launch(_finish, (1, cut.grid[1]), partial, out, cut.n, cut.k, cut.grid[0], MORE=more, **cut.constants)


def total(partial: Tensor, x: Tensor) -> Tensor:
    """Return the sums over the rows of partial (programs, k), () or (k,) like a row of x, in its dtype."""
    out = torch.empty(x.shape[1:], dtype=x.dtype, device=x.device)
    add_partials(partial, out)
    return out
