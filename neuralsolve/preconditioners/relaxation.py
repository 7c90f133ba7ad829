"""Relaxation as a preconditioner: Jacobi, SOR and SSOR.

M r is what some sweeps make of A x = r from x = 0, so `Richardson()` with M = SOR(omega) is the SOR method,
and CG with M = SSOR(omega) is preconditioned as in Axelsson (1972). With A = D + L + U (diagonal, strictly
lower and upper in the order of the sweep) one sweep is

    forward   M = (D/omega + L)^-1                              Young (1971), sec. 3.2
    backward  M = (D/omega + U)^-1
    SSOR      M = (2 - omega)/omega (D/omega + U)^-1 D (D/omega + L)^-1      Saad (2003), eq. 10.5

Order of the rows: "lexicographic" is serial and converges best; "red-black" and "multicolor" update rows
that do not couple at the same time, two threads and more, or on a GPU. It is part of the recipe, never of the
machine.
Cost: a sweep is about a product with A. Difference from the sources: rows of zeros (cells outside the
fluid) take no part, M is zero there.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuralsolve.errors import OptionError, StructureError, nearest
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator, output_like
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.preconditioners.base import Preconditioner, Recipe
from neuralsolve.preconditioners.coloring import Colors
from neuralsolve.preconditioners.matrix import check_count, check_number, divisors, matrix_of

ORDERS = ("lexicographic", "red-black", "multicolor")
DIRECTIONS = ("forward", "backward")


@dataclass(frozen=True)
class Jacobi(Recipe):
    """M = omega D^-1, the diagonal of A (Saad 2003, sec. 4.1).

    Parameters
    ----------
    omega : damping in (0, 2); only a stationary iteration feels it
        `Richardson()` with it converges for SPD A while omega < 2 / lambda_max(D^-1 A).

    Raises
    ------
    OptionError
    StructureError
        From `build`: a row with a zero diagonal and other entries. A row of zeros is passed over.

    Examples
    --------
    >>> import neuralsolve as ns, numpy as np, scipy.sparse as sp
    >>> ns.solve(sp.diags_array([1.0, 100.0]), np.ones(2), ns.CG(), M=ns.Jacobi()).iterations
    1
    """

    omega: float = 1.0

    def __post_init__(self) -> None:
        check_number("Jacobi", "omega", self.omega, 0, 2)

    def build(self, A: LinearOperator) -> Preconditioner:
        """Invert the diagonal of A."""
        return _Scaling(A, self.omega)


class _Scaling(Preconditioner):
    stays = True

    def __init__(self, A: LinearOperator, omega: float):
        self.omega = omega
        self.update(A)

    def update(self, A_next: LinearOperator) -> None:
        diagonal = divisors(A_next, "Jacobi")
        self.symmetric = not bool((diagonal < 0).any())
        self.inverse = torch.where(diagonal == 0, 0.0, 1 / diagonal)
        self.scale = self.omega * self.inverse

    def retune(self, recipe: Recipe) -> bool:
        if not isinstance(recipe, Jacobi):
            return False
        self.omega, self.scale = recipe.omega, recipe.omega * self.inverse
        return True

    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        scale = self.scale if r.ndim == self.scale.ndim else self.scale[:, None]
        return torch.mul(r, scale, out=output_like(r, len(r), out))

    def apply_transpose(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        return self.apply(r, out)

    def to(self, device: torch.device) -> Preconditioner:
        moved = copy.copy(self)
        moved.inverse, moved.scale = self.inverse.to(device), self.scale.to(device)
        return moved

    def describe(self) -> str:
        return "Jacobi" if self.omega == 1 else f"Jacobi, omega {self.omega:g}"


@dataclass(frozen=True)
class SOR(Recipe):
    """Successive over-relaxation; omega 1 is Gauss-Seidel (Young 1971; Saad 2003, sec. 4.1).

    M is nonsymmetric: for `Richardson`, `GMRES` and `BiCGStab`; CG and MINRES take `SSOR`. For a
    consistently ordered SPD A with Jacobi radius mu the best omega is 2 / (1 + sqrt(1 - mu^2)), and the
    radius of the iteration is then omega - 1 (Young 1971, sec. 6.2); mu = cos(pi h) for the 5-point
    Laplacian of the unit square.

    Parameters
    ----------
    omega : in (0, 2), outside of which no iteration converges (Kahan 1958)
    order : "lexicographic", "red-black" or "multicolor"
        Red-black takes a grid, or a matrix whose graph has two colours; red, the cells with even z + y + x,
        comes first. Multicolor takes any pattern and colours it greedily; on a grid it is red-black where
        that fits.
    sweeps : number of sweeps in one application
    direction : "forward" or "backward"

    Raises
    ------
    OptionError
    StructureError
        From `build`: A is a function, has a zero diagonal, or does not take two colours for "red-black".

    Examples
    --------
    >>> import math, numpy as np, neuralsolve as ns
    >>> A = ns.PoissonStencil(ns.Grid((15, 15), walls="dirichlet"))
    >>> best = 2 / (1 + math.sin(math.pi / 16))
    >>> ns.solve(A, np.ones(225), ns.Richardson(), M=ns.SOR(best), rtol=1e-6).converged
    True
    """

    omega: float = 1.0
    order: str = "lexicographic"
    sweeps: int = 1
    direction: str = "forward"

    def __post_init__(self) -> None:
        _check("SOR", self.omega, self.order, self.sweeps)
        if self.direction not in DIRECTIONS:
            msg = f"SOR(direction={self.direction!r}) is unknown{nearest(str(self.direction), DIRECTIONS)}"
            raise OptionError(msg)

    def build(self, A: LinearOperator) -> Preconditioner:
        """Look at the rows of A, and colour them where the order asks for it."""
        return _Relaxation(A, "SOR", self.omega, self.order, self.plan)

    @property
    def plan(self) -> tuple[bool, ...]:
        """Of the sweeps of an application, which run backward."""
        return (self.direction == "backward",) * self.sweeps


@dataclass(frozen=True)
class SSOR(Recipe):
    """Symmetric SOR: a forward and a backward sweep; SPD for SPD A and 0 < omega < 2.

    With omega near 2 / (1 + 2 sin(pi h / 2)) CG on the model problem needs O(h^-1/2) iterations instead of
    O(h^-1) (Axelsson 1972; Saad 2003, sec. 10.2). With several sweeps M is definite only where A is.

    Parameters
    ----------
    omega : in (0, 2)
    order : "lexicographic", "red-black" or "multicolor", see `SOR`
    sweeps : number of forward and backward pairs

    Raises
    ------
    OptionError, StructureError
        As `SOR`.

    Examples
    --------
    >>> import neuralsolve as ns, numpy as np
    >>> A = ns.PoissonStencil(ns.Grid((32, 32), walls="dirichlet"))
    >>> plain, better = (ns.solve(A, np.ones(1024), ns.CG(), M=M).iterations for M in (None, ns.SSOR(1.7)))
    >>> better < plain / 2
    True
    """

    omega: float = 1.0
    order: str = "lexicographic"
    sweeps: int = 1

    def __post_init__(self) -> None:
        _check("SSOR", self.omega, self.order, self.sweeps)

    def build(self, A: LinearOperator) -> Preconditioner:
        """Look at the rows of A, and colour them where the order asks for it."""
        return _Relaxation(A, "SSOR", self.omega, self.order, self.plan)

    @property
    def plan(self) -> tuple[bool, ...]:
        """Of the sweeps of an application, which run backward."""
        return (False, True) * self.sweeps


def _check(recipe: str, omega: float, order: str, sweeps: int) -> None:
    check_number(recipe, "omega", omega, 0, 2)
    check_count(recipe, "sweeps", sweeps)
    if order not in ORDERS:
        msg = f"{recipe}(order={order!r}) is unknown{nearest(str(order), ORDERS)}"
        raise OptionError(msg)


class _Relaxation(Preconditioner):
    """Sweeps from x = 0; `plan` says of each whether it runs backward."""

    def __init__(self, A: LinearOperator, name: str, omega: float, order: str, plan: tuple[bool, ...]):
        self.name, self.omega, self.order, self.plan = name, omega, order, plan
        self._colors: Colors | None = None
        self._device = torch.device("cpu")
        self.update(A)

    def retune(self, recipe: Recipe) -> bool:
        if not isinstance(recipe, SOR | SSOR) or recipe.order != self.order:
            return False
        self.name, self.omega, self.plan = type(recipe).__name__, recipe.omega, recipe.plan
        self._judge()
        return True

    def update(self, A_next: LinearOperator) -> None:
        """Take the new values; the colours stay where the pattern does."""
        self._positive = not bool((divisors(A_next, self.name) < 0).any())
        self.A = A_next
        self._judge()
        self._sweep = self._sweeper(A_next).to(self._device)
        self._transposed: _Sweep | None = self._sweep if A_next.symmetric else None

    def _judge(self) -> None:
        """Say whether M is symmetric: the transpose of sweeps is those with A^T, in reverse."""
        self.transposed_plan = tuple(not reverse for reverse in reversed(self.plan))
        self.symmetric = self.A.symmetric and self._positive and self.plan == self.transposed_plan

    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        return self._run(self._sweep, self.plan, r, out)

    def apply_transpose(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        if self._transposed is None:
            self._transposed = self._sweeper(matrix_of(self.A, self.name).transpose()).to(self._device)
        return self._run(self._transposed, self.transposed_plan, r, out)

    def to(self, device: torch.device) -> Preconditioner:
        if device.type == "cpu" or self.order == "lexicographic":  # row after row: no work for a GPU
            return super().to(device)
        moved = copy.copy(self)
        moved._device, moved._sweep, moved.stays = device, self._sweep.to(device), True
        moved._transposed = moved._sweep if self._transposed is self._sweep else None
        return moved

    def describe(self) -> str:
        words = [f"{self.name}, omega {self.omega:g}", self.order]
        sweeps = len(self.plan) if self.name == "SOR" else len(self.plan) // 2
        if sweeps > 1:
            words.append(f"{sweeps} sweeps")
        return ", ".join(words)

    def _run(self, sweep: _Sweep, plan: tuple[bool, ...], r: Tensor, out: Tensor | None) -> Tensor:
        x = output_like(r, len(r), out).zero_()
        for reverse in plan:
            sweep(self.omega, r, x, reverse)
        return x

    def _sweeper(self, A: LinearOperator) -> _Sweep:
        if isinstance(A, PoissonStencil):
            fits = all(
                side % 2 == 0 for side, wraps in zip(A.grid.shape, A.grid.periodic, strict=True) if wraps
            )
            if self.order == "red-black" and not fits:
                msg = (
                    f"{self.name}(order='red-black') with grid {A.grid.shape}, periodic {A.grid.periodic}; "
                    "an odd periodic side has neighbours of one colour: use order='multicolor' or "
                    "order='lexicographic'"
                )
                raise StructureError(msg)
            if self.order == "lexicographic" or fits:
                return _grid_sweep(A, checkerboard=self.order != "lexicographic")
        rows = matrix_of(A, self.name)
        parts = (rows.indptr, rows.indices, rows.values.detach())
        if self.order == "lexicographic":
            return _Sweep("csr_sor_sweep", parts)
        if self._colors is None or not self._colors.fits(rows):
            self._colors = Colors(rows, self.order, self.name)
        return _Sweep("csr_color_sweep", parts, (self._colors.starts, self._colors.members))


@dataclass(frozen=True)
class _Sweep:
    """One sweep: a kernel's name, A as it takes it, and what it takes after the vectors, colours if any."""

    kernel: str
    matrix: tuple[Any, ...]
    colors: tuple[Tensor, ...] = ()

    def __call__(self, omega: float, b: Tensor, x: Tensor, reverse: bool) -> None:
        getattr(table(x.device), self.kernel)(*self.matrix, omega, b, x, *self.colors, reverse)

    def to(self, device: torch.device) -> _Sweep:
        matrix = tuple(part.to(device) if isinstance(part, Tensor) else part for part in self.matrix)
        # where colours begin stays with the host, which starts them one by one
        return _Sweep(
            self.kernel, matrix, self.colors[:1] + tuple(part.to(device) for part in self.colors[1:])
        )


def _grid_sweep(A: PoissonStencil, checkerboard: bool) -> _Sweep:
    diagonal, lower = (part.to(torch.float64) for part in A.faces())
    return _Sweep("faces_redblack_sweep" if checkerboard else "faces_sor_sweep", (diagonal, lower, A.shape3))
