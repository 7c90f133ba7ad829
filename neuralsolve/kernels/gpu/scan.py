"""The diagonal recurrence and its adjoint for CUDA. Definitions: `neuralsolve.kernels.reference.scan`.

The steps are cut into chunks of about sqrt(L), worked on side by side:

    what every chunk makes of zero, and the product of its factors     reads v
    the state that every chunk begins with                             one step a chunk
    all states, from there                                             reads v, writes x

so v is read twice, and the longest chain has 3 sqrt(L) steps in place of L. A program takes several chunks of
neighbouring states: in a step its threads read a row of each, P complex numbers next to each other. Where the
sequences and states alone fill the device, a sequence is one chunk and v is read once.

Complex numbers are pairs of real ones here. States are carried in float64.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from neuralsolve.kernels.gpu.launch import block_for, blocks, launch

STATES = 64  # of one program, at most
CHUNKS = 8
SHORT = 16  # steps, below which a chunk is not worth its own start
FULL = 1 << 17  # states of all sequences that fill a device


@triton.jit
def _pairs(i):
    return 2 * i[:, :, None] + tl.arange(0, 2)[None, None, :]


@triton.jit
def _read(at, i, there):
    """Read complex numbers i (chunks, states) as float64."""
    return tl.split(tl.load(at + _pairs(i), mask=there[:, :, None], other=0.0).to(tl.float64))


@triton.jit
def _write(at, i, there, real, imaginary):
    tl.store(at + _pairs(i), tl.join(real, imaginary).to(at.dtype.element_ty), mask=there[:, :, None])


@triton.jit
def _times(a, b, c, d):
    """Return (a + i b) (c + i d)."""
    return a * c - b * d, a * d + b * c


@triton.jit
def _place(P, count, C: tl.constexpr, S: tl.constexpr):
    """Return a program's sequence, chunks (C, 1), states (1, S), and which of them there are."""
    chunk = tl.program_id(1) * C + tl.arange(0, C)[:, None]
    state = tl.program_id(2) * S + tl.arange(0, S)[None, :]
    return tl.program_id(0).to(tl.int64), chunk, state, (chunk < count) & (state < P)


@triton.jit
def _chunk_totals(
    a, v, factor, total, L, P, steps, count,
    VARYING: tl.constexpr, REVERSE: tl.constexpr, ADJOINT: tl.constexpr, C: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Set what every chunk makes of zero, and the product of its factors; ADJOINT: s = conj(a) (s + v)."""
    b, chunk, state, there = _place(P, count, C, S)
    p, q = _read(a, state + 0 * chunk, there)
    s = tl.zeros((C, S), tl.float64)
    t, d, e = s, s + 1.0, s
    for i in range(steps):
        k = chunk * steps + i
        now = there & (k < L)
        at = (b * L + (L - 1 - k if REVERSE else k)) * P + state
        if VARYING:
            p, q = _read(a, at, now)
        x, y = _read(v, at, now)
        if ADJOINT:
            u, w = _times(p, -q, s + x, t + y)
            f, g = _times(p, -q, d, e)
        else:
            u, w = _times(p, q, s, t)
            u, w = u + x, w + y
            f, g = _times(p, q, d, e)
        s, t = tl.where(now, u, s), tl.where(now, w, t)
        d, e = tl.where(now, f, d), tl.where(now, g, e)
    place = (b * count + chunk) * P + state
    _write(factor, place, there, d, e)
    _write(total, place, there, s, t)


@triton.jit
def _chunk_starts(factor, total, initial, start, P, count, S: tl.constexpr):
    """Set the states that the chunks begin with."""
    b = tl.program_id(0).to(tl.int64)
    state = tl.program_id(1) * S + tl.arange(0, S)[None, :]
    there = state < P
    s, t = _read(initial, b * P + state, there)
    for chunk in range(count):
        at = (b * count + chunk) * P + state
        d, e = _read(factor, at, there)
        x, y = _read(total, at, there)
        _write(start, at, there, s, t)
        s, t = _times(d, e, s, t)
        s, t = s + x, t + y


@triton.jit
def _states(
    a, v, start, out, last, L, P, steps, count,
    VARYING: tl.constexpr, REVERSE: tl.constexpr, C: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    b, chunk, state, there = _place(P, count, C, S)
    p, q = _read(a, state + 0 * chunk, there)
    s, t = _read(start, (b * count + chunk) * P + state, there)
    for i in range(steps):
        k = chunk * steps + i
        now = there & (k < L)
        at = (b * L + (L - 1 - k if REVERSE else k)) * P + state
        if VARYING:
            p, q = _read(a, at, now)
        x, y = _read(v, at, now)
        u, w = _times(p, q, s, t)
        s, t = tl.where(now, u + x, s), tl.where(now, w + y, t)
        _write(out, at, now, s, t)
    _write(last, b * P + state + 0 * chunk, there & (chunk == count - 1), s, t)


@triton.jit
def _gradients(
    a, x, initial, grad, start, carry, share, L, P, steps, count,
    VARYING: tl.constexpr, REVERSE: tl.constexpr, C: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Take the adjoint's steps; REVERSE is its own direction, so x_before lies ahead of it."""
    b, chunk, state, there = _place(P, count, C, S)
    p, q = _read(a, state + 0 * chunk, there)
    s, t = _read(start, (b * count + chunk) * P + state, there)
    m, n = _read(initial, b * P + state + 0 * chunk, there)
    sum_re = tl.zeros((C, S), tl.float64)
    sum_im = sum_re
    for i in range(steps):
        k = chunk * steps + i
        now = there & (k < L)
        at = (b * L + (L - 1 - k if REVERSE else k)) * P + state
        if VARYING:
            p, q = _read(a, at, now)
        g, h = _read(grad, at, now)
        g, h = s + g, t + h
        _write(grad, at, now, g, h)
        end = k == L - 1  # before the first state of all lies `initial`
        f, e = _read(x, at - P if REVERSE else at + P, now & (k < L - 1))
        f, e = _times(tl.where(end, m, f), tl.where(end, -n, -e), g, h)
        if VARYING:
            _write(share, at, now, f, e)
        else:
            sum_re += tl.where(now, f, 0.0)
            sum_im += tl.where(now, e, 0.0)
        g, h = _times(p, -q, g, h)
        s, t = tl.where(now, g, s), tl.where(now, h, t)
    if not VARYING:
        part = (b * tl.num_programs(1) + tl.program_id(1)) * P + tl.program_id(2) * S + tl.arange(0, S)
        kept = tl.program_id(2) * S + tl.arange(0, S) < P
        tl.store(share + 2 * part, tl.sum(sum_re, 0), mask=kept)
        tl.store(share + 2 * part + 1, tl.sum(sum_im, 0), mask=kept)
    _write(carry, b * P + state + 0 * chunk, there & (chunk == count - 1), s, t)


def _real(z: Tensor) -> Tensor:
    return torch.view_as_real(z)


class _Chunks:
    """How the steps of (B, L, P) are cut, and the state that each chunk begins with."""

    def __init__(self, v: Tensor):
        self.B, self.L, self.P = v.shape
        most = self.L if self.B * self.P >= FULL else triton.next_power_of_2(math.isqrt(self.L))
        self.steps = min(self.L, max(SHORT, most))
        self.count = blocks(self.L, self.steps)
        self.S = block_for(self.P, STATES)
        self.C = block_for(self.count, CHUNKS)
        self.grid = (self.B, blocks(self.count, self.C), blocks(self.P, self.S))

    def starts(self, a: Tensor, v: Tensor, initial: Tensor, reverse: bool, adjoint: bool) -> Tensor:
        """Return (B, count, P): `initial` first, then what the chunks before make of it."""
        if self.count == 1:
            return initial
        factor, total, start = (
            torch.empty(self.B, self.count, self.P, dtype=torch.complex128, device=v.device) for _ in range(3)
        )
        sizes = self.L, self.P, self.steps, self.count
        how = {"VARYING": a.ndim > 1, "REVERSE": reverse, "ADJOINT": adjoint, "C": self.C, "S": self.S}
        totals = _real(factor), _real(total)
        launch(_chunk_totals, self.grid, _real(a), _real(v), *totals, *sizes, **how)
        ends = _real(initial), _real(start)
        launch(_chunk_starts, (self.B, self.grid[2]), *totals, *ends, self.P, self.count, S=self.S)
        return start


def diagonal_scan(
    a: Tensor, v: Tensor, initial: Tensor, out: Tensor, last: Tensor, reverse: bool = False
) -> None:
    """Set out to all states (B, L, P) and last (B, P) to the one that the recurrence ends with.

    out may be v, last may be initial; a (P,) or (B, L, P).
    """
    if not v.shape[1]:
        last.copy_(initial)
        return
    cut = _Chunks(v)
    start = cut.starts(a, v, initial, reverse, False)
    vectors = (_real(z) for z in (a, v, start, out, last))
    launch(
        _states, cut.grid, *vectors, cut.L, cut.P, cut.steps, cut.count,
        VARYING=a.ndim > 1, REVERSE=reverse, C=cut.C, S=cut.S,
    )  # fmt: skip


def diagonal_scan_backward(
    a: Tensor, x: Tensor, initial: Tensor, grad: Tensor, carry: Tensor, a_grad: Tensor, reverse: bool = False
) -> None:
    """Turn the gradients of x and of `last` into those of v, of the initial state and of a, in place.

    Shares of constant factors are summed in an order of their own, the same in every run.
    """
    if not x.shape[1]:
        return
    cut, varying = _Chunks(x), a.ndim > 1
    start = cut.starts(a, grad, carry, not reverse, True)
    share = a_grad if varying else a_grad.new_empty(cut.B * cut.grid[1], cut.P)
    vectors = (_real(z) for z in (a, x, initial, grad, start, carry, share))
    launch(
        _gradients, cut.grid, *vectors, cut.L, cut.P, cut.steps, cut.count,
        VARYING=varying, REVERSE=not reverse, C=cut.C, S=cut.S,
    )  # fmt: skip
    if not varying:
        a_grad += share.sum(0)
