"""What perturb-then-diagonalise weighs: condition of the eigenvectors, transfer error, stability, size.

With M = A + E = V diag(l) V^-1, unit columns in V, and angular frequencies t_1, ..., t_T,

    log condition    log kappa_2(V), as (LSE_q(log sigma) + LSE_q(-log sigma)) of the singular values of V
    log error        log max_t e(t), as LSE_p(log e(t)) - log(T)/p,   e(t) = ||(it-A)^-1 B - (it-M)^-1 B||_F
    instability      sum relu((Re l - f)/(2f))^2 for the floor f < 0

where LSE_p(x) = log(sum exp(p x))/p stands in for the maximum: it is smooth where several singular values
or several frequencies are the largest at once, which they are at every optimum. LSE_q bounds log kappa from
above. E = size X / N(X) with N the Schatten q-norm, which is never below the spectral norm, so that
||E||_2 <= size holds whatever X is.

The gradients are those of first-order perturbation theory: for a change dM, dl_j = (W dM V)_jj with
W = V^-1, dV = V (F o (W dM V)), F_kj = 1/(l_j - l_k), columns then kept at length one, and
d (it-M)^-1 B = (it-M)^-1 dM (it-M)^-1 B. Everything follows from one eigendecomposition and one SVD of V:
O(n^3 + T n^2 p) for B (n, p).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from neuralsolve.lowrank.svd import svd
from neuralsolve.ssm.arrays import Array

CHUNK = 2_000_000  # numbers of a block of resolvents: frequencies are taken as many at a time as fit


def smooth_max(x: Array, p: float) -> tuple[float, Array]:
    """Return LSE_p(x) and its gradient, weights that sum to one; p = inf is the maximum itself.

    >>> value, weights = smooth_max(np.array([0.0, 0.0]), 4.0)
    >>> round(value, 4), weights.tolist()
    (0.1733, [0.5, 0.5])
    """
    top = x.max()
    if p == np.inf:
        return float(top), np.eye(len(x))[x.argmax()]
    weights = np.exp(p * (x - top))
    total = weights.sum()
    return float(top + np.log(total) / p), weights / total


@dataclass(frozen=True)
class Sharpness:
    """Powers of the smooth maxima: `error` over frequencies (p), `condition` over singular values (q)."""

    error: float
    condition: float


class Eigen:
    """The eigendecomposition of M, from which all terms come; V has unit columns.

    Raises
    ------
    np.linalg.LinAlgError
        An M that has none to working precision.
    """

    def __init__(self, M: Array):
        self.real = not np.iscomplexobj(M)
        eigenvalues, V = np.linalg.eig(M)
        self.eigenvalues, self.V = eigenvalues.astype(complex), V.astype(complex)
        self.W = np.linalg.inv(self.V)

    def back(self, K: Array) -> Array:
        """Return the gradient by M of a function that changes by Re tr(K^* (W dM V))."""
        G = self.W.conj().T @ K @ self.V.conj().T
        return G.real if self.real else G

    def log_condition(self, q: float) -> tuple[float, Array]:
        """Return the smooth log kappa_2(V) and its gradient by M."""
        found = svd(self.V, method="exact")
        U, sigma, Vh = found.U, found.s, found.Vh
        logs = np.log(np.maximum(sigma, 1e-300))
        upper, wu = smooth_max(logs, q)
        lower, wl = smooth_max(-logs, q)
        G = (U * ((wu - wl) / sigma)) @ Vh
        G = G - self.V * (self.V.conj() * G).sum(0)  # columns keep their length; phases do not matter
        gaps = self.eigenvalues[None, :] - self.eigenvalues[:, None]
        np.fill_diagonal(gaps, 1)
        F = 1 / gaps
        np.fill_diagonal(F, 0)
        return upper + lower, self.back((self.V.conj().T @ G) * F.conj())

    def instability(self, floor: float) -> tuple[float, Array]:
        """Return the penalty of eigenvalues right of `floor` < 0 and its gradient by M."""
        over = np.maximum(np.real(self.eigenvalues) - floor, 0) / (-2 * floor)
        return float((over**2).sum()), self.back(np.diag(over / -floor))

    def log_error(self, B: Array, t: Array, first: Array, p: float) -> tuple[float, Array]:
        """Return the smooth log max_t e(t) and its gradient; `first` (T, n, p) is (it-A)^-1 B."""
        n, inputs = B.shape
        b, D = (self.W @ B).T, 1 / (1j * t[:, None] - self.eigenvalues)
        height = max(1, CHUNK // B.size)
        blocks = [slice(i, i + height) for i in range(0, len(t), height)]
        # a row for each frequency and input: coordinates g of (it-M)^-1 B in V, and their errors d
        rows = [(D[k][:, None] * b).reshape(-1, n) for k in blocks]
        gaps = [
            g @ self.V.T - first[k].transpose(0, 2, 1).reshape(-1, n)
            for g, k in zip(rows, blocks, strict=True)
        ]
        e2 = np.concatenate([(np.real(d) ** 2 + np.imag(d) ** 2).sum(1) for d in gaps])
        e2 = e2.reshape(-1, inputs).sum(1) + 1e-300
        value, weights = smooth_max(0.5 * np.log(e2), p)
        K = np.zeros((n, n), complex)
        for k, g, d in zip(blocks, rows, gaps, strict=True):
            pull = (D[k].conj() * (weights[k] / e2[k])[:, None]).repeat(inputs, 0)
            K += (pull * (d @ self.V.conj())).T @ g.conj()
        return value - np.log(len(t)) / p, self.back(K)


@dataclass(frozen=True)
class Weighing:
    """How the terms are put together.

    mu log error + log condition + nu instability          where `goal` is None
    mu log error + penalty relu(log condition - log goal)^2 + nu instability    else

    Attributes
    ----------
    mu, nu : weights
    goal : wanted condition number, or None
    penalty : weight of its excess
    floor : real part, negative, that eigenvalues should stay left of
    """

    mu: float = 1.0
    nu: float = 1.0
    goal: float | None = None
    penalty: float = 30.0
    floor: float = -0.5

    def __call__(self, M: Array, B: Array, t: Array, first: Array, sharp: Sharpness) -> tuple[float, Array]:
        """Return the value and its gradient by M, (n, n), Re tr(G^* dM) its differential."""
        eigen = Eigen(M)
        condition, G = eigen.log_condition(sharp.condition)
        if self.goal is not None:
            excess = max(condition - np.log(self.goal), 0.0)
            condition, G = self.penalty * excess**2, 2 * self.penalty * excess * G
        unstable, Gu = eigen.instability(self.floor)
        value, G = condition + self.nu * unstable, G + self.nu * Gu
        if self.mu:
            error, Ge = eigen.log_error(B, t, first, sharp.error)
            value, G = value + self.mu * error, G + self.mu * Ge
        return value, G


class Sized:
    """E = size X / N(X), N the Schatten q-norm; X real or complex (n, n) as a real vector."""

    def __init__(self, n: int, size: float, q: float, real: bool):
        self.n, self.size, self.q, self.real = n, size, q, real

    def X(self, x: Array) -> Array:
        """Return the matrix of a vector."""
        parts = x.reshape(-1, self.n, self.n)
        return parts[0] if self.real else parts[0] + 1j * parts[1]

    def vector(self, X: Array) -> Array:
        """Return the vector of a matrix."""
        return X.ravel() if self.real else np.stack([np.real(X), np.imag(X)]).ravel()

    def E(self, x: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Return E and the map of a gradient by E to one by x."""
        X = self.X(x)
        found = svd(X, method="exact")
        U, sigma, Vh = found.U, found.s, found.Vh
        log_norm, weights = smooth_max(np.log(np.maximum(sigma, 1e-300)), self.q)
        scale = self.size * float(np.exp(-log_norm))
        slope = (U * (weights / np.maximum(sigma, 1e-300))) @ Vh  # of log N

        def back(G: Array) -> Array:
            return self.vector(scale * (G - slope * float(np.real(G.conj() * X).sum())))

        return scale * X, back
