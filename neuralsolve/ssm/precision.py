"""What autograd functions here share: precision of their arguments, first derivatives alone, no compiler."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from neuralsolve.errors import OptionError

P = ParamSpec("P")
T = TypeVar("T")


def as_given(act: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a forward or backward of an autograd function: autocast is off inside."""

    @wraps(act)
    def without_autocast(ctx: Any, *given: Any) -> Any:
        device = next(value.device.type for value in given if isinstance(value, Tensor))
        with torch.autocast(device, enabled=False):
            return act(ctx, *given)

    return without_autocast


def not_compiled(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate what calls kernels: `torch.compile` leaves it as it is, and compiles what is around it.

    Inside `torch.func` transforms, which kernels cannot see through, it raises OptionError.
    """
    plain: Callable[P, T] = _disable_dynamo(function)  # loads the compiler when called, not now

    @wraps(function)
    def call(*given: P.args, **named: P.kwargs) -> T:
        if torch._C._are_functorch_transforms_active():
            msg = (
                "state-space layers do not go through torch.func (vmap, grad, jvp); they take batches as "
                "they are, and gradients by backward() or torch.autograd.grad"
            )
            raise OptionError(msg)
        return (plain if torch.compiler.is_compiling() else function)(*given, **named)

    return call


def first_derivative_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a backward that is not differentiable: where a graph of it is wanted, it says so.

    torch's own `once_differentiable` says so only on the way through it, so that a second derivative whose
    path ends there is zero in silence.
    """

    @wraps(backward)
    def once(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():
            msg = (
                "second derivatives of state-space layers are not known; leave create_graph=True out, or "
                "take them by differences"
            )
            raise OptionError(msg)
        return backward(ctx, *gradients)

    return once
