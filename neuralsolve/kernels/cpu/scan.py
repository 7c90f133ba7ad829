"""The diagonal recurrence and its adjoint, numba. Definitions: `neuralsolve.kernels.reference.scan`.

One step is a loop over the states, which lie next to each other; the state of a sequence stays in cache
in double precision, real and imaginary parts apart.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuralsolve.kernels.cpu import threads
from neuralsolve.kernels.cpu.threads import bare, over_ranges, serial

CHUNK = 32  # states that one thread takes at least, where a batch has too few sequences for all threads
FEW = 4  # sequences
LONG = 4  # times the work from which threads pay: a step of half as many states takes more than half as long


@bare
def _step(a_re, a_im, s, t, v):
    """Set v, pairs of numbers, and the state s + i t to a (s + i t) + v.

    In place alone: with a second argument for the result, the loop is vectorised only where the two differ.
    """
    for p in range(s.size):
        x = a_re[p] * s[p] - a_im[p] * t[p] + v[2 * p]
        y = a_re[p] * t[p] + a_im[p] * s[p] + v[2 * p + 1]
        s[p] = x
        t[p] = y
        v[2 * p] = x
        v[2 * p + 1] = y


@bare
def _step_varying(a, s, t, v):
    for p in range(s.size):
        x = a[2 * p] * s[p] - a[2 * p + 1] * t[p] + v[2 * p]
        y = a[2 * p] * t[p] + a[2 * p + 1] * s[p] + v[2 * p + 1]
        s[p] = x
        t[p] = y
        v[2 * p] = x
        v[2 * p + 1] = y


@bare
def _back(a_re, a_im, s, t, grad):
    """One step of the adjoint: s + i t comes from later steps on entry, for earlier ones on return."""
    for p in range(s.size):
        x = s[p] + grad[2 * p]
        y = t[p] + grad[2 * p + 1]
        grad[2 * p] = x
        grad[2 * p + 1] = y
        s[p] = a_re[p] * x + a_im[p] * y
        t[p] = a_re[p] * y - a_im[p] * x


@bare
def _add_shares(before, grad, sum_re, sum_im):
    """Add conj(before) grad. A loop of its own: one with more arrays would not be vectorised."""
    for p in range(sum_re.size):
        sum_re[p] += before[2 * p] * grad[2 * p] + before[2 * p + 1] * grad[2 * p + 1]
        sum_im[p] += before[2 * p] * grad[2 * p + 1] - before[2 * p + 1] * grad[2 * p]


@bare
def _back_varying(a, s, t, grad):
    for p in range(s.size):
        x = s[p] + grad[2 * p]
        y = t[p] + grad[2 * p + 1]
        grad[2 * p] = x
        grad[2 * p + 1] = y
        s[p] = a[2 * p] * x + a[2 * p + 1] * y
        t[p] = a[2 * p] * y - a[2 * p + 1] * x


@bare
def _set_shares(before, grad, share):
    for p in range(share.size // 2):
        share[2 * p] = before[2 * p] * grad[2 * p] + before[2 * p + 1] * grad[2 * p + 1]
        share[2 * p + 1] = before[2 * p] * grad[2 * p + 1] - before[2 * p + 1] * grad[2 * p]


@serial
def _scan(a, v, initial, last, reverse, parts, lo, hi):
    """Do the parts lo..hi of all sequences; a (P, 2), the others with a last axis of 2 P."""
    length, P = v.shape[1], a.shape[0]
    a_re, a_im = a[:, 0].copy(), a[:, 1].copy()
    for number in range(lo, hi):
        b, part = number // parts, number % parts
        first, end = P * part // parts, P * (part + 1) // parts
        s, t = initial[b, 2 * first : 2 * end : 2].copy(), initial[b, 2 * first + 1 : 2 * end : 2].copy()
        for i in range(length):
            k = length - 1 - i if reverse else i
            row = slice(2 * first, 2 * end)
            _step(a_re[first:end], a_im[first:end], s, t, v[b, k, row])
        last[b, 2 * first : 2 * end : 2] = s
        last[b, 2 * first + 1 : 2 * end : 2] = t


@serial
def _scan_varying(a, v, initial, last, reverse, parts, lo, hi):
    length, P = v.shape[1], v.shape[2] // 2
    for number in range(lo, hi):
        b, part = number // parts, number % parts
        first, end = P * part // parts, P * (part + 1) // parts
        s, t = initial[b, 2 * first : 2 * end : 2].copy(), initial[b, 2 * first + 1 : 2 * end : 2].copy()
        for i in range(length):
            k = length - 1 - i if reverse else i
            row = slice(2 * first, 2 * end)
            _step_varying(a[b, k, row], s, t, v[b, k, row])
        last[b, 2 * first : 2 * end : 2] = s
        last[b, 2 * first + 1 : 2 * end : 2] = t


@serial
def _scan_backward(a, x, initial, grad, carry, sums, reverse, parts, lo, hi):
    length, P = x.shape[1], a.shape[0]
    a_re, a_im = a[:, 0].copy(), a[:, 1].copy()
    for number in range(lo, hi):
        b, part = number // parts, number % parts
        first, end = P * part // parts, P * (part + 1) // parts
        row = slice(2 * first, 2 * end)
        s, t = carry[b, 2 * first : 2 * end : 2].copy(), carry[b, 2 * first + 1 : 2 * end : 2].copy()
        sum_re, sum_im = np.zeros(end - first), np.zeros(end - first)
        decay_re, decay_im = a_re[first:end], a_im[first:end]
        for i in range(length - 1):
            k = i if reverse else length - 1 - i
            before = x[b, k + 1 if reverse else k - 1, row]
            _back(decay_re, decay_im, s, t, grad[b, k, row])
            _add_shares(before, grad[b, k, row], sum_re, sum_im)
        if length > 0:
            k = length - 1 if reverse else 0
            _back(decay_re, decay_im, s, t, grad[b, k, row])
            _add_shares(initial[b, row], grad[b, k, row], sum_re, sum_im)
        carry[b, 2 * first : 2 * end : 2] = s
        carry[b, 2 * first + 1 : 2 * end : 2] = t
        sums[b, 2 * first : 2 * end : 2] = sum_re
        sums[b, 2 * first + 1 : 2 * end : 2] = sum_im


@serial
def _scan_backward_varying(a, x, initial, grad, carry, share, reverse, parts, lo, hi):
    length, P = x.shape[1], x.shape[2] // 2
    for number in range(lo, hi):
        b, part = number // parts, number % parts
        first, end = P * part // parts, P * (part + 1) // parts
        row = slice(2 * first, 2 * end)
        s, t = carry[b, 2 * first : 2 * end : 2].copy(), carry[b, 2 * first + 1 : 2 * end : 2].copy()
        for i in range(length - 1):
            k = i if reverse else length - 1 - i
            before = x[b, k + 1 if reverse else k - 1, row]
            _back_varying(a[b, k, row], s, t, grad[b, k, row])
            _set_shares(before, grad[b, k, row], share[b, k, row])
        if length > 0:
            k = length - 1 if reverse else 0
            _back_varying(a[b, k, row], s, t, grad[b, k, row])
            _set_shares(initial[b, row], grad[b, k, row], share[b, k, row])
        carry[b, 2 * first : 2 * end : 2] = s
        carry[b, 2 * first + 1 : 2 * end : 2] = t


def _pairs(x: Tensor) -> np.ndarray:
    """Return complex numbers (..., P) as (..., 2 P) real ones."""
    return torch.view_as_real(x.detach()).flatten(-2).numpy()


def _parts(x: Tensor) -> int:
    """Return in how many parts the states of a sequence are taken: more than one only for several threads."""
    few = x.shape[0] < FEW and 2 * x.numel() >= LONG * threads.SERIAL_BELOW
    return max(1, x.shape[2] // CHUNK) if few else 1


def diagonal_scan(
    a: Tensor, v: Tensor, initial: Tensor, out: Tensor, last: Tensor, reverse: bool = False
) -> None:
    """Set out (B, L, P) to all states of x_k = a_k x_{k-1} + v_k, last (B, P) to the one at the end."""
    if out.data_ptr() != v.data_ptr():
        out.copy_(v)
    parts, given = _parts(v), (_pairs(out), _pairs(initial), _pairs(last), reverse)
    if a.ndim == 1:
        kernel, decay = _scan, torch.view_as_real(a.detach()).numpy()
    else:
        kernel, decay = _scan_varying, _pairs(a)
    over_ranges(v.shape[0] * parts, lambda lo, hi: kernel(decay, *given, parts, lo, hi), 2 * v.numel())


def diagonal_scan_backward(
    a: Tensor, x: Tensor, initial: Tensor, grad: Tensor, carry: Tensor, a_grad: Tensor, reverse: bool = False
) -> None:
    """Turn the gradients of x and of `last` into those of v (in grad), of initial (in carry) and of a."""
    parts, given = _parts(x), (_pairs(x), _pairs(initial), _pairs(grad), _pairs(carry))
    count, entries = x.shape[0] * parts, 2 * x.numel()
    if a.ndim > 1:
        decay, share = _pairs(a), _pairs(a_grad)
        over_ranges(
            count,
            lambda lo, hi: _scan_backward_varying(decay, *given, share, reverse, parts, lo, hi),
            entries,
        )
        return
    decay, sums = torch.view_as_real(a.detach()).numpy(), np.zeros((x.shape[0], 2 * x.shape[2]))
    over_ranges(count, lambda lo, hi: _scan_backward(decay, *given, sums, reverse, parts, lo, hi), entries)
    total = torch.from_numpy(np.add.reduce(sums, 0)).view(-1, 2)
    a_grad += torch.view_as_complex(total)
