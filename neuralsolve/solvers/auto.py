"""The automatic choice: a list of plans, the likeliest first, each with its reason.

The rules, by what `structure.probe` saw (measured on the project's benchmark set, docs/benchmarks.md):

1. a constant-coefficient box (as a stencil, or recognised in a CSR matrix): FastPoisson, exact, O(n log n)
2. diagonal plus low rank: Woodbury; dense, or at most `SMALL` unknowns: LU
3. nothing speaks against SPD: CG, on every other stencil with geometric multigrid (in 2D up to `BOX_LIMIT`
   cells with few solids, no air and coefficients within `MILD` of each other: the inverse of the box), on
   matrices with AMG by our own aggregation, then PyAMG's, Ruge-Stueben for M-matrices and smoothed
   aggregation else; IC(0) after that
4. symmetric indefinite: MINRES, with Jacobi where the diagonal is positive
5. nonsymmetric: GMRES with ILU(0)
6. where 3 to 5 fail in a few hundred steps: sparse LU while its memory is bounded, then MINRES for longer, or
   BiCGStab and GMRES(100)

A plan that fails is followed by the next, and the explanation says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from neuralsolve.operators.batched import BatchedStencil
from neuralsolve.operators.grid import AIR
from neuralsolve.operators.nullspace import NullSpace
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.operators.structured import CallableOperator, DenseOperator, DiagonalPlusLowRank
from neuralsolve.preconditioners.amg import AMG
from neuralsolve.preconditioners.base import Recipe
from neuralsolve.preconditioners.incomplete import IncompleteCholesky, IncompleteLU
from neuralsolve.preconditioners.multigrid import Multigrid
from neuralsolve.preconditioners.relaxation import Jacobi
from neuralsolve.solvers.bicgstab import BiCGStab
from neuralsolve.solvers.direct import SparseLU
from neuralsolve.solvers.embedded import EmbeddedBox
from neuralsolve.solvers.fast_poisson import FastPoisson
from neuralsolve.solvers.gmres import GMRES
from neuralsolve.solvers.krylov import CG
from neuralsolve.solvers.loop import PATIENCE
from neuralsolve.solvers.method import Method
from neuralsolve.solvers.minres import MINRES
from neuralsolve.solvers.richardson import Richardson
from neuralsolve.solvers.structure import Structure

SMALL = 3000  # unknowns up to which a sparse LU beats any set-up
BOX_LIMIT = 150_000  # cells of a 2D stencil up to which the box around few obstacles beats multigrid
FEW = 0.02  # of the cells: solids that the inverse of the box may overlook
MILD = 1.5  # largest over smallest coefficient that it may overlook
LU_LIMIT = 60_000  # unknowns up to which the last resort may factorise: under a gigabyte even in 3D
REFINEMENTS = 10  # steps of a direct method: each gains the digits that the factorisation holds


@dataclass(frozen=True)
class Plan:
    """A method, its M, the reason, and the steps it may take and may spend without progress."""

    method: Method
    recipe: Recipe | None
    reason: str
    maxiter: int | None = None
    patience: int = PATIENCE


def plans(structure: Structure, recipe: Recipe | None = None) -> list[Plan]:
    """Return what to try for A, in order; with a recipe given, only the method is chosen."""
    if recipe is not None:
        return [_method_for(structure, recipe)]
    return list(_plans(structure))


def _method_for(structure: Structure, recipe: Recipe) -> Plan:
    seen = structure.describe()
    if structure.maybe_spd:
        return Plan(CG(), recipe, f"CG with the given M: {seen}")
    if structure.symmetric:
        return Plan(MINRES(), recipe, f"MINRES with the given M: {seen}")
    return Plan(GMRES(), recipe, f"GMRES with the given M: {seen}")


def _plans(structure: Structure) -> Iterator[Plan]:
    A, seen = structure.A, structure.describe()
    if structure.box:
        yield direct(FastPoisson(), f"FastPoisson: constant-coefficient box, {seen}")
        return
    if isinstance(A, BatchedStencil):
        yield Plan(CG(), Jacobi(), f"CG with Jacobi: {A.columns} systems side by side, {seen}")
        return
    if isinstance(A, DiagonalPlusLowRank):
        yield direct(SparseLU(), f"Woodbury identity: diagonal plus low rank, {seen}")
        return
    has_entries = not isinstance(A, CallableOperator)
    dense = isinstance(A, DenseOperator)
    if dense or (has_entries and structure.n <= SMALL):
        kind = "dense LU: a dense matrix" if dense else "SparseLU: small"
        yield direct(SparseLU(), f"{kind}, {seen}")
        factorise = False
    else:
        factorise = has_entries and structure.n <= LU_LIMIT
    if structure.maybe_spd:
        yield from _spd_plans(structure, seen, has_entries)
    elif structure.symmetric:
        yield _minres(structure, seen, 500)
    elif has_entries:
        yield Plan(GMRES(), IncompleteLU(), f"GMRES with ILU(0): {seen}", 200)
    if factorise:
        yield direct(SparseLU(), f"SparseLU: {seen}")
    if structure.symmetric:
        yield _minres(structure, seen, 3000)
        return
    if has_entries:
        yield Plan(BiCGStab(), IncompleteLU(), f"BiCGStab with ILU(0): {seen}", 1000)
    yield Plan(GMRES(restart=100), None, f"GMRES: {seen}")


def _minres(structure: Structure, seen: str, steps: int) -> Plan:
    jacobi = Jacobi() if structure.positive_diagonal else None
    return Plan(MINRES(), jacobi, f"MINRES{' with Jacobi' if jacobi else ''}: {seen}", steps)


def _spd_plans(structure: Structure, seen: str, has_entries: bool) -> Iterator[Plan]:
    if not has_entries:
        yield Plan(CG(), None, f"CG: {seen}; A is a function, so no M was built")
        return
    A = structure.A
    if isinstance(A, PoissonStencil):
        if _box_serves(A):
            yield Plan(CG(), EmbeddedBox(), f"CG with the inverse of the box around: {seen}", 60)
        yield Plan(CG(), Multigrid(), f"CG with multigrid: stencil, {seen}", 200)
    elif _only_constants(A.null_space):
        yield Plan(CG(), AMG(kind="aggregation"), f"CG with AMG (aggregation): {seen}", 200)
    kind = "rs" if structure.m_matrix else "sa"
    why = "an M-matrix" if structure.m_matrix else "couplings of both signs"
    yield Plan(CG(), AMG(kind=kind), f"CG with AMG ({kind}): {seen}, {why}", 200)
    yield Plan(CG(), IncompleteCholesky(), f"CG with IC(0): {seen}", 3000)


def _only_constants(Z: NullSpace | None) -> bool:
    """Whether the null space is none that aggregation had to be told of."""
    return Z is None or Z.basis is None


def _box_serves(A: PoissonStencil) -> bool:
    """Whether the inverse of the box around the obstacles is the faster M."""
    cells = A.grid.cells
    if cells.ndim == 3 or cells.numel() > BOX_LIMIT or bool((cells == AIR).any()):
        return False
    if int(torch.count_nonzero(cells)) > FEW * cells.numel():
        return False
    if A.coefficients is None:
        return True
    least = min(float(c.detach().min()) for c in A.coefficients)
    return least > 0 and max(float(c.detach().max()) for c in A.coefficients) <= MILD * least


def direct(recipe: Recipe, reason: str) -> Plan:
    """Return the plan of a direct method: Richardson with the factorisation, that is iterative refinement."""
    return Plan(Richardson(), recipe, reason, REFINEMENTS, patience=2)
