"""The gradient of a solve, by one more solve with A^T.

x = A^-1 b gives, for an incoming gradient g, lam = A^-T g, db = lam and dtheta = -lam . (dA/dtheta) x: no
iteration is differentiated. Where A is symmetric and singular, x = A^+ P b and lam = A^+ P g; gradients of
A's values are then those along changes that keep the null space, as face coefficients do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from neuralsolve.operators.base import LinearOperator
    from neuralsolve.solvers.result import SolveResult


def wants_gradient(A: LinearOperator, b: Any) -> bool:
    """Whether torch is recording and b or the data of A asks for a gradient."""
    if not torch.is_grad_enabled() or not isinstance(b, Tensor):
        return False
    return b.requires_grad or any(p.requires_grad for p in A.parameters())


def differentiable_solve(
    solve: Callable[[Any], SolveResult], adjoint: Callable[[Tensor], Tensor], A: LinearOperator, b: Tensor
) -> tuple[Tensor, SolveResult]:
    """Return x, attached to the graph of b and of A's parameters, and the result of the forward solve."""
    results: list[SolveResult] = []
    x = _Solve.apply(solve, adjoint, A, results, b, *A.parameters())
    return x, results[0]  # type: ignore[return-value]


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        solve: Callable,
        adjoint: Callable,
        A: LinearOperator,
        results: list,
        b: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        result = solve(b)
        results.append(result)
        ctx.adjoint, ctx.A = adjoint, A
        ctx.dtypes = b.dtype, [p.dtype for p in parameters]
        ctx.save_for_backward(result.x)
        return result.x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        lam = ctx.adjoint(grads[0].to("cpu", torch.float64).contiguous())
        b_dtype, dtypes = ctx.dtypes
        gradients: Sequence[Any] = [None] * len(dtypes)
        if any(ctx.needs_input_grad[5:]):
            found = ctx.A.parameter_gradients(lam, x.to("cpu", torch.float64))
            gradients = [g.to(d) for g, d in zip(found, dtypes, strict=True)]
        return (None, None, None, None, lam.to(grads[0].device, b_dtype), *gradients)
