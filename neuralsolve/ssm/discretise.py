"""A diagonal system with inputs held between samples (zero-order hold), or by the bilinear transform.

    x' = lambda x + B u     becomes     x_k = a x_{k-1} + gain B u_k,    a = exp(z)

                zero-order hold                         bilinear (Tustin)
    a           exp(Delta lambda)                       (1 + Delta lambda / 2) / (1 - Delta lambda / 2)
    gain        (exp(Delta lambda) - 1) / lambda        Delta / (1 - Delta lambda / 2)

Both keep Re(lambda) < 0 inside the unit circle. (exp(x) - 1) / x is taken without cancellation. Source: Gu,
Gupta, Goel & Re (NeurIPS 2022, arXiv 2206.11893), sec. 3.2; the sample u_k is held over the step that ends in
x_k.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from neuralsolve.errors import OptionError, nearest

METHODS = ("zoh", "bilinear")
_SMALL = 0.02  # below it eight terms of the series err by less than 1e-17
_TERMS = 8


class Discrete(NamedTuple):
    """A step of a diagonal system, all complex128 of the shape of its eigenvalues.

    Attributes
    ----------
    exponents : z with a = exp(z)
    factors : a
    gain : what the input B u is multiplied by
    """

    exponents: Tensor
    factors: Tensor
    gain: Tensor


def phi1(x: Tensor) -> Tensor:
    """Return (exp(x) - 1) / x, 1 at zero, to some units in the last place for complex x.

    Examples
    --------
    >>> phi1(torch.tensor([0.0, 1e-9], dtype=torch.complex128)).real
    tensor([1.0000, 1.0000], dtype=torch.float64)
    """
    small = x.abs() < _SMALL
    tiny, large = torch.where(small, x, 0), torch.where(small, 1, x)
    series = torch.ones_like(tiny)
    for k in range(_TERMS, 1, -1):
        series = 1 + tiny * series / k
    re, im = large.real, large.imag
    # exp(x) - 1 = (e^re - 1) cos(im) + (cos(im) - 1) + i e^re sin(im)
    above = torch.complex(
        torch.expm1(re) * torch.cos(im) - 2 * torch.sin(im / 2).square(), torch.exp(re) * torch.sin(im)
    )
    return torch.where(small, series, above / large)


def discretise(eigenvalues: Tensor, step: Tensor, method: str = "zoh") -> Discrete:
    """Return the step of a diagonal system.

    Parameters
    ----------
    eigenvalues : (...,) complex
        lambda, per unit of time.
    step : (...,) real
        Delta > 0, broadcast against the eigenvalues.
    method : {"zoh", "bilinear"}

    Raises
    ------
    OptionError
        For another method.

    Examples
    --------
    >>> step = discretise(torch.tensor([-1.0 + 0j]), torch.tensor(0.1))
    >>> round(float(step.factors.real), 6), round(float(step.gain.real), 6)
    (0.904837, 0.095163)
    """
    check_method(method)
    eigenvalues, step = eigenvalues.to(torch.complex128), step.to(torch.float64)
    x = eigenvalues * step
    if method == "zoh":
        return Discrete(x, torch.exp(x), step * phi1(x))
    factors = (1 + x / 2) / (1 - x / 2)
    # a real eigenvalue at exactly -2 / Delta gives a = 0, which has no logarithm
    exponents = torch.log(torch.where(factors == 0, torch.finfo(torch.float64).tiny, factors))
    return Discrete(exponents, factors, step / (1 - x / 2))


def check_method(method: str) -> None:
    """Raise OptionError where there is no such discretisation."""
    if method not in METHODS:
        msg = f"got the discretisation {method!r}, which does not exist{nearest(str(method), METHODS)}"
        raise OptionError(msg)
