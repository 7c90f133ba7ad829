"""Derivatives that the caller did not give: by torch where functions are torch's, by differences elsewhere.

Central differences err by about eps^(2/3) relative: a KKT residual of 1e-8 may then be out of reach.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from neuralsolve.errors import OptionError
from neuralsolve.optimize.problem import Vector

STEP = float(np.finfo(float).eps ** (1 / 3))


def differences(function: Callable[[Vector], Any]) -> Callable[[Vector], np.ndarray]:
    """Return x -> the derivative of a function to numbers or vectors, (n,) or (m, n), by central differences.

    >>> differences(lambda x: x[0] * x)(np.array([3.0, 2.0])).round(6)
    array([[6., 0.],
           [2., 3.]])
    """

    def derivative(x: Vector) -> np.ndarray:
        columns = []
        for j in range(len(x)):
            step = STEP * max(1.0, abs(x[j]))
            up, down = x.copy(), x.copy()
            up[j] += step
            down[j] -= step
            with np.errstate(invalid="ignore"):  # inf - inf: what is no number is told to the caller
                change = np.array(function(up.copy()), float) - np.asarray(function(down.copy()), float)
            columns.append(change / (up[j] - down[j]))
        return np.stack(columns, axis=-1)

    return derivative


def symmetric_differences(gradient: Callable[[Vector], Vector]) -> Callable[[Vector], np.ndarray]:
    """Return x -> the Hessian, of a gradient."""
    plain = differences(gradient)

    def derivative(x: Vector) -> np.ndarray:
        H = plain(x)
        return (H + H.T) / 2

    return derivative


class TorchFunction:
    """A torch function as NumPy's, with its derivatives.

    Parameters
    ----------
    function : tensor (n,) -> a number or a tensor (m,)
    like : a tensor whose device and dtype it is called with
    """

    def __init__(self, function: Callable[[Tensor], Any], like: Tensor):
        self.function, self.like = function, like

    def _tensor(self, x: Vector) -> Tensor:
        return torch.from_numpy(x).to(self.like)

    def _value(self, x: Tensor) -> Tensor:
        """Return the value as a tensor, whatever was returned."""
        try:
            value = self.function(x)
        except RuntimeError as error:
            if "numpy()" not in str(error):
                raise
            msg = "x0 is a torch tensor, and a function is NumPy's; give a NumPy x0, or torch functions"
            raise OptionError(msg) from error
        if isinstance(value, list | tuple):
            value = torch.stack([torch.as_tensor(each).to(x) for each in value])
        return torch.as_tensor(value).to(x)

    def _numpy(self, value: Any) -> np.ndarray:
        return torch.as_tensor(value).detach().cpu().double().numpy()

    def __call__(self, x: Vector) -> np.ndarray:
        with torch.no_grad():
            return self._numpy(self._value(self._tensor(x)))

    def jac(self, x: Vector) -> np.ndarray:
        """Return the gradient (n,) or the Jacobian (m, n)."""
        return self._numpy(jacobian(self._value, self._tensor(x)))

    def hess(self, x: Vector, v: Vector | None = None) -> np.ndarray:
        """Return the Hessian of the function, or of its product with v."""
        if v is None:
            return self._numpy(hessian(lambda z: self._value(z).reshape(()), self._tensor(x)))
        weights = torch.from_numpy(v).to(self.like)
        return self._numpy(hessian(lambda z: weights @ self._value(z).reshape(-1), self._tensor(x)))

    def given(self, derivative: Callable[..., Any]) -> Callable[..., np.ndarray]:
        """Return a derivative that the caller wrote in torch as NumPy's."""
        return lambda x, *more: self._numpy(
            derivative(self._tensor(x), *(torch.from_numpy(v).to(self.like) for v in more))
        )
