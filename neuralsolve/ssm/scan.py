"""Recurrences of diagonal systems with gradients, by the kernel table.

`diagonal_scan` gives all states. `mapped_scan` gives the outputs of a system with full B and C (Smith,
Warrington & Linderman, ICLR 2023, arXiv 2208.04933) without ever holding the states of a whole sequence: it
takes blocks of rows that stay in cache, B u, the recurrence, Re(C x), and keeps the state before each block;
the backward pass runs through the blocks in the opposite order and forms their states again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuralsolve.kernels import table

BLOCK = 1 << 18  # numbers of the states of a block: 1 MB of float32, half of a core's cache
PIECES = 8  # of a block


def diagonal_scan(
    a: Tensor, v: Tensor, initial: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Return all states of x_k = a_k x_{k-1} + v_k, and the last one.

    Parameters
    ----------
    a : (P,) or (B, L, P) complex
    v : (B, L, P) complex
    initial : (B, P) complex, optional
        x_{-1}, zero where it is not given.
    reverse : bool
        From the end: x_k = a_k x_{k+1} + v_k.

    Returns
    -------
    x : (B, L, P), the dtype of v
    last : (B, P) complex128

    Examples
    --------
    >>> v = torch.ones(1, 3, 1, dtype=torch.complex128)
    >>> diagonal_scan(torch.tensor([0.5 + 0j]), v)[0].real.flatten()
    tensor([1.0000, 1.5000, 1.7500], dtype=torch.float64)
    """
    if initial is None:
        initial = v.new_zeros(v.shape[0], v.shape[2], dtype=torch.complex128)
    return _Scan.apply(a.to(torch.complex128), v, initial.to(torch.complex128), reverse)  # type: ignore


def mapped_scan(
    a: Tensor,
    B: Tensor,
    C: Tensor,
    u: Tensor,
    initial: Tensor | None = None,
    D: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return y_k = Re(C x_k) + D u_k with x_k = a x_{k-1} + B u_k, and the last state.

    Parameters
    ----------
    a : (P,) complex
    B : (P, H) complex
    C : (O, P) complex
    u : (batch, L, H) real
    initial : (batch, P) complex, optional
    D : (H,) real, optional
        Only where O = H.
    reverse : bool
        From the end of the sequences to their start.

    Returns
    -------
    y : (batch, L, O), the dtype of u
    last : (batch, P) complex128

    Examples
    --------
    >>> one = torch.ones(1, 1, dtype=torch.complex64)
    >>> mapped_scan(torch.tensor([0.5 + 0j]), one, one, torch.ones(1, 3, 1))[0].flatten()
    tensor([1.0000, 1.5000, 1.7500])
    """
    if initial is None:
        initial = u.new_zeros(u.shape[0], a.shape[0], dtype=torch.complex128)
    inputs = torch.view_as_real(B).permute(1, 0, 2).flatten(1).to(u.dtype)  # (H, 2 P)
    outputs = torch.view_as_real(C.conj().resolve_conj()).flatten(1).to(u.dtype)  # (O, 2 P)
    arguments = a.to(torch.complex128), inputs, outputs, u, initial.to(torch.complex128), D, reverse
    return _MappedScan.apply(*arguments)  # type: ignore[return-value]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, v: Tensor, initial: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
        a, given = a.detach().resolve_conj().contiguous(), v.detach().resolve_conj().contiguous()
        initial = initial.detach().resolve_conj().contiguous()
        x, last = torch.empty_like(given), torch.empty_like(initial)
        table(v.device).diagonal_scan(a, given, initial, x, last, reverse)
        ctx.save_for_backward(a, x, initial)
        ctx.reverse = reverse
        return x, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, of_last: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        a, x, initial = ctx.saved_tensors
        grad = grad.resolve_conj().clone(memory_format=torch.contiguous_format)
        carry, a_grad = (
            of_last.resolve_conj().clone(memory_format=torch.contiguous_format),
            torch.zeros_like(a),
        )
        table(x.device).diagonal_scan_backward(a, x, initial, grad, carry, a_grad, ctx.reverse)
        return a_grad, grad, carry, None


def _blocks(batch: int, length: int, rows: int, reverse: bool) -> Iterator[tuple[int, int, int, int]]:
    """Yield (b0, b1, k0, k1): several whole sequences, or a piece of one, in the order of the recurrence."""
    if length <= rows:
        together = max(1, rows // max(length, 1))
        for b in range(0, batch, together):
            yield b, min(b + together, batch), 0, length
        return
    pieces = -(-length // rows)
    for b in range(batch):
        for piece in reversed(range(pieces)) if reverse else range(pieces):
            yield b, b + 1, length * piece // pieces, length * (piece + 1) // pieces


class _MappedScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        inputs: Tensor,
        outputs: Tensor,
        u: Tensor,
        initial: Tensor,
        D: Tensor | None,
        reverse: bool,
    ) -> tuple[Tensor, Tensor]:
        a, inputs, outputs, u = (t.detach().resolve_conj().contiguous() for t in (a, inputs, outputs, u))
        (batch, length, _), (out, width), kernels = u.shape, outputs.shape, table(u.device)
        rows = max(16, BLOCK // width) if u.device.type == "cpu" else batch * length
        y, state = u.new_empty(batch, length, out), initial.detach().resolve_conj().clone()
        blocks, before = list(_blocks(batch, length, rows, reverse)), []
        room = u.new_empty(max([(b1 - b0) * (k1 - k0) for b0, b1, k0, k1 in blocks], default=0), width)
        for b0, b1, k0, k1 in blocks:
            before.append(state[b0:b1].clone())
            given, made = _rows(u, b0, b1, k0, k1), _rows(y, b0, b1, k0, k1)
            x = _states(kernels, a, inputs, given, state[b0:b1], room, reverse)
            torch.mm(x, outputs.T, out=made)
            if D is not None:
                kernels.columns_axpy(D.detach(), given, made)
        ctx.save_for_backward(a, inputs, outputs, u, D)
        ctx.blocks, ctx.before, ctx.reverse = blocks, before, reverse
        return y, state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, of_last: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        a, inputs, outputs, u, D = ctx.saved_tensors
        grad, kernels, reverse = grad.contiguous(), table(u.device), ctx.reverse
        carry = of_last.resolve_conj().clone(memory_format=torch.contiguous_format)
        of_a, of_in, of_out = torch.zeros_like(a), _Product(inputs), _Product(outputs)
        of_u = torch.empty_like(u) if ctx.needs_input_grad[3] else None
        of_D = None if D is None else torch.zeros_like(D, dtype=torch.float64)
        most = max([(b1 - b0) * (k1 - k0) for b0, b1, k0, k1 in ctx.blocks], default=0)
        room, slopes = u.new_empty(most, inputs.shape[1]), u.new_empty(most, inputs.shape[1])
        for (b0, b1, k0, k1), state in zip(reversed(ctx.blocks), reversed(ctx.before), strict=True):
            given, g = _rows(u, b0, b1, k0, k1), _rows(grad, b0, b1, k0, k1)
            x = _states(kernels, a, inputs, given, state.clone(), room, reverse)
            of_out.add(g, x)
            of_x = torch.mm(g, outputs, out=slopes[: len(g)])
            kernels.diagonal_scan_backward(
                a, _sequences(x, state), state, _sequences(of_x, state), carry[b0:b1], of_a, reverse
            )
            of_in.add(given, of_x)
            if of_u is not None:
                made = torch.mm(of_x, inputs.T, out=_rows(of_u, b0, b1, k0, k1))
                if D is not None:
                    kernels.columns_axpy(D.detach(), g, made)
            if of_D is not None:
                kernels.columns_dot(g, given, of_D)
        of_D = None if D is None or of_D is None else of_D.to(D.dtype)
        return of_a, of_in.total(), of_out.total(), of_u, carry, of_D, None


def _rows(t: Tensor, b0: int, b1: int, k0: int, k1: int) -> Tensor:
    """Return whole sequences, or a piece of one, as rows: no copy."""
    return t[b0:b1, k0:k1].view(-1, t.shape[2])


class _Product:
    """The sum of x^T y over blocks of rows (n, H) and (n, W), taken in pieces of the long axis.

    A single product of a long axis leaves threads idle; and fewer numbers are added one after the other.
    """

    def __init__(self, like: Tensor):
        self._parts = like.new_zeros(PIECES, *like.shape)

    def add(self, x: Tensor, y: Tensor) -> None:
        size = len(x) // PIECES
        cut = size * PIECES
        if size:
            first, second = (t[:cut].view(PIECES, size, -1) for t in (x, y))
            self._parts.baddbmm_(first.transpose(1, 2), second)
        if cut < len(x):
            self._parts[0].addmm_(x[cut:].T, y[cut:])

    def total(self) -> Tensor:
        return self._parts.sum(0)


def _sequences(x: Tensor, state: Tensor) -> Tensor:
    """Return rows of pairs of real numbers (n, 2 P) as complex sequences (batch, L, P): no copy."""
    return torch.view_as_complex(x.view(state.shape[0], -1, state.shape[1], 2))


def _states(
    kernels: Any, a: Tensor, inputs: Tensor, given: Tensor, state: Tensor, room: Tensor, reverse: bool
) -> Tensor:
    """Return the states of a block of rows as pairs of real numbers; state becomes the last one."""
    x = torch.mm(given, inputs, out=room[: len(given)])
    v = _sequences(x, state)
    kernels.diagonal_scan(a, v, state, v, state, reverse)
    return x
