"""Gaussian random fields on grids, by transforms: the random input of data sets.

    neumann    cosines k >= 0 on the unit box, s nodes a side; sum_k c_k xi_k cos(pi k . x),
               c_k = s tau^(alpha-1) (pi^2 |k|^2 + tau^2)^(-alpha/2), no constant part, as an orthonormal
               inverse DCT-II of s^d coefficients
    periodic   Fourier modes on the unit torus, spectrum N^d sqrt(2) sigma (4 pi^2 |k|^2 + tau^2)^(-alpha/2),
               sigma = tau^((2 alpha - d)/2), no mean

xi standard normal. They are samples of N(0, sigma^2 (-Laplace + tau^2)^-alpha), as in the generators of Li et
al. (ICLR 2021, arXiv 2010.08895, appendix A.3).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.fft import idctn


def neumann(side: int, dim: int, alpha: float, tau: float, generator: np.random.Generator) -> np.ndarray:
    """Return one field ``(side,) * dim`` with no flux through the walls of the unit box.

    Examples
    --------
    >>> field = neumann(33, 2, alpha=2.0, tau=3.0, generator=np.random.default_rng(5))
    >>> field.shape, bool(abs(field.mean()) < 1e-12)
    ((33, 33), True)
    """
    square: Any = sum(k.astype(float) ** 2 for k in np.ogrid[tuple(slice(side) for _ in range(dim))])
    amplitude = side * tau ** (alpha - 1) * (np.pi**2 * square + tau**2) ** (-alpha / 2)
    amplitude = amplitude * generator.standard_normal((side,) * dim)
    amplitude.flat[0] = 0.0
    return np.asarray(idctn(amplitude, norm="ortho"))


def periodic(side: int, dim: int, alpha: float, tau: float, generator: np.random.Generator) -> np.ndarray:
    """Return one periodic field ``(side,) * dim`` without a mean, at the nodes i / side.

    Examples
    --------
    >>> field = periodic(32, 1, alpha=2.0, tau=5.0, generator=np.random.default_rng(5))
    >>> field.shape, bool(abs(field.mean()) < 1e-12)
    ((32,), True)
    """
    waves = [np.fft.fftfreq(side, 1 / side)] * dim
    square: Any = sum(k**2 for k in np.meshgrid(*waves, indexing="ij", sparse=True))
    sigma = tau ** ((2 * alpha - dim) / 2)
    spectrum = side**dim * np.sqrt(2) * sigma * (4 * np.pi**2 * square + tau**2) ** (-alpha / 2)
    noise = generator.standard_normal((2, *(side,) * dim))
    spectrum = spectrum * (noise[0] + 1j * noise[1])
    spectrum.flat[0] = 0.0
    return np.fft.ifftn(spectrum).real
