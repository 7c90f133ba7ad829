"""Stencil with variable couplings in Triton. Definitions: `neuralsolve.kernels.reference.stencil`.

Built like the constant stencil (`gpu.stencil`); a coupling of zero drops its neighbour, whatever its value.
In float64 a product moves 48 bytes a cell (x, out, the diagonal, three couplings), a direction 64.
"""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false
# (what Triton's compiler takes is no Python to it)

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.box import beside, columns_of, iterate_at, place, scalars_of, walk
from neuralsolve.kernels.gpu.launch import launch
from neuralsolve.kernels.gpu.tiles import new_partials, put_partial, total


@triton.jit
def drawn(coupling, u):
    """Return a neighbour's part of the sum, without it 0: selected, since 0 times a NaN is a NaN."""
    return tl.where(coupling != 0, coupling * u, 0.0)


@triton.jit
def _along(coupling, x, p, b, cell, at, low, high, k, there, DIRECTION: tl.constexpr):
    """Parts of the two neighbours along an axis within the plane, offsets `low` and `high` in cells."""
    below = drawn(
        tl.load(coupling + cell, mask=there, other=0.0), iterate_at(x, p, b, at + low * k, there, DIRECTION)
    )
    return below + drawn(
        tl.load(coupling + cell + high, mask=there, other=0.0),
        iterate_at(x, p, b, at + high * k, there, DIRECTION),
    )


@triton.jit
def _faces(
    diagonal,
    cz,
    cy,
    cx,
    x,
    p,
    beta,
    new_p,
    out,
    partial,
    planes,
    middle,
    line,
    k,
    step,
    turns,
    DOT: tl.constexpr,
    DIRECTION: tl.constexpr,
    FLAT: tl.constexpr,
    BY: tl.constexpr,
    BX: tl.constexpr,
    COLS: tl.constexpr,
):
    """Set out = A x, or A (x + beta p); cz are the couplings across planes, cy and cx those within."""
    first, y, xx, cell, at, there = place(middle, line, k, turns, BY, BX, COLS)
    b = 0.0
    if DIRECTION:
        b = scalars_of(beta, k, step, COLS)
    y_low, y_high = beside(y, middle, line)
    x_low, x_high = beside(xx, line, 1)
    before = tl.where(first > 0, first, planes) - 1
    start = first * middle * line
    below = iterate_at(x, p, b, before * middle * line * k + at, there, DIRECTION)
    u = iterate_at(x, p, b, start * k + at, there, DIRECTION)
    c_below = tl.load(cz + start + cell, mask=there, other=0.0)
    sums = tl.zeros_like(at).to(tl.float64)
    for turn in range(tl.minimum(turns, planes - first)):
        z = first + turn
        start = z * middle * line
        here = start * k + at
        after = tl.where(z + 1 < planes, start + middle * line, 0)
        above = iterate_at(x, p, b, after * k + at, there, DIRECTION)
        c_above = tl.load(cz + after + cell, mask=there, other=0.0)
        around = _along(cx, x, p, b, start + cell, here, x_low, x_high, k, there, DIRECTION)
        if not FLAT:
            around += _along(cy, x, p, b, start + cell, here, y_low, y_high, k, there, DIRECTION)
        around += drawn(c_below, below) + drawn(c_above, above)
        d = tl.load(diagonal + start + cell, mask=there, other=0.0)
        centre = tl.where(d != 0, u, 0.0)
        value = tl.where(d != 0, d * centre - around, 0.0)
        tl.store(out + here, value, mask=there)
        if DIRECTION:
            tl.store(new_p + here, u, mask=there)
        if DOT:
            sums += centre.to(tl.float64) * value.to(tl.float64)
        below = u
        u = above
        c_below = c_above
    if DOT:
        put_partial(tl.sum(sums, 0) + tl.zeros([COLS], tl.float64), partial, columns_of(COLS), k)


def _product(
    diagonal: Tensor,
    lower: Tensor,
    shape: Sequence[int],
    x: Tensor,
    out: Tensor,
    with_dot: bool,
    direction: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor | None:
    """Set out = A x, or, for a direction (beta, p, new p), new p = x + beta p and out = A new p."""
    w, (beta, p, new_p) = walk(shape, x), direction or (x, x, x)
    partial = new_partials(w.grid[0], w.k, x) if with_dot else x
    cz, cy, cx = lower.unbind()
    given = diagonal, cy if w.flat else cz, cy, cx, x, p, beta, new_p, out, partial
    sizes = *w.sides, w.k, int(beta.ndim > 0), w.turns
    kind = {"DOT": with_dot, "DIRECTION": direction is not None}
    launch(_faces, w.grid, *given, *sizes, **kind, **w.constants)
    return total(partial, x) if with_dot else None


def faces_matvec(diagonal: Tensor, lower: Tensor, shape: Sequence[int], x: Tensor, out: Tensor) -> None:
    """out_i = diagonal_i x_i - sum_a (lower[a, i] x_{i - e_a} + lower[a, i + e_a] x_{i + e_a})."""
    _product(diagonal, lower, shape, x, out, False)


def faces_matvec_dot(diagonal: Tensor, lower: Tensor, shape: Sequence[int], x: Tensor, out: Tensor) -> Tensor:
    """`faces_matvec`, and the inner product x.out over the cells inside, () or (k,)."""
    inner = _product(diagonal, lower, shape, x, out, True)
    assert inner is not None
    return inner


def faces_direction_dot(
    diagonal: Tensor,
    lower: Tensor,
    shape: Sequence[int],
    z: Tensor,
    beta: Tensor,
    p: Tensor,
    out_p: Tensor,
    Ap: Tensor,
) -> Tensor:
    """Set out_p = z + beta p and Ap = A out_p in one pass; returns out_p.Ap over the cells inside."""
    inner = _product(diagonal, lower, shape, z, Ap, True, (beta, p, out_p))
    assert inner is not None
    return inner
