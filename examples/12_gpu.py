"""A pressure solver on the GPU where there is one, on the CPU where there is none: the same lines."""

import numpy as np
import torch

import neuralsolve as ns


def obstacles(radius: float) -> ns.PoissonStencil:
    """Return a tank of 48 x 64 x 48 cells with a ball in it, air on top."""
    z, y, x = np.indices((48, 64, 48))
    cells = np.full(z.shape, ns.FLUID)
    cells[(z - 24) ** 2 + (y - 30) ** 2 + (x - 20) ** 2 < radius**2] = ns.SOLID
    cells[:, -10:] = ns.AIR
    return ns.PoissonStencil(ns.Grid(cells, spacing=1 / 48))


def main() -> float:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    A = obstacles(9.0).to(device)  # once: products, steps and M run where A is
    pressure = ns.prepare(A, ns.CG(), M=ns.Multigrid(), rtol=1e-8, check_every=3)
    print(f"{pressure.explanation}, on {A.device}; set-up {pressure.setup_seconds:.3f} s")

    generator = torch.Generator().manual_seed(1203)
    p, worst = None, 0.0
    for step in range(4):
        if step == 2:  # the ball has grown: what the levels can keep they keep
            A = obstacles(10.5).to(device)
            pressure.update(A)
        b = torch.randn(A.shape[0], dtype=torch.float64, generator=generator).to(device)
        result = pressure.solve(b, x0=p)
        p = result.x  # a tensor on the device
        fluid = A.active
        r = (b - A @ p)[fluid].norm() / b[fluid].norm()  # the one number that is read here
        took = f"{result.iterations} iterations, {1e3 * result.solve_seconds:.1f} ms"
        print(f"step {step}: {took}, ||r|| / ||b|| {float(r):.1e}")
        worst = max(worst, float(r))

    assert p is not None
    assert p.device.type == device
    return worst


if __name__ == "__main__":
    print(f"largest relative residual: {main():.1e}")
