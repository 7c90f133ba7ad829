"""The gradient of a solve, by one more solve with A^T.

x = A^-1 b gives, for an incoming gradient g, lam = A^-T g, db = lam and dtheta = -lam . (dA/dtheta) x: no
iteration is differentiated. Where A is symmetric and singular, x = A^+ P b and lam = A^+ P g; gradients of
A's values are then those along changes that keep the null space, as face coefficients do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuralsolve.errors import StructureError

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
        ctx.save_for_backward(result.x, b, *parameters)
        return result.x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, b, *parameters = ctx.saved_tensors
        with torch.no_grad():
            lam = ctx.adjoint(grads[0].detach().to(ctx.A.device, torch.float64).contiguous())
            gradients: list[Any] = [None] * len(parameters)
            if any(ctx.needs_input_grad[5:]):
                found = ctx.A.parameter_gradients(lam, x.detach().to(lam.device, torch.float64))
                gradients = [g.to(p.device, p.dtype) for g, p in zip(found, parameters, strict=True)]
            given = [lam.to(grads[0].device, b.dtype), *gradients]
        if torch.is_grad_enabled():  # a graph of the gradient is asked for
            given = [None if g is None else _Once.apply(g, grads[0], b, *parameters) for g in given]
        return (None, None, None, None, *given)


class _Once(torch.autograd.Function):
    """The identity; asks for the graph's tensors only to refuse a second derivative, which is not formed."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *_: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        msg = (
            "solve is differentiable once, a second derivative through it is asked for; form it by finite "
            "differences of the gradient, or detach the gradient first"
        )
        raise StructureError(msg)
