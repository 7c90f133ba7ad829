"""Gaussian random fields on grids, by transforms: the random input of data sets.

    neumann    cosines k >= 0 on the unit box of N nodes, at the centres of its cells; coefficients
               sqrt(N) sigma (pi^2 |k|^2 + tau^2)^(-alpha/2) xi_k, no constant part, of an orthonormal
               inverse DCT-II
    periodic   Fourier modes on the unit torus of N nodes, spectrum
               N sqrt(2) sigma (4 pi^2 |k|^2 + tau^2)^(-alpha/2), no mean

xi standard normal, sigma = tau^(alpha - d/2). The first samples N(0, sigma^2 (-Laplace + tau^2)^-alpha). The
second has twice that variance: the real part of an inverse FFT of independent modes k and -k, as the
generators of Li et al. make it (ICLR 2021, arXiv 2010.08895, appendix A.3).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.fft import idctn


def neumann(shape: tuple[int, ...], alpha: float, tau: float, generator: np.random.Generator) -> np.ndarray:
    """Return one field with no flux through the walls of the unit box.

    Examples
    --------
    >>> field = neumann((33, 33), alpha=2.0, tau=3.0, generator=np.random.default_rng(5))
    >>> field.shape, bool(abs(field.mean()) < 1e-12)
    ((33, 33), True)
    """
    square: Any = sum(k.astype(float) ** 2 for k in np.ogrid[tuple(slice(side) for side in shape)])
    scale = math.sqrt(math.prod(shape)) * tau ** (alpha - len(shape) / 2)
    amplitude = scale * (np.pi**2 * square + tau**2) ** (-alpha / 2) * generator.standard_normal(shape)
    amplitude.flat[0] = 0.0
    return np.asarray(idctn(amplitude, norm="ortho"))


def periodic(shape: tuple[int, ...], alpha: float, tau: float, generator: np.random.Generator) -> np.ndarray:
    """Return one periodic field without a mean, at the nodes i / side of the unit torus.

    Examples
    --------
    >>> field = periodic((32,), alpha=2.0, tau=5.0, generator=np.random.default_rng(5))
    >>> field.shape, bool(abs(field.mean()) < 1e-12)
    ((32,), True)
    """
    waves = [np.fft.fftfreq(side, 1 / side) for side in shape]
    square: Any = sum(k**2 for k in np.meshgrid(*waves, indexing="ij", sparse=True))
    scale = math.prod(shape) * np.sqrt(2) * tau ** (alpha - len(shape) / 2)
    noise = generator.standard_normal((2, *shape))
    spectrum = scale * (4 * np.pi**2 * square + tau**2) ** (-alpha / 2) * (noise[0] + 1j * noise[1])
    spectrum.flat[0] = 0.0
    return np.fft.ifftn(spectrum).real
