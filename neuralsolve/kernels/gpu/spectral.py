"""Solves along the kept axis of a box for CUDA. Definitions: `neuralsolve.kernels.reference.spectral`.

A thread takes a mode (a right side of it) from end to end, its neighbours the modes next to it in memory. A
program holds few modes: a 2D box of 1024^2 has 1024 of them, and every processor of the device shall have
some. The rows of the next steps are asked for ahead (`AHEAD`), as a step waits for nothing else. Between two
sweeps stands a barrier: the rows of one are read by the next, perhaps by other threads of the program.

Bytes of a mode and cell, float64: tridiagonal 48 (v twice read and written, the pivots twice read), cyclic
40.
"""

# pyright: reportGeneralTypeIssues=false
# (it takes tl.range, which only Triton's compiler runs through, for no iterable)

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.launch import block_for, blocks, fp64, launch

MODES = 64  # of one program, at most
AHEAD = tl.constexpr(4)  # rows


@triton.jit
def _tridiagonal(p, v, gain: fp64, modes, n, inner, w, BLOCK: tl.constexpr):
    mode = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = mode < modes
    row = inner * w
    line, column = mode // row, mode % row
    at, pivot = v + line * n * row + column, p + line * n * inner + column // w
    g = tl.full((BLOCK,), gain, v.dtype.element_ty)
    y = tl.zeros((BLOCK,), v.dtype.element_ty)
    for _ in tl.range(0, n, num_stages=AHEAD):
        y = (g * tl.load(at, mask=there) + y) * tl.load(pivot, mask=there)
        tl.store(at, y, mask=there)
        at += row
        pivot += inner
    tl.debug_barrier()
    at -= row
    pivot -= inner
    for _ in tl.range(1, n, num_stages=AHEAD):
        at -= row
        pivot -= inner
        y = tl.load(at, mask=there) + tl.load(pivot, mask=there) * y
        tl.store(at, y, mask=there)


def tridiagonal_solve(reciprocal: Tensor, gain: float, v: Tensor) -> None:
    """Solve T y = gain v for every mode in place; reciprocal (outer, n, inner), v (outer, n, inner, w)."""
    outer, n, inner, w = v.shape
    modes = outer * inner * w
    block = block_for(modes, MODES)
    grid = (blocks(modes, block),)
    launch(_tridiagonal, grid, reciprocal, v, gain, modes, n, inner, w, BLOCK=block, num_warps=2)


@triton.jit
def _cyclic(decay, around, v, gain: fp64, modes, n, inner, BLOCK: tl.constexpr):
    mode = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = mode < modes
    at = v + mode // inner * n * inner + mode % inner
    rate = tl.load(decay + mode, mask=there, other=0.0)
    whole = tl.load(around + mode, mask=there, other=0.0)
    g = tl.full((BLOCK,), gain, v.dtype.element_ty)
    x = tl.zeros((BLOCK,), v.dtype.element_ty)
    first = at
    for _ in tl.range(0, n, num_stages=AHEAD):
        x = rate * x + tl.load(at, mask=there)
        at += inner
    x = g * rate * whole * x
    back = tl.zeros((BLOCK,), v.dtype.element_ty)
    power = back + 1.0
    at = first
    for _ in tl.range(0, n, num_stages=AHEAD):
        x = rate * (g * tl.load(at, mask=there) + x)
        tl.store(at, x, mask=there)
        back += power * x
        power *= rate
        at += inner
    tl.debug_barrier()
    x = whole * back
    for _ in tl.range(0, n, num_stages=AHEAD):
        at -= inner
        x = rate * x + tl.load(at, mask=there)
        tl.store(at, x, mask=there)


def cyclic_solve(decay: Tensor, around: Tensor, gain: float, v: Tensor) -> None:
    """Solve the cyclic tridiagonal systems in place; decay and around (outer, inner), v (outer, n, inner)."""
    n, modes = v.shape[1], decay.numel()
    block = block_for(modes, MODES)
    grid = (blocks(modes, block),)
    launch(_cyclic, grid, decay, around, v, gain, modes, n, v.shape[2], BLOCK=block, num_warps=2)
