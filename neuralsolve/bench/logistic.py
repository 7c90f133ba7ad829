"""Logistic regression under linear constraints and on a sphere, on the data that come with scikit-learn.

    minimise  mean_i log(1 + exp(-y_i a_i . x))   subject to  A x = b,  ||x||^2 = 1,

features scaled to mean 0 and deviation 1, A of ten rows of N(0, 1), b = A x* of a random x* on the sphere, so
that there is a solution; x0 and the multipliers are ones, as in Hong et al. (ICML 2023, arXiv 2305.18379).
"""

from __future__ import annotations

import numpy as np

from neuralsolve.errors import InputError
from neuralsolve.optimize.problem import EqualityProblem

SETS = ("breast_cancer", "digits", "wine")
ROWS = 10


def logistic(name: str, seed: int) -> EqualityProblem:
    """Return the problem on one of `SETS`: its first class, of digits those below five, against the rest."""
    features, signs = _data(name)
    rng = np.random.default_rng(seed)
    n = features.shape[1]
    A, aim = rng.standard_normal((ROWS, n)), rng.standard_normal(n)
    b = A @ (aim / np.linalg.norm(aim))
    X = features * signs[:, None]

    def probability(x: np.ndarray) -> np.ndarray:
        return 0.5 * (1 - np.tanh(0.5 * (X @ x)))  # 1 / (1 + exp(margin)), without overflow

    def hess(x: np.ndarray) -> np.ndarray:
        p = probability(x)
        return (X.T * (p * (1 - p))) @ X / len(X)

    return EqualityProblem(
        np.ones(n),
        lambda x: float(np.logaddexp(0, -(X @ x)).mean()),
        lambda x: -(X.T @ probability(x)) / len(X),
        hess,
        lambda x: np.append(A @ x - b, x @ x - 1),
        lambda x: np.vstack([A, 2 * x]),
        lambda x, v: 2 * v[-1] * np.eye(n),
        multipliers0=np.ones(ROWS + 1),
    )


def _data(name: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn import datasets
    except ImportError:
        msg = "these data come with scikit-learn: pip install 'neuralsolve[peers]'"
        raise InputError(msg) from None
    features, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
    spread = features.std(0)
    scaled = (features - features.mean(0)) / np.where(spread > 0, spread, 1.0)
    return scaled, np.where(labels < 5 if name == "digits" else labels == 0, 1.0, -1.0)
