"""Multigrid whose smoothing and coarse couplings were learned: the cycle of `Multigrid` with other numbers.

M r is one V-cycle of the same compiled passes. A file of weights says the steps of smoothing of every level
and gains on the restricted residuals; and two networks of one page of numbers look at the couplings around
every cell of a coarse level, once per geometry, and put factors on them: where a block is half filled, an
outlet lies beside it, or a wall runs through, discretising anew is wrong by a factor that is a function of
what is near.

**Positive definite**, whatever the networks say: `neuralsolve.preconditioners.learned` states the certificate
and when the classical cycle, that of `Multigrid()`, takes its place. `explanation` tells which one ran.

**Cost** of a cycle: as a V-cycle of that many steps. Of the set-up: one pass over the couplings of all levels
but the finest, the networks on cells near something alone; an update does all of it anew.

Sources: Greenfeld et al., ICML 2019 and Luz et al., ICML 2020 (learned transfers); Katrutsa, Daulbaev and
Oseledets, J. Comput. Appl. Math. 368, 2020 (learned smoothing); Huang, Li and Xi, SIAM J. Sci. Comput. 45,
2023 (learned smoothers). Nobody's code was used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neuralsolve.operators.base import LinearOperator
from neuralsolve.preconditioners.base import Recipe
from neuralsolve.preconditioners.grid_cycle import GridCycle
from neuralsolve.preconditioners.learned import read_knowledge
from neuralsolve.preconditioners.levels import COARSEST, LARGEST_COARSEST
from neuralsolve.preconditioners.matrix import check_count
from neuralsolve.preconditioners.multigrid import Multigrid


@dataclass(frozen=True)
class NeuralMultigrid(Recipe):
    """Learned multigrid for `PoissonStencil`, symmetric positive definite: M for CG.

    Grids of any size with obstacles and air, cells about cubes. Where no weights fit, and where they fail
    their certificate, it is `Multigrid()`, and `explanation` says so.

    Parameters
    ----------
    weights : name of weights that ship, or path of a file that `neuralsolve train` wrote
    coarsest : cells at which coarsening stops

    Raises
    ------
    OptionError, FileNotFoundError, FormatError
        At `build`: no such weights, those of another network, or a file that holds something else.
    StructureError
        At `build`: A is no `PoissonStencil`.

    Examples
    --------
    >>> import neuralsolve as ns, numpy as np
    >>> cells = np.full((100, 83), ns.FLUID)
    >>> cells[30:50, 20:60], cells[-7:] = ns.SOLID, ns.AIR
    >>> A = ns.PoissonStencil(ns.Grid(cells, spacing=1 / 83))
    >>> b = np.random.default_rng(6007).standard_normal(A.shape[0])
    >>> ns.solve(A, b, ns.CG(), M=ns.NeuralMultigrid()).iterations <= 8
    True
    """

    weights: str | Path = "cycle"
    coarsest: int = COARSEST

    def __post_init__(self) -> None:
        check_count("NeuralMultigrid", "coarsest", self.coarsest, high=LARGEST_COARSEST)

    def build(self, A: LinearOperator) -> GridCycle:
        """Make the levels of A and put the learned factors on them."""
        return GridCycle(A, Multigrid(coarsest=self.coarsest), read_knowledge(self.weights))
