"""The pressure step of a CFD script: a body moves, so every step has a new A; p starts from the last one."""

import numpy as np

import neuralsolve as ns


def main() -> float:
    n, h = 96, 1 / 96
    y, x = np.indices((n, n)) * h

    def stencil(step: int) -> ns.PoissonStencil:
        cells = np.where((x - 0.4 - 0.02 * step) ** 2 + (y - 0.5) ** 2 < 0.15**2, ns.SOLID, ns.FLUID)
        cells[-6:] = ns.AIR  # a free surface on top
        return ns.PoissonStencil(ns.Grid(cells, spacing=h))

    pressure = ns.prepare(stencil(0), rtol=1e-8)  # multigrid, and said so
    print(pressure.explanation)
    p = np.zeros(n * n)
    for step in range(5):
        pressure.update(stencil(step))
        divergence = np.sin(2 * np.pi * (x + 0.02 * step)) * np.cos(3 * np.pi * y)
        result = pressure.solve(-divergence.ravel(), x0=p)
        p = result.x
        print(f"step {step}: {result.iterations} iterations, ||b - Ap|| = {result.residual_norms[-1]:.1e}")
    return result.iterations


if __name__ == "__main__":
    main()
