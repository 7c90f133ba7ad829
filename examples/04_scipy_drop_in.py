"""An existing SciPy script: change the import, keep the call; info now rests on the true residual."""

import numpy as np
import pyamg

from neuralsolve.linalg import cg


def main() -> int:
    A = pyamg.gallery.poisson((80, 80), format="csr")
    b = np.random.default_rng(7).standard_normal(A.shape[0])
    M = pyamg.smoothed_aggregation_solver(A).aspreconditioner()

    x, info = cg(A, b, rtol=1e-8, M=M)
    print(f"info {info}, relative residual {np.linalg.norm(b - A @ x) / np.linalg.norm(b):.1e}")
    return info


if __name__ == "__main__":
    main()
