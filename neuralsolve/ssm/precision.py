"""What autograd functions here share: the precision of their arguments, and first derivatives alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from neuralsolve.errors import OptionError


def as_given(act: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a forward or backward of an autograd function: autocast is off inside."""

    @wraps(act)
    def without_autocast(ctx: Any, *given: Any) -> Any:
        device = next(value.device.type for value in given if isinstance(value, Tensor))
        with torch.autocast(device, enabled=False):
            return act(ctx, *given)

    return without_autocast


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
