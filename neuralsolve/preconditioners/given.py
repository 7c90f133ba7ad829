"""A preconditioner that the caller made: a function, matrix or operator r -> z, taken as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.operators.base import LinearOperator, output_like, shallow
from neuralsolve.operators.convert import as_operator
from neuralsolve.operators.csr import CSROperator
from neuralsolve.operators.structured import CallableOperator, DenseOperator
from neuralsolve.preconditioners.base import Preconditioner, Recipe


class Given(Recipe):
    """A preconditioner that the caller made: an operator or function r -> z, taken as it is.

    Nothing is known of a bare function, so `symmetric` says what the caller promises; a matrix or SciPy
    operator is believed to be symmetric positive definite where the method needs it, and the loop reports it
    where it is not.
    """

    def __init__(self, operator: LinearOperator, built: Preconditioner | None = None):
        self.operator, self.built = operator, built  # of ours, where the map is its `apply`

    def build(self, A: LinearOperator) -> Preconditioner:
        """Return the caller's own map; there is nothing to set up."""
        return _GivenPreconditioner(self.operator, self.built)


class _GivenPreconditioner(Preconditioner):
    def __init__(self, operator: LinearOperator, built: Preconditioner | None):
        self.operator, self.built = operator, built
        self.symmetric = True
        if isinstance(operator, CSROperator | DenseOperator):
            S = operator.to_scipy()
            self.symmetric = bool(abs(S - S.T).max() <= 1e-10 * abs(S).max())
        elif isinstance(operator, CallableOperator) and operator.block:  # a preconditioner of ours, built
            self.symmetric = operator.symmetric

    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        return self.operator.matvec(r, output_like(r, len(r), out))

    def apply_transpose(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        return self.operator.rmatvec(r, output_like(r, len(r), out))

    def to(self, device: torch.device) -> Preconditioner:
        if self.built is not None and device.type != "cpu":
            return self.built.to(device)
        moved = shallow(self)
        moved.operator = self.operator.to(device)
        return moved

    def update(self, A_next: LinearOperator) -> None:
        """Nothing to follow: the caller owns the map."""

    def describe(self) -> str:
        return "the given M"


class Library:
    """Which library a bare function given as M is to be called with: that of the b at hand."""

    torch = True


def as_recipe(M: Any, n: int, foreign: Library) -> Recipe | None:
    """Return M as a recipe: recipes as they are; operators, matrices and functions r -> z as given."""
    if M is None or isinstance(M, Recipe):
        return M
    if isinstance(M, type) and issubclass(M, Recipe):
        msg = f"M is the class {M.__name__}; an object is needed: ns.{M.__name__}()"
        raise OptionError(msg)
    if isinstance(M, Preconditioner):
        props = {"symmetric"} if M.symmetric else ()
        return Given(CallableOperator(M.apply, (n, n), props=props, block=True), M)
    if callable(M) and not hasattr(M, "shape"):
        return Given(CallableOperator(_on_callers_arrays(M, foreign), (n, n)))
    if isinstance(M, str | int | float):
        msg = f"M is {M!r}; a recipe such as ns.Jacobi() or ns.AMG(), a matrix or a function r -> z is needed"
        raise OptionError(msg)
    operator = as_operator(M)
    if operator.shape != (n, n):
        msg = f"M is {operator.shape}, A is {(n, n)}; M approximates the inverse of A and has its shape"
        raise ShapeError(msg)
    return Given(operator.to(dtype=torch.float64))


def _on_callers_arrays(function: Callable[[Any], Any], foreign: Library) -> Callable[[Tensor], Tensor]:
    def apply(r: Tensor) -> Tensor:
        with torch.no_grad():
            tensors = foreign.torch or isinstance(function, torch.nn.Module)
            z = function(r) if tensors else function(r.cpu().numpy())
        if not isinstance(z, Tensor | np.ndarray):
            msg = f"M returned a {type(z).__name__} for a residual; a vector of the same shape is needed"
            raise ShapeError(msg)
        z = torch.as_tensor(z).to(r.device, torch.float64)
        if z.shape != r.shape:
            msg = f"M returned {tuple(z.shape)} for a residual of {tuple(r.shape)}; it must keep the shape"
            raise ShapeError(msg)
        return z

    return apply
