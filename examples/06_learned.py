"""A network proposes directions, conjugacy and line search make them safe: few iterations, each a dear one.

The network is that of DCDM (Kaneda et al. 2023), trained on the empty box of 64 x 64 cells. Beside it CG, and
a network that was never trained: it is found out, and costs a few steps.
"""

import numpy as np

import neuralsolve as ns
from neuralsolve.models.direction import DirectionNet


def main() -> float:
    A = ns.PoissonStencil(ns.Grid((64, 64), walls="dirichlet"))
    b = np.random.default_rng(6006).standard_normal(A.shape[0])
    runs = {
        "CG": (ns.CG(), None),
        "DCDM, trained": (ns.DCDM(history=2), ns.NeuralDirection("dcdm2d")),
        "DCDM, untrained": (ns.DCDM(history=2), ns.NeuralDirection(DirectionNet(dim=2))),
    }
    counts = {}
    for name, (method, M) in runs.items():
        result = ns.solve(A, b, method, M=M, rtol=1e-4)
        counts[name] = result.iterations
        print(f"{name:16} {result.iterations:4} iterations, {1e3 * result.solve_seconds:6.1f} ms")
    ratio = counts["CG"] / counts["DCDM, trained"]
    print(f"CG takes {ratio:.1f} times as many iterations, and on a CPU less time")
    return ratio


if __name__ == "__main__":
    main()
