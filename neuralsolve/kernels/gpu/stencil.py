"""Constant-coefficient stencil in Triton. Definitions: `neuralsolve.kernels.reference.stencil`.

A neighbour is always read, round the box at its walls, and dropped where the cell's code has no bit for it:
selected away, since it may be NaN. In float64 a product moves 18 bytes a cell: x, out and the code's 2. An
iteration of CG is `stencil_direction_dot`, 34 bytes (z, p, the code; new p, Ap), and `cg_update`, 48.
"""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false
# (what Triton's compiler takes is no Python to it)

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.box import beside, columns_of, iterate_at, place, scalars_of, walk
from neuralsolve.kernels.gpu.launch import fp64, launch
from neuralsolve.kernels.gpu.tiles import new_partials, put_partial, total


@triton.jit
def _difference(bits, u, low, high, AXIS: tl.constexpr):
    """Open faces along an axis times u, without the fluid neighbours."""
    kept = ((bits >> (6 + 2 * AXIS)) & 3) * u
    kept -= tl.where((bits >> (2 * AXIS)) & 1 != 0, low, 0.0)
    return kept - tl.where((bits >> (2 * AXIS + 1)) & 1 != 0, high, 0.0)


@triton.jit
def _stencil(
    code,
    x,
    p,
    beta,
    new_p,
    out,
    partial,
    sz: fp64,
    sy: fp64,
    sx: fp64,
    planes,
    middle,
    line,
    k,
    step,
    turns,
    DOT: tl.constexpr,
    DIRECTION: tl.constexpr,
    EACH: tl.constexpr,
    FLAT: tl.constexpr,
    BY: tl.constexpr,
    BX: tl.constexpr,
    COLS: tl.constexpr,
):
    """Set out = A x, or A (x + beta p); EACH column has a code of its own."""
    number = x.dtype.element_ty
    first, y, xx, cell, at, there = place(middle, line, k, turns, BY, BX, COLS)
    b = 0.0
    if DIRECTION:
        b = scalars_of(beta, k, step, COLS)
    y_low, y_high = beside(y, middle, line * k)
    x_low, x_high = beside(xx, line, k)
    below_first = tl.where(first > 0, first, planes) - 1
    below = iterate_at(x, p, b, below_first * middle * line * k + at, there, DIRECTION)
    u = iterate_at(x, p, b, first * middle * line * k + at, there, DIRECTION)
    sums = tl.zeros_like(at).to(tl.float64)
    for turn in range(tl.minimum(turns, planes - first)):
        z = first + turn
        start = z * middle * line
        here = start * k + at
        next_plane = tl.where(z + 1 < planes, start + middle * line, 0)
        above = iterate_at(x, p, b, next_plane * k + at, there, DIRECTION)
        if EACH:
            bits = tl.load(code + here, mask=there, other=0).to(tl.int32)
        else:
            bits = tl.load(code + start + cell, mask=there, other=0).to(tl.int32)
        centre = tl.where(bits != 0, u, 0.0)
        low, high = (
            iterate_at(x, p, b, here + x_low, there, DIRECTION),
            iterate_at(x, p, b, here + x_high, there, DIRECTION),
        )
        value = tl.full([], sx, number) * _difference(bits, centre, low, high, 2)
        if FLAT:
            value += tl.full([], sy, number) * _difference(bits, centre, below, above, 1)
            value += tl.full([], sz, number) * ((bits >> 6) & 3) * centre  # walls of fixed values
        else:
            low, high = (
                iterate_at(x, p, b, here + y_low, there, DIRECTION),
                iterate_at(x, p, b, here + y_high, there, DIRECTION),
            )
            value += tl.full([], sy, number) * _difference(bits, centre, low, high, 1)
            value += tl.full([], sz, number) * _difference(bits, centre, below, above, 0)
        tl.store(out + here, value, mask=there)
        if DIRECTION:
            tl.store(new_p + here, u, mask=there)
        if DOT:
            sums += centre.to(tl.float64) * value.to(tl.float64)
        below = u
        u = above
    if DOT:
        put_partial(tl.sum(sums, 0) + tl.zeros([COLS], tl.float64), partial, columns_of(COLS), k)


def _product(
    code: Tensor,
    scale: Sequence[float],
    shape: Sequence[int],
    x: Tensor,
    out: Tensor,
    with_dot: bool,
    direction: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor | None:
    """Set out = A x, or, for a direction (beta, p, new p), new p = x + beta p and out = A new p."""
    w, (beta, p, new_p) = walk(shape, x), direction or (x, x, x)
    partial = new_partials(w.grid[0], w.k, x) if with_dot else x
    sizes = *(float(s) for s in scale), *w.sides, w.k, int(beta.ndim > 0), w.turns
    kind = {"DOT": with_dot, "DIRECTION": direction is not None, "EACH": code.ndim > 1}
    launch(_stencil, w.grid, code, x, p, beta, new_p, out, partial, *sizes, **kind, **w.constants)
    return total(partial, x) if with_dot else None


def stencil_matvec(
    code: Tensor, scale: Sequence[float], shape: Sequence[int], x: Tensor, out: Tensor
) -> None:
    """out_i = sum_a scale_a (open_a(i) x_i - sum of x over the fluid neighbours along a), 0 outside FLUID."""
    _product(code, scale, shape, x, out, False)


def stencil_matvec_dot(
    code: Tensor, scale: Sequence[float], shape: Sequence[int], x: Tensor, out: Tensor
) -> Tensor:
    """`stencil_matvec`, and the inner product x.out over the fluid cells, () or (k,)."""
    inner = _product(code, scale, shape, x, out, True)
    assert inner is not None
    return inner


def stencil_direction_dot(
    code: Tensor,
    scale: Sequence[float],
    shape: Sequence[int],
    z: Tensor,
    beta: Tensor,
    p: Tensor,
    out_p: Tensor,
    Ap: Tensor,
) -> Tensor:
    """Set out_p = z + beta p and Ap = A out_p in one pass; returns out_p.Ap over the fluid cells.

    Every program makes the new p at the neighbours of its cells too: what it reads comes from the caches.
    """
    inner = _product(code, scale, shape, z, Ap, True, (beta, p, out_p))
    assert inner is not None
    return inner
