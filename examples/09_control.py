"""Where to heat a plate so that its temperature comes near to a wish: optimisation under a PDE.

    minimise 1/2 ||w - wish||^2 + alpha/2 ||z||^2   subject to   -Laplace w = z,  w = 0 on the wall

The heating z and the temperature w are the unknowns, 2 n^2 of them. Matrices are sparse, and M stands for the
inverse of the KKT matrix: here the package's own `PoissonControl` brings it, V-cycles of multigrid.
"""

from dataclasses import replace

import numpy as np

import neuralsolve as ns
from neuralsolve.pde.control import PoissonControl

N = 63


def main():
    """Return by how much the answers of MINRES and of a sparse factorisation differ."""
    control = PoissonControl(N, alpha=1e-3)
    nodes = np.linspace(-1, 1, N + 2)[1:-1]
    wish = (np.hypot(*np.meshgrid(nodes - 0.3, nodes)) < 0.5).astype(float).ravel()  # a hot disc
    given = control.problem()

    def misfit(x):
        w, z = np.split(x, 2)
        return 0.5 * float((w - wish) @ (w - wish) + control.alpha * (z @ z))

    def gradient(x):
        w, z = np.split(x, 2)
        return np.concatenate([w - wish, control.alpha * z])

    problem = replace(given, fun=misfit, jac=gradient)
    iterative = ns.minimize(problem)
    direct = ns.minimize(problem, method=ns.SketchedNewton(inner="direct"))
    for result in (iterative, direct):
        print(result)
    w, wished = iterative.x[: N * N], wish > 0
    print(f"temperature: {w[wished].mean():.2f} in the disc, {w[~wished].mean():.2f} outside")
    return float(np.abs(iterative.x - direct.x).max() / np.abs(direct.x).max())


if __name__ == "__main__":
    print(f"difference of both, relative: {main():.1e}")
