"""How many products with A a solve takes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor

from neuralsolve.operators.base import LinearOperator


class Products:
    """Counts the products with an operator, through a copy of it that behaves the same."""

    def __init__(self, A: LinearOperator):
        self.count = 0
        self.A = copy.copy(A)
        for name in ("matvec", "matvec_dot", "direction_dot", "rmatvec"):
            vars(self.A)[name] = self._counting(getattr(A, name))

    def _counting(self, product: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def counted(*arguments: Any, **options: Any) -> Tensor:
            self.count += 1
            return product(*arguments, **options)

        return counted
