"""Causal convolution along a sequence by FFT, and its two-sided form. O(L log L) for each channel.

    y_k = sum_{j <= k} K_{k-j} u_j   (+ sum_{j >= k} K'_{j-k} u_j, the second kernel applied to the sequence
                                        turned round)

Both are one cyclic convolution of length >= 2 L with K in front and K' from the end backwards. Some channels
are taken at a time, which bounds the memory of spectra; the backward pass forms that of u again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from neuralsolve.ssm.precision import as_given, first_derivative_only, not_compiled

TOGETHER = 1 << 22  # numbers of the padded sequences that are transformed at once
LINE = 16  # channels at least: those that share a line of the cache with their neighbours


def fast_length(n: int) -> int:
    """Return the smallest number >= n among 2^i, 3 2^i, 5 2^i, 9 2^i and 15 2^i.

    >>> [fast_length(n) for n in (1, 7, 17, 1000)]
    [1, 8, 18, 1024]
    """
    return min(m << max(0, math.ceil(math.log2(n / m))) for m in (1, 3, 5, 9, 15))


@not_compiled
def convolve(u: Tensor, kernel: Tensor, backward: Tensor | None = None) -> Tensor:
    """Return the causal convolution of every channel with its kernel.

    Parameters
    ----------
    u : (batch, L, channels)
    kernel : (channels, L)
    backward : (channels, L), optional
        Kernel of what comes later, lag 0 first.

    Returns
    -------
    (batch, L, channels)

    Examples
    --------
    >>> u = torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1)
    >>> convolve(u, torch.tensor([[1.0, 0.5, 0.0]])).flatten()
    tensor([1.0000, 2.5000, 5.0000])
    """
    return _Convolve.apply(u, kernel, backward)  # type: ignore[return-value]


class _Convolve(torch.autograd.Function):
    @staticmethod
    @as_given
    def forward(ctx: Any, u: Tensor, kernel: Tensor, backward: Tensor | None) -> Tensor:
        length = u.shape[1]
        n = fast_length(max(1, 2 * length - 1))
        spectrum = torch.fft.rfft(kernel.detach(), n)
        if backward is not None:
            spectrum += torch.fft.rfft(backward.detach(), n).conj()  # lag -j stands at n - j
        y = torch.empty_like(u, memory_format=torch.contiguous_format)
        for part in _parts(u, n):
            found = _spectrum(u.detach(), part, n).mul_(spectrum[part])
            y[..., part] = torch.fft.irfft(found, n)[..., :length].transpose(1, 2)
        ctx.save_for_backward(u, spectrum)
        ctx.lengths = n, length
        return y

    @staticmethod
    @first_derivative_only
    @as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (u, spectrum), (n, length) = ctx.saved_tensors, ctx.lengths
        of_u = torch.empty_like(u, memory_format=torch.contiguous_format) if ctx.needs_input_grad[0] else None
        of_kernel = u.new_empty(u.shape[2], n)  # at all lags, the negative ones at the end
        for part in _parts(u, n):
            g = _spectrum(grad, part, n)
            cross = (_spectrum(u.detach(), part, n).conj_physical_().mul_(g)).sum(0)
            of_kernel[part] = torch.fft.irfft(cross, n)
            if of_u is not None:
                g *= spectrum[part].conj()
                of_u[..., part] = torch.fft.irfft(g, n)[..., :length].transpose(1, 2)
        of_backward = None
        if ctx.needs_input_grad[2]:
            of_backward = of_kernel.flip(1).roll(1, 1)[:, :length]
        return of_u, of_kernel[:, :length], of_backward


def _parts(u: Tensor, n: int) -> Iterator[slice]:
    channels, together = u.shape[2], max(LINE, TOGETHER // (n * max(1, len(u))))
    for first in range(0, channels, together):
        yield slice(first, min(first + together, channels))


def _spectrum(u: Tensor, part: slice, n: int) -> Tensor:
    """Return the transforms (batch, channels of the part, n / 2 + 1) of sequences filled up with zeros."""
    return torch.fft.rfft(u[..., part].transpose(1, 2), n)


def convolve_states(v: Tensor, exponents: Tensor, initial: Tensor | None = None) -> Tensor:
    """Return all states of x_k = exp(z) x_{k-1} + v_k, each by FFT.

    Parameters
    ----------
    v : (batch, L, P) complex
    exponents : (P,) complex
        z.
    initial : (batch, P) complex, optional

    Returns
    -------
    (batch, L, P) complex, the dtype of v

    Examples
    --------
    >>> v = torch.ones(1, 3, 1, dtype=torch.complex128)
    >>> convolve_states(v, torch.log(torch.tensor([0.5 + 0j], dtype=v.dtype))).real.flatten()
    tensor([1.0000, 1.5000, 1.7500], dtype=torch.float64)
    """
    length = v.shape[1]
    steps = torch.arange(length + 1, dtype=torch.float64, device=v.device)[:, None]
    powers = torch.exp(steps * exponents.to(torch.complex128))  # (L + 1, P)
    n = fast_length(max(1, 2 * length - 1))
    spectrum = torch.fft.fft(powers[:-1].to(v.dtype), n, dim=0)
    x = torch.fft.ifft(torch.fft.fft(v, n, dim=1) * spectrum, n, dim=1)[:, :length]
    return x if initial is None else x + (powers[1:] * initial[:, None]).to(v.dtype)
