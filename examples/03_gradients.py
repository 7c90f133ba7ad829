"""Recover the permeability of an inclusion from pressures, with gradients through `solve`."""

import torch

import neuralsolve as ns


def main() -> float:
    grid = ns.Grid((24, 24), spacing=1 / 24, walls="dirichlet")
    y, x = torch.meshgrid(*[(torch.arange(24) + 0.5) / 24] * 2, indexing="ij")
    inside = ((x - 0.5) ** 2 + (y - 0.45) ** 2 < 0.2**2).double()
    b = torch.ones(24 * 24, dtype=torch.float64)

    def pressures(permeability: torch.Tensor) -> torch.Tensor:
        cells = 1 + (permeability - 1) * inside
        A = ns.PoissonStencil(grid, ns.face_coefficients(cells, grid))
        return ns.solve(A, b, ns.CG(), M=ns.IncompleteCholesky(), rtol=1e-10).x

    measured = pressures(torch.tensor(5.0, dtype=torch.float64))
    logarithm = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logarithm], max_iter=20)

    def misfit() -> torch.Tensor:
        optimiser.zero_grad()
        loss = ((pressures(logarithm.exp()) - measured) ** 2).sum() * 1e4
        loss.backward()
        return loss

    optimiser.step(misfit)
    found = float(logarithm.detach().exp())
    print(f"permeability found: {found:.4f} (truth: 5)")
    return found


if __name__ == "__main__":
    main()
