"""What `Prepared` asks of options, of A and of an outcome: whether they suit, and how good it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsolve.errors import OptionError, SolveError, StructureError
from neuralsolve.operators.base import LinearOperator
from neuralsolve.operators.structured import CallableOperator
from neuralsolve.preconditioners.given import Given
from neuralsolve.preconditioners.relaxation import Jacobi
from neuralsolve.solvers.bounds import largest_eigenvalue
from neuralsolve.solvers.loop import Outcome
from neuralsolve.solvers.method import Method, norm
from neuralsolve.solvers.result import SolveResult
from neuralsolve.solvers.structure import Structure

CHECK_EVERY = 10  # steps on a GPU
NUMBERS = (int, float, np.integer, np.floating)


def tolerances(
    rtol: float | None, atol: float, maxiter: int | None
) -> tuple[float | None, float, int | None]:
    """Return tolerances and the cap as numbers, or refuse them."""
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not (isinstance(value, NUMBERS) and 0 <= value < float("inf")):
            msg = f"{name} is {value!r}; a number >= 0 and finite is needed"
            raise OptionError(msg)
    if maxiter is not None and not (
        isinstance(maxiter, NUMBERS) and 1 <= maxiter < 2**62 and maxiter % 1 == 0
    ):
        msg = f"maxiter is {maxiter!r}; a positive integer is needed"
        raise OptionError(msg)
    return rtol, float(atol), None if maxiter is None else int(maxiter)


def steps_unseen(check_every: int | None, device: torch.device) -> int:
    """Return how many steps are taken between two looks at the residual; by default one on the CPU."""
    if check_every is None:
        return 1 if device.type == "cpu" else CHECK_EVERY
    if isinstance(check_every, bool) or not isinstance(check_every, int | np.integer) or check_every < 1:
        msg = f"check_every is {check_every!r}; a positive number of steps is needed"
        raise OptionError(msg)
    return int(check_every)


def check_suits(method: Method, structure: Structure) -> None:
    """Refuse a method that A is not made for."""
    if method.needs == "any":
        return
    name = type(method).__name__
    if not structure.symmetric:
        msg = f"{name} needs a symmetric A, and A is not; use ns.GMRES() or ns.BiCGStab()"
        raise StructureError(msg)
    if method.needs == "spd" and structure.positive_diagonal is False and "spd" not in structure.A.props:
        msg = (
            f"{name} needs a positive definite A, and the diagonal of A has zero entries or both signs: it "
            "is indefinite; use ns.MINRES()"
        )
        raise StructureError(msg)


def check_batch(structure: Structure, method: Any, recipe: Any) -> None:
    """Refuse what does not take systems side by side, where A is a batch of them."""
    if structure.A.columns is None:
        return
    if method is not None and not (isinstance(method, Method) and method.batched):
        msg = (
            f"{type(method).__name__} takes one system at a time, and A holds {structure.A.columns} side by "
            "side; use ns.CG(), ns.FlexibleCG(), ns.MINRES() or ns.Richardson()"
        )
        raise StructureError(msg)
    if recipe is not None and not isinstance(recipe, Jacobi | Given):
        msg = (
            f"{type(recipe).__name__} is made for one system, and A holds {structure.A.columns} side by "
            "side; use M=ns.Jacobi(), a function of all columns, or no M"
        )
        raise StructureError(msg)


def kind_of(structure: Structure) -> tuple[Any, ...]:
    """Return what must stay the same for an update to keep the plan."""
    Z = structure.A.null_space
    signs = None if structure.signs is None else structure.signs.numpy().tobytes()
    spd = structure.maybe_spd
    return (
        type(structure.A),
        None if structure.numbering is None else structure.A.shape,
        structure.symmetric,
        spd,
        structure.m_matrix,
        structure.box,
        getattr(structure.A, "coefficients", None) is None,
        signs,
        None if Z is None else Z.dimension,
    )


def checked(result: SolveResult, throw: bool) -> SolveResult:
    """Return a result, or raise where it has not converged and `throw` says so."""
    if throw and not result.converged:
        msg = f"{result.status.name}: {result.status.value} [{result}]"
        raise SolveError(msg, result)
    return result


def better(a: Outcome, b: Outcome) -> bool:
    """Whether a ended nearer to the solution than b; NaN is never nearer."""
    return float(a.true_norm.max()) < float(b.true_norm.max()) or not math.isfinite(float(b.true_norm.max()))


def backward_stable(A: LinearOperator, outcome: Outcome, b: Tensor) -> bool:
    """Whether x solves exactly a system within rounding of A: no other method can do better in float64.

    The test is ||b - A x|| <= c n^(1/2) eps (||A|| ||x|| + ||b||) for every column, with a bound of ||A||_2
    (Rigal and Gaches 1967; Higham 2002, thm. 7.1).
    """
    if isinstance(A, CallableOperator) or not bool(torch.isfinite(outcome.x).all()):
        return False
    if A.symmetric:
        size = largest_eigenvalue(A)
    else:
        S = abs(A.to_scipy())
        size = math.sqrt(float(S.sum(0).max()) * float(S.sum(1).max()))  # ||A||_1 ||A||_inf >= ||A||_2^2
    rounding = 4 * math.sqrt(len(b)) * torch.finfo(torch.float64).eps
    return bool((outcome.true_norm <= rounding * (size * norm(outcome.x) + norm(b))).all())
