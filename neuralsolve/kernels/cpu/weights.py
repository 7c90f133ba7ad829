"""Weights of interpolation on grid levels, numba. Definition: `neuralsolve.kernels.reference.coarsen`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralsolve.kernels.cpu.padded import box, over_lines, row_start, strides
from neuralsolve.kernels.cpu.threads import serial
from neuralsolve.kernels.cpu.transfers import OWN, WHOLE


@serial
def _axis_weights(low, high, outlets, odd, alone, scale, w, fluid, strength):
    """Weights along one axis: half of the outward part of a cell's couplings, and its strength there.

    One loop per result: a loop that writes to several arrays is not vectorised.
    """
    zero, half = np.float32(0), np.float32(0.5)
    out, back = (high, low) if odd else (low, high)
    for i in range(w.size):
        outward = out[i] if out[i] > 0 else outlets[i]
        inward = zero if alone else back[i]
        total = outward + inward
        w[i] = half * outward / total if inward > 0 and outward > 0 else zero
    for i in range(w.size):
        outward = out[i] if out[i] > 0 else outlets[i]
        inward = zero if alone else back[i]
        strength[i] = scale * (outward if outward > inward else inward)
    for i in range(w.size):
        fluid[i] = np.float32(1) if out[i] > 0 else zero


@serial
def _without_attached(attached, at, step, odd, stride, w, outlets, low, high, scale, strength):
    """Cells beside attached ones: those say nothing about these blocks, so there is no partner."""
    for i in range(w.size):
        c = at + stride * i
        if attached[c - step] or attached[c + step]:
            outward = high[i] if odd else low[i]
            w[i], strength[i] = 0, scale * (outward if outward > 0 else outlets[i])


@serial
def _level_weights(faces, outlets, inverse, attached, nominal, shape, factors, weights, lo, hi):
    """Weights of P on lines lo..hi of a level with couplings of its own."""
    _, ny, nx = shape
    sides = shape
    sz, sy, _, _ = strides(shape)
    w, strength = np.zeros((3, nx), np.float32), np.zeros((3, nx), np.float32)
    fluid, room = np.zeros((3, nx), np.float32), np.empty((2, nx), np.float32)
    for line in range(lo, hi):
        z, y = line // ny, line % ny
        s = row_start(shape, z, y)
        for axis in range(3):
            if factors[axis] == 1:
                continue
            step = sz if axis == 0 else (sy if axis == 1 else 1)
            scale = np.float32(1) / nominal[axis]
            low, high = faces[axis, s : s + nx], faces[axis, s + step : s + step + nx]
            out, wa, fa, sa = outlets[axis, s : s + nx], w[axis], fluid[axis], strength[axis]
            if axis < 2:
                position = z if axis == 0 else y
                odd = position % 2
                alone = odd == 0 and position == sides[axis] - 1
                _axis_weights(low, high, out, odd, alone, scale, wa, fa, sa)
                if attached.size > 0:
                    _without_attached(attached, s, step, odd, 1, wa, out, low, high, scale, sa)
                continue
            for odd in range(2):
                wo, fo, so = wa[odd:nx:2], fa[odd:nx:2], sa[odd:nx:2]
                lo_, hi_, oo = low[odd:nx:2], high[odd:nx:2], out[odd:nx:2]
                _axis_weights(lo_, hi_, oo, odd, False, scale, wo, fo, so)
                if attached.size > 0:
                    _without_attached(attached, s + odd, step, odd, 2, wo, oo, lo_, hi_, scale, so)
            if nx % 2:  # a last cell of an odd side has no partner
                wa[nx - 1] = 0
                sa[nx - 1] = scale * (low[nx - 1] if low[nx - 1] > 0 else out[nx - 1])
        _store_weights(w, strength, fluid, inverse[s : s + nx], room, weights, s)
        if attached.size > 0:
            _store_attached(attached, weights, s, nx)


@serial
def _store_weights(w, strength, fluid, inverse, room, weights, s):
    """Weigh the axes by their strengths, and store all as bytes."""
    nx, one = inverse.size, np.float32(1)
    s0, s1, s2, part, total = strength[0], strength[1], strength[2], room[0], room[1]
    for i in range(nx):
        strongest = max(s0[i], max(s1[i], s2[i]))
        part[i] = one / strongest if strongest > 0 else one
    total[:] = 0
    for axis in range(3):
        wa, sa = w[axis], strength[axis]
        for i in range(nx):
            wa[i] *= sa[i] * part[i]
        for i in range(nx):
            total[i] += wa[i]
    for i in range(nx):
        total[i] = np.float32(WHOLE) / max(total[i], one)
    own = weights[OWN, s : s + nx]
    for i in range(nx):
        own[i] = WHOLE if inverse[i] > 0 else 0
    for axis in range(3):
        wa, fa, taken = w[axis], fluid[axis], weights[axis, s : s + nx]
        for i in range(nx):
            taken[i] = np.uint8(np.int32(total[i] * wa[i]))
        for i in range(nx):
            own[i] -= taken[i] if own[i] > 0 else 0
        for i in range(nx):
            taken[i] = taken[i] if fa[i] > 0 else 0


@serial
def _store_attached(attached, weights, s, nx):
    for c in range(s, s + nx):
        if attached[c]:
            for axis in range(3):
                weights[axis, c] = WHOLE if attached[c] == 1 + axis else 0
            weights[OWN, c] = 0


def level_weights(
    faces: Tensor,
    outlets: Tensor,
    inverse: Tensor,
    attached: Tensor,
    nominal: Sequence[float],
    shape: Sequence[int],
    factors: Sequence[int],
    out: Tensor,
) -> None:
    """Fill the weights of P of a level with couplings of its own."""
    c, o, d, w, sides, f = (
        faces.numpy(),
        outlets.numpy(),
        inverse.numpy(),
        out.numpy(),
        box(shape),
        box(factors),
    )
    usual, a = np.array(nominal, np.float32), attached.numpy()
    over_lines(sides, d.size, lambda lo, hi: _level_weights(c, o, d, a, usual, sides, f, w, lo, hi))
