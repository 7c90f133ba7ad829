"""Functions of autograd that compute in the precision of their arguments, under autocast too."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def as_given(act: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a forward or backward of an autograd function: autocast is off inside."""

    @wraps(act)
    def without_autocast(ctx: Any, *given: Any) -> Any:
        device = next(value.device.type for value in given if isinstance(value, Tensor))
        with torch.autocast(device, enabled=False):
            return act(ctx, *given)

    return without_autocast
