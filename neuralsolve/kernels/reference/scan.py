"""The diagonal recurrence of a state-space model and its adjoint, plain torch: the definition.

    x_k = a_k x_{k-1} + v_k,   k = 0..L-1,   x_{-1} given,        elementwise in P states.

With the gradient xbar_k of what is made of x_k, the adjoint is the recurrence backwards

    g_k = conj(a_{k+1}) g_{k+1} + xbar_k,   vbar_k = g_k,   abar_k = conj(x_{k-1}) g_k.

Here both are taken in log2(L) strides: after the stride s, x_k holds the part of its sum that comes from
v_{k-2s+1}..v_k (Hillis & Steele, Comm. ACM 29 (1986) 1170). The state is carried in double precision
whatever the precision of v: one rounding of a per step would turn into an error of L eps in the phase.
"""

from __future__ import annotations

import torch
from torch import Tensor


def diagonal_scan(
    a: Tensor, v: Tensor, initial: Tensor, out: Tensor, last: Tensor, reverse: bool = False
) -> None:
    """Set out to all states x (B, L, P) and last (B, P) to the one that the recurrence ends with.

    a (P,) or (B, L, P) complex128, v and out (B, L, P) complex64 or complex128 (out may be v), initial and
    last (B, P) complex128 (last may be initial). `reverse`: from k = L-1 down to 0, x_k = a_k x_{k+1} + v_k.
    """
    length = v.shape[1]
    x = v.to(torch.complex128, copy=True)
    decay = a.to(torch.complex128).expand_as(x).clone()
    if reverse:
        x, decay = x.flip(1), decay.flip(1)
    if length:
        x[:, 0] += decay[:, 0] * initial
    stride = 1
    while stride < length:
        x[:, stride:] = x[:, stride:] + decay[:, stride:] * x[:, :-stride]
        decay[:, stride:] = decay[:, stride:] * decay[:, :-stride]
        stride *= 2
    last.copy_(x[:, -1] if length else initial)
    out.copy_(x.flip(1) if reverse else x)


def diagonal_scan_backward(
    a: Tensor, x: Tensor, initial: Tensor, grad: Tensor, carry: Tensor, a_grad: Tensor, reverse: bool = False
) -> None:
    """Turn the gradients of x and of `last` into those of v, of the initial state and of a.

    a and initial as given to `diagonal_scan`, x its states. grad (B, L, P): of x on entry, of v on return.
    carry (B, P) complex128: of `last` on entry, of `initial` on return. a_grad complex128: where a is (P,)
    its gradient is added to a_grad (P,), else a_grad (B, L, P) is set.
    """
    if not x.shape[1]:
        return
    wide = a.to(torch.complex128).expand_as(x)
    before = torch.cat([x[:, 1:], initial[:, None]] if reverse else [initial[:, None], x[:, :-1]], 1)
    later = wide.conj().roll(1 if reverse else -1, 1).clone()  # the factor between g_k and the one before it
    later[:, 0 if reverse else -1] = 1.0
    g = torch.empty_like(x, dtype=torch.complex128)
    diagonal_scan(later, grad, carry, g, torch.empty_like(carry), reverse=not reverse)
    first = -1 if reverse else 0
    carry.copy_(wide[:, first].conj() * g[:, first])
    share = before.conj() * g
    if a.ndim == 1:
        a_grad += share.sum((0, 1))
    else:
        a_grad.copy_(share)
    grad.copy_(g)
