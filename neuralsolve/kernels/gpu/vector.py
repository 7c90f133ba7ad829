"""Vector kernels in Triton. Definitions, shapes and error bounds: `neuralsolve.kernels.reference.vector`.

All of them wait for memory: tiles are read and written once, adjacent numbers together.
"""

# pyright: reportAttributeAccessIssue=false
# (what Triton's compiler takes is no Python to it)

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.launch import block_for, blocks, fp64, launch
from neuralsolve.kernels.gpu.tiles import add_partials, new_partials, put_partial, shared, tile, tiles, total


@triton.jit
def _combine(
    alpha,
    number: fp64,
    x,
    y,
    n,
    k,
    step,
    ADD: tl.constexpr,
    NUMBER: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    EVEN: tl.constexpr,
):
    """ADD: y += alpha x; otherwise y = x + alpha y."""
    first = tl.program_id(0).to(tl.int64) * ROWS
    column, at, there = tile(first, n, k, ROWS, COLS, EVEN)
    if NUMBER:  # noqa: SIM108 - a branch of the compiler
        a = number
    else:
        a = tl.load(alpha + column * step, mask=column < k, other=0.0)[None, :]
    u, v = tl.load(x + at, mask=there), tl.load(y + at, mask=there)
    if ADD:
        tl.store(y + at, v + a * u, mask=there)
    else:
        tl.store(y + at, u + a * v, mask=there)


def _combined(alpha: Tensor | float, x: Tensor, y: Tensor, add: bool) -> None:
    cut, given = tiles(x), isinstance(alpha, Tensor)
    scalar, number = (alpha, 0.0) if given else (x, float(alpha))
    kind = {"ADD": add, "NUMBER": not given}
    step = int(scalar.ndim > 0)
    launch(_combine, cut.grid, scalar, number, x, y, cut.n, cut.k, step, **kind, **cut.constants)


def axpy(alpha: Tensor | float, x: Tensor, y: Tensor) -> None:
    """Add in place: y += alpha x; alpha a number or () for (n,), () or (k,) for (n, k)."""
    _combined(alpha, x, y, True)


def xpby(x: Tensor, beta: Tensor | float, y: Tensor) -> None:
    """Scale and add in place: y = x + beta y; beta a number or () for (n,), () or (k,) for (n, k)."""
    _combined(beta, x, y, False)


def columns_axpy(d: Tensor, x: Tensor, out: Tensor) -> None:
    """Add d_j times column j of x (rows, n) to that of out."""
    _combined(d, x, out, True)


@triton.jit
def _scale(
    alpha,
    number: fp64,
    x,
    out,
    n,
    k,
    step,
    NUMBER: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    EVEN: tl.constexpr,
):
    first = tl.program_id(0).to(tl.int64) * ROWS
    column, at, there = tile(first, n, k, ROWS, COLS, EVEN)
    u = tl.load(x + at, mask=there)
    if NUMBER:
        tl.store(out + at, number * u, mask=there)
    else:
        a = tl.load(alpha + column * step, mask=column < k, other=0.0)
        tl.store(out + at, a[None, :] * u, mask=there)


def scaled_copy(alpha: Tensor | float, x: Tensor, out: Tensor) -> None:
    """Out = alpha x, in the dtype of out; alpha a number or () for (n,), () or (k,) for (n, k)."""
    cut, given = tiles(x), isinstance(alpha, Tensor)
    scalar, number = (alpha, 0.0) if isinstance(alpha, Tensor) else (x, float(alpha))
    step = int(scalar.ndim > 0)
    launch(_scale, cut.grid, scalar, number, x, out, cut.n, cut.k, step, NUMBER=not given, **cut.constants)


@triton.jit
def _transpose(x, out, n, k, ROWS: tl.constexpr, COLS: tl.constexpr, EVEN: tl.constexpr):
    """Turn a tile; all programs lie along one axis of the grid, as either side may be a long vector's."""
    across = tl.cdiv(k, COLS)
    row = (tl.program_id(0) // across).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLS).to(tl.int64)
    wide = column >= 0
    if not EVEN:
        column += tl.program_id(0) % across * COLS
        wide = column < k
    at = row[:, None] * (COLS if EVEN else k) + column[None, :]
    to = column[:, None] * n + row[None, :]
    u = tl.load(x + at, mask=(row < n)[:, None] & wide[None, :])
    tl.store(out + to, tl.trans(u), mask=wide[:, None] & (row < n)[None, :])


def transposed_copy(x: Tensor, out: Tensor) -> None:
    """Set out (k, n) to the transpose of x (n, k)."""
    cut = tiles(x)
    launch(_transpose, (cut.grid[0] * cut.grid[1],), x, out, cut.n, cut.k, **cut.constants)


@triton.jit
def _dot(x, y, partial, n, k, turns, ROWS: tl.constexpr, COLS: tl.constexpr, EVEN: tl.constexpr):
    sums = tl.zeros([ROWS, COLS], tl.float64)
    for turn in range(turns):
        first = (turn * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * ROWS
        _, at, there = tile(first, n, k, ROWS, COLS, EVEN)
        u, v = tl.load(x + at, mask=there, other=0.0), tl.load(y + at, mask=there, other=0.0)
        sums += u.to(tl.float64) * v.to(tl.float64)
    put_partial(tl.sum(sums, 0), partial, tl.program_id(1) * COLS + tl.arange(0, COLS), k)


def _products(x: Tensor, y: Tensor) -> Tensor:
    """Return partial sums of x y over the rows, (programs, k)."""
    cut = tiles(x)
    programs, turns = shared(cut)
    partial = new_partials(programs, cut.k, x)
    launch(_dot, (programs, cut.grid[1]), x, y, partial, cut.n, cut.k, turns, **cut.constants)
    return partial


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner product x.y, () for vectors (n,), column by column (k,) for (n, k)."""
    return total(_products(x, y), x)


def columns_dot(x: Tensor, y: Tensor, out: Tensor) -> None:
    """Add the sum of x y over the rows (rows, n) to out (n,) float64."""
    add_partials(_products(x, y), out, more=True)


@triton.jit
def _cg_update(
    alpha, p, Ap, x, r, partial, n, k, step, turns, ROWS: tl.constexpr, COLS: tl.constexpr, EVEN: tl.constexpr
):
    column = tl.program_id(1) * COLS + tl.arange(0, COLS)
    a = tl.load(alpha + column * step, mask=column < k, other=0.0)[None, :]
    sums = tl.zeros([ROWS, COLS], tl.float64)
    for turn in range(turns):
        first = (turn * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * ROWS
        _, at, there = tile(first, n, k, ROWS, COLS, EVEN)
        down = tl.where(a != 0, a * tl.load(Ap + at, mask=there, other=0.0), 0.0)
        along = tl.where(a != 0, a * tl.load(p + at, mask=there, other=0.0), 0.0)
        rest = tl.load(r + at, mask=there, other=0.0) - down
        tl.store(r + at, rest, mask=there)
        tl.store(x + at, tl.load(x + at, mask=there) + along, mask=there)
        sums += rest.to(tl.float64) * rest.to(tl.float64)
    put_partial(tl.sum(sums, 0), partial, column, k)


def cg_update(alpha: Tensor, p: Tensor, Ap: Tensor, x: Tensor, r: Tensor) -> Tensor:
    """Step in place and in one pass, six vectors: x += alpha p, r -= alpha Ap; returns the new r.r."""
    cut, step = tiles(x), int(alpha.ndim > 0)
    programs, turns = shared(cut)
    partial = new_partials(programs, cut.k, x)
    grid = programs, cut.grid[1]
    launch(_cg_update, grid, alpha, p, Ap, x, r, partial, cut.n, cut.k, step, turns, **cut.constants)
    return total(partial, x)


@triton.jit
def _largest(active, x, out, partial, n, k, turns, COPY: tl.constexpr, BLOCK: tl.constexpr):
    """Largest of the bits without the sign: numbers in that order, NaN above infinity."""
    whole = tl.int64 if x.dtype.element_ty == tl.float64 else tl.int32
    keep = (1 << (x.dtype.element_ty.primitive_bitwidth - 1)) - 1
    most = tl.zeros([BLOCK], whole)
    for turn in range(turns):
        i = (turn * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        there = i < n
        if COPY:
            used = tl.load(active + i // k, mask=there, other=0)
            u = tl.where(used != 0, tl.load(x + i, mask=there, other=0.0), 0.0)
            tl.store(out + i, u, mask=there)
        else:
            u = tl.load(x + i, mask=there, other=0.0)
        most = tl.maximum(most, u.to(whole, bitcast=True) & keep)
    tl.store(partial + tl.program_id(0), tl.max(most, 0).to(x.dtype.element_ty, bitcast=True))


def _largest_of(active: Tensor, x: Tensor, out: Tensor, copy: bool) -> float:
    n, k, block = x.numel(), 1 if x.ndim == 1 else x.shape[1], block_for(x.numel())
    programs = min(blocks(n, block), 2048)
    partial = torch.empty(programs, dtype=x.dtype, device=x.device)
    turns = blocks(blocks(n, block), programs)
    launch(_largest, (programs,), active, x, out, partial, n, k, turns, COPY=copy, BLOCK=block)
    return float(partial.max())


def largest(x: Tensor) -> float:
    """Largest absolute entry of x, NaN where one is NaN."""
    return _largest_of(x, x, x, False)


def masked_copy(active: Tensor, x: Tensor, out: Tensor) -> float:
    """Copy x, 0 in the rows that are not active; return the largest absolute entry, NaN where one is NaN."""
    return _largest_of(active, x, out, True)
