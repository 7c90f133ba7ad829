"""Matrix-free geometric multigrid on a grid of cells with obstacles, air and jumping coefficients.

M r is one cycle on A x = r from x = 0, in float32. On every level a cycle smooths, corrects x by the level
below, and smooths again:

    x <- x + p(D^-1 A) D^-1 (b - A x);   x <- x + P M_c P^T (b - A x);   x <- x + p(D^-1 A) D^-1 (b - A x)

The levels are boxes of half as many cells along every axis of strong coupling, with couplings discretised
anew (`levels`), so that all have 5 or 7 points; the coarsest one is inverted densely. P interpolates linearly
from the own block and the next one along each axis (Khalil and Wesseling 1992), weighted by the couplings.
Coarse couplings of twice the length and linear P agree on smooth functions, so no over-correction is needed;
with piecewise constant P it is, and takes half as many iterations again. Where coefficients jump, every level
corrects the means of its conductors before its first smoothing and after its last (`conductors`).

**Positive definite.** Two smoothings with the same polynomial p make M symmetric. D^-1 A has its eigenvalues
in [0, 2] (Gershgorin: A is weakly dominant), where all smoothers here contract in the A-norm; so the V-cycle
is positive definite for any positive definite M_c, whatever P and the coarse couplings are; correcting means
of conductors is a projection in the A-norm. A W-cycle corrects twice and needs lambda(M_c A_c) < 2; that is
estimated, and a V-cycle takes its place where it fails. Where A is singular and has coefficients, the null
space is taken out of r and of M r: M 1 may be large there.

**Cost** of a W-cycle in 3D: two steps each way, a residual and both transfers, in two passes of 16 and 20
bytes a cell over the finest level and a third of that below it; with conductors, reads of their cells
besides. Memory: 20 bytes a cell, and a quarter of that below it; 50 where coefficients vary, couplings and
outlets, and a seventh of that below it.

Sources: Brandt, Math. Comp. 31, 1977; Trottenberg, Oosterlee and Schueller, Multigrid, 2001 (ch. 2, 5, 7);
smoothing polynomials: Adams et al., J. Comput. Phys. 188, 2003; for liquids with free surfaces: McAdams,
Sifakis and Teran, SCA 2010.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from neuralsolve.errors import OptionError, nearest
from neuralsolve.operators.base import LinearOperator
from neuralsolve.preconditioners.base import Recipe
from neuralsolve.preconditioners.grid_cycle import GridCycle
from neuralsolve.preconditioners.levels import COARSEST, LARGEST_COARSEST, STRONG
from neuralsolve.preconditioners.matrix import check_count

CYCLES = ("V", "W", "F", "full")
SMOOTHERS = ("chebyshev", "jacobi", "red-black")


@dataclass(frozen=True)
class Multigrid(Recipe):
    """Geometric multigrid for `PoissonStencil`, matrix-free: M for CG, or alone through `Richardson`.

    Any grid size, obstacles and air, walls, coefficients and spacings; iterations do not grow with the grid.
    M is symmetric positive definite for the cycles "V" and "W" with equal sweeps on both sides; the others
    want `FlexibleCG` or `GMRES`.

    Parameters
    ----------
    cycle : "V", "W" (two corrections per level), "F" (the second one a V-cycle) or "full" (full multigrid)
        Where coefficients are constant and cells about cubes, "W" corrects twice on the two finest levels
        alone, which is as good there. "full" goes from the coarsest level up, one V-cycle on each.
    smoother : "chebyshev" (polynomial that is small on [2/band, 2]), "jacobi" (damped) or "red-black"
        (Gauss-Seidel)
    sweeps : steps before and after the correction; a pair (before, after) may differ
    omega : damping of "jacobi" (0.8 by default) or relaxation of "red-black" (1; 0.9 where a periodic side of
        a level is odd, so that cells of one colour meet); in (0, 2)
    band : largest over smallest eigenvalue that "chebyshev" damps
    correction : factor on the coarse correction of every level
    strong : an axis is coarsened where its coupling is at least so large a part of the strongest one; 0
        coarsens all axes, however anisotropic the grid is
    coarsest : cells at which coarsening stops
    max_levels : at most so many levels

    Raises
    ------
    OptionError
    StructureError
        At `build`: A is no `PoissonStencil`. A matrix from a grid becomes one by ``solve(..., grid=cells)``.

    Examples
    --------
    >>> import neuralsolve as ns, numpy as np
    >>> cells = np.full((100, 83), ns.FLUID)
    >>> cells[30:50, 20:60], cells[-7:] = ns.SOLID, ns.AIR
    >>> A = ns.PoissonStencil(ns.Grid(cells, spacing=1 / 83))
    >>> b = np.random.default_rng(6007).standard_normal(A.shape[0])
    >>> ns.solve(A, b, ns.CG(), M=ns.Multigrid()).iterations <= 9
    True
    """

    cycle: str = "W"
    smoother: str = "chebyshev"
    sweeps: int | tuple[int, int] = 2
    omega: float | None = None
    band: float = 6.0
    correction: float = 1.0
    strong: float = STRONG
    coarsest: int = COARSEST
    max_levels: int = 40

    def __post_init__(self) -> None:
        for name, value, known in (("cycle", self.cycle, CYCLES), ("smoother", self.smoother, SMOOTHERS)):
            if value not in known:
                msg = f"Multigrid({name}={value!r}) is unknown{nearest(str(value), known)}"
                raise OptionError(msg)
        if isinstance(self.sweeps, tuple) and len(self.sweeps) != 2:
            msg = f"sweeps is {self.sweeps}; a number, or a pair (before, after) is needed"
            raise OptionError(msg)
        for count in self.steps:
            check_count("Multigrid", "sweeps", count, 0 if isinstance(self.sweeps, tuple) else 1)
        if sum(self.steps) == 0:
            msg = "sweeps=(0, 0) smooths nothing; give at least one step, such as sweeps=(0, 2)"
            raise OptionError(msg)
        check_count("Multigrid", "coarsest", self.coarsest, high=LARGEST_COARSEST)
        check_count("Multigrid", "max_levels", self.max_levels)
        for name, value, least, most in (
            ("omega", 1.0 if self.omega is None else self.omega, 0.0, 2.0),
            ("band", self.band, 1.0, math.inf),
            ("correction", self.correction, 0.0, math.inf),
        ):
            if not (isinstance(value, int | float) and least < value < most):
                msg = f"Multigrid({name}={value!r}): a number between {least:g} and {most:g} is needed"
                raise OptionError(msg)
        if not (isinstance(self.strong, int | float) and 0 <= self.strong <= 1):
            msg = f"Multigrid(strong={self.strong!r}): a number from 0 to 1 is needed"
            raise OptionError(msg)
        if self.omega is not None and self.smoother == "chebyshev":
            msg = "smoother='chebyshev' has no omega; give its band, or smoother='jacobi'"
            raise OptionError(msg)

    @property
    def steps(self) -> tuple[int, int]:
        """Smoothing steps before and after the correction."""
        return self.sweeps if isinstance(self.sweeps, tuple) else (self.sweeps, self.sweeps)

    def build(self, A: LinearOperator) -> GridCycle:
        """Make the levels of A."""
        return GridCycle(A, self)
