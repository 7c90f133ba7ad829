"""Algebraic multigrid: PyAMG makes the hierarchy, the cycle runs on the package's kernels.

    rs  classical coarsening and interpolation              Ruge and Stueben (1987); Trottenberg et al. (2001)
    sa  smoothed aggregation, with near-null-space vectors  Vanek, Mandel and Brezina (1996)

A third kind, "aggregation", does without PyAMG: `neuralsolve.preconditioners.aggregation`.

M r is one cycle on A x = r from x = 0, with PyAMG's own smoother: a forward and a backward Gauss-Seidel sweep
before and after each coarse correction. With R = P^T and A_c = R A P such a cycle contracts the error in the
A-norm, so M is SPD for SPD A and serves CG (Trottenberg et al. 2001, app. A). On the coarsest level A_c is
inverted densely, as a pseudo-inverse, so singular A need nothing beyond a known null space.

Cost: the set-up is worth several solves in 3D; a cycle costs about five products with every level's matrix.
Differences from PyAMG: Gauss-Seidel runs by points, not by blocks, where several near-null-space vectors make
blocks; coarsening stops at 100 rows, not 10; the random start of its eigenvalue estimate is fixed, so that M
depends on A alone; classical interpolation gives way to the direct one where its weights would blow up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import NonFiniteError, OptionError, ShapeError, StructureError, nearest
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator, output_like
from neuralsolve.preconditioners.base import Preconditioner, Recipe
from neuralsolve.preconditioners.matrix import check_count, check_number, divisors, matrix_of

if TYPE_CHECKING:
    from neuralsolve.preconditioners.coarsening import Hierarchy, Rows

KINDS = ("rs", "sa", "aggregation")
CYCLES = ("V", "W")
INTERPOLATIONS = ("classical", "direct")
STRENGTHS = (
    "symmetric",
    "classical",
    "evolution",
    "distance",
    "algebraic_distance",
    "affinity",
    "energy_based",
)

ONE, MINUS_ONE = torch.tensor(1.0, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
COARSE_SWEEPS = 4  # pairs of sweeps on a coarsest level that is too large to be inverted


@dataclass(frozen=True, eq=False)
class AMG(Recipe):
    """Algebraic multigrid, one cycle from zero; the hierarchy by PyAMG, or by our own aggregation.

    `kind="rs"` suits M-matrices: scalar diffusion, pressure. Everything else, elasticity above all, takes
    `kind="sa"`, with near-null-space vectors where they are known. `kind="aggregation"` is set up
    in parallel, for symmetric A of scalar equations, couplings of either sign, above all where A changes
    often. None is made for indefinite or strongly convective A.

    Parameters
    ----------
    kind : "rs", "sa" or "aggregation"
    near_null_space : (n,) or (n, m) NumPy or torch, for "sa"; one vector without zeros for "aggregation"
        Vectors that A nearly annihilates: constants by default, the rigid-body modes for elasticity. A null
        space that is known and not constant stands in where nothing is given.
    strength : name, or (name, options) of PyAMG's strength of connection, not for "aggregation"
        By default ("classical", {"theta": 0.25}) for "rs", "symmetric" for "sa"; a number is the theta of
        these, the part of the largest coupling that counts as strong.
    cycle : "V" or "W", "V" for "aggregation"
    sweeps : pairs of Gauss-Seidel sweeps before and after each coarse correction
        "aggregation" takes one sweep forward before and one backward after it.
    max_coarse : rows at which coarsening stops
    max_levels : at most so many levels
    interpolation : "classical" or "direct", for "rs"
        By default classical, and direct where A has rows whose largest coupling is positive.

    Raises
    ------
    OptionError
    ShapeError, NonFiniteError, StructureError
        From `build`: near-null-space vectors of the wrong size; A is a function, has a zero diagonal,
        makes PyAMG divide by zero, or is not symmetric ("aggregation").

    Examples
    --------
    >>> import neuralsolve as ns, numpy as np
    >>> A = ns.PoissonStencil(ns.Grid((64, 64), walls=("neumann", ("dirichlet", "neumann"))))
    >>> ns.solve(A, np.ones(64 * 64), ns.CG(), M=ns.AMG()).iterations < 12
    True
    >>> ns.solve(A, np.ones(64 * 64), ns.CG(), M=ns.AMG("aggregation")).iterations < 14
    True
    """

    kind: str = "rs"
    near_null_space: Any = None
    strength: float | str | tuple[str, Mapping[str, Any]] | None = None
    cycle: str = "V"
    sweeps: int = 1
    max_coarse: int = 100
    max_levels: int = 30
    interpolation: str | None = None

    def __post_init__(self) -> None:
        _check_name("kind", self.kind, KINDS)
        _check_name("cycle", self.cycle, CYCLES)
        if self.interpolation is not None:
            _check_name("interpolation", self.interpolation, INTERPOLATIONS)
        if isinstance(self.strength, int | float):
            check_number("AMG", "strength", self.strength, 0, 1, "[)")
        elif self.strength is not None:
            name = self.strength if isinstance(self.strength, str) else self.strength[0]
            _check_name("strength", name, STRENGTHS)
        check_count("AMG", "sweeps", self.sweeps)
        check_count("AMG", "max_coarse", self.max_coarse)
        check_count("AMG", "max_levels", self.max_levels, 2)
        if self.kind == "rs" and self.near_null_space is not None:
            msg = "AMG(kind='rs') takes no near_null_space; use AMG(kind='sa', near_null_space=...)"
            raise OptionError(msg)
        if self.kind != "rs" and self.interpolation is not None:
            msg = f"AMG(kind={self.kind!r}) takes no interpolation; use AMG(kind='rs', interpolation=...)"
            raise OptionError(msg)
        if self.kind == "aggregation":
            for name, value, default in (
                ("strength", self.strength, None),
                ("cycle", self.cycle, "V"),
                ("sweeps", self.sweeps, 1),
            ):
                if value != default:
                    msg = f"AMG(kind='aggregation') takes no {name}; use AMG(kind='sa', {name}={value!r})"
                    raise OptionError(msg)

    def build(self, A: LinearOperator) -> Preconditioner:
        """Coarsen A until few rows are left."""
        if self.kind == "aggregation":
            from neuralsolve.preconditioners.aggregation import SmoothedAggregation

            near = _near_null_space(self, A)
            return SmoothedAggregation(A, near, self.max_coarse, self.max_levels)
        return _AlgebraicMultigrid(A, self)


class _AlgebraicMultigrid(Preconditioner):
    """The hierarchy on the rows of A that are not zero."""

    def __init__(self, A: LinearOperator, recipe: AMG):
        self.recipe = recipe
        self.update(A)

    def update(self, A_next: LinearOperator) -> None:
        """Build the hierarchy anew: interpolation depends on the values of A."""
        diagonal = divisors(A_next, "AMG")
        self.symmetric = A_next.symmetric and not bool((diagonal < 0).any())
        S = matrix_of(A_next, "AMG").to_scipy()
        kept = np.flatnonzero(diagonal.numpy())
        self.kept = torch.from_numpy(kept) if len(kept) < len(diagonal) else None
        if not len(kept):
            msg = "AMG of a matrix of zeros alone has nothing to coarsen; solve without M"
            raise StructureError(msg)
        if self.kept is not None:
            S = S[kept][:, kept]
        self.hierarchy = self._coarsen(S, A_next, kept)
        self.cycle = _Cycle(self.hierarchy, self.recipe)
        self.transposed: _Cycle | None = None

    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        return self._apply(self.cycle, r, out)

    def apply_transpose(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        if self.symmetric:
            return self.apply(r, out)
        if self.transposed is None:  # with sweeps forward and backward, the cycle of A^T is exactly M^T
            self.transposed = _Cycle(self.hierarchy.transposed(), self.recipe)
        return self._apply(self.transposed, r, out)

    def to(self, device: torch.device) -> Preconditioner:
        if device.type == "cpu" or not self.symmetric:
            return super().to(device)
        from neuralsolve.preconditioners.polynomial_cycle import Ladder, PolynomialCycle

        h = self.hierarchy
        levels = [(level.A, level.P, level.R) for level in h.levels]
        return PolynomialCycle(
            Ladder(levels, h.coarsest, h.inverse),
            2 * self.recipe.sweeps,
            self.recipe.cycle == "W",
            device,
            torch.float64,
            self.describe(),
            self.kept,
        )

    def describe(self) -> str:
        sizes = self.hierarchy.sizes
        complexity = sum(sizes) / max(1, sizes[0])
        words = [f"AMG ({self.recipe.kind}): {len(sizes)} levels, operator complexity {complexity:.2f}"]
        if self.recipe.cycle != "V":
            words.append(f"{self.recipe.cycle}-cycle")
        return ", ".join(words + self.hierarchy.notes)

    def _apply(self, cycle: _Cycle, r: Tensor, out: Tensor | None) -> Tensor:
        out = output_like(r, len(r), out)
        if self.kept is None:
            cycle.run(r, out)
            return out
        inside = r[self.kept]
        x = torch.empty_like(inside)
        cycle.run(inside, x)
        out.zero_()
        out[self.kept] = x
        return out

    def _coarsen(self, S: Any, A: LinearOperator, kept: np.ndarray) -> Hierarchy:
        from neuralsolve.preconditioners.coarsening import classical, smoothed_aggregation

        recipe = self.recipe
        options: dict[str, Any] = {"max_coarse": recipe.max_coarse, "max_levels": recipe.max_levels}
        options |= {"presmoother": None, "postsmoother": None}
        if recipe.strength is not None:
            strength: Any = recipe.strength
            if isinstance(strength, int | float):
                strength = "classical" if recipe.kind == "rs" else "symmetric", {"theta": float(strength)}
            options["strength"] = strength if isinstance(strength, str) else (strength[0], dict(strength[1]))
        singular = A.null_space is not None
        if recipe.kind == "rs":
            return classical(S, A.symmetric, singular, recipe.interpolation, options)
        near = _near_null_space(recipe, A)
        return smoothed_aggregation(S, A.symmetric, singular, None if near is None else near[kept], options)


class _Cycle:
    """One V- or W-cycle from x = 0, in room that is kept from call to call."""

    def __init__(self, hierarchy: Hierarchy, recipe: AMG):
        self.levels, self.coarsest, self.inverse = hierarchy.levels, hierarchy.coarsest, hierarchy.inverse
        self.twice, self.sweeps = recipe.cycle == "W", recipe.sweeps
        self.room: list[tuple[Tensor, Tensor, Tensor]] = []
        self.room_shape: tuple[int, ...] | None = None

    def run(self, b: Tensor, x: Tensor) -> None:
        """Overwrite x with M b, both (n,) or (n, k)."""
        if self.room_shape != b.shape[1:]:
            self.room_shape = tuple(b.shape[1:])
            self.room = [self._make_room(b, *level.sizes) for level in self.levels]
        self._descend(0, b, x.zero_())

    def _descend(self, depth: int, b: Tensor, x: Tensor) -> None:
        """Improve x by one cycle on this level and all below."""
        if depth == len(self.levels):
            self._solve_coarsest(b, x)
            return
        K, level = table(b.device), self.levels[depth]
        residual, coarse_b, coarse_x = self.room[depth]
        self._smooth(level.A, b, x, self.sweeps)
        K.csr_matvec(*level.A, x, residual)
        K.xpby(b, MINUS_ONE, residual)  # b - A x
        K.csr_matvec(*level.R, residual, coarse_b)
        self._descend(depth + 1, coarse_b, coarse_x.zero_())
        if self.twice:
            self._descend(depth + 1, coarse_b, coarse_x)
        K.csr_matvec(*level.P, coarse_x, residual)
        K.axpy(ONE, residual, x)
        self._smooth(level.A, b, x, self.sweeps)

    def _solve_coarsest(self, b: Tensor, x: Tensor) -> None:
        if self.inverse is not None:
            torch.matmul(self.inverse, b, out=x)
        else:
            self._smooth(self.coarsest, b, x, COARSE_SWEEPS)

    @staticmethod
    def _smooth(A: Rows, b: Tensor, x: Tensor, sweeps: int) -> None:
        sweep = table(b.device).csr_sor_sweep
        for _ in range(sweeps):
            sweep(*A, 1.0, b, x, False)
            sweep(*A, 1.0, b, x, True)

    @staticmethod
    def _make_room(b: Tensor, fine: int, coarse: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return room for the residual, the coarse right side and the coarse correction."""
        tail = b.shape[1:]
        return b.new_empty((fine, *tail)), b.new_empty((coarse, *tail)), b.new_empty((coarse, *tail))


def _near_null_space(recipe: AMG, A: LinearOperator) -> np.ndarray | None:
    """Return the given vectors, or a null space that is known and not made of constants, as (n, m)."""
    given = recipe.near_null_space
    if given is None:
        known = None if A.null_space is None else A.null_space.basis
        return None if known is None else known.numpy()
    B = np.array(given.detach().cpu().numpy() if isinstance(given, Tensor) else given, dtype=np.float64)
    B = B[:, None] if B.ndim == 1 else B
    n = A.shape[0]
    if B.ndim != 2 or len(B) != n:
        msg = f"near_null_space is {B.shape}, A has {n} rows; it must be ({n},) or ({n}, m)"
        raise ShapeError(msg)
    if not np.isfinite(B).all():
        msg = "near_null_space holds NaN or infinity; mend it, or leave it out for constants"
        raise NonFiniteError(msg)
    return B


def _check_name(option: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        msg = f"AMG({option}={value!r}) is unknown{nearest(str(value), known)}"
        raise OptionError(msg)
