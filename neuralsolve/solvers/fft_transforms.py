"""The transforms of a box by torch.fft, for vectors on a GPU; bases, scales and names: `transforms`.

| transform       | taken from                                                        | length          |
|-----------------|-------------------------------------------------------------------|-----------------|
| DCT-II, DCT-III | real FFT of x_0, x_2, x_4, ..., x_5, x_3, x_1                     | n               |
| DST-II, DST-III | DCT-II of (-1)^j x_j, backwards                                   | n               |
| DST-I, odd FFT  | real FFT of the odd extension                                     | 2n + 2, 2n + 1  |
| DCT-IV          | complex FFT of x_j exp(-i pi j / 2n), zeros behind                | 2n              |
| DST-IV          | (-1)^k DCT-IV of x backwards                                      | 2n              |
| real FFT        | itself; modes in the order 1, cos, cos, ..., sin, sin, ...        | n               |

Makhoul, IEEE Trans. Acoust. Speech Signal Process. 28 (1980) 27, for the first; the others follow from their
definitions. Every one is a few roundings of what its definition gives. Steps return new tensors.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from neuralsolve.solvers.transforms import Axis, Step, Transform, eigenvalues_of, odd_basis
from neuralsolve.solvers.transforms import transform as on_cpu

Pair = tuple[Step, Step]


def transform(axis: Axis, a: int, device: torch.device) -> Transform:
    """Return the transform along axis a of (n0, n1, n2, k) on a device; as `transforms.transform` otherwise.

    Modes are in the same order, but for those of a periodic axis.
    """
    n, like = axis.size, on_cpu(axis, a, 1)
    if axis.walls is None:
        k = np.concatenate([np.arange(n // 2 + 1), np.arange(1, (n + 1) // 2)])
        forward, backward = _fourier(n, a)
        return replace(
            like, forward=forward, backward=backward, eigenvalues=eigenvalues_of(axis, 2 * math.pi * k / n)
        )
    if axis.walls == (0, 0):
        forward, backward = _cosines(n, a, device)
    elif axis.walls == (2, 2):
        forward, backward = _sines(n, a, device)
    elif axis.walls == (1, 1):
        forward = backward = _odd_extension(n, a, 2 * n + 2)
    elif axis.walls in ((0, 2), (2, 0)):
        forward = backward = _fourth_kind(n, a, axis.walls == (2, 0), device)
    else:
        forward, backward = _odd(axis, a, device)
    return replace(like, forward=forward, backward=backward)


def _along(values: np.ndarray, a: int, device: torch.device) -> Tensor:
    """Return numbers along axis a of four."""
    return torch.from_numpy(values).to(device).reshape([-1 if axis == a else 1 for axis in range(4)])


def _alternating(n: int, a: int, device: torch.device) -> Tensor:
    return _along(1.0 - 2.0 * (np.arange(n) % 2), a, device)


def _cosines(n: int, a: int, device: torch.device) -> Pair:
    """Return DCT-II and DCT-III: y_k = 2 Re w_k U_k, y_{n-k} = -2 Im w_k U_k, w_k = exp(-i pi k / 2n)."""
    half = n // 2
    w = np.exp(-0.5j * math.pi * np.arange(half + 1) / n)
    turn, back = _along(2 * w, a, device), _along(w.conj(), a, device)
    halves = np.concatenate([np.arange(0, n, 2), np.arange(1, n, 2)[::-1]])
    order, place = (torch.from_numpy(k).to(device) for k in (halves, np.argsort(halves)))

    def forward(v: Tensor) -> Tensor:
        z = turn * torch.fft.rfft(v.index_select(a, order), dim=a)
        return torch.cat([z.real, -z.imag.narrow(a, 1, (n - 1) // 2).flip(a)], a)

    def backward(y: Tensor) -> Tensor:
        first, behind = y.narrow(a, 0, half + 1), torch.zeros_like(y.narrow(a, 0, half + 1))
        behind.narrow(a, 1, half).copy_(-y.narrow(a, n - half, half).flip(a))  # -y_{n-k}, and y_n = 0
        u = torch.fft.irfft(back * torch.complex(first, behind), n, dim=a, norm="forward")
        return u.index_select(a, place)

    return forward, backward


def _sines(n: int, a: int, device: torch.device) -> Pair:
    """Return DST-II and DST-III."""
    signs, (cosines, inverse) = _alternating(n, a, device), _cosines(n, a, device)
    return lambda v: cosines(v * signs).flip(a), lambda y: inverse(y.flip(a)) * signs


def _odd_extension(n: int, a: int, length: int) -> Step:
    """Return y_k = 2 sum_j x_j sin(2 pi k j / length), j, k = 1..n: DST-I where length is 2n + 2."""

    def sines(v: Tensor) -> Tensor:
        shape = [length if axis == a else size for axis, size in enumerate(v.shape)]
        extended = v.new_zeros(shape)
        extended.narrow(a, 1, n).copy_(v)
        extended.narrow(a, length - n, n).copy_(-v.flip(a))
        return -torch.fft.rfft(extended, dim=a).imag.narrow(a, 1, n)

    return sines


def _odd(axis: Axis, a: int, device: torch.device) -> Pair:
    """Return the sine transform with one Dirichlet end, which cells are counted from."""
    reverse, signs, _ = odd_basis(axis)
    signs, sines = _along(signs, a, device), _odd_extension(axis.size, a, 2 * axis.size + 1)

    def turned(v: Tensor) -> Tensor:
        return v.flip(a) if reverse else v

    return lambda v: sines(turned(v) * signs), lambda y: turned(sines(y) * signs)


def _fourth_kind(n: int, a: int, sine: bool, device: torch.device) -> Step:
    """Return DCT-IV or DST-IV, each its own inverse: cos(pi (2k + 1) (2j + 1) / 4n)."""
    j = np.arange(n)
    before = _along(np.exp(-0.5j * math.pi * j / n), a, device)
    after = _along(2 * np.exp(-0.25j * math.pi * (2 * j + 1) / n), a, device)
    signs = _alternating(n, a, device)

    def cosines(v: Tensor) -> Tensor:
        return (after * torch.fft.fft(v * before, 2 * n, dim=a).narrow(a, 0, n)).real

    return (lambda v: signs * cosines(v.flip(a))) if sine else cosines


def _fourier(n: int, a: int) -> Pair:
    half, sines = n // 2, (n - 1) // 2

    def forward(v: Tensor) -> Tensor:
        z = torch.fft.rfft(v, dim=a)
        return torch.cat([z.real, z.imag.narrow(a, 1, sines)], a)

    def backward(y: Tensor) -> Tensor:
        real = y.narrow(a, 0, half + 1)
        imaginary = torch.zeros_like(real)
        imaginary.narrow(a, 1, sines).copy_(y.narrow(a, half + 1, sines))
        return torch.fft.irfft(torch.complex(real, imaginary), n, dim=a)

    return forward, backward
