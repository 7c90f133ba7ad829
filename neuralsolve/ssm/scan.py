"""The recurrence of a diagonal system, all its states, with gradients by the kernel table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuralsolve.kernels import table
from neuralsolve.ssm.precision import as_given, first_derivative_only, not_compiled


@not_compiled
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


class _Scan(torch.autograd.Function):
    @staticmethod
    @as_given
    def forward(ctx: Any, a: Tensor, v: Tensor, initial: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
        a, given = a.detach().resolve_conj().contiguous(), v.detach().resolve_conj().contiguous()
        initial = initial.detach().resolve_conj().contiguous()
        x, last = torch.empty_like(given), torch.empty_like(initial)
        table(v.device).diagonal_scan(a, given, initial, x, last, reverse)
        ctx.save_for_backward(a, x, initial)
        ctx.reverse = reverse
        return x, last

    @staticmethod
    @first_derivative_only
    @as_given
    def backward(ctx: Any, grad: Tensor, of_last: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        a, x, initial = ctx.saved_tensors
        grad = grad.resolve_conj().clone(memory_format=torch.contiguous_format)
        carry = of_last.resolve_conj().clone(memory_format=torch.contiguous_format)
        a_grad = torch.zeros_like(a)
        table(x.device).diagonal_scan_backward(a, x, initial, grad, carry, a_grad, ctx.reverse)
        return a_grad, grad, carry, None
