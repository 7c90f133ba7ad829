"""A heat equation with a coefficient that changes: SSOR's omega is learned as the simulation runs.

Crank-Nicolson on 48 x 48 cells; every step solves (I + k(t) dt/2 L) u = rhs by CG with SSOR. The coefficient
k(t) is known before the step, so it is the context.
"""

import json

import numpy as np
import scipy.sparse as sp

import neuralsolve as ns

N, DT, STEPS = 48, 1e-3, 400
L = ns.PoissonStencil(ns.Grid((N, N), spacing=1 / N, walls="dirichlet")).to_scipy().tocsr()
IDENTITY = sp.eye_array(N * N, format="csr")


def coefficient(t):
    """Return k(t): between 0.1 and 10, as in Khodak et al. (2024)."""
    return max(0.1 * np.sin(2 * np.pi * t), -10 * np.sin(2 * np.pi * t)) + 0.05


def run(omega, state=None):
    """Return the iterations of all steps, and what was learned."""
    u = np.random.default_rng(0).random(N * N)
    k = coefficient(0.0)
    prepared = ns.prepare(IDENTITY + 0.5 * DT * k * L, ns.CG(), M=ns.SSOR(omega=omega), rtol=1e-8)
    if state is not None:
        prepared.load_state_dict(state)
    iterations = 0
    for step in range(STEPS):
        following = coefficient(DT * (step + 1) * 5)
        rhs = u - 0.5 * DT * k * (L @ u) + DT
        prepared.update(IDENTITY + 0.5 * DT * following * L)
        result = prepared.solve(rhs, x0=u, context=following)
        u, k, iterations = result.x, following, iterations + result.iterations
    return iterations, prepared


def main():
    """Compare fixed values of omega with a learned one, and with one that goes on from what was learned."""
    fixed = {omega: run(omega)[0] for omega in (1.0, 1.3, 1.6, 1.9)}
    learned, prepared = run(ns.Tuned(1.0, 1.9, arms=10))
    state = json.loads(json.dumps(prepared.state_dict()))  # a restarted simulation takes it up
    again, _ = run(ns.Tuned(1.0, 1.9, arms=10), state)
    print("iterations with fixed omega:", fixed)
    print(f"learned on the way: {learned}, going on: {again}")
    print(prepared.report())
    return again / min(fixed.values())


if __name__ == "__main__":
    print(f"going on, over the best fixed omega: {main():.3f}")
