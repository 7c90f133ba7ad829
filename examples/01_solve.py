"""A x = b from SciPy: nothing chosen by hand, the choice explained, the residual checked."""

import numpy as np
import scipy.sparse as sp

import neuralsolve as ns


def main() -> float:
    n = 100
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    reaction = sp.diags_array(np.linspace(0, 1, n * n))
    A = sp.csr_array(sp.kron(line, sp.eye_array(n)) + sp.kron(sp.eye_array(n), line) + reaction)
    b = np.ones(n * n)

    result = ns.solve(A, b)
    print(result)

    relative = float(np.linalg.norm(b - A @ result.x) / np.linalg.norm(b))
    print(f"relative residual {relative:.1e}")
    return relative


if __name__ == "__main__":
    main()
